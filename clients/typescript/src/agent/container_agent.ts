// An agent in a sandbox: registered, reachable, and with its messages looked after.

import { Client } from "../client.js";
import { isUnauthenticated, TOKEN_PATIENCE_MS } from "../connection/token.js";
import { type AInTandemError, asError, ClosedError } from "../errors.js";
import type { Destination, Message, MessageOptions } from "../message.js";
import type { Publisher } from "../publish/publisher.js";
import type { Receipt } from "../publish/receipt.js";
import { collect } from "../services/pages.js";
import type { AgentFilter, DiscoveredAgent } from "../services/registry.js";
import type { RequestOptions } from "../services/requests.js";
import type { Subscription } from "../subscribe/subscription.js";
import { deferred, sleep } from "../waiting.js";
import { AgentTopics } from "./agent_topics.js";
import type { MessageHandler, RequestHandler } from "./handling.js";
import { isGone, Registration } from "./registration.js";
import { type AgentSettings, agentSettingsOf, type ContainerAgentOptions, optionsFromEnvironment } from "./settings.js";
import { type Handlers, Worker } from "./worker.js";

/** How late a timer may be before the loop counts as blocked, in milliseconds, and how often that is looked at. */
const BLOCKED_MS = 2_000;
const LOOP_LOOK_MS = 500;
/** How long after a heartbeat that was refused because of the token the next one follows, in milliseconds. */
const REFUSED_BEAT_MS = 1_000;

/**
 * An agent in a sandbox. `start` registers it and opens its inbox; handlers get what comes; `stop` ends in order.
 *
 * A message is acknowledged when its handler returns. When it throws, the message comes again after the backoff of the sandbox, and
 * is a dead letter with the reason after its last attempt; `Reject` makes it one at once. Leases are extended while handlers run, up
 * to `handlerTimeoutMs`. When the broker is away the agent connects again by itself, to any of its nodes.
 *
 * Deliveries are at least once: a process that dies between the work and its acknowledgement gets the message again. Within one
 * process a message whose work was done is not handled twice, and a request is answered once.
 */
export class ContainerAgent {
  readonly #settings: AgentSettings;
  readonly #client: Client;
  readonly #publisher: Publisher;
  readonly #handlers: Handlers = { onMessage: undefined, onRequest: undefined };
  readonly #worker: Worker;
  readonly #stopping = new AbortController();
  readonly #registration: Registration;
  readonly #over = deferred<void>();
  /** Topics: made, followed and published to as this agent. */
  readonly topics: AgentTopics;
  #subscription: Subscription | undefined;
  #opening: Promise<void> | undefined;
  #loops: Promise<void>[] = [];
  #timers: NodeJS.Timeout[] = [];
  #state: "new" | "running" | "stopped" = "new";
  #stopped: Promise<void> | undefined;

