// Two agents talk: one asks, the other answers.
//
//     TANDEM_BROKER=http://127.0.0.1:8001 node build/examples/two_agents.js

import { ContainerAgent } from "@aintandem/sdk";

await using reviewer = ContainerAgent.fromEnvironment({
  sandboxId: "reviewer",
  agent: { name: "reviewer", role: "review", capabilities: ["review"] },
});
reviewer.onRequest((message) => {
  const { file } = message.content as { file: string };
  return { file, verdict: file.endsWith(".rs") ? "approved" : "please write it in Rust" };
});
await reviewer.start();

await using author = ContainerAgent.fromEnvironment({ sandboxId: "author" });
await author.start();

for (const file of ["broker.rs", "broker.cobol"]) {
  const answer = await author.collaborateWith("reviewer", { file }, { timeoutMs: 10_000 });
  console.log(JSON.stringify(answer));
}
