import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import { InvalidValueError, textOf } from "../errors.js";
import { PolicyService, type Policy as WirePolicy } from "../gen/aintandem/policy/v1/policy_service_pb.js";
import { fromTimestamp, toNumber } from "../wire_time.js";

/** One rule; docs/guides/policy.md tells what fits. */
export interface PolicyRule {
  from: string | string[];
  to: string | string[];
  message_types?: ("request" | "response" | "notification" | "command")[];
  metadata?: Record<string, string>;
  min_bytes?: number;
  max_bytes?: number;
  rate_limit?: { messages_per_second?: number; bytes_per_second?: number };
  hours?: { from: string; to: string };
  approval_required?: boolean;
  approvals?: number;
  approval_timeout_s?: number;
}

export interface PolicyDocument {
  policy: "allow_list" | "deny_list";
  rules: PolicyRule[];
  delegation?: "sender" | "chain";
}

export interface Policy {
  /** Rises with every change; 0: there was never one. */
  revision: number;
  /** Undefined when there is none. */
  document: PolicyDocument | undefined;
  updateTime: Date | undefined;
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
