// Documents of sandboxes that the control plane runs in containers, under the names of the REST API. Times are RFC 3339.

/** One agent of a sandbox. Names, roles, models and providers have up to 128 characters. */
export interface RestAgentConfig {
  /** Unique in its sandbox. */
  name: string;
  /** What it is there for. */
  role?: string;
  /** Up to 262,144 bytes. */
  system_prompt?: string;
  /** What others find it by: up to 64. */
  capabilities?: string[];
  /** Of its provider. */
  model?: string;
  /** A provider of the workspace. Default: that of the workspace. */
  llm_provider?: string;
  /** Whatever else its program wants to know. */
  config?: Record<string, unknown>;
}

/** Who lives in a sandbox; programs in it find this in a file. Up to 64 agents in all. */
export interface RestAgentConfigs {
  /** The main one. */
  primary_agent?: RestAgentConfig;
  /** The others. */
  sub_agents?: RestAgentConfig[];
}

/** What a sandbox may take. */
export interface RestSandboxResources {
  /** Memory in MiB, without swap: 16 to 1,048,576, and no more than the host has. Default: 512. */
  memory_mb: number;
  /** Processors, also parts of one: 0.05 to 256, and no more than the host has. Default: 1. */
  cpu_cores: number;
  /** Processes and threads: 8 to 32,768. Default: 256. */
  pids: number;
  /** What it can write to `/work`, in MiB: 1 to 1,048,576. Default: 1,024. */
  disk_mb: number;
  /** What it can write to `/tmp`, in MiB: 1 to 65,536; counts as memory. Default: 64. */
  tmp_mb: number;
  /** Stop so many seconds after a start: 1 to 31,622,400. Default: never. */
  timeout_seconds?: number;
}

/** A program that gets a message as JSON on its standard input, and says with its exit code what has become of it. */
export interface RestSandboxHandler {
  /** The program and its arguments: 1 to 256 words. */
  command: string[];
  /** Messages at once: 1 to 256. Default: 1. */
  concurrency?: number;
  /** How long one may take, in seconds: 1 to 86,400. Default: 300. */
  timeout_seconds?: number;
}

/** What is done when a sandbox ends by itself. */
export interface RestRestartPolicy {
  /** Start again whenever it ends, when it was killed or its exit code is not 0, or never. Default: `on_failure`. */
  condition: "always" | "on_failure" | "never";
  /** How often in a row, up to 1,000,000. Default: again and again, at longer and longer intervals. */
  max_retries?: number;
}

/** What runs in a sandbox, and with how much, as it is shown. */
export interface RestSandboxSpec {
  /** For people: up to 2,000 characters. */
  description: string;
  /** Who lives in it. */
  agent_config: RestAgentConfigs;
  /** What it may take. */
  resources: RestSandboxResources;
  /** Names of MCP servers of the workspace that agents in it may use: up to 64. */
  mcp_servers: string[];
  /** Variables of what runs in it, up to 256. Whoever may read the sandbox reads them: secrets belong to providers. */
  environment: Record<string, string>;
  /** Beside the sandbox at the broker, for people and programs: up to 60. */
  labels: Record<string, string>;
  /** An image of the host that was made from `aintandem/sandbox`. Default: that one. */
  image?: string;
  /** A program that stays, with up to 256 words; the sandbox ends with it. Not together with `handler`. */
  command?: string[];
  /** A program for each message instead. */
  handler?: RestSandboxHandler;
  /** What is done when it ends by itself. */
  restart_policy: RestRestartPolicy;
  /** Stop when nothing has waited and next to nothing was done for so many seconds: 5 to 2,592,000. Default: never. */
  idle_timeout_seconds?: number;
  /** Start when it is stopped and a message waits. Default: false. */
  wake_on_message: boolean;
}

/** A JSON Merge Patch (RFC 7396): what is left out stays, null goes back to its default, a list is replaced as a whole. */
export type MergePatch<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { [K in keyof T]?: MergePatch<T[K]> | null }
    : T;

