import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { AInTandemError } from "../../src/errors.js";
import { PublishStreamResponseSchema } from "../../src/gen/aintandem/messaging/v1/publish_service_pb.js";
import { ErrorInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.js";
import { toWire } from "../../src/message.js";
import { type Batch, Batches, type Pending } from "../../src/publish/batches.js";

/** What became of a message. */
interface Seen extends Pending {
  came?: string;
}

function pending(id: string, bytes = 10, expiresAtMs = 1_000): Seen {
  const seen: Seen = {
    message: toWire({ from: "a", to: "b", content: 1, id }),
    bytes,
    expiresAtMs,
    timeoutMs: 5,
    settled: false,
    resolve: (receipt) => {
      seen.came = `${receipt.id} ${receipt.sequence} ${receipt.duplicate} ${receipt.approvalId}`;
    },
    reject: (error) => {
      seen.came = `${error.code} ${error.outcomeUnknown}`;
    },
  };
  return seen;
}

function added(batches: Batches, ...messages: Seen[]): Seen[] {
  for (const message of messages) batches.add(message);
  return messages;
}

const take = (batches: Batches): Batch => {
  const batch = batches.take();
  assert.ok(batch !== undefined);
  return batch;
};

const answer = (batch: Batch, firstSequence: bigint, accepted: number, exceptions: object[] = []) =>
  create(PublishStreamResponseSchema, { requestId: batch.requestId, firstSequence, accepted, exceptions });

const refusal = (reason: string) => {
  const info = create(ErrorInfoSchema, { reason, domain: "aintandem.dev" });
  return create(StatusSchema, { code: 9, message: "no", details: [anyPack(ErrorInfoSchema, info)] });
};

test("batches keep to their limits, and a large message goes alone", () => {
  const batches = new Batches({ batchMessages: 2, batchBytes: 100 });
  added(batches, pending("1"), pending("2"), pending("3", 90), pending("4", 20), pending("5", 500));
  const ids = () => batches.take()?.messages.map(({ message }) => message.messageId);
  assert.deepEqual([ids(), ids(), ids(), ids(), ids()], [["1", "2"], ["3"], ["4"], ["5"], undefined]);
  assert.deepEqual([batches.messages, batches.bytes], [5, 630]);
});

test("positions rise without a gap, and what is taken back has none", () => {
  const batches = new Batches({ batchMessages: 2, batchBytes: 1_000 });
  const [first, second] = added(batches, pending("1"), pending("2"), pending("3"), pending("4"));
  assert.ok(batches.takeBack(second as Seen));
  const sent = [take(batches), take(batches)];
  assert.deepEqual(
    sent.map((batch) => batch.firstPosition),
    [1n, 3n],
  );
  assert.equal(batches.takeBack(first as Seen), false, "it was sent");
  assert.deepEqual(batches.unanswered, sent);
});

test("each message gets its own outcome", () => {
  const batches = new Batches({ batchMessages: 10, batchBytes: 1_000 });
  const seen = added(batches, pending(""), pending("dup"), pending("bad"), pending("held"), pending("last"));
  const batch = take(batches);
  const exceptions = [
    { index: 1, outcome: { case: "duplicateOf", value: 7n } },
    { index: 2, outcome: { case: "refusal", value: refusal("POLICY_DENIED") } },
    { index: 3, outcome: { case: "approvalId", value: 3n } },
  ];
  batches.answer(answer(batch, 100n, 2, exceptions));
  assert.deepEqual(
    seen.map(({ came }) => came),
    [
      "seq-100 100 false undefined",
      "dup 7 true undefined",
      "POLICY_DENIED false",
      "held 0 false 3",
      "last 104 false undefined",
    ],
  );
  assert.deepEqual([batches.messages, batches.bytes], [0, 0]);
});

test("an answer that does not fit is told", () => {
  const batches = new Batches({ batchMessages: 10, batchBytes: 1_000 });
  added(batches, pending("1"));
  const batch = take(batches);
  assert.throws(() => batches.answer(answer(batch, 1n, 5)), { code: "CONTRACT_BROKEN" });
  assert.throws(() => batches.answer(answer(batch, 1n, 1)), { code: "CONTRACT_BROKEN", message: /out of turn/ });
});

test("a refusal whose answer was lost is asked for again, at a new position", () => {
  const batches = new Batches({ batchMessages: 10, batchBytes: 1_000 });
  const [lost] = added(batches, pending("lost"));
  const exceptions = [{ index: 0, outcome: { case: "refusal", value: refusal("POSITION_REFUSED") } }];
  batches.answer(answer(take(batches), 0n, 0, exceptions));
  assert.equal(lost?.came, undefined);
  const again = take(batches);
  assert.equal(again.firstPosition, 2n);
  assert.equal(again.messages[0], lost);
});

test("a message whose time is up keeps its place once it was sent", () => {
  const batches = new Batches({ batchMessages: 1, batchBytes: 1_000 });
  const [sent, waits, later] = added(batches, pending("sent"), pending("waits"), pending("later", 10, 9_000));
  const batch = take(batches);
  batches.expire(2_000, undefined);
  assert.deepEqual([sent?.came, waits?.came, later?.came], ["TIMEOUT true", "TIMEOUT false", undefined]);
  assert.deepEqual(batches.unanswered, [batch]);
  batches.answer(answer(batch, 1n, 1));
  assert.equal(sent?.came, "TIMEOUT true", "the first word counts");
  assert.equal(take(batches).firstPosition, 2n, "what was taken back left no gap");
});

test("after an end for good everything has its error, and another producer begins", () => {
  const batches = new Batches({ batchMessages: 1, batchBytes: 1_000 });
  const seen = added(batches, pending("1"), pending("2"));
  const before = take(batches);
  batches.failAll(new AInTandemError("KEY_REVOKED", "no"));
  assert.deepEqual(
    seen.map(({ came }) => came),
    ["KEY_REVOKED false", "KEY_REVOKED false"],
  );
  assert.equal(batches.messages, 0);
  added(batches, pending("3"));
  const after = take(batches);
  assert.notEqual(after.producerId, before.producerId);
  assert.equal(after.firstPosition, 1n);
});
