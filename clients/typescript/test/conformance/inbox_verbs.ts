// Verbs about subscriptions and deliveries.

import type { Delivery } from "@aintandem/sdk";
import type { Arguments } from "./scenario.js";
import type { OpenInbox, Stage } from "./stage.js";

type Verb = (stage: Stage, args: Arguments, client: string | undefined) => Promise<Arguments>;

const TIMED_OUT = Symbol("timed out");

function inbox(stage: Stage, args: Arguments): OpenInbox {
  const open = stage.inboxes.get(String(args["via"]));
  if (open === undefined) throw new Error(`no subscription ${args["via"]}`);
  return open;
}

function delivery(stage: Stage, args: Arguments): Delivery {
  const name = String(args["delivery"] ?? "last");
  const found = stage.deliveries.get(name);
  if (found === undefined) throw new Error(`no delivery ${name}`);
  return found;
}

/** The next delivery within the time; what comes later is for the next step. */
async function nextWithin(open: OpenInbox, ms: number): Promise<Delivery | typeof TIMED_OUT> {
  open.asked ??= open.subscription.next();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<typeof TIMED_OUT>((resolve) => {
    timer = setTimeout(() => resolve(TIMED_OUT), ms);
  });
  const came = await Promise.race([open.asked, late]);
  clearTimeout(timer);
  if (came === TIMED_OUT) return TIMED_OUT;
  open.asked = undefined;
  if (came.done) throw new Error("the subscription has ended");
  return came.value;
}

function optionalNumber<K extends string>(key: K, value: unknown): { [P in K]?: number } {
  return (value === undefined ? {} : { [key]: Number(value) }) as { [P in K]?: number };
}

export const INBOX_VERBS: Record<string, Verb> = {
  subscribe: async (stage, args, client) => {
    const subscription = await stage.client(client).subscribe({
      sandbox: String(args["sandbox"]),
      ...optionalNumber("ackDeadlineMs", args["ack_deadline_ms"]),
      ...optionalNumber("creditMessages", args["credit"]),
    });
    stage.inboxes.set(String(args["as"]), { subscription, asked: undefined });
    return {};
  },

  receive: async (stage, args) => {
    const withinMs = Number(args["within_ms"] ?? 10_000);
    const came = await nextWithin(inbox(stage, args), withinMs);
    if (came === TIMED_OUT) throw new Error(`nothing came within ${withinMs} ms`);
    stage.deliveries.set("last", came);
    if (args["as"] !== undefined) stage.deliveries.set(String(args["as"]), came);
    const { id, from, type, content, priority, sequence, correlationId, metadata } = came.message;
    const rest = {
      priority,
      attempt: came.attempt,
      sequence,
      correlation_id: correlationId,
      metadata: { ...metadata },
    };
    return { id, from, type, content, ...rest };
  },

  receive_none: async (stage, args) => {
    const came = await nextWithin(inbox(stage, args), Number(args["for_ms"]));
    if (came !== TIMED_OUT) throw new Error(`message ${came.message.id} came (attempt ${came.attempt})`);
    return {};
  },

  receive_all: async (stage, args) => {
    const open = inbox(stage, args);
    const count = Number(args["count"]);
    const endMs = performance.now() + Number(args["within_ms"] ?? 10_000);
    const seen = new Set<number>();
    let inOrder = true;
    let newest = 0;
    while (seen.size < count) {
      const came = await nextWithin(open, Math.max(1, endMs - performance.now()));
      if (came === TIMED_OUT) break;
      const { n } = came.message.content as { n: number };
      if (n >= 1 && n <= count && !seen.has(n)) {
        inOrder &&= n > newest;
        newest = n;
        seen.add(n);
      }
      // What does not count comes again, and is acknowledged then.
      came.ack().catch(() => {});
    }
    const missing = Array.from({ length: count }, (_, at) => at + 1).filter((n) => !seen.has(n));
    return { missing, in_order: inOrder };
  },

  ack: async (stage, args) => {
    await delivery(stage, args).ack();
    return {};
  },

  nack: async (stage, args) => {
    await delivery(stage, args).nack(String(args["reason"] ?? ""), {
      ...optionalNumber("delayMs", args["delay_ms"]),
      deadLetter: args["dead_letter"] === true,
    });
    return {};
  },

  extend: async (stage, args) => {
    const deadlineMs = args["deadline_ms"];
    await delivery(stage, args).extend(deadlineMs === undefined ? undefined : Number(deadlineMs));
    return {};
  },

  respond: async (stage, args, client) => {
    const { message } = delivery(stage, args);
    const receipt = await stage.client(client).publish({
      from: String(args["from"]),
      to: message.from,
      type: "response",
      correlationId: message.correlationId,
      content: args["content"],
    });
    return { id: receipt.id, sequence: receipt.sequence, duplicate: receipt.duplicate };
  },

  close: async (stage, args) => {
    await inbox(stage, args).subscription.close();
    stage.inboxes.delete(String(args["via"]));
    return {};
  },
};
