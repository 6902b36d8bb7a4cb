// What happens in a workspace, followed over breaks.

import { type Caller, isTransient } from "../connection/caller.js";
import { asError } from "../errors.js";
import {
  EventService,
  type EventType,
  type StreamEventsResponse,
} from "../gen/aintandem/messaging/v1/event_service_pb.js";
import { pauseMs, sleep } from "../waiting.js";
import { fromTimestamp, toNumber } from "../wire_time.js";

/** What happened. From `sandbox-out-of-memory` on: what only they see who run sandboxes, such as the control plane. */
export type EventKind =
  | "sandbox-registered"
  | "sandbox-offline"
  | "sandbox-online"
  | "sandbox-gone"
  | "message-dead-lettered"
  | "message-expired"
  | "message-looped"
  | "inbox-full"
  | "inbox-trimmed"
  | "approval-requested"
  | "approval-granted"
  | "approval-denied"
  | "approval-expired"
  | "sandbox-out-of-memory"
  | "sandbox-disk-limit"
  | "sandbox-process-limit"
  | "sandbox-restarting"
  | "sandbox-failed"
  | "sandbox-timed-out"
  | "sandbox-idle-stopped";

/** By their numbers on the wire, from 1. */
const NAMES: readonly EventKind[] = [
  "sandbox-registered",
  "sandbox-offline",
  "sandbox-online",
  "sandbox-gone",
  "message-dead-lettered",
  "message-expired",
  "message-looped",
  "inbox-full",
  "inbox-trimmed",
  "approval-requested",
  "approval-granted",
  "approval-denied",
  "approval-expired",
  "sandbox-out-of-memory",
  "sandbox-disk-limit",
  "sandbox-process-limit",
  "sandbox-restarting",
  "sandbox-failed",
  "sandbox-timed-out",
  "sandbox-idle-stopped",
];

/** Something that happened in a workspace. */
export interface BrokerEvent {
  /** Counts the events of the workspace, from 1. */
  id: number;
  /** When. */
  time: Date | undefined;
  /** Undefined: of a kind that this version does not know. */
  type: EventKind | undefined;
  /** The sandbox that it is about: of a message, its recipient; of an approval, who has sent the message. */
  sandbox: string;
  /** Of the message that it is about, or of the first of them; 0 when it is about none. */
  sequence: number;
  /** How many messages it is about. */
  count: number;
  /** Why, in plain words. */
  text: string;
  /** Which approval; 0 when it is about none. */
  approvalId: number;
}

/** Which events, and from when on. */
export interface EventOptions {
  /** The first event wanted; 1: all that are kept. Default: those from now on. */
  from?: number;
  /** Only these. Default: all. */
  types?: EventKind[];
  /** Only those about this sandbox. Default: about any. */
  sandbox?: string;
  /** Go on with what happens. Default: true. */
  follow?: boolean;
  /** Ends the stream. */
  signal?: AbortSignal;
}

/** @internal Follows events over breaks without a gap. `EVENT_GAP` when what is asked for is not kept any more. */
export async function* events(caller: Caller, options: EventOptions): AsyncGenerator<BrokerEvent, void, undefined> {
  const { workspaceId, attempts, backoff } = caller.settings;
  const types = (options.types ?? []).map((type) => (NAMES.indexOf(type) + 1) as EventType);
  const signal = options.signal ?? new AbortController().signal;
  let cursor = BigInt(options.from ?? 0);
  for (let attempt = 1; ; ) {
    const asked = {
      workspaceId,
      fromEvent: cursor,
      types,
      sandboxId: options.sandbox ?? "",
      follow: options.follow ?? true,
    };
    const used = caller.token.current();
    try {
      for await (const page of caller.serverStream(EventService.method.streamEvents, asked, options.signal)) {
        attempt = 1;
        yield* fromWire(page);
        cursor = page.nextEvent;
      }
      if (!asked.follow) return;
    } catch (thrown) {
      const error = asError(thrown);
      const mayGoOn = isTransient(error)
        ? cursor !== 0n || attempt < attempts
        : await caller.hasNewToken(error, used, cursor !== 0n, signal);
      if (!mayGoOn) throw error;
    }
    await sleep(pauseMs(backoff, attempt++), options.signal);
  }
}

function* fromWire(page: StreamEventsResponse): Generator<BrokerEvent, void, undefined> {
  for (const event of page.events) {
    yield {
      id: toNumber(event.eventId),
      time: fromTimestamp(event.time),
      type: NAMES[event.type - 1],
      sandbox: event.sandboxId,
      sequence: toNumber(event.sequence),
      count: toNumber(event.count),
      text: event.text,
      approvalId: toNumber(event.approvalId),
    };
  }
}
