// A broker that is not there, goes away, or does not let somebody in.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Client, ContainerAgent, silentLogger } from "@aintandem/sdk";
import { closedNode, type Deployment, oneNode } from "../brokers/deployment.js";
import { freePorts } from "../brokers/node_process.js";
import { CuttableProxy } from "../brokers/proxy.js";

const logger = silentLogger;
let open: Deployment;
let closed: Deployment;
before(async () => {
  [open, closed] = await Promise.all([oneNode(), closedNode()]);
});
after(() => Promise.all([open.stop(), closed.stop()]));

test("a wrong URL is told at once, or after a few tries", { timeout: 30_000 }, async () => {
  assert.throws(() => new ContainerAgent({ sandboxId: "a", broker: "localhost:8001" }), { code: "INVALID_ENDPOINT" });
  const [port] = await freePorts(1);
  const agent = new ContainerAgent({ sandboxId: "a", broker: `http://127.0.0.1:${port}`, logger });
  const beganMs = performance.now();
  await assert.rejects(agent.start(), { code: "UNREACHABLE", retryable: true, message: new RegExp(`${port}`) });
  assert.ok(performance.now() - beganMs < 10_000);
  await assert.rejects(agent.sendMessage("b", 1), { code: "STREAM_CLOSED" });
  await using client = new Client({ endpoints: `http://127.0.0.1:${port}`, attempts: 3, logger });
  const publisher = client.publisher();
  await assert.rejects(publisher.publish({ from: "a", to: "b", content: 1 }), { code: "UNREACHABLE" });
  await assert.rejects(client.subscribe({ sandbox: "a" }), { code: "UNREACHABLE" });
});

