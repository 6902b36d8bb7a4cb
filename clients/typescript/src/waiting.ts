// Waits that end early, and how long to wait before the next try.

import { AbortedError } from "./errors.js";

/** Between tries: doubled each time, up to a limit. */
export interface Backoff {
  /** Before the second try, in milliseconds. */
  initialMs: number;
  /** Where doubling ends, in milliseconds. */
  maxMs: number;
}

/** A leader that hands over is back elsewhere within these; where nobody can lead, waiting grows. */
export const DEFAULT_BACKOFF: Backoff = { initialMs: 20, maxMs: 1000 };

/**
 * Milliseconds before try number `attempt + 1` (attempts count from 1). No less than the broker asked for, and nothing where it
 * asked for nothing. Spread by a fifth either way: many clients that lost one node should not come back in one instant.
 */
export function pauseMs(
  backoff: Backoff,
  attempt: number,
  askedMs?: number,
  random: () => number = Math.random,
): number {
  if (askedMs === 0) return 0;
  const doubled = backoff.initialMs * 2 ** Math.min(attempt - 1, 20);
  const spread = Math.min(doubled, backoff.maxMs) * (0.8 + 0.4 * random());
  return Math.max(spread, askedMs ?? 0);
}

/** Resolves after `ms` milliseconds; rejects with `ABORTED` when the signal fires first. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(new AbortedError("a wait", { cause: signal.reason }));
      return;
    }
    const onAbort = () => {
      clearTimeout(timer);
      reject(new AbortedError("a wait", { cause: signal?.reason }));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** A promise with its ends in reach. */
export interface Deferred<T> {
  promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

export function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((ok, no) => {
    resolve = ok;
    reject = no;
  });
  return { promise, resolve, reject };
}

/** What a promise comes to, unless the signal fires first. The work behind the promise goes on. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined, error: () => unknown): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(error());
    if (signal.aborted) {
      onAbort();
      promise.catch(() => {});
      return;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
