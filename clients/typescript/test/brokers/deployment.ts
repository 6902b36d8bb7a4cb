// Brokers for one test file: one node, three, or one that is closed.

import { createHmac, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "@aintandem/sdk";
import { brokerBinary, controlPlaneBinary, TANDEM } from "./binary.js";
import { freePorts, NodeProcess } from "./node_process.js";

export interface Deployment {
  /** One URL for each node. */
  readonly endpoints: string[];
  /** Of the control plane, where it was asked for. */
  readonly rest: string | undefined;
  /** The brokers, and a control plane that is a process of its own behind them. */
  readonly nodes: NodeProcess[];
  /** Signs tokens, where the broker is closed. */
  readonly sign: ((claims: Record<string, unknown>) => string) | undefined;
  /** Kills the node that leads the workspace; does nothing with one node. */
  killLeader(workspaceId: string): Promise<void>;
  /** Starts again what was killed. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

function scratch(): string {
  return mkdtempSync(join(tmpdir(), "aintandem-ts-"));
}

/** `tandem dev` with one node. The port stays the same over restarts. */
export async function oneNode(options: { controlPlane?: boolean } = {}): Promise<Deployment> {
  const folder = scratch();
  const [port = 0, http = 0] = await freePorts(2);
  const place = ["--data-dir", folder, "--port", String(port), "--metrics-port", "0"];
  const rest = options.controlPlane ? ["--http-port", String(http)] : ["--no-control-plane"];
  const node = new NodeProcess(TANDEM, ["--json", "dev", ...place, ...rest]);
  await node.start();
  return {
    endpoints: [`http://127.0.0.1:${port}`],
    rest: options.controlPlane ? `http://127.0.0.1:${http}` : undefined,
    nodes: [node],
    sign: undefined,
    killLeader: async () => {},
    restart: async () => {
      if (!node.isRunning) await node.start();
    },
    stop: () => stopAll([node], folder),
  };
}

/** Three processes, each of which can be killed and started again. */
export async function threeNodes(): Promise<Deployment> {
  const folder = scratch();
  const ports = await freePorts(9);
  const cluster = [1, 2, 3].map((id) => `n${id}=127.0.0.1:${ports[id - 1]}`).join(",");
  const endpoints = [3, 4, 5].map((at) => `http://127.0.0.1:${ports[at]}`);
  const nodes = [1, 2, 3].map((id) => {
    const place = ["--data-dir", join(folder, `n${id}`), "--port", String(ports[id + 2])];
    const own = ["--metrics-port", String(ports[id + 5]), "--node-id", String(id), "--cluster", cluster];
    return new NodeProcess(TANDEM, ["--json", "dev", "--no-control-plane", ...place, ...own]);
  });
  await Promise.all(nodes.map((node) => node.start()));
  await leadersOf(endpoints);
  return {
    endpoints,
    rest: undefined,
    nodes,
    sign: undefined,
    killLeader: async (workspaceId) => {
      await nodes[(await leaderOf(endpoints, workspaceId)) - 1]?.end("SIGKILL");
    },
    restart: async () => {
      const dead = nodes.filter((node) => !node.isRunning);
      if (dead.length === 0) return;
      await Promise.all(dead.map((node) => node.start()));
      await leadersOf(endpoints);
    },
    stop: () => stopAll(nodes, folder),
  };
}

/** `tandem-broker` that asks everybody for a token, and makes tokens itself; with a control plane before it where that is wanted. */
export async function closedNode(options: { controlPlane?: boolean } = {}): Promise<Deployment> {
  const folder = scratch();
  const [port = 0, metrics = 0, http = 0] = await freePorts(3);
  // The bytes of the file are the key, so its text is what signs.
  const secret = randomBytes(32).toString("base64");
  const secretFile = join(folder, "secret");
  writeFileSync(secretFile, secret, { mode: 0o600 });
  const config = join(folder, "broker.toml");
  const key = `k1=HS256:${secretFile}`;
  writeFileSync(config, `[auth]\nkeys = ["${key}"]\nsigning_key = "${key}"\nclock_skew_s = 0\n`);
  const listen = ["--listen", `127.0.0.1:${port}`, "--metrics-listen", `127.0.0.1:${metrics}`];
  const args = ["--config", config, "--data-dir", join(folder, "data"), ...listen];
  const node = new NodeProcess(brokerBinary(), args, "ready");
  const endpoint = `http://127.0.0.1:${port}`;
  const sign = (claims: Record<string, unknown>) => signToken(secret, claims);
  await node.start();
  const nodes = [node];
  if (options.controlPlane) {
    const tokenFile = join(folder, "admin.token");
    writeFileSync(tokenFile, sign({ sub: "plane", roles: ["admin"], exp: Math.ceil(Date.now() / 1000) + 3_600 }));
    const where = ["--listen", `127.0.0.1:${http}`, "--database-url", `sqlite:${join(folder, "control-plane.db")}`];
    const plane = new NodeProcess(
      controlPlaneBinary(),
      [...where, "--broker", endpoint, "--token-file", tokenFile],
      "ready",
    );
    await plane.start();
    nodes.push(plane);
  }
  return {
    endpoints: [endpoint],
    rest: options.controlPlane ? `http://127.0.0.1:${http}` : undefined,
    nodes,
    sign,
    killLeader: async () => {},
    restart: async () => {
      if (!node.isRunning) await node.start();
    },
    stop: () => stopAll(nodes, folder),
  };
}

/** A token of HS256 for the default audience. */
function signToken(secret: string, claims: Record<string, unknown>): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT", kid: "k1" })}.${part({ aud: "aintandem", ...claims })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** Which node leads the workspace, once one does. */
async function leaderOf(endpoints: string[], workspaceId: string): Promise<number> {
  await using client = new Client({ endpoints });
  const { shardId } = await client.workspaces.get(workspaceId);
  for (const endMs = performance.now() + 30_000; ; await delay(50)) {
    const { shards } = await client.serverInfo();
    const leader = shards.find(({ id }) => id === shardId)?.leaderNodeId ?? 0;
    if (leader > 0) return leader;
    if (performance.now() > endMs) throw new Error(`nobody leads ${workspaceId}`);
  }
}

/**
 * Waits until every node answers, and says that each leads what it should: leaders move no more by themselves, and leases end with
 * their leader.
 */
async function leadersOf(endpoints: string[]): Promise<void> {
  const endMs = performance.now() + 60_000;
  for (const endpoint of endpoints) {
    await using client = new Client({ endpoints: endpoint });
    for (;;) {
      const info = await client.serverInfo().catch(() => undefined);
      const asTheyShould = info?.shards.every(({ id, leaderNodeId }) => leaderNodeId === (id % endpoints.length) + 1);
      if (
        info !== undefined &&
        asTheyShould &&
        info.shards.length > 0 &&
        info.members.every((member) => member.connected)
      )
        break;
      if (performance.now() > endMs) throw new Error(`${endpoint} is not ready: ${JSON.stringify(info)}`);
      await delay(50);
    }
  }
}

async function stopAll(nodes: NodeProcess[], folder: string): Promise<void> {
  await Promise.all(nodes.map((node) => node.end("SIGKILL")));
  rmSync(folder, { recursive: true, force: true });
}
