import type { RestWorkspaceFilter } from "./filter_shapes.js";
import { type ChangeOptions, type CreateOptions, part, type Rest, type RestOptions, type Tagged } from "./rest.js";
import type { RestWorkspace, RestWorkspaceSettings } from "./shapes.js";

/** A workspace that is wanted. */
export interface NewRestWorkspace {
  /** For people: 1 to 100 characters; no two workspaces have the same. */
  name: string;
  /** Letters, digits and `. _ : @ / -`, up to 128, beginning with a letter or a digit. Default: made up. */
  id?: string;
  /** For people: up to 2,000 characters. */
  description?: string;
  /** What is left out is as the broker has it for everybody. */
  settings?: RestWorkspaceSettings;
}

/** Workspaces: tenants, whose sandboxes talk to each other and to nobody else. */
export class RestWorkspaces {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** Fails with `WORKSPACE_EXISTS` or `NAME_TAKEN`. */
  create(workspace: NewRestWorkspace, options: CreateOptions = {}): Promise<RestWorkspace> {
    return this.#rest.json("POST", "/workspaces", { ...options, body: workspace });
  }

  /** With its tag, for a change that shall overwrite nobody else's. */
  async get(id: string, options?: RestOptions): Promise<Tagged<RestWorkspace>> {
    const { value, etag } = await this.#rest.tagged<RestWorkspace>("GET", `/workspaces/${part(id)}`, options);
    return { ...value, etag };
  }

  /** Page by page, when it is read. */
  list(filter: RestWorkspaceFilter = {}, options?: RestOptions): AsyncGenerator<RestWorkspace, void, undefined> {
    type Page = { workspaces: RestWorkspace[]; next_cursor?: string | null };
    return this.#rest.pages<Page, RestWorkspace>("/workspaces", { ...filter }, (page) => page.workspaces, options);
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

  /** Takes back that it is going to be deleted. */
  restore(id: string, options?: RestOptions): Promise<RestWorkspace> {
    return this.#rest.json("POST", `/workspaces/${part(id)}/restore`, options);
  }
}
