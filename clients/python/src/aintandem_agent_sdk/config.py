"""What an agent may be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from aintandem_agent_sdk.errors import InvalidSettings
from aintandem_agent_sdk.registry import RetryPolicy
from aintandem_agent_sdk.settings import Settings, endpoints_of
from aintandem_agent_sdk.token import Token


@dataclass(frozen=True)
class AgentConfig:
    """Configuration of a `ContainerAgent`. Times are in seconds."""

    workspace_id: str = "default"
    """The workspace that the sandbox belongs to."""
    token: str | None = None
    """A token or API key by value."""
    token_file: Path | None = None
    """A file with one, read again when it changes; goes before `token`."""
    ca_file: Path | None = None
    """Whose signature on a broker's certificate counts, as PEM."""
    cert_file: Path | None = None
    """Certificate to show, with `key_file`."""
    key_file: Path | None = None
    """The private key of that certificate."""
    labels: Mapping[str, str] | None = None
    """Of the sandbox, for the registry."""
    retry: RetryPolicy | None = None
    """How failed deliveries to this sandbox are repeated. None: the broker's 5 attempts."""
    concurrency: int = 16
    """Messages that are handled at once, at least 1. As many again wait here, so that no handler waits for the network."""
    ack_deadline: float = 30.0
    """How long the broker waits for a sign of life of a delivery, 1 s to a day. Every third of it the lease is extended."""
    handler_timeout: float | None = 300.0
    """How long a handler may run. Then it is cancelled and its message comes again. None: as long as it likes."""
    heartbeat_interval: float = 10.0
    """Between heartbeats; the broker takes a sandbox without an inbox that is open for offline after 30 s without one."""
    stop_timeout: float = 30.0
    """How long `stop` waits for handlers that run. Then they are cancelled, and their messages given back."""
    blocked_after: float = 1.0
    """A warning says which handler blocks the event loop for longer than this. 0: nobody watches."""
    unregister_on_stop: bool = False
    """Remove the sandbox, with its inbox and what waits there, when the agent stops."""
    request_timeout: float = 30.0
    """How long a single call may take, with its retries."""
    connect_timeout: float = 5.0
    """How long one attempt to connect may take."""
    attempts: int = 10
    """How often a single call is tried while the broker is unavailable."""
    reconnect_limit: float | None = None
    """How long an agent tries to get its inbox back before it gives up (`run` and `wait` raise). None: for ever.

    One without handlers has no inbox: its heartbeats are tried for as long.
    """

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InvalidSettings(f"concurrency is {self.concurrency}, and at least 1")
        for name in ("ack_deadline", "heartbeat_interval"):
            if getattr(self, name) <= 0:
                raise InvalidSettings(f"{name} is {getattr(self, name)}, and above 0")

    @classmethod
    def of(cls, given: AgentConfig | Mapping[str, Any] | None) -> AgentConfig:
        """Of a mapping with these names; unknown ones are errors."""
        if isinstance(given, AgentConfig):
            return given
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(given or {}) - known):
            raise InvalidSettings(f"{', '.join(unknown)}: no such setting of an agent; there are {', '.join(sorted(known))}")
        found = dict(given or {})
        for name in ("token_file", "ca_file", "cert_file", "key_file"):
            if isinstance(found.get(name), str):
                found[name] = Path(found[name])
        return cls(**found)

    def settings(self, urls: str | Sequence[str]) -> Settings:
        """Those of the connection."""
        token = None
        if self.token_file is not None:
            token = Token.from_file(self.token_file)
        elif self.token is not None:
            token = Token(self.token)
        return Settings(
            endpoints=endpoints_of(urls if isinstance(urls, str) else list(urls)),
            token=token,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            request_timeout=self.request_timeout,
            connect_timeout=self.connect_timeout,
            attempts=self.attempts,
            reconnect_limit=self.reconnect_limit,
        )
