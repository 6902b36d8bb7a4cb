// Plays a scenario, step by step.

import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { AInTandemError } from "@aintandem/sdk";
import type { Deployment } from "../brokers/deployment.js";
import { mismatch } from "./expectation.js";
import { INBOX_VERBS } from "./inbox_verbs.js";
import { type Arguments, type Scenario, type Step, scenarios } from "./scenario.js";
import { Stage } from "./stage.js";
import { WORKSPACE_VERBS } from "./workspace_verbs.js";

const VERBS = { ...INBOX_VERBS, ...WORKSPACE_VERBS };
/** Asked again until they fit. */
const POLLED = new Set(["inbox", "dead_letters"]);
const POLL_MS = 50;

/** Declares a test for each scenario; those that need what is not there are skipped, and said to be. */
export function playAll(
  title: string,
  has: string[],
  only: (scenario: Scenario) => boolean,
  get: () => Deployment,
): void {
  for (const scenario of scenarios().filter(only)) {
    const lacking = scenario.needs.filter((need) => !has.includes(need));
    const skip = lacking.length > 0 ? `needs ${lacking.join(", ")}` : false;
    const options = { skip, timeout: scenario.timeoutMs + 60_000 };
    test(`${title}: ${scenario.name}`, options, (context) => play(context, scenario, get()));
  }
}

async function play(context: TestContext, scenario: Scenario, deployment: Deployment): Promise<void> {
  const stage = new Stage(deployment, scenario.name);
  await stage.setUp(scenario.needs.includes("cut"));
  const timer = AbortSignal.timeout(scenario.timeoutMs);
  const saved: Arguments = {};
  try {
    for (const [at, step] of scenario.steps.entries()) {
      timer.throwIfAborted();
      const where = `step ${at + 1}, ${step.verb} ${JSON.stringify(step.args)}`;
      try {
        await playStep(stage, step, saved);
      } catch (error) {
        throw new Error(`${where}: ${error instanceof Error ? error.message : error}`, { cause: error });
      }
    }
  } finally {
    await stage.tearDown();
  }
  context.diagnostic(`${scenario.steps.length} steps`);
}

async function playStep(stage: Stage, step: Step, saved: Arguments): Promise<void> {
  const verb = VERBS[step.verb];
  if (verb === undefined) throw new Error("no such verb");
  const args = filledIn(step.args, saved) as Arguments;
  const expect = filledIn(step.expect, saved) as Arguments | undefined;
  const endMs = performance.now() + Number(args["within_ms"] ?? 10_000);
  for (;;) {
    let result: Arguments;
    try {
      result = await verb(stage, args, step.client);
    } catch (error) {
      checkError(step, error);
      return;
    }
    if (step.error !== undefined)
      throw new Error(`should fail with ${step.error.code}, came to ${JSON.stringify(result)}`);
    const wrong = mismatch(result, expect ?? {});
    if (wrong !== undefined) {
      if (!POLLED.has(step.verb) || performance.now() > endMs) throw new Error(wrong);
      await delay(POLL_MS);
      continue;
    }
    for (const [name, field] of Object.entries(step.save)) saved[name] = result[field];
    return;
  }
}

function checkError(step: Step, thrown: unknown): void {
  if (step.error === undefined || !(thrown instanceof AInTandemError)) throw thrown;
  const { code, retryable, retry_after: retryAfter } = step.error;
  const actual = { code: thrown.code, retryable: thrown.retryable, retry_after: thrown.retryAfterMs !== undefined };
  const expected = {
    ...(code === undefined ? {} : { code }),
    ...(retryable === undefined ? {} : { retryable }),
    ...(retryAfter === undefined ? {} : { retry_after: retryAfter }),
  };
  const wrong = mismatch(actual, expected, "the error");
  if (wrong !== undefined) throw new Error(`${wrong}: ${thrown.message}`, { cause: thrown });
}

/** `$name` as a whole value is what was saved. */
function filledIn(value: unknown, saved: Arguments): unknown {
  if (typeof value === "string" && value.startsWith("$")) return saved[value.slice(1)];
  if (Array.isArray(value)) return value.map((element) => filledIn(element, saved));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, filledIn(inner, saved)]));
}
