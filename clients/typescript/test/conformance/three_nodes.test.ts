import { after, before } from "node:test";
import { type Deployment, threeNodes } from "../brokers/deployment.js";
import { playAll } from "./runner.js";

let deployment: Deployment;
before(async () => {
  deployment = await threeNodes();
});
after(() => deployment.stop());

playAll(
  "three nodes",
  ["cluster", "cut"],
  (scenario) => !scenario.needs.includes("tokens"),
  () => deployment,
);
