// Agents whose sandbox an operator disconnects: their keys and tokens are revoked under them.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import {
  type AInTandemError,
  Client,
  ContainerAgent,
  ControlPlane,
  type Logger,
  type RestDisconnection,
  silentLogger,
} from "@aintandem/sdk";
import { TANDEM } from "../brokers/binary.js";
import { closedNode, type Deployment, oneNode } from "../brokers/deployment.js";

const workspace_id = "default";
/** A stream ends within a second; the rest is for a machine that is busy. */
const SOON_MS = 5_000;

let deployment: Deployment;
let folder: string;
let adminToken: string;
let admin: Client;
let plane: ControlPlane;
before(async () => {
  deployment = await closedNode({ controlPlane: true });
  folder = mkdtempSync(join(tmpdir(), "aintandem-disconnected-"));
  adminToken = signed("root", "admin");
  writeFileSync(join(folder, "admin"), adminToken);
  admin = new Client({ endpoints: deployment.endpoints, token: adminToken, logger: silentLogger });
  plane = new ControlPlane({ url: deployment.rest ?? "", token: adminToken, logger: silentLogger });
  await admin.registry.register({ sandbox: "root" });
});
after(async () => {
  await admin.close();
  await deployment.stop();
  rmSync(folder, { recursive: true });
});

function signed(sub: string, role: string): string {
  assert.ok(deployment.sign);
  return deployment.sign({ sub, roles: [role], exp: Math.ceil(Date.now() / 1000) + 600 });
}

/** An API key that is bound to a sandbox. */
async function keyOf(sandbox_id: string): Promise<string> {
  return (await plane.apiKeys.create({ subject: sandbox_id, roles: ["sandbox"], workspace_id, sandbox_id })).secret;
}

/** A token of the broker's own that is bound to a sandbox. */
async function tokenOf(sandbox: string): Promise<string> {
  const who = ["--subject", sandbox, "--role", "sandbox", "--bind-workspace", workspace_id, "--bind-sandbox", sandbox];
  const where = ["--server", deployment.endpoints[0] ?? "", "--token-file", join(folder, "admin")];
  return (await promisify(execFile)(TANDEM, [...where, "token", "issue", ...who])).stdout.trim();
}

function agentOf(sandboxId: string, token: string | { file: string }, more: object = {}): ContainerAgent {
  return new ContainerAgent({ sandboxId, broker: deployment.endpoints, token, logger: silentLogger, ...more });
}

function disconnect(sandbox_id: string, more: Partial<RestDisconnection> = {}) {
  return plane.collaboration.disconnect({ workspace_id, sandbox_id, reason: "it runs wild", ...more });
}

/** What a promise fails with, in time. */
async function failureOf(what: Promise<unknown>, withinMs = SOON_MS): Promise<AInTandemError> {
  const late = new AbortController();
  const outcome = await Promise.race([
    what.then(
      (value) => `it succeeded with ${String(value)}`,
      (error: AInTandemError) => error,
    ),
    delay(withinMs, `nothing within ${withinMs} ms`, { signal: late.signal }),
  ]);
  late.abort();
  if (typeof outcome === "string") assert.fail(outcome);
  return outcome;
}

async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const endMs = performance.now() + 20_000;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`it never came to: ${what}`);
    await delay(20);
  }
}

/** Keeps what is said, as `level: text`. */
function listener(said: string[]): Logger {
  const hear = (level: string) => (text: string) => {
    said.push(`${level}: ${text}`);
  };
  return { debug: () => {}, info: hear("info"), warn: hear("warn"), error: hear("error") };
}

test("an agent that is disconnected ends and says why; its inbox waits for one with another key", {
  timeout: 60_000,
}, async () => {
  const key = await keyOf("worker");
  const said: string[] = [];
  const agent = agentOf("worker", key, { logger: listener(said) });
  const seen: unknown[] = [];
  agent.onMessage((message) => seen.push(message.content));
  await agent.start();
  await admin.publish({ from: "root", to: "worker", content: "before" });
  await until("the first message is handled", () => seen.length === 1);

  const done = await disconnect("worker");
  assert.deepEqual([done.revoked_api_keys.length, done.revoked_tokens, done.unregistered], [1, [], false]);
  const ended = await failureOf(agent.ended);
  assert.deepEqual([ended.code, ended.retryable], ["KEY_REVOKED", false]);
  assert.ok(said.includes("error: the agent ends"), said.join("\n"));
  assert.equal((await failureOf(agent.sendMessage("root", 1))).code, "STREAM_CLOSED");
  assert.equal((await failureOf(agentOf("worker", key).start())).code, "KEY_REVOKED");
  await agent.stop();

  await admin.publish({ from: "root", to: "worker", content: "meanwhile" });
  const later = agentOf("worker", await keyOf("worker"));
  later.onMessage((message) => seen.push(message.content));
  await later.start();
  await until("what waited is handled", () => seen.length === 2);
  assert.deepEqual(seen, ["before", "meanwhile"]);
  await later.stop();
});

