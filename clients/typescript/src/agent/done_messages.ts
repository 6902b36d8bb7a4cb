// Messages whose work is done and whose ack did not count, because the lease or the stream was gone by then. They come again, and
// this process need not do the work twice.

/** How long one is remembered, in milliseconds: longer than any backoff between attempts. */
const REMEMBER_MS = 10 * 60 * 1000;
const MAX_MESSAGES = 10_000;

export class DoneMessages {
  readonly #doneAtMs = new Map<number, number>();

  add(sequence: number, nowMs: number = performance.now()): void {
    // Oldest first: a Map keeps the order of insertion.
    if (this.#doneAtMs.size >= MAX_MESSAGES) {
      const oldest = this.#doneAtMs.keys().next();
      if (!oldest.done) this.#doneAtMs.delete(oldest.value);
    }
    this.#doneAtMs.delete(sequence);
    this.#doneAtMs.set(sequence, nowMs);
  }

  has(sequence: number, nowMs: number = performance.now()): boolean {
    const doneAtMs = this.#doneAtMs.get(sequence);
    return doneAtMs !== undefined && nowMs - doneAtMs < REMEMBER_MS;
  }

  /** Its ack counted: a message that is put back on purpose is work again. */
  delete(sequence: number): void {
    this.#doneAtMs.delete(sequence);
  }
}
