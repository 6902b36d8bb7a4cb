"""A connection to a broker, and what can be done with it."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any

from aintandem_agent_sdk import errors
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import message_pb2
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import publish_service_pb2 as publishing
from aintandem_agent_sdk._proto.aintandem.messaging.v1 import request_service_pb2 as asking
from aintandem_agent_sdk._proto.aintandem.server.v1 import server_service_pb2 as server
from aintandem_agent_sdk._proto.aintandem.workspace.v1 import workspace_service_pb2 as workspaces
from aintandem_agent_sdk.backoff import pause
from aintandem_agent_sdk.calls import Caller, is_worth_a_retry
from aintandem_agent_sdk.dead_letters import DeadLetters
from aintandem_agent_sdk.history import History
from aintandem_agent_sdk.ids import new_id
from aintandem_agent_sdk.messages import Message, check_size, duration
from aintandem_agent_sdk.outbox import Receipt
from aintandem_agent_sdk.policies import Approvals, Policies
from aintandem_agent_sdk.publisher import Publisher
from aintandem_agent_sdk.registry import Registry
from aintandem_agent_sdk.rpc import method
from aintandem_agent_sdk.settings import Settings, endpoints_of
from aintandem_agent_sdk.subscription import Subscription
from aintandem_agent_sdk.topics import Topics

_log = logging.getLogger(__name__)
_PUBLISH = method("messaging.Publish", "Publish", publishing.PublishRequest, publishing.PublishResponse)
_REQUEST = method("messaging.Request", "Request", asking.RequestRequest, asking.RequestResponse)
_INFO = method("server.Server", "GetServerInfo", server.GetServerInfoRequest, server.GetServerInfoResponse)
_CREATE = method("workspace.Workspace", "CreateWorkspace", workspaces.CreateWorkspaceRequest, workspaces.CreateWorkspaceResponse)
_GET = method("workspace.Workspace", "GetWorkspace", workspaces.GetWorkspaceRequest, workspaces.GetWorkspaceResponse)
_DELETE = method("workspace.Workspace", "DeleteWorkspace", workspaces.DeleteWorkspaceRequest, workspaces.DeleteWorkspaceResponse)
# How much longer than the broker this side waits, so that the broker's own word on the timeout arrives.
_GRACE_S = 5.0
_SHORTEST_REQUEST_S = 0.1


class Client:
    """One workspace of a broker. Connects with the first call; `close` it, or use it with `async with`."""

    def __init__(
        self,
        endpoints: str | list[str] | Settings = "http://127.0.0.1:8001",
        *,
        workspace_id: str = "default",
        **settings: Any,
    ) -> None:
        """`endpoints` is a URL, several with commas in between or in a list, or all settings; `settings` are fields of `Settings`.

        Raises InvalidEndpoint or InvalidSettings.
        """
        if not isinstance(endpoints, Settings):
            endpoints = Settings(endpoints=endpoints_of(endpoints), **settings)
        elif settings:
            raise TypeError("settings are given twice")
        self.workspace_id = workspace_id
        self._caller = Caller(endpoints)

    @property
    def settings(self) -> Settings:
        """What the client was told."""
        return self._caller.settings

    @property
    def registry(self) -> Registry:
        """Sandboxes and agents."""
        return Registry(self._caller, self.workspace_id)

    @property
    def topics(self) -> Topics:
        """Topics, and who follows them."""
        return Topics(self._caller, self.workspace_id)

    @property
    def dead_letters(self) -> DeadLetters:
        """What left an inbox without being acknowledged."""
        return DeadLetters(self._caller, self.workspace_id)

    @property
    def policies(self) -> Policies:
        """Who may say what to whom."""
        return Policies(self._caller, self.workspace_id)

    @property
    def approvals(self) -> Approvals:
        """What waits for a human."""
        return Approvals(self._caller, self.workspace_id)

    @property
    def history(self) -> History:
        """The log."""
        return History(self._caller, self.workspace_id)

    async def server_info(self) -> server.GetServerInfoResponse:
        """Version, shards with their leaders, members and limits."""
        return await self._caller.unary(_INFO, server.GetServerInfoRequest())

    async def create_workspace(self) -> None:
        """Creates the workspace of this client. Raises Refused with WORKSPACE_EXISTS."""
        await self._caller.unary(_CREATE, workspaces.CreateWorkspaceRequest(workspace_id=self.workspace_id))

    async def get_workspace(self) -> workspaces.Workspace:
        """The workspace of this client, as the broker has it."""
        return (await self._caller.unary(_GET, workspaces.GetWorkspaceRequest(workspace_id=self.workspace_id))).workspace

    async def delete_workspace(self) -> None:
        """Deletes the workspace of this client with its log and inboxes, at once and for good."""
        await self._caller.unary(_DELETE, workspaces.DeleteWorkspaceRequest(workspace_id=self.workspace_id))

    async def publisher(self, **options: Any) -> Publisher:
        """A publisher with batches and positions, for many messages; `options` are those of `Publisher`. Close it."""
        publisher = Publisher(self._caller, self.workspace_id, **options)
        info = await self.server_info()
        if info.limits.max_message_bytes:
            publisher.limit_messages_to(info.limits.max_message_bytes)
        return publisher

    async def publish(self, message: message_pb2.Message) -> Receipt:
        """Publishes one message and returns once a majority has it on disk.

        A message without an id gets one, so that a retry is never a second message. Raises TandemError, and of that
        Invalid with MESSAGE_TOO_LARGE, before anything is sent, for more than `max_message_bytes` of the settings has room for.
        """
        if not message.message_id:
            message.message_id = new_id()
        check_size(message, self.settings.max_message_bytes)
        request = publishing.PublishRequest(workspace_id=self.workspace_id, message=message)
        answer = await self._caller.unary(_PUBLISH, request, workspace_id=self.workspace_id)
        return Receipt(answer.message_id or message.message_id, answer.sequence, answer.duplicate, answer.approval_id)

    async def request(self, message: message_pb2.Message, timeout: float = 30.0) -> Message:
        """Publishes a request or command to a sandbox, or to one that has a capability, and returns the response.

        `timeout` is 0.1 s to a day. While the broker is unavailable the call is made again until the timeout ends; the request is
        published once. Raises Refused with RESPONSE_TIMEOUT when no response came (a later one goes to the inbox of the sender), and
        Undeliverable when the request became a dead letter or expired.
        """
        message.message_id = message.message_id or new_id()
        message.correlation_id = message.correlation_id or new_id()
        check_size(message, self.settings.max_message_bytes)
        loop = asyncio.get_running_loop()
        deadline, attempt, wait = loop.time() + timeout, 1, timeout
        while True:
            node = self._caller.nodes.pick(self.workspace_id)
            request = asking.RequestRequest(workspace_id=self.workspace_id, message=message, timeout=duration(wait))
            try:
                answer = await self._caller.once(node, _REQUEST, request, workspace_id=self.workspace_id, timeout=wait + _GRACE_S)
                break
            except errors.TandemError as error:
                if isinstance(error, (errors.Unreachable, errors.ConnectionLost, errors.TimedOut)):
                    self._caller.nodes.failed(node)
                rest = pause(error.retry_after, attempt)
                if not is_worth_a_retry(error) or loop.time() + rest >= deadline:
                    raise
                _log.debug("the request is tried again in %.2f s: %s", rest, error)
                await asyncio.sleep(rest)
                attempt += 1
                wait = max(deadline - loop.time(), _SHORTEST_REQUEST_S)
        if (undeliverable := errors.undeliverable_from(answer.message)) is not None:
            raise undeliverable
        return Message(answer.message)

    def subscription(self, sandbox_id: str, **options: Any) -> Subscription:
        """The inbox of a registered sandbox, to be opened with `async with`; `options` are those of `Subscription`."""
        return Subscription(self._caller, self.workspace_id, sandbox_id, **options)

    async def close(self) -> None:
        """Ends all connections, and the streams on them."""
        await self._caller.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
