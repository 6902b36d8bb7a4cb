// The inbox of a sandbox as an async iterator that goes on by itself after a break.

import { create } from "@bufbuild/protobuf";
import { type Caller, isTransient } from "../connection/caller.js";
import { LEADER_HEADER } from "../connection/nodes.js";
import { AbortedError, type AInTandemError, asError, ClosedError, ContractError } from "../errors.js";
import {
  AckMode,
  OpenSchema,
  type SubscribeResponse,
  SubscribeService,
} from "../gen/aintandem/messaging/v1/subscribe_service_pb.js";
import { type Deferred, deferred, pauseMs, sleep } from "../waiting.js";
import { fromDuration, toOptionalDuration } from "../wire_time.js";
import type { Delivery } from "./delivery.js";
import { Session } from "./session.js";

/** Which inbox, and how much of it at once. */
export interface SubscribeOptions {
  /** Whose inbox. Must be registered. */
  sandbox: string;
  /** Messages that the broker may send ahead of what was taken; up to 65,536. Default: 1,024. */
  creditMessages?: number;
  /** The same in bytes; up to 64 MiB. Default: 8 MiB. */
  creditBytes?: number;
  /** How long a delivery may take, in milliseconds: 1 s to 24 h. Default: the broker's 30 s. */
  ackDeadlineMs?: number;
  /** An ack after the deadline still counts while nobody else holds the message. Default: false. */
  lenient?: boolean;
  /** Of 100 deliveries, how many go to lower priorities while higher ones wait: 0 to 50. Default: 0. */
  lowPriorityPercent?: number;
  /** Extend what is out, every third of the deadline, for as long as this process runs its loop. Default: false. */
  keepLeases?: boolean;
  /** How long to go on connecting after a break, in milliseconds. Default: for ever. */
  reconnectForMs?: number;
  /** Ends the subscription without order: what is out counts as a failed attempt. */
  signal?: AbortSignal;
  /** Called with the code of each break, before the subscription is opened again. */
  onBreak?: (error: AInTandemError | undefined) => void;
  /** Called when a break ended with an error of the broker that no retry helps. True: it was repaired, try again. What it throws
   * ends the subscription, unless a retry helps against that. */
  repair?: (error: AInTandemError) => Promise<boolean>;
}

const AT_ONCE = new Set(["FOLLOWS_CHANGED"]);
/** How long the broker may take to answer the last acks and end the stream, in milliseconds. */
const CLOSE_PATIENCE_MS = 10_000;

/** Deliveries of an inbox. Several loops may iterate; each delivery goes to one. */
export class Subscription implements AsyncIterableIterator<Delivery> {
  readonly #caller: Caller;
  readonly #options: SubscribeOptions;
  readonly #window: { messages: number; bytes: number };
  readonly #abort = new AbortController();
  #session: Session | undefined;
  #ready: { delivery: Delivery; session: Session }[] = [];
  #readers: Deferred<IteratorResult<Delivery, undefined>>[] = [];
  #closing = false;
  #failure: AInTandemError | undefined;
  #ended = false;
  #wasOpen = false;
  #ackDeadlineMs = 30_000;
  #heartbeat: NodeJS.Timeout | undefined;
  readonly #opened = deferred<void>();
  readonly #over = deferred<void>();
  #running: Promise<void> | undefined;

