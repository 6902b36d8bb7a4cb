import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, ControlPlane, collect, ProblemError, type RestEvent } from "@aintandem/sdk";
import { type Deployment, oneNode } from "./brokers/deployment.js";
import { freePorts } from "./brokers/node_process.js";

let deployment: Deployment;
let plane: ControlPlane;
let client: Client;
const workspace_id = "shop";

before(async () => {
  deployment = await oneNode({ controlPlane: true });
  plane = new ControlPlane({ url: deployment.rest ?? "" });
  await plane.workspaces.create({ id: workspace_id, name: "The shop" });
  client = new Client({ endpoints: deployment.endpoints, workspaceId: workspace_id });
  for (const sandbox of ["alice", "bob"]) {
    await client.registry.register({ sandbox, agents: [{ name: `agent-${sandbox}`, capabilities: ["review"] }] });
  }
});
after(async () => {
  await client.close();
  await deployment.stop();
});

test("workspaces are made, read, changed with care, listed and deleted", async () => {
  for (const name of ["one", "two", "three"]) await plane.workspaces.create({ id: `w-${name}`, name: `w ${name}` });
  const one = await plane.workspaces.get("w-one");
  assert.deepEqual([one.name, one.state], ["w one", "active"]);
  const ifMatch = one.etag ?? "";
  const changed = await plane.workspaces.update("w-one", { description: "first" }, { ifMatch });
  assert.equal(changed.description, "first");
  await assert.rejects(plane.workspaces.update("w-one", { description: "late" }, { ifMatch }), {
    code: "REVISION_CHANGED",
  });
  const listed = await collect(plane.workspaces.list({ name_prefix: "w ", sort: "name", limit: 1 }));
  assert.deepEqual(
    listed.map(({ id }) => id),
    ["w-one", "w-three", "w-two"],
  );
  await plane.workspaces.delete("w-one", { force: true });
  await assert.rejects(plane.workspaces.get("w-one"), { code: "UNKNOWN_WORKSPACE", status: 404 });
});

test("a problem names its fields and its request", async () => {
  const error = await plane.workspaces
    .create({ name: "", settings: { max_hops: -1 } }, { requestId: "req-42" })
    .catch((thrown: unknown) => thrown);
  assert.ok(error instanceof ProblemError);
  assert.deepEqual(
    [error.code, error.status, error.requestId, error.retryable],
    ["INVALID_FIELD", 400, "req-42", false],
  );
  assert.ok(error.fields.length > 0, JSON.stringify(error));
});

test("the same key makes one workspace", async () => {
  const once = { id: "keyed", name: "keyed" };
  const first = await plane.workspaces.create(once, { idempotencyKey: "k-1" });
  const again = await plane.workspaces.create(once, { idempotencyKey: "k-1" });
  assert.equal(again.revision, first.revision);
  await assert.rejects(plane.workspaces.create(once), { code: "WORKSPACE_EXISTS" });
});

test("messages are sent, found and listed", async () => {
  const content = { q: "is the build green?" };
  const message = { workspace_id, from_sandbox_id: "alice", type: "request" as const, content };
  const sent = await plane.messages.send({ ...message, to: { sandbox_id: "bob" }, message_id: "m-1" });
  assert.deepEqual([sent.message_id, sent.duplicate], ["m-1", false]);
  await plane.messages.broadcast({ ...message, type: "notification" });
  assert.deepEqual((await plane.messages.get(workspace_id, "m-1")).content, content);
  const all = await collect(plane.messages.list({ workspace_id, limit: 1 }));
  assert.equal(all.length, 2);
  const found = await plane.agents.discover({ workspace_id, capability: "review" });
  assert.deepEqual(found.items.map(({ name }) => name).sort(), ["agent-alice", "agent-bob"]);
});

test("policies, approvals and the audit", async () => {
  const rules = [{ from: "bob", to: "alice", approval_required: true }];
  await plane.policies.set(workspace_id, { policy: "deny_list", rules });
  const { etag, revision } = await plane.policies.get(workspace_id);
  assert.ok(revision >= 1);
  const message = { workspace_id, from_sandbox_id: "bob", to: { sandbox_id: "alice" }, content: 1 };
  const held = await plane.messages.send({ ...message, type: "notification" });
  assert.ok(held.approval_id);
  const waiting = await plane.approvals.list({ workspace_id, state: "waiting" });
  assert.deepEqual(
    waiting.items.map(({ id }) => id),
    [held.approval_id],
  );
  const ended = await plane.approvals.approve(workspace_id, held.approval_id, "fine");
  assert.equal(ended.state, "approved");
  await assert.rejects(plane.approvals.deny(workspace_id, held.approval_id), { code: "APPROVAL_ENDED" });
  await plane.policies.remove(workspace_id, { ifMatch: etag ?? "" });
  const kinds = new Set((await collect(plane.audit.list({ workspace_id }))).map(({ kind }) => kind));
  assert.ok(kinds.size > 1, [...kinds].join());
});

test("dead letters are listed and put back", async () => {
  await client.publish({ from: "alice", to: "bob", content: 1, id: "doomed" });
  await using inbox = await client.subscribe({ sandbox: "bob" });
  for await (const delivery of inbox) {
    if (delivery.message.id === "doomed") {
      await delivery.nack("never", { deadLetter: true });
      break;
    }
    await delivery.ack();
  }
  const letters = await plane.deadLetters.list({ workspace_id, sandbox_id: "bob" });
  assert.deepEqual(
    letters.items.map(({ message, reason }) => [message?.message_id, reason]),
    [["doomed", "rejected"]],
  );
  assert.deepEqual(await plane.deadLetters.redrive({ workspace_id, sandbox_id: "bob" }), { redriven: 1, skipped: 0 });
});

test("events are followed from a cursor", async () => {
  const { next_event } = await plane.events.list({ workspace_id, from_event: 1 });
  const abort = new AbortController();
  const seen: RestEvent[] = [];
  const reading = (async () => {
    for await (const event of plane.events.follow({ workspace_id, from_event: next_event }, { signal: abort.signal })) {
      seen.push(event);
      if (seen.length === 2) return;
    }
  })();
  for (const sandbox of ["carol", "dave"]) await client.registry.register({ sandbox });
  await reading;
  assert.deepEqual(
    seen.map(({ sandbox_id }) => sandbox_id),
    ["carol", "dave"],
  );
  abort.abort();
});

test("a control plane that is away is told", async () => {
  const [port] = await freePorts(1);
  const away = new ControlPlane({ url: `http://127.0.0.1:${port}`, attempts: 2 });
  await assert.rejects(away.workspaces.get("x"), { code: "UNREACHABLE", retryable: true });
  assert.throws(() => new ControlPlane({ url: "localhost:8000" }), { code: "INVALID_ENDPOINT" });
});

test("sandboxes that do not exist are a problem like others", async () => {
  await assert.rejects(plane.sandboxes.get("nobody"), (error: ProblemError) => error.status === 404);
});
