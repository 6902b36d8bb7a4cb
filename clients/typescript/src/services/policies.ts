import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import { InvalidValueError, textOf } from "../errors.js";
import { PolicyService, type Policy as WirePolicy } from "../gen/aintandem/policy/v1/policy_service_pb.js";
import { fromTimestamp, toNumber } from "../wire_time.js";

/** How much may be sent. What is beyond is refused with `RATE_LIMITED` and a delay. */
export interface PolicyRate {
  /** Messages a second. Default: any number. */
  messages_per_second?: number;
  /** Bytes a second. Default: any number. */
  bytes_per_second?: number;
}

/** A part of the day in UTC; over midnight where `to` is earlier. */
export interface PolicyHours {
  /** Such as `08:00`. */
  from: string;
  /** Such as `18:00`. */
  to: string;
}

/** One rule; docs/guides/policy.md tells what fits. All that is set must hold. */
export interface PolicyRule {
  /** Up to 64 of: a sandbox, `agent:NAME`, `*` for everybody. A `*` at the end of a name stands for any end. */
  from: string | string[];
  /** Up to 64 of: a sandbox, `agent:NAME`, `capability:NAME`, `topic:NAME`, `broadcast`, `*` for everything. */
  to: string | string[];
  /** What the message is for. Default: anything. */
  message_types?: ("request" | "response" | "notification" | "command")[];
  /** Pairs that the message must have, all of them. */
  metadata?: Record<string, string>;
  /** The least size of the content, in bytes. */
  min_bytes?: number;
  /** The largest size of the content, in bytes. */
  max_bytes?: number;
  /** How much each sandbox may send by this rule. */
  rate_limit?: PolicyRate;
  /** When it fits. Default: at any time. */
  hours?: PolicyHours;
  /** Holds what it fits until somebody decides, in both kinds of policy. Default: false. */
  approval_required?: boolean;
  /** How many must approve: 1 to 16. Default: 1. */
  approvals?: number;
  /** How long a message waits for that, in seconds: 1 to 2,592,000. Default: 3,600. */
  approval_timeout_s?: number;
}

/** A policy as it is written: up to 1,000 rules in 1 MiB. The first rule that fits a message decides on it. */
export interface PolicyDocument {
  /** `allow_list`: what no rule fits is refused. `deny_list`: what a rule fits is refused. */
  policy: "allow_list" | "deny_list";
  /** In the order in which they are tried. */
  rules: PolicyRule[];
  /** `sender`: who leads a sandbox to send something is not judged, too. Default: `chain`. */
  delegation?: "sender" | "chain";
}

/** The policy of a workspace as the broker has it. */
export interface Policy {
  /** Rises with every change; 0: there was never one. */
  revision: number;
  /** Undefined when there is none. */
  document: PolicyDocument | undefined;
  /** When it was changed last. */
  updateTime: Date | undefined;
  /** Who has changed it last: the subject of a token or an API key. */
  updatedBy: string;
}

/** Who may say what to whom in a workspace. */
export class Policies {
  readonly #caller: Caller;
  readonly #workspaceId: string;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
    this.#workspaceId = caller.settings.workspaceId;
  }

  /** The policy as it is now; revision 0 and no document where there was never one. */
  async get(options: CallOptions = {}): Promise<Policy> {
    const request = { workspaceId: this.#workspaceId };
    const answer = await this.#caller.unary(PolicyService.method.getPolicy, request, { ...options, repeatable: true });
    return fromWire(answer.policy);
  }

  /** Sets the policy. With `ifRevision`: fails with `POLICY_CHANGED` when it has another revision. */
  async set(document: PolicyDocument | string, options: CallOptions & { ifRevision?: number } = {}): Promise<Policy> {
    const json = typeof document === "string" ? document : JSON.stringify(document);
    const ifRevision = options.ifRevision === undefined ? undefined : BigInt(options.ifRevision);
    const request = { workspaceId: this.#workspaceId, json, ifRevision };
    const plan = { ...options, repeatable: ifRevision === undefined };
    return fromWire((await this.#caller.unary(PolicyService.method.setPolicy, request, plan)).policy);
  }

  /** Takes the policy away: everybody who is registered may then. */
  async remove(options: CallOptions & { ifRevision?: number } = {}): Promise<Policy> {
    const ifRevision = options.ifRevision === undefined ? undefined : BigInt(options.ifRevision);
    const request = { workspaceId: this.#workspaceId, ifRevision };
    const plan = { ...options, repeatable: ifRevision === undefined };
    return fromWire((await this.#caller.unary(PolicyService.method.removePolicy, request, plan)).policy);
  }
}

function fromWire(policy: WirePolicy | undefined): Policy {
  return {
    revision: toNumber(policy?.revision ?? 0n),
    document: parse(policy?.json ?? ""),
    updateTime: fromTimestamp(policy?.updateTime),
    updatedBy: policy?.updatedBy ?? "",
  };
}

function parse(json: string): PolicyDocument | undefined {
  if (json === "") return undefined;
  try {
    return JSON.parse(json) as PolicyDocument;
  } catch (error) {
    throw new InvalidValueError("CONTENT_NOT_READABLE", `the policy is no JSON: ${textOf(error)}`, { cause: error });
  }
}
