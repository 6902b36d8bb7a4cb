// Durations, times and counts between the contract's forms and JavaScript's.

import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { ContractError, InvalidValueError } from "./errors.js";

/** Milliseconds as a duration. Throws `INVALID_SETTING` for what is no number of milliseconds. */
export function toDuration(ms: number): Duration {
  if (!Number.isFinite(ms) || ms < 0) {
    throw new InvalidValueError("INVALID_SETTING", `${ms} is no duration; give milliseconds, 0 or more`);
  }
  const whole = Math.round(ms);
  return create(DurationSchema, { seconds: BigInt(Math.floor(whole / 1000)), nanos: (whole % 1000) * 1_000_000 });
}

/** The same, where nothing may be given. */
export function toOptionalDuration(ms: number | undefined): Duration | undefined {
  return ms === undefined ? undefined : toDuration(ms);
}

export function fromDuration(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

export function toTimestamp(time: Date): Timestamp {
  const ms = time.getTime();
  if (Number.isNaN(ms)) throw new InvalidValueError("INVALID_SETTING", "an invalid Date is no point in time");
  const seconds = Math.floor(ms / 1000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (ms - seconds * 1000) * 1_000_000 });
}

export function toOptionalTimestamp(time: Date | undefined): Timestamp | undefined {
  return time === undefined ? undefined : toTimestamp(time);
}

export function fromTimestamp(time: Timestamp | undefined): Date | undefined {
  return time === undefined ? undefined : new Date(Number(time.seconds) * 1000 + time.nanos / 1e6);
}

/** A count or a sequence. JavaScript's numbers are exact up to 2^53, which a log does not reach. */
export function toNumber(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new ContractError(`the number ${value} is above 2^53`);
  return Number(value);
}
