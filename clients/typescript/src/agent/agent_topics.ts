import type { Client } from "../client.js";
import type { MessageOptions } from "../message.js";
import type { Publisher } from "../publish/publisher.js";
import type { Receipt } from "../publish/receipt.js";
import type { Follow, FollowFrom } from "../services/topics.js";
import type { Registration } from "./registration.js";

/** Topics, as this agent. */
export class AgentTopics {
  readonly #client: Client;
  readonly #publisher: Publisher;
  readonly #registration: Registration;
  readonly #sandbox: string;
  readonly #agentName: string;

  /** @internal */
  constructor(client: Client, publisher: Publisher, registration: Registration, sandbox: string, agentName: string) {
    this.#client = client;
    this.#publisher = publisher;
    this.#registration = registration;
    this.#sandbox = sandbox;
    this.#agentName = agentName;
  }

  /** Creates a topic; false when it had been there. */
  create(name: string): Promise<boolean> {
    return this.#client.topics.create(name);
  }

  /**
   * Receive what is published to the topics that match, now and later. Stays until `unfollow`, also over restarts. Where somebody
   * unregisters the sandbox, the agent follows them again from then on.
   */
  async follow(pattern: string, from?: FollowFrom): Promise<Follow> {
    const follow = await this.#client.topics.follow(this.#sandbox, pattern, from);
    this.#registration.follows(pattern);
    return follow;
  }

  /** Ends following; what waits and no other pattern covers is given up. `UNKNOWN_FOLLOW` when the pattern is not followed. */
  async unfollow(pattern: string): Promise<void> {
    await this.#client.topics.unfollow(this.#sandbox, pattern);
    this.#registration.unfollows(pattern);
  }

  /** What this sandbox follows. */
  follows(): Promise<Follow[]> {
    return this.#client.topics.follows(this.#sandbox);
  }

  /** `UNKNOWN_TOPIC` unless it was created. */
  publish(topic: string, content: unknown, options: MessageOptions = {}): Promise<Receipt> {
    return this.#publisher.publish({
      fromAgent: this.#agentName,
      ...options,
      from: this.#sandbox,
      to: { topic },
      content,
    });
  }
}