/** What is to change of a sandbox, from its next start on. */
export type RestSandboxChange = MergePatch<RestSandboxSpec>;

/** A sandbox that is wanted. What is left out has its default. */
export interface NewRestSandbox extends Partial<Omit<RestSandboxSpec, "resources" | "restart_policy">> {
  /** The workspace that it is in. */
  workspace_id: string;
  /** 1 to 63 small letters, digits and hyphens, no hyphen at its ends; messages to it are addressed to this. */
  name: string;
  /** What it may take. What is left out has its default. */
  resources?: Partial<RestSandboxResources>;
  /** What is done when it ends by itself. Default: it is started again on failure. */
  restart_policy?: Partial<RestRestartPolicy>;
}

/** What is being done with a sandbox. */
export type RestSandboxState =
  | "creating"
  | "starting"
  | "running"
  | "restarting"
  | "stopping"
  | "stopped"
  | "failed"
  | "deleting";

/** How a sandbox is spoken to. */
export interface RestSandboxConnection {
  /** URLs of the nodes of the broker. */
  broker: string[];
  /** The workspace that it is in. */
  workspace_id: string;
  /** As the broker knows it. */
  sandbox_id: string;
  /** Path of a WebSocket of the control plane that takes what is in its inbox, and sends for it. */
  websocket: string;
}

/** A container in which agents run. */
export interface RestSandbox extends RestSandboxSpec {
  /** Made by the control plane; stays the same. */
  id: string;
  /** The workspace that it is in. */
  workspace_id: string;
  /** Messages to it are addressed to this. */
  name: string;
  /** What is being done with it. */
  state: RestSandboxState;
  /** Why it is not as it should be. */
  error?: string;
  /** Where it is reached. */
  connection: RestSandboxConnection;
  /** One more with each change; the tag says the same. */
  revision: number;
  /** When it was made. */
  create_time: string;
  /** When it was changed last. */
  update_time: string;
}

/** What a sandbox does, and what has become of it. */
export interface RestSandboxStatus {
  /** Of the sandbox. */
  id: string;
  /** As in the sandbox itself. */
  state: RestSandboxState;
  /** Whether the broker hears of it; left out where the broker does not say, as the next two are. */
  online?: boolean;
  /** Messages that wait in its inbox. */
  pending_messages?: number;
  /** Messages that it could not handle. */
  dead_letters?: number;
  /** Of its last start. */
  start_time?: string;
  /** Of its last end. */
  stop_time?: string;
  /** Why it does not run. */
  stopped_because?: "asked" | "timed_out" | "idle" | "ended" | "disk_limit" | "failed";
  /** Of its last end. */
  exit_code?: number;
  /** How often it was started again after it had ended by itself. */
  restarts: number;
  /** When it is started again. */
  retry_time?: string;
  /** How often processes in it were killed because it had no more memory. */
  out_of_memory_kills: number;
  /** Why it is not as it should be. */
  error?: string;
}

/** What a sandbox takes that runs. */
export interface RestSandboxStats {
  /** Since its start, in seconds of one processor. */
  cpu_seconds: number;
  /** Memory that it uses, in bytes. */
  memory_bytes: number;
  /** Memory that it may use, in bytes. */
  memory_limit_bytes: number;
  /** Processes and threads. */
  pids: number;
  /** Received since its start, in bytes. */
  received_bytes: number;
  /** Sent since its start, in bytes. */
  sent_bytes: number;
  /** What is in `/work`; left out where it cannot be counted. */
  disk_bytes?: number;
}

/** A line that a sandbox has printed. */
export interface RestLogLine {
  /** When it was printed. */
  time: string;
  /** Where it was printed. */
  stream: "stdout" | "stderr";
  /** The line, without its end. */
  text: string;
}

/** What came of a command. */
export interface RestExecResult {
  /** Undefined when it did not end in time; then it runs on. */
  exit_code?: number;
  /** As text; what is none is replaced. */
  stdout: string;
  /** As text; what is none is replaced. */
  stderr: string;
  /** There was more than 256 KiB of one of them. */
  truncated: boolean;
}
