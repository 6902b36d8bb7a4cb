"""Where agents reach language models, and which tools they have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, SecretStr

from aintandem.models.base import Model

ProviderKind = Literal["openai", "anthropic", "azure_openai", "google", "mistral", "ollama", "custom"]
"""Whose interface a provider speaks. `azure_openai` and `custom` need a `base_url`."""
McpTransport = Literal["stdio", "http"]
"""`stdio`: started in the sandbox, and spoken to over its standard input and output; `http`: reached over HTTP."""


class ShownSecret(Model):
    """What is shown of a header or variable that is a secret. Given back, the secret stays what it is."""

    has_secret: bool = True
    last_four: str = ""
    """How it ends, where it has 20 characters or more."""


Value = str | SecretStr | ShownSecret | Mapping[str, Any]
"""A header or variable as it is given: a text that everybody may read, or a secret (`SecretStr`, or `{"secret": …}`) that is never shown.

1 to 16,384 bytes without control characters; at most 64 of them, whose names have 1 to 128 bytes."""


class LlmProvider(Model):
    """Where agents reach language models."""

    id: str
    workspace_id: str
    name: str
    """`settings.default_llm_provider` of the workspace, and `llm_provider` of an agent, may name it."""
    kind: str
    """One of `ProviderKind`."""
    base_url: str
    default_model: str = ""
    """Empty: none is preferred."""
    models: list[str] = Field(default_factory=list)
    """Empty: all that it has."""
    headers: dict[str, str | ShownSecret] = Field(default_factory=dict)
    """Sent with each request to it."""
    has_api_key: bool
    """The key itself is never shown."""
    api_key_last_four: str | None = None
    """How the key ends, where it has 20 characters or more."""
    revision: int
    """One more with each change: for `if_revision`."""
    create_time: datetime
    update_time: datetime


class McpServer(Model):
    """Tools for agents (Model Context Protocol)."""

    id: str
    workspace_id: str
    name: str
    """Sandboxes name it in `mcp_servers`."""
    transport: str
    """One of `McpTransport`."""
    command: str = ""
    """Of `stdio`: the program."""
    args: list[str] = Field(default_factory=list)
    """Of `stdio`."""
    env: dict[str, str | ShownSecret] = Field(default_factory=dict)
    """Of `stdio`: variables of the program."""
    url: str = ""
    """Of `http`."""
    headers: dict[str, str | ShownSecret] = Field(default_factory=dict)
    """Of `http`: sent with each request to it."""
    revision: int
    """One more with each change: for `if_revision`."""
    create_time: datetime
    update_time: datetime
