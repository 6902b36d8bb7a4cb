import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { Outgoing } from "../../src/connection/outgoing.js";
import { fromCall } from "../../src/connection/refusal.js";
import { RetryBudget } from "../../src/retry_budget.js";
import { DEFAULT_BACKOFF, pauseMs, sleep } from "../../src/waiting.js";

test("pauses double to a limit, are spread, and are no shorter than asked for", () => {
  const middle = (attempt: number, asked?: number) => Math.round(pauseMs(DEFAULT_BACKOFF, attempt, asked, () => 0.5));
  assert.deepEqual(
    [1, 2, 3, 40].map((attempt) => middle(attempt)),
    [20, 40, 80, 1_000],
  );
  assert.deepEqual(
    [1, 2, 3].map((attempt) => middle(attempt, 50)),
    [50, 50, 80],
  );
  assert.equal(middle(9, 0), 0);
  assert.deepEqual(
    [0, 1].map((random) => Math.round(pauseMs(DEFAULT_BACKOFF, 1, undefined, () => random))),
    [16, 24],
  );
});

/** How many retries there are at this moment. */
function taken(budget: RetryBudget, nowMs: number): number {
  let count = 0;
  while (budget.take(nowMs)) count += 1;
  return count;
}

test("a budget runs out, and fills again with time and with successes, to its size and no further", () => {
  const budget = new RetryBudget({ size: 2, perSecond: 1, perSuccess: 0.5 }, 0);
  assert.equal(taken(budget, 0), 2);
  assert.equal(taken(budget, 1_000), 1);
  assert.equal(taken(budget, 60_000), 2);
  budget.succeeded();
  assert.equal(taken(budget, 60_000), 0, "half a retry is none");
  budget.succeeded();
  assert.equal(taken(budget, 60_000), 1);
  for (let n = 0; n < 100; n++) budget.succeeded();
  assert.equal(taken(budget, 60_000), 2);
});

test("a budget outlasts what hundreds of calls need at once, and gives little to a broker that stays away", () => {
  const budget = new RetryBudget({}, 0);
  assert.equal(taken(budget, 0), 1_000);
  assert.equal(taken(budget, 1_000), 10);
  for (let n = 0; n < 102; n++) budget.succeeded();
  assert.equal(taken(budget, 1_000), 20, "a fifth for each");
});

test("a sleep ends with its signal", async () => {
  const abort = new AbortController();
  const slept = sleep(60_000, abort.signal);
  abort.abort("enough");
  await assert.rejects(slept, { code: "ABORTED" });
  await assert.rejects(sleep(60_000, abort.signal), { code: "ABORTED" });
});

test("requests of a stream come in order, also those pushed while it is read", async () => {
  const outgoing = new Outgoing<number>();
  outgoing.push(1);
  outgoing.push(2);
  const seen: number[] = [];
  setTimeout(() => {
    outgoing.push(4);
    outgoing.end();
    outgoing.push(5);
  }, 5);
  for await (const value of outgoing) {
    seen.push(value);
    if (value === 2) outgoing.push(3);
  }
  assert.deepEqual(seen, [1, 2, 3, 4]);
});

test("what a call throws says whether anything was sent", () => {
  const system = (code: string) => Object.assign(new Error(`connect ${code}`), { code });
  const cases = [
    [new ConnectError("x", Code.Unavailable, undefined, undefined, system("ECONNREFUSED")), "UNREACHABLE", true, false],
    [
      new ConnectError("x", Code.Unavailable, undefined, undefined, system("ECONNRESET")),
      "CONNECTION_LOST",
      true,
      true,
    ],
    [new ConnectError("x", Code.Internal), "CONNECTION_LOST", true, true],
    [new ConnectError("x", Code.DeadlineExceeded), "TIMEOUT", true, true],
    [new ConnectError("x", Code.Unimplemented), "UNIMPLEMENTED", false, false],
  ] as const;
  for (const [thrown, code, retryable, outcomeUnknown] of cases) {
    const error = fromCall(thrown, "node:1");
    assert.deepEqual([error.code, error.retryable, error.outcomeUnknown], [code, retryable, outcomeUnknown]);
  }
});
