// Publishes many messages over one stream that batches and reconnects by itself.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Caller } from "../connection/caller.js";
import { isTransient } from "../connection/caller.js";
import { LEADER_HEADER } from "../connection/nodes.js";
import { Outgoing } from "../connection/outgoing.js";
import {
  AbortedError,
  type AInTandemError,
  AInTandemError as BaseError,
  ClosedError,
  RefusedError,
} from "../errors.js";
import {
  ProducerPositionSchema,
  PublishService,
  type PublishStreamRequestSchema,
} from "../gen/aintandem/messaging/v1/publish_service_pb.js";
import { checkSize, type OutgoingMessage, toWire } from "../message.js";
import { type Deferred, deferred, pauseMs, sleep } from "../waiting.js";
import { type Batch, Batches, type Pending } from "./batches.js";
import type { Receipt } from "./receipt.js";

/** How much a publisher holds, and for how long. */
export interface PublisherOptions {
  /** Messages that may wait for their receipt; beyond, `publish` fails with `TOO_MANY_UNANSWERED`. Default: 65,536. */
  maxPendingMessages?: number;
  /** The same in bytes. Default: 64 MiB. */
  maxPendingBytes?: number;
  /** Most messages in one request; the broker takes 1,000 unless its settings say otherwise. Default: 1,000. */
  batchMessages?: number;
  /** Most bytes in one request; a larger message goes alone. Default: 1 MiB. */
  batchBytes?: number;
  /** Requests under way at once; what comes meanwhile gathers for the next one. 1 to 64. Default: 4. */
  requestsInFlight?: number;
  /** How long a publish may take, reconnections included, in milliseconds. Default: 120,000. */
  timeoutMs?: number;
  /** Largest message that is sent at all, in bytes: more would end the stream for all. Default: 4 MiB. */
  maxMessageBytes?: number;
}

/** What a caller may say about one publish. */
export interface PublishOptions {
  /** For this message, in milliseconds. Default: that of the publisher. */
  timeoutMs?: number;
  /** Takes the message back while it was not sent; after that only the caller stops waiting. */
  signal?: AbortSignal;
}

/** Callers whose time is up are looked for this often, in milliseconds. */
const SWEEP_MS = 100;
/** How long the broker may take to end a stream that this side has ended, in milliseconds. */
const END_GRACE_MS = 2_000;

type StreamRequest = MessageInitShape<typeof PublishStreamRequestSchema>;

/** The stream that is open. */
interface Stream {
  readonly requests: Outgoing<StreamRequest>;
  /** Batches sent on it that have no answer. */
  inFlight: number;
}

/**
 * Publishes messages in the order of `publish`. There is no timer: a message goes out when the connection is free, and what
 * gathers meanwhile becomes the next request. The publisher is a producer that numbers its messages, so when the connection
 * breaks it sends again what has no answer, and nothing is published twice.
 */
export class Publisher {
  readonly #caller: Caller;
  readonly #workspaceId: string;
  readonly #options: Required<PublisherOptions>;
  readonly #batches: Batches;
  readonly #ending = new AbortController();
  #stream: Stream | undefined;
  #running: Promise<void> | undefined;
  #pumpScheduled = false;
  #closed = false;
  #everConnected = false;
  #lastFailure: AInTandemError | undefined;
  #sweeper: NodeJS.Timeout | undefined;
  #room: Deferred<void> | undefined;
  #settled: Deferred<void> | undefined;
  readonly #over = deferred<void>();

