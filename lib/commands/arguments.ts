// What the operator's verbs share: the times on the command line, and what a verification or a replay says at its
// end. It opens nothing and decides nothing.

import type { CommandOptions } from "../base/command.ts";
import { SetupError } from "../base/errors.ts";
import { printLine } from "../base/logger.ts";
import type { TimeRange } from "../contracts/store.ts";
import { DAY_MS } from "../model/trade.ts";
import { windowEndMs } from "../model/windows.ts";
import type { RedriveCounts, Replayed } from "./replay.ts";
import { type Difference, type Skipped, type Verified, type VerifyDeps, verifyWindows } from "./verify.ts";

type Flag = readonly [flags: string, description: string];

export const RANGE_FLAGS: readonly Flag[] = [
  ["--from <time>", "ISO 8601, UTC unless it names a zone (2026-01-05, 2026-01-05T14:30), or ms since 1970"],
  ["--to <time>", "the same; this time itself is not in the range (default: now)"],
];
export const JSON_FLAG: Flag = ["--json", "print one line of JSON at the end"];
export const VERIFY_FLAGS: readonly Flag[] = [
  ...RANGE_FLAGS,
  ["--symbol <symbol>", "only this one"],
  ["--repair", "write the rows that count less than their trades"],
  [
    "--force",
    "with --repair: mend every other difference too; smaller amendments to those rows are then ignored",
  ],
  JSON_FLAG,
];

export const REPLAY_FLAGS: readonly Flag[] = [
  ...RANGE_FLAGS,
  ["--dead", "the dead letters that can be taken now, instead of a range"],
  JSON_FLAG,
];

/** Of `replay`; null = the dead letters. Throws SetupError as readRange does. */
export function readReplayRange(options: CommandOptions, nowMs: number): TimeRange | null {
  if (!options.dead) return readRange(options, nowMs, null);
  if (options.from || options.to)
    throw new SetupError("--dead takes every letter", "leave --from and --to out, or --dead");
  return null;
}

