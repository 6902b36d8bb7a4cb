// The sandbox of an agent as it shall stand at the broker, with what it follows; and all of it again where it is gone.

import type { Client } from "../client.js";
import { isTransient } from "../connection/caller.js";
import { type AInTandemError, asError } from "../errors.js";
import { pauseMs, sleep } from "../waiting.js";
import type { AgentSettings } from "./settings.js";

/** Whether it says that the sandbox was unregistered, or that the broker was restored from a backup without it. */
export function isGone(error: AInTandemError): boolean {
  return error.code === "UNKNOWN_SANDBOX";
}

/** Of one agent. */
export class Registration {
  readonly #settings: AgentSettings;
  readonly #client: Client;
  readonly #signal: AbortSignal;
  /** The patterns, in the order in which they were asked for. */
  readonly #followed = new Set<string>();
  #returning: Promise<void> | undefined;
  #isComplete = true;

  /** The signal ends what is under way. */
  constructor(settings: AgentSettings, client: Client, signal: AbortSignal) {
    this.#settings = settings;
    this.#client = client;
    this.#signal = signal;
  }

  /** False while it is registered again, and after that has failed: the sandbox may be there without what it followed. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** The sandbox follows these topics from its next registration on. */
  follows(pattern: string): void {
    this.#followed.add(pattern);
  }

  /** It does so no more. */
  unfollows(pattern: string): void {
    this.#followed.delete(pattern);
  }

  /** Registers the sandbox and lets it follow its topics; nothing changes where it is so. */
  async register(): Promise<void> {
    const { sandboxId, agent, subAgents, labels, retryPolicy, connection } = this.#settings;
    const { created, sandbox } = await this.#client.registry.register(
      { sandbox: sandboxId, agents: [agent, ...subAgents], labels, ...(retryPolicy && { retryPolicy }) },
      { signal: this.#signal },
    );
    // From the next message on, wherever it began at first: what came before has been handled, or is gone with the inbox.
    for (const pattern of this.#followed) {
      await this.#client.topics.follow(sandboxId, pattern, undefined, { signal: this.#signal });
    }
    connection.logger.info("the agent is registered", {
      sandbox: sandboxId,
      created,
      waiting: sandbox.pendingMessages,
    });
  }

  /**
   * The same after it `isGone`, until the broker has all of it. Fails where no retry helps, such as with `KEY_REVOKED`. The inbox and
   * the heartbeat may ask for it at the same time.
   */
  registerAgain(): Promise<void> {
    this.#returning ??= this.#return().finally(() => {
      this.#returning = undefined;
    });
    return this.#returning;
  }

  async #return(): Promise<void> {
    const { sandboxId, connection } = this.#settings;
    this.#isComplete = false;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.register();
        break;
      } catch (thrown) {
        const error = asError(thrown);
        // Gone again, between its registration and what it follows, or only a matter of time.
        if (!isGone(error) && !isTransient(error) && !error.retryable) throw error;
        connection.logger.debug("the sandbox is not registered again yet", { attempt, error: error.message });
        await sleep(pauseMs(connection.backoff, attempt, error.retryAfterMs), this.#signal);
      }
    }
    this.#isComplete = true;
    connection.logger.warn("the sandbox was unregistered; it is registered again", { sandbox: sandboxId });
  }
}
