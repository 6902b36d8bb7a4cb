// The client's figures against one node of its own: messages of 256 bytes, fsync before each acknowledgement, and the broker on the
// same cores. `--json` prints one line for programs.
//
//     tools/typescript.sh bench

import { readFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { Client, ContainerAgent, type Receipt, silentLogger } from "@aintandem/sdk";
import { oneNode } from "../test/brokers/deployment.js";

const SIZE_BYTES = 256;
const MESSAGES = Number(process.env["BENCH_MESSAGES"] ?? 100_000);
/** Publishes that wait for their receipt at once. */
const OUTSTANDING = 2_000;
const GOALS: Record<string, number> = { publish: 15_000, handle: 10_000 };

interface Figure {
  name: string;
  what: string;
  perSecond: number;
  /** Processor time of this process for each, in microseconds. */
  cpuUs: number;
}

const figures: Figure[] = [];

async function measured(name: string, what: string, count: number, run: () => Promise<void>): Promise<void> {
  const cpu = process.cpuUsage();
  const beganMs = performance.now();
  await run();
  const ms = performance.now() - beganMs;
  const { user, system } = process.cpuUsage(cpu);
  figures.push({ name, what, perSecond: Math.round((count / ms) * 1000), cpuUs: (user + system) / count });
}

/** Publishes with so many under way, each of which waits for its own receipt. */
async function publishAll(publish: () => Promise<Receipt>, count: number, outstanding: number): Promise<void> {
  let left = count;
  const lane = async () => {
    while (left-- > 0) await publish();
  };
  await Promise.all(Array.from({ length: outstanding }, lane));
}

const deployment = await oneNode();
const endpoints = deployment.endpoints;
const client = new Client({ endpoints, logger: silentLogger });
for (const sandbox of ["sender", "inbox", "worker", "asked"]) await client.registry.register({ sandbox });
// JSON of 256 bytes: the quotes are two of them.
const content = "x".repeat(SIZE_BYTES - 2);
const publisher = client.publisher();
const publishTo = (to: string) => () => publisher.publish({ from: "sender", to, content });

// The first thousands are slow: the code is not compiled yet.
await publishAll(publishTo("inbox"), 20_000, OUTSTANDING);
await measured("publish", `publish, ${OUTSTANDING} outstanding`, MESSAGES, () =>
  publishAll(publishTo("inbox"), MESSAGES, OUTSTANDING),
);
await measured("publish_one", "publish, one at a time (unary)", 3_000, () =>
  publishAll(() => client.publish({ from: "sender", to: "inbox", content }), 3_000, 1),
);

const inbox = await client.subscribe({ sandbox: "inbox" });
await measured("receive", "receive and acknowledge, inbox full before", MESSAGES, async () => {
  let last: Promise<void> | undefined;
  for (let n = 0; n < MESSAGES; n++) {
    const { value } = await inbox.next();
    last = value?.ack();
  }
  await last;
});
await inbox.close();

await publishAll(publishTo("worker"), MESSAGES, OUTSTANDING);
const worker = new ContainerAgent({ sandboxId: "worker", broker: endpoints, concurrency: 256, logger: silentLogger });
await measured("handle", "handled by an agent, 256 at once, inbox full before", MESSAGES, async () => {
  await new Promise<void>((resolve, reject) => {
    let handled = 0;
    worker.onMessage(async (message) => {
      if (typeof message.content !== "string") reject(new Error("another content came"));
      handled += 1;
      if (handled === MESSAGES) resolve();
    });
    worker.start().catch(reject);
  });
  // With the last acknowledgements.
  await worker.stop();
});
const { pendingMessages } = await client.registry.get("worker");
if (pendingMessages > 0) throw new Error(`${pendingMessages} messages are not acknowledged`);

const asked = new ContainerAgent({ sandboxId: "asked", broker: endpoints, concurrency: 64, logger: silentLogger });
asked.onRequest((message) => message.content);
await asked.start();
await measured("request", "request and response, 64 at once", 10_000, async () => {
  let left = 10_000;
  const lane = async () => {
    while (left-- > 0) await client.request({ from: "sender", to: "asked", content });
  };
  await Promise.all(Array.from({ length: 64 }, lane));
});
await asked.stop();
await client.close();
await deployment.stop();

if (process.argv.includes("--json")) {
  console.log(JSON.stringify({ size_bytes: SIZE_BYTES, messages: MESSAGES, figures }));
} else {
  const model = /model name\s*: (.*)/.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "unknown";
  const load = loadavg()[0]?.toFixed(1);
  console.log(`${SIZE_BYTES} bytes, ${cpus().length} cores (${model}), load ${load}, Node ${process.version}`);
  for (const { name, what, perSecond, cpuUs } of figures) {
    const goal = GOALS[name] === undefined ? "" : `   goal ${GOALS[name]}/s`;
    console.log(`${what.padEnd(52)} ${String(perSecond).padStart(8)}/s   ${cpuUs.toFixed(1)} us of CPU${goal}`);
  }
}
const missed = figures.filter(({ name, perSecond }) => perSecond < (GOALS[name] ?? 0));
if (missed.length > 0) {
  console.error(`below the goal: ${missed.map(({ what }) => what).join("; ")}`);
  process.exitCode = 1;
}