test("a URL of something else is told", { timeout: 30_000 }, async () => {
  // The port for metrics speaks HTTP/1.
  const { createServer } = await import("node:http");
  const server = createServer((_, response) => response.end("hello"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await using client = new Client({ endpoints: `http://127.0.0.1:${port}`, attempts: 2, logger });
  await assert.rejects(client.serverInfo(), { code: "CONNECTION_LOST" });
  server.closeAllConnections();
  server.close();
});

test("a deadline and an AbortSignal end a call, and a publish that waits", { timeout: 30_000 }, async () => {
  // Takes connections and says nothing.
  const { createServer } = await import("node:net");
  const sockets = new Set<{ destroy(): void }>();
  const server = createServer((socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const client = new Client({ endpoints: `http://127.0.0.1:${port}`, logger });
  const message = { from: "a", to: "b", content: 1 };
  await assert.rejects(client.serverInfo({ timeoutMs: 300 }), { code: "TIMEOUT" });
  await assert.rejects(client.serverInfo({ signal: AbortSignal.timeout(200) }), { code: "ABORTED" });
  const publisher = client.publisher();
  await assert.rejects(publisher.publish(message, { timeoutMs: 300 }), { code: "TIMEOUT" });
  await assert.rejects(publisher.publish(message, { signal: AbortSignal.timeout(200) }), { code: "ABORTED" });
  await assert.rejects(client.subscribe({ sandbox: "a", signal: AbortSignal.timeout(200) }), { code: "ABORTED" });
  await publisher.close(100);
  await client.close();
  for (const socket of sockets) socket.destroy();
  server.close();
});

test("a token that has ended ends the agent, and says so", { timeout: 60_000 }, async () => {
  const sign = closed.sign;
  assert.ok(sign);
  const claims = { sub: "a", roles: ["sandbox"], workspace: "default", sandbox: "short" };
  const token = sign({ ...claims, exp: Math.ceil(Date.now() / 1000) + 2 });
  const agent = new ContainerAgent({ sandboxId: "short", broker: closed.endpoints, token, logger });
  agent.onMessage(() => {});
  await agent.start();
  await assert.rejects(agent.ended, { code: "TOKEN_EXPIRED", retryable: false });
  await assert.rejects(agent.sendMessage("short", 1), { code: "STREAM_CLOSED" });
  const late = new ContainerAgent({ sandboxId: "short", broker: closed.endpoints, token, logger });
  await assert.rejects(late.start(), { code: "TOKEN_EXPIRED" });
});

test("a token file that is renewed keeps the agent going", { timeout: 60_000 }, async () => {
  const sign = closed.sign;
  assert.ok(sign);
  const folder = mkdtempSync(join(tmpdir(), "aintandem-token-"));
  const file = join(folder, "token");
  const claims = { sub: "a", roles: ["sandbox"], workspace: "default", sandbox: "long" };
  const renew = () => writeFileSync(file, sign({ ...claims, exp: Math.ceil(Date.now() / 1000) + 3 }));
  renew();
  const timer = setInterval(renew, 1_000);
  const agent = new ContainerAgent({ sandboxId: "long", broker: closed.endpoints, token: { file }, logger });
  const seen = new Set<number>();
  agent.onMessage((message) => {
    seen.add(message.content as number);
  });
  await agent.start();
  await using admin = new Client({
    endpoints: closed.endpoints,
    token: sign({ sub: "root", roles: ["admin"], exp: Math.ceil(Date.now() / 1000) + 600 }),
  });
  await admin.registry.register({ sandbox: "root" });
  for (let n = 0; n < 12; n++) {
    await admin.publish({ from: "root", to: "long", content: n });
    await delay(1_000);
  }
  // Its stream ends with each token, and is opened again.
  for (const endMs = performance.now() + 20_000; seen.size < 12 && performance.now() < endMs; ) await delay(50);
  assert.equal(seen.size, 12);
  clearInterval(timer);
  await agent.stop();
  rmSync(folder, { recursive: true });
});

test("a broker that is away for a while is waited for: nothing is lost, and nothing handled twice", {
  timeout: 90_000,
}, async () => {
  const proxy = await new CuttableProxy(open.endpoints[0] ?? "").start();
  const broker = proxy.endpoint;
  const handled = new Map<number, number>();
  const receiver = new ContainerAgent({ sandboxId: "receiver", broker, logger });
  receiver.onMessage(async (message) => {
    const n = message.content as number;
    // Some are at work when the connection goes.
    await delay(20);
    handled.set(n, (handled.get(n) ?? 0) + 1);
  });
  await receiver.start();
  const sender = new ContainerAgent({ sandboxId: "sender", broker, logger });
  await sender.start();
  const receipts: Promise<unknown>[] = [];
  for (let n = 0; n < 300; n++) {
    receipts.push(sender.sendMessage("receiver", n));
    if (n === 100) {
      proxy.refusing = true;
      proxy.cut();
      setTimeout(() => {
        proxy.refusing = false;
      }, 8_000);
    }
    await delay(5);
  }
  await Promise.all(receipts);
  while (handled.size < 300) await delay(50);
  await delay(2_000);
  assert.deepEqual(
    [...handled.values()].filter((times) => times !== 1),
    [],
  );
  await Promise.all([sender.stop(), receiver.stop()]);
  await proxy.stop();
});

test("a broker that is killed and comes back has what was acknowledged", { timeout: 90_000 }, async () => {
  const own = await oneNode();
  const seen = new Set<number>();
  const receiver = new ContainerAgent({ sandboxId: "receiver", broker: own.endpoints, logger });
  receiver.onMessage((message) => {
    seen.add(message.content as number);
  });
  await receiver.start();
  const sender = new ContainerAgent({ sandboxId: "sender", broker: own.endpoints, logger });
  await sender.start();
  const receipts = Array.from({ length: 100 }, (_, n) => sender.sendMessage("receiver", n));
  await own.nodes[0]?.end("SIGKILL");
  const more = Array.from({ length: 100 }, (_, n) => sender.sendMessage("receiver", 100 + n));
  await delay(2_000);
  await own.restart();
  await Promise.all([...receipts, ...more]);
  while (seen.size < 200) await delay(50);
  await Promise.all([sender.stop(), receiver.stop()]);
  await own.stop();
});
