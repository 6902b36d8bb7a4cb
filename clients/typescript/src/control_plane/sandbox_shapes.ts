// Documents of sandboxes that the control plane runs in containers, under the names of the REST API.

/** One agent of a sandbox. */
export interface RestAgentConfig {
  name: string;
  role?: string;
  system_prompt?: string;
  /** What others find it by. */
  capabilities?: string[];
  model?: string;
  /** A provider of the workspace. Default: that of the workspace. */
  llm_provider?: string;
  /** Whatever else its program wants to know. */
  config?: Record<string, unknown>;
}

/** What runs in a sandbox, and with how much. */
export interface RestSandboxSpec {
  description?: string;
  agent_config?: { primary_agent?: RestAgentConfig; sub_agents?: RestAgentConfig[] };
  resources?: {
    /** MiB, without swap. Default: 512. */
    memory_mb?: number;
    /** Default: 1. */
    cpu_cores?: number;
    /** Processes and threads. Default: 256. */
    pids?: number;
    /** What it can write, in MiB. Default: 1,024. */
    disk_mb?: number;
    /** What it can write to `/tmp`, in MiB; counts as memory. Default: 64. */
    tmp_mb?: number;
    /** Stop so long after a start. Default: never. */
    timeout_seconds?: number | null;
  };
  /** Names of MCP servers of the workspace. */
  mcp_servers?: string[];
  environment?: Record<string, string>;
  labels?: Record<string, string>;
  image?: string | null;
  /** A program that stays; the sandbox ends with it. */
  command?: string[];
  /** A program for each message instead. */
  handler?: { command: string[]; concurrency?: number; timeout_seconds?: number } | null;
  restart_policy?: { condition?: "always" | "on_failure" | "never"; max_retries?: number | null };
  /** Stop when nothing has happened for so long. Default: never. */
  idle_timeout_seconds?: number | null;
  /** Start when it is stopped and a message waits. Default: false. */
  wake_on_message?: boolean;
}

export interface NewRestSandbox extends RestSandboxSpec {
  workspace_id: string;
  /** Small letters, digits and hyphens, up to 63; messages to it are addressed to this. */
  name: string;
}

export interface RestSandbox extends RestSandboxSpec {
  id: string;
  workspace_id: string;
  name: string;
  /** `running`, `stopped`, `failed`, or what is being done with it. */
  state: string;
  error?: string | null;
  /** Where it is reached. */
  connection: { broker: string[]; workspace_id: string; sandbox_id: string; websocket: string };
  revision: number;
  create_time: string;
  update_time: string;
}

export interface RestSandboxStatus {
  id: string;
  state: string;
  /** Whether the broker hears of it. */
  online?: boolean | null;
  pending_messages?: number | null;
  dead_letters?: number | null;
  start_time?: string | null;
  stop_time?: string | null;
  stopped_because?: string | null;
  exit_code?: number | null;
  restarts: number;
  /** When it is started again. */
  retry_time?: string | null;
  out_of_memory_kills: number;
  error?: string | null;
}

export interface RestSandboxStats {
  cpu_seconds: number;
  memory_bytes: number;
  memory_limit_bytes: number;
  pids: number;
  received_bytes: number;
  sent_bytes: number;
  disk_bytes?: number | null;
}

export interface RestLogLine {
  time: string;
  stream: "stdout" | "stderr";
  text: string;
}

export interface RestExecResult {
  /** Undefined when it did not end in time. */
  exit_code?: number | null;
  stdout: string;
  stderr: string;
  /** There was more than is shown. */
  truncated: boolean;
}
