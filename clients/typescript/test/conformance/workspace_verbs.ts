// Verbs about everything but deliveries.

import { setTimeout as delay } from "node:timers/promises";
import {
  type ApprovalState,
  type Client,
  collect,
  type Destination,
  type MessageKind,
  type Receipt,
} from "@aintandem/sdk";
import type { Arguments } from "./scenario.js";
import type { Stage } from "./stage.js";

type Verb = (stage: Stage, args: Arguments, client: string | undefined) => Promise<Arguments>;

function destination(args: Arguments): Destination {
  if (args["to"] !== undefined) return String(args["to"]);
  if (args["topic"] !== undefined) return { topic: String(args["topic"]) };
  if (args["capability"] !== undefined) return { capability: String(args["capability"]) };
  return { broadcast: true };
}

/** Those of the arguments that were given, under the names of the library. */
function given(args: Arguments, names: Record<string, string>): Record<string, unknown> {
  const entries = Object.entries(names).filter(([key]) => args[key] !== undefined);
  return Object.fromEntries(entries.map(([key, name]) => [name, args[key]]));
}

function told(receipt: Receipt): Arguments {
  const { id, sequence, duplicate, approvalId } = receipt;
  return { id, sequence, duplicate, approval_id: approvalId ?? 0 };
}

async function publishMany(client: Client, args: Arguments): Promise<Arguments> {
  const publisher = client.publisher();
  const receipts: Promise<Receipt>[] = [];
  for (let n = 1; n <= Number(args["count"]); n++) {
    await publisher.ready();
    receipts.push(publisher.publish({ from: String(args["from"]), to: String(args["to"]), content: { n } }));
    // As a program would that reads its messages from somewhere: connections are cut between them.
    if (n % 500 === 0) await delay(1);
  }
  const sequences = (await Promise.all(receipts)).map((receipt) => receipt.sequence);
  await publisher.close();
  const inOrder = sequences.every((sequence, at) => at === 0 || sequence > (sequences[at - 1] ?? 0));
  return { accepted: sequences.filter((sequence) => sequence > 0).length, in_order: inOrder };
}

/** At once, or under its name in the background. */
async function maybeInBackground(stage: Stage, args: Arguments, run: () => Promise<Arguments>): Promise<Arguments> {
  const name = args["background"];
  if (name === undefined) return run();
  const running = run();
  running.catch(() => {});
  stage.background.set(String(name), running);
  return {};
}

const PARTICIPANTS: Record<string, Verb> = {
  register: async (stage, args, client) => {
    const { created } = await stage.client(client).registry.register({
      sandbox: String(args["sandbox"]),
      agents: (args["agents"] ?? []) as { name: string }[],
      retryPolicy: given(args, {
        max_attempts: "maxAttempts",
        initial_backoff_ms: "initialBackoffMs",
        max_backoff_ms: "maxBackoffMs",
      }),
      inboxLimits: given(args, { max_messages: "maxMessages" }),
    });
    return { created };
  },
  heartbeat: async (stage, args, client) => {
    await stage.client(client).registry.heartbeat(String(args["sandbox"]));
    return {};
  },
  unregister: async (stage, args, client) => ({
    abandoned: await stage.client(client).registry.unregister(String(args["sandbox"])),
  }),
  inbox: async (stage, args, client) => {
    const found = await stage.client(client).registry.get(String(args["sandbox"]));
    const { pendingMessages: pending, deferredMessages: deferred, deadLetters, online } = found;
    return { pending, deferred, dead_letters: deadLetters, online };
  },
  discover: async (stage, args, client) => {
    const filter = given(args, { role: "role", capability: "capability", agent: "name", online: "online" });
    const found = await collect(stage.client(client).registry.discover(filter));
    return { agents: found.map(({ sandbox, name }) => `${sandbox}/${name}`) };
  },
};

