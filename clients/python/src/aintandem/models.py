"""What the control plane answers with. Fields that a later version adds are kept (`model_extra`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

ItemT = TypeVar("ItemT")
MessageType = Literal["request", "response", "notification", "command"]


def _none_if_empty(value: Any) -> Any:
    """Of a time that is not yet, which the control plane says with an empty text."""
    return None if value == "" else value


class Model(BaseModel):
    """What all of them have."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class Rate(Model):
    """A limit for each second; None is none."""

    messages_per_second: int | None = None
    bytes_per_second: int | None = None


class Quotas(Model):
    """What a workspace may take; None is as much as the broker lets everybody."""

    workspace: Rate = Field(default_factory=Rate)
    sandbox: Rate = Field(default_factory=Rate)
    caller: Rate = Field(default_factory=Rate)
    max_stored_bytes: int | None = None
    max_message_bytes: int | None = None
    max_streams: int | None = None
    max_connections: int | None = None


class Retention(Model):
    """How long, and how many bytes of, a history is kept."""

    age_seconds: int | None = None
    bytes: int | None = None


class WorkspaceSettings(Model):
    """What a workspace does with its messages and sandboxes; None is the default."""

    max_sandboxes: int | None = None
    default_llm_provider: str | None = None
    default_ttl_seconds: int | None = None
    max_hops: int | None = None
    retention: Retention = Field(default_factory=Retention)
    quotas: Quotas = Field(default_factory=Quotas)


class Usage(Model):
    """How large a workspace is."""

    sandbox_count: int
    stored_bytes: int
    first_sequence: int
    last_sequence: int
    shard_id: int


class Workspace(Model):
    """A tenant. `state` is `creating`, `active`, `updating`, `deleting` or `failed`, with an `error` then."""

    id: str
    name: str
    description: str = ""
    state: str
    settings: WorkspaceSettings = Field(default_factory=WorkspaceSettings)
    revision: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None = None
    error: str | None = None
    usage: Usage | None = None


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
    server_time: Annotated[datetime | None, BeforeValidator(_none_if_empty)] = None
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


class Sandbox(Model):
    """A container with agents in it, or one that is to be. What else the control plane tells stands in `model_extra`."""

    id: str
    workspace_id: str
    name: str = ""
    agent_config: dict[str, Any] = Field(default_factory=dict)
    resources: dict[str, Any] = Field(default_factory=dict)
    mcp_servers: list[str] = Field(default_factory=list)
    create_time: datetime | None = None


class SandboxStatus(Model):
    """How a sandbox is; fields as the control plane has them."""


class SandboxStats(Model):
    """What a sandbox takes; fields as the control plane has them."""


class ExecResult(Model):
    """What a command in a sandbox came to."""

    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""


class LogLine(Model):
    """A line that a sandbox has printed."""

    text: str
    stream: str = "stdout"
    time: datetime | None = None


class Page(Model, Generic[ItemT]):
    """Some of a listing. `next_cursor` gives the next page, None on the last one; `truncated` says that there is more: narrow it."""

    items: list[ItemT] = Field(default_factory=list)
    next_cursor: str | None = None
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[ItemT]:  # type: ignore[override]
        return iter(self.items)
