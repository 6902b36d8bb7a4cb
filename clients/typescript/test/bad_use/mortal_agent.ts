// An agent that a test kills in the middle of a message: says that it has begun, and does not end.

import { ContainerAgent } from "@aintandem/sdk";

const agent = ContainerAgent.fromEnvironment({ concurrency: 1 });
agent.onMessage(async (message) => {
  console.log(`begun ${message.id}`);
  await new Promise(() => {});
});
await agent.start();
console.log("started");
