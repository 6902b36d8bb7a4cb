// Scenarios as they stand in clients/conformance.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";

export type Arguments = Record<string, unknown>;

export interface Step {
  verb: string;
  args: Arguments;
  expect: Arguments | undefined;
  error: { code?: string; retryable?: boolean; retry_after?: boolean } | undefined;
  save: Record<string, string>;
  client: string | undefined;
}

export interface Scenario {
  name: string;
  about: string;
  needs: string[];
  timeoutMs: number;
  steps: Step[];
}

const BESIDE_VERB = new Set(["expect", "error", "save", "client"]);

/** From build/test/conformance to clients/conformance. */
const FOLDER = process.env["CONFORMANCE_DIR"] ?? fileURLToPath(new URL("../../../../conformance", import.meta.url));

export function scenarios(): Scenario[] {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith(".yaml"));
  if (files.length === 0) throw new Error(`no scenarios in ${FOLDER}`);
  return files.sort().map((name) => read(readFileSync(join(FOLDER, name), "utf8"), name));
}

function read(text: string, file: string): Scenario {
  const raw = parse(text) as { name: string; about: string; needs?: string[]; timeout_s?: number; steps: Arguments[] };
  return {
    name: raw.name,
    about: raw.about,
    needs: raw.needs ?? [],
    timeoutMs: (raw.timeout_s ?? 60) * 1000,
    steps: raw.steps.map((step) => readStep(step, file)),
  };
}

function readStep(raw: Arguments, file: string): Step {
  const verbs = Object.keys(raw).filter((key) => !BESIDE_VERB.has(key));
  const [verb] = verbs;
  if (verb === undefined || verbs.length > 1) throw new Error(`${file}: a step has the verbs ${verbs.join(", ")}`);
  const error = raw["error"];
  return {
    verb,
    args: (raw[verb] ?? {}) as Arguments,
    expect: raw["expect"] as Arguments | undefined,
    error: typeof error === "string" ? { code: error } : (error as Step["error"]),
    save: (raw["save"] ?? {}) as Record<string, string>,
    client: raw["client"] as string | undefined,
  };
}
