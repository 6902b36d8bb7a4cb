// What a client may be told, with its defaults.

import { readFileSync } from "node:fs";
import type { SecureClientSessionOptions } from "node:http2";
import { InvalidValueError, textOf } from "../errors.js";
import { defaultLogger, type Logger } from "../logger.js";
import type { RetryBudgetOptions } from "../retry_budget.js";
import { type Backoff, DEFAULT_BACKOFF } from "../waiting.js";
import type { TokenSource } from "./token.js";

/** Certificates for endpoints with `https://`. */
export interface TlsOptions {
  /** Certificates whose signature on a broker's certificate counts, as a PEM file. Default: those of Node. */
  caFile?: string;
  /** Certificate that this client shows, as a PEM file; with `keyFile`. Default: none. */
  certFile?: string;
  /** Its private key, as a PEM file. */
  keyFile?: string;
}

/** Where the broker is, and how it is called. */
export interface ClientOptions {
  /** Where brokers listen, such as `http://127.0.0.1:8001`; one, a list, or several with commas. Default: that one. */
  endpoints?: string | readonly string[];
  /** The workspace to work in. Default: `default`. */
  workspaceId?: string;
  /** Who this client is. Default: nobody, which is enough for `tandem dev`. */
  token?: TokenSource;
  /** Certificates, for endpoints with `https://`. Default: Node's authorities, and none of its own. */
  tls?: TlsOptions;
  /** How long one attempt to connect may take, in milliseconds. Default: 5,000. */
  connectTimeoutMs?: number;
  /** How long a call may take, all its tries together, in milliseconds. Streams have no limit. Default: 30,000. */
  requestTimeoutMs?: number;
  /** How often a call is tried in all, where a repeat is safe. Default: 10, which bridges about four seconds. */
  attempts?: number;
  /** Waits between tries. Default: 20 ms, doubled up to 1 s. */
  backoff?: Partial<Backoff>;
  /** How many retries all calls together may spend. Default: 1,000 at once; 10 come back each second, and 0.2 with
   * each call that succeeds. */
  retryBudget?: RetryBudgetOptions;
  /** Go straight to the node that leads the workspace once an answer has named it. Default: true. */
  followLeader?: boolean;
  /** Time between pings on a connection, in milliseconds. Default: 10,000. */
  keepaliveIntervalMs?: number;
  /** How long a ping may stay unanswered before the connection counts as lost, in milliseconds. Default: 10,000. */
  keepaliveTimeoutMs?: number;
  /** Default: warnings and errors on the console. */
  logger?: Logger;
}

/** The same with every default filled in. */
export interface Settings {
  readonly endpoints: readonly URL[];
  readonly workspaceId: string;
  readonly token: TokenSource | undefined;
  readonly tls: SecureClientSessionOptions;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly attempts: number;
  readonly backoff: Backoff;
  readonly retryBudget: RetryBudgetOptions;
  readonly followLeader: boolean;
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly logger: Logger;
}

const DEFAULT_ENDPOINT = "http://127.0.0.1:8001";

/** Throws `INVALID_ENDPOINT` or `INVALID_SETTING`. */
export function settingsOf(options: ClientOptions): Settings {
  const given = options.endpoints ?? DEFAULT_ENDPOINT;
  const listed = typeof given === "string" ? given.split(",") : given;
  const urls = listed.map((url) => url.trim()).filter((url, _, all) => url !== "" || all.length === 1);
  if (urls.length === 0) throw new InvalidValueError("INVALID_ENDPOINT", "no endpoint was given");
  return {
    endpoints: urls.map(endpointOf),
    workspaceId: options.workspaceId ?? "default",
    token: options.token,
    tls: tlsOf(options.tls),
    connectTimeoutMs: positive("connectTimeoutMs", options.connectTimeoutMs ?? 5_000),
    requestTimeoutMs: positive("requestTimeoutMs", options.requestTimeoutMs ?? 30_000),
    attempts: positive("attempts", options.attempts ?? 10),
    backoff: { ...DEFAULT_BACKOFF, ...options.backoff },
    retryBudget: options.retryBudget ?? {},
    followLeader: options.followLeader ?? true,
    keepaliveIntervalMs: positive("keepaliveIntervalMs", options.keepaliveIntervalMs ?? 10_000),
    keepaliveTimeoutMs: positive("keepaliveTimeoutMs", options.keepaliveTimeoutMs ?? 10_000),
    logger: options.logger ?? defaultLogger,
  };
}

function endpointOf(value: string): URL {
  const wrong = (why: string) =>
    new InvalidValueError(
      "INVALID_ENDPOINT",
      `${JSON.stringify(value)} is not an endpoint: ${why}; write it like ${DEFAULT_ENDPOINT}`,
    );
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(value)) throw wrong("the scheme is missing");
  let url: URL;
  try {
    url = new URL(value);
  } catch {
    throw wrong("it is no URL");
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") throw wrong(`the scheme ${url.protocol} is unknown`);
  if (url.pathname !== "/" || url.search !== "" || url.hash !== "")
    throw wrong("it has more than scheme, host and port");
  return url;
}

function tlsOf(tls: TlsOptions | undefined): SecureClientSessionOptions {
  const read = (file: string) => {
    try {
      return readFileSync(file);
    } catch (error) {
      throw new InvalidValueError("INVALID_SETTING", `${file} cannot be read: ${textOf(error)}`, { cause: error });
    }
  };
  const options: SecureClientSessionOptions = {};
  if (tls?.caFile !== undefined) options.ca = read(tls.caFile);
  if (tls?.certFile !== undefined) options.cert = read(tls.certFile);
  if (tls?.keyFile !== undefined) options.key = read(tls.keyFile);
  return options;
}

export function positive(name: string, value: number): number {
  if (Number.isFinite(value) && value > 0) return value;
  throw new InvalidValueError("INVALID_SETTING", `${name} is ${value}; it must be above 0`);
}
