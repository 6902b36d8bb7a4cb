"""Workspaces, and what is set for them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from aintandem.models.base import Model


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


class NetworkSettings(Model):
    """Whom the sandboxes of a workspace reach beside the broker, and how fast."""

    allowed_hosts: list[str] = Field(default_factory=list)
    """Such as `api.openai.com:443`, at most 64; nothing else can be reached."""
    send_kib_per_second: int | None = None
    """What one sandbox may send, in KiB each second: 1 to 10,000,000; None: any number."""


class WorkspaceSettings(Model):
    """What a workspace does with its messages and sandboxes; None is the default."""

    max_sandboxes: int | None = None
    default_llm_provider: str | None = None
    default_ttl_seconds: int | None = None
    max_hops: int | None = None
    retention: Retention = Field(default_factory=Retention)
    quotas: Quotas = Field(default_factory=Quotas)
    network: NetworkSettings = Field(default_factory=NetworkSettings)


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
