import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { after, test } from "node:test";
import { type Context, context, createContextKey, propagation, ROOT_CONTEXT } from "@opentelemetry/api";
import { Message, toWire } from "../../src/message.js";
import { activeTraceparent, inTraceOf } from "../../src/trace.js";

const PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const KEY = createContextKey("traceparent");
const storage = new AsyncLocalStorage<Context>();

// What a program with OpenTelemetry's SDK has set up: where contexts are kept, and how they travel.
context.setGlobalContextManager({
  active: () => storage.getStore() ?? ROOT_CONTEXT,
  with: (active, run, self, ...args) => storage.run(active, () => run.call(self as never, ...args)),
  bind: (_, target) => target,
  enable() {
    return this;
  },
  disable() {
    return this;
  },
});
propagation.setGlobalPropagator({
  inject: (active, carrier: Record<string, string>) => {
    const value = active.getValue(KEY);
    if (typeof value === "string") carrier["traceparent"] = value;
  },
  extract: (active, carrier: Record<string, string>) => active.setValue(KEY, carrier["traceparent"]),
  fields: () => ["traceparent"],
});
after(() => {
  context.disable();
  propagation.disable();
});

test("a message takes the trace of the active span, unless it has its own", () => {
  const publish = (more: object = {}) => new Message(toWire({ from: "a", to: "b", content: 1, ...more })).traceparent;
  assert.equal(publish(), "");
  context.with(ROOT_CONTEXT.setValue(KEY, PARENT), () => {
    assert.equal(publish(), PARENT);
    assert.equal(publish({ traceparent: "own" }), "own");
  });
});

test("a handler runs in the trace of its message, also behind an await", async () => {
  const seen = await inTraceOf(PARENT, async () => {
    await Promise.resolve();
    return activeTraceparent();
  });
  assert.equal(seen, PARENT);
  assert.equal(inTraceOf("", activeTraceparent), undefined);
});
