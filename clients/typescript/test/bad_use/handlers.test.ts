// Handlers that throw, block, never end; payloads that do not serialise; ends at bad moments.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, beforeEach, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  Client,
  ContainerAgent,
  type ContainerAgentOptions,
  collect,
  RefusedError,
  Reject,
  RetryLater,
  silentLogger,
} from "@aintandem/sdk";
import { type Deployment, oneNode } from "../brokers/deployment.js";

let deployment: Deployment;
let client: Client;
let workspaceId = "";
let count = 0;
before(async () => {
  deployment = await oneNode();
});
after(async () => {
  await client.close();
  await deployment.stop();
});
beforeEach(async () => {
  await client?.close();
  count += 1;
  workspaceId = `bad-${count}`;
  client = new Client({ endpoints: deployment.endpoints, workspaceId, logger: silentLogger });
  await client.workspaces.create(workspaceId);
  await client.registry.register({ sandbox: "sender" });
});

function agentOf(options: Partial<ContainerAgentOptions> = {}): ContainerAgent {
  const retryPolicy = { maxAttempts: 3, initialBackoffMs: 50, maxBackoffMs: 50 };
  return new ContainerAgent({
    sandboxId: "worker",
    broker: deployment.endpoints,
    workspaceId,
    retryPolicy,
    logger: silentLogger,
    ...options,
  });
}

async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const endMs = performance.now() + 20_000;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`it never came to: ${what}`);
    await delay(20);
  }
}

const inbox = () => client.registry.get("worker");
const send = (content: unknown, id?: string) =>
  client.publish({ from: "sender", to: "worker", content, ...(id && { id }) });

test("a handler that throws gets the message again, and then it is a dead letter with the reason", async () => {
  const attempts: number[] = [];
  await using agent = agentOf();
  agent.onMessage((_, { attempt }) => {
    attempts.push(attempt);
    throw new TypeError("no credentials");
  });
  await agent.start();
  await send(1, "doomed");
  await until("a dead letter", async () => (await inbox()).deadLetters === 1);
  const [letter] = await collect(client.deadLetters.list({ sandbox: "worker" }));
  assert.deepEqual(attempts, [1, 2, 3]);
  assert.equal(letter?.reason, "attempts_exhausted");
  assert.match(letter?.text ?? "", /TypeError: no credentials$/);
  assert.deepEqual(
    letter?.attempts.map(({ error }) => error),
    ["nacked", "nacked", "nacked"],
  );
});

test("a handler says that trying again does not help, or when it does", async () => {
  await using agent = agentOf();
  const seen: [unknown, number][] = [];
  agent.onMessage((message, { attempt }) => {
    seen.push([message.content, performance.now()]);
    if (message.content === "never") throw new Reject("not in my job");
    if (attempt === 1) throw new RetryLater("busy", 700);
  });
  await agent.start();
  await send("never");
  await send("later");
  await until("both are done", async () => (await inbox()).pendingMessages === 0);
  const times = seen.filter(([content]) => content === "later").map(([, ms]) => ms);
  assert.equal(times.length, 2);
  assert.ok((times[1] ?? 0) - (times[0] ?? 0) >= 650);
  const letters = await collect(client.deadLetters.list({ sandbox: "worker" }));
  assert.deepEqual(
    letters.map(({ text, attempts }) => [text, attempts.length]),
    [["not in my job", 1]],
  );
});

test("who asks is told when the other side fails for good", async () => {
  await using agent = agentOf();
  agent.onRequest(() => {
    throw new Reject("no access");
  });
  await agent.start();
  await using asker = agentOf({ sandboxId: "asker" });
  await asker.start();
  await assert.rejects(asker.collaborateWith("worker", {}, { timeoutMs: 10_000 }), {
    code: "REJECTED",
    message: /no access/,
  });
  // Nobody there: the other side has no handler for it.
  await using mute = agentOf({ sandboxId: "mute" });
  mute.onRequest(() => 1);
  await mute.start();
  await client.publish({ from: "sender", to: "mute", content: 1, id: "unwanted" });
  await until("a dead letter", async () => (await client.registry.get("mute")).deadLetters === 1);
});

test("a handler that never ends is given up, its slot goes to others, and its signal fires", async () => {
  await using agent = agentOf({ handlerTimeoutMs: 500, concurrency: 1, stopTimeoutMs: 200 });
  let signals = 0;
  const done: unknown[] = [];
  agent.onMessage((message, { signal }) => {
    if (message.content !== "stuck") return done.push(message.content);
    signal.addEventListener("abort", () => {
      signals += 1;
    });
    return new Promise(() => {});
  });
  await agent.start();
  await send("stuck");
  await send("next");
  await until("the next one is done", () => done.length === 1);
  await until("a dead letter", async () => (await inbox()).deadLetters === 1);
  const [letter] = await collect(client.deadLetters.list({ sandbox: "worker" }));
  assert.match(letter?.text ?? "", /longer than 500 ms/);
  assert.equal(signals, 3);
});

