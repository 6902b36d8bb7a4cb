"""Policies, approvals, API keys and the audit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from aintandem.models.base import Model
from aintandem.models.messages import Message, MessageType


class Policy(Model):
    """Who may say what to whom (docs/guides/policy.md). `policy` is None where there is none."""

    policy: dict[str, Any] | None = None
    revision: int
    update_time: datetime | None = None
    updated_by: str = ""


class Vote(Model):
    """What somebody said about an approval."""

    by: str
    approved: bool
    comment: str = ""
    time: datetime | None = None


class Approval(Model):
    """A message that a policy holds, or held. `state` is `waiting`, `approved`, `denied`, `expired` or `refused`."""

    id: int
    state: str | None = None
    from_sandbox_id: str
    to: str
    type: MessageType | None = None
    text: str = ""
    size_bytes: int
    policy_revision: int
    policy_rule: int
    approvals_required: int
    votes: list[Vote] = Field(default_factory=list)
    sequence: int | None = None
    message: Message | None = None
    create_time: datetime | None = None
    expire_time: datetime | None = None
    end_time: datetime | None = None


class ApiKey(Model):
    """A key, without its secret."""

    id: str
    subject: str
    roles: list[str] = Field(default_factory=list)
    workspace_id: str = ""
    sandbox_id: str = ""
    created_by: str = ""
    create_time: datetime | None = None
    expire_time: datetime | None = None
    last_use_time: datetime | None = None
    revoke_time: datetime | None = None


class NewApiKey(Model):
    """A key with its secret, which is told this once."""

    key: ApiKey
    secret: str = Field(repr=False)


class AuditRecord(Model):
    """What somebody did."""

    number: int
    kind: str
    by: str = ""
    about: str = ""
    address: str = ""
    request_id: str = ""
    text: str = ""
    first: int = 0
    last: int = 0
    count: int = 0
    digest: str = ""
    hash: str
    time: datetime | None = None