  /** Throws `INVALID_SETTING` or `INVALID_ENDPOINT`. Connects nowhere before `start`. */
  constructor(options: ContainerAgentOptions) {
    this.#settings = agentSettingsOf(options);
    this.#client = new Client(this.#settings.client);
    this.#publisher = this.#client.publisher();
    this.#worker = new Worker(this.#settings, this.#handlers, this.#publisher);
    this.#registration = new Registration(this.#settings, this.#client, this.#stopping.signal);
    this.topics = new AgentTopics(this.#client, this.#publisher, this.#registration, this.sandboxId, this.name);
    this.#over.promise.catch(() => {});
  }

  /** The agent that the variables of its container describe: `TANDEM_BROKER`, `TANDEM_TOKEN_FILE`, `TANDEM_WORKSPACE`, `TANDEM_SANDBOX`. */
  static fromEnvironment(options: Partial<ContainerAgentOptions> = {}): ContainerAgent {
    return new ContainerAgent(optionsFromEnvironment(options, process.env));
  }

  /** The sandbox that it lives in. */
  get sandboxId(): string {
    return this.#settings.sandboxId;
  }
  /** The name of the agent. */
  get name(): string {
    return this.#settings.agent.name;
  }
  /** The client below, for what has no method here. */
  get client(): Client {
    return this.#client;
  }
  /** Resolves when the agent was stopped; rejects when it ended by itself, say because its token was revoked. */
  get ended(): Promise<void> {
    return this.#over.promise;
  }

  /** Handles what is no request, and requests that have no other handler. One handler; a later one takes its place. */
  onMessage(handler: MessageHandler): this {
    this.#handlers.onMessage = handler;
    this.#openLater();
    return this;
  }

  /** Handles requests, and commands that want a response; what it returns is the response, and must be JSON. */
  onRequest(handler: RequestHandler): this {
    this.#handlers.onRequest = handler;
    this.#openLater();
    return this;
  }

  /** Registers the agent, and opens its inbox if it has a handler. Fails when the broker cannot be reached or refuses. */
  async start(): Promise<this> {
    if (this.#state !== "new") throw new ClosedError("agent");
    this.#state = "running";
    try {
      await this.#registration.register();
      this.#timers.push(this.#worker.watch(), this.#watchLoop());
      void this.#beat();
      if (this.#hasHandlers) await this.#openInbox();
    } catch (error) {
      await this.#shutDown();
      throw error;
    }
    return this;
  }

  /** Sends a message; resolves once it is durable. */
  sendMessage(to: Destination, content: unknown, options: MessageOptions = {}): Promise<Receipt> {
    const message = { fromAgent: this.name, ...options, from: this.sandboxId, to, content };
    return this.#publisher.publish(message);
  }

  /** Sends a message to every other sandbox of the workspace. */
  broadcast(content: unknown, options: MessageOptions = {}): Promise<Receipt> {
    return this.sendMessage({ broadcast: true }, content, options);
  }

  /**
   * Asks another sandbox, or whoever has a capability (`{capability: "review"}`), and resolves with the content of the response.
   * Fails with `RESPONSE_TIMEOUT`, or with an `UndeliverableError` when the other side refused or failed for good.
   */
  async collaborateWith(
    target: string | { capability: string },
    task: unknown,
    options: RequestOptions & MessageOptions = {},
  ): Promise<unknown> {
    return (await this.request(target, task, options)).content;
  }

  /** The same, with the whole response. */
  async request(
    target: string | { capability: string },
    task: unknown,
    options: RequestOptions & MessageOptions = {},
  ): Promise<Message> {
    const { timeoutMs, signal, ...rest } = options;
    const message = { fromAgent: this.name, ...rest, from: this.sandboxId, to: target, content: task };
    const waiting = { ...(timeoutMs !== undefined && { timeoutMs }), ...(signal && { signal }) };
    return (await this.#client.request(message, waiting)).message;
  }

  /** Agents of the workspace of which all that is asked for holds. */
  discover(filter: AgentFilter = {}): Promise<DiscoveredAgent[]> {
    return collect(this.#client.registry.discover(filter));
  }

  /**
   * Takes no more messages, waits for handlers that run (`stopTimeoutMs`), publishes what waits, and closes. What was delivered and
   * not begun goes back without a failed attempt; so does what a handler did not end in time, whose `signal` fires. The sandbox stays
   * registered: what is sent to it waits for the next start.
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#shutDown().then(() => this.#over.resolve());
    return this.#stopped;
  }

  /** `stop`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  get #hasHandlers(): boolean {
    return this.#handlers.onMessage !== undefined || this.#handlers.onRequest !== undefined;
  }

  async #shutDown(): Promise<void> {
    this.#state = "stopped";
    this.#stopping.abort();
    await this.#opening?.catch(() => {});
    this.#subscription?.pause();
    const late = new AbortController();
    const patience = sleep(this.#settings.stopTimeoutMs, late.signal).then(
      () => this.#worker.abandon(),
      () => {},
    );
    await Promise.race([this.#worker.settled(), patience]);
    late.abort();
    await this.#publisher.close();
    await this.#subscription?.close();
    for (const timer of this.#timers) clearInterval(timer);
    await this.#client.close();
  }

  /** Opened with the first handler, so that an agent that only sends does not take messages that it cannot handle. */
  #openLater(): void {
    if (this.#state !== "running") return;
    this.#openInbox().catch((error: unknown) => this.#fail(asError(error)));
  }

  #openInbox(): Promise<void> {
    this.#opening ??= this.#open();
    return this.#opening;
  }

  async #open(): Promise<void> {
    const { sandboxId, concurrency, ackDeadlineMs, connection } = this.#settings;
    const subscription = await this.#client.subscribe({
      sandbox: sandboxId,
      // Twice of what is worked on: the next ones are here when a handler returns, and few wait in vain when this process dies.
      creditMessages: 2 * concurrency,
      ackDeadlineMs,
      keepLeases: true,
      onBreak: (error) =>
        connection.logger.info("the inbox is opened again", { sandbox: sandboxId, because: error?.message }),
      repair: (error) => this.#repair(error),
    });
    this.#subscription = subscription;
    this.#loops = Array.from({ length: concurrency }, () => this.#worker.loop(subscription));
    for (const loop of this.#loops) loop.catch((error: unknown) => this.#fail(asError(error)));
  }

  /** A sandbox that somebody unregistered, or whose broker lost its memory, is registered again. */
  async #repair(error: AInTandemError): Promise<boolean> {
    if (!isGone(error) || this.#subscription === undefined || this.#state !== "running") return false;
    await this.#registration.registerAgain();
    return true;
  }

  /** An open inbox says that the agent is alive, too; heartbeats say so while it is opened again, and for those who only send. */
  async #beat(): Promise<void> {
    const { heartbeatIntervalMs, client } = this.#settings;
    const { signal } = this.#stopping;
    const patienceMs = typeof client.token === "object" ? TOKEN_PATIENCE_MS : 0;
    let refusedAtMs: number | undefined;
    for (;;) {
      const usualMs = heartbeatIntervalMs * (0.9 + 0.2 * Math.random());
      await sleep(refusedAtMs === undefined ? usualMs : Math.min(usualMs, REFUSED_BEAT_MS), signal).catch(() => {});
      const error = await this.#heartbeat(signal);
      if (signal.aborted) return;
      if (error === undefined || !isUnauthenticated(error)) {
        refusedAtMs = undefined;
        continue;
      }
      refusedAtMs ??= performance.now();
      // An inbox hears of it by its stream, and waits for another token itself. Nothing else tells who only sends.
      if (this.#opening === undefined && performance.now() - refusedAtMs >= patienceMs) this.#fail(error);
    }
  }

  /** Says once that the agent is alive; returns what went wrong. */
  async #heartbeat(signal: AbortSignal): Promise<AInTandemError | undefined> {
    const { heartbeatIntervalMs, connection } = this.#settings;
    try {
      await this.#client.registry.heartbeat(this.sandboxId, { timeoutMs: heartbeatIntervalMs, signal });
      if (this.#registration.isComplete) return undefined;
    } catch (thrown) {
      const error = asError(thrown);
      if (signal.aborted) return error;
      connection.logger.debug("a heartbeat failed", { code: error.code, text: error.message });
      if (!isGone(error)) return error;
    }
    return this.#registration.registerAgain().then(() => undefined, asError);
  }

  /** A loop that stands still extends no lease. Nobody can help while it does; at least it is said why messages come again. */
  #watchLoop(): NodeJS.Timeout {
    let dueMs = performance.now() + LOOP_LOOK_MS;
    return setInterval(() => {
      const lateMs = Math.round(performance.now() - dueMs);
      dueMs = performance.now() + LOOP_LOOK_MS;
      if (lateMs < BLOCKED_MS) return;
      const text =
        "the event loop was blocked: leases were not extended meanwhile; move long work into a worker thread";
      this.#settings.connection.logger.warn(text, { blockedMs: lateMs, ackDeadlineMs: this.#settings.ackDeadlineMs });
    }, LOOP_LOOK_MS).unref();
  }

  #fail(error: AInTandemError): void {
    if (this.#state !== "running") return;
    this.#settings.connection.logger.error("the agent ends", {
      sandbox: this.sandboxId,
      code: error.code,
      text: error.message,
    });
    this.#stopped ??= this.#shutDown().then(() => this.#over.reject(error));
  }
}
