import type { NewRestLlmProvider, RestLlmProvider, RestLlmProviderChange } from "./provider_shapes.js";
import { type ChangeOptions, type CreateOptions, part, type Rest, type RestOptions, type Tagged } from "./rest.js";
import type { RestFilterWithin } from "./shapes.js";

/**
 * Where the agents of a workspace reach language models; up to 50 in a workspace. Keys are kept sealed, and never shown. Sandboxes that
 * run keep what they were given. Fails with `UNKNOWN_LLM_PROVIDER` where there is none of an id.
 */
export class RestLlmProviders {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /**
   * Sets a provider up. Fails with `INVALID_FIELD`, `UNKNOWN_WORKSPACE`, `NAME_TAKEN`, `TOO_MANY_RESOURCES`, and with a secret with
   * `SECRETS_NOT_CONFIGURED`.
   */
  create(provider: NewRestLlmProvider, options: CreateOptions = {}): Promise<RestLlmProvider> {
    return this.#rest.json("POST", "/llm-providers", { ...options, body: provider });
  }

  /** With its tag, for a change that shall overwrite nobody else's. */
  async get(id: string, options?: RestOptions): Promise<Tagged<RestLlmProvider>> {
    const { value, etag } = await this.#rest.tagged<RestLlmProvider>("GET", path(id), options);
    return { ...value, etag };
  }

  /** Page by page, when it is read. */
  list(filter: RestFilterWithin = {}, options?: RestOptions): AsyncGenerator<RestLlmProvider, void, undefined> {
    type Page = { llm_providers: RestLlmProvider[]; next_cursor?: string | null };
    const items = (page: Page) => page.llm_providers;
    return this.#rest.pages<Page, RestLlmProvider>("/llm-providers", { ...filter }, items, options);
  }

  /**
   * Changes what is named; with `ifMatch`, the `etag` of what was read, only that. Fails as `create` does, with `REVISION_CHANGED`, and
   * with `LLM_PROVIDER_IS_DEFAULT` when the default of its workspace shall have another name.
   */
  update(id: string, change: RestLlmProviderChange, options: ChangeOptions = {}): Promise<RestLlmProvider> {
    return this.#rest.json("PATCH", path(id), { ...options, body: change });
  }

  /** The default of its workspace goes with `unsetDefault` alone, and the workspace has none then: else `LLM_PROVIDER_IS_DEFAULT`. */
  delete(id: string, options: ChangeOptions & { unsetDefault?: boolean } = {}): Promise<void> {
    const { unsetDefault, ...rest } = options;
    return this.#rest.json("DELETE", path(id), { ...rest, query: { unset_default: unsetDefault } });
  }
}

function path(id: string): string {
  return `/llm-providers/${part(id)}`;
}
