// W3C trace context, by OpenTelemetry when the program has it.

import { createRequire } from "node:module";

/** The part of `@opentelemetry/api` that is used here. */
interface OpenTelemetry {
  context: { active(): unknown; with<T>(context: unknown, run: () => T): T };
  propagation: {
    inject(context: unknown, carrier: Record<string, string>): void;
    extract(context: unknown, carrier: Record<string, string>): unknown;
  };
}

// Required and not imported: the package is optional, and its absence must be no error of a bundler or of a type checker.
const openTelemetry: OpenTelemetry | undefined = load();

function load(): OpenTelemetry | undefined {
  try {
    return createRequire(import.meta.url)("@opentelemetry/api") as OpenTelemetry;
  } catch {
    return undefined;
  }
}

/** `traceparent` of the active span; undefined without OpenTelemetry or without a span. */
export function activeTraceparent(): string | undefined {
  if (openTelemetry === undefined) return undefined;
  const carrier: Record<string, string> = {};
  openTelemetry.propagation.inject(openTelemetry.context.active(), carrier);
  return carrier["traceparent"];
}

/** Runs in the trace of the message, so that spans made by `run` belong to the sender's. */
export function inTraceOf<T>(traceparent: string | undefined, run: () => T): T {
  if (openTelemetry === undefined || traceparent === undefined || traceparent === "") return run();
  const { context, propagation } = openTelemetry;
  return context.with(propagation.extract(context.active(), { traceparent }), run);
}