test("an agent that only sends hears of it by its heartbeat", { timeout: 60_000 }, async () => {
  const agent = agentOf("sender", await keyOf("sender"), { heartbeatIntervalMs: 500 });
  await agent.start();
  await agent.sendMessage("root", 1);
  await disconnect("sender");
  assert.equal((await failureOf(agent.ended)).code, "KEY_REVOKED");
  await agent.stop();
});

test("an agent that is disconnected and unregistered ends, and does not register again", {
  timeout: 60_000,
}, async () => {
  const agent = agentOf("wild", await keyOf("wild"));
  agent.onMessage(() => {});
  await agent.start();
  const done = await disconnect("wild", { unregister: true });
  assert.deepEqual([done.unregistered, done.abandoned_messages], [true, 0]);
  assert.equal((await failureOf(agent.ended)).code, "KEY_REVOKED");
  await agent.stop();
  assert.equal((await failureOf(admin.registry.get("wild"))).code, "UNKNOWN_SANDBOX");
});

test("where the broker is open nothing keeps an agent away: it registers again, and says so", {
  timeout: 60_000,
}, async () => {
  const open = await oneNode({ controlPlane: true });
  const there = new ControlPlane({ url: open.rest ?? "" });
  const said: string[] = [];
  const options = { broker: open.endpoints, logger: listener(said), heartbeatIntervalMs: 500 };
  const agent = new ContainerAgent({ ...options, sandboxId: "stubborn" });
  const sender = new ContainerAgent({ ...options, sandboxId: "sender" });
  let handled = 0;
  agent.onMessage(() => {
    handled += 1;
  });
  await Promise.all([agent.start(), sender.start()]);
  // In the middle of its work, so that acknowledgements are on their way, too.
  const flood = setInterval(() => sender.sendMessage("stubborn", 1).catch(() => {}), 1);
  await until("it handles messages", () => handled > 50);
  for (const sandbox_id of ["stubborn", "sender"]) {
    const gone = await there.collaboration.disconnect({ workspace_id, sandbox_id, unregister: true });
    assert.deepEqual([gone.revoked_api_keys, gone.unregistered], [[], true]);
  }
  const again = "warn: the sandbox was unregistered; it is registered again";
  await until("both are registered again", () => said.filter((line) => line === again).length >= 2);
  clearInterval(flood);
  const before = handled;
  await sender.sendMessage("stubborn", 2);
  await until("it handles messages again", () => handled > before);
  assert.deepEqual(
    said.filter((line) => line.startsWith("error")),
    [],
  );
  await Promise.all([agent.stop(), sender.stop()]);
  await open.stop();
});

test("what an agent follows is followed again after its sandbox was unregistered", { timeout: 60_000 }, async () => {
  const open = await oneNode();
  const options = { broker: open.endpoints, logger: silentLogger, heartbeatIntervalMs: 500 };
  const agents = ["reader", "poster"].map((sandboxId) => new ContainerAgent({ ...options, sandboxId }));
  const [reader, poster] = agents;
  assert.ok(reader && poster);
  const seen: unknown[] = [];
  // The other one has no inbox, and learns it with its heartbeat.
  reader.onMessage((message) => seen.push(message.content));
  for (const agent of agents) await agent.start();
  for (const topic of ["build.linux", "tests", "news"]) await poster.topics.create(topic);
  await poster.topics.publish("tests", "before");
  await reader.topics.follow("build.*");
  await reader.topics.follow("tests", { sequence: 1 });
  await reader.topics.follow("news");
  await reader.topics.unfollow("news");
  await poster.topics.follow("build.*");
  await until("what was there is handled", () => seen.length === 1);
  const followed = async (agent: ContainerAgent) => {
    const follows = await agent.topics.follows().catch((error: AInTandemError) => {
      assert.equal(error.code, "UNKNOWN_SANDBOX");
      return [];
    });
    return follows
      .map(({ pattern }) => pattern)
      .sort()
      .join();
  };
  for (let time = 1; time <= 3; time++) {
    for (const agent of agents) await agent.client.registry.unregister(agent.sandboxId);
    await until("both follow again", async () => {
      return (await followed(reader)) === "build.*,tests" && (await followed(poster)) === "build.*";
    });
    await poster.topics.publish("news", "not for it");
    await poster.topics.publish("build.linux", time);
    await until("the message to the topic is handled", () => seen.includes(time));
  }
  assert.deepEqual(seen, ["before", 1, 2, 3], "what was handled before does not come again");
  for (const agent of agents) await agent.stop();
  await open.stop();
});

