// The flags of the operator's commands, and what they mean: times, ranges, repairs. It opens nothing and prints nothing.

import type { CommandOptions } from "../base/command.ts";
import { SetupError } from "../base/errors.ts";
import type { TimeRange } from "../contracts/store.ts";
import type { VerifyDeps } from "./verify.ts";

type Flag = readonly [flags: string, description: string];

const RANGE_FLAGS: readonly Flag[] = [
  ["--from <time>", "ISO 8601, UTC unless it names a zone (2026-01-05, 2026-01-05T14:30), or ms since 1970"],
  ["--to <time>", "the same; this time itself is not in the range (default: now)"],
];
const JSON_FLAG: Flag = ["--json", "print one line of JSON at the end"];
export const VERIFY_FLAGS: readonly Flag[] = [
  ...RANGE_FLAGS,
  ["--symbol <symbol>", "only this symbol"],
  ["--repair", "rewrite the rows that count less than their trades"],
  [
    "--force",
    "with --repair: also replace rows that differ in any other way; trades that arrive later may not change these rows",
  ],
  JSON_FLAG,
];

export const REPLAY_FLAGS: readonly Flag[] = [
  ...RANGE_FLAGS,
  ["--dead", "replay the dead letters that can be taken now, instead of a range"],
  JSON_FLAG,
];

export const IMPORT_FLAGS: readonly Flag[] = [
  [
    "--format <name>",
    "how the files are to be read; without it each file is looked at (docs/IMPORT.md lists them)",
  ],
  ["--symbol <symbol>", "the symbol of every trade, where the files name none or another"],
  [
    "--map <ours=theirs>",
    "columns by other names: time=exchange_ts,price=px (symbol, time, price, volume, conditions, id)",
  ],
  ["--dry-run", "store nothing: show what the files would give, what would be refused, and why"],
  JSON_FLAG,
];

const MAPPED = ["symbol", "time", "price", "volume", "conditions", "id"];

/** Throws a SetupError for a map that names what is not ours. */
export function readImportOptions(options: CommandOptions) {
  const { format, symbol, map } = options;
  const pairs = typeof map === "string" ? map.split(",").map((pair) => pair.split("=")) : [];
  for (const [ours = "", theirs = ""] of pairs) {
    if (MAPPED.includes(ours) && theirs !== "") continue;
    throw new SetupError(
      `--map ${[ours, theirs].join("=")} names no field of ours`,
      `write ours=theirs, separated by commas; ours is one of ${MAPPED.join(", ")}`,
    );
  }
  return {
    format: typeof format === "string" ? format : null,
    symbol: typeof symbol === "string" ? symbol : null,
    map: Object.fromEntries(pairs.map(([ours, theirs]) => [ours, theirs] as [string, string])),
    isDry: options.dryRun === true,
  };
}

/** The range of `replay`; null = the dead letters. Throws a SetupError as readRange does. */
export function readReplayRange(options: CommandOptions, nowMs: number): TimeRange | null {
  if (!options.dead) return readRange(options, nowMs, null);
  if (options.from || options.to) {
    throw new SetupError(
      "--dead takes every dead letter, so it cannot be combined with --from or --to",
      "leave out --from and --to, or leave out --dead",
    );
  }
  return null;
}

/** Throws a SetupError for a text that is not a time, and for an empty range. */
export function readRange(options: CommandOptions, nowMs: number, fallbackFromMs: number | null): TimeRange {
  const fromMs = readTime(options, "from") ?? fallbackFromMs;
  const toMs = readTime(options, "to") ?? nowMs;
  if (fromMs === null)
    throw new SetupError("--from is missing", "give a start, for example --from 2026-01-05");
  if (fromMs >= toMs) {
    throw new SetupError(
      `--from ${isoOf(fromMs)} is not before --to ${isoOf(toMs)}`,
      "give a --from that lies before --to",
    );
  }
  return { fromMs, toMs };
}

const ISO_8601 = /^(\d{4}-\d\d-\d\d)(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?$/;

function readTime(options: CommandOptions, name: "from" | "to"): number | null {
  const text = options[name];
  if (typeof text !== "string") return null;
  if (/^\d{11,14}$/.test(text)) return Number(text);
  const [whole, day, zone] = ISO_8601.exec(text) ?? [];
  if (whole !== undefined && day !== undefined) {
    const timeMs = Date.parse(whole === day || zone !== undefined ? whole : `${whole}Z`);
    // Date.parse takes a 31st of February for a day in March.
    const isDay = new Date(Date.parse(day) || 0).toISOString().startsWith(day);
    if (isDay && timeMs >= 0) return timeMs;
  }
  const hint = /^\d{9,10}$/.test(text)
    ? `these look like seconds: in ms they are ${text}000`
    : "write it like 2026-01-05, 2026-01-05T14:30:00Z, or in ms since 1970";
  throw new SetupError(`--${name} ${text} is not a time`, hint);
}

/** Throws a SetupError where the flags contradict each other. */
export function readRepair(options: CommandOptions): VerifyDeps["repair"] {
  if (options.force && !options.repair)
    throw new SetupError("--force without --repair changes nothing", "add --repair, or leave out --force");
  return options.force ? "force" : options.repair ? "fuller" : "nothing";
}

/** Empty: every symbol. */
export function readSymbol(options: CommandOptions): { symbol: string } | Record<string, never> {
  return typeof options.symbol === "string" ? { symbol: options.symbol } : {};
}

export function isoOf(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
