// Messages as programs write and read them, and their form on the wire.

import { create, toBinary } from "@bufbuild/protobuf";
import { InvalidValueError, RefusedError, textOf, UndeliverableError } from "./errors.js";
import {
  BroadcastSchema,
  CapabilityDestinationSchema,
  DestinationSchema,
  MessageSchema,
  MessageType,
  type Destination as WireDestination,
  type Message as WireMessage,
} from "./gen/aintandem/messaging/v1/message_pb.js";
import { activeTraceparent } from "./trace.js";
import { fromTimestamp, toNumber, toOptionalDuration, toOptionalTimestamp } from "./wire_time.js";

/** What a message is for. Requests and commands may have responses. */
export type MessageKind = "request" | "response" | "notification" | "command";

/** Where a message goes: a sandbox by its id, a topic, everybody, or whoever has a capability. */
export type Destination =
  | string
  | {
      /** The durable inbox of this sandbox; the id alone says the same. */
      sandbox: string;
    }
  | {
      /** Every sandbox that follows this topic, but the sender. It must have been created. */
      topic: string;
    }
  | {
      /** Every sandbox of the workspace, but the sender. */
      broadcast: true;
    }
  | {
      /** A sandbox that is online with an agent that has this capability, the one with the fewest waiting messages. */
      capability: string;
      /** Every sandbox that has it, instead of one that is online. Default: false. */
      all?: boolean;
      /** Wait for somebody who has it until the ttl ends, instead of `NO_CAPABLE_SANDBOX`. Default: false. */
      wait?: boolean;
    };

/** What a message may say about itself beside sender, recipient and content. */
export interface MessageOptions {
  /** 1 to 128 bytes. A publish that repeats an id is accepted once. Default: a new one, or a producer's position. */
  id?: string;
  /** The agent that sends, within its sandbox. */
  fromAgent?: string;
  /** The agent meant within the recipient. Default: whichever takes it. */
  toAgent?: string;
  /** Default: `notification`. */
  type?: MessageKind;
  /** Default: `application/json`; `application/octet-stream` for a Uint8Array. */
  contentType?: string;
  /** 0 to 9; 9 is delivered first. Default: 5. */
  priority?: number;
  /** The sender waits for a response with the same correlation id. Only for requests and commands. */
  requiresResponse?: boolean;
  /** Ties the messages of one conversation together. At most 128 bytes. */
  correlationId?: string;
  /** How long it may wait for its recipient, in milliseconds: 1 s to 366 days. Default: that of the workspace. */
  ttlMs?: number;
  /** When the ttl ends it becomes a dead letter instead of being gone. */
  deadLetterOnExpiry?: boolean;
  /** At most 64 pairs, keys up to 128 bytes, values up to 4 KiB. */
  metadata?: Record<string, string>;
  /** Messages with one key reach a recipient one at a time and in order, also through retries. */
  orderingKey?: string;
  /** Not delivered before. */
  notBefore?: Date;
  /** W3C trace context. Default: that of OpenTelemetry's active span, when there is one. */
  traceparent?: string;
}

/** A message to be published. */
export interface OutgoingMessage extends MessageOptions {
  /** The sandbox that sends. */
  from: string;
  /** Where it goes. */
  to: Destination;
  /** JSON, unless it is a Uint8Array or `contentType` says otherwise. At most 1 MiB with all fields, unless the broker says otherwise. */
  content: unknown;
}

const KINDS: Record<MessageKind, MessageType> = {
  request: MessageType.REQUEST,
  response: MessageType.RESPONSE,
  notification: MessageType.NOTIFICATION,
  command: MessageType.COMMAND,
};
const KIND_NAMES = new Map(Object.entries(KINDS).map(([name, type]) => [type, name as MessageKind]));

