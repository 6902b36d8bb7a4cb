// What a publisher still has to send, and what it waits for. Knows nothing of connections.

import { fromStatus } from "../connection/refusal.js";
import { type AInTandemError, ContractError, TimeoutError } from "../errors.js";
import type { Message } from "../gen/aintandem/messaging/v1/message_pb.js";
import type { PublishStreamResponse } from "../gen/aintandem/messaging/v1/publish_service_pb.js";
import { newId } from "../ids.js";
import { fromTimestamp, toNumber } from "../wire_time.js";
import type { Receipt } from "./receipt.js";

/** One message on its way. */
export interface Pending {
  readonly message: Message;
  readonly bytes: number;
  readonly expiresAtMs: number;
  readonly timeoutMs: number;
  /** Whether the caller has an answer; a message that timed out keeps its place, so that no position is left out. */
  settled: boolean;
  resolve(receipt: Receipt): void;
  reject(error: AInTandemError): void;
}

/** Messages that went out together, with the position of the first. */
export interface Batch {
  readonly requestId: bigint;
  readonly producerId: string;
  readonly firstPosition: bigint;
  readonly messages: readonly Pending[];
}

export interface BatchLimits {
  /** Most messages in one request. */
  batchMessages: number;
  /** Most bytes in one request; a larger message goes alone. */
  batchBytes: number;
}

/** Positions are given when a batch is formed, so what is taken back before has none. */
export class Batches {
  readonly #limits: BatchLimits;
  #waiting: Pending[] = [];
  #unanswered: Batch[] = [];
  #producerId = newId();
  #nextPosition = 1n;
  #lastRequestId = 0n;
  #messages = 0;
  #bytes = 0;

  constructor(limits: BatchLimits) {
    this.#limits = limits;
  }

  /** The producer that numbers the messages. A new one after the broker ended the stream for good. */
  get producerId(): string {
    return this.#producerId;
  }
  /** Messages without an answer, sent or not. */
  get messages(): number {
    return this.#messages;
  }
  /** Their bytes. */
  get bytes(): number {
    return this.#bytes;
  }
  get hasWaiting(): boolean {
    return this.#waiting.length > 0;
  }
  /** Oldest first: what has to be sent again on a new stream. */
  get unanswered(): readonly Batch[] {
    return this.#unanswered;
  }

  add(pending: Pending): void {
    this.#waiting.push(pending);
    this.#count(pending, 1);
  }

  /** Takes back what was not sent yet; false when it was. */
  takeBack(pending: Pending): boolean {
    const at = this.#waiting.indexOf(pending);
    if (at < 0) return false;
    this.#waiting.splice(at, 1);
    this.#count(pending, -1);
    return true;
  }

  /** The next request: everything that has gathered, within the limits; undefined when nothing waits. */
  take(): Batch | undefined {
    let bytes = 0;
    let count = 0;
    for (const pending of this.#waiting) {
      if (count > 0 && (count >= this.#limits.batchMessages || bytes + pending.bytes > this.#limits.batchBytes)) break;
      bytes += pending.bytes;
      count += 1;
    }
    if (count === 0) return undefined;
    const batch = {
      requestId: ++this.#lastRequestId,
      producerId: this.#producerId,
      firstPosition: this.#nextPosition,
      messages: this.#waiting.splice(0, count),
    };
    this.#nextPosition += BigInt(count);
    this.#unanswered.push(batch);
    return batch;
  }

  /** Matches an answer with the oldest batch that has none. */
  answer(response: PublishStreamResponse): void {
    const batch = this.#unanswered.shift();
    if (batch === undefined || batch.requestId !== response.requestId) {
      throw new ContractError(`an answer to request ${response.requestId} came out of turn`);
    }
    const exceptions = new Map(response.exceptions.map((exception) => [exception.index, exception.outcome]));
    if (response.accepted !== batch.messages.length - exceptions.size) {
      throw new ContractError(`request ${response.requestId} has ${response.accepted} messages more or less than sent`);
    }
    const serverTime = fromTimestamp(response.serverTime) ?? new Date(0);
    const first = toNumber(response.firstSequence);
    for (const [index, pending] of batch.messages.entries()) {
      this.#count(pending, -1);
      const outcome = exceptions.get(index);
      const receipt = { id: pending.message.messageId, sequence: first + index, serverTime, duplicate: false };
      if (outcome?.case === "refusal") {
        this.#refused(pending, fromStatus(outcome.value));
        continue;
      }
      if (outcome?.case === "approvalId") {
        settle(pending, { ...receipt, sequence: 0, approvalId: toNumber(outcome.value) });
        continue;
      }
      if (outcome?.case === "duplicateOf") {
        receipt.sequence = toNumber(outcome.value);
        receipt.duplicate = true;
      }
      receipt.id ||= `seq-${receipt.sequence}`;
      settle(pending, { ...receipt, approvalId: undefined });
    }
  }

  /** Gives everything this error. What follows is another producer's: nobody knows which positions count. */
  failAll(error: AInTandemError): void {
    const all = [...this.#unanswered.flatMap((batch) => batch.messages), ...this.#waiting];
    this.#unanswered = [];
    this.#waiting = [];
    this.#messages = 0;
    this.#bytes = 0;
    this.#producerId = newId();
    this.#nextPosition = 1n;
    for (const pending of all) fail(pending, error);
  }

  /** Tells the callers whose time is up; takes back what was not sent. `last` says why nothing came. */
  expire(nowMs: number, last: AInTandemError | undefined): void {
    const late = (pending: Pending) => !pending.settled && pending.expiresAtMs <= nowMs;
    for (const pending of this.#waiting.filter(late)) {
      this.takeBack(pending);
      fail(pending, new TimeoutError("a publish", pending.timeoutMs, { cause: last, outcomeUnknown: false }));
    }
    for (const batch of this.#unanswered) {
      for (const pending of batch.messages.filter(late)) {
        fail(pending, new TimeoutError("a publish", pending.timeoutMs, { cause: last }));
      }
    }
  }

  #refused(pending: Pending, error: AInTandemError): void {
    // The answer that refused it was lost with its stream, and its position is used up. It is in no log, so it goes out once
    // more, at a new position, and gets the refusal that it would have got.
    if (error.code === "POSITION_REFUSED" && !pending.settled) this.add(pending);
    else fail(pending, error);
  }

  #count(pending: Pending, sign: 1 | -1): void {
    this.#messages += sign;
    this.#bytes += sign * pending.bytes;
  }
}

function settle(pending: Pending, receipt: Receipt): void {
  if (pending.settled) return;
  pending.settled = true;
  pending.resolve(receipt);
}

function fail(pending: Pending, error: AInTandemError): void {
  if (pending.settled) return;
  pending.settled = true;
  pending.reject(error);
}
