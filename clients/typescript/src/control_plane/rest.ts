// Calls of the REST API over fetch, with their retries.

import { positive } from "../connection/settings.js";
import { Token, type TokenSource } from "../connection/token.js";
import {
  AbortedError,
  AInTandemError,
  ConnectionLostError,
  InvalidValueError,
  TimeoutError,
  textOf,
  UnreachableError,
} from "../errors.js";
import { newId } from "../ids.js";
import { defaultLogger, type Logger } from "../logger.js";
import { RetryBudget } from "../retry_budget.js";
import { activeTraceparent } from "../trace.js";
import { DEFAULT_BACKOFF, pauseMs, sleep } from "../waiting.js";
import { ProblemError, problemOf } from "./problem.js";

/** Where the control plane is, and how it is called. */
export interface ControlPlaneOptions {
  /** Where the control plane listens. Default: `http://127.0.0.1:8000`. */
  url?: string;
  /** A token or API key of the broker, or the file that holds one. Default: none, which is enough for `tandem dev`. */
  token?: TokenSource;
  /** How long a call may take, all its tries together, in milliseconds. Default: 60,000. */
  timeoutMs?: number;
  /** How often a call is tried in all, where a repeat is safe. Default: 6. */
  attempts?: number;
  /** Default: the one of Node. */
  fetch?: typeof fetch;
  /** Default: warnings and errors on the console. */
  logger?: Logger;
}

/** What a caller may say about one call. */
export interface RestOptions {
  /** For all tries of this call together, in milliseconds. Default: that of the client. */
  timeoutMs?: number;
  /** Ends the call when it fires. */
  signal?: AbortSignal;
  /** Comes back in errors, and stands in the log of the control plane and in the audit. Default: made up there. */
  requestId?: string;
}

/** About a POST that makes something. */
export interface CreateOptions extends RestOptions {
  /** Up to 128 bytes: a request that is sent again with it, within a day, makes nothing twice. Default: a new one for each call. */
  idempotencyKey?: string;
}

/** A change can name the revision it is about: `REVISION_CHANGED` when there is a later one. */
export interface ChangeOptions extends RestOptions {
  /** The `etag` of what was read. */
  ifMatch?: string;
}

/** What was read, with its tag. */
export type Tagged<T> = T & {
  /** Names this revision of it: for `ifMatch` of a change that shall overwrite nobody else's. */
  etag: string | undefined;
};

/** Parameters of a call; those that are undefined are left out. */
export type Query = Record<string, string | number | boolean | Date | undefined>;

/** One call. */
export interface Call extends RestOptions {
  query?: Query | undefined;
  body?: unknown;
  /** Change only what has this tag or revision. */
  ifMatch?: string | undefined;
  headers?: Record<string, string>;
  /** Of a POST: makes a repeat safe. Default: a new one for each call. `false`: the path takes none, and the call is made once. */
  idempotencyKey?: string | false | undefined;
}

const SAFE_METHODS = new Set(["GET", "PUT", "DELETE"]);
/** What fetch says when no connection was made. */
const CONNECT_FAILURES = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "UND_ERR_CONNECT_TIMEOUT"]);

/** Calls the control plane. */
export class Rest {
  readonly #base: string;
  readonly #token: Token;
  readonly #timeoutMs: number;
  readonly #attempts: number;
  readonly #fetch: typeof fetch;
  readonly #logger: Logger;
  readonly #budget = new RetryBudget();

