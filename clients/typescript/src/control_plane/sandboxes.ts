import type { RestSandboxFilter } from "./filter_shapes.js";
import { type ProblemError, problemOf } from "./problem.js";
import { type ChangeOptions, type CreateOptions, part, type Rest, type RestOptions, type Tagged } from "./rest.js";
import type {
  NewRestSandbox,
  RestExecResult,
  RestLogLine,
  RestSandbox,
  RestSandboxChange,
  RestSandboxStats,
  RestSandboxStatus,
} from "./sandbox_shapes.js";
import { readEvents } from "./sse.js";

/** Which lines of a log. */
export interface LogFilter {
  /** The last ones: 1 to 10,000. Default: 100. */
  tail?: number;
  /** From this time on. */
  since?: Date;
}

/** Sandboxes that the control plane runs in containers. */
export class RestSandboxes {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /**
   * Creates a sandbox and starts it; answered with the details of its connection, perhaps before the broker has heard of it. What does
   * not come up is gone again: `SANDBOX_ENDED`, `SANDBOX_REFUSED`, `UNKNOWN_IMAGE` or `UNKNOWN_HOST` say why.
   */
  create(sandbox: NewRestSandbox, options: CreateOptions = {}): Promise<RestSandbox> {
    return this.#rest.json("POST", "/sandboxes", { ...options, body: sandbox });
  }
  /** With its tag, for a change that shall overwrite nobody else's. */
  async get(id: string, options?: RestOptions): Promise<Tagged<RestSandbox>> {
    const { value, etag } = await this.#rest.tagged<RestSandbox>("GET", path(id), options);
    return { ...value, etag };
  }
  /** Page by page, when it is read. */
  list(filter: RestSandboxFilter = {}, options?: RestOptions): AsyncGenerator<RestSandbox, void, undefined> {
    type Page = { sandboxes: RestSandbox[]; next_cursor?: string | null };
    return this.#rest.pages<Page, RestSandbox>("/sandboxes", { ...filter }, (page) => page.sandboxes, options);
  }
  /**
   * Changes what is named, from the next start on; null goes back to the default. With `ifMatch`, the `etag` of what was read, only
   * that. Fails with `REVISION_CHANGED`, and with `BUSY` while something else is being done with it.
   */
  update(id: string, change: RestSandboxChange, options: ChangeOptions = {}): Promise<RestSandbox> {
    return this.#rest.json("PATCH", path(id), { ...options, body: change });
  }
  /** With its data and its inbox. Undefined when it is gone already. */
  delete(id: string, options: ChangeOptions = {}): Promise<RestSandbox | undefined> {
    return this.#rest.json("DELETE", path(id), options);
  }

  /** What it does, and what has become of it. */
  getStatus(id: string, options?: RestOptions): Promise<RestSandboxStatus> {
    return this.#rest.json("GET", `${path(id)}/status`, options);
  }
  /** What it takes. Fails with `SANDBOX_NOT_RUNNING`. */
  getStats(id: string, options?: RestOptions): Promise<RestSandboxStats> {
    return this.#rest.json("GET", `${path(id)}/stats`, options);
  }
  /** What it has printed; the newest 10 MiB are kept. */
  async getLogs(id: string, filter: LogFilter = {}, options?: RestOptions): Promise<RestLogLine[]> {
    type Lines = { lines: RestLogLine[] };
    const { lines } = await this.#rest.json<Lines>("GET", `${path(id)}/logs`, { ...options, query: { ...filter } });
    return lines;
  }
  /** The same as it is printed, until the sandbox ends or the loop is left. Fails with the problem that broke it off. */
  async *followLogs(
    id: string,
    filter: LogFilter = {},
    options: RestOptions = {},
  ): AsyncGenerator<RestLogLine, void, undefined> {
    const headers = { accept: "text/event-stream" };
    const query = { ...filter, follow: true };
    for await (const { event, data } of readEvents(
      await this.#rest.open(`${path(id)}/logs`, { ...options, headers, query }),
    )) {
      if (event === "problem") throw broken(data);
      yield JSON.parse(data) as RestLogLine;
    }
  }

  /** One that runs is left alone. */
  start(id: string, options?: RestOptions): Promise<RestSandbox> {
    return this.#rest.json("POST", `${path(id)}/start`, options);
  }
  /** Messages wait in its inbox meanwhile. One that is stopped is left alone. */
  stop(id: string, options?: RestOptions): Promise<RestSandbox> {
    return this.#rest.json("POST", `${path(id)}/stop`, options);
  }
  /** Stops it and starts it. */
  restart(id: string, options?: RestOptions): Promise<RestSandbox> {
    return this.#rest.json("POST", `${path(id)}/restart`, options);
  }
  /**
   * Runs a command in it, of 1 to 256 words, and waits for its end: 1 to 25 seconds (10), then it runs on. `environment` comes beside
   * the variables of the sandbox. Fails with `SANDBOX_NOT_RUNNING`, or with `SANDBOX_FULL` when it is at its limit of
   * processes or of memory.
   */
  exec(
    id: string,
    command: string[],
    options: RestOptions & { environment?: Record<string, string>; timeoutSeconds?: number } = {},
  ): Promise<RestExecResult> {
    const { environment, timeoutSeconds, ...rest } = options;
    const body = { command, environment, timeout_seconds: timeoutSeconds };
    return this.#rest.json("POST", `${path(id)}/exec`, { ...rest, body });
  }
}

function path(id: string): string {
  return `/sandboxes/${part(id)}`;
}

function broken(data: string): ProblemError {
  return problemOf(503, new Headers(), data);
}
