"""Alerts, and the rules that make them fire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import SecretStr

from aintandem.models.base import Model

Severity = Literal["info", "warning", "critical"]
AlertState = Literal["open", "acknowledged"]
AlertEvent = Literal[
    "sandbox_registered",
    "sandbox_offline",
    "sandbox_online",
    "sandbox_gone",
    "message_dead_lettered",
    "message_expired",
    "message_looped",
    "inbox_full",
    "inbox_trimmed",
    "approval_requested",
    "approval_granted",
    "approval_denied",
    "approval_expired",
    "out_of_memory",
    "disk_limit",
    "process_limit",
    "restarting",
    "failed",
    "timed_out",
    "idle_stopped",
    "disconnected",
]
"""What a rule can wait for: events of the broker, and from `out_of_memory` on what the control plane sees of containers."""


class Condition(Model):
    """When a rule fires: at least `count` of an event within a window."""

    event: str
    """One of `AlertEvent`."""
    sandbox_id: str | None = None
    """About this sandbox alone; None: about any. At most 128 characters."""
    count: int = 1
    """1 to 10,000. Where an event is about several messages, each of them counts."""
    window_seconds: int = 60
    """1 to 86,400 seconds, kept to about a sixtieth of it."""


class Webhook(Model):
    """Whom a rule tells: a request signed as Standard Webhooks has it (docs/guides/control-plane.md)."""

    url: str
    """`https`; on the machine of the control plane, where that is allowed, also `http`. At most 2,048 bytes."""
    secret: SecretStr | None = None
    """`whsec_` and base64 of 24 to 64 bytes. It is only sent: in an answer it is None. For a change None keeps the one that is there."""
    has_secret: bool = False
    """True in an answer; it is not sent."""


class AlertRule(Model):
    """What makes an alert fire."""

    id: str
    workspace_id: str
    name: str
    enabled: bool
    condition: Condition
    severity: str
    """`info`, `warning` or `critical`."""
    quiet_seconds: int
    """For so long after it has fired, what fits is counted in the same alert."""
    webhook: Webhook | None = None
    revision: int
    """One more with each change: for `if_revision`."""
    create_time: datetime
    update_time: datetime


class Delivery(Model):
    """Whether a webhook has heard of an alert."""

    state: str
    """`none` (the rule has no webhook), `waiting`, `delivered` or `failed` (it was tried as often as it may be, or is wanted no more)."""
    attempts: int
    error: str = ""
    """Why the last attempt failed; empty: none did."""


class Alert(Model):
    """Something that a rule has found."""

    id: str
    workspace_id: str
    rule_id: str
    """The rule may be gone by now."""
    rule_name: str
    """As the rule was called when it fired."""
    severity: str
    """`info`, `warning` or `critical`."""
    event: str
    """One of `AlertEvent`, or `events_missed`: events were gone before the rule could look at them."""
    sandbox_id: str = ""
    """For which it fired, empty for none; those of the quiet time behind it may be others."""
    text: str
    count: int
    """How many, those of the quiet time behind it included."""
    state: str
    """`open` or `acknowledged`."""
    acknowledged_by: str = ""
    acknowledge_time: datetime | None = None
    delivery: Delivery
    create_time: datetime
    """When it fired."""
    last_time: datetime
    """When it happened last."""
    revision: int
    """One more with each change: for `if_revision`."""