test("a token in a file: another one is waited for, and taken", { timeout: 60_000 }, async () => {
  const file = join(folder, "renewed");
  writeFileSync(file, await tokenOf("renewed"));
  const said: string[] = [];
  const options = { logger: listener(said), heartbeatIntervalMs: 500 };
  const agent = agentOf("renewed", { file }, options);
  const sender = agentOf("renewed", { file }, options);
  const seen: unknown[] = [];
  agent.onMessage((message) => seen.push(message.content));
  await Promise.all([agent.start(), sender.start()]);
  await using client = new Client({ endpoints: deployment.endpoints, token: { file }, logger: silentLogger });
  await using publisher = client.publisher();
  await publisher.publish({ from: "renewed", to: "root", content: 1 });

  const done = await disconnect("renewed");
  assert.deepEqual([done.revoked_api_keys, done.revoked_tokens.length], [[], 1]);
  await until("a new token is waited for", () => said.some((line) => line.startsWith("warn: the token does not hold")));
  const waiting = publisher.publish({ from: "renewed", to: "root", content: 2 });
  await delay(1_500);
  writeFileSync(file, await tokenOf("renewed"));
  await waiting;
  await admin.publish({ from: "root", to: "renewed", content: 3 });
  await until("the message is handled", () => seen.length === 1);
  await sender.sendMessage("root", 4);
  await Promise.all([agent.stop(), sender.stop()]);
  await Promise.all([agent.ended, sender.ended]);
});

test("a token in a file: when no other one comes, the agent ends", { timeout: 60_000 }, async () => {
  const file = join(folder, "ended");
  writeFileSync(file, await tokenOf("ended"));
  const agents = [agentOf("ended", { file }), agentOf("ended", { file }, { heartbeatIntervalMs: 500 })];
  agents[0]?.onMessage(() => {});
  for (const agent of agents) await agent.start();
  await disconnect("ended");
  const codes = agents.map(async (agent) => (await failureOf(agent.ended, 10_000 + SOON_MS)).code);
  assert.deepEqual(await Promise.all(codes), ["TOKEN_REVOKED", "TOKEN_REVOKED"]);
  assert.equal((await failureOf(agentOf("ended", { file }).start())).code, "TOKEN_REVOKED");
});

test("what a client has open ends with the code, also a request that waits", { timeout: 60_000 }, async () => {
  const token = await keyOf("single");
  await admin.registry.register({ sandbox: "single" });
  await using client = new Client({ endpoints: deployment.endpoints, token, logger: silentLogger });
  const subscription = await client.subscribe({ sandbox: "single" });
  const publisher = client.publisher();
  await publisher.publish({ from: "single", to: "root", content: 1 });
  const asking = client.request({ from: "single", to: "root", content: 1 }, { timeoutMs: 4_000 });
  const asked = failureOf(asking, 4_000 + SOON_MS);
  await disconnect("single");
  assert.equal((await failureOf(subscription.next())).code, "KEY_REVOKED");
  assert.equal((await failureOf(publisher.publish({ from: "single", to: "root", content: 2 }))).code, "KEY_REVOKED");
  assert.equal((await failureOf(client.registry.get("single"))).code, "KEY_REVOKED");
  assert.match((await asked).code, /^(KEY_REVOKED|RESPONSE_TIMEOUT)$/);
});

test("events that are followed end with the code", { timeout: 60_000 }, async () => {
  const bound = { workspace_id, sandbox_id: "watched" };
  // A sandbox's own role reads no events.
  const { secret } = await plane.apiKeys.create({ subject: "watcher", roles: ["developer"], ...bound });
  await admin.registry.register({ sandbox: "watched" });
  await using client = new Client({ endpoints: deployment.endpoints, token: secret, logger: silentLogger });
  const events = client.events({ from: 1, sandbox: "watched" });
  assert.equal((await events.next()).value?.type, "sandbox-registered");
  const following = failureOf(events.next());
  await disconnect("watched");
  assert.equal((await following).code, "KEY_REVOKED");
});

test("disconnecting is for an admin, and says when it cannot be done", { timeout: 120_000 }, async () => {
  const token = signed("zoe", "developer");
  const developer = new ControlPlane({ url: deployment.rest ?? "", token, logger: silentLogger });
  const wanted = { workspace_id, sandbox_id: "late" };
  await assert.rejects(developer.collaboration.disconnect(wanted), { code: "ROLE_MISSING", status: 403 });
  await assert.rejects(disconnect("late", { reason: "x".repeat(501) }), { code: "INVALID_FIELD", status: 400 });
  await assert.rejects(disconnect("late"), { code: "UNKNOWN_SANDBOX", status: 404 });

  const agent = agentOf("late", await keyOf("late"));
  agent.onMessage(() => {});
  await agent.start();
  const [broker, ownPlane] = deployment.nodes;
  await broker?.end("SIGKILL");
  const beganMs = performance.now();
  const away = await failureOf(disconnect("late"), 60_000);
  assert.deepEqual([away.code, away.retryable, away.outcomeUnknown], ["BROKER_UNAVAILABLE", true, false]);
  assert.ok(performance.now() - beganMs < 30_000);
  await deployment.restart();
  const done = await disconnect("late");
  assert.equal(done.revoked_api_keys.length, 1);
  assert.equal((await failureOf(agent.ended)).code, "KEY_REVOKED");

  await ownPlane?.end("SIGKILL");
  const gone = await failureOf(disconnect("late"), 60_000);
  assert.deepEqual([gone.code, gone.retryable], ["UNREACHABLE", true]);
});
