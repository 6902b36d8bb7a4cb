// `application/problem+json` as an error.

import { AInTandemError, type FieldViolation } from "../errors.js";

/** The control plane answered with a problem; docs/errors/control-plane.md lists its codes, the broker's come through. */
export class ProblemError extends AInTandemError {
  /** The HTTP status. */
  readonly status: number;
  /** Names the request in the logs of the control plane and in the audit. */
  readonly requestId: string | undefined;

  constructor(
    code: string,
    text: string,
    status: number,
    details: {
      requestId?: string | undefined;
      retryAfterMs?: number | undefined;
      fields?: FieldViolation[];
      retryable: boolean;
      outcomeUnknown: boolean;
    },
  ) {
    super(code, text, details);
    this.status = status;
    this.requestId = details.requestId;
  }
}

interface ProblemDocument {
  code?: unknown;
  detail?: unknown;
  title?: unknown;
  errors?: unknown;
  retry_after_ms?: unknown;
}

/** Of an answer that is no success, whoever gave it: a proxy in between knows no problem documents. */
export function problemOf(status: number, headers: Headers, body: string): ProblemError {
  const document = parse(body);
  const code = typeof document.code === "string" ? document.code : `HTTP_${status}`;
  const said = [document.detail, document.title].find((text) => typeof text === "string" && text !== "");
  const retryAfterMs = waitOf(document, headers);
  return new ProblemError(code, String(said ?? (body.slice(0, 200) || `the answer has the status ${status}`)), status, {
    requestId: headers.get("x-request-id") ?? undefined,
    retryAfterMs,
    fields: fieldsOf(document.errors),
    retryable: status === 502 || status === 503 || status === 504 || status === 429 || retryAfterMs !== undefined,
    outcomeUnknown: status === 502 || status === 504,
  });
}

function parse(body: string): ProblemDocument {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}

function waitOf(document: ProblemDocument, headers: Headers): number | undefined {
  if (typeof document.retry_after_ms === "number") return document.retry_after_ms;
  const header = headers.get("retry-after");
  if (header === null) return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return seconds * 1000;
  const time = Date.parse(header);
  return Number.isNaN(time) ? undefined : Math.max(0, time - Date.now());
}

function fieldsOf(errors: unknown): FieldViolation[] {
  if (!Array.isArray(errors)) return [];
  return errors.flatMap((entry: unknown) => {
    if (typeof entry !== "object" || entry === null) return [];
    const { field, detail } = entry as { field?: unknown; detail?: unknown };
    return [{ field: String(field ?? ""), description: String(detail ?? "") }];
  });
}
