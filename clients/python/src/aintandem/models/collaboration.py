"""Who takes part in a workspace, as the broker has it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from aintandem.models.base import Model


class CollaborationStatus(Model):
    """How it stands in a workspace at this moment."""

    workspace_id: str
    first_sequence: int
    """The oldest sequence that is kept."""
    last_sequence: int
    """The sequence of the newest message; 0: there is none."""
    stored_bytes: int
    """Bytes of the history."""
    sandboxes: int
    """Those that are registered, of which `online` have shown a sign of life or have a subscription open, and `offline` have not."""
    online: int
    offline: int
    agents: int
    """Of all sandboxes."""
    pending_messages: int
    """Messages that wait in inboxes, and `pending_bytes` of them."""
    pending_bytes: int
    deferred_messages: int
    """Of those: wait until a time, or until they are tried again."""
    dead_letters: int
    truncated: bool = False
    """The numbers are those of the first 10,000 sandboxes alone."""


class ConnectedAgent(Model):
    """An agent of a sandbox."""

    name: str
    role: str = ""
    capabilities: list[str] = Field(default_factory=list)


class ConnectedSandbox(Model):
    """A sandbox, as the broker has it."""

    sandbox_id: str
    online: bool
    """It has shown a sign of life, or has a subscription open."""
    last_heartbeat_time: datetime | None = None
    create_time: datetime | None = None
    """When it was registered."""
    agents: list[ConnectedAgent] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    pending_messages: int
    """Messages that wait in its inbox, and `pending_bytes` of them."""
    pending_bytes: int
    deferred_messages: int
    """Of those: wait until a time, or until they are tried again."""
    dead_letters: int


class Disconnected(Model):
    """What was ended."""

    workspace_id: str
    sandbox_id: str
    revoked_api_keys: list[str] = Field(default_factory=list)
    """Ids."""
    revoked_tokens: list[str] = Field(default_factory=list)
    """Ids."""
    unregistered: bool
    abandoned_messages: int
    """Messages that were given up with its inbox."""
