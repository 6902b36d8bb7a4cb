// Who the client is: a token by value, or in a file that is read again when it changes.

import { readFileSync, statSync } from "node:fs";
import { type AInTandemError, InvalidValueError, textOf } from "../errors.js";
import { sleep } from "../waiting.js";

/** A token or an API key; or the file that holds one, which whoever renews it simply writes again. */
export type TokenSource =
  | string
  | {
      /** Its path. */
      file: string;
    };

/** How often the file is looked at, at the most, in milliseconds. */
const LOOK_EVERY_MS = 1000;
/** The same while another token is waited for. */
const LOOK_EAGERLY_MS = 200;
/** After the token has ended: how long to wait for another one in its file, in milliseconds. */
export const TOKEN_PATIENCE_MS = 10_000;

/** The broker does not take the token, or not any more: `TOKEN_EXPIRED`, `TOKEN_REVOKED`, `KEY_REVOKED` and their like. */
export function isUnauthenticated(error: AInTandemError): boolean {
  return "grpcCode" in error && error.grpcCode === "UNAUTHENTICATED";
}

export class Token {
  readonly #file: string | undefined;
  #value = "";
  #stamp = "";
  #lookedAtMs = Number.NEGATIVE_INFINITY;

  constructor(source: TokenSource | undefined) {
    if (typeof source === "object") this.#file = source.file;
    else this.#value = (source ?? "").trim();
  }

  /**
   * The token as it is now; undefined when the client has none. A file that vanished for a moment, while somebody replaces it,
   * leaves the token as it was. Throws `TOKEN_UNREADABLE` when the file could never be read.
   */
  current(nowMs: number = performance.now()): string | undefined {
    if (this.#file !== undefined && nowMs - this.#lookedAtMs >= LOOK_EVERY_MS) {
      this.#lookedAtMs = nowMs;
      this.#read(this.#file);
    }
    return this.#value === "" ? undefined : this.#value;
  }

  /** Whether there is another token now than the one that was used. Looks at the file at once. */
  hasChangedSince(used: string | undefined): boolean {
    this.#lookedAtMs = Number.NEGATIVE_INFINITY;
    return this.current() !== used;
  }

  /** Waits until there is another token than the one that was used; false when none has come within ten seconds, or can come. */
  async another(used: string | undefined, signal: AbortSignal): Promise<boolean> {
    if (!this.isRenewable) return false;
    const endMs = performance.now() + TOKEN_PATIENCE_MS;
    while (!this.hasChangedSince(used)) {
      if (signal.aborted || performance.now() >= endMs) return false;
      await sleep(LOOK_EAGERLY_MS, signal).catch(() => {});
    }
    return true;
  }

  /** Whether a later token may come. */
  get isRenewable(): boolean {
    return this.#file !== undefined;
  }

  #read(file: string): void {
    try {
      const { mtimeMs, size, ino } = statSync(file);
      const stamp = `${mtimeMs}/${size}/${ino}`;
      if (stamp === this.#stamp) return;
      const value = readFileSync(file, "utf8").trim();
      // Empty: somebody is writing it this instant.
      if (value === "" && this.#value !== "") return;
      this.#value = value;
      this.#stamp = stamp;
    } catch (error) {
      if (this.#value !== "") return;
      const text = `the token file ${file} cannot be read: ${textOf(error)}`;
      throw new InvalidValueError("TOKEN_UNREADABLE", text, { cause: error });
    }
  }
}
