import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import {
  ApprovalService,
  type Approval as WireApproval,
  ApprovalState as WireState,
} from "../gen/aintandem/approval/v1/approval_service_pb.js";
import { fromWireKind, Message, type MessageKind } from "../message.js";
import { fromTimestamp, toNumber } from "../wire_time.js";
import { pages } from "./pages.js";

/** How it stands with a message that was held. `refused`: approved, and then not let through by the policy or the recipient. */
export type ApprovalState = "waiting" | "approved" | "denied" | "expired" | "refused";

const STATES: Record<ApprovalState, WireState> = {
  waiting: WireState.WAITING,
  approved: WireState.APPROVED,
  denied: WireState.DENIED,
  expired: WireState.EXPIRED,
  refused: WireState.REFUSED,
};
const STATE_NAMES = new Map(Object.entries(STATES).map(([name, value]) => [value, name as ApprovalState]));

/** What somebody has said to a message that is held. */
export interface Vote {
  /** The subject of a token or an API key. */
  by: string;
  /** When. */
  time: Date | undefined;
  /** False: denied. */
  approved: boolean;
  /** For the sender, and for whoever asks later. */
  comment: string;
}

/** A message that a policy holds, or held. */
export interface Approval {
  /** Counts what was held in the workspace, from 1. */
  id: number;
  /** Undefined: one that this version does not know. */
  state: ApprovalState | undefined;
  /** Since when it waits. */
  createTime: Date | undefined;
  /** Until when it waits. */
  expireTime: Date | undefined;
  /** When it ended; undefined while it waits. */
  endTime: Date | undefined;
  /** The sandbox that sent it. */
  from: string;
  /** Where it goes, as a policy writes it. */
  to: string;
  /** What the message is for. */
  type: MessageKind;
  /** Bytes of the message. */
  sizeBytes: number;
  /** Revision of the policy that holds it. */
  policyRevision: number;
  /** Of the policy, from 1. */
  policyRule: number;
  /** How many must approve, each of them somebody else. */
  approvalsRequired: number;
  /** What has been said so far. */
  votes: Vote[];
  /** Why it ended, where no comment says so. */
  text: string;
  /** In the log, once approved; else 0. */
  sequence: number;
}

/** The same with what waits. */
export interface ApprovalWithMessage extends Approval {
  /** As it was sent. Undefined once it is approved: it is in the log then. */
  message: Message | undefined;
}

/** Decides on messages that a policy holds for approval. */
export class Approvals {
  readonly #caller: Caller;
  readonly #workspaceId: string;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
    this.#workspaceId = caller.settings.workspaceId;
  }

  /** The newest first. */
  async *list(
    filter: { state?: ApprovalState } = {},
    options: CallOptions = {},
  ): AsyncGenerator<Approval, void, undefined> {
    const state = filter.state === undefined ? WireState.UNSPECIFIED : STATES[filter.state];
    const asked = { workspaceId: this.#workspaceId, state, pageSize: 1_000 };
    const read = (pageToken: string) =>
      this.#caller.unary(
        ApprovalService.method.listApprovals,
        { ...asked, pageToken },
        { ...options, repeatable: true },
      );
    for await (const approval of pages(read, (page) => page.approvals)) yield fromWire(approval);
  }

  /** With the message as it was sent, unless it is approved: then it is in the log. */
  async get(id: number, options: CallOptions = {}): Promise<ApprovalWithMessage> {
    const request = { workspaceId: this.#workspaceId, approvalId: BigInt(id) };
    const answer = await this.#caller.unary(ApprovalService.method.getApproval, request, {
      ...options,
      repeatable: true,
    });
    const message = answer.message === undefined ? undefined : new Message(answer.message);
    return { ...fromWire(answer.approval), message };
  }

  /** Safe to repeat. `APPROVAL_ENDED` when somebody else was quicker or it is too late. */
  async approve(id: number, comment = "", options: CallOptions = {}): Promise<Approval> {
    const request = { workspaceId: this.#workspaceId, approvalId: BigInt(id), comment };
    const plan = { ...options, repeatable: true };
    return fromWire((await this.#caller.unary(ApprovalService.method.approveMessage, request, plan)).approval);
  }

  /** One denial is enough. Safe to repeat. */
  async deny(id: number, comment = "", options: CallOptions = {}): Promise<Approval> {
    const request = { workspaceId: this.#workspaceId, approvalId: BigInt(id), comment };
    const plan = { ...options, repeatable: true };
    return fromWire((await this.#caller.unary(ApprovalService.method.denyMessage, request, plan)).approval);
  }
}

function fromWire(approval: WireApproval | undefined): Approval {
  return {
    id: toNumber(approval?.approvalId ?? 0n),
    state: STATE_NAMES.get(approval?.state ?? WireState.UNSPECIFIED),
    createTime: fromTimestamp(approval?.createTime),
    expireTime: fromTimestamp(approval?.expireTime),
    endTime: fromTimestamp(approval?.endTime),
    from: approval?.fromSandboxId ?? "",
    to: approval?.to ?? "",
    type: fromWireKind(approval?.type ?? 0),
    sizeBytes: toNumber(approval?.sizeBytes ?? 0n),
    policyRevision: toNumber(approval?.policyRevision ?? 0n),
    policyRule: approval?.policyRule ?? 0,
    approvalsRequired: approval?.approvalsRequired ?? 0,
    votes: (approval?.votes ?? []).map(({ by, time, approved, comment }) => ({
      by,
      time: fromTimestamp(time),
      approved,
      comment,
    })),
    text: approval?.text ?? "",
    sequence: toNumber(approval?.sequence ?? 0n),
  };
}