const MESSAGES: Record<string, Verb> = {
  publish: async (stage, args, client) => {
    const delayMs = args["delay_ms"];
    const receipt = await stage.client(client).publish({
      from: String(args["from"]),
      to: destination(args),
      content: args["content"],
      type: (args["type"] ?? "notification") as MessageKind,
      ...given(args, {
        id: "id",
        priority: "priority",
        correlation_id: "correlationId",
        requires_response: "requiresResponse",
        ordering_key: "orderingKey",
        ttl_ms: "ttlMs",
        dead_letter_on_expiry: "deadLetterOnExpiry",
        metadata: "metadata",
      }),
      ...(delayMs === undefined ? {} : { notBefore: new Date(Date.now() + Number(delayMs)) }),
    });
    return told(receipt);
  },
  publish_many: (stage, args, client) => maybeInBackground(stage, args, () => publishMany(stage.client(client), args)),
  request: (stage, args, client) =>
    maybeInBackground(stage, args, async () => {
      const { message } = await stage.client(client).request(
        {
          from: String(args["from"]),
          to: destination(args),
          content: args["content"],
          type: (args["type"] ?? "request") as MessageKind,
        },
        { timeoutMs: Number(args["timeout_ms"]) },
      );
      return { content: message.content, from: message.from };
    }),
  finish: async (stage, args) => {
    const name = String(args["call"]);
    const running = stage.background.get(name);
    if (running === undefined) throw new Error(`nothing called ${name} runs`);
    const withinMs = Number(args["within_ms"] ?? 10_000);
    const abort = new AbortController();
    const late = delay(withinMs, undefined, { signal: abort.signal }).then(
      () => Promise.reject(new Error(`${name} did not end within ${withinMs} ms`)),
      () => ({}),
    );
    return Promise.race([running, late]).finally(() => abort.abort());
  },
  history: async (stage, args, client) => {
    const messages = await collect(stage.client(client).history.list());
    const from = args["from"];
    const ids = messages.filter((message) => from === undefined || message.from === from).map(({ id }) => id);
    return { count: ids.length, ids };
  },
};

const TOPICS: Record<string, Verb> = {
  create_topic: async (stage, args, client) => {
    await stage.client(client).topics.create(String(args["topic"]));
    return {};
  },
  delete_topic: async (stage, args, client) => {
    await stage.client(client).topics.delete(String(args["topic"]));
    return {};
  },
  follow: async (stage, args, client) => {
    await stage.client(client).topics.follow(String(args["sandbox"]), String(args["topic"]));
    return {};
  },
  unfollow: async (stage, args, client) => {
    await stage.client(client).topics.unfollow(String(args["sandbox"]), String(args["topic"]));
    return {};
  },
};

const ADMINISTRATION: Record<string, Verb> = {
  dead_letters: async (stage, args, client) => {
    const letters = await collect(stage.client(client).deadLetters.list({ sandbox: String(args["sandbox"]) }));
    return {
      count: letters.length,
      reasons: letters.map(({ reason }) => reason),
      ids: letters.map(({ message }) => message.id),
      texts: letters.map(({ text }) => text),
      attempts: letters.map(({ attempts }) => attempts.length),
    };
  },
  redrive: async (stage, args, client) => ({
    ...(await stage.client(client).deadLetters.redrive({ sandbox: String(args["sandbox"]) })),
  }),
  purge: async (stage, args, client) => ({
    purged: await stage.client(client).deadLetters.purge({ sandbox: String(args["sandbox"]) }),
  }),
  set_policy: async (stage, args, client) => ({
    revision: (await stage.client(client).policies.set(JSON.stringify(args["policy"]))).revision,
  }),
  approvals: async (stage, args, client) => {
    const filter = given(args, { state: "state" }) as { state?: ApprovalState };
    const found = await collect(stage.client(client).approvals.list(filter));
    return { count: found.length, ids: found.map(({ id }) => id) };
  },
  approve: async (stage, args, client) => {
    const ended = await stage.client(client).approvals.approve(Number(args["approval"]), String(args["comment"] ?? ""));
    return { state: ended.state, sequence: ended.sequence };
  },
  deny: async (stage, args, client) => {
    const ended = await stage.client(client).approvals.deny(Number(args["approval"]), String(args["comment"] ?? ""));
    return { state: ended.state, sequence: ended.sequence };
  },
};

const STAGE: Record<string, Verb> = {
  cut: async (stage) => {
    stage.cut();
    return {};
  },
  kill_leader: async (stage) => {
    await stage.deployment.killLeader(stage.workspaceId);
    return {};
  },
  connect: async (stage, args) => {
    await stage.makeClient(args);
    return {};
  },
  token: async (stage, args) => {
    stage.makeToken(args);
    return {};
  },
  wait: async (_, args) => {
    await delay(Number(args["ms"]));
    return {};
  },
};

export const WORKSPACE_VERBS: Record<string, Verb> = {
  ...PARTICIPANTS,
  ...MESSAGES,
  ...TOPICS,
  ...ADMINISTRATION,
  ...STAGE,
};
