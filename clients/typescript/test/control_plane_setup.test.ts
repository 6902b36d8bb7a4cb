// What is set up in a workspace: models, tools, alerts, and who takes part.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Client, ControlPlane, collect, type NewRestMcpServer, type RestAlert } from "@aintandem/sdk";
import { type Deployment, oneNode } from "./brokers/deployment.js";

let deployment: Deployment;
let plane: ControlPlane;
let client: Client;
const workspace_id = "shop";
const secret = "abcdefghijklmnopqrstuvwxyz";

before(async () => {
  deployment = await oneNode({ controlPlane: true });
  plane = new ControlPlane({ url: deployment.rest ?? "" });
  await plane.workspaces.create({ id: workspace_id, name: "The shop" });
  client = new Client({ endpoints: deployment.endpoints, workspaceId: workspace_id });
});
after(async () => {
  await client.close();
  await deployment.stop();
});

/** No secret comes back, wherever it went in. */
function withoutSecret<T>(shown: T): T {
  assert.ok(!JSON.stringify(shown).includes(secret), JSON.stringify(shown));
  return shown;
}

test("a provider is made, read, changed with care and deleted, and its secrets stay where they are", async () => {
  const { llmProviders } = plane;
  const headers = { "X-Team": "shop", "X-Pin": { secret }, "X-Short": { secret: "1234" } };
  const wanted = { workspace_id, name: "main", kind: "openai" as const, models: ["small", "large"], headers };
  const made = withoutSecret(await llmProviders.create({ ...wanted, default_model: "large", api_key: secret }));
  assert.deepEqual(
    [made.base_url, made.default_model, made.has_api_key, made.api_key_last_four],
    ["https://api.openai.com/v1", "large", true, "wxyz"],
  );
  const pin = { has_secret: true, last_four: "wxyz" };
  assert.deepEqual(made.headers, { "X-Team": "shop", "X-Pin": pin, "X-Short": { has_secret: true } });

  const { etag, ...read } = withoutSecret(await llmProviders.get(made.id));
  assert.deepEqual([read, etag], [made, `"${made.revision}"`]);
  const ifMatch = etag ?? "";
  const change = { default_model: null, api_key: null, headers: { ...read.headers, "X-Team": null, "X-New": "y" } };
  const changed = withoutSecret(await llmProviders.update(made.id, change, { ifMatch }));
  assert.deepEqual(
    [changed.default_model, changed.has_api_key, changed.api_key_last_four, changed.revision > made.revision],
    [undefined, false, undefined, true],
  );
  assert.deepEqual(changed.headers, { "X-Pin": pin, "X-Short": { has_secret: true }, "X-New": "y" });
  await assert.rejects(llmProviders.update(made.id, { name: "late" }, { ifMatch }), { code: "REVISION_CHANGED" });
  await assert.rejects(llmProviders.delete(made.id, { ifMatch }), { code: "REVISION_CHANGED", status: 412 });
  await llmProviders.delete(made.id);
  await assert.rejects(llmProviders.get(made.id), { code: "UNKNOWN_LLM_PROVIDER", status: 404 });
});

test("providers are listed by name, and what cannot be is named", async () => {
  const { llmProviders } = plane;
  const local = { workspace_id, kind: "ollama" as const };
  for (const name of ["p one", "p three", "p two", "other"]) await llmProviders.create({ ...local, name });
  const filter = { workspace_id, name_prefix: "p ", sort: "-name" as const, limit: 1 };
  const listed = await collect(llmProviders.list(filter));
  assert.deepEqual(
    listed.map(({ name, default_model, models, headers }) => [name, default_model, models, headers]),
    ["p two", "p three", "p one"].map((name) => [name, undefined, [], {}]),
  );
  await assert.rejects(llmProviders.create({ ...local, name: "p one" }), { code: "NAME_TAKEN", status: 409 });
  await assert.rejects(llmProviders.create({ workspace_id, name: "x", kind: "custom" }), {
    code: "INVALID_FIELD",
    message: /base_url/,
  });
  await assert.rejects(llmProviders.create({ ...local, name: "x", workspace_id: "none" }), {
    code: "UNKNOWN_WORKSPACE",
  });
  const again = { idempotencyKey: "k-provider" };
  const first = await llmProviders.create({ ...local, name: "once" }, again);
  assert.deepEqual(await llmProviders.create({ ...local, name: "once" }, again), first);
});

