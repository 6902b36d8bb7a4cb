// One stream of a subscription: leases, verdicts and credit live and die with it.

import { toBinary } from "@bufbuild/protobuf";
import { Outgoing } from "../connection/outgoing.js";
import { type AInTandemError, ContractError, LeaseLostError } from "../errors.js";
import { MessageSchema } from "../gen/aintandem/messaging/v1/message_pb.js";
import type {
  DeliveryBatch,
  LeasesLost,
  SubscribeResponse,
} from "../gen/aintandem/messaging/v1/subscribe_service_pb.js";
import type { Logger } from "../logger.js";
import { toNumber } from "../wire_time.js";
import { Delivery, type NackOptions } from "./delivery.js";
import { type SubscribeRequest, Verdicts } from "./verdicts.js";

const STREAM_GONE = "the stream of this delivery has ended, and its lease with it; the message comes again";
const OUTCOME_LOST = "the stream broke before the outcome came; the message comes again unless the verdict counted";

export class Session {
  readonly requests = new Outgoing<SubscribeRequest>();
  readonly #verdicts = new Verdicts();
  readonly #logger: Logger;
  /** Deliveries without a verdict. */
  readonly #held = new Set<number>();
  #lastDeliveryId = 0;
  #ended = false;
  #flushScheduled = false;
  #creditMessages = 0;
  #creditBytes = 0;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Whether deliveries are out that nobody has decided on. */
  get holds(): number {
    return this.#held.size;
  }
  /** Whether every verdict has its outcome. */
  get isSettled(): boolean {
    return this.#verdicts.isEmpty;
  }

  isLost(deliveryId: number): boolean {
    return this.#ended || !this.#held.has(deliveryId);
  }

  deliver(batch: DeliveryBatch): Delivery[] {
    return batch.deliveries.map((wire) => {
      // Credit counts the message as it is encoded. Its content is nearly all of it, so only a large share is worth a look.
      const bytes = wire.message === undefined ? 0 : toBinary(MessageSchema, wire.message).length;
      const delivery = new Delivery(this, wire, bytes);
      this.#lastDeliveryId = Math.max(this.#lastDeliveryId, delivery.deliveryId);
      this.#held.add(delivery.deliveryId);
      return delivery;
    });
  }

  /** Leases that ended on their own; returns which of them nobody had decided on. */
  lose(lost: LeasesLost): number[] {
    const gone: number[] = [];
    for (const range of lost.ranges) {
      const last = Math.min(toNumber(range.last), this.#lastDeliveryId);
      for (let id = toNumber(range.first); id <= last; id++) if (this.#held.delete(id)) gone.push(id);
    }
    if (gone.length > 0) {
      const text = "leases were lost: the ack deadline passed, and the messages come again";
      this.#logger.warn(text, { deliveries: gone.length, reason: lost.status?.message });
    }
    return gone;
  }

  settle(kind: SubscribeResponse["kind"]): void {
    switch (kind.case) {
      case "ackOutcome":
        this.#verdicts.settle("ack", kind.value.refusals);
        break;
      case "nackOutcome":
        this.#verdicts.settle("nack", kind.value.refusals);
        break;
      case "extendOutcome":
        this.#verdicts.settle("extend", kind.value.refusals);
        break;
      default:
        throw new ContractError(`a response of the kind ${kind.case ?? "unknown"} came`);
    }
  }

  ack(deliveryId: number): Promise<void> {
    this.#held.delete(deliveryId);
    return this.#say("an ack", () => this.#verdicts.ack(deliveryId));
  }

  nack(deliveryId: number, reason: string, options: NackOptions): Promise<void> {
    this.#held.delete(deliveryId);
    return this.#say("a nack", () => this.#verdicts.nack(deliveryId, reason, options));
  }

  extend(first: number, last: number, deadlineMs?: number): Promise<void> {
    return this.#say("an extension", () => this.#verdicts.extend(first, last, deadlineMs));
  }

  /** A heartbeat for everything that is out: done deliveries are passed over by the broker. */
  extendAll(): Promise<void> {
    if (this.#ended || this.#held.size === 0) return Promise.resolve();
    return this.extend(1, this.#lastDeliveryId);
  }

  /** Gives back credit that was used, when half of the window is gone: doing it for each message would cost more. */
  giveBack(messages: number, bytes: number, window: { messages: number; bytes: number }): void {
    this.#creditMessages += messages;
    this.#creditBytes += bytes;
    if (this.#creditMessages * 2 < window.messages && this.#creditBytes * 2 < window.bytes) return;
    const credit = { messages: this.#creditMessages, bytes: BigInt(this.#creditBytes) };
    this.requests.push({ kind: { case: "credit", value: credit } });
    this.#creditMessages = 0;
    this.#creditBytes = 0;
  }

  /** Sends what waits, and then that no more follows. The broker answers all and ends the stream. */
  finish(): void {
    this.#flush();
    this.requests.end();
  }

  /** The stream has ended. */
  end(cause: AInTandemError | undefined): void {
    this.#ended = true;
    this.#held.clear();
    this.requests.end();
    this.#verdicts.failAll(() => new LeaseLostError(OUTCOME_LOST, { outcomeUnknown: true, cause }));
  }

  #say(what: string, say: () => Promise<void>): Promise<void> {
    const said = this.#ended ? Promise.reject(new LeaseLostError(STREAM_GONE)) : say();
    // Whoever does not wait for the outcome shall not be ended by an unhandled rejection.
    said.catch((error: AInTandemError) => {
      this.#logger.debug(`${what} did not count`, { code: error.code, text: error.message });
    });
    if (!this.#flushScheduled && !this.#ended) {
      this.#flushScheduled = true;
      // After everything that runs now: verdicts of one turn of the loop share a request.
      setImmediate(() => this.#flush());
    }
    return said;
  }

  #flush(): void {
    this.#flushScheduled = false;
    for (let request = this.#verdicts.take(); request !== undefined; request = this.#verdicts.take()) {
      this.requests.push(request);
    }
  }
}