const JSON_TYPE = "application/json";
const BYTES_TYPE = "application/octet-stream";
/** Of a message without its content and metadata: what its other fields take at the most, nearly always. */
const FIELDS_BYTES = 512;
/** Largest request: twice what a broker can be told to take as one message. */
const MAX_REQUEST_BYTES = 16 * 1024 * 1024;
/** What a request holds beside its message: more than it does. */
const BESIDE_BYTES = 1024;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The wire form. Throws `CONTENT_NOT_SERIALIZABLE` when the content cannot be written as its content type says. */
export function toWire(message: OutgoingMessage): WireMessage {
  const { bytes, contentType } = encodeContent(message.content, message.contentType);
  return create(MessageSchema, {
    messageId: message.id ?? "",
    fromSandboxId: message.from,
    fromAgent: message.fromAgent ?? "",
    destination: toWireDestination(message.to),
    toAgent: message.toAgent ?? "",
    type: KINDS[message.type ?? "notification"],
    content: bytes,
    contentType,
    priority: message.priority,
    requiresResponse: message.requiresResponse ?? false,
    correlationId: message.correlationId ?? "",
    ttl: toOptionalDuration(message.ttlMs),
    metadata: message.metadata ?? {},
    orderingKey: message.orderingKey ?? "",
    notBefore: toOptionalTimestamp(message.notBefore),
    traceparent: message.traceparent ?? activeTraceparent() ?? "",
    deadLetterOnExpiry: message.deadLetterOnExpiry ?? false,
  });
}

/** How large a message is at the most, nearly always, without writing it. */
function bytesAtMost(message: WireMessage): number {
  let bytes = FIELDS_BYTES + message.content.length;
  for (const [key, value] of Object.entries(message.metadata)) bytes += 8 + 3 * (key.length + value.length);
  return bytes;
}

/** What no request has room for ends here with `MESSAGE_TOO_LARGE`, before a byte of it is sent. Returns its size at the most. */
export function checkSize(message: WireMessage): number {
  const most = bytesAtMost(message);
  if (most + BESIDE_BYTES <= MAX_REQUEST_BYTES) return most;
  const bytes = toBinary(MessageSchema, message).length;
  if (bytes + BESIDE_BYTES <= MAX_REQUEST_BYTES) return bytes;
  const text = `the message has ${bytes} bytes; this client sends at most ${MAX_REQUEST_BYTES}, and the broker may take less`;
  throw new RefusedError("MESSAGE_TOO_LARGE", text, "INVALID_ARGUMENT");
}

export function toWireKind(kind: MessageKind | undefined): MessageType {
  return kind === undefined ? MessageType.UNSPECIFIED : KINDS[kind];
}

/** The name of a type of the wire; `notification` for one that this version does not know. */
export function fromWireKind(type: MessageType): MessageKind {
  return KIND_NAMES.get(type) ?? "notification";
}

export function encodeContent(content: unknown, contentType?: string): { bytes: Uint8Array; contentType: string } {
  if (content instanceof Uint8Array) return { bytes: content, contentType: contentType ?? BYTES_TYPE };
  if (contentType !== undefined && !isJson(contentType)) {
    if (typeof content === "string") return { bytes: encoder.encode(content), contentType };
    throw new InvalidValueError(
      "CONTENT_NOT_SERIALIZABLE",
      `content of the type ${contentType} must be a string or a Uint8Array, not ${typeof content}`,
    );
  }
  let text: string | undefined;
  try {
    text = JSON.stringify(content);
  } catch (error) {
    throw new InvalidValueError("CONTENT_NOT_SERIALIZABLE", `the content is no JSON: ${textOf(error)}`, {
      cause: error,
    });
  }
  if (text === undefined) {
    throw new InvalidValueError("CONTENT_NOT_SERIALIZABLE", `the content is no JSON: it is ${typeof content}`);
  }
  return { bytes: encoder.encode(text), contentType: contentType ?? "" };
}

function toWireDestination(to: Destination): WireDestination {
  if (typeof to === "string") return create(DestinationSchema, { kind: { case: "sandboxId", value: to } });
  if ("sandbox" in to) return create(DestinationSchema, { kind: { case: "sandboxId", value: to.sandbox } });
  if ("topic" in to) return create(DestinationSchema, { kind: { case: "topic", value: to.topic } });
  if ("broadcast" in to) {
    return create(DestinationSchema, { kind: { case: "broadcast", value: create(BroadcastSchema) } });
  }
  const value = create(CapabilityDestinationSchema, {
    capability: to.capability,
    all: to.all ?? false,
    wait: to.wait ?? false,
  });
  return create(DestinationSchema, { kind: { case: "capability", value } });
}

function fromWireDestination(to: WireDestination | undefined): Destination | undefined {
  switch (to?.kind.case) {
    case "sandboxId":
      return to.kind.value;
    case "topic":
      return { topic: to.kind.value };
    case "broadcast":
      return { broadcast: true };
    case "capability":
      return { capability: to.kind.value.capability, all: to.kind.value.all, wait: to.kind.value.wait };
    default:
      return undefined;
  }
}

