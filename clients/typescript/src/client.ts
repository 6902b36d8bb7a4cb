// The door to a workspace of the broker.

import type { CallOptions } from "./connection/call_options.js";
import { Caller } from "./connection/caller.js";
import { type ClientOptions, settingsOf } from "./connection/settings.js";
import { PublishService } from "./gen/aintandem/messaging/v1/publish_service_pb.js";
import { newId } from "./ids.js";
import { checkSize, type OutgoingMessage, toWire } from "./message.js";
import { Publisher, type PublisherOptions } from "./publish/publisher.js";
import type { Receipt } from "./publish/receipt.js";
import { Approvals } from "./services/approvals.js";
import { DeadLetters } from "./services/dead_letters.js";
import { type BrokerEvent, type EventOptions, events } from "./services/events.js";
import { History } from "./services/history.js";
import { Policies } from "./services/policies.js";
import { Registry } from "./services/registry.js";
import { type RequestOptions, type Response, request } from "./services/requests.js";
import { type ServerInfo, serverInfo } from "./services/server.js";
import { Topics } from "./services/topics.js";
import { Workspaces } from "./services/workspaces.js";
import { type SubscribeOptions, Subscription } from "./subscribe/subscription.js";
import { fromTimestamp, toNumber } from "./wire_time.js";

/**
 * A client of the broker, in one workspace. Connects when it is first used; one connection to a node serves everything.
 *
 * Every call tries again what may be tried again, with backoff, a number of attempts and a budget: what the broker is unavailable
 * for. What it refuses because of the request is told at once, also a full inbox or a rate limit, with `retryAfterMs`.
 */
export class Client {
  /** Sandboxes and the agents in them. */
  readonly registry: Registry;
  /** Topics, and who follows them. */
  readonly topics: Topics;
  /** Messages that left an inbox without being acknowledged. */
  readonly deadLetters: DeadLetters;
  /** Who may say what to whom. */
  readonly policies: Policies;
  /** Messages that a policy holds until somebody decides. */
  readonly approvals: Approvals;
  /** The log of the workspace. */
  readonly history: History;
  /** All workspaces of the broker. */
  readonly workspaces: Workspaces;
  readonly #caller: Caller;
  readonly #publishers = new Set<Publisher>();
  readonly #subscriptions = new Set<Subscription>();

  /** Throws `INVALID_ENDPOINT` or `INVALID_SETTING`. */
  constructor(options: ClientOptions = {}) {
    this.#caller = new Caller(settingsOf(options));
    this.registry = new Registry(this.#caller);
    this.topics = new Topics(this.#caller);
    this.deadLetters = new DeadLetters(this.#caller);
    this.policies = new Policies(this.#caller);
    this.approvals = new Approvals(this.#caller);
    this.history = new History(this.#caller);
    this.workspaces = new Workspaces(this.#caller);
  }

  /** The workspace that this client works in. */
  get workspaceId(): string {
    return this.#caller.settings.workspaceId;
  }

  /** Publishes one message, and resolves once it is durable. It gets an id unless it has one, so that a retry is one message. */
  async publish(message: OutgoingMessage, options: CallOptions = {}): Promise<Receipt> {
    const { workspaceId } = this;
    const wire = toWire({ ...message, id: message.id ?? newId() });
    checkSize(wire);
    const plan = { ...options, repeatable: true, workspaceId };
    const answer = await this.#caller.unary(PublishService.method.publish, { workspaceId, message: wire }, plan);
    const approvalId = toNumber(answer.approvalId);
    return {
      id: answer.messageId || wire.messageId,
      sequence: toNumber(answer.sequence),
      serverTime: fromTimestamp(answer.serverTime) ?? new Date(0),
      duplicate: answer.duplicate,
      approvalId: approvalId === 0 ? undefined : approvalId,
    };
  }

  /** For many messages: batches, and keeps its place over reconnections. */
  publisher(options: PublisherOptions = {}): Publisher {
    const publisher = new Publisher(this.#caller, options);
    this.#publishers.add(publisher);
    void publisher.ended.then(() => this.#publishers.delete(publisher));
    return publisher;
  }

  /** Opens the inbox of a sandbox. `UNKNOWN_SANDBOX` when it is not registered. */
  async subscribe(options: SubscribeOptions): Promise<Subscription> {
    const subscription = new Subscription(this.#caller, options);
    await subscription.open();
    this.#subscriptions.add(subscription);
    void subscription.ended.then(() => this.#subscriptions.delete(subscription));
    return subscription;
  }

  /** Publishes a request and returns its response, in one call; the response does not go through the inbox. */
  request(message: OutgoingMessage, options: RequestOptions = {}): Promise<Response> {
    return request(this.#caller, message, options);
  }

  /** What happens in the workspace, from now on or from a cursor, also over breaks. */
  events(options: EventOptions = {}): AsyncGenerator<BrokerEvent, void, undefined> {
    return events(this.#caller, options);
  }

  /** What the node is that answers: its version, its cluster, its limits. */
  serverInfo(options: CallOptions = {}): Promise<ServerInfo> {
    return serverInfo(this.#caller, options);
  }

  /** Ends publishers and subscriptions in order, and then the connections. */
  async close(): Promise<void> {
    await Promise.all([...this.#subscriptions].map((subscription) => subscription.close()));
    await Promise.all([...this.#publishers].map((publisher) => publisher.close()));
    this.#caller.close();
  }

  /** `close`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
