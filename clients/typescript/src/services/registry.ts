import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import {
  Liveness,
  RegistryService,
  type Sandbox as WireSandbox,
} from "../gen/aintandem/registry/v1/registry_service_pb.js";
import { fromTimestamp, toNumber, toOptionalDuration } from "../wire_time.js";
import { pages } from "./pages.js";

/** A named actor inside a sandbox. */
export interface Agent {
  /** Unique within its sandbox. */
  name: string;
  /** What it is there for. Default: none. */
  role?: string;
  /** What others find it by: at most 64. Default: none. */
  capabilities?: readonly string[];
}

/** How failed deliveries are repeated. */
export interface RetryPolicy {
  /** Attempts in all, 1 to 1,000. Default: 5. */
  maxAttempts?: number;
  /** Before the second attempt, in milliseconds; doubles with each further one. Default: 1,000. */
  initialBackoffMs?: number;
  /** Where doubling ends, in milliseconds. Default: 16,000. */
  maxBackoffMs?: number;
}

/** A sandbox that is to be registered. */
export interface Registration {
  /** Its id: 1 to 128 bytes of letters, digits and `. _ : @ / -`, beginning with a letter or a digit. */
  sandbox: string;
  /** Replace those of an earlier registration. */
  agents?: readonly Agent[];
  /** At most 64 pairs. Replace those of an earlier registration. */
  labels?: Record<string, string>;
  /** How failed deliveries are repeated. Default: 5 attempts, after 1, 2, 4, 8 s. */
  retryPolicy?: RetryPolicy;
  /** How much may wait before a publish is refused with `INBOX_FULL`. Default: as the server says. */
  inboxLimits?: InboxLimits;
}

/** How much may wait for a sandbox. Never more than the server allows. */
export interface InboxLimits {
  /** Messages that are addressed to it. */
  maxMessages?: number;
  /** Their bytes. */
  maxBytes?: number;
}

/** What came of a registration. */
export interface Registered {
  /** As the broker has it now. */
  sandbox: Sandbox;
  /** False: it had been registered before. */
  created: boolean;
}

/** A registered participant with one durable inbox; usually a container. */
export interface Sandbox {
  /** Its id, which messages are addressed to. */
  id: string;
  /** The agents in it. */
  agents: Required<Agent>[];
  /** For people and programs. */
  labels: Record<string, string>;
  /** When it was registered. */
  createTime: Date | undefined;
  /** When it last showed a sign of life. */
  lastHeartbeatTime: Date | undefined;
  /** It has shown a sign of life within 30 s, unless the server says otherwise, or has a subscription open. */
  online: boolean;
  /** Messages that wait to be acknowledged, leased ones included. */
  pendingMessages: number;
  /** Of the pending ones, those that wait for their time or their next attempt. */
  deferredMessages: number;
  /** Messages that left its inbox without being acknowledged. */
  deadLetters: number;
  /** Bytes of the pending messages. */
  pendingBytes: number;
}

/** Which agents are wanted. All that is set must hold for the same agent. */
export interface AgentFilter {
  /** With this role. */
  role?: string;
  /** With this capability. */
  capability?: string;
  /** With this name. */
  name?: string;
  /** True: only those online; false: only those offline. Default: both. */
  online?: boolean;
}

/** An agent, and where it is. */
export interface DiscoveredAgent extends Required<Agent> {
  /** The sandbox that it lives in. */
  sandbox: string;
  /** Whether that is online. */
  online: boolean;
}

