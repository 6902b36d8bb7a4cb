import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import { ConnectionLostError } from "../errors.js";
import {
  AttemptError,
  DeadLetterReason,
  DeadLetterService,
  type DeadLetter as WireDeadLetter,
} from "../gen/aintandem/messaging/v1/dead_letter_service_pb.js";
import { Message, type MessageKind, toWireKind } from "../message.js";
import { fromTimestamp, toNumber, toOptionalTimestamp } from "../wire_time.js";
import { pages } from "./pages.js";

/** Why a message is a dead letter. `loop`: its conversation went to and fro more often than the workspace allows. */
export type DeadLetterCause = "attempts_exhausted" | "rejected" | "expired" | "loop";

const CAUSES: Record<DeadLetterCause, DeadLetterReason> = {
  attempts_exhausted: DeadLetterReason.ATTEMPTS_EXHAUSTED,
  rejected: DeadLetterReason.REJECTED,
  expired: DeadLetterReason.EXPIRED,
  loop: DeadLetterReason.LOOP,
};
const CAUSE_NAMES = new Map(Object.entries(CAUSES).map(([name, value]) => [value, name as DeadLetterCause]));
const FAILURE_NAMES = new Map([
  [AttemptError.NACKED, "nacked"],
  [AttemptError.LAPSED, "lapsed"],
  [AttemptError.STREAM_BROKEN, "stream_broken"],
] as const);

/** A delivery that did not end with an ack. */
export interface FailedAttempt {
  /** 1 for the first one. */
  attempt: number;
  /** When it failed. */
  time: Date | undefined;
  /** `nacked`: refused. `lapsed`: the ack deadline passed. Undefined: in a way that this version does not know. */
  error: "nacked" | "lapsed" | "stream_broken" | undefined;
  /** Of a nack, its reason. */
  text: string;
}

/** What came of putting dead letters back. */
export interface Redriven {
  /** Messages that were put back. */
  redriven: number;
  /** Messages that were left alone, because the inbox is full or gone. */
  skipped: number;
}

/** Where dead letters go, and how fast. */
export interface RedriveOptions {
  /** The sandbox that gets them. Default: the inbox that each left. */
  toSandbox?: string;
  /** Messages a second at the most. Default: as fast as live traffic leaves room. */
  maxPerSecond?: number;
  /** Ends it; what was put back stays there. */
  signal?: AbortSignal;
}

/** A message that left its inbox without being acknowledged. */
export interface DeadLetter {
  /** Whose inbox it left. */
  sandbox: string;
  /** As it was sent. */
  message: Message;
  /** Why it left. Undefined: for a reason that this version does not know. */
  reason: DeadLetterCause | undefined;
  /** In plain words; of a nack, its reason. */
  text: string;
  /** When it left. */
  time: Date | undefined;
  /** Failed attempts, oldest first; the newest 32. */
  attempts: FailedAttempt[];
  /** Of a message that went in circles: the sequences of the conversation. */
  chain: number[];
}

/** Which dead letters. All that is set must hold. */
export interface DeadLetterFilter {
  /** Whose inbox they left. */
  sandbox?: string;
  /** Why they left. */
  reason?: DeadLetterCause;
  /** The sandbox that sent them. */
  from?: string;
  /** Of this conversation. */
  correlationId?: string;
  /** What they are for. */
  type?: MessageKind;
  /** Dead at this time or later. */
  since?: Date;
  /** Dead before this time. */
  until?: Date;
  /** Only this message. Needs `sandbox`. */
  sequence?: number;
}

