import { part, type Rest, type RestOptions } from "./rest.js";
import type { RestWorkspace, RestWorkspaceSettings } from "./shapes.js";

export interface NewRestWorkspace {
  name: string;
  /** Default: made up. */
  id?: string;
  description?: string;
  settings?: RestWorkspaceSettings;
}

/** A change can name the revision it is about: `REVISION_CHANGED` when there is a later one. */
export interface ChangeOptions extends RestOptions {
  /** The `etag` of what was read. */
  ifMatch?: string;
}

export class RestWorkspaces {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  create(workspace: NewRestWorkspace, options: RestOptions & { idempotencyKey?: string } = {}): Promise<RestWorkspace> {
    return this.#rest.json("POST", "/workspaces", { ...options, body: workspace });
  }

  /** With its tag, for a change that shall overwrite nobody else's. */
  async get(id: string, options?: RestOptions): Promise<RestWorkspace & { etag: string | undefined }> {
    const { value, etag } = await this.#rest.tagged<RestWorkspace>("GET", `/workspaces/${part(id)}`, options);
    return { ...value, etag };
  }

  /** Page by page, when it is read. `sort`: `name`, `create_time` or `update_time`, with `-` the other way. */
  list(
    filter: { limit?: number; sort?: string; state?: string; name_prefix?: string } = {},
    options?: RestOptions,
  ): AsyncGenerator<RestWorkspace, void, undefined> {
    type Page = { workspaces: RestWorkspace[]; next_cursor?: string | null };
    return this.#rest.pages<Page, RestWorkspace>("/workspaces", filter, (page) => page.workspaces, options);
  }

  /** Changes what is named. */
  update(
    id: string,
    change: { name?: string; description?: string; settings?: RestWorkspaceSettings },
    options: ChangeOptions = {},
  ): Promise<RestWorkspace> {
    return this.#rest.json("PATCH", `/workspaces/${part(id)}`, { ...options, body: change });
  }

  /** Replaces everything; what is not named goes back to its default. */
  replace(
    id: string,
    workspace: { name: string; description?: string; settings?: RestWorkspaceSettings },
    options: ChangeOptions = {},
  ): Promise<RestWorkspace> {
    return this.#rest.json("PUT", `/workspaces/${part(id)}`, { ...options, body: workspace });
  }

  /** After a week, during which it can be restored; with `force` at once. Undefined when it is gone already. */
  delete(id: string, options: ChangeOptions & { force?: boolean } = {}): Promise<RestWorkspace | undefined> {
    const { force, ...rest } = options;
    return this.#rest.json("DELETE", `/workspaces/${part(id)}`, { ...rest, query: { force } });
  }

  restore(id: string, options?: RestOptions): Promise<RestWorkspace> {
    return this.#rest.json("POST", `/workspaces/${part(id)}/restore`, options);
  }
}
