import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import { HistoryService } from "../gen/aintandem/messaging/v1/history_service_pb.js";
import { Message, type MessageKind, toWireKind } from "../message.js";
import { toNumber, toOptionalTimestamp } from "../wire_time.js";
import { pages } from "./pages.js";

/** Which messages of the log. All that is set must hold. */
export interface HistoryFilter {
  /** From this sequence on. Default: from the first. */
  fromSequence?: number;
  /** Included. */
  toSequence?: number;
  /** Committed at this time or later. */
  since?: Date;
  /** Committed before this time. */
  until?: Date;
  /** Sent by this sandbox or addressed to it by name. */
  sandbox?: string;
  /** Sent by this agent or addressed to it by name. */
  agent?: string;
  /** Of this conversation. */
  correlationId?: string;
  /** What they are for. */
  type?: MessageKind;
  /** Newest first. */
  descending?: boolean;
}

/** The log of a workspace, read without touching any inbox. */
export class History {
  readonly #caller: Caller;
  readonly #workspaceId: string;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
    this.#workspaceId = caller.settings.workspaceId;
  }

  /** One message by its id. `UNKNOWN_MESSAGE` when there is none. */
  async get(id: string, options: CallOptions = {}): Promise<Message | undefined> {
    const request = { workspaceId: this.#workspaceId, messageId: id };
    const answer = await this.#caller.unary(HistoryService.method.getMessage, request, {
      ...options,
      repeatable: true,
    });
    return answer.message === undefined ? undefined : new Message(answer.message);
  }

  /** In the order of the sequences. `HISTORY_GAP` when what is asked for was trimmed. */
  async *list(filter: HistoryFilter = {}, options: CallOptions = {}): AsyncGenerator<Message, void, undefined> {
    const asked = {
      workspaceId: this.#workspaceId,
      pageSize: 1_000,
      fromSequence: BigInt(filter.fromSequence ?? 0),
      toSequence: BigInt(filter.toSequence ?? 0),
      startTime: toOptionalTimestamp(filter.since),
      endTime: toOptionalTimestamp(filter.until),
      sandboxId: filter.sandbox ?? "",
      agent: filter.agent ?? "",
      correlationId: filter.correlationId ?? "",
      type: toWireKind(filter.type),
      descending: filter.descending ?? false,
    };
    const read = (pageToken: string) =>
      this.#caller.unary(HistoryService.method.listMessages, { ...asked, pageToken }, { ...options, repeatable: true });
    for await (const message of pages(read, (page) => page.messages)) yield new Message(message);
  }

  /** Puts messages of a range into an inbox once more; returns how many. */
  async replay(sandbox: string, range: { from: number; to: number }, options: CallOptions = {}): Promise<number> {
    let replayed = 0;
    for (let from = BigInt(range.from); from > 0n; ) {
      const answer = await this.#caller.unary(
        HistoryService.method.replayMessages,
        { workspaceId: this.#workspaceId, sandboxId: sandbox, fromSequence: from, toSequence: BigInt(range.to) },
        { ...options, repeatable: true },
      );
      replayed += toNumber(answer.replayed);
      from = answer.nextSequence;
    }
    return replayed;
  }
}