  constructor(options: ControlPlaneOptions) {
    const url = options.url ?? "http://127.0.0.1:8000";
    if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) {
      const text = `${JSON.stringify(url)} is not an endpoint; write it like http://127.0.0.1:8000`;
      throw new InvalidValueError("INVALID_ENDPOINT", text);
    }
    this.#base = `${url.replace(/\/+$/, "")}/api/v1`;
    this.#token = new Token(options.token);
    this.#timeoutMs = positive("timeoutMs", options.timeoutMs ?? 60_000);
    this.#attempts = positive("attempts", options.attempts ?? 6);
    this.#fetch = options.fetch ?? fetch;
    this.#logger = options.logger ?? defaultLogger;
  }

  /** Calls, and reads the JSON of the answer; undefined when there is none. */
  async json<T>(method: string, path: string, call: Call = {}): Promise<T> {
    const answer = await this.#retried(method, path, call);
    return (answer.body === "" ? undefined : JSON.parse(answer.body)) as T;
  }

  /** The same, with the tag of what was answered. */
  async tagged<T>(method: string, path: string, call: Call = {}): Promise<{ value: T; etag: string | undefined }> {
    const answer = await this.#retried(method, path, call);
    return { value: JSON.parse(answer.body) as T, etag: answer.headers.get("etag") ?? undefined };
  }

  /** All items of a listing, page by page, when they are read. */
  async *pages<P extends { next_cursor?: string | null }, T>(
    path: string,
    query: Query,
    items: (page: P) => readonly T[],
    options: RestOptions = {},
  ): AsyncGenerator<T, void, undefined> {
    for (let cursor: string | undefined; ; ) {
      const page = await this.json<P>("GET", path, { ...options, query: { ...query, cursor } });
      yield* items(page);
      if (page.next_cursor === undefined || page.next_cursor === null) return;
      cursor = page.next_cursor;
    }
  }

  /** An answer that is read as it comes. Not tried again: whoever reads it knows where to go on. */
  async open(path: string, call: Call): Promise<ReadableStream<Uint8Array>> {
    const signal = call.signal ?? new AbortController().signal;
    const response = await this.#send("GET", path, call, signal, this.#timeoutMs);
    if (!response.ok) throw problemOf(response.status, response.headers, await response.text());
    if (response.body === null) throw new ConnectionLostError(this.#base, "the answer has no body");
    return response.body;
  }

  async #retried(method: string, path: string, given: Call): Promise<{ headers: Headers; body: string }> {
    const keyed = method === "POST" && given.idempotencyKey !== false;
    const call = keyed ? { ...given, idempotencyKey: given.idempotencyKey ?? newId() } : given;
    // A change that names the revision it is about is refused when it is repeated after it came through.
    const repeatable = keyed || (SAFE_METHODS.has(method) && call.ifMatch === undefined);
    const timeoutMs = call.timeoutMs ?? this.#timeoutMs;
    const endMs = performance.now() + timeoutMs;
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await this.#once(method, path, call, Math.max(1, endMs - performance.now()), timeoutMs);
        this.#budget.succeeded();
        return answer;
      } catch (thrown) {
        if (!(thrown instanceof AInTandemError)) throw thrown;
        const again = this.#mayRepeat(thrown, repeatable);
        const waitMs = pauseMs(DEFAULT_BACKOFF, attempt, thrown.retryAfterMs);
        if (!again || attempt >= this.#attempts || performance.now() + waitMs >= endMs) throw thrown;
        if (!this.#budget.take()) throw thrown;
        this.#logger.debug(`${method} ${path} is tried again`, { attempt, waitMs, error: thrown.message });
        await sleep(waitMs, call.signal);
      }
    }
  }

  #mayRepeat(error: AInTandemError, repeatable: boolean): boolean {
    if (error.code === "UNREACHABLE" || error.code === "TOO_MANY_REQUESTS" || error.code === "BUSY") return true;
    if (!repeatable) return error.code === "BROKER_UNAVAILABLE";
    if (error.code === "CONNECTION_LOST" || error.code === "IDEMPOTENCY_KEY_IN_USE") return true;
    return error instanceof ProblemError && [502, 503, 504].includes(error.status);
  }

  async #once(
    method: string,
    path: string,
    call: Call,
    leftMs: number,
    timeoutMs: number,
  ): Promise<{ headers: Headers; body: string }> {
    const deadline = AbortSignal.timeout(Math.ceil(leftMs));
    const signal = call.signal === undefined ? deadline : AbortSignal.any([call.signal, deadline]);
    const response = await this.#send(method, path, call, signal, timeoutMs);
    let body: string;
    try {
      body = await response.text();
    } catch (thrown) {
      throw this.#translated(thrown, call.signal, timeoutMs);
    }
    if (!response.ok) throw problemOf(response.status, response.headers, body);
    return { headers: response.headers, body };
  }

  async #send(method: string, path: string, call: Call, signal: AbortSignal, timeoutMs: number): Promise<Response> {
    const headers = this.#headers(call);
    const init: RequestInit = { method, headers, signal };
    if (call.body !== undefined) init.body = encode(call.body);
    try {
      return await this.#fetch(`${this.#base}${path}${encodeQuery(call.query)}`, init);
    } catch (thrown) {
      throw this.#translated(thrown, call.signal, timeoutMs);
    }
  }

  #headers(call: Call): Record<string, string> {
    const token = this.#token.current();
    const traceparent = activeTraceparent();
    return {
      accept: "application/json",
      ...(call.body !== undefined && { "content-type": "application/json" }),
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(call.requestId !== undefined && { "x-request-id": call.requestId }),
      ...(traceparent !== undefined && { traceparent }),
      ...(call.ifMatch !== undefined && { "if-match": call.ifMatch }),
      ...(typeof call.idempotencyKey === "string" && { "idempotency-key": call.idempotencyKey }),
      ...call.headers,
    };
  }

  #translated(thrown: unknown, signal: AbortSignal | undefined, timeoutMs: number): AInTandemError {
    if (signal?.aborted) return new AbortedError("a call", { cause: signal.reason, outcomeUnknown: true });
    if (thrown instanceof Error && thrown.name === "TimeoutError") {
      return new TimeoutError(`the call of ${this.#base}`, timeoutMs);
    }
    const cause = thrown instanceof Error && thrown.cause !== undefined ? thrown.cause : thrown;
    return CONNECT_FAILURES.has(codeOf(cause))
      ? new UnreachableError(this.#base, cause)
      : new ConnectionLostError(this.#base, cause);
  }
}

function codeOf(cause: unknown): string {
  if (cause instanceof AggregateError) return codeOf(cause.errors[0]);
  return typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : "";
}

function encode(body: unknown): string {
  try {
    return JSON.stringify(body);
  } catch (error) {
    throw new InvalidValueError("CONTENT_NOT_SERIALIZABLE", `the body is no JSON: ${textOf(error)}`, { cause: error });
  }
}

function encodeQuery(query: Query | undefined): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) parameters.set(name, value instanceof Date ? value.toISOString() : String(value));
  }
  const text = parameters.toString();
  return text === "" ? "" : `?${text}`;
}

/** An id as a part of a path: it may have slashes. */
export function part(id: string | number): string {
  return encodeURIComponent(String(id));
}
