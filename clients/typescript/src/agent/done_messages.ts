// Messages whose work is done and whose ack did not count, because the lease or the stream was gone by then. They come again, and
// this process need not do the work twice.

import type { Message } from "../message.js";

/** How long one is remembered, in milliseconds: longer than any backoff between attempts. */
const REMEMBER_MS = 10 * 60 * 1000;
const MAX_MESSAGES = 10_000;

/**
 * What is the same in each delivery of a message, and in none of another one. A broker that was restored from a backup gives
 * sequences again, and with them the ids `seq-<sequence>` of messages whose sender named none. Their times differ.
 */
export function identityOf({ sequence, id, serverTime }: Message): string {
  return `${sequence} ${serverTime.getTime()} ${id}`;
}

/** By identity. */
export class DoneMessages {
  readonly #doneAtMs = new Map<string, number>();

  add(identity: string, nowMs: number = performance.now()): void {
    // Oldest first: a Map keeps the order of insertion.
    if (this.#doneAtMs.size >= MAX_MESSAGES) {
      const oldest = this.#doneAtMs.keys().next();
      if (!oldest.done) this.#doneAtMs.delete(oldest.value);
    }
    this.#doneAtMs.delete(identity);
    this.#doneAtMs.set(identity, nowMs);
  }

  has(identity: string, nowMs: number = performance.now()): boolean {
    const doneAtMs = this.#doneAtMs.get(identity);
    return doneAtMs !== undefined && nowMs - doneAtMs < REMEMBER_MS;
  }

  /** Its ack counted: a message that is put back on purpose is work again. */
  delete(identity: string): void {
    this.#doneAtMs.delete(identity);
  }
}
