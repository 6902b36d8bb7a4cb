import { ContractError } from "../errors.js";
import type { Delivery as WireDelivery } from "../gen/aintandem/messaging/v1/subscribe_service_pb.js";
import { Message } from "../message.js";
import { toNumber } from "../wire_time.js";
import type { Session } from "./session.js";

/** How a delivery failed, and what shall become of its message. */
export interface NackOptions {
  /** When the next attempt may be, in milliseconds, at most 24 h. Default: after the backoff of the sandbox. */
  delayMs?: number;
  /** No further attempt: the message becomes a dead letter now. Default: false. */
  deadLetter?: boolean;
}

/** One attempt to hand over a message, under a lease. */
export class Delivery {
  /** What is handed over. */
  readonly message: Message;
  /** 1 for the first attempt. */
  readonly attempt: number;
  /** Counts the deliveries of its stream from 1. */
  readonly deliveryId: number;
  /** Bytes of credit that it took. */
  readonly bytes: number;
  readonly #session: Session;

  /** @internal */
  constructor(session: Session, wire: WireDelivery, bytes: number) {
    if (wire.message === undefined) throw new ContractError(`delivery ${wire.deliveryId} holds no message`);
    this.#session = session;
    this.message = new Message(wire.message);
    this.attempt = wire.attempt;
    this.deliveryId = toNumber(wire.deliveryId);
    this.bytes = bytes;
  }

  /** Whether its lease has ended: its deadline passed, or its stream broke. The message comes again. */
  get isLost(): boolean {
    return this.#session.isLost(this.deliveryId);
  }

  /**
   * Takes the message out of the inbox for good; resolves once that is durable. Does not need to be awaited: a failure that
   * nobody waits for is logged. Fails with `LEASE_LOST` when the lease has ended, `UNKNOWN_DELIVERY` when it was acknowledged before.
   */
  ack(): Promise<void> {
    return this.#session.ack(this.deliveryId);
  }

  /** Gives the message back as failed; resolves once that is durable. The reason, at most 1,024 bytes, goes into its history. */
  nack(reason: string, options: NackOptions = {}): Promise<void> {
    return this.#session.nack(this.deliveryId, reason, options);
  }

  /** Lets the deadline begin anew: `deadlineMs` from now on, 1 s to 24 h, or the ack deadline of the subscription. */
  extend(deadlineMs?: number): Promise<void> {
    return this.#session.extend(this.deliveryId, this.deliveryId, deadlineMs);
  }
}
