"""Agents, messages, dead letters and events."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from aintandem.models.base import Model, Time

MessageType = Literal["request", "response", "notification", "command"]


class Agent(Model):
    """An agent that was found, and the sandbox that it is in."""

    sandbox_id: str
    name: str
    role: str = ""
    capabilities: list[str] = Field(default_factory=list)
    online: bool = False


class Accepted(Model):
    """A message that is on disk at a majority. `sequence` is 0 while it waits for the approval `approval_id`."""

    message_id: str
    sequence: int
    duplicate: bool = False
    server_time: datetime
    approval_id: int | None = None


class Message(Model):
    """A message of the log, or one that is held: that has neither sequence nor time of the log yet."""

    workspace_id: str
    message_id: str
    sequence: int = 0
    server_time: Time = None
    from_sandbox_id: str
    from_agent: str = ""
    to: dict[str, Any] | None = None
    to_agent: str = ""
    type: MessageType | None = None
    content: Any = None
    content_type: str = "application/json"
    content_encoding: str | None = None
    priority: int = 5
    requires_response: bool = False
    correlation_id: str = ""
    ordering_key: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)
    traceparent: str = ""
    hop_count: int = 0
    ttl_seconds: float | None = None
    not_before: datetime | None = None


class Attempt(Model):
    """A delivery that did not end with an ack."""

    attempt: int
    error: str
    text: str = ""
    time: datetime | None = None


class DeadLetter(Model):
    """A message that left its inbox without being acknowledged, and why."""

    sandbox_id: str
    reason: str | None = None
    reason_text: str = ""
    message: Message | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    chain: list[int] = Field(default_factory=list)
    dead_time: datetime | None = None


class Redriven(Model):
    """How many dead letters were put back, and how many left alone because an inbox is full or gone."""

    redriven: int
    skipped: int


class Event(Model):
    """Something that happened in a workspace."""

    id: int
    type: str
    sandbox_id: str = ""
    sequence: int | None = None
    count: int = 1
    text: str = ""
    approval_id: int | None = None
    time: datetime | None = None
