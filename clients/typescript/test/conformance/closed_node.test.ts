import { after, before } from "node:test";
import { closedNode, type Deployment } from "../brokers/deployment.js";
import { playAll } from "./runner.js";

let deployment: Deployment;
before(async () => {
  deployment = await closedNode();
});
after(() => deployment.stop());

playAll(
  "closed node",
  ["tokens"],
  (scenario) => scenario.needs.includes("tokens"),
  () => deployment,
);
