import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { DoneMessages } from "../../src/agent/done_messages.js";
import { LeaseLostError } from "../../src/errors.js";
import { AckRefusalSchema } from "../../src/gen/aintandem/messaging/v1/subscribe_service_pb.js";
import { type SubscribeRequest, Verdicts } from "../../src/subscribe/verdicts.js";

function show({ kind }: SubscribeRequest): string {
  if (kind?.case !== "ack" && kind?.case !== "nack" && kind?.case !== "extend") return "?";
  const ranges = (kind.value.ranges ?? []).map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`));
  const reason = kind.case === "nack" ? ` ${kind.value.reason} ${kind.value.deadLetter}` : "";
  return `${kind.case} ${ranges.join(" ")}${reason}`;
}

function all(verdicts: Verdicts): string[] {
  const shown: string[] = [];
  for (let next = verdicts.take(); next !== undefined; next = verdicts.take()) shown.push(show(next));
  return shown;
}

test("neighbours of one kind go together and the order stays", () => {
  const verdicts = new Verdicts();
  void verdicts.ack(1);
  void verdicts.ack(2);
  void verdicts.nack(3, "busy", {});
  void verdicts.nack(4, "busy", {});
  void verdicts.nack(5, "broken", { deadLetter: true });
  void verdicts.ack(6);
  void verdicts.extend(1, 9, undefined);
  assert.deepEqual(all(verdicts), ["ack 1 2", "nack 3 4 busy false", "nack 5 broken true", "ack 6", "extend 1-9"]);
});

test("a second word about a delivery gets its own outcome", () => {
  const verdicts = new Verdicts();
  void verdicts.ack(1);
  void verdicts.ack(2);
  void verdicts.ack(1);
  assert.deepEqual(all(verdicts), ["ack 1 2", "ack 1"]);
});

test("a request has 1,024 ranges at the most", () => {
  const verdicts = new Verdicts();
  for (let id = 1; id <= 1_500; id++) void verdicts.ack(id);
  assert.deepEqual(
    all(verdicts).map((shown) => shown.split(" ").length - 1),
    [1_024, 476],
  );
});

test("a refusal is told to the one whose delivery it names", async () => {
  const verdicts = new Verdicts();
  const told = [1, 2, 3].map((id) =>
    verdicts.ack(id).then(
      () => "done",
      (error) => error.message,
    ),
  );
  all(verdicts);
  const refused = create(AckRefusalSchema, {
    range: { first: 2n, last: 2n },
    status: { code: 9, message: "too late" },
  });
  verdicts.settle("ack", [refused]);
  assert.deepEqual(await Promise.all(told), ["done", "too late", "done"]);
  assert.equal(verdicts.isEmpty, true);
  assert.throws(() => verdicts.settle("ack", []), { code: "CONTRACT_BROKEN" });
});

test("when the stream is gone every verdict is told so, sent or not", async () => {
  const verdicts = new Verdicts();
  const sent = verdicts.ack(1);
  all(verdicts);
  const waits = verdicts.nack(2, "no", {});
  verdicts.failAll(() => new LeaseLostError("gone"));
  await assert.rejects(sent, { code: "LEASE_LOST" });
  await assert.rejects(waits, { code: "LEASE_LOST" });
});

test("a reason is cut at a character", () => {
  const verdicts = new Verdicts();
  void verdicts.nack(1, "ü".repeat(2_000), {});
  const request = verdicts.take();
  const reason = request?.kind?.case === "nack" ? (request.kind.value.reason ?? "") : "";
  const bytes = new TextEncoder().encode(reason).length;
  assert.ok(bytes <= 1_024 && bytes > 1_000, String(bytes));
  assert.match(reason, /^ü+$/);
});

test("wrong durations are told before anything is sent", () => {
  assert.throws(() => new Verdicts().nack(1, "x", { delayMs: -1 }), { code: "INVALID_SETTING" });
  assert.throws(() => new Verdicts().extend(1, 1, Number.NaN), { code: "INVALID_SETTING" });
});

test("messages that are done are remembered for a while, and a bounded number", () => {
  const done = new DoneMessages();
  done.add("1", 0);
  assert.equal(done.has("1", 1_000), true);
  assert.equal(done.has("1", 11 * 60 * 1000), false);
  done.delete("1");
  assert.equal(done.has("1", 0), false);
  for (let number = 0; number < 20_000; number++) done.add(String(number), 0);
  assert.equal(done.has("0", 0), false);
  assert.equal(done.has("19999", 0), true);
});
