import assert from "node:assert/strict";
import { test } from "node:test";
import { Registration } from "../../src/agent/registration.js";
import { agentSettingsOf } from "../../src/agent/settings.js";
import type { Client } from "../../src/client.js";
import { AInTandemError, ConnectionLostError, RefusedError } from "../../src/errors.js";
import type { Logger } from "../../src/logger.js";

const gone = () => new RefusedError("UNKNOWN_SANDBOX", "gone", "NOT_FOUND");

/** A registration of which is said how its calls end, in their order; what is not said goes well. */
function stage() {
  const made: string[] = [];
  const ends: (AInTandemError | undefined)[] = [];
  const warned: string[] = [];
  const call = async (name: string) => {
    made.push(name);
    const error = ends.shift();
    if (error !== undefined) throw error;
    return { created: true, sandbox: { pendingMessages: 0 } };
  };
  const client = {
    registry: { register: () => call("register") },
    topics: { follow: (_: string, pattern: string) => call(pattern) },
  };
  const logger: Logger = { debug: () => {}, info: () => {}, warn: (text) => warned.push(text), error: () => {} };
  const stopping = new AbortController();
  const settings = agentSettingsOf({ sandboxId: "worker", logger });
  const registration = new Registration(settings, client as unknown as Client, stopping.signal);
  return { registration, stopping, made, ends, warned };
}

test("what is followed comes back, also where that takes several tries", async () => {
  const { registration, made, ends, warned } = stage();
  for (const pattern of ["a", "b", "c"]) registration.follows(pattern);
  registration.unfollows("c");
  ends.push(undefined, new ConnectionLostError("n1", "broken"), undefined, undefined, gone());
  // The inbox and the heartbeat ask for it at the same time.
  await Promise.all([registration.registerAgain(), registration.registerAgain()]);
  assert.deepEqual(made, ["register", "a", "register", "a", "b", "register", "a", "b"]);
  assert.deepEqual(warned, ["the sandbox was unregistered; it is registered again"]);
  assert.equal(registration.isComplete, true);
});

test("a refusal that no retry helps against is told, and what is missing is known", async () => {
  const { registration, made, ends, warned } = stage();
  registration.follows("a");
  ends.push(undefined, new RefusedError("KEY_REVOKED", "revoked", "UNAUTHENTICATED"));
  await assert.rejects(registration.registerAgain(), { code: "KEY_REVOKED" });
  assert.deepEqual([registration.isComplete, warned], [false, []]);
  await registration.registerAgain();
  assert.deepEqual([registration.isComplete, made], [true, ["register", "a", "register", "a"]]);
});

test("it ends with the agent", async () => {
  const { registration, stopping, ends } = stage();
  ends.push(new AInTandemError("OVERLOADED", "busy", { retryable: true, retryAfterMs: 60_000 }));
  const returning = registration.registerAgain();
  stopping.abort();
  await assert.rejects(returning, { code: "ABORTED" });
});
