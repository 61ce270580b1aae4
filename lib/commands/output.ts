// What the operator's commands print: every difference of a verification as it is found, and the counts at the end, in a
// sentence and with --json as one line of JSON. The keys of that line are public; it reads and writes no store.

import type { CommandOptions } from "../base/command.ts";
import { printLine } from "../base/logger.ts";
import type { TimeRange } from "../contracts/store.ts";
import { windowEndMs } from "../model/windows.ts";
import { isoOf, readSymbol } from "./arguments.ts";
import type { RedriveCounts } from "./redrive.ts";
import type { Replayed } from "./replay.ts";
import { type Difference, type Skipped, type Verified, type VerifyDeps, verifyWindows } from "./verify.ts";

const OUTCOMES: Readonly<Record<Difference["outcome"], string>> = {
  found: "",
  repaired: "; repaired",
  needs_force:
    "; not repaired: the row counts as many trades as are stored, or more; --repair --force replaces it",
  too_young: "; not repaired: a processor may still have it in memory; try again in some minutes",
  may_have_expired: "; not repaired: some of its trades may have expired",
  unrepaired: "; written, but it still differs",
};

/** One line. */
function describeDifference({ window, what, columns, stored, computed, outcome }: Difference): string {
  const endMs = windowEndMs(window);
  const name = `${window.symbol} ${window.kind} ${isoOf(window.startMs)} to ${isoOf(endMs)}`;
  const storedColumns = Object.entries(stored?.row ?? {});
  const computedColumns = Object.entries(computed?.row ?? {});
  const valueIn = (entries: readonly [string, unknown][], column: string) =>
    String(entries.find(([key]) => key === column)?.[1]);
  const texts = {
    missing: `${computed?.row.trade_count} trades are stored, but there is no row`,
    extra: `the row counts ${stored?.row.trade_count} trades, but none is stored`,
    differs: columns
      .map(
        (column) =>
          `${column} is ${valueIn(storedColumns, column)} in the row, but ${valueIn(computedColumns, column)} when computed from the trades`,
      )
      .join(", "),
  };
  return `${what}: ${name}: ${texts[what]}${OUTCOMES[outcome]}`;
}

type VerificationDeps = Omit<VerifyDeps, "symbol" | "onDifference" | "onSkipped">;

/** Runs a verification and prints each difference as it is found. Resolves with the exit code. */
export async function verifyAndPrint(deps: VerificationDeps, options: CommandOptions): Promise<number> {
  const skipped: Skipped[] = [];
  const verified = await verifyWindows({
    ...deps,
    ...readSymbol(options),
    onDifference: (difference) => printLine(describeDifference(difference)),
    onSkipped: (one) => skipped.push(one),
  });
  return printVerified(verified, skipped, deps.range, deps.repair, options.json === true);
}

/** Prints the counts at the end. Returns the exit code: 1 when there was any difference. */
function printVerified(
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
    printLine("nothing was traded in that time, or its trades are no longer kept");
  printLine(
    `verified ${compared} windows from ${isoOf(range.fromMs)} to ${isoOf(range.toMs)}: ${differences} differences${kinds}` +
      `${repair === "nothing" || differences === 0 ? "" : `, ${repaired} repaired`}` +
      `${open === 0 ? "" : `; ${open} not compared: they closed just now, or have not closed yet`}`,
  );
  if (repair === "force" && repaired > 0)
    printLine(
      "a window that was repaired by force may not count trades that arrive later; after a late trade, run --repair --force again",
    );
  if (isJson) printLine(JSON.stringify({ verb: "verify", ...range, ...verified, skipped }));
  const isNothingProven = compared === 0 && skipped.length > 0;
  if (isNothingProven) printLine("no window could be compared, so nothing is proven: see what was skipped");
  return differences === 0 && !isNothingProven ? 0 : 1;
}

export function printReplayed(replayed: Replayed, range: TimeRange, isJson: boolean): void {
  const { records, messages, rows, windows, expired, unfit, refused } = replayed;
  printLine(
    `replayed ${rows} trades of ${messages} messages (of ${records} records read), and wrote ${windows} windows` +
      suffix(expired, "trades not written: older than RETENTION_DAYS") +
      suffix(unfit, "trades not written: not valid") +
      suffix(refused, "trades refused by the store"),
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
      suffix(expired, "trades not taken: older than RETENTION_DAYS") +
      reasons.join(""),
  );
  if (isJson) printLine(JSON.stringify({ verb: "replay", dead: true, ...replayed }));
}

function suffix(count: number, words: string): string {
  return count === 0 ? "" : `; ${count} ${words}`;
}
