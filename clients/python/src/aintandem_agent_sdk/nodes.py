"""Connections to the nodes of a broker: which there are, which one is used, and which one leads a workspace.

Any node serves every request. One is used until it fails, and then the next; what an answer said about who leads spares the hop
from the one that was asked to the one that decides.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any

import grpc

from aintandem_agent_sdk.errors import InvalidSettings, Unreachable
from aintandem_agent_sdk.settings import Settings, split_endpoint

if TYPE_CHECKING:
    from aintandem_agent_sdk.rpc import Method

_log = logging.getLogger(__name__)
# A leader that failed is not gone straight to for so many seconds.
_AVOID_S = 10.0
# More are forgotten: the next answers name them again.
_MAX_WORKSPACES = 1024
_MAX_LEADERS = 64
# While a connection is being tried again by gRPC itself, a call waits so long for it.
_RECONNECT_S = 1.0
_LEADER = "aintandem-leader"


class Node:
    """One endpoint, connected when it is first used."""

    def __init__(self, endpoint: str, settings: Settings) -> None:
        self.endpoint = endpoint
        self._settings = settings
        self._channel: grpc.aio.Channel | None = None
        self._callables: dict[tuple[str, str], Any] = {}

    def unary(self, method: Method[Any, Any]) -> Any:
        """The callable of gRPC for a method with one request and one answer."""
        return self._callable("unary_unary", method)

    def answers(self, method: Method[Any, Any]) -> Any:
        """For a method with one request and many answers."""
        return self._callable("unary_stream", method)

    def stream(self, method: Method[Any, Any]) -> Any:
        """For a method with many of both."""
        return self._callable("stream_stream", method)

    async def connected(self, within: float) -> None:
        """Returns once there is a connection. Raises Unreachable; nothing was sent then."""
        channel = self._open()
        loop = asyncio.get_running_loop()
        state = channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return
        had_failed = state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        deadline = loop.time() + (min(within, _RECONNECT_S) if had_failed else within)
        while state is not grpc.ChannelConnectivity.READY:
            try:
                await asyncio.wait_for(channel.wait_for_state_change(state), deadline - loop.time())
            except asyncio.TimeoutError:
                raise Unreachable(f"cannot connect to {self.endpoint}: no broker answers there") from None
            state = channel.get_state(try_to_connect=True)
            has_failed = state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
            if state is grpc.ChannelConnectivity.SHUTDOWN or (has_failed and not had_failed):
                raise Unreachable(f"cannot connect to {self.endpoint}: nobody listens there, or it speaks something else")

    async def close(self) -> None:
        """Ends the connection, and the calls on it."""
        channel, self._channel = self._channel, None
        self._callables.clear()
        if channel is not None:
            await channel.close(None)

    def _callable(self, kind: str, method: Method[Any, Any]) -> Any:
        key = (kind, method.path)
        found = self._callables.get(key)
        if found is None:
            make = getattr(self._open(), kind)
            found = make(method.path, request_serializer=method.serialise, response_deserializer=method.parse)
            self._callables[key] = found
        return found

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            options = _options(self._settings)
            scheme, address = split_endpoint(self.endpoint)
            if scheme == "https":
                self._channel = grpc.aio.secure_channel(address, _credentials(self._settings), options=options)
            else:
                self._channel = grpc.aio.insecure_channel(address, options=options)
        return self._channel


class Nodes:
    """All endpoints of a client."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._nodes = [Node(endpoint, settings) for endpoint in settings.endpoints]
        # Clients spread over the nodes.
        self._current = random.randrange(len(self._nodes))
        self._leader_of: dict[str, str] = {}
        self._leaders: dict[str, Node] = {}
        self._avoided: dict[str, float] = {}

    @property
    def are_several(self) -> bool:
        """Whether there is another one to go to."""
        return len(self._nodes) > 1

    def pick(self, workspace_id: str | None = None) -> Node:
        """The node to ask: the leader of the workspace where it is known and has not failed, or the current one."""
        address = self._leader_of.get(workspace_id or "")
        if address is None or time.monotonic() < self._avoided.get(address, 0.0):
            return self._nodes[self._current]
        leader = self._leaders.get(address)
        if leader is None:
            scheme = "https" if self._settings.is_encrypted else "http"
            same = [node for node in self._nodes if split_endpoint(node.endpoint)[1] == address]
            leader = same[0] if same else Node(f"{scheme}://{address}", self._settings)
            if len(self._leaders) >= _MAX_LEADERS:
                self._leader_of.clear()  # The nodes stay, and their connections: streams may use them.
            self._leaders[address] = leader
        return leader

    def failed(self, node: Node) -> None:
        """It did not answer: go to another one next."""
        self._avoided[split_endpoint(node.endpoint)[1]] = time.monotonic() + _AVOID_S
        if self._nodes[self._current] is node and self.are_several:
            self._current = (self._current + 1) % len(self._nodes)
            _log.info("%s does not answer; going on with %s", node.endpoint, self._nodes[self._current].endpoint)

    def note(self, workspace_id: str | None, metadata: Any) -> None:
        """Takes note of who leads, where the answer of another node says so."""
        if workspace_id is None or not self._settings.follow_leader or metadata is None:
            return
        for key, value in metadata:
            if key == _LEADER and isinstance(value, str):
                _, _, address = value.partition("=")
                if address:
                    if len(self._leader_of) >= _MAX_WORKSPACES:
                        self._leader_of.clear()
                    self._leader_of[workspace_id] = address

    async def close(self) -> None:
        """Ends all connections."""
        for node in {*self._nodes, *self._leaders.values()}:
            await node.close()


def _options(settings: Settings) -> list[tuple[str, Any]]:
    return [
        ("grpc.keepalive_time_ms", int(settings.keepalive_interval * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", int(settings.connect_timeout * 1000)),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.primary_user_agent", settings.user_agent),
        # Retries are this package's own: gRPC's would know neither budget nor leader.
        ("grpc.enable_retries", 0),
        # Clients of one process do not share a connection: closing one must not disturb another.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def _credentials(settings: Settings) -> grpc.ChannelCredentials:
    def read(name: str) -> bytes | None:
        path = getattr(settings, name)
        if path is None:
            return None
        try:
            return bytes(path.read_bytes())
        except OSError as error:
            raise InvalidSettings(f"{name} cannot be read: {error}") from error

    return grpc.ssl_channel_credentials(read("ca_file"), read("key_file"), read("cert_file"))
