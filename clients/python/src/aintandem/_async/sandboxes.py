"""`client.sandboxes`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from aintandem._async.listing import Listing
from aintandem._async.transport import Transport, path, told_problem
from aintandem.bodies import KEEP, Change, changes, given, if_match, when
from aintandem.models import (
    AgentConfig,
    ExecResult,
    Handler,
    LogLine,
    Page,
    Resources,
    RestartPolicy,
    Sandbox,
    SandboxStats,
    SandboxStatus,
)

Plain = Mapping[str, Any]


class Sandboxes:
    """Containers with agent teams in them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/sandboxes", "sandboxes", Page[Sandbox])

    async def create(
        self,
        workspace_id: str,
        name: str,
        *,
        agent_config: AgentConfig | Plain | None = None,
        resources: Resources | Plain | None = None,
        mcp_servers: Sequence[str] | None = None,
        description: str | None = None,
        environment: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        image: str | None = None,
        command: Sequence[str] | None = None,
        handler: Handler | Plain | None = None,
        restart_policy: RestartPolicy | Plain | None = None,
        idle_timeout_seconds: int | None = None,
        wake_on_message: bool | None = None,
    ) -> Sandbox:
        """Has one started: the answer comes once that is wanted for good, `get_status` says when it runs.

        `name` has 1 to 63 small letters, digits and hyphens, none of those at its ends; it is the only one of its workspace, and messages
        are addressed to it. `description` has up to 2,000 characters. `mcp_servers` are up to 64 names of MCP servers of the workspace.
        `environment` are up to 256 variables of up to 4,096 bytes, which whoever may read the sandbox reads; `labels` up to 60.
        `image` is one of the host that was made from that of AInTandem. Either `command` stays (up to 256 words), or `handler` runs for
        each message. It is stopped after `idle_timeout_seconds` (5 to 2,592,000) of doing next to nothing, and with `wake_on_message`
        started again when a message waits. What is left out is as `Resources` and the others say.

        Raises Conflict with NAME_TAKEN, TooMany with TOO_MANY_SANDBOXES, NotFound with UNKNOWN_MCP_SERVER, InvalidRequest with
        UNKNOWN_IMAGE, SANDBOX_ENDED or SANDBOX_REFUSED, Unavailable with DOCKER_UNAVAILABLE or HOST_FULL.
        """
        body = given(
            workspace_id=workspace_id,
            name=name,
            agent_config=agent_config,
            resources=resources,
            mcp_servers=mcp_servers,
            description=description,
            environment=environment,
            labels=labels,
            image=image,
            command=command,
            handler=handler,
            restart_policy=restart_policy,
            idle_timeout_seconds=idle_timeout_seconds,
            wake_on_message=wake_on_message,
        )
        return Sandbox.model_validate(await self._transport.request("POST", "/sandboxes", body=body))

    async def get(self, sandbox_id: str) -> Sandbox:
        """One of them. Raises NotFound with UNKNOWN_SANDBOX."""
        return Sandbox.model_validate(await self._transport.request("GET", path("sandboxes", sandbox_id)))

    async def list(
        self,
        *,
        workspace_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        sort: str | None = None,
        state: str | None = None,
        name_prefix: str | None = None,
    ) -> Page[Sandbox]:
        """A page, of all workspaces that the caller may see where none is named.

        `limit` is 1 to 500 (50 by default); `sort` is `name`, `create_time` or `update_time`, with `-` the other way.
        """
        return await self._listing.page(
            workspace_id=workspace_id, limit=limit, cursor=cursor, sort=sort, state=state, name_prefix=name_prefix
        )

    def iter_all(
        self, *, workspace_id: str | None = None, sort: str | None = None, state: str | None = None, name_prefix: str | None = None
    ) -> AsyncIterator[Sandbox]:
        """All that fit, page by page."""
        return self._listing.items(workspace_id=workspace_id, sort=sort, state=state, name_prefix=name_prefix)

    async def update(
        self,
        sandbox_id: str,
        *,
        agent_config: Change[AgentConfig | Plain] = KEEP,
        resources: Change[Resources | Plain] = KEEP,
        mcp_servers: Change[Sequence[str]] = KEEP,
        description: Change[str] = KEEP,
        environment: Change[Mapping[str, str | None]] = KEEP,
        labels: Change[Mapping[str, str | None]] = KEEP,
        image: Change[str] = KEEP,
        command: Change[Sequence[str]] = KEEP,
        handler: Change[Handler | Plain] = KEEP,
        restart_policy: Change[RestartPolicy | Plain] = KEEP,
        idle_timeout_seconds: Change[int] = KEEP,
        wake_on_message: Change[bool] = KEEP,
        if_revision: int | None = None,
    ) -> Sandbox:
        """Changes what is given from its next start on, and sets back what is None. Objects are merged, lists are replaced.

        Its name and its workspace stay. Raises Conflict with REVISION_CHANGED where it has another `if_revision`.
        """
        body = changes(
            agent_config=agent_config,
            resources=resources,
            mcp_servers=mcp_servers,
            description=description,
            environment=environment,
            labels=labels,
            image=image,
            command=command,
            handler=handler,
            restart_policy=restart_policy,
            idle_timeout_seconds=idle_timeout_seconds,
            wake_on_message=wake_on_message,
        )
        where, headers = path("sandboxes", sandbox_id), if_match(if_revision)
        return Sandbox.model_validate(await self._transport.request("PATCH", where, body=body, headers=headers))

    async def get_status(self, sandbox_id: str) -> SandboxStatus:
        """What it does, and what has become of it."""
        return SandboxStatus.model_validate(await self._transport.request("GET", path("sandboxes", sandbox_id, "status")))

    async def get_stats(self, sandbox_id: str) -> SandboxStats:
        """What it takes of memory, processor, network and disk. Raises Conflict with SANDBOX_NOT_RUNNING."""
        return SandboxStats.model_validate(await self._transport.request("GET", path("sandboxes", sandbox_id, "stats")))

    async def get_logs(self, sandbox_id: str, *, tail: int | None = None, since: datetime | str | None = None) -> Sequence[LogLine]:
        """What it has printed: the last `tail` lines (1 to 10,000, 100 by default), from a time on. The newest 10 MiB are kept."""
        query = {"tail": tail, "since": when(since)}
        found = await self._transport.request("GET", path("sandboxes", sandbox_id, "logs"), query=query)
        return [LogLine.model_validate(one) for one in found["lines"]]

    async def follow_logs(
        self, sandbox_id: str, *, tail: int | None = None, since: datetime | str | None = None
    ) -> AsyncIterator[LogLine]:
        """The same, and what it prints from now on; ends when it does. Raises ApiError where it breaks off."""
        query = {"tail": tail, "since": when(since), "follow": True}
        async for name, _, data in self._transport.events(path("sandboxes", sandbox_id, "logs"), query=query):
            if name == "problem":
                raise told_problem(data)
            if name == "line":
                yield LogLine.model_validate(json.loads(data))

    async def start(self, sandbox_id: str) -> Sandbox:
        """Lets it run; one that runs is left alone."""
        return await self._act(sandbox_id, "start")

    async def stop(self, sandbox_id: str) -> Sandbox:
        """Ends its container; its inbox waits."""
        return await self._act(sandbox_id, "stop")

    async def restart(self, sandbox_id: str) -> Sandbox:
        """Ends its container and starts it again."""
        return await self._act(sandbox_id, "restart")

    async def exec(
        self,
        sandbox_id: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: int | None = None,
        timeout: float = 60.0,
    ) -> ExecResult:
        """Runs a command (1 to 256 words, 128 KiB in all) in it; not repeated when the connection breaks.

        `environment` is beside that of the sandbox. After `timeout_seconds` (1 to 25, 10 by default) the command runs on, and its result
        has no `exit_code`. `timeout` is for the answer, in seconds. Raises Conflict with SANDBOX_NOT_RUNNING, or with
        SANDBOX_FULL when it is at its limit of processes or of memory.
        """
        where, body = (
            path("sandboxes", sandbox_id, "exec"),
            given(command=command, environment=environment, timeout_seconds=timeout_seconds),
        )
        return ExecResult.model_validate(await self._transport.request("POST", where, body=body, timeout=timeout, key=False))

    async def delete(self, sandbox_id: str, *, if_revision: int | None = None) -> Sandbox | None:
        """Removes it with its data and its inbox. Returns it while that takes time, and None once it is gone.

        Raises Conflict with REVISION_CHANGED where it has another `if_revision`.
        """
        found = await self._transport.request("DELETE", path("sandboxes", sandbox_id), headers=if_match(if_revision))
        return None if found is None else Sandbox.model_validate(found)

    async def _act(self, sandbox_id: str, verb: str) -> Sandbox:
        return Sandbox.model_validate(await self._transport.request("POST", path("sandboxes", sandbox_id, verb)))