function isJson(contentType: string): boolean {
  const essence = contentType.split(";", 1)[0]?.trim().toLowerCase() ?? "";
  return essence === "" || essence === JSON_TYPE || essence.endsWith("+json");
}

/** A message as the broker hands it out. */
export class Message {
  readonly #wire: WireMessage;

  /** @internal */
  constructor(wire: WireMessage) {
    this.#wire = wire;
  }

  /** Its id; `seq-<sequence>` where its sender gave none. */
  get id(): string {
    return this.#wire.messageId;
  }
  /** The sandbox that sent it. */
  get from(): string {
    return this.#wire.fromSandboxId;
  }
  /** The agent that sent it; empty when it did not say. */
  get fromAgent(): string {
    return this.#wire.fromAgent;
  }
  /** Where it went; undefined: a kind of destination that this version does not know. */
  get to(): Destination | undefined {
    return fromWireDestination(this.#wire.destination);
  }
  /** The agent that is meant; empty or `any`: whichever takes it. */
  get toAgent(): string {
    return this.#wire.toAgent;
  }
  /** What it is for. */
  get type(): MessageKind {
    return fromWireKind(this.#wire.type);
  }
  /** Media type of the content. */
  get contentType(): string {
    return this.#wire.contentType || JSON_TYPE;
  }
  /** The content as it came. */
  get bytes(): Uint8Array {
    return this.#wire.content;
  }
  /** The content as text. */
  get text(): string {
    return decoder.decode(this.#wire.content);
  }
  /** JSON as a value, `text/*` as a string, anything else as bytes. Throws `CONTENT_NOT_READABLE` for JSON that is none. */
  get content(): unknown {
    if (isJson(this.#wire.contentType)) {
      try {
        return JSON.parse(this.text);
      } catch (error) {
        const text = `the content of message ${this.id} from ${this.from} is no JSON: ${textOf(error)}`;
        throw new InvalidValueError("CONTENT_NOT_READABLE", text, { cause: error });
      }
    }
    return this.contentType.startsWith("text/") ? this.text : this.bytes;
  }
  /** 0 to 9; 9 is delivered first. */
  get priority(): number {
    return this.#wire.priority ?? 5;
  }
  /** The sender waits for a response with the same correlation id. */
  get requiresResponse(): boolean {
    return this.#wire.requiresResponse;
  }
  /** Ties the messages of one conversation together; empty: it belongs to none. */
  get correlationId(): string {
    return this.#wire.correlationId;
  }
  /** Headers of the application. The keys that begin with `aintandem-` are the broker's. */
  get metadata(): Readonly<Record<string, string>> {
    return this.#wire.metadata;
  }
  /** Messages with one key come one at a time and in order; empty: it has none. */
  get orderingKey(): string {
    return this.#wire.orderingKey;
  }
  /** W3C trace context of the publish; empty: it has none. */
  get traceparent(): string {
    return this.#wire.traceparent;
  }
  /** The workspace whose log holds it. */
  get workspaceId(): string {
    return this.#wire.workspaceId;
  }
  /** Position in the log of the workspace. */
  get sequence(): number {
    return toNumber(this.#wire.sequence);
  }
  /** When the broker committed it. */
  get serverTime(): Date {
    return fromTimestamp(this.#wire.serverTime) ?? new Date(0);
  }
  /** How often its conversation went to and fro before it. */
  get hopCount(): number {
    return this.#wire.hopCount;
  }

  /** Why the request that this answers will not be answered; undefined when it is a participant's message. */
  get undeliverable(): UndeliverableError | undefined {
    const code = this.#wire.metadata["aintandem-error"];
    if (code === undefined) return undefined;
    let told: { text?: unknown; sequence?: unknown } = {};
    try {
      const value: unknown = JSON.parse(this.text);
      if (typeof value === "object" && value !== null) told = value;
    } catch {
      // Whatever else the broker wrote is shown as it came.
    }
    const text = typeof told.text === "string" ? told.text : this.text;
    return new UndeliverableError(code, text, typeof told.sequence === "number" ? told.sequence : undefined);
  }

  /** All fields, for logs; the content is left out, because it may be secret. */
  toJSON(): Record<string, unknown> {
    const { id, from, to, type, priority, correlationId, sequence } = this;
    return { id, from, to, type, priority, correlationId, sequence, contentBytes: this.bytes.length };
  }
}
