// Whether a result is what a scenario expects.

import { isDeepStrictEqual } from "node:util";

type Mapping = Record<string, unknown>;

function isMapping(value: unknown): value is Mapping {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Why a value is not what was expected; undefined when it is. */
export function mismatch(actual: unknown, expected: unknown, path = "result"): string | undefined {
  const wrong = () => `${path} is ${JSON.stringify(actual)}, not ${JSON.stringify(expected)}`;
  if (Array.isArray(expected)) {
    if (!Array.isArray(actual) || actual.length !== expected.length) return wrong();
    return first(expected.map((element, at) => mismatch(actual[at], element, `${path}[${at}]`)));
  }
  if (!isMapping(expected)) return isDeepStrictEqual(actual, expected) ? undefined : wrong();
  const [only, ...more] = Object.entries(expected);
  if (only !== undefined && more.length === 0) {
    const [key, value] = only;
    if (key === "any" && value === true) return isSomething(actual) ? undefined : wrong();
    if (key === "at_least") return typeof actual === "number" && actual >= Number(value) ? undefined : wrong();
    if (key === "contains") return typeof actual === "string" && actual.includes(String(value)) ? undefined : wrong();
    if (key === "unordered") return sorted(actual) === sorted(value) ? undefined : wrong();
  }
  // Content is compared exactly, metadata by the keys that are named.
  if (path.endsWith(".content")) return isDeepStrictEqual(actual, expected) ? undefined : wrong();
  if (!isMapping(actual)) return wrong();
  return first(Object.entries(expected).map(([key, value]) => mismatch(actual[key], value, `${path}.${key}`)));
}

function isSomething(value: unknown): boolean {
  if (value === undefined || value === null || value === "") return false;
  if (Array.isArray(value)) return value.length > 0;
  return isMapping(value) ? Object.keys(value).length > 0 : true;
}

function sorted(value: unknown): string {
  return Array.isArray(value) ? JSON.stringify(value.map((element) => JSON.stringify(element)).sort()) : "";
}

function first(found: (string | undefined)[]): string | undefined {
  return found.find((why) => why !== undefined);
}
