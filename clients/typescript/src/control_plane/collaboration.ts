import type {
  RestCollaborationStatus,
  RestConnectedSandbox,
  RestConnectedSandboxFilter,
  RestDisconnectedSandbox,
  RestDisconnection,
} from "./collaboration_shapes.js";
import type { Listed } from "./resources.js";
import type { Rest, RestOptions } from "./rest.js";

/** Who takes part in a workspace, what waits for whom, and ending that a sandbox does. */
export class RestCollaboration {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** How it stands in a workspace: who is there, and how much waits. Fails with `UNKNOWN_WORKSPACE`. */
  status(workspaceId: string, options?: RestOptions): Promise<RestCollaborationStatus> {
    return this.#rest.json("GET", "/collaboration/status", { ...options, query: { workspace_id: workspaceId } });
  }

  /** The sandboxes that are registered with the broker, by id, with what waits for each. Fails with `UNKNOWN_WORKSPACE`. */
  async sandboxes(filter: RestConnectedSandboxFilter, options?: RestOptions): Promise<Listed<RestConnectedSandbox>> {
    type Page = { sandboxes: RestConnectedSandbox[]; truncated: boolean };
    const call = { ...options, query: { ...filter } };
    const page = await this.#rest.json<Page>("GET", "/collaboration/sandboxes", call);
    return { items: page.sandboxes, truncated: page.truncated };
  }

  /**
   * Ends what connects a sandbox with the broker: revokes the API keys and the tokens that are bound to it, up to 1,000 of each, whose
   * streams end within a second. Its container goes on, and so does whoever acts for it with a key or a token that is not bound to it.
   *
   * It takes the role `admin`. Fails with `UNKNOWN_SANDBOX` where there is neither a sandbox of this name nor anything bound to one. A
   * call that broke off may be made again: it goes on where the one before ended.
   */
  disconnect(disconnection: RestDisconnection, options?: RestOptions): Promise<RestDisconnectedSandbox> {
    return this.#rest.json("POST", "/collaboration/disconnect", { ...options, body: disconnection });
  }
}
