"""`client.sandboxes`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aintandem._async.transport import Transport, path
from aintandem.models import ExecResult, LogLine, Page, Sandbox, SandboxStats, SandboxStatus


class Sandboxes:
    """Containers with agent teams in them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        workspace_id: str,
        name: str,
        *,
        agent_config: Mapping[str, Any],
        resources: Mapping[str, Any] | None = None,
        mcp_servers: Sequence[str] | None = None,
        **more: Any,
    ) -> Sandbox:
        """Has one started: the answer comes once that is wanted for good, `get_status` says when it runs.

        `agent_config` has `primary_agent` and `sub_agents`; `resources` for example `memory_mb`, `cpu_cores` and `timeout_seconds`;
        `more` are further fields of the request, such as `image`, `environment` or `restart_policy`.
        """
        body: dict[str, Any] = {"workspace_id": workspace_id, "name": name, "agent_config": dict(agent_config), **more}
        if resources is not None:
            body["resources"] = dict(resources)
        if mcp_servers is not None:
            body["mcp_servers"] = list(mcp_servers)
        return Sandbox.model_validate(await self._transport.request("POST", "/sandboxes", body=body))

    async def get(self, sandbox_id: str) -> Sandbox:
        """One of them. Raises NotFound."""
        return Sandbox.model_validate(await self._transport.request("GET", path("sandboxes", sandbox_id)))

    async def list(
        self, *, workspace_id: str | None = None, limit: int | None = None, cursor: str | None = None, **filters: Any
    ) -> Page[Sandbox]:
        """A page; `filters` are further parameters, such as `state` or `sort`."""
        query = {"workspace_id": workspace_id, "limit": limit, "cursor": cursor, **filters}
        found = await self._transport.request("GET", "/sandboxes", query=query)
        items = [Sandbox.model_validate(one) for one in found["sandboxes"]]
        return Page[Sandbox](items=items, next_cursor=found.get("next_cursor"))

    async def update(self, sandbox_id: str, **changes: Any) -> Sandbox:
        """Changes the fields that are given."""
        return Sandbox.model_validate(await self._transport.request("PATCH", path("sandboxes", sandbox_id), body=changes))

    async def get_status(self, sandbox_id: str) -> SandboxStatus:
        """How it is: desired and actual state, health."""
        return SandboxStatus.model_validate(await self._transport.request("GET", path("sandboxes", sandbox_id, "status")))

    async def get_stats(self, sandbox_id: str) -> SandboxStats:
        """What it takes of memory, processor, network and disk."""
        return SandboxStats.model_validate(await self._transport.request("GET", path("sandboxes", sandbox_id, "stats")))

    async def get_logs(self, sandbox_id: str, *, tail: int | None = None, since: str | None = None) -> Any:
        """What it has printed: the last `tail` lines, or those since a time (RFC 3339); as the control plane answers."""
        return await self._transport.request("GET", path("sandboxes", sandbox_id, "logs"), query={"tail": tail, "since": since})

    async def follow_logs(self, sandbox_id: str, *, tail: int | None = None, since: str | None = None) -> AsyncIterator[LogLine]:
        """What it prints, as it does; ends with the connection."""
        query = {"tail": tail, "since": since, "follow": True}
        async for _, _, data in self._transport.events(path("sandboxes", sandbox_id, "logs"), query=query):
            yield _line(data)

    async def start(self, sandbox_id: str) -> Sandbox:
        """Lets it run."""
        return await self._act(sandbox_id, "start")

    async def stop(self, sandbox_id: str) -> Sandbox:
        """Ends its container; its inbox waits."""
        return await self._act(sandbox_id, "stop")

    async def restart(self, sandbox_id: str) -> Sandbox:
        """Ends its container and starts it again."""
        return await self._act(sandbox_id, "restart")

    async def exec(self, sandbox_id: str, command: Sequence[str], *, timeout: float = 60.0, **more: Any) -> ExecResult:
        """Runs a command in it and returns what it came to; not repeated when the connection breaks."""
        where, body = path("sandboxes", sandbox_id, "exec"), {"command": list(command), **more}
        return ExecResult.model_validate(await self._transport.request("POST", where, body=body, timeout=timeout, key=False))

    async def delete(self, sandbox_id: str, **options: Any) -> None:
        """Removes it with its container and inbox; `options` are parameters of the request, such as `force`."""
        await self._transport.request("DELETE", path("sandboxes", sandbox_id), query=options)

    async def _act(self, sandbox_id: str, verb: str) -> Sandbox:
        return Sandbox.model_validate(await self._transport.request("POST", path("sandboxes", sandbox_id, verb)))


def _line(data: str) -> LogLine:
    try:
        said = json.loads(data)
    except ValueError:
        said = None
    if isinstance(said, dict):
        return LogLine.model_validate({"text": said.get("line", said.get("message", "")), **said})
    return LogLine(text=data)
