import assert from "node:assert/strict";
import { test } from "node:test";
import { problemOf } from "../../src/control_plane/problem.js";
import { Rest } from "../../src/control_plane/rest.js";
import { RestSandboxes } from "../../src/control_plane/sandboxes.js";
import { readEvents } from "../../src/control_plane/sse.js";
import { silentLogger } from "../../src/logger.js";
import { mismatch } from "../conformance/expectation.js";

function streamOf(...chunks: string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
      controller.close();
    },
  });
}

test("events are read however they are cut", async () => {
  const text = ": hello\r\nid: 7\nevent: told\ndata: {\ndata:}\n\ndata: last\n\ndata: half";
  for (const size of [1, 3, 1_000]) {
    const chunks = text.match(new RegExp(`[\\s\\S]{1,${size}}`, "g")) ?? [];
    const seen = [];
    for await (const event of readEvents(streamOf(...chunks))) seen.push(event);
    assert.deepEqual(seen, [
      { id: "7", event: "told", data: "{\n}" },
      { id: undefined, event: "message", data: "last" },
    ]);
  }
});

test("a problem document becomes an error with its fields", () => {
  const body = JSON.stringify({ code: "INVALID_FIELD", detail: "no", errors: [{ field: "name", detail: "is empty" }] });
  const error = problemOf(400, new Headers({ "x-request-id": "r1" }), body);
  assert.deepEqual([error.code, error.status, error.requestId, error.retryable], ["INVALID_FIELD", 400, "r1", false]);
  assert.deepEqual(error.fields, [{ field: "name", description: "is empty" }]);
  const busy = problemOf(503, new Headers({ "retry-after": "2" }), "<html>");
  assert.deepEqual([busy.code, busy.retryable, busy.retryAfterMs], ["HTTP_503", true, 2_000]);
});

/** Answers with these, one after the other, and notes what was asked. */
function playing(answers: (() => Response | Promise<Response>)[]) {
  const asked: { url: string; key: string | null; method?: string | undefined; body?: string }[] = [];
  const play = async (url: unknown, init?: RequestInit): Promise<Response> => {
    const key = new Headers(init?.headers).get("idempotency-key");
    asked.push({ url: String(url), key, method: init?.method, body: String(init?.body) });
    const next = answers.shift();
    assert.ok(next !== undefined, "asked once more than there are answers");
    return next();
  };
  return { asked, rest: new Rest({ url: "http://x:1/", fetch: play as typeof fetch, logger: silentLogger }) };
}

const unavailable = () => new Response('{"code":"BROKER_UNAVAILABLE"}', { status: 503 });
const lost = () => Promise.reject(new TypeError("fetch failed", { cause: { code: "ECONNRESET" } }));

test("a POST is tried again with the same key", async () => {
  const { asked, rest } = playing([unavailable, lost, () => new Response('{"ok":true}')]);
  assert.deepEqual(await rest.json("POST", "/messages", { body: {} }), { ok: true });
  assert.equal(asked.length, 3);
  assert.match(asked[0]?.key ?? "", /^[0-9a-f-]{36}$/);
  assert.equal(new Set(asked.map(({ key }) => key)).size, 1);
});

test("what may have been done and must not be done twice is not tried again", async () => {
  const { asked, rest } = playing([lost]);
  await assert.rejects(rest.json("POST", "/api-keys", { body: {}, idempotencyKey: false }), {
    code: "CONNECTION_LOST",
    outcomeUnknown: true,
  });
  assert.equal(asked.length, 1);
});

