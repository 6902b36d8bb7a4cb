// Which programs the tests run: `TANDEM_BIN` and `TANDEM_BROKER_BIN`, or what was built.

import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";

const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
const target = process.env["CARGO_TARGET_DIR"] ?? join(cache, "aintandem", "target");

/** The command `tandem`, whose `dev` runs a broker that is open. */
export const TANDEM = found("TANDEM_BIN", [join(target, "release", "tandem")]);

/** The service `tandem-broker`, which can be closed. */
export function brokerBinary(): string {
  const beside = join(dirname(TANDEM), "tandem-broker");
  return found("TANDEM_BROKER_BIN", [beside, join(target, "release", "tandem-broker")]);
}

/** The service `tandem-control-plane`, for a broker that is closed: `tandem dev` has its own for one that is open. */
export function controlPlaneBinary(): string {
  const beside = join(dirname(TANDEM), "tandem-control-plane");
  return found("TANDEM_CONTROL_PLANE_BIN", [beside, join(target, "release", "tandem-control-plane")]);
}

function found(variable: string, places: string[]): string {
  const given = process.env[variable];
  const path = given ?? places.find((place) => existsSync(place));
  if (path !== undefined && existsSync(path)) return path;
  throw new Error(`no program at ${given ?? places.join(" or ")}: run \`make build\`, or set ${variable}`);
}