  /** @internal */
  constructor(caller: Caller, options: PublisherOptions = {}) {
    this.#caller = caller;
    this.#workspaceId = caller.settings.workspaceId;
    this.#options = {
      maxPendingMessages: options.maxPendingMessages ?? 65_536,
      maxPendingBytes: options.maxPendingBytes ?? 64 * 1024 * 1024,
      batchMessages: options.batchMessages ?? 1_000,
      batchBytes: options.batchBytes ?? 1024 * 1024,
      requestsInFlight: Math.min(64, Math.max(1, options.requestsInFlight ?? 4)),
      timeoutMs: options.timeoutMs ?? 120_000,
      maxMessageBytes: options.maxMessageBytes ?? 4 * 1024 * 1024,
    };
    this.#batches = new Batches(this.#options);
  }

  /** Messages without a receipt. */
  get pending(): number {
    return this.#batches.messages;
  }

  /**
   * Publishes a message; resolves once it is durable. Does not need to be awaited before the next one.
   *
   * Fails with the broker's refusal; `CONTENT_NOT_SERIALIZABLE`; `TOO_MANY_UNANSWERED` (await `ready()` first); `TIMEOUT`, after which a
   * message without an id of its own must not be published again unless `outcomeUnknown` is false.
   */
  async publish(message: OutgoingMessage, options: PublishOptions = {}): Promise<Receipt> {
    if (this.#closed) throw new ClosedError("publisher");
    if (options.signal?.aborted) throw new AbortedError("a publish", { cause: options.signal.reason });
    const wire = toWire(message);
    const bytes = checkSize(wire);
    this.#check(bytes);
    const timeoutMs = options.timeoutMs ?? this.#options.timeoutMs;
    const { promise, resolve, reject } = deferred<Receipt>();
    const expiresAtMs = performance.now() + timeoutMs;
    const pending: Pending = { message: wire, bytes, expiresAtMs, timeoutMs, settled: false, resolve, reject };
    this.#batches.add(pending);
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
    this.#schedulePump();
    if (options.signal === undefined) return promise;
    const { signal } = options;
    const onAbort = () => {
      const unsent = this.#batches.takeBack(pending);
      if (pending.settled) return;
      pending.settled = true;
      reject(new AbortedError("a publish", { cause: signal.reason, outcomeUnknown: !unsent }));
      this.#notify();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  /** Resolves when another message may be published: for loops that do not await each receipt. */
  async ready(): Promise<void> {
    while (!this.#closed && !this.#hasRoom(0)) {
      this.#room ??= deferred();
      await this.#room.promise;
    }
    if (this.#closed) throw new ClosedError("publisher");
  }

  /** Resolves when nothing waits for a receipt any more, whatever came of it. */
  async flush(): Promise<void> {
    while (this.#batches.messages > 0) {
      this.#settled ??= deferred();
      await this.#settled.promise;
    }
  }

  /** Waits for what is on its way, at most `timeoutMs` milliseconds (10,000), then ends; what is left fails with `STREAM_CLOSED`. */
  async close(timeoutMs = 10_000): Promise<void> {
    this.#closed = true;
    const late = new AbortController();
    await Promise.race([this.flush(), sleep(timeoutMs, late.signal).catch(() => {})]);
    late.abort();
    this.#batches.failAll(new ClosedError("publisher"));
    this.#notify();
    this.#stream?.requests.end();
    this.#ending.abort();
    clearInterval(this.#sweeper);
    await this.#running;
    this.#over.resolve();
  }

  /** Resolves when the publisher was closed. */
  get ended(): Promise<void> {
    return this.#over.promise;
  }

  /** `close`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #check(bytes: number): void {
    if (bytes > this.#options.maxMessageBytes) {
      const text = `the message has about ${bytes} bytes, ${this.#options.maxMessageBytes} at most; send a reference to the content`;
      throw new RefusedError("MESSAGE_TOO_LARGE", text, "INVALID_ARGUMENT");
    }
    if (this.#hasRoom(bytes)) return;
    const text = `${this.#batches.messages} messages wait for their receipt already; await ready() before publishing more`;
    throw new BaseError("TOO_MANY_UNANSWERED", text, { retryable: true });
  }

  #hasRoom(bytes: number): boolean {
    const { maxPendingMessages, maxPendingBytes } = this.#options;
    const { messages } = this.#batches;
    return messages < maxPendingMessages && (messages === 0 || this.#batches.bytes + bytes <= maxPendingBytes);
  }

  /** After everything that runs now: callers that publish in one turn of the loop share a request. */
  #schedulePump(): void {
    if (this.#pumpScheduled) return;
    this.#pumpScheduled = true;
    setImmediate(() => {
      this.#pumpScheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (!this.#batches.hasWaiting && this.#batches.unanswered.length === 0) return;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      // Published while the last stream ended.
      if (this.#batches.hasWaiting && !this.#ending.signal.aborted) this.#schedulePump();
    });
    const stream = this.#stream;
    while (stream !== undefined && stream.inFlight < this.#options.requestsInFlight) {
      const batch = this.#batches.take();
      if (batch === undefined) return;
      this.#send(stream, batch);
    }
  }

  #send(stream: Stream, batch: Batch): void {
    stream.inFlight += 1;
    stream.requests.push({
      workspaceId: this.#workspaceId,
      requestId: batch.requestId,
      messages: batch.messages.map((pending) => pending.message),
      producer: create(ProducerPositionSchema, { producerId: batch.producerId, sequence: batch.firstPosition }),
    });
  }

  /** Keeps a stream open while there is something to publish, and until it ends by itself after that. */
  async #run(): Promise<void> {
    for (let attempt = 1; !this.#ending.signal.aborted; ) {
      const used = this.#caller.token.current();
      const failure = await this.#openAndRead(() => {
        attempt = 0;
      });
      if (this.#ending.signal.aborted || this.#batches.messages === 0) return;
      attempt += 1;
      if (failure !== undefined && !(await this.#mayGoOn(failure, attempt, used))) {
        this.#batches.failAll(failure);
        this.#notify();
        return;
      }
      this.#lastFailure = failure;
      const waitMs = pauseMs(this.#caller.settings.backoff, Math.max(1, attempt), failure?.retryAfterMs);
      this.#caller.settings.logger.debug("the publisher connects again", { attempt, waitMs, error: failure?.message });
      await sleep(waitMs, this.#ending.signal).catch(() => {});
    }
  }

  async #mayGoOn(failure: AInTandemError, attempt: number, usedToken: string | undefined): Promise<boolean> {
    if (await this.#caller.hasNewToken(failure, usedToken, this.#everConnected, this.#ending.signal)) return true;
    if (!isTransient(failure)) return false;
    // A wrong address is told soon; a broker that was there is waited for, until the messages' own time is up.
    return this.#everConnected || attempt < this.#caller.settings.attempts;
  }

  /** Runs one stream to its end; undefined when that was in order. */
  async #openAndRead(onAnswer: () => void): Promise<AInTandemError | undefined> {
    const node = this.#caller.nodes.leading(this.#workspaceId);
    const stream: Stream = { requests: new Outgoing(), inFlight: 0 };
    const abort = new AbortController();
    const end = () => {
      stream.requests.end();
      // The broker ends its half at once, unless it hangs.
      setTimeout(() => abort.abort(), END_GRACE_MS).unref();
    };
    this.#ending.signal.addEventListener("abort", end, { once: true, signal: abort.signal });
    try {
      for (const batch of this.#batches.unanswered) this.#send(stream, batch);
      this.#stream = stream;
      this.#schedulePump();
      const answers = this.#caller.bidi(node, PublishService.method.publishStream, stream.requests, {
        signal: abort.signal,
        onHeader: (headers) => this.#caller.nodes.note(this.#workspaceId, headers.get(LEADER_HEADER)),
      });
      for await (const answer of answers) {
        this.#everConnected = true;
        onAnswer();
        stream.inFlight -= 1;
        this.#batches.answer(answer);
        this.#notify();
        this.#schedulePump();
      }
      return undefined;
    } catch (thrown) {
      return this.#caller.failure(thrown, node);
    } finally {
      this.#stream = undefined;
      stream.requests.end();
      abort.abort();
    }
  }

  #sweep(): void {
    this.#batches.expire(performance.now(), this.#lastFailure);
    this.#notify();
    if (this.#batches.messages > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  #notify(): void {
    if (this.#room !== undefined && (this.#closed || this.#hasRoom(0))) {
      this.#room.resolve();
      this.#room = undefined;
    }
    if (this.#settled !== undefined && this.#batches.messages === 0) {
      this.#settled.resolve();
      this.#settled = undefined;
    }
  }
}
