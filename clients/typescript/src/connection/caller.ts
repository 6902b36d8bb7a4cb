// Calls with their retries: what all clients of single services go through.

import type {
  DescMessage,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { type CallOptions as ConnectCallOptions, createClient, type Transport } from "@connectrpc/connect";
import { AbortedError, type AInTandemError, asError, ClosedError, TimeoutError } from "../errors.js";
import { RetryBudget } from "../retry_budget.js";
import { pauseMs, sleep } from "../waiting.js";
import type { CallOptions } from "./call_options.js";
import type { Node } from "./node.js";
import { LEADER_HEADER, Nodes } from "./nodes.js";
import { fromCall } from "./refusal.js";
import type { Settings } from "./settings.js";
import { isUnauthenticated, Token } from "./token.js";

interface CallPlan extends CallOptions {
  /** Whether a repeat does no harm. If not, only what never reached the broker is tried again. */
  repeatable: boolean;
  /** Go to the node that leads this workspace, and note who did. */
  workspaceId?: string;
  /** Longer for the last answer of the broker than it was told to wait itself. Default: `timeoutMs`. */
  deadlineMs?: number;
  /** Go on for as long as there is time, however many attempts that takes. */
  persistent?: boolean;
}

/** Beside UNAVAILABLE, what the broker refuses because of itself and not because of the request, and only for an instant. */
const BUSY = new Set(["OVERLOADED", "TOO_MANY_STREAMS", "TOO_MANY_CONNECTIONS"]);
/** Nothing was done, so that everything may be tried again. */
const NOT_DONE = new Set(["UNREACHABLE", "NOT_LEADER", "OVERLOADED", "TOO_MANY_STREAMS", "TOO_MANY_CONNECTIONS"]);
/** Of a node that is gone, or goes. */
const NODE_FAILED = new Set(["UNREACHABLE", "CONNECTION_LOST", "SHUTTING_DOWN", "NODE_STOPPED"]);

/** Whether the same request may succeed soon, elsewhere or later. */
export function isTransient(error: AInTandemError): boolean {
  if (BUSY.has(error.code) || error.code === "UNREACHABLE" || error.code === "CONNECTION_LOST") return true;
  return error.retryable && "grpcCode" in error && error.grpcCode === "UNAVAILABLE";
}

type Stub = (request: unknown, options: ConnectCallOptions) => unknown;

export class Caller {
  readonly settings: Settings;
  readonly nodes: Nodes;
  readonly token: Token;
  readonly #budget: RetryBudget;
  readonly #stubs = new WeakMap<Transport, Map<string, Record<string, Stub>>>();
  #closed = false;

  constructor(settings: Settings) {
    this.settings = settings;
    this.nodes = new Nodes(settings);
    this.token = new Token(settings.token);
    this.#budget = new RetryBudget(settings.retryBudget);
  }

  close(): void {
    this.#closed = true;
    this.nodes.close();
  }

  /** Headers of the next call. */
  headers(): Record<string, string> {
    const token = this.token.current();
    return token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  /** Calls, and tries again what may be tried again, within time, attempts and budget. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    plan: CallPlan,
  ): Promise<MessageShape<O>> {
    const timeoutMs = plan.timeoutMs ?? this.settings.requestTimeoutMs;
    const endMs = performance.now() + timeoutMs;
    let last: AInTandemError | undefined;
    for (let attempt = 1; ; attempt++) {
      if (this.#closed) throw new ClosedError("client");
      if (plan.signal?.aborted) throw new AbortedError(method.name, { cause: plan.signal.reason });
      const leftMs = (plan.deadlineMs ?? timeoutMs) - timeoutMs + endMs - performance.now();
      if (leftMs <= 0) throw new TimeoutError(method.name, timeoutMs, { cause: last });
      const node = plan.workspaceId === undefined ? this.nodes.any() : this.nodes.leading(plan.workspaceId);
      const used = this.token.current();
      try {
        const answer = await this.#once(node, method, request, plan, leftMs);
        this.#budget.succeeded();
        return answer;
      } catch (thrown) {
        const error = this.failure(thrown, node, timeoutMs);
        if (plan.signal?.aborted)
          throw new AbortedError(method.name, { cause: plan.signal.reason, outcomeUnknown: true });
        last = error;
        const renewed = isUnauthenticated(error) && this.token.hasChangedSince(used);
        const again = renewed || (isTransient(error) && (plan.repeatable || NOT_DONE.has(error.code)));
        const spent = !plan.persistent && attempt >= this.settings.attempts;
        if (!again || spent || !this.#budget.take()) throw error;
        const waitMs = pauseMs(this.settings.backoff, attempt, error.retryAfterMs);
        if (performance.now() + waitMs >= endMs) throw error;
        this.settings.logger.debug(`${method.name} is tried again`, { attempt, waitMs, error: error.message });
        await sleep(waitMs, plan.signal);
      }
    }
  }

  /**
   * A stream has ended with this error. Where the broker does not take its token: whether there is another one in the token's file.
   * Waits for that where the token was taken before; one that never was is told at once.
   */
  async hasNewToken(
    error: AInTandemError,
    used: string | undefined,
    wasTaken: boolean,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (!isUnauthenticated(error) || !this.token.isRenewable) return false;
    if (this.token.hasChangedSince(used)) return true;
    if (!wasTaken) return false;
    this.settings.logger.warn("the token does not hold any more; another one is waited for in its file", {
      code: error.code,
      text: error.message,
    });
    return this.token.another(used, signal);
  }

  /** One call that is answered with a stream. Not tried again: whoever reads it knows where to go on. */
  async *serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    signal?: AbortSignal,
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    const node = this.nodes.any();
    try {
      const options = { headers: this.headers(), ...(signal && { signal }) };
      yield* this.#stub(node.transport, method)(request, options) as AsyncIterable<MessageShape<O>>;
    } catch (thrown) {
      if (signal?.aborted) throw new AbortedError(method.name, { cause: signal.reason });
      throw this.failure(thrown, node);
    }
  }

  /** Runs what is safe to run again, until it comes through or attempts and budget are used up. */
  async repeated<T>(name: string, run: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        const result = await run();
        this.#budget.succeeded();
        return result;
      } catch (thrown) {
        const error = asError(thrown);
        if (!isTransient(error) || attempt >= this.settings.attempts || !this.#budget.take()) throw error;
        const waitMs = pauseMs(this.settings.backoff, attempt, error.retryAfterMs);
        this.settings.logger.debug(`${name} is tried again`, { attempt, waitMs, error: error.message });
        await sleep(waitMs, signal);
      }
    }
  }

  /** Opens a stream in both directions. Errors of the iteration are not translated: pass them to `failure`. */
  bidi<I extends DescMessage, O extends DescMessage>(
    node: Node,
    method: DescMethodBiDiStreaming<I, O>,
    requests: AsyncIterable<MessageInitShape<I>>,
    options: { signal: AbortSignal; onHeader: (headers: Headers) => void },
  ): AsyncIterable<MessageShape<O>> {
    const stub = this.#stub(node.transport, method);
    return stub(requests, { ...options, headers: this.headers() }) as AsyncIterable<MessageShape<O>>;
  }

  /** What a call threw, as an error of this package; takes note of a node that failed. */
  failure(thrown: unknown, node: Node, timeoutMs?: number): AInTandemError {
    const error = this.#closed ? new ClosedError("client") : fromCall(thrown, node.url.host, timeoutMs);
    if (NODE_FAILED.has(error.code)) this.nodes.failed(node);
    return error;
  }

  async #once<I extends DescMessage, O extends DescMessage>(
    node: Node,
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    plan: CallPlan,
    leftMs: number,
  ): Promise<MessageShape<O>> {
    const options: ConnectCallOptions = { headers: this.headers(), timeoutMs: Math.max(1, Math.ceil(leftMs)) };
    if (plan.signal !== undefined) options.signal = plan.signal;
    const { workspaceId } = plan;
    if (workspaceId !== undefined) {
      options.onHeader = (headers) => this.nodes.note(workspaceId, headers.get(LEADER_HEADER));
    }
    return (await this.#stub(node.transport, method)(request, options)) as MessageShape<O>;
  }

  #stub(transport: Transport, method: { parent: DescService; localName: string }): Stub {
    let services = this.#stubs.get(transport);
    if (services === undefined) {
      services = new Map();
      this.#stubs.set(transport, services);
    }
    let service = services.get(method.parent.typeName);
    if (service === undefined) {
      service = createClient(method.parent, transport) as unknown as Record<string, Stub>;
      services.set(method.parent.typeName, service);
    }
    const stub = service[method.localName];
    if (stub === undefined) throw asError(new Error(`no method ${method.localName}`));
    return stub;
  }
}