  /** @internal Use `client.subscribe`. */
  constructor(caller: Caller, options: SubscribeOptions) {
    this.#caller = caller;
    this.#options = options;
    this.#window = { messages: options.creditMessages ?? 1_024, bytes: options.creditBytes ?? 8 * 1024 * 1024 };
    options.signal?.addEventListener("abort", () => this.#abortNow(), { once: true });
  }

  /** @internal Resolves when the broker has opened the inbox. */
  async open(): Promise<this> {
    if (this.#options.signal?.aborted) throw new AbortedError("a subscription");
    this.#running = this.#run();
    await this.#opened.promise;
    return this;
  }

  /** How long a delivery may take, as the broker confirmed it, in milliseconds. */
  get ackDeadlineMs(): number {
    return this.#ackDeadlineMs;
  }
  /** Whether a stream is open now. */
  get isConnected(): boolean {
    return this.#session !== undefined;
  }

  /** Resolves when the subscription has ended, in order or not. */
  get ended(): Promise<void> {
    return this.#over.promise;
  }

  /** The next delivery. Fails when the subscription has ended with an error; done after `close`. */
  next(): Promise<IteratorResult<Delivery, undefined>> {
    const ready = this.#ready.shift();
    if (ready !== undefined) {
      this.#taken(ready.delivery, ready.session);
      return Promise.resolve({ done: false, value: ready.delivery });
    }
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#ended || this.#closing) return Promise.resolve({ done: true, value: undefined });
    const reader = deferred<IteratorResult<Delivery, undefined>>();
    this.#readers.push(reader);
    return reader.promise;
  }

  /** A loop that is left ends the subscription in order. */
  async return(): Promise<IteratorResult<Delivery, undefined>> {
    await this.close();
    return { done: true, value: undefined };
  }

  /** Itself: for `for await`. A loop that is left ends the subscription. */
  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Hands out nothing more. What was taken may still be decided on; `close` then ends the stream. */
  pause(): void {
    this.#closing = true;
    this.#ready = [];
    this.#finishReaders();
  }

  /** Ends in order: every verdict is sent and answered, and what is still out goes back without a failed attempt. */
  async close(): Promise<void> {
    this.pause();
    this.#session?.finish();
    if (this.#session === undefined) this.#abort.abort();
    const late = setTimeout(() => this.#abort.abort(), CLOSE_PATIENCE_MS);
    await this.#running;
    clearTimeout(late);
  }

  /** `close`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #abortNow(): void {
    this.#closing = true;
    this.#failure ??= new AbortedError("a subscription", { cause: this.#options.signal?.reason });
    this.#abort.abort();
  }

  async #run(): Promise<void> {
    let attempt = 0;
    let brokeAtMs = performance.now();
    for (;;) {
      const used = this.#caller.token.current();
      let failure: AInTandemError | undefined;
      try {
        failure = await this.#stream(() => {
          attempt = 0;
          this.#opened.resolve();
        });
      } catch (thrown) {
        failure = asError(thrown);
      }
      if (this.#closing || this.#abort.signal.aborted) break;
      if (attempt === 0) brokeAtMs = performance.now();
      attempt += 1;
      if (failure !== undefined && !(await this.#mayGoOn(failure, used, brokeAtMs, attempt))) {
        this.#failure ??= failure;
        break;
      }
      this.#options.onBreak?.(failure);
      if (failure !== undefined && AT_ONCE.has(failure.code) && attempt === 1) continue;
      const waitMs = pauseMs(this.#caller.settings.backoff, attempt, failure?.retryAfterMs);
      const { logger } = this.#caller.settings;
      const fields = { sandbox: this.#options.sandbox, attempt, error: failure?.message };
      if (attempt === 5) logger.warn("the inbox cannot be reached; connecting goes on", fields);
      else logger.debug("the inbox is opened again", fields);
      await sleep(waitMs, this.#abort.signal).catch(() => {});
    }
    this.#ended = true;
    clearInterval(this.#heartbeat);
    this.#opened.reject(this.#failure ?? new ClosedError("subscription"));
    this.#opened.promise.catch(() => {});
    this.#finishReaders();
    this.#over.resolve();
  }

  async #mayGoOn(
    failure: AInTandemError,
    used: string | undefined,
    brokeAtMs: number,
    attempt: number,
  ): Promise<boolean> {
    if (await this.#caller.hasNewToken(failure, used, this.#wasOpen, this.#abort.signal)) return true;
    // Unregistered while an ack was on its way: the next stream says so.
    if (failure.code === "LEASE_LOST") return true;
    if (!isTransient(failure)) return this.#repaired(failure);
    if (performance.now() - brokeAtMs > (this.#options.reconnectForMs ?? Number.POSITIVE_INFINITY)) return false;
    // A wrong address is told soon; a broker that was there is waited for.
    return this.#wasOpen || attempt < this.#caller.settings.attempts;
  }

  async #repaired(failure: AInTandemError): Promise<boolean> {
    try {
      return (await this.#options.repair?.(failure)) ?? false;
    } catch (thrown) {
      const error = asError(thrown);
      if (isTransient(error)) return true;
      // Why it cannot be repaired says more than what was to be.
      this.#failure ??= error;
      return false;
    }
  }

  /** Runs one stream to its end; undefined when the broker ended it in order. */
  async #stream(onOpen: () => void): Promise<AInTandemError | undefined> {
    const { workspaceId, logger } = this.#caller.settings;
    const node = this.#caller.nodes.leading(workspaceId);
    const session = new Session(logger);
    session.requests.push({ kind: { case: "open", value: this.#openRequest(workspaceId) } });
    const credit = { messages: this.#window.messages, bytes: BigInt(this.#window.bytes) };
    session.requests.push({ kind: { case: "credit", value: credit } });
    let failure: AInTandemError | undefined;
    try {
      const responses = this.#caller.bidi(node, SubscribeService.method.subscribe, session.requests, {
        signal: this.#abort.signal,
        onHeader: (headers) => this.#caller.nodes.note(workspaceId, headers.get(LEADER_HEADER)),
      });
      for await (const { kind } of responses) {
        if (kind.case === "opened") {
          this.#session = session;
          this.#wasOpen = true;
          this.#ackDeadlineMs = fromDuration(kind.value.ackDeadline) ?? this.#ackDeadlineMs;
          this.#beat();
          onOpen();
          // Closed while it opened.
          if (this.#closing) session.finish();
        } else this.#take(session, kind);
      }
    } catch (thrown) {
      failure = this.#caller.failure(thrown, node);
    } finally {
      this.#session = undefined;
      // Leases end with their stream: what nobody has taken comes again.
      this.#ready = this.#ready.filter((ready) => ready.session !== session);
      session.end(failure);
    }
    return failure;
  }

  #openRequest(workspaceId: string) {
    const { sandbox, ackDeadlineMs, lenient, lowPriorityPercent } = this.#options;
    return create(OpenSchema, {
      workspaceId,
      sandboxId: sandbox,
      ackDeadline: toOptionalDuration(ackDeadlineMs),
      ackMode: lenient ? AckMode.LENIENT : AckMode.UNSPECIFIED,
      lowPriorityPercent: lowPriorityPercent ?? 0,
    });
  }

  #take(session: Session, kind: SubscribeResponse["kind"]): void {
    if (kind.case === "deliveryBatch") {
      if (this.#closing) return;
      for (const delivery of session.deliver(kind.value)) {
        const reader = this.#readers.shift();
        if (reader === undefined) {
          this.#ready.push({ delivery, session });
          continue;
        }
        this.#taken(delivery, session);
        reader.resolve({ done: false, value: delivery });
      }
    } else if (kind.case === "leasesLost") {
      const gone = new Set(session.lose(kind.value));
      this.#ready = this.#ready.filter(({ delivery, session: of }) => {
        if (of !== session || !gone.has(delivery.deliveryId)) return true;
        session.giveBack(1, delivery.bytes, this.#window);
        return false;
      });
    } else if (kind.case === undefined) {
      throw new ContractError("a response of a kind unknown here came");
    } else session.settle(kind);
  }

  #taken(delivery: Delivery, session: Session): void {
    session.giveBack(1, delivery.bytes, this.#window);
  }

  #beat(): void {
    if (!this.#options.keepLeases || this.#heartbeat !== undefined) return;
    const everyMs = Math.max(200, this.#ackDeadlineMs / 3);
    this.#heartbeat = setInterval(() => this.#session?.extendAll().catch(() => {}), everyMs).unref();
  }

  #finishReaders(): void {
    const readers = this.#readers;
    this.#readers = [];
    for (const reader of readers) {
      if (this.#failure === undefined) reader.resolve({ done: true, value: undefined });
      else reader.reject(this.#failure);
    }
  }
}