/** The sandboxes of a workspace and the agents in them. */
export class Registry {
  readonly #caller: Caller;
  readonly #workspaceId: string;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
    this.#workspaceId = caller.settings.workspaceId;
  }

  /** Gives a sandbox its inbox; registering again replaces agents and labels and keeps the inbox. */
  async register(registration: Registration, options: CallOptions = {}): Promise<Registered> {
    const { sandbox, agents = [], labels = {}, retryPolicy, inboxLimits } = registration;
    const answer = await this.#caller.unary(
      RegistryService.method.registerSandbox,
      {
        workspaceId: this.#workspaceId,
        sandbox: {
          sandboxId: sandbox,
          agents: agents.map(({ name, role = "", capabilities = [] }) => ({
            name,
            role,
            capabilities: [...capabilities],
          })),
          labels,
          retryPolicy: retryPolicy && {
            maxAttempts: retryPolicy.maxAttempts ?? 0,
            initialBackoff: toOptionalDuration(retryPolicy.initialBackoffMs),
            maxBackoff: toOptionalDuration(retryPolicy.maxBackoffMs),
          },
          inboxLimits: inboxLimits && {
            maxMessages: BigInt(inboxLimits.maxMessages ?? 0),
            maxBytes: BigInt(inboxLimits.maxBytes ?? 0),
          },
        },
      },
      { ...options, repeatable: true },
    );
    return { sandbox: fromWire(answer.sandbox), created: answer.created };
  }

  /** Says that a sandbox is alive. An open subscription says so too. */
  async heartbeat(sandbox: string, options: CallOptions = {}): Promise<void> {
    const request = { workspaceId: this.#workspaceId, sandboxId: sandbox };
    await this.#caller.unary(RegistryService.method.heartbeat, request, { ...options, repeatable: true });
  }

  /** One sandbox. `UNKNOWN_SANDBOX` when it is not registered. */
  async get(sandbox: string, options: CallOptions = {}): Promise<Sandbox> {
    const request = { workspaceId: this.#workspaceId, sandboxId: sandbox };
    const answer = await this.#caller.unary(RegistryService.method.getSandbox, request, {
      ...options,
      repeatable: true,
    });
    return fromWire(answer.sandbox);
  }

  /** All sandboxes, by id. */
  async *list(options: CallOptions = {}): AsyncGenerator<Sandbox, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(
        RegistryService.method.listSandboxes,
        { workspaceId: this.#workspaceId, pageSize: 1_000, pageToken },
        { ...options, repeatable: true },
      );
    for await (const sandbox of pages(read, (page) => page.sandboxes)) yield fromWire(sandbox);
  }

  /** Agents of which all that is asked for holds. */
  async *discover(
    filter: AgentFilter = {},
    options: CallOptions = {},
  ): AsyncGenerator<DiscoveredAgent, void, undefined> {
    const { role = "", capability = "", name = "", online } = filter;
    const liveness = online === undefined ? Liveness.UNSPECIFIED : online ? Liveness.ONLINE : Liveness.OFFLINE;
    const asked = { workspaceId: this.#workspaceId, role, capability, agentName: name, liveness, pageSize: 1_000 };
    const read = (pageToken: string) =>
      this.#caller.unary(
        RegistryService.method.discoverAgents,
        { ...asked, pageToken },
        { ...options, repeatable: true },
      );
    for await (const found of pages(read, (page) => page.agents)) {
      yield {
        sandbox: found.sandboxId,
        name: found.agent?.name ?? "",
        role: found.agent?.role ?? "",
        capabilities: found.agent?.capabilities ?? [],
        online: found.liveness === Liveness.ONLINE,
      };
    }
  }

  /** Removes a sandbox with its inbox; returns how many messages are given up. */
  async unregister(sandbox: string, options: CallOptions = {}): Promise<number> {
    const request = { workspaceId: this.#workspaceId, sandboxId: sandbox };
    const plan = { ...options, repeatable: false };
    const answer = await this.#caller.unary(RegistryService.method.unregisterSandbox, request, plan);
    return toNumber(answer.abandonedMessages);
  }
}

function fromWire(sandbox: WireSandbox | undefined): Sandbox {
  return {
    id: sandbox?.sandboxId ?? "",
    agents: (sandbox?.agents ?? []).map(({ name, role, capabilities }) => ({ name, role, capabilities })),
    labels: { ...sandbox?.labels },
    createTime: fromTimestamp(sandbox?.createTime),
    lastHeartbeatTime: fromTimestamp(sandbox?.lastHeartbeatTime),
    online: sandbox?.liveness === Liveness.ONLINE,
    pendingMessages: toNumber(sandbox?.pendingMessages ?? 0n),
    deferredMessages: toNumber(sandbox?.deferredMessages ?? 0n),
    deadLetters: toNumber(sandbox?.deadLetters ?? 0n),
    pendingBytes: toNumber(sandbox?.pendingBytes ?? 0n),
  };
}
