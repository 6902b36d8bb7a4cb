"""Sandboxes of a workspace and the agents in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from aintandem_agent_sdk._proto.aintandem.registry.v1 import registry_service_pb2 as wire
from aintandem_agent_sdk.calls import Caller
from aintandem_agent_sdk.messages import duration
from aintandem_agent_sdk.rpc import method

_REGISTER = method("registry.Registry", "RegisterSandbox", wire.RegisterSandboxRequest, wire.RegisterSandboxResponse)
_HEARTBEAT = method("registry.Registry", "Heartbeat", wire.HeartbeatRequest, wire.HeartbeatResponse)
_GET = method("registry.Registry", "GetSandbox", wire.GetSandboxRequest, wire.GetSandboxResponse)
_LIST = method("registry.Registry", "ListSandboxes", wire.ListSandboxesRequest, wire.ListSandboxesResponse)
_DISCOVER = method("registry.Registry", "DiscoverAgents", wire.DiscoverAgentsRequest, wire.DiscoverAgentsResponse)
_UNREGISTER = method("registry.Registry", "UnregisterSandbox", wire.UnregisterSandboxRequest, wire.UnregisterSandboxResponse)


@dataclass(frozen=True)
class Agent:
    """A named actor inside a sandbox, with a role and up to 64 capabilities."""

    name: str
    role: str = ""
    capabilities: Sequence[str] = ()


@dataclass(frozen=True)
class RetryPolicy:
    """How failed deliveries are repeated: attempts in all (1 to 1,000), and seconds before the second one, doubled up to the last."""

    max_attempts: int | None = None
    initial_backoff: float | None = None
    max_backoff: float | None = None


@dataclass(frozen=True)
class Sandbox:
    """A registered participant with one durable inbox."""

    id: str
    agents: tuple[Agent, ...]
    labels: Mapping[str, str]
    is_online: bool
    pending: int
    """Messages that wait to be acknowledged, those out included."""
    deferred: int
    """Of these, those that wait for their time or their next attempt."""
    dead_letters: int
    created: bool = False
    """Of a registration: whether the sandbox was new."""


@dataclass(frozen=True)
class FoundAgent:
    """An agent that `discover` has found."""

    sandbox_id: str
    name: str
    role: str
    capabilities: tuple[str, ...]
    is_online: bool


class Registry:
    """Of one workspace."""

    def __init__(self, caller: Caller, workspace_id: str) -> None:
        self._caller = caller
        self._workspace_id = workspace_id

    async def register(
        self,
        sandbox_id: str,
        *,
        agents: Sequence[Agent] = (),
        labels: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        max_messages: int = 0,
        max_bytes: int = 0,
    ) -> Sandbox:
        """Gives a sandbox an inbox. Doing it again replaces agents and labels and keeps the inbox.

        `max_messages` and `max_bytes` limit what may wait; 0 is as the server says.
        """
        sandbox = wire.Sandbox(sandbox_id=sandbox_id, labels=dict(labels or {}))
        for agent in agents:
            sandbox.agents.add(name=agent.name, role=agent.role, capabilities=list(agent.capabilities))
        if retry is not None:
            sandbox.retry_policy.max_attempts = retry.max_attempts or 0
            if retry.initial_backoff is not None:
                sandbox.retry_policy.initial_backoff.CopyFrom(duration(retry.initial_backoff))
            if retry.max_backoff is not None:
                sandbox.retry_policy.max_backoff.CopyFrom(duration(retry.max_backoff))
        if max_messages or max_bytes:
            sandbox.inbox_limits.max_messages = max_messages
            sandbox.inbox_limits.max_bytes = max_bytes
        request = wire.RegisterSandboxRequest(workspace_id=self._workspace_id, sandbox=sandbox)
        answer = await self._caller.unary(_REGISTER, request, workspace_id=self._workspace_id)
        return _sandbox(answer.sandbox, created=answer.created)

    async def heartbeat(self, sandbox_id: str) -> None:
        """Says that a sandbox is alive; an open subscription says so too."""
        request = wire.HeartbeatRequest(workspace_id=self._workspace_id, sandbox_id=sandbox_id)
        await self._caller.unary(_HEARTBEAT, request, workspace_id=self._workspace_id)

    async def get(self, sandbox_id: str) -> Sandbox:
        """One sandbox. Raises NotFound."""
        request = wire.GetSandboxRequest(workspace_id=self._workspace_id, sandbox_id=sandbox_id)
        return _sandbox((await self._caller.unary(_GET, request, workspace_id=self._workspace_id)).sandbox)

    async def list(self) -> AsyncIterator[Sandbox]:
        """All sandboxes, by id."""
        token = ""
        while True:
            request = wire.ListSandboxesRequest(workspace_id=self._workspace_id, page_size=1000, page_token=token)
            answer = await self._caller.unary(_LIST, request, workspace_id=self._workspace_id)
            for sandbox in answer.sandboxes:
                yield _sandbox(sandbox)
            token = answer.next_page_token
            if not token:
                return

    async def discover(
        self, *, role: str = "", capability: str = "", agent: str = "", online: bool | None = None
    ) -> Sequence[FoundAgent]:
        """Agents for which all that is given holds, by sandbox and name."""
        liveness = wire.LIVENESS_UNSPECIFIED
        if online is not None:
            liveness = wire.LIVENESS_ONLINE if online else wire.LIVENESS_OFFLINE
        found: list[FoundAgent] = []
        token = ""
        while True:
            request = wire.DiscoverAgentsRequest(
                workspace_id=self._workspace_id,
                role=role,
                capability=capability,
                agent_name=agent,
                liveness=liveness,
                page_size=1000,
                page_token=token,
            )
            answer = await self._caller.unary(_DISCOVER, request, workspace_id=self._workspace_id)
            found += [
                FoundAgent(
                    one.sandbox_id,
                    one.agent.name,
                    one.agent.role,
                    tuple(one.agent.capabilities),
                    one.liveness == wire.LIVENESS_ONLINE,
                )
                for one in answer.agents
            ]
            token = answer.next_page_token
            if not token:
                return found

    async def unregister(self, sandbox_id: str) -> int:
        """Removes a sandbox with its inbox; returns how many messages that gives up."""
        request = wire.UnregisterSandboxRequest(workspace_id=self._workspace_id, sandbox_id=sandbox_id)
        return (await self._caller.unary(_UNREGISTER, request, workspace_id=self._workspace_id)).abandoned_messages


def _sandbox(found: wire.Sandbox, *, created: bool = False) -> Sandbox:
    return Sandbox(
        id=found.sandbox_id,
        agents=tuple(Agent(agent.name, agent.role, tuple(agent.capabilities)) for agent in found.agents),
        labels=dict(found.labels),
        is_online=found.liveness == wire.LIVENESS_ONLINE,
        pending=found.pending_messages,
        deferred=found.deferred_messages,
        dead_letters=found.dead_letters,
        created=created,
    )
