import assert from "node:assert/strict";
import { test } from "node:test";
import { toBinary } from "@bufbuild/protobuf";
import { responseId } from "../../src/agent/worker.js";
import { Client } from "../../src/client.js";
import { MessageSchema } from "../../src/gen/aintandem/messaging/v1/message_pb.js";
import { newId } from "../../src/ids.js";
import { checkSize, encodeContent, Message, toWire } from "../../src/message.js";
import { fromDuration, fromTimestamp, toDuration, toNumber, toTimestamp } from "../../src/wire_time.js";

const message = (content: unknown, more: object = {}) => new Message(toWire({ from: "a", to: "b", content, ...more }));

test("content goes there and back as its type says", () => {
  for (const content of [{ a: [1, "two", null] }, "text", 0, null, false])
    assert.deepEqual(message(content).content, content);
  assert.deepEqual(message(new Uint8Array([1, 2])).content, new Uint8Array([1, 2]));
  assert.equal(message("hello", { contentType: "text/plain" }).content, "hello");
  assert.equal(message(new Uint8Array([0x7b, 0x7d]), { contentType: "application/problem+json" }).text, "{}");
});

test("what does not serialise is told, and why", () => {
  const circle: Record<string, unknown> = {};
  circle["self"] = circle;
  for (const content of [undefined, () => {}, 1n, circle, Symbol("x")]) {
    assert.throws(() => encodeContent(content), { code: "CONTENT_NOT_SERIALIZABLE" }, String(content));
  }
  assert.throws(() => encodeContent({ a: 1 }, "text/plain"), {
    code: "CONTENT_NOT_SERIALIZABLE",
    message: /text\/plain/,
  });
});

test("what no request has room for is refused before anything is sent", async () => {
  const wire = (bytes: number) =>
    toWire({ from: "a", to: "b", content: new Uint8Array(bytes), metadata: { key: "ä" } });
  const besideContent = toBinary(MessageSchema, wire(15 << 20)).length - (15 << 20);
  const most = (16 << 20) - 1024 - besideContent;
  checkSize(wire(most));
  assert.throws(() => checkSize(wire(most + 1)), { code: "MESSAGE_TOO_LARGE", retryable: false, name: "RefusedError" });
  // Nobody listens there: what is told is told without asking anybody.
  const client = new Client({ endpoints: "http://127.0.0.1:1" });
  const publisher = client.publisher({ maxMessageBytes: 64 << 20 });
  const large = { from: "a", to: "b", content: new Uint8Array(16 << 20) };
  const expected = { code: "MESSAGE_TOO_LARGE", retryable: false, message: /this client sends at most 16777216/ };
  await assert.rejects(client.publish(large), expected);
  await assert.rejects(client.request(large), expected);
  await assert.rejects(publisher.publish(large), expected);
  assert.equal(publisher.pending, 0, "it has no number");
  await client.close();
});

test("what is no JSON is told when it is read", () => {
  const broken = message(new TextEncoder().encode("{"), { contentType: "application/json", id: "m1" });
  assert.throws(() => broken.content, { code: "CONTENT_NOT_READABLE", message: /m1 from a/ });
  assert.equal(broken.text, "{");
});

test("every destination goes there and back", () => {
  const all = [
    "bob",
    { topic: "build.linux" },
    { broadcast: true as const },
    { capability: "review", all: true, wait: false },
  ];
  for (const to of all) assert.deepEqual(message(1, { to }).to, to);
  assert.equal(message(1, { to: { sandbox: "bob" } }).to, "bob");
});

test("a response that the broker gives is an error with its reason", () => {
  const content = { error: "REJECTED", text: "no credentials", sequence: 41 };
  const told = message(content, { metadata: { "aintandem-error": "REJECTED" } }).undeliverable;
  assert.equal(told?.code, "REJECTED");
  assert.equal(told?.requestSequence, 41);
  assert.match(told?.message ?? "", /no credentials/);
  assert.equal(message(content).undeliverable, undefined);
  const odd = message("gone", { contentType: "text/plain", metadata: { "aintandem-error": "EXPIRED" } }).undeliverable;
  assert.match(odd?.message ?? "", /EXPIRED.*gone/);
});

test("a log line of a message holds no content", () => {
  assert.equal(JSON.stringify(message({ secret: "s3cr3t" })).includes("s3cr3t"), false);
});

test("durations and times go there and back", () => {
  for (const ms of [0, 1, 999, 1_500, 86_400_000]) assert.equal(fromDuration(toDuration(ms)), ms);
  for (const ms of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => toDuration(ms), { code: "INVALID_SETTING" });
  }
  for (const iso of ["2026-11-22T10:00:00.123Z", "1969-12-31T23:59:59.500Z"]) {
    assert.equal(fromTimestamp(toTimestamp(new Date(iso)))?.toISOString(), iso);
  }
  assert.throws(() => toTimestamp(new Date("never")), { code: "INVALID_SETTING" });
  assert.throws(() => toNumber(2n ** 60n), { code: "CONTRACT_BROKEN" });
});

test("ids are different, and sort by time", () => {
  assert.notEqual(newId(), newId());
  assert.ok(newId(1_000) < newId(2_000));
  assert.match(newId(), /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("the id of a response is that of its request, where there is room", () => {
  assert.equal(responseId("seq-5"), "re:seq-5");
  assert.equal(responseId("x".repeat(125))?.length, 128);
  assert.equal(responseId("x".repeat(126)), undefined);
});
