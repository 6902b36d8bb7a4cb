import { part, type Query, type Rest, type RestOptions } from "./rest.js";
import type { NewRestSandbox, RestSandbox } from "./shapes.js";
import { readEvents } from "./sse.js";

/** Sandboxes that the control plane runs in containers. */
export class RestSandboxes {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** Answered with the details of its connection. */
  create(sandbox: NewRestSandbox, options: RestOptions & { idempotencyKey?: string } = {}): Promise<RestSandbox> {
    return this.#rest.json("POST", "/sandboxes", { ...options, body: sandbox });
  }
  get(id: string, options?: RestOptions): Promise<RestSandbox> {
    return this.#rest.json("GET", path(id), options);
  }
  list(
    filter: Query & { workspace_id?: string } = {},
    options?: RestOptions,
  ): AsyncGenerator<RestSandbox, void, undefined> {
    type Page = { sandboxes: RestSandbox[]; next_cursor?: string | null };
    return this.#rest.pages<Page, RestSandbox>("/sandboxes", filter, (page) => page.sandboxes, options);
  }
  update(
    id: string,
    change: Partial<NewRestSandbox>,
    options: RestOptions & { ifMatch?: string } = {},
  ): Promise<RestSandbox> {
    return this.#rest.json("PATCH", path(id), { ...options, body: change });
  }
  delete(id: string, options: RestOptions & { ifMatch?: string } = {}): Promise<RestSandbox | undefined> {
    return this.#rest.json("DELETE", path(id), options);
  }

  getStatus(id: string, options?: RestOptions): Promise<Record<string, unknown>> {
    return this.#rest.json("GET", `${path(id)}/status`, options);
  }
  getStats(id: string, options?: RestOptions): Promise<Record<string, unknown>> {
    return this.#rest.json("GET", `${path(id)}/stats`, options);
  }
  /** What the container wrote. */
  getLogs(id: string, query: { tail?: number; since?: Date } = {}, options?: RestOptions): Promise<unknown> {
    return this.#rest.json("GET", `${path(id)}/logs`, { ...options, query });
  }
  /** The same as it is written, line by line, until the signal fires or the container ends. */
  async *followLogs(
    id: string,
    query: { tail?: number; since?: Date } = {},
    options: RestOptions = {},
  ): AsyncGenerator<string, void, undefined> {
    const headers = { accept: "text/event-stream" };
    const stream = await this.#rest.open(`${path(id)}/logs`, {
      ...options,
      headers,
      query: { ...query, follow: true },
    });
    for await (const event of readEvents(stream)) yield event.data;
  }

  start(id: string, options?: RestOptions): Promise<RestSandbox> {
    return this.#rest.json("POST", `${path(id)}/start`, options);
  }
  stop(id: string, options?: RestOptions): Promise<RestSandbox> {
    return this.#rest.json("POST", `${path(id)}/stop`, options);
  }
  restart(id: string, options?: RestOptions): Promise<RestSandbox> {
    return this.#rest.json("POST", `${path(id)}/restart`, options);
  }
  /** Runs a command in the container. */
  exec(id: string, command: string[], options?: RestOptions): Promise<Record<string, unknown>> {
    return this.#rest.json("POST", `${path(id)}/exec`, { ...options, body: { command } });
  }
}

function path(id: string): string {
  return `/sandboxes/${part(id)}`;
}
