import { after, before } from "node:test";
import { type Deployment, oneNode } from "../brokers/deployment.js";
import { playAll } from "./runner.js";

let deployment: Deployment;
before(async () => {
  deployment = await oneNode();
});
after(() => deployment.stop());

playAll(
  "one node",
  ["cut"],
  (scenario) => !scenario.needs.includes("tokens"),
  () => deployment,
);
