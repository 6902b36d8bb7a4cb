// Four specialists look into an incident at once; the commander puts together what they found, also when one of them fails.
//
//     TANDEM_BROKER=http://127.0.0.1:8001 node build/examples/incident_investigation.js

import { ContainerAgent, Reject } from "@aintandem/sdk";
import { asFinding, type Finding } from "./incident_finding.js";

const SPECIALISTS: Record<string, (incident: string, attempt: number) => Finding> = {
  logs: () => ({ says: "500s since 10:02", blames: "deploy-417" }),
  metrics: () => ({ says: "latency tripled at 10:01", blames: "deploy-417" }),
  // Fails at first: the message comes again by itself.
  deploys: (_, attempt) => {
    if (attempt === 1) throw new Error("the build server did not answer");
    return { says: "one deploy in the last hour, at 10:00", blames: "deploy-417" };
  },
  network: () => {
    throw new Reject("no access to the routers");
  },
};

const specialists = await Promise.all(
  Object.entries(SPECIALISTS).map(async ([field, investigate]) => {
    const agent = ContainerAgent.fromEnvironment({
      sandboxId: `specialist-${field}`,
      agent: { name: field, role: "specialist", capabilities: [`investigate-${field}`] },
      retryPolicy: { maxAttempts: 3, initialBackoffMs: 50 },
      logger: { debug() {}, info() {}, warn() {}, error: console.error },
    });
    agent.onRequest((message, { attempt }) => investigate((message.content as { incident: string }).incident, attempt));
    return agent.start();
  }),
);

await using commander = ContainerAgent.fromEnvironment({ sandboxId: "commander" });
await commander.start();
const found = await commander.discover({ role: "specialist", online: true });

const reports = await Promise.allSettled(
  found.map(async ({ name }) => ({
    name,
    finding: asFinding(
      await commander.collaborateWith(
        { capability: `investigate-${name}` },
        { incident: "checkout is down" },
        { timeoutMs: 20_000 },
      ),
    ),
  })),
);

const blamed = new Map<string, number>();
for (const report of reports) {
  if (report.status === "rejected") {
    console.log(`a specialist failed: ${report.reason.message}`);
    continue;
  }
  const { name, finding } = report.value;
  console.log(`${name}: ${finding.says}`);
  blamed.set(finding.blames, (blamed.get(finding.blames) ?? 0) + 1);
}
const [cause, voices] = [...blamed].sort(([, a], [, b]) => b - a)[0] ?? ["unknown", 0];
console.log(`cause: ${cause} (${voices} of ${found.length})`);
await Promise.all(specialists.map((agent) => agent.stop()));