/** Throws SetupError for what is no time, and for a range that holds nothing. */
export function readRange(options: CommandOptions, nowMs: number, fallbackFromMs: number | null): TimeRange {
  const fromMs = readTime(options, "from") ?? fallbackFromMs;
  const toMs = readTime(options, "to") ?? nowMs;
  if (fromMs === null)
    throw new SetupError("--from is missing", "say from when on, for example --from 2026-01-05");
  if (fromMs >= toMs) {
    throw new SetupError(
      `--from ${isoOf(fromMs)} is not before --to ${isoOf(toMs)}`,
      "nothing lies between them",
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
    // A 31st of February would be taken for a day in March.
    const isDay = new Date(Date.parse(day) || 0).toISOString().startsWith(day);
    if (isDay && timeMs >= 0) return timeMs;
  }
  const hint = /^\d{9,10}$/.test(text)
    ? `these look like seconds: in ms they are ${text}000`
    : "write it like 2026-01-05, 2026-01-05T14:30:00Z, or in ms since 1970";
  throw new SetupError(`--${name} ${text} is no time`, hint);
}

/** Throws SetupError where the flags contradict each other. */
export function readRepair(options: CommandOptions): VerifyDeps["repair"] {
  if (options.force && !options.repair)
    throw new SetupError("--force without --repair changes nothing", "add --repair, or leave --force out");
  return options.force ? "force" : options.repair ? "fuller" : "nothing";
}

function readSymbol(options: CommandOptions): { symbol: string } | Record<string, never> {
  return typeof options.symbol === "string" ? { symbol: options.symbol } : {};
}

export function retentionStartMs(nowMs: number, retentionDays: number): number {
  return Math.max(0, nowMs - retentionDays * DAY_MS);
}

const OUTCOMES: Readonly<Record<Difference["outcome"], string>> = {
  found: "",
  repaired: "; repaired",
  needs_force: "; not repaired: the row counts no less than its trades, which --repair leaves to --force",
  too_young: "; not repaired: a processor may still hold it in memory, try again in some minutes",
  may_have_expired: "; not repaired: some of its trades may have expired",
  unrepaired: "; written, and it still differs",
};

/** One line. */
function describeDifference({ window, what, columns, stored, computed, outcome }: Difference): string {
  const name = `${window.symbol} ${window.kind} ${isoOf(window.startMs)} to ${isoOf(windowEndMs(window))}`;
  const held = Object.entries(stored?.row ?? {});
  const due = Object.entries(computed?.row ?? {});
  const valueIn = (entries: readonly [string, unknown][], column: string) =>
    String(entries.find(([key]) => key === column)?.[1]);
  const texts = {
    missing: `no row, and ${computed?.row.trade_count} trades`,
    extra: `a row of ${stored?.row.trade_count} trades, and no trade`,
    differs: columns
      .map((column) => `${column} is ${valueIn(held, column)}, from the trades ${valueIn(due, column)}`)
      .join(", "),
  };
  return `${what === "differs" ? "differs" : what}: ${name}: ${texts[what]}${OUTCOMES[outcome]}`;
}

type VerificationParts = Omit<VerifyDeps, "symbol" | "onDifference" | "onSkipped">;

/** A verification from the command line, each difference told as it is found; answers with the exit code. */
export async function verifyAndPrint(deps: VerificationParts, options: CommandOptions): Promise<number> {
  const skipped: Skipped[] = [];
  const verified = await verifyWindows({
    ...deps,
    ...readSymbol(options),
    onDifference: (difference) => printLine(describeDifference(difference)),
    onSkipped: (one) => skipped.push(one),
  });
  return sayVerified(verified, skipped, deps.range, deps.repair, options.json === true);
}

/** The end of a verification; answers with the exit code: 1 when there was any difference. */
function sayVerified(
  verified: Verified,
  skipped: readonly Skipped[],
  range: TimeRange,
  repair: VerifyDeps["repair"],
  isJson: boolean,
): number {
  for (const { symbol, windowCount, fromMs, toMs } of skipped) {
    const where = `${isoOf(fromMs)} to ${isoOf(toMs)}`;
    printLine(`skipped: ${symbol} ${where}: ${windowCount} windows, whose trades may have expired`);
  }
  const { compared, differences, missing, extra, repaired, open } = verified;
  const kinds =
    differences === 0 ? "" : ` (${missing} missing, ${extra} extra, ${differences - missing - extra} other)`;
  if (compared + open + skipped.length === 0)
    printLine("nothing was traded in that time, or nothing is kept of it");
  printLine(
    `verified ${compared} windows from ${isoOf(range.fromMs)} to ${isoOf(range.toMs)}: ${differences} differences${kinds}` +
      `${repair === "nothing" || differences === 0 ? "" : `, ${repaired} repaired`}` +
      `${open === 0 ? "" : `; ${open} not compared, because they have just closed or not yet`}`,
  );
  if (repair === "force" && repaired > 0)
    printLine(
      "a later trade in a window mended by force may not show in it: its next --repair --force would say so",
    );
  if (isJson) printLine(JSON.stringify({ verb: "verify", ...range, ...verified, skipped }));
  return differences === 0 ? 0 : 1;
}

export function printReplayed(replayed: Replayed, range: TimeRange, isJson: boolean): void {
  const { records, messages, rows, windows, expired, unfit, refused } = replayed;
  printLine(
    `replayed ${rows} trades of ${messages} messages (of ${records} records read), and wrote ${windows} windows` +
      said(expired, "trades not written: older than RETENTION_DAYS") +
      said(unfit, "trades not written: they cannot be true") +
      said(refused, "trades refused by the store"),
  );
  if (isJson) printLine(JSON.stringify({ verb: "replay", ...range, ...replayed }));
}

export function printRedriveCounts(replayed: RedriveCounts, isJson: boolean): void {
  const { letters, taken, trades, messages, expired, unfit } = replayed;
  const reasons = Object.entries(unfit)
    .sort()
    .map(([reason, count]) => `; ${count} still unfit: ${reason}`);
  printLine(
    `read ${letters} dead letters and took ${taken} of them: ${trades} trades in ${messages} messages` +
      said(expired, "trades not taken: older than RETENTION_DAYS") +
      reasons.join(""),
  );
  if (isJson) printLine(JSON.stringify({ verb: "replay", dead: true, ...replayed }));
}

function said(count: number, words: string): string {
  return count === 0 ? "" : `; ${count} ${words}`;
}

function isoOf(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
