// What was said about deliveries: gathered, sent together, and matched with the broker's outcomes.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { fromStatus } from "../connection/refusal.js";
import { type AInTandemError, ContractError } from "../errors.js";
import {
  type AckRefusal,
  AckSchema,
  DeliveryRangeSchema,
  ExtendSchema,
  NackSchema,
  type SubscribeRequestSchema,
} from "../gen/aintandem/messaging/v1/subscribe_service_pb.js";
import { type Deferred, deferred } from "../waiting.js";
import { toNumber, toOptionalDuration } from "../wire_time.js";
import type { NackOptions } from "./delivery.js";

export type SubscribeRequest = MessageInitShape<typeof SubscribeRequestSchema>;
export type VerdictKind = "ack" | "nack" | "extend";

/** Ranges in one request: the broker takes 1,024. */
const MAX_RANGES = 1_024;
/** Acks and nacks that may wait for their outcome before the broker stops reading. */
const MAX_REASON_BYTES = 1_024;

interface Entry {
  readonly first: number;
  readonly last: number;
  readonly outcome: Deferred<void>;
}

/** Verdicts of one kind, which become one request. */
interface Group {
  readonly kind: VerdictKind;
  /** What must be equal for verdicts to share a request. */
  readonly same: string;
  readonly reason: string;
  readonly delayMs: number | undefined;
  readonly deadLetter: boolean;
  readonly deadlineMs: number | undefined;
  readonly entries: Entry[];
  /** Deliveries named, so that a second word about one goes into a request of its own and gets its own outcome. */
  readonly named: Set<number>;
}

/** Of one stream. Each delivery is a range of its own, so that a refusal names it and no other. */
export class Verdicts {
  #waiting: Group[] = [];
  /** Sent, in order: acks and nacks share one order of outcomes, extensions have their own. */
  #sentVerdicts: Group[] = [];
  #sentExtends: Group[] = [];

  get isEmpty(): boolean {
    return this.#waiting.length === 0 && this.#sentVerdicts.length === 0 && this.#sentExtends.length === 0;
  }

  ack(deliveryId: number): Promise<void> {
    return this.#add("ack", deliveryId, deliveryId, {});
  }

  nack(deliveryId: number, reason: string, options: NackOptions): Promise<void> {
    return this.#add("nack", deliveryId, deliveryId, { ...options, reason: truncate(reason) });
  }

  extend(first: number, last: number, deadlineMs: number | undefined): Promise<void> {
    return this.#add("extend", first, last, { deadlineMs });
  }

  /** The next request; undefined when nothing waits. */
  take(): SubscribeRequest | undefined {
    const group = this.#waiting.shift();
    if (group === undefined) return undefined;
    (group.kind === "extend" ? this.#sentExtends : this.#sentVerdicts).push(group);
    const ranges = group.entries.map(({ first, last }) =>
      create(DeliveryRangeSchema, { first: BigInt(first), last: BigInt(last) }),
    );
    switch (group.kind) {
      case "ack":
        return { kind: { case: "ack", value: create(AckSchema, { ranges }) } };
      case "nack": {
        const { reason, deadLetter } = group;
        const delay = toOptionalDuration(group.delayMs);
        return { kind: { case: "nack", value: create(NackSchema, { ranges, reason, deadLetter, delay }) } };
      }
      case "extend": {
        const ackDeadline = toOptionalDuration(group.deadlineMs);
        return { kind: { case: "extend", value: create(ExtendSchema, { ranges, ackDeadline }) } };
      }
    }
  }

  /** The broker's outcome of the oldest request of its kind that has none. */
  settle(kind: VerdictKind, refusals: readonly AckRefusal[]): void {
    const group = (kind === "extend" ? this.#sentExtends : this.#sentVerdicts).shift();
    if (group?.kind !== kind) throw new ContractError(`an outcome of ${kind} came out of turn`);
    if (refusals.length === 0) {
      for (const { outcome } of group.entries) outcome.resolve();
      return;
    }
    const refused = refusals.map(({ range, status }) => ({
      first: toNumber(range?.first ?? 0n),
      last: toNumber(range?.last ?? 0n),
      status,
    }));
    for (const entry of group.entries) {
      const found = refused.find(({ first, last }) => first <= entry.last && last >= entry.first);
      if (found === undefined) entry.outcome.resolve();
      else entry.outcome.reject(fromStatus(found.status));
    }
  }

  /** The stream is gone: nobody will tell what became of these. */
  failAll(errorOf: (kind: VerdictKind) => AInTandemError): void {
    const groups = [...this.#sentVerdicts, ...this.#sentExtends, ...this.#waiting];
    this.#sentVerdicts = [];
    this.#sentExtends = [];
    this.#waiting = [];
    for (const { kind, entries } of groups) for (const { outcome } of entries) outcome.reject(errorOf(kind));
  }

  #add(
    kind: VerdictKind,
    first: number,
    last: number,
    say: NackOptions & { reason?: string; deadlineMs?: number | undefined },
  ): Promise<void> {
    const { reason = "", delayMs, deadLetter = false, deadlineMs } = say;
    // Thrown here and not by the stream, which would end for all.
    toOptionalDuration(delayMs);
    toOptionalDuration(deadlineMs);
    const same = JSON.stringify([kind, reason, delayMs, deadLetter, deadlineMs]);
    let group = this.#waiting.at(-1);
    if (group === undefined || group.same !== same || group.entries.length >= MAX_RANGES || group.named.has(first)) {
      group = { kind, same, reason, delayMs, deadLetter, deadlineMs, entries: [], named: new Set() };
      this.#waiting.push(group);
    }
    const outcome = deferred<void>();
    group.entries.push({ first, last, outcome });
    group.named.add(first);
    return outcome.promise;
  }
}

/** Cuts at a character, so that what is left is UTF-8 still. */
function truncate(reason: string): string {
  const bytes = new TextEncoder().encode(reason);
  if (bytes.length <= MAX_REASON_BYTES) return reason;
  return new TextDecoder().decode(bytes.subarray(0, MAX_REASON_BYTES - 3)).replace(/\ufffd+$/, "");
}
