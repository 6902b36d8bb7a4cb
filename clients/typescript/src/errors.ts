// What can go wrong, and whether a retry can help. Programs go by `code`, never by the text.

/** One field of a request that was not accepted. */
export interface FieldViolation {
  /** Path of the field, such as `message.priority`. */
  field: string;
  /** What is wrong with it. */
  description: string;
}

/** What all errors of this package have beside their text. */
export interface ErrorDetails {
  /** Whether the same call can succeed later without anything else being done. Default: false. */
  retryable?: boolean | undefined;
  /** How long to wait before that, at the least, in milliseconds. */
  retryAfterMs?: number | undefined;
  /** Whether it is unknown what became of the call: it may have been carried out. Default: false. */
  outcomeUnknown?: boolean | undefined;
  /** Fields of the request that were not accepted. Default: none. */
  fields?: FieldViolation[] | undefined;
  /** What else the broker says, by name. Default: nothing. */
  metadata?: Record<string, string> | undefined;
  /** What it came from. */
  cause?: unknown;
}

/** Base of every error of this package. */
export class AInTandemError extends Error {
  /** Stable, in capitals, such as `UNKNOWN_SANDBOX`: docs/errors lists them. */
  readonly code: string;
  /** Whether the same call can succeed later without anything else being done. */
  readonly retryable: boolean;
  /** How long to wait before that, at the least, in milliseconds; undefined: nobody said. */
  readonly retryAfterMs: number | undefined;
  /** Whether it is unknown what became of the call: it may have been carried out. */
  readonly outcomeUnknown: boolean;
  /** Fields of the request that were not accepted. */
  readonly fields: readonly FieldViolation[];
  /** What else the broker says, by name. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(code: string, text: string, details: ErrorDetails = {}) {
    super(text, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.retryable = details.retryable ?? false;
    this.retryAfterMs = details.retryAfterMs;
    this.outcomeUnknown = details.outcomeUnknown ?? false;
    this.fields = details.fields ?? [];
    this.metadata = details.metadata ?? {};
  }
}

/** The broker answered with an error. */
export class RefusedError extends AInTandemError {
  /** Name of the gRPC code, such as `NOT_FOUND`. */
  readonly grpcCode: string;

  constructor(code: string, text: string, grpcCode: string, details: ErrorDetails = {}) {
    super(code, text, details);
    this.grpcCode = grpcCode;
  }
}

/** `UNREACHABLE`: no connection could be made. Nothing was sent. */
export class UnreachableError extends AInTandemError {
  constructor(node: string, cause: unknown) {
    super("UNREACHABLE", `cannot connect to ${node}: ${textOf(cause)}`, { retryable: true, cause });
  }
}

/** `CONNECTION_LOST`: whether the broker acted on the call is unknown. */
export class ConnectionLostError extends AInTandemError {
  constructor(node: string, cause: unknown) {
    const text = `the connection to ${node} was lost: ${textOf(cause)}`;
    super("CONNECTION_LOST", text, { retryable: true, outcomeUnknown: true, cause });
  }
}

/** `TIMEOUT`: there was no answer in time. Whether the broker acted on the call is unknown, unless `outcomeUnknown` is false. */
export class TimeoutError extends AInTandemError {
  constructor(what: string, afterMs: number, details: ErrorDetails = {}) {
    const why = details.cause === undefined ? "" : `; last: ${textOf(details.cause)}`;
    super("TIMEOUT", `${what} took longer than ${afterMs} ms${why}`, {
      retryable: true,
      outcomeUnknown: true,
      ...details,
    });
  }
}

/** `ABORTED`: the caller's AbortSignal fired. */
export class AbortedError extends AInTandemError {
  constructor(what: string, details: ErrorDetails = {}) {
    super("ABORTED", `${what} was aborted by its caller`, details);
  }
}

/** `STREAM_CLOSED`: a publisher, subscription or agent was used after its end. */
export class ClosedError extends AInTandemError {
  constructor(what: string) {
    super("STREAM_CLOSED", `the ${what} is closed; open a new one`);
  }
}

/** `LEASE_LOST`: a verdict came too late, or was on its way when the stream broke. The message comes again unless it counted. */
export class LeaseLostError extends AInTandemError {
  constructor(text: string, details: ErrorDetails = {}) {
    super("LEASE_LOST", text, details);
  }
}

/** `CONTRACT_BROKEN`: the broker sent what it may not send. */
export class ContractError extends AInTandemError {
  constructor(text: string) {
    super("CONTRACT_BROKEN", `the broker broke the contract: ${text}; are client and broker of the same version?`);
  }
}

/** A value given to this package cannot be used: `INVALID_ENDPOINT`, `INVALID_SETTING`, `CONTENT_NOT_SERIALIZABLE`, `CONTENT_NOT_READABLE`. */
export class InvalidValueError extends AInTandemError {}

/**
 * A request will not be answered: it became a dead letter or expired, and the broker says so in the recipient's place. Codes:
 * `REJECTED`, `ATTEMPTS_EXHAUSTED`, `EXPIRED`, `LOOP`, and of approvals `APPROVAL_DENIED`, `APPROVAL_EXPIRED`, `APPROVAL_REFUSED`.
 */
export class UndeliverableError extends AInTandemError {
  /** Sequence of the request, which is that of its dead letter; undefined when the broker did not say. */
  readonly requestSequence: number | undefined;

  constructor(code: string, text: string, requestSequence: number | undefined) {
    super(code, `the request will not be answered (${code})${text === "" ? "" : `: ${text}`}`);
    this.requestSequence = requestSequence;
  }
}

/** The text of whatever was thrown. */
export function textOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.errors.length > 0) return thrown.errors.map(textOf).join("; ");
  if (thrown instanceof Error) return thrown.message || thrown.name;
  return String(thrown);
}

/** Anything thrown as an error of this package, so that callers need to know one kind only. */
export function asError(thrown: unknown): AInTandemError {
  return thrown instanceof AInTandemError ? thrown : new AInTandemError("INTERNAL", textOf(thrown), { cause: thrown });
}
