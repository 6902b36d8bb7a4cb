"""`client.messages`, `client.agents`, `client.dead_letters` and `client.events`: what the broker does, over REST."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aintandem._async.listing import Listing
from aintandem._async.transport import Transport, path, told_problem
from aintandem.errors import Unreachable
from aintandem.models import Accepted, Agent, DeadLetter, Event, Message, MessageType, Page, Redriven

_LONGEST_WAIT_S = 5.0


class Messages:
    """The log of a workspace, and sending into it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/messages", "messages", Page[Message])

    async def send(
        self,
        workspace_id: str,
        from_sandbox_id: str,
        to: str | Mapping[str, Any],
        content: Any,
        *,
        type: MessageType = "notification",  # noqa: A002
        **more: Any,
    ) -> Accepted:
        """Sends one; returns once a majority has it on disk, or it waits for a human (`approval_id`).

        `to` is a sandbox, or what docs/guides/control-plane.md has for topics and capabilities; `more` are further fields, such as
        `message_id`, `priority`, `correlation_id`, `ttl_seconds` or `metadata`.
        """
        target = {"sandbox_id": to} if isinstance(to, str) else dict(to)
        body = {"workspace_id": workspace_id, "from_sandbox_id": from_sandbox_id, "to": target, "type": type, "content": content, **more}
        return Accepted.model_validate(await self._transport.request("POST", "/messages", body=body))

    async def broadcast(
        self,
        workspace_id: str,
        from_sandbox_id: str,
        content: Any,
        *,
        type: MessageType = "notification",  # noqa: A002
        **more: Any,
    ) -> Accepted:
        """Tells every sandbox of the workspace but the sender."""
        body = {"workspace_id": workspace_id, "from_sandbox_id": from_sandbox_id, "type": type, "content": content, **more}
        return Accepted.model_validate(await self._transport.request("POST", "/broadcast", body=body))

    async def get(self, workspace_id: str, message_id: str) -> Message:
        """One of the log. Raises NotFound."""
        found = await self._transport.request("GET", path("messages", message_id), query={"workspace_id": workspace_id})
        return Message.model_validate(found)

    async def list(self, workspace_id: str, *, limit: int | None = None, cursor: str | None = None, **filters: Any) -> Page[Message]:
        """A page; `filters` are `sandbox_id`, `agent`, `correlation_id`, `type`, `start_time`, `end_time` and `descending`."""
        return await self._listing.page(workspace_id=workspace_id, limit=limit, cursor=cursor, **filters)

    def iter_all(self, workspace_id: str, **filters: Any) -> AsyncIterator[Message]:
        """All that fit, page by page."""
        return self._listing.items(workspace_id=workspace_id, **filters)


class Agents:
    """Who is there."""

    def __init__(self, transport: Transport) -> None:
        self._listing = Listing(transport, "/agents/discover", "agents", Page[Agent])

    async def discover(
        self,
        workspace_id: str,
        *,
        role: str | None = None,
        capability: str | None = None,
        name: str | None = None,
        online: bool | None = None,
        limit: int | None = None,
    ) -> Page[Agent]:
        """Agents for which all that is given holds."""
        return await self._listing.page(
            workspace_id=workspace_id, role=role, capability=capability, name=name, online=online, limit=limit
        )


class DeadLetters:
    """What left an inbox without being acknowledged."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/dead-letters", "dead_letters", Page[DeadLetter])

    async def list(
        self, workspace_id: str, *, sandbox_id: str | None = None, limit: int | None = None, **filters: Any
    ) -> Page[DeadLetter]:
        """Those that fit; `filters` are `reason`, `from_sandbox_id`, `correlation_id`, `type` and `sequence`."""
        return await self._listing.page(workspace_id=workspace_id, sandbox_id=sandbox_id, limit=limit, **filters)

    async def redrive(self, workspace_id: str, *, sandbox_id: str | None = None, **filters: Any) -> Redriven:
        """Puts those that fit back into their inboxes; `filters` as in `list`, and `to_sandbox_id` and `max_per_second`."""
        body = {"workspace_id": workspace_id, **filters}
        if sandbox_id is not None:
            body["sandbox_id"] = sandbox_id
        return Redriven.model_validate(await self._transport.request("POST", "/dead-letters/redrive", body=body, timeout=300.0))


class Events:
    """What happens in a workspace."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._listing = Listing(transport, "/events", "events", Page[Event], cursor="next_event")

    async def list(
        self, workspace_id: str, *, from_event: int | None = None, sandbox_id: str | None = None, limit: int | None = None
    ) -> Page[Event]:
        """A page; `next_cursor` is the `from_event` of the next one."""
        return await self._listing.page(workspace_id=workspace_id, from_event=from_event, sandbox_id=sandbox_id, limit=limit)

    async def follow(self, workspace_id: str, *, from_event: int | None = None, sandbox_id: str | None = None) -> AsyncIterator[Event]:
        """As they happen, without an end; goes on after a break behind the last one. Raises ApiError where no retry helps."""
        last_id, failures = "", 0
        while True:
            query = {
                "workspace_id": workspace_id,
                "sandbox_id": sandbox_id,
                "follow": True,
                "from_event": None if last_id else from_event,
            }
            try:
                async for name, identity, data in self._transport.events("/events", query=query, last_id=last_id):
                    failures = 0
                    if name == "problem":
                        raise told_problem(data)
                    if identity:
                        last_id = identity
                    said = json.loads(data)
                    if isinstance(said, dict) and "type" in said:
                        yield Event.model_validate(said)
            except Unreachable:
                if not last_id and from_event is None:
                    raise  # Nobody knows where it began, so nobody could go on without a gap.
            failures += 1
            await asyncio.sleep(min(0.1 * 2.0**failures, _LONGEST_WAIT_S))
