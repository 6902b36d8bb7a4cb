// How many retries a client may spend. Without it a broker that is in trouble gets ten times the calls.

/** How many retries all calls of a client together may spend. */
export interface RetryBudgetOptions {
  /** Retries that may be spent at once: what hundreds of calls need that are under way when a leader dies. Default: 1,000. */
  size?: number;
  /** Retries that come back each second. Default: 10. */
  perSecond?: number;
  /** What each call that succeeds gives back, in retries. Default: 0.2. */
  perSuccess?: number;
}

/** A bucket of retries, shared by all calls of a client. Streams that reconnect do not draw on it: they are few, and wait. */
export class RetryBudget {
  readonly #size: number;
  readonly #perSecond: number;
  readonly #perSuccess: number;
  #left: number;
  #countedAtMs: number;

  constructor(options: RetryBudgetOptions = {}, nowMs: number = performance.now()) {
    this.#size = options.size ?? 1_000;
    this.#perSecond = options.perSecond ?? 10;
    this.#perSuccess = options.perSuccess ?? 0.2;
    this.#left = this.#size;
    this.#countedAtMs = nowMs;
  }

  /** Takes one retry; false when there is none left. */
  take(nowMs: number = performance.now()): boolean {
    this.#giveBack(((nowMs - this.#countedAtMs) / 1000) * this.#perSecond);
    this.#countedAtMs = nowMs;
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }

  /** A call went through. */
  succeeded(): void {
    this.#giveBack(this.#perSuccess);
  }

  #giveBack(retries: number): void {
    this.#left = Math.min(this.#size, this.#left + retries);
  }
}