test("pages are read when they are needed", async () => {
  const page = (items: number[], cursor?: string) => () => Response.json({ items, next_cursor: cursor ?? null });
  const { asked, rest } = playing([page([1, 2], "c 1"), page([], "c2"), page([3])]);
  const seen: number[] = [];
  type Page = { items: number[]; next_cursor: string | null };
  for await (const item of rest.pages<Page, number>("/things", { limit: 2 }, ({ items }) => items)) seen.push(item);
  assert.deepEqual(seen, [1, 2, 3]);
  assert.deepEqual(
    asked.map(({ url }) => url.replace("http://x:1/api/v1/things", "")),
    ["?limit=2", "?limit=2&cursor=c+1", "?limit=2&cursor=c2"],
  );
});

test("sandboxes are asked for as the API has them", async () => {
  const sandbox = () => Response.json({ id: "s/1", state: "running" }, { headers: { etag: '"3"' } });
  const log =
    'event: line\ndata: {"text":"hello"}\n\nevent: problem\ndata: {"code":"RUNTIME_UNAVAILABLE","detail":"gone"}\n\n';
  const { asked, rest } = playing([
    sandbox,
    sandbox,
    () => Response.json({ lines: [{ text: "hello" }] }),
    () => new Response(log, { headers: { "content-type": "text/event-stream" } }),
    () => Response.json({ exit_code: 0 }),
    sandbox,
    sandbox,
    () => new Response(null, { status: 204 }),
  ]);
  const sandboxes = new RestSandboxes(rest);
  await sandboxes.create({ workspace_id: "shop", name: "cart", resources: { memory_mb: 512 } });
  assert.equal((await sandboxes.get("s/1")).etag, '"3"');
  assert.deepEqual(await sandboxes.getLogs("s/1", { tail: 5 }), [{ text: "hello" }]);
  const seen: unknown[] = [];
  const follow = async () => {
    for await (const line of sandboxes.followLogs("s/1")) seen.push(line);
  };
  await assert.rejects(follow(), { code: "RUNTIME_UNAVAILABLE", message: "gone" });
  assert.deepEqual(seen, [{ text: "hello" }]);
  assert.equal((await sandboxes.exec("s/1", ["ls"], { timeoutSeconds: 5 })).exit_code, 0);
  await sandboxes.restart("s/1");
  const change = { image: null, resources: { memory_mb: 64, timeout_seconds: null }, environment: { A: "b", C: null } };
  await sandboxes.update("s/1", change, { ifMatch: '"3"' });
  assert.equal(await sandboxes.delete("s/1"), undefined);
  assert.deepEqual(
    asked.map(({ method, url }) => `${method} ${url.replace("http://x:1/api/v1/sandboxes", "")}`),
    [
      "POST ",
      "GET /s%2F1",
      "GET /s%2F1/logs?tail=5",
      "GET /s%2F1/logs?follow=true",
      "POST /s%2F1/exec",
      "POST /s%2F1/restart",
      "PATCH /s%2F1",
      "DELETE /s%2F1",
    ],
  );
  assert.deepEqual(JSON.parse(asked[4]?.body ?? ""), { command: ["ls"], timeout_seconds: 5 });
  assert.deepEqual(JSON.parse(asked[6]?.body ?? ""), change);
});

test("expectations of scenarios are exact, but for what they leave open", () => {
  assert.equal(mismatch({ a: 1, b: 2 }, { a: 1 }), undefined);
  assert.equal(mismatch({ a: [1, 2] }, { a: { unordered: [2, 1] } }), undefined);
  assert.equal(mismatch({ a: 3 }, { a: { at_least: 2 } }), undefined);
  for (const [actual, expected] of [
    [{ a: 1 }, { a: 2 }],
    [{ a: [1] }, { a: [1, 2] }],
    [{ a: 1 }, { a: { at_least: 2 } }],
    [{ a: "" }, { a: { any: true } }],
    [{ a: "xyz" }, { a: { contains: "b" } }],
    [{ a: [1, 1] }, { a: { unordered: [1, 2] } }],
    [{ content: { n: 1, m: 2 } }, { content: { n: 1 } }],
  ]) {
    assert.notEqual(mismatch(actual, expected), undefined, JSON.stringify(expected));
  }
});
