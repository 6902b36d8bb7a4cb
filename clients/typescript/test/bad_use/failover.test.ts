// Agents while the node that leads their workspace is killed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Client, ContainerAgent, silentLogger } from "@aintandem/sdk";
import { threeNodes } from "../brokers/deployment.js";

test("the leader is killed under agents: all is handled once, and every request is answered", {
  timeout: 120_000,
}, async () => {
  const deployment = await threeNodes();
  const workspaceId = "failover";
  await using client = new Client({ endpoints: deployment.endpoints, workspaceId, logger: silentLogger });
  await client.workspaces.create(workspaceId);
  const options = { broker: deployment.endpoints, workspaceId, logger: silentLogger };
  const handled = new Map<number, number>();
  const worker = new ContainerAgent({ ...options, sandboxId: "worker", concurrency: 32 });
  worker.onMessage(async (message) => {
    const n = message.content as number;
    await delay(10);
    handled.set(n, (handled.get(n) ?? 0) + 1);
  });
  worker.onRequest(async (message) => {
    await delay(50);
    return message.content;
  });
  await worker.start();
  const boss = new ContainerAgent({ ...options, sandboxId: "boss" });
  await boss.start();

  const killing = delay(300).then(() => deployment.killLeader(workspaceId));
  const receipts: Promise<{ sequence: number }>[] = [];
  const answers: Promise<unknown>[] = [];
  for (let n = 0; n < 1_000; n++) {
    receipts.push(boss.sendMessage("worker", n));
    if (n % 50 === 0) answers.push(boss.collaborateWith("worker", { n }, { timeoutMs: 60_000 }));
    await delay(2);
  }
  await killing;
  const sequences = (await Promise.all(receipts)).map(({ sequence }) => sequence);
  assert.equal(new Set(sequences).size, 1_000, "each has a place of its own in the log");
  assert.deepEqual(
    await Promise.all(answers),
    answers.map((_, at) => ({ n: at * 50 })),
  );
  const endMs = performance.now() + 30_000;
  while ((await client.registry.get("worker")).pendingMessages > 0 && performance.now() < endMs) await delay(50);
  assert.equal(handled.size, 1_000);
  assert.deepEqual(
    [...handled].filter(([, times]) => times !== 1),
    [],
  );
  assert.equal((await client.registry.get("worker")).deadLetters, 0);
  await Promise.all([boss.stop(), worker.stop()]);
  await deployment.stop();
});

test("256 publishes at once, each a call of its own, outlast the death of the leader, also a second one", {
  timeout: 120_000,
}, async () => {
  const deployment = await threeNodes();
  const workspaceId = "calls";
  let retries = 0;
  const debug = (text: string) => {
    if (text === "Publish is tried again") retries += 1;
  };
  await using client = new Client({ endpoints: deployment.endpoints, workspaceId, logger: { ...silentLogger, debug } });
  await client.workspaces.create(workspaceId);
  await client.registry.register({ sandbox: "a" });
  let published = 0;
  const failures: unknown[] = [];
  for (let round = 1; round <= 2 && failures.length === 0; round++) {
    let going = true;
    const publishOn = async () => {
      while (going) {
        try {
          await client.publish({ from: "a", to: "a", content: 1 });
          published += 1;
        } catch (error) {
          failures.push(error);
          going = false;
        }
      }
    };
    const reached = async (count: number) => {
      while (going && published < count) await delay(5);
    };
    const all = Array.from({ length: 256 }, publishOn);
    await reached(published + 500);
    await deployment.killLeader(workspaceId);
    await reached(published + 1_000);
    going = false;
    await Promise.all(all);
    await deployment.restart();
  }
  assert.deepEqual(failures, []);
  assert.ok(retries >= 256, `${retries} retries: no leader died under them`);
  assert.equal((await client.registry.get("a")).pendingMessages, published);
  await deployment.stop();
});
