// A request and its response in one call.

import type { Caller } from "../connection/caller.js";
import { ContractError } from "../errors.js";
import { RequestService } from "../gen/aintandem/messaging/v1/request_service_pb.js";
import { newId } from "../ids.js";
import { checkSize, Message, type OutgoingMessage, toWire } from "../message.js";
import { toDuration, toNumber } from "../wire_time.js";

/** How much longer than the broker this side waits, so that the broker's own word on the timeout arrives, in milliseconds. */
const GRACE_MS = 5_000;
const DEFAULT_TIMEOUT_MS = 30_000;

/** What came back for a request. */
export interface Response {
  /** The response itself. */
  message: Message;
  /** Sequence of the request. */
  requestSequence: number;
  /** The request had been published by an earlier call, whose connection broke. */
  resumed: boolean;
}

/** How long a response is waited for. */
export interface RequestOptions {
  /** How long to wait for the response, in milliseconds: 100 ms to 24 h. Default: 30,000. */
  timeoutMs?: number;
  /** Stops waiting. The request stays published. */
  signal?: AbortSignal;
}

/**
 * @internal
 * Publishes a request or command to a sandbox, or to one that has a capability, and returns its response. The same message is
 * sent again while the broker is away, and is published once.
 *
 * Fails with `RESPONSE_TIMEOUT`; a later response goes to the inbox of the sender. `UndeliverableError` when it became a dead letter.
 */
export async function request(caller: Caller, message: OutgoingMessage, options: RequestOptions): Promise<Response> {
  const wire = toWire({
    ...message,
    type: message.type ?? "request",
    id: message.id ?? newId(),
    correlationId: message.correlationId ?? newId(),
  });
  checkSize(wire);
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const answer = await caller.unary(
    RequestService.method.request,
    { workspaceId: caller.settings.workspaceId, message: wire, timeout: toDuration(timeoutMs) },
    {
      ...(options.signal && { signal: options.signal }),
      timeoutMs,
      deadlineMs: timeoutMs + GRACE_MS,
      repeatable: true,
      persistent: true,
    },
  );
  if (answer.message === undefined) throw new ContractError("an answer to a request holds no response");
  const response = new Message(answer.message);
  const { undeliverable } = response;
  if (undeliverable !== undefined) throw undeliverable;
  return { message: response, requestSequence: toNumber(answer.requestSequence), resumed: answer.resumed };
}
