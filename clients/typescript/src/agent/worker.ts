// Takes deliveries, runs handlers, and tells the broker what became of them.

import { AInTandemError, asError, InvalidValueError, textOf } from "../errors.js";
import type { Logger } from "../logger.js";
import { encodeContent, type Message } from "../message.js";
import type { Publisher } from "../publish/publisher.js";
import type { Delivery } from "../subscribe/delivery.js";
import type { Subscription } from "../subscribe/subscription.js";
import { inTraceOf } from "../trace.js";
import { deferred } from "../waiting.js";
import { DoneMessages, identityOf } from "./done_messages.js";
import { type MessageHandler, Reject, type RequestHandler, RetryLater } from "./handling.js";
import type { AgentSettings } from "./settings.js";

export interface Handlers {
  onMessage: MessageHandler | undefined;
  onRequest: RequestHandler | undefined;
}

/** How often leases of running handlers are looked at, in milliseconds. */
const LOOK_MS = 250;

/** A handler at work on a message. */
interface Work {
  readonly outcome: Promise<void>;
  readonly abort: AbortController;
}

/** A delivery that waits for it. */
interface Running {
  readonly delivery: Delivery;
  readonly work: Work;
  readonly expiresAtMs: number;
  /** Says that the agent waits no longer. */
  giveUp(error: AInTandemError): void;
}

export class Worker {
  readonly #settings: AgentSettings;
  readonly #logger: Logger;
  readonly #handlers: Handlers;
  readonly #publisher: Publisher;
  readonly #done = new DoneMessages();
  readonly #running = new Set<Running>();
  /** By identity. A message that comes again while it is worked on, after its stream broke, waits for the same work. */
  readonly #atWork = new Map<string, Work>();
  #idle = deferred<void>();

  constructor(settings: AgentSettings, handlers: Handlers, publisher: Publisher) {
    this.#settings = settings;
    this.#logger = settings.connection.logger;
    this.#handlers = handlers;
    this.#publisher = publisher;
  }

  /** Messages that handlers work on now. */
  get running(): number {
    return this.#running.size;
  }

  /** Takes deliveries until the subscription ends; one of `concurrency` loops. Rejects with the subscription's error. */
  async loop(subscription: Subscription): Promise<void> {
    // Not for-await: leaving such a loop would end the subscription for the other loops, too.
    for (;;) {
      const next = await subscription.next();
      if (next.done) return;
      await this.#handle(next.value);
    }
  }

  /** Looks after handlers whose time is up. */
  watch(): NodeJS.Timeout {
    return setInterval(() => {
      const nowMs = performance.now();
      for (const running of this.#running) {
        if (nowMs < running.expiresAtMs) continue;
        const text = `the handler took longer than ${this.#settings.handlerTimeoutMs} ms`;
        running.giveUp(new AInTandemError("HANDLER_TIMEOUT", text));
      }
    }, LOOK_MS).unref();
  }

  /** Resolves when no handler runs. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await this.#idle.promise;
  }

  /** Tells handlers that nobody waits for them any longer. Their messages are given back. */
  abandon(): void {
    for (const { work, delivery } of this.#running) {
      work.abort.abort(new AInTandemError("STOPPED", "the agent stops"));
      this.#logger.warn("a handler did not end in time; its message comes again", { message: delivery.message.id });
    }
  }

