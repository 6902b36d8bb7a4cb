// What handlers get, and what they may throw.

import { AInTandemError } from "../errors.js";
import type { Message } from "../message.js";

/** Beside the message itself. */
export interface HandlingContext {
  /** 1 for the first attempt. */
  attempt: number;
  /** Fires when the handler's time is up, or the agent stops without waiting any longer. */
  signal: AbortSignal;
}

/** Works on a message. It is acknowledged when the handler returns, and comes again when it throws. */
export type MessageHandler = (message: Message, context: HandlingContext) => unknown;

/** Works on a request; what it returns is the response. */
export type RequestHandler = (message: Message, context: HandlingContext) => unknown;

/** Thrown by a handler: no further attempt; the message becomes a dead letter, and who asked is told (`REJECTED`). */
export class Reject extends AInTandemError {
  constructor(reason: string) {
    super("REJECTED", reason);
  }
}

/** Thrown by a handler: try again, but not before `delayMs` have passed. */
export class RetryLater extends AInTandemError {
  /** When the next attempt may be, in milliseconds: at most 24 h. */
  readonly delayMs: number;

  constructor(reason: string, delayMs: number) {
    super("RETRY_LATER", reason, { retryable: true, retryAfterMs: delayMs });
    this.delayMs = delayMs;
  }
}
