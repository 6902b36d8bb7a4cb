// Runs every example as a program of its own, and looks at what it says.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client } from "@aintandem/sdk";
import { type Deployment, oneNode } from "./brokers/deployment.js";

const EXPECTED: Record<string, string[]> = {
  two_agents: [
    '{"file":"broker.rs","verdict":"approved"}',
    '{"file":"broker.cobol","verdict":"please write it in Rust"}',
  ],
  coordinator_and_workers: ["3 workers are online", "24 tasks done by 3 workers; together 576"],
  swarm_vote: ["3 of 5 say yes: released"],
  human_approval: [
    "policy 1 holds what needs a human",
    'restart: {"done":"restart"}',
    "drop the database: APPROVAL_DENIED",
  ],
  incident_investigation: [
    "deploys: one deploy in the last hour, at 10:00",
    "logs: 500s since 10:02",
    "metrics: latency tripled at 10:01",
    "a specialist failed: the request will not be answered (REJECTED): no access to the routers",
    "cause: deploy-417 (3 of 4)",
  ],
};
/** What examples import and what is none itself. */
const PARTS = ["incident_finding"];

const folder = fileURLToPath(new URL("../examples/", import.meta.url));
let deployment: Deployment;
before(async () => {
  deployment = await oneNode();
});
after(() => deployment.stop());

test("every example is run", () => {
  const names = readdirSync(folder).filter((file) => file.endsWith(".js"));
  assert.deepEqual(names.sort(), [...Object.keys(EXPECTED), ...PARTS].map((name) => `${name}.js`).sort());
});

for (const [name, lines] of Object.entries(EXPECTED)) {
  test(`the example ${name}`, { timeout: 60_000 }, async () => {
    const workspaceId = name.replaceAll("_", "-");
    await using client = new Client({ endpoints: deployment.endpoints });
    await client.workspaces.create(workspaceId);
    const env = { ...process.env, TANDEM_BROKER: deployment.endpoints.join(), TANDEM_WORKSPACE: workspaceId };
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [`${folder}${name}.js`], {
      env,
      timeout: 50_000,
    });
    assert.equal(stderr, "");
    // Agents work at once: only the last line has its place.
    const said = stdout.trim().split("\n");
    assert.deepEqual([...said].sort(), [...lines].sort());
    assert.equal(said.at(-1), lines.at(-1));
  });
}
