// Errors of the wire as errors of this package.

import { create, fromBinary } from "@bufbuild/protobuf";
import { AnySchema, anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  AInTandemError,
  ConnectionLostError,
  ContractError,
  type ErrorDetails,
  RefusedError,
  TimeoutError,
  UnreachableError,
} from "../errors.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "../gen/google/rpc/status_pb.js";
import { fromDuration } from "../wire_time.js";

/** Codes that a repeat can help although the broker names no delay; docs/errors/README.md, the column "again?". */
const RETRYABLE_REASONS = new Set(["REQUEST_TOO_SLOW", "TOO_MANY_HELD"]);
/** Of the gRPC code UNAVAILABLE, and yet nothing that waiting helps. */
const FINAL_REASONS = new Set(["NODE_STOPPED"]);
/** What the system says when a connection could not be made, so that nothing was sent. */
const CONNECT_FAILURES = new Set([
  "CONNECT_FAILURE",
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "ECONNECT_TIMEOUT",
  "ENOENT",
]);

interface Details {
  reason?: string;
  details: ErrorDetails;
}

function readDetails(anys: readonly { typeUrl: string; value: Uint8Array }[]): Details {
  const found: Details = { details: {} };
  for (const { typeUrl, value } of anys) {
    const any = create(AnySchema, { typeUrl, value });
    const info = anyUnpack(any, ErrorInfoSchema);
    if (info !== undefined && info.reason !== "") {
      found.reason = info.reason;
      found.details.metadata = { ...info.metadata };
    }
    const bad = anyUnpack(any, BadRequestSchema);
    if (bad !== undefined) {
      found.details.fields = bad.fieldViolations.map(({ field, description }) => ({ field, description }));
    }
    const retry = anyUnpack(any, RetryInfoSchema);
    if (retry !== undefined) found.details.retryAfterMs = fromDuration(retry.retryDelay) ?? 0;
  }
  return found;
}

/** `NOT_FOUND` of 5. */
function codeName(code: number): string {
  const name = Code[code];
  return name === undefined ? "UNKNOWN" : name.replace(/([a-z])([A-Z])/g, "$1_$2").toUpperCase();
}

function refused(code: number, text: string, found: Details): RefusedError {
  const reason = found.reason ?? codeName(code);
  const helps = code === Code.Unavailable || found.details.retryAfterMs !== undefined || RETRYABLE_REASONS.has(reason);
  const fields = (found.details.fields ?? []).filter(({ description }) => !text.includes(description));
  const said = [text, ...fields.map(({ field, description }) => `${field}: ${description}`)].join("; ");
  const outcomeUnknown = code === Code.Unavailable && reason !== "NOT_LEADER";
  return new RefusedError(reason, said, codeName(code), {
    ...found.details,
    retryable: helps && !FINAL_REASONS.has(reason),
    outcomeUnknown,
  });
}

/** A refusal inside an answer, where one of many messages or acknowledgements is refused. */
export function fromStatus(status: Status | undefined): RefusedError {
  if (status === undefined) return new RefusedError("UNKNOWN", "the broker gave no reason", "UNKNOWN");
  return refused(status.code, status.message, readDetails(status.details));
}

/** Whatever a call threw. `node` is where it went, `timeoutMs` how long it was allowed to take. */
export function fromCall(thrown: unknown, node: string, timeoutMs?: number): AInTandemError {
  if (thrown instanceof AInTandemError) return thrown;
  const error = ConnectError.from(thrown);
  const anys = error.details.flatMap((detail) =>
    "type" in detail ? [{ typeUrl: `type.googleapis.com/${detail.type}`, value: detail.value }] : [],
  );
  const found = readDetails(anys);
  if (found.reason !== undefined) return refused(error.code, error.rawMessage, found);
  const systemCode = systemCodeOf(error.cause);
  if (systemCode !== undefined && CONNECT_FAILURES.has(systemCode)) return new UnreachableError(node, error.cause);
  switch (error.code) {
    case Code.DeadlineExceeded:
      return new TimeoutError(`the call of ${node}`, timeoutMs ?? 0);
    case Code.Unavailable:
    case Code.Canceled:
    case Code.Aborted:
    case Code.Internal:
    case Code.Unknown:
    case Code.ResourceExhausted:
      // No word of the broker: every error that it makes itself has a reason.
      return new ConnectionLostError(node, error.cause ?? error.rawMessage);
    default:
      return refused(error.code, error.rawMessage, found);
  }
}

function systemCodeOf(cause: unknown): string | undefined {
  if (cause instanceof AggregateError) return cause.errors.map(systemCodeOf).find((code) => code !== undefined);
  if (cause instanceof ConnectError) return systemCodeOf(cause.cause);
  if (typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string")
    return cause.code;
  return undefined;
}

/** For tests and for what stands in details as bytes. */
export function decodeStatus(bytes: Uint8Array): RefusedError {
  try {
    return fromStatus(fromBinary(StatusSchema, bytes));
  } catch {
    throw new ContractError("a status does not decode");
  }
}
