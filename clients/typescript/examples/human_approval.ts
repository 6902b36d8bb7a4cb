// A human approves: the policy holds what the operator agent wants to do in production until somebody says yes.
//
//     TANDEM_BROKER=http://127.0.0.1:8001 node build/examples/human_approval.js

import { Client, ContainerAgent, UndeliverableError } from "@aintandem/sdk";

const production = ContainerAgent.fromEnvironment({ sandboxId: "production" });
production.onRequest((message) => ({ done: (message.content as { action: string }).action }));
await production.start();
const operator = ContainerAgent.fromEnvironment({ sandboxId: "operator" });
await operator.start();

// Who may do this: an admin. Here the broker of `tandem dev` asks nobody who he is.
await using human = new Client({
  endpoints: process.env["TANDEM_BROKER"] ?? "http://127.0.0.1:8001",
  workspaceId: operator.client.workspaceId,
});
await human.policies.set({
  policy: "deny_list",
  rules: [{ from: "operator", to: "production", message_types: ["request"], approval_required: true }],
});

// The human hears of each message that waits, looks at it, and decides.
const ended = new AbortController();
const { revision } = await human.policies.get();
console.log(`policy ${revision} holds what needs a human`);
async function decide(): Promise<void> {
  for await (const event of human.events({ from: 1, types: ["approval-requested"], signal: ended.signal })) {
    const { message, state } = await human.approvals.get(event.approvalId);
    // Events of earlier runs are kept, too.
    if (state !== "waiting") continue;
    const { action } = (message?.content as { action: string } | undefined) ?? { action: "unknown" };
    if (action === "restart") await human.approvals.approve(event.approvalId, "go ahead");
    else await human.approvals.deny(event.approvalId, "never on a Friday");
  }
}
const deciding = decide().catch((error: unknown) => {
  if (!ended.signal.aborted) throw error;
});

for (const action of ["restart", "drop the database"]) {
  try {
    const answer = await operator.collaborateWith("production", { action }, { timeoutMs: 20_000 });
    console.log(`${action}: ${JSON.stringify(answer)}`);
  } catch (error) {
    if (!(error instanceof UndeliverableError)) throw error;
    console.log(`${action}: ${error.code}`);
  }
}
ended.abort();
await deciding;
await human.policies.remove();
await Promise.all([operator.stop(), production.stop()]);
