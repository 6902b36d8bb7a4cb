import type { CallOptions } from "../connection/call_options.js";
import type { Caller } from "../connection/caller.js";
import {
  type Workspace as WireWorkspace,
  WorkspaceService,
} from "../gen/aintandem/workspace/v1/workspace_service_pb.js";
import { fromDuration, toNumber, toOptionalDuration } from "../wire_time.js";
import { pages } from "./pages.js";

/** What a workspace does with its messages. */
export interface WorkspaceSettings {
  /** For messages without one, in milliseconds. Default: they do not expire. */
  defaultTtlMs?: number;
  /** How long the history is kept, in milliseconds, at least a minute. Default: 30 days. */
  retentionAgeMs?: number;
  /** How many bytes of history are kept, at least 1 MiB. Default: no limit. */
  retentionBytes?: number;
  /** Hops that a conversation may have, 1 to 255. Default: 16. */
  maxHops?: number;
}

/** A tenant of the broker. */
export interface Workspace {
  /** Its id. */
  id: string;
  /** What is not set has its default. */
  settings: WorkspaceSettings;
  /** The sequence of the newest message; 0 when there is none. */
  lastSequence: number;
  /** The oldest sequence that is still kept. */
  firstSequence: number;
  /** Sandboxes that are registered in it. */
  sandboxCount: number;
  /** The Raft group that holds it. */
  shardId: number;
  /** Bytes of the history, as stored. */
  storedBytes: number;
}

/** The tenants of the broker. */
export class Workspaces {
  readonly #caller: Caller;

  /** @internal */
  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** `WORKSPACE_EXISTS` when the id is taken. */
  async create(id: string, settings: WorkspaceSettings = {}, options: CallOptions = {}): Promise<Workspace> {
    const request = {
      workspaceId: id,
      settings: {
        defaultTtl: toOptionalDuration(settings.defaultTtlMs),
        retentionAge: toOptionalDuration(settings.retentionAgeMs),
        retentionBytes: BigInt(settings.retentionBytes ?? 0),
        maxHops: settings.maxHops ?? 0,
      },
    };
    const plan = { ...options, repeatable: false };
    return fromWire((await this.#caller.unary(WorkspaceService.method.createWorkspace, request, plan)).workspace);
  }

  /** One workspace. `UNKNOWN_WORKSPACE` when there is none. */
  async get(id: string, options: CallOptions = {}): Promise<Workspace> {
    const plan = { ...options, repeatable: true };
    const answer = await this.#caller.unary(WorkspaceService.method.getWorkspace, { workspaceId: id }, plan);
    return fromWire(answer.workspace);
  }

  /** All workspaces, by id. */
  async *list(options: CallOptions = {}): AsyncGenerator<Workspace, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(
        WorkspaceService.method.listWorkspaces,
        { pageSize: 1_000, pageToken },
        { ...options, repeatable: true },
      );
    for await (const workspace of pages(read, (page) => page.workspaces)) yield fromWire(workspace);
  }

  /** With its log, sandboxes and inboxes, at once and for good. */
  async delete(id: string, options: CallOptions = {}): Promise<void> {
    const plan = { ...options, repeatable: false };
    await this.#caller.unary(WorkspaceService.method.deleteWorkspace, { workspaceId: id }, plan);
  }
}

function fromWire(workspace: WireWorkspace | undefined): Workspace {
  const settings: WorkspaceSettings = {};
  const defaultTtlMs = fromDuration(workspace?.settings?.defaultTtl);
  const retentionAgeMs = fromDuration(workspace?.settings?.retentionAge);
  if (defaultTtlMs !== undefined) settings.defaultTtlMs = defaultTtlMs;
  if (retentionAgeMs !== undefined) settings.retentionAgeMs = retentionAgeMs;
  if (workspace?.settings?.retentionBytes) settings.retentionBytes = toNumber(workspace.settings.retentionBytes);
  if (workspace?.settings?.maxHops) settings.maxHops = workspace.settings.maxHops;
  return {
    id: workspace?.workspaceId ?? "",
    settings,
    lastSequence: toNumber(workspace?.lastSequence ?? 0n),
    firstSequence: toNumber(workspace?.firstSequence ?? 0n),
    sandboxCount: workspace?.sandboxCount ?? 0,
    shardId: workspace?.shardId ?? 0,
    storedBytes: toNumber(workspace?.storedBytes ?? 0n),
  };
}
