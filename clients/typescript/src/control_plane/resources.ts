// Collections of the REST API that are few calls each.

import type {
  RestAgentFilter,
  RestApiKeyFilter,
  RestApprovalFilter,
  RestAuditFilter,
  RestDeadLetterFilter,
  RestMessageFilter,
  RestRedrive,
} from "./filter_shapes.js";
import { part, type Rest, type RestOptions, type Tagged } from "./rest.js";
import type {
  AcceptedMessage,
  MadeRestApiKey,
  NewRestApiKey,
  NewRestMessage,
  RestAgent,
  RestApiKey,
  RestApproval,
  RestAuditRecord,
  RestDeadLetter,
  RestMessage,
  RestPolicy,
  RestRedriven,
} from "./shapes.js";

/** Lists that have no pages: what `limit` allows, and whether there is more. */
export interface Listed<T> {
  /** What was found. */
  items: T[];
  /** There is more: narrow the filters. */
  truncated: boolean;
}

/** Messages: sent, found, and listed. */
export class RestMessages {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** Sends a message; resolves when it is durable, or waits for a human. */
  send(
    message: NewRestMessage & { to: NonNullable<NewRestMessage["to"]> },
    options?: RestOptions,
  ): Promise<AcceptedMessage> {
    return this.#rest.json("POST", "/messages", { ...options, body: message });
  }
  /** Sends a message to every other sandbox of the workspace. */
  broadcast(message: Omit<NewRestMessage, "to">, options?: RestOptions): Promise<AcceptedMessage> {
    return this.#rest.json("POST", "/broadcast", { ...options, body: message });
  }
  /** Fails with `UNKNOWN_MESSAGE`. */
  get(workspaceId: string, messageId: string, options?: RestOptions): Promise<RestMessage> {
    return this.#rest.json("GET", `/messages/${part(messageId)}`, { ...options, query: { workspace_id: workspaceId } });
  }
  /** The log of a workspace, in the order of its sequences. */
  list(filter: RestMessageFilter, options?: RestOptions): AsyncGenerator<RestMessage, void, undefined> {
    type Page = { messages: RestMessage[]; next_cursor?: string | null };
    return this.#rest.pages<Page, RestMessage>("/messages", { ...filter }, (page) => page.messages, options);
  }
}

/** Agents of all sandboxes. */
export class RestAgents {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** Who is there, by role, capability and name. */
  async discover(filter: RestAgentFilter, options?: RestOptions): Promise<Listed<RestAgent>> {
    type Page = { agents: RestAgent[]; truncated: boolean };
    const page = await this.#rest.json<Page>("GET", "/agents/discover", { ...options, query: { ...filter } });
    return { items: page.agents, truncated: page.truncated };
  }
}

/** Who may talk to whom in a workspace. */
export class RestPolicies {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** With its tag, for a change that shall overwrite nobody else's. */
  async get(workspaceId: string, options?: RestOptions): Promise<Tagged<RestPolicy>> {
    const query = { workspace_id: workspaceId };
    const { value, etag } = await this.#rest.tagged<RestPolicy>("GET", "/policies", { ...options, query });
    return { ...value, etag };
  }
  /** With `ifMatch`, the `etag` of what was read: `REVISION_CHANGED` when somebody else was quicker. */
  set(workspaceId: string, policy: unknown, options: RestOptions & { ifMatch?: string } = {}): Promise<RestPolicy> {
    return this.#rest.json("PUT", "/policies", { ...options, query: { workspace_id: workspaceId }, body: policy });
  }
  /** From then on everybody may talk to everybody. */
  remove(workspaceId: string, options: RestOptions & { ifMatch?: string } = {}): Promise<RestPolicy> {
    return this.#rest.json("DELETE", "/policies", { ...options, query: { workspace_id: workspaceId } });
  }
}

/** Messages that wait for a human. */
export class RestApprovals {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** Without the messages themselves. */
  async list(filter: RestApprovalFilter, options?: RestOptions): Promise<Listed<RestApproval>> {
    type Page = { approvals: RestApproval[]; truncated: boolean };
    const page = await this.#rest.json<Page>("GET", "/approvals", { ...options, query: { ...filter } });
    return { items: page.approvals, truncated: page.truncated };
  }
  /** With the message, while it waits. */
  get(workspaceId: string, id: number, options?: RestOptions): Promise<RestApproval> {
    return this.#rest.json("GET", `/approvals/${part(id)}`, { ...options, query: { workspace_id: workspaceId } });
  }
  /** Fails with `APPROVAL_ENDED`. */
  approve(workspaceId: string, id: number, comment = "", options?: RestOptions): Promise<RestApproval> {
    return this.#decide(workspaceId, id, "approve", comment, options);
  }
  /** Fails with `APPROVAL_ENDED`. */
  deny(workspaceId: string, id: number, comment = "", options?: RestOptions): Promise<RestApproval> {
    return this.#decide(workspaceId, id, "deny", comment, options);
  }

  #decide(
    workspaceId: string,
    id: number,
    verdict: string,
    comment: string,
    options?: RestOptions,
  ): Promise<RestApproval> {
    const query = { workspace_id: workspaceId };
    return this.#rest.json("POST", `/approvals/${part(id)}/${verdict}`, { ...options, query, body: { comment } });
  }
}

/** Messages that left their inbox unhandled. */
export class RestDeadLetters {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** With reason and history. */
  async list(filter: RestDeadLetterFilter, options?: RestOptions): Promise<Listed<RestDeadLetter>> {
    type Page = { dead_letters: RestDeadLetter[]; truncated: boolean };
    const page = await this.#rest.json<Page>("GET", "/dead-letters", { ...options, query: { ...filter } });
    return { items: page.dead_letters, truncated: page.truncated };
  }
  /** Puts them back into an inbox. */
  redrive(redrive: RestRedrive, options?: RestOptions): Promise<RestRedriven> {
    return this.#rest.json("POST", "/dead-letters/redrive", { ...options, body: redrive });
  }
}

/** API keys. */
export class RestApiKeys {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** The secret is in this answer and nowhere else. Not tried again: a repeat would make another key. */
  create(key: NewRestApiKey, options?: RestOptions): Promise<MadeRestApiKey> {
    return this.#rest.json("POST", "/api-keys", { ...options, body: key, idempotencyKey: false });
  }
  /** Without their secrets. */
  async list(filter: RestApiKeyFilter = {}, options?: RestOptions): Promise<Listed<RestApiKey>> {
    type Page = { api_keys: RestApiKey[]; truncated: boolean };
    const page = await this.#rest.json<Page>("GET", "/api-keys", { ...options, query: { ...filter } });
    return { items: page.api_keys, truncated: page.truncated };
  }
  /** Ends a key for good, within a second on every node. */
  revoke(id: string, options?: RestOptions): Promise<RestApiKey> {
    return this.#rest.json("DELETE", `/api-keys/${part(id)}`, options);
  }
}

/** What was done, and by whom. */
export class RestAudit {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** Records of the chain of a workspace or a shard, from a number on, as far as it reaches now. */
  async *list(filter: RestAuditFilter, options?: RestOptions): AsyncGenerator<RestAuditRecord, void, undefined> {
    type Page = { records: RestAuditRecord[]; next_record?: number | null };
    for (let from = filter.from_record; ; ) {
      const page = await this.#rest.json<Page>("GET", "/audit", {
        ...options,
        query: { ...filter, from_record: from },
      });
      yield* page.records;
      if (page.next_record === undefined || page.next_record === null || page.next_record === from) return;
      from = page.next_record;
    }
  }
}
