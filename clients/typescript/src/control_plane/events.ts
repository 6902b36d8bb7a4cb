import { AInTandemError, ContractError } from "../errors.js";
import { DEFAULT_BACKOFF, pauseMs, sleep } from "../waiting.js";
import type { RestEventCursor, RestEventFilter } from "./filter_shapes.js";
import { type ProblemError, problemOf } from "./problem.js";
import type { Rest, RestOptions } from "./rest.js";
import type { RestEvent, RestEventPage } from "./shapes.js";
import { readEvents } from "./sse.js";

/** How often in a row a stream is opened again. With the waits in between this bridges almost a minute. */
const RESUME_ATTEMPTS = 60;

/** What happens in a workspace. */
export class RestEvents {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /** What has happened, from a cursor on: one page. Go on with `next_event`. */
  list(filter: RestEventFilter, options?: RestOptions): Promise<RestEventPage> {
    return this.#rest.json("GET", "/events", { ...options, query: { ...filter } });
  }

  /** What happens, from now on or from a cursor, over breaks without a gap, until the signal fires or the loop is left. */
  async *follow(filter: RestEventCursor, options: RestOptions = {}): AsyncGenerator<RestEvent, void, undefined> {
    let last: string | undefined;
    for (let attempt = 1; ; attempt++) {
      try {
        const headers = { accept: "text/event-stream", ...(last !== undefined && { "last-event-id": last }) };
        const call = { ...options, headers, query: { ...filter, follow: true } };
        for await (const event of readEvents(await this.#rest.open("/events", call))) {
          attempt = 1;
          if (event.event === "problem") throw problemIn(event.data);
          last = event.id ?? last;
          const told = read(event.data);
          if (told !== undefined) yield told;
        }
      } catch (thrown) {
        if (options.signal?.aborted) return;
        // A stream that breaks is a TypeError of fetch; what else is no error of ours is a bug.
        const lasting = thrown instanceof AInTandemError ? !thrown.retryable : !(thrown instanceof TypeError);
        if (lasting || attempt >= RESUME_ATTEMPTS) throw thrown;
      }
      await sleep(pauseMs(DEFAULT_BACKOFF, attempt), options.signal);
    }
  }
}

function problemIn(data: string): ProblemError {
  return problemOf(503, new Headers(), data);
}

/** Undefined: a word on where the stream begins, and no event. */
function read(data: string): RestEvent | undefined {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    throw new ContractError("an event is no JSON");
  }
  return typeof value === "object" && value !== null && "id" in value ? (value as RestEvent) : undefined;
}