test("a handler that takes longer than the deadline keeps its lease", async () => {
  await using agent = agentOf({ ackDeadlineMs: 1_000 });
  const attempts: number[] = [];
  agent.onMessage(async (_, { attempt }) => {
    attempts.push(attempt);
    await delay(3_500);
  });
  await agent.start();
  await send(1);
  await until("it is done", async () => attempts.length > 0 && (await inbox()).pendingMessages === 0);
  assert.deepEqual(attempts, [1]);
});

test("a handler that blocks the loop loses its lease, and its work is not done twice", {
  timeout: 60_000,
}, async () => {
  const warnings: string[] = [];
  const logger = { ...silentLogger, warn: (text: string) => warnings.push(text) };
  // Each second of the block costs an attempt.
  await using agent = agentOf({ ackDeadlineMs: 1_000, logger, retryPolicy: { maxAttempts: 20, initialBackoffMs: 50 } });
  let handled = 0;
  agent.onMessage(() => {
    handled += 1;
    const endMs = performance.now() + 4_000;
    while (performance.now() < endMs);
  });
  await agent.start();
  await send(1);
  await until("it is done", async () => handled > 0 && (await inbox()).pendingMessages === 0);
  assert.equal(handled, 1);
  assert.equal((await inbox()).deadLetters, 0);
  assert.ok(
    warnings.some((text) => text.includes("event loop was blocked")),
    warnings.join("\n"),
  );
});

test("what does not serialise is told to whom it concerns", async () => {
  await using agent = agentOf();
  agent.onRequest((message) => (message.content === "circle" ? 1n : undefined));
  await agent.start();
  await using asker = agentOf({ sandboxId: "asker" });
  await asker.start();
  await assert.rejects(asker.sendMessage("worker", 1n), { code: "CONTENT_NOT_SERIALIZABLE" });
  await assert.rejects(
    asker.collaborateWith("worker", () => {}),
    { code: "CONTENT_NOT_SERIALIZABLE" },
  );
  await assert.rejects(asker.collaborateWith("worker", "circle", { timeoutMs: 10_000 }), {
    code: "REJECTED",
    message: /no JSON/,
  });
  assert.equal(await asker.collaborateWith("worker", "nothing", { timeoutMs: 10_000 }), null);
  await assert.rejects(asker.sendMessage("worker", "x".repeat(2 << 20)), { code: "MESSAGE_TOO_LARGE" });
  await assert.rejects(asker.sendMessage("worker", "x".repeat(9 << 20)), { code: "MESSAGE_TOO_LARGE" });
  assert.ok((await asker.sendMessage("worker", "still alive")).sequence > 0);
});

test("a message that no request has room for is refused at once, here and by the broker alike", async () => {
  await using asker = agentOf({ sandboxId: "asker" });
  await asker.start();
  await using publisher = client.publisher({ maxMessageBytes: 64 << 20 });
  const message = { from: "sender", to: "asker" };
  // The broker reads no request over 4 MiB and a little; this side sends none over 16 MiB.
  for (const bytes of [9_000_000, 15_000_000, 20_000_000]) {
    const content = new Uint8Array(bytes);
    const attempts: Promise<unknown>[] = [
      client.publish({ ...message, content }, { timeoutMs: 5_000 }),
      client.request({ ...message, content }, { timeoutMs: 5_000 }),
      asker.sendMessage("sender", content),
      asker.broadcast(content),
      asker.collaborateWith("sender", content, { timeoutMs: 5_000 }),
    ];
    if (bytes > 16 << 20) attempts.push(publisher.publish({ ...message, content }));
    for (const attempt of await Promise.allSettled(attempts)) {
      const error: unknown = attempt.status === "rejected" ? attempt.reason : undefined;
      assert.ok(error instanceof RefusedError, `${bytes} bytes: ${error}`);
      assert.deepEqual([error.code, error.retryable], ["MESSAGE_TOO_LARGE", false]);
    }
    assert.ok((await publisher.publish({ ...message, content: 1 })).sequence > 0);
    assert.ok((await asker.sendMessage("sender", "still alive")).sequence > 0);
  }
  assert.equal((await client.registry.get("asker")).pendingMessages, 3);
});

test("large messages that wait for the connection together hold up nothing", async () => {
  const sent = Array.from({ length: 60 }, () =>
    client.publish({ from: "sender", to: "sender", content: new Uint8Array(900_000) }, { timeoutMs: 15_000 }),
  );
  const receipts = await Promise.all(sent);
  assert.equal(new Set(receipts.map(({ sequence }) => sequence)).size, 60);
});

