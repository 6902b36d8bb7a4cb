// A coordinator finds its workers by what they can do, and gives each the next task when the one before is done.
//
//     TANDEM_BROKER=http://127.0.0.1:8001 node build/examples/coordinator_and_workers.js

import { setTimeout as delay } from "node:timers/promises";
import { ContainerAgent } from "@aintandem/sdk";

const TASKS = 24;

async function worker(name: string): Promise<ContainerAgent> {
  const agent = ContainerAgent.fromEnvironment({
    sandboxId: name,
    agent: { name, role: "worker", capabilities: ["summing"] },
    concurrency: 2,
  });
  agent.onRequest(async (message) => {
    const { numbers } = message.content as { numbers: number[] };
    await delay(10);
    return { by: name, sum: numbers.reduce((sum, number) => sum + number, 0) };
  });
  return agent.start();
}

const workers = await Promise.all(["worker-1", "worker-2", "worker-3"].map(worker));
await using coordinator = ContainerAgent.fromEnvironment({ sandboxId: "coordinator" });
await coordinator.start();

const online = await coordinator.discover({ capability: "summing", online: true });
console.log(`${online.length} workers are online`);

const tasks = Array.from({ length: TASKS }, (_, at) => ({ numbers: [at, at + 1] }));
const results: { by: string; sum: number }[] = [];
await Promise.all(
  online.map(async ({ sandbox }) => {
    for (let task = tasks.shift(); task !== undefined; task = tasks.shift()) {
      results.push((await coordinator.collaborateWith(sandbox, task, { timeoutMs: 30_000 })) as (typeof results)[0]);
    }
  }),
);

const total = results.reduce((sum, result) => sum + result.sum, 0);
console.log(`${results.length} tasks done by ${new Set(results.map(({ by }) => by)).size} workers; together ${total}`);
await Promise.all(workers.map((agent) => agent.stop()));
