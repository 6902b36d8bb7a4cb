// Ways to a broker: TLS, and straight to the node that leads.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { Client, ContainerAgent, silentLogger } from "@aintandem/sdk";
import { brokerBinary, TANDEM } from "./brokers/binary.js";
import { threeNodes } from "./brokers/deployment.js";
import { freePorts, NodeProcess } from "./brokers/node_process.js";
import { CuttableProxy } from "./brokers/proxy.js";

const logger = silentLogger;

test("TLS: a broker whose certificate the authority has signed, and no other", { timeout: 60_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "aintandem-tls-"));
  const certs = join(folder, "certs");
  const run = promisify(execFile);
  await run(TANDEM, [
    "certs",
    "create",
    "--dir",
    certs,
    "--name",
    "broker",
    "--host",
    "localhost",
    "--host",
    "127.0.0.1",
  ]);
  await run(TANDEM, ["certs", "create", "--dir", certs, "--name", "me", "--host", "me.example"]);
  const config = join(folder, "broker.toml");
  writeFileSync(
    config,
    [
      "[auth]",
      'certificates = ["me.example=admin"]',
      "[tls]",
      `cert_file = "${certs}/broker.pem"`,
      `key_file = "${certs}/broker-key.pem"`,
      `client_ca_file = "${certs}/ca.pem"`,
    ].join("\n"),
  );
  const [port = 0, metrics = 0] = await freePorts(2);
  const listen = ["--listen", `127.0.0.1:${port}`, "--metrics-listen", `127.0.0.1:${metrics}`];
  const node = new NodeProcess(
    brokerBinary(),
    ["--config", config, "--data-dir", join(folder, "data"), ...listen],
    "ready",
  );
  await node.start();
  try {
    const tls = { caFile: join(certs, "ca.pem"), certFile: join(certs, "me.pem"), keyFile: join(certs, "me-key.pem") };
    for (const host of ["localhost", "127.0.0.1"]) {
      await using agent = new ContainerAgent({ sandboxId: "secure", broker: `https://${host}:${port}`, tls, logger });
      await agent.start();
      assert.ok((await agent.sendMessage("secure", 1)).sequence > 0);
    }
    const refused = async (endpoints: string, more: object) => {
      await using client = new Client({ endpoints, logger, attempts: 1, ...more });
      return await client.serverInfo().then(
        () => "let in",
        (error) => `${error.code}: ${error.message}`,
      );
    };
    assert.match(await refused(`https://localhost:${port}`, {}), /^UNREACHABLE: .*certificate/, "an unknown authority");
    assert.match(await refused(`https://localhost:${port}`, { tls: { caFile: tls.caFile } }), /^CONNECTION_LOST/);
    assert.match(await refused(`http://localhost:${port}`, {}), /^(CONNECTION_LOST|UNREACHABLE)/, "no TLS");
  } finally {
    await node.end();
    rmSync(folder, { recursive: true });
  }
});

test("an answer names the leader, and the client goes there when its endpoint is gone", {
  timeout: 90_000,
}, async () => {
  const deployment = await threeNodes();
  try {
    await using admin = new Client({ endpoints: deployment.endpoints });
    const { shardId } = await admin.workspaces.get("default");
    const leader = (await admin.serverInfo()).shards.find(({ id }) => id === shardId)?.leaderNodeId ?? 0;
    const follower = deployment.endpoints[leader % 3] ?? "";
    assert.notEqual(follower, deployment.endpoints[leader - 1]);
    await admin.registry.register({ sandbox: "a" });
    for (const followLeader of [true, false]) {
      const proxy = await new CuttableProxy(follower).start();
      await using client = new Client({ endpoints: proxy.endpoint, followLeader, attempts: 3, logger });
      const publish = () => client.publish({ from: "a", to: "a", content: 1 });
      await publish();
      await delay(500);
      proxy.refusing = true;
      proxy.cut();
      if (followLeader) assert.ok((await publish()).sequence > 0);
      else await assert.rejects(publish(), { retryable: true });
      await proxy.stop();
    }
  } finally {
    await deployment.stop();
  }
});
