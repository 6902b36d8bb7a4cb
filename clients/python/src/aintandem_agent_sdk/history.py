"""The log of a workspace, read without touching any inbox."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aintandem_agent_sdk._proto.aintandem.messaging.v1 import event_service_pb2 as events
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import history_service_pb2 as wire
from aintandem_agent_sdk.calls import Caller
from aintandem_agent_sdk.messages import Message
from aintandem_agent_sdk.rpc import method

_GET = method("messaging.History", "GetMessage", wire.GetMessageRequest, wire.GetMessageResponse)
_LIST = method("messaging.History", "ListMessages", wire.ListMessagesRequest, wire.ListMessagesResponse)
_EVENTS = method("messaging.Event", "StreamEvents", events.StreamEventsRequest, events.StreamEventsResponse)


class History:
    """Of one workspace."""

    def __init__(self, caller: Caller, workspace_id: str) -> None:
        self._caller = caller
        self._workspace_id = workspace_id

    async def get(self, message_id: str) -> Message:
        """One message. Raises NotFound."""
        request = wire.GetMessageRequest(workspace_id=self._workspace_id, message_id=message_id)
        return Message((await self._caller.unary(_GET, request, workspace_id=self._workspace_id)).message)

    async def list(
        self,
        *,
        sandbox_id: str = "",
        agent: str = "",
        correlation_id: str = "",
        from_sequence: int = 0,
        to_sequence: int = 0,
        descending: bool = False,
    ) -> AsyncIterator[Message]:
        """Messages for which all that is given holds, by sequence. A sandbox or agent: sent by it, or to it by name."""
        token = ""
        while True:
            request = wire.ListMessagesRequest(
                workspace_id=self._workspace_id,
                sandbox_id=sandbox_id,
                agent=agent,
                correlation_id=correlation_id,
                from_sequence=from_sequence,
                to_sequence=to_sequence,
                descending=descending,
                page_size=1000,
                page_token=token,
            )
            answer = await self._caller.unary(_LIST, request, workspace_id=self._workspace_id)
            for message in answer.messages:
                yield Message(message)
            token = answer.next_page_token
            if not token:
                return

    async def events(self, *, from_event: int = 0, follow: bool = False, sandbox_id: str = "") -> AsyncIterator[events.Event]:
        """What happens in the workspace, from an event on (0: from now on). With `follow` without an end; ends with the connection."""
        request = events.StreamEventsRequest(workspace_id=self._workspace_id, from_event=from_event, follow=follow, sandbox_id=sandbox_id)
        async for answer in self._caller.answers(_EVENTS, request):
            for event in answer.events:
                yield event
