import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { agentSettingsOf } from "../../src/agent/settings.js";
import { Worker } from "../../src/agent/worker.js";
import { LeaseLostError } from "../../src/errors.js";
import { MessageSchema, MessageType } from "../../src/gen/aintandem/messaging/v1/message_pb.js";
import { silentLogger } from "../../src/logger.js";
import { Message } from "../../src/message.js";
import type { Publisher } from "../../src/publish/publisher.js";
import type { Delivery } from "../../src/subscribe/delivery.js";
import type { Subscription } from "../../src/subscribe/subscription.js";
import { deferred } from "../../src/waiting.js";

/** A delivery of the message with sequence 1, whose lease is lost where that is said. */
function delivery(messageId: string, seconds: number, said: string[], isLost = false): Delivery {
  const serverTime = { seconds: BigInt(seconds) };
  const message = new Message(
    create(MessageSchema, { messageId, sequence: 1n, serverTime, type: MessageType.NOTIFICATION }),
  );
  const ack = async () => {
    said.push(messageId);
    if (isLost) throw new LeaseLostError("gone");
  };
  return { message, attempt: 1, isLost, ack } as unknown as Delivery;
}

/** An inbox that hands out these, and ends. */
function inbox(...deliveries: Delivery[]): Subscription {
  const next = async () => {
    const value = deliveries.shift();
    return value === undefined ? { done: true, value } : { done: false, value };
  };
  return { next } as unknown as Subscription;
}

function workerOf(onMessage: (message: Message) => unknown): Worker {
  const settings = agentSettingsOf({ sandboxId: "worker", logger: silentLogger });
  return new Worker(settings, { onMessage, onRequest: undefined }, {} as Publisher);
}

test("work whose ack was lost is not done again; another message with its sequence is handled", async () => {
  // A broker that was restored gives sequences again; the last message had no id of its own, as the one before.
  const said: string[] = [];
  const handled: string[] = [];
  const worker = workerOf((message) => handled.push(`${message.id} ${message.serverTime.getTime()}`));
  const lost = delivery("m1", 1, said, true);
  const again = delivery("m1", 1, said, true);
  const other = delivery("m2", 1, said);
  const unnamed = [delivery("seq-1", 2, said, true), delivery("seq-1", 3, said)];
  await worker.loop(inbox(lost, again, other, ...unnamed));
  assert.deepEqual(handled, ["m1 1000", "m2 1000", "seq-1 2000", "seq-1 3000"]);
  assert.deepEqual(said, ["m1", "m1", "m2", "seq-1", "seq-1"]);
});

test("another message with the sequence of one that is at work does not wait for it", async () => {
  const go = deferred<void>();
  const said: string[] = [];
  const handled: string[] = [];
  const worker = workerOf((message) => {
    handled.push(message.id);
    return go.promise;
  });
  const loops = ["m1", "m1", "m2"].map((id) => worker.loop(inbox(delivery(id, 1, said))));
  while (worker.running < 3) await new Promise(setImmediate);
  assert.deepEqual(handled, ["m1", "m2"]);
  go.resolve();
  await Promise.all(loops);
  assert.deepEqual(said.sort(), ["m1", "m1", "m2"]);
});
