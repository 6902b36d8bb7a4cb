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
