// A swarm votes: a question goes to everybody who follows the topic, votes come back as messages, and the majority decides.
//
//     TANDEM_BROKER=http://127.0.0.1:8001 node build/examples/swarm_vote.js

import { ContainerAgent } from "@aintandem/sdk";

const VOTERS = 5;
const DEADLINE_MS = 15_000;

const chair = ContainerAgent.fromEnvironment({ sandboxId: "chair" });
await chair.start();
await chair.topics.create("votes.release");

const voters = await Promise.all(
  Array.from({ length: VOTERS }, async (_, at) => {
    const voter = ContainerAgent.fromEnvironment({ sandboxId: `voter-${at + 1}` });
    voter.onMessage(async (message) => {
      const { question } = message.content as { question: string };
      // Three of five are in favour.
      const yes = at < 3;
      await voter.sendMessage(message.from, { question, yes }, { correlationId: message.correlationId });
    });
    await voter.start();
    await voter.topics.follow("votes.>");
    return voter;
  }),
);

const votes = new Map<string, boolean>();
const counted = new Promise<void>((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error(`only ${votes.size} have voted`)), DEADLINE_MS);
  chair.onMessage((message) => {
    // By sender: a message that comes again is no second vote.
    votes.set(message.from, (message.content as { yes: boolean }).yes);
    if (votes.size < VOTERS) return;
    clearTimeout(timer);
    resolve();
  });
});

await chair.topics.publish("votes.release", { question: "Release at noon?" }, { correlationId: "vote-1" });
await counted;
const yes = [...votes.values()].filter(Boolean).length;
console.log(`${yes} of ${votes.size} say yes: ${yes * 2 > votes.size ? "released" : "not released"}`);
await Promise.all([chair, ...voters].map((agent) => agent.stop()));