/** Looks after messages that left an inbox without being acknowledged. */
export class DeadLetters {
  readonly #caller: Caller;
  readonly #workspaceId: string;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
    this.#workspaceId = caller.settings.workspaceId;
  }

  /** By recipient and sequence. */
  async *list(filter: DeadLetterFilter = {}, options: CallOptions = {}): AsyncGenerator<DeadLetter, void, undefined> {
    const asked = { workspaceId: this.#workspaceId, filter: toWire(filter), pageSize: 1_000 };
    const read = (pageToken: string) =>
      this.#caller.unary(
        DeadLetterService.method.listDeadLetters,
        { ...asked, pageToken },
        { ...options, repeatable: true },
      );
    for await (const letter of pages(read, (page) => page.deadLetters)) yield fromWire(letter);
  }

  /** One of them. `UNKNOWN_DEAD_LETTER` when there is none. */
  async get(sandbox: string, sequence: number, options: CallOptions = {}): Promise<DeadLetter> {
    const request = { workspaceId: this.#workspaceId, sandboxId: sandbox, sequence: BigInt(sequence) };
    const plan = { ...options, repeatable: true };
    const answer = await this.#caller.unary(DeadLetterService.method.getDeadLetter, request, plan);
    return fromWire(answer.deadLetter ?? ({} as WireDeadLetter));
  }

  /**
   * Puts dead letters back, as first attempts; `skipped`: the inbox is full or gone. A call that breaks is made again by itself;
   * then `redriven` may lack what moved after the last word on its progress.
   */
  async redrive(filter: DeadLetterFilter, options: RedriveOptions = {}): Promise<Redriven> {
    const { toSandbox: toSandboxId = "", maxPerSecond = 0, signal } = options;
    const request = { workspaceId: this.#workspaceId, filter: toWire(filter), toSandboxId, maxPerSecond };
    let before = 0;
    const run = async () => {
      let sofar = 0;
      try {
        for await (const progress of this.#caller.serverStream(
          DeadLetterService.method.redriveDeadLetters,
          request,
          signal,
        )) {
          sofar = toNumber(progress.redriven);
          if (progress.done) return { redriven: before + sofar, skipped: toNumber(progress.skipped) };
        }
      } catch (error) {
        before += sofar;
        throw error;
      }
      throw new ConnectionLostError("the broker", "the redrive ended before it was done");
    };
    return this.#caller.repeated("a redrive", run, signal);
  }

  /** Removes dead letters for good; returns how many. Made again by itself, as a redrive. */
  async purge(filter: DeadLetterFilter, options: { signal?: AbortSignal } = {}): Promise<number> {
    const { signal } = options;
    const request = { workspaceId: this.#workspaceId, filter: toWire(filter) };
    let before = 0;
    const run = async () => {
      let sofar = 0;
      try {
        for await (const progress of this.#caller.serverStream(
          DeadLetterService.method.purgeDeadLetters,
          request,
          signal,
        )) {
          sofar = toNumber(progress.purged);
          if (progress.done) return before + sofar;
        }
      } catch (error) {
        before += sofar;
        throw error;
      }
      throw new ConnectionLostError("the broker", "the purge ended before it was done");
    };
    return this.#caller.repeated("a purge", run, signal);
  }
}

function toWire(filter: DeadLetterFilter) {
  return {
    sandboxId: filter.sandbox ?? "",
    reason: filter.reason === undefined ? DeadLetterReason.UNSPECIFIED : CAUSES[filter.reason],
    fromSandboxId: filter.from ?? "",
    correlationId: filter.correlationId ?? "",
    type: toWireKind(filter.type),
    startTime: toOptionalTimestamp(filter.since),
    endTime: toOptionalTimestamp(filter.until),
    sequence: BigInt(filter.sequence ?? 0),
  };
}

function fromWire(letter: WireDeadLetter): DeadLetter {
  return {
    sandbox: letter.sandboxId,
    message: new Message(letter.message as NonNullable<WireDeadLetter["message"]>),
    reason: CAUSE_NAMES.get(letter.reason),
    text: letter.reasonText,
    time: fromTimestamp(letter.deadTime),
    attempts: letter.attempts.map(({ attempt, time, error, text }) => ({
      attempt,
      time: fromTimestamp(time),
      error: FAILURE_NAMES.get(error as AttemptError.NACKED),
      text,
    })),
    chain: letter.chain.map(toNumber),
  };
}
