// What an agent may be told, in code or by its environment.

import { type ClientOptions, positive, type Settings, settingsOf } from "../connection/settings.js";
import { InvalidValueError } from "../errors.js";
import type { Agent, RetryPolicy } from "../services/registry.js";

/** What an agent is told: who it is, where the broker is, and how it works. */
export interface ContainerAgentOptions extends Omit<ClientOptions, "endpoints"> {
  /** The sandbox that the agent lives in: its address, with a durable inbox. */
  sandboxId: string;
  /** The broker's nodes; as `endpoints` of a client. Default: `http://127.0.0.1:8001`. */
  broker?: string | readonly string[];
  /** Who the agent is. Default: an agent with the name of the sandbox. */
  agent?: Agent;
  /** More agents of the same sandbox. */
  subAgents?: readonly Agent[];
  /** Of the sandbox: at most 64 pairs, keys up to 128 bytes, values up to 4 KiB. Default: none. */
  labels?: Record<string, string>;
  /** How failed messages are repeated. Default: 5 attempts, after 1, 2, 4, 8 s. */
  retryPolicy?: RetryPolicy;
  /** How many messages handlers work on at once. Default: 16. */
  concurrency?: number;
  /** How long a lease holds without being extended, in milliseconds: what passes between the death of this process on a dead
   * network and the next attempt elsewhere. Default: 30,000. */
  ackDeadlineMs?: number;
  /** How long a handler may take before its message counts as failed, in milliseconds. Default: 300,000. */
  handlerTimeoutMs?: number;
  /** Default: 10,000. */
  heartbeatIntervalMs?: number;
  /** How long `stop` waits for handlers, in milliseconds. Default: 10,000. */
  stopTimeoutMs?: number;
}

/** The same with every default filled in. */
export interface AgentSettings {
  readonly client: ClientOptions;
  readonly connection: Settings;
  readonly sandboxId: string;
  readonly agent: Agent;
  readonly subAgents: readonly Agent[];
  readonly labels: Record<string, string>;
  readonly retryPolicy: RetryPolicy | undefined;
  readonly concurrency: number;
  readonly ackDeadlineMs: number;
  readonly handlerTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  readonly stopTimeoutMs: number;
}

export function agentSettingsOf(options: ContainerAgentOptions): AgentSettings {
  const { broker, ...rest } = options;
  if (typeof options.sandboxId !== "string" || options.sandboxId === "") {
    throw new InvalidValueError(
      "INVALID_SETTING",
      "sandboxId is missing: the id of the sandbox that the agent lives in",
    );
  }
  const client: ClientOptions = broker === undefined ? rest : { ...rest, endpoints: broker };
  return {
    client,
    connection: settingsOf(client),
    sandboxId: options.sandboxId,
    agent: options.agent ?? { name: options.sandboxId },
    subAgents: options.subAgents ?? [],
    labels: options.labels ?? {},
    retryPolicy: options.retryPolicy,
    concurrency: positive("concurrency", options.concurrency ?? 16),
    ackDeadlineMs: positive("ackDeadlineMs", options.ackDeadlineMs ?? 30_000),
    handlerTimeoutMs: positive("handlerTimeoutMs", options.handlerTimeoutMs ?? 300_000),
    heartbeatIntervalMs: positive("heartbeatIntervalMs", options.heartbeatIntervalMs ?? 10_000),
    stopTimeoutMs: options.stopTimeoutMs ?? 10_000,
  };
}

/**
 * Options from the variables that a sandbox's container has: `TANDEM_BROKER` (one URL or several with commas),
 * `TANDEM_TOKEN_FILE`, `TANDEM_WORKSPACE`, `TANDEM_SANDBOX`. What is given goes before them.
 */
export function optionsFromEnvironment(
  given: Partial<ContainerAgentOptions>,
  environment: Record<string, string | undefined>,
): ContainerAgentOptions {
  const { TANDEM_BROKER: broker, TANDEM_TOKEN_FILE: file, TANDEM_WORKSPACE: workspaceId } = environment;
  const sandboxId = given.sandboxId ?? environment["TANDEM_SANDBOX"];
  if (!sandboxId) {
    throw new InvalidValueError(
      "INVALID_SETTING",
      "TANDEM_SANDBOX is not set: the id of the sandbox that the agent lives in",
    );
  }
  return {
    ...(broker && { broker }),
    ...(file && { token: { file } }),
    ...(workspaceId && { workspaceId }),
    ...given,
    sandboxId,
  };
}