test("a process that is killed in the middle of a message gives it to another", { timeout: 60_000 }, async () => {
  await client.registry.register({ sandbox: "worker", retryPolicy: { initialBackoffMs: 50 } });
  const program = fileURLToPath(new URL("./mortal_agent.js", import.meta.url));
  const env = {
    ...process.env,
    TANDEM_BROKER: deployment.endpoints.join(),
    TANDEM_WORKSPACE: workspaceId,
    TANDEM_SANDBOX: "worker",
  };
  const mortal = spawn(process.execPath, [program], { env, stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  mortal.stdout.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  await until("it has started", () => said.includes("started"));
  await send("precious", "m-1");
  await until("it has begun", () => said.includes("begun m-1"));
  mortal.kill("SIGKILL");
  const attempts: number[] = [];
  await using agent = agentOf();
  agent.onMessage((_, { attempt }) => {
    attempts.push(attempt);
  });
  await agent.start();
  await until("it is done", async () => attempts.length > 0 && (await inbox()).pendingMessages === 0);
  assert.deepEqual(attempts, [2], "the death counts as an attempt");
});

test("a stop waits for what is at work, and gives back what is not", async () => {
  const begun: number[] = [];
  const ended: number[] = [];
  const first = agentOf({ concurrency: 2 });
  let mayEnd = () => {};
  const gate = new Promise<void>((resolve) => {
    mayEnd = resolve;
  });
  first.onMessage(async (message) => {
    begun.push(message.content as number);
    await gate;
    ended.push(message.content as number);
  });
  await first.start();
  for (let n = 0; n < 10; n++) await send(n);
  await until("two have begun", () => begun.length === 2);
  const stopping = first.stop();
  mayEnd();
  await stopping;
  assert.deepEqual(ended, begun);
  const rest: [number, number][] = [];
  await using second = agentOf();
  second.onMessage((message, { attempt }) => {
    rest.push([message.content as number, attempt]);
  });
  await second.start();
  await until("all are done", async () => (await inbox()).pendingMessages === 0);
  assert.deepEqual(
    [...ended, ...rest.map(([n]) => n)].sort((a, b) => a - b),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  assert.deepEqual(
    rest.filter(([, attempt]) => attempt !== 1),
    [],
    "what was given back has no failed attempt",
  );
});

test("a stop does not wait for ever, and the message comes again", async () => {
  const first = agentOf({ stopTimeoutMs: 300 });
  let isAtWork = false;
  let told = false;
  first.onMessage((_, { signal }) => {
    isAtWork = true;
    signal.addEventListener("abort", () => {
      told = true;
    });
    return new Promise(() => {});
  });
  await first.start();
  await send("long");
  await until("it is at work", () => isAtWork);
  const beganMs = performance.now();
  await first.stop();
  assert.ok(performance.now() - beganMs < 5_000);
  assert.equal(told, true);
  const attempts: number[] = [];
  await using second = agentOf();
  second.onMessage((_, { attempt }) => {
    attempts.push(attempt);
  });
  await second.start();
  await until("it is done", () => attempts.length === 1);
  assert.deepEqual(attempts, [1]);
});

test("two agents with one sandbox id share its inbox: each message goes to one of them", async () => {
  const seen: number[] = [];
  const agents = [agentOf(), agentOf()];
  const byAgent = [0, 0];
  for (const [at, agent] of agents.entries()) {
    agent.onMessage(async (message) => {
      byAgent[at] = (byAgent[at] ?? 0) + 1;
      seen.push(message.content as number);
      await delay(5);
    });
    await agent.start();
  }
  const sent = Array.from({ length: 200 }, (_, n) => n);
  await Promise.all(sent.map((n) => send(n)));
  await until("all are done", async () => (await inbox()).pendingMessages === 0);
  assert.deepEqual(
    seen.sort((a, b) => a - b),
    sent,
  );
  assert.ok(
    byAgent.every((handled) => handled > 0),
    byAgent.join(),
  );
  await Promise.all(agents.map((agent) => agent.stop()));
});

test("a sandbox that somebody unregisters is registered again while its agent lives", async () => {
  await using agent = agentOf();
  const seen: unknown[] = [];
  agent.onMessage((message) => {
    seen.push(message.content);
  });
  await agent.start();
  await client.registry.unregister("worker");
  await until("it is back", async () => (await client.registry.get("worker").catch(() => undefined)) !== undefined);
  await send("hello again");
  await until("it is reached", () => seen.length === 1);
});

test("an agent is used before its start and after its end", async () => {
  const agent = agentOf();
  await agent.stop();
  await assert.rejects(agent.start(), { code: "STREAM_CLOSED" });
  await assert.rejects(agent.sendMessage("sender", 1), { code: "STREAM_CLOSED" });
  await agent.stop();
});