test("the default provider of a workspace goes only when that is said", async () => {
  const { llmProviders, workspaces } = plane;
  const { id } = await llmProviders.create({ workspace_id, name: "usual", kind: "anthropic", api_key: secret });
  await workspaces.update(workspace_id, { settings: { default_llm_provider: "usual" } });
  await assert.rejects(llmProviders.update(id, { name: "renamed" }), { code: "LLM_PROVIDER_IS_DEFAULT" });
  await assert.rejects(llmProviders.delete(id), { code: "LLM_PROVIDER_IS_DEFAULT", status: 409 });
  assert.equal(await llmProviders.delete(id, { unsetDefault: true }), undefined);
  assert.equal((await workspaces.get(workspace_id)).settings.default_llm_provider, undefined);
  const network = { allowed_hosts: ["api.openai.com:443"], send_kib_per_second: 1_024 };
  const { settings } = await workspaces.update(workspace_id, { settings: { network } });
  assert.deepEqual(settings.network, network);
});

test("MCP servers of both transports", async () => {
  const { mcpServers } = plane;
  const env = { TOKEN: { secret }, LOG: "warn" };
  const stdio = { workspace_id, name: "issues", transport: "stdio" as const, command: "mcp-issues" };
  const made = withoutSecret(await mcpServers.create({ ...stdio, args: ["--read-only"], env }));
  assert.ok(made.transport === "stdio");
  assert.deepEqual([made.command, made.args], ["mcp-issues", ["--read-only"]]);
  assert.deepEqual(made.env, { TOKEN: { has_secret: true, last_four: "wxyz" }, LOG: "warn" });
  const { etag } = await mcpServers.get(made.id);
  const ifMatch = etag ?? "";
  const less = withoutSecret(await mcpServers.update(made.id, { args: null, env: { LOG: null } }, { ifMatch }));
  assert.ok(less.transport === "stdio");
  assert.deepEqual([less.args, Object.keys(less.env ?? {})], [undefined, ["TOKEN"]]);
  await assert.rejects(mcpServers.delete(made.id, { ifMatch }), { code: "REVISION_CHANGED" });

  // Another transport takes with it what only the one before had.
  const headers = { Authorization: { secret } };
  const moved = await mcpServers.update(made.id, { transport: "http", url: "https://mcp.example/", headers });
  assert.ok(withoutSecret(moved).transport === "http" && !("command" in moved) && !("env" in moved));
  const web = { workspace_id, name: "web", transport: "http" as const, url: "https://web.example/" };
  await mcpServers.create(web);
  const listed = await collect(mcpServers.list({ workspace_id, sort: "name", limit: 1 }));
  assert.deepEqual(
    listed.map(({ name, transport }) => [name, transport]),
    [
      ["issues", "http"],
      ["web", "http"],
    ],
  );
  // @ts-expect-error: it has the parts of both.
  const both: NewRestMcpServer = { workspace_id, name: "both", transport: "stdio", command: "x", url: "https://a" };
  await assert.rejects(mcpServers.create(both), { code: "INVALID_FIELD", message: /url/ });
  await mcpServers.delete(made.id);
  await assert.rejects(mcpServers.get(made.id), { code: "UNKNOWN_MCP_SERVER", status: 404 });
});

test("rules of alerts are made, read, changed with care, listed and deleted", async () => {
  const { rules } = plane.alerts;
  const signed = `whsec_${randomBytes(32).toString("base64")}`;
  const webhook = { url: "https://hooks.example/x", secret: signed };
  const made = await rules.create({
    workspace_id,
    name: "mail piles up",
    condition: { event: "message_dead_lettered", sandbox_id: "backend", count: 10 },
    webhook,
  });
  assert.ok(!JSON.stringify(made).includes(signed));
  const condition = { event: "message_dead_lettered", sandbox_id: "backend", count: 10, window_seconds: 60 };
  assert.deepEqual(
    [made.enabled, made.severity, made.quiet_seconds, made.condition, made.webhook],
    [true, "warning", 300, condition, { url: webhook.url, has_secret: true }],
  );
  const { etag, ...read } = await rules.get(made.id);
  assert.deepEqual(read, made);
  const ifMatch = etag ?? "";
  const change = { enabled: false, severity: "critical" as const, condition: { sandbox_id: null, count: 2 } };
  const moved = { webhook: { url: "https://hooks.example/y" } };
  const changed = await rules.update(made.id, { ...change, ...moved }, { ifMatch });
  assert.deepEqual(changed.condition, { event: "message_dead_lettered", count: 2, window_seconds: 60 });
  assert.deepEqual(
    [changed.enabled, changed.severity, changed.webhook?.url],
    [false, "critical", "https://hooks.example/y"],
  );
  await assert.rejects(rules.delete(made.id, { ifMatch }), { code: "REVISION_CHANGED" });
  assert.equal((await rules.update(made.id, { webhook: null })).webhook, undefined);
  await assert.rejects(rules.update(made.id, { webhook: { url: "https://hooks.example/z" } }), {
    code: "INVALID_FIELD",
    message: /secret/,
  });
  const listed = await collect(rules.list({ workspace_id, name_prefix: "mail" }));
  assert.deepEqual(
    listed.map(({ id }) => id),
    [made.id],
  );
  await rules.delete(made.id);
  await assert.rejects(rules.get(made.id), { code: "UNKNOWN_ALERT_RULE", status: 404 });
});

