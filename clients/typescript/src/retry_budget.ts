// How many retries a client may spend. Without it a broker that is in trouble gets ten times the calls.

export interface RetryBudgetOptions {
  /** Retries that may be spent at once. Default: 200. */
  size?: number;
  /** Retries that come back each second. Default: 20. */
  perSecond?: number;
}

/** A bucket of retries, shared by all calls of a client. Streams that reconnect do not draw on it: they are few, and wait. */
export class RetryBudget {
  readonly #size: number;
  readonly #perSecond: number;
  #left: number;
  #countedAtMs: number;

  constructor(options: RetryBudgetOptions = {}, nowMs: number = performance.now()) {
    this.#size = options.size ?? 200;
    this.#perSecond = options.perSecond ?? 20;
    this.#left = this.#size;
    this.#countedAtMs = nowMs;
  }

  /** Takes one retry; false when there is none left. */
  take(nowMs: number = performance.now()): boolean {
    const grown = ((nowMs - this.#countedAtMs) / 1000) * this.#perSecond;
    this.#left = Math.min(this.#size, this.#left + grown);
    this.#countedAtMs = nowMs;
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }
}
