"""Sandboxes: what runs in them, with how much, and what has become of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from aintandem.models.base import Model, Time


class SandboxAgent(Model):
    """An agent that lives in a sandbox."""

    name: str
    """1 to 128 characters, unique in its sandbox."""
    role: str = ""
    """At most 128 characters."""
    system_prompt: str = ""
    """At most 256 KiB."""
    capabilities: list[str] = Field(default_factory=list)
    """What others find it by; at most 64."""
    model: str = ""
    """Of its provider; at most 128 characters."""
    llm_provider: str = ""
    """The name of a provider of the workspace; empty: its default."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Whatever else its program wants to know."""


class AgentConfig(Model):
    """Who lives in a sandbox; programs in it find this as `agent.json`. At most 64 agents."""

    primary_agent: SandboxAgent | None = None
    sub_agents: list[SandboxAgent] = Field(default_factory=list)


class Resources(Model):
    """What a sandbox may take. What is not set is as it says here; neither memory nor processors can be more than the host has."""

    memory_mb: int = 512
    """Memory in MiB, without swap: 16 to 1,048,576."""
    cpu_cores: float = 1.0
    """Processors, also parts of one: 0.05 to 256."""
    pids: int = 256
    """Processes and threads: 8 to 32,768."""
    disk_mb: int = 1024
    """What it can write to `/work`, in MiB: 1 to 1,048,576."""
    tmp_mb: int = 64
    """What it can write to `/tmp`, in MiB: 1 to 65,536. It counts as memory."""
    timeout_seconds: int | None = None
    """It is stopped so long after a start, in seconds: 1 to 31,622,400; None: never."""


class Handler(Model):
    """A program that gets a message as JSON on its standard input, and says with its exit code what has become of it."""

    command: list[str]
    """The program and its arguments: 1 to 256 words."""
    concurrency: int = 1
    """Messages at once: 1 to 256."""
    timeout_seconds: int = 300
    """How long one may take, in seconds: 1 to 86,400."""


class RestartPolicy(Model):
    """What is done when a sandbox ends by itself."""

    condition: str = "on_failure"
    """When it is started again: `always`, `on_failure` (it was killed, or its exit code is not 0) or `never`."""
    max_retries: int | None = None
    """How often in a row, at most 1,000,000; None: again and again, at longer and longer intervals."""


class Connection(Model):
    """How a sandbox is spoken to."""

    broker: list[str] = Field(default_factory=list)
    """Addresses of nodes of the broker."""
    workspace_id: str
    sandbox_id: str
    """As the broker knows it: the name of the sandbox."""
    websocket: str
    """The path of a WebSocket of the control plane that takes what is in its inbox, and sends for it."""


class Sandbox(Model):
    """A container in which agents run, or one that is to be."""

    id: str
    """Stays the same."""
    workspace_id: str
    name: str
    """Messages to it are addressed to this."""
    description: str = ""
    agent_config: AgentConfig = Field(default_factory=AgentConfig)
    resources: Resources = Field(default_factory=Resources)
    mcp_servers: list[str] = Field(default_factory=list)
    """Names of MCP servers of the workspace that its agents may use."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of what runs in it."""
    labels: dict[str, str] = Field(default_factory=dict)
    image: str | None = None
    """None: that of AInTandem."""
    command: list[str] = Field(default_factory=list)
    """A program that stays, with its arguments; the sandbox ends with it."""
    handler: Handler | None = None
    """A program for each message instead."""
    restart_policy: RestartPolicy = Field(default_factory=RestartPolicy)
    idle_timeout_seconds: int | None = None
    """It is stopped when nothing has waited in its inbox, and it has done next to nothing, for so long; None: never."""
    wake_on_message: bool = False
    """It is started when it is stopped and a message waits in its inbox."""
    state: str
    """`creating`, `starting`, `running`, `restarting`, `stopping`, `stopped`, `failed` or `deleting`."""
    error: str | None = None
    """Why it is not as it should be."""
    connection: Connection
    revision: int
    """One more with each change: for `if_revision`."""
    create_time: datetime
    update_time: datetime


class SandboxStatus(Model):
    """What a sandbox does, and what has become of it. What only the broker knows is None where that does not say."""

    id: str
    state: str
    """As in the sandbox itself."""
    online: bool | None = None
    """Whether the broker hears of it."""
    pending_messages: int | None = None
    """Messages that wait in its inbox."""
    dead_letters: int | None = None
    """Messages that it could not handle."""
    start_time: datetime | None = None
    """Of its last start."""
    stop_time: datetime | None = None
    """Of its last end."""
    stopped_because: str | None = None
    """Why it does not run: `asked`, `timed_out`, `idle`, `ended`, `disk_limit` or `failed`."""
    exit_code: int | None = None
    """Of its last end."""
    restarts: int
    """How often it was started again after it had ended by itself."""
    retry_time: datetime | None = None
    """When it is started again."""
    out_of_memory_kills: int
    """How often processes in it were killed because it had no more memory."""
    error: str | None = None
    """Why it is not as it should be."""


class SandboxStats(Model):
    """What a sandbox takes that runs."""

    cpu_seconds: float
    """Since its start, in seconds of one processor."""
    memory_bytes: int
    memory_limit_bytes: int
    pids: int
    """Processes and threads."""
    received_bytes: int
    """Over the network, as `sent_bytes`."""
    sent_bytes: int
    disk_bytes: int | None = None
    """What is in `/work`; None where it cannot be counted."""


class ExecResult(Model):
    """What came of a command."""

    exit_code: int | None = None
    """None: it takes longer, and runs on."""
    stdout: str = ""
    """As text, with U+FFFD for what is none; the same of `stderr`. At most 256 KiB of each."""
    stderr: str = ""
    truncated: bool = False
    """There was more of one of them."""


class LogLine(Model):
    """A line that a sandbox has printed."""

    time: Time = None
    stream: str = "stdout"
    """`stdout` or `stderr`."""
    text: str
