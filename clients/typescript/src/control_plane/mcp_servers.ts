import type { NewRestMcpServer, RestMcpServer, RestMcpServerChange } from "./provider_shapes.js";
import { type ChangeOptions, type CreateOptions, part, type Rest, type RestOptions, type Tagged } from "./rest.js";
import type { RestFilterWithin } from "./shapes.js";

/**
 * Tools for the agents of a workspace (Model Context Protocol); up to 100 in a workspace. Secrets are kept sealed, and never shown.
 * Sandboxes that run keep what they were given. Fails with `UNKNOWN_MCP_SERVER` where there is none of an id.
 */
export class RestMcpServers {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /**
   * Sets a server up. Fails with `INVALID_FIELD`, `UNKNOWN_WORKSPACE`, `NAME_TAKEN`, `TOO_MANY_RESOURCES`, and with a secret with
   * `SECRETS_NOT_CONFIGURED`.
   */
  create(server: NewRestMcpServer, options: CreateOptions = {}): Promise<RestMcpServer> {
    return this.#rest.json("POST", "/mcp-servers", { ...options, body: server });
  }

  /** With its tag, for a change that shall overwrite nobody else's. */
  async get(id: string, options?: RestOptions): Promise<Tagged<RestMcpServer>> {
    const { value, etag } = await this.#rest.tagged<RestMcpServer>("GET", path(id), options);
    return { ...value, etag };
  }

  /** Page by page, when it is read. */
  list(filter: RestFilterWithin = {}, options?: RestOptions): AsyncGenerator<RestMcpServer, void, undefined> {
    type Page = { mcp_servers: RestMcpServer[]; next_cursor?: string | null };
    return this.#rest.pages<Page, RestMcpServer>("/mcp-servers", { ...filter }, (page) => page.mcp_servers, options);
  }

  /** Changes what is named; with `ifMatch`, the `etag` of what was read, only that. Fails as `create` does, and with `REVISION_CHANGED`. */
  update(id: string, change: RestMcpServerChange, options: ChangeOptions = {}): Promise<RestMcpServer> {
    return this.#rest.json("PATCH", path(id), { ...options, body: change });
  }

  /** Sandboxes that name it do not start any more: `UNKNOWN_MCP_SERVER`. */
  delete(id: string, options: ChangeOptions = {}): Promise<void> {
    return this.#rest.json("DELETE", path(id), options);
  }
}

function path(id: string): string {
  return `/mcp-servers/${part(id)}`;
}