async function firstAlert(rule_id: string): Promise<RestAlert> {
  const endMs = performance.now() + 30_000;
  for (;;) {
    const [alert] = await collect(plane.alerts.list({ workspace_id, rule_id, state: "open" }));
    if (alert !== undefined) return alert;
    assert.ok(performance.now() < endMs, "no alert has fired");
    await delay(100);
  }
}

test("it is seen who takes part, a sandbox is disconnected, and the alert of that is acknowledged", async () => {
  const { alerts, collaboration } = plane;
  const rule = await alerts.rules.create({ workspace_id, name: "cut off", condition: { event: "disconnected" } });
  const agents = [{ name: "agent-alice", role: "review", capabilities: ["review"] }];
  await client.registry.register({ sandbox: "alice", agents, labels: { team: "a" } });
  await client.registry.register({ sandbox: "bob" });
  for (const content of [1, 2]) await client.publish({ from: "bob", to: "alice", content });

  const status = await collaboration.status(workspace_id);
  assert.deepEqual(
    [status.workspace_id, status.sandboxes, status.online + status.offline, status.agents, status.pending_messages],
    [workspace_id, 2, 2, 1, 2],
  );
  assert.deepEqual([status.last_sequence >= 2, status.dead_letters, status.truncated], [true, 0, false]);
  const { items, truncated } = await collaboration.sandboxes({ workspace_id });
  assert.deepEqual(
    items.map(({ sandbox_id, agents, labels, pending_messages }) => [sandbox_id, agents, labels, pending_messages]),
    [
      ["alice", agents, { team: "a" }, 2],
      ["bob", [], {}, 0],
    ],
  );
  assert.equal(truncated, false);
  assert.deepEqual((await collaboration.sandboxes({ workspace_id, limit: 1 })).truncated, true);
  const online = await collaboration.sandboxes({ workspace_id, online: true });
  const offline = await collaboration.sandboxes({ workspace_id, online: false });
  assert.deepEqual([online.items.length, offline.items.length], [status.online, status.offline]);
  await assert.rejects(collaboration.status("none"), { code: "UNKNOWN_WORKSPACE", status: 404 });

  // An open broker has no keys that could be revoked.
  const wanted = { workspace_id, sandbox_id: "alice", reason: "it runs wild", unregister: true };
  assert.deepEqual(await collaboration.disconnect(wanted), {
    workspace_id,
    sandbox_id: "alice",
    revoked_api_keys: [],
    revoked_tokens: [],
    unregistered: true,
    abandoned_messages: 2,
  });
  await assert.rejects(collaboration.disconnect({ workspace_id, sandbox_id: "nobody" }), { code: "UNKNOWN_SANDBOX" });

  const alert = await firstAlert(rule.id);
  assert.deepEqual(
    [alert.rule_name, alert.event, alert.sandbox_id, alert.severity, alert.count, alert.delivery],
    ["cut off", "disconnected", "alice", "warning", 1, { state: "none", attempts: 0 }],
  );
  assert.match(alert.text, /it runs wild/);
  await assert.rejects(alerts.acknowledge(alert.id, { ifMatch: '"0"' }), { code: "REVISION_CHANGED" });
  const seen = await alerts.acknowledge(alert.id, { ifMatch: `"${alert.revision}"` });
  assert.deepEqual([seen.state, seen.revision > alert.revision], ["acknowledged", true]);
  assert.ok(seen.acknowledge_time !== undefined);
  assert.deepEqual(await alerts.acknowledge(alert.id), seen);
  await assert.rejects(alerts.acknowledge("none"), { code: "UNKNOWN_ALERT", status: 404 });
  const acknowledged = await collect(alerts.list({ workspace_id, state: "acknowledged" }));
  assert.deepEqual(
    acknowledged.map(({ id }) => id),
    [alert.id],
  );
});
