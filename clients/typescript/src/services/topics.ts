import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import { TopicService, type Topic as WireTopic } from "../gen/aintandem/messaging/v1/topic_service_pb.js";
import { fromTimestamp, toNumber, toTimestamp } from "../wire_time.js";
import { pages } from "./pages.js";

/** A named stream of a workspace. */
export interface Topic {
  /** Up to 16 parts of letters, digits, `_` and `-`, divided by dots; up to 128 bytes. */
  name: string;
  /** When it was created. */
  createTime: Date | undefined;
  /** Messages that were published to it since it was created. */
  messageCount: number;
  /** Of the newest message; 0 when there is none. */
  lastSequence: number;
}

/** That a sandbox receives what is published to the topics that match a pattern. */
export interface Follow {
  /** Who follows. */
  sandbox: string;
  /** What: names of topics, with `*` for one part and `>` at the end for one or more. */
  pattern: string;
  /** The first sequence that counts. */
  fromSequence: number;
}

/** Where following begins. Default: with the next message. */
export type FollowFrom =
  | {
      /** With the message of this sequence, or the next one behind it. */
      sequence: number;
    }
  | {
      /** With the first message that was committed at this time or later. */
      time: Date;
    };

/**
 * The named streams of a workspace. A name has up to 16 parts divided by dots; a pattern may have `*` for one part, and `>` at
 * its end for one or more.
 */
export class Topics {
  readonly #caller: Caller;
  readonly #workspaceId: string;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
    this.#workspaceId = caller.settings.workspaceId;
  }

  /** Creates a topic; false when it had been there. */
  async create(name: string, options: CallOptions = {}): Promise<boolean> {
    const request = { workspaceId: this.#workspaceId, name };
    const answer = await this.#caller.unary(TopicService.method.createTopic, request, { ...options, repeatable: true });
    return answer.created;
  }

  /** One topic. `UNKNOWN_TOPIC` when it was not created. */
  async get(name: string, options: CallOptions = {}): Promise<Topic> {
    const request = { workspaceId: this.#workspaceId, name };
    const answer = await this.#caller.unary(TopicService.method.getTopic, request, { ...options, repeatable: true });
    return fromWire(answer.topic);
  }

  /** All topics, by name. */
  async *list(options: CallOptions = {}): AsyncGenerator<Topic, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(
        TopicService.method.listTopics,
        { workspaceId: this.#workspaceId, pageSize: 1_000, pageToken },
        { ...options, repeatable: true },
      );
    for await (const topic of pages(read, (page) => page.topics)) yield fromWire(topic);
  }

  /** Deletes a topic with what waits in it; the history keeps its messages. */
  async delete(name: string, options: CallOptions = {}): Promise<void> {
    const request = { workspaceId: this.#workspaceId, name };
    await this.#caller.unary(TopicService.method.deleteTopic, request, { ...options, repeatable: false });
  }

  /** Lets a sandbox receive what is published to the topics that match, now and later. */
  async follow(sandbox: string, pattern: string, from?: FollowFrom, options: CallOptions = {}): Promise<Follow> {
    const start =
      from === undefined
        ? { case: undefined }
        : "sequence" in from
          ? { case: "fromSequence" as const, value: BigInt(from.sequence) }
          : { case: "fromTime" as const, value: toTimestamp(from.time) };
    const answer = await this.#caller.unary(
      TopicService.method.followTopics,
      { workspaceId: this.#workspaceId, sandboxId: sandbox, pattern, start },
      { ...options, repeatable: true },
    );
    return { sandbox, pattern, fromSequence: toNumber(answer.follow?.fromSequence ?? 0n) };
  }

  /** Ends following; what waits and no other pattern covers is given up. `UNKNOWN_FOLLOW` when the pattern is not followed. */
  async unfollow(sandbox: string, pattern: string, options: CallOptions = {}): Promise<void> {
    const request = { workspaceId: this.#workspaceId, sandboxId: sandbox, pattern };
    await this.#caller.unary(TopicService.method.unfollowTopics, request, { ...options, repeatable: false });
  }

  /** What a sandbox follows. */
  async follows(sandbox: string, options: CallOptions = {}): Promise<Follow[]> {
    const request = { workspaceId: this.#workspaceId, sandboxId: sandbox };
    const answer = await this.#caller.unary(TopicService.method.listFollows, request, { ...options, repeatable: true });
    return answer.follows.map(({ sandboxId, pattern, fromSequence }) => ({
      sandbox: sandboxId,
      pattern,
      fromSequence: toNumber(fromSequence),
    }));
  }
}

function fromWire(topic: WireTopic | undefined): Topic {
  return {
    name: topic?.name ?? "",
    createTime: fromTimestamp(topic?.createTime),
    messageCount: toNumber(topic?.messageCount ?? 0n),
    lastSequence: toNumber(topic?.lastSequence ?? 0n),
  };
}