  async #handle(delivery: Delivery): Promise<void> {
    const { message } = delivery;
    const identity = identityOf(message);
    if (this.#done.has(identity)) {
      this.#logger.info("a message came again whose work is done here already; it is acknowledged", {
        message: message.id,
      });
      this.#acknowledge(delivery);
      return;
    }
    const work = this.#atWork.get(identity) ?? this.#begin(delivery, identity);
    const late = deferred<never>();
    late.promise.catch(() => {});
    const running: Running = {
      delivery,
      work,
      expiresAtMs: performance.now() + this.#settings.handlerTimeoutMs,
      giveUp: (error) => {
        // The next attempt begins anew and does not wait for what may never end.
        this.#atWork.delete(identity);
        late.reject(error);
        work.abort.abort(error);
      },
    };
    this.#running.add(running);
    try {
      await Promise.race([work.outcome, late.promise]);
      this.#acknowledge(delivery);
    } catch (thrown) {
      this.#refuse(delivery, thrown);
    } finally {
      this.#running.delete(running);
      if (this.#running.size === 0) {
        this.#idle.resolve();
        this.#idle = deferred();
      }
    }
  }

  #begin(delivery: Delivery, identity: string): Work {
    const { traceparent } = delivery.message;
    const abort = new AbortController();
    const outcome = inTraceOf(traceparent, () => this.#work(delivery, abort.signal));
    const work = { outcome, abort };
    this.#atWork.set(identity, work);
    const end = () => {
      if (this.#atWork.get(identity) === work) this.#atWork.delete(identity);
    };
    outcome.then(end, end);
    return work;
  }

  async #work(delivery: Delivery, signal: AbortSignal): Promise<void> {
    const { message, attempt } = delivery;
    const asks = message.type === "request" || (message.type === "command" && message.requiresResponse);
    if (asks && this.#handlers.onRequest !== undefined) {
      const answer = await this.#handlers.onRequest(message, { attempt, signal });
      await this.#respond(message, answer, signal);
      return;
    }
    if (message.type === "response" && this.#handlers.onMessage === undefined) {
      this.#logger.warn("a response came for which nobody waits any more", { message: message.id, from: message.from });
      return;
    }
    if (this.#handlers.onMessage === undefined) throw new Reject(`the agent has no handler for a ${message.type}`);
    const returned = await this.#handlers.onMessage(message, { attempt, signal });
    if (asks && returned !== undefined) await this.#respond(message, returned, signal);
  }

  async #respond(message: Message, answer: unknown, signal: AbortSignal): Promise<void> {
    if (message.correlationId === "") return;
    const content = answer === undefined ? null : answer;
    try {
      encodeContent(content);
    } catch (error) {
      // The same handler would return the same again.
      throw new Reject(`the handler returned what is no JSON: ${textOf(error)}`);
    }
    const id = responseId(message.id);
    try {
      const { sandboxId, agent } = this.#settings;
      await this.#publisher.publish(
        {
          ...(id && { id }),
          from: sandboxId,
          fromAgent: agent.name,
          to: message.from,
          ...(message.fromAgent && { toAgent: message.fromAgent }),
          type: "response",
          correlationId: message.correlationId,
          content,
        },
        { signal },
      );
    } catch (thrown) {
      const error = asError(thrown);
      // An earlier attempt has answered, with other words. The first answer counts.
      if (error.code !== "MESSAGE_ID_REUSED") throw error;
      this.#logger.info("a request was answered by an earlier attempt already", { message: message.id });
    }
  }

  #acknowledge(delivery: Delivery): void {
    const { message } = delivery;
    const identity = identityOf(message);
    this.#done.add(identity);
    delivery.ack().then(
      () => this.#done.delete(identity),
      (error: AInTandemError) => {
        if (error.code !== "LEASE_LOST") this.#done.delete(identity);
        this.#logger.warn("an acknowledgement did not count", {
          message: message.id,
          code: error.code,
          text: error.message,
        });
      },
    );
  }

  #refuse(delivery: Delivery, thrown: unknown): void {
    const { id, from } = delivery.message;
    if (delivery.isLost) return;
    const error = asError(thrown);
    const undecodable = thrown instanceof InvalidValueError && thrown.code === "CONTENT_NOT_READABLE";
    const deadLetter = thrown instanceof Reject || undecodable;
    const reason =
      thrown instanceof Error && !(thrown instanceof AInTandemError)
        ? `${thrown.name}: ${error.message}`
        : error.message;
    this.#logger.warn("a message was not handled", {
      message: id,
      from,
      attempt: delivery.attempt,
      reason,
      deadLetter,
    });
    const delay = thrown instanceof RetryLater ? { delayMs: thrown.delayMs } : {};
    delivery.nack(reason, { deadLetter, ...delay }).catch(() => {});
  }
}

/** The same for each attempt, so that a request is answered once. Undefined where there is no room for it: ids have 128 bytes. */
export function responseId(requestId: string): string | undefined {
  const id = `re:${requestId}`;
  return requestId !== "" && id.length <= 128 ? id : undefined;
}
