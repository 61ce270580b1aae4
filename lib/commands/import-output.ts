// What the import prints: a bar while it runs, where somebody watches, and the counts at the end. It reads no file and
// writes no store.

import type { Clock } from "../base/clock.ts";
import { type terminal as openTerminal, printLine } from "../base/logger.ts";
import { isoOf } from "./arguments.ts";
import type { Example, Imported, ImportProgress } from "./import.ts";

const BAR_WIDTH = 20;
/** Clears the line behind the cursor. */
const TO_THE_END = "\x1b[K";

/** One line that is written over and over, only on a terminal; `end` leaves nothing of it. */
export function progressBar(clock: Clock, terminal: ReturnType<typeof openTerminal>) {
  if (terminal === null) return { show() {}, end() {} };
  const startedAtMs = clock.monotonic();
  let fileStartedAtMs = startedAtMs;
  let path = "";
  return {
    show(progress: ImportProgress): void {
      const nowMs = clock.monotonic();
      if (progress.path !== path) [path, fileStartedAtMs] = [progress.path, nowMs];
      const text = progressText(progress, (nowMs - startedAtMs) / 1_000, (nowMs - fileStartedAtMs) / 1_000);
      terminal.write(`\r${text.slice(0, terminal.columns - 1)}${TO_THE_END}`);
    },
    end(): void {
      terminal.write(`\r${TO_THE_END}`);
    },
  };
}

/** `seconds`: since the import began, for the rate; `fileSeconds`: since this file began, for what is left of it. */
export function progressText(
  { path, readBytes, sizeBytes, trades }: ImportProgress,
  seconds: number,
  fileSeconds: number,
): string {
  const share = sizeBytes === 0 ? 1 : Math.min(1, readBytes / sizeBytes);
  const bar = "#".repeat(Math.round(share * BAR_WIDTH)).padEnd(BAR_WIDTH, ".");
  const rate = seconds > 0 ? `, ${Math.round(trades / seconds).toLocaleString("en-US")}/s` : "";
  const left = share > 0 && share < 1 ? `, ${spellSeconds((fileSeconds / share) * (1 - share))} left` : "";
  const percent = `${Math.floor(share * 100)} %`.padStart(5);
  return `[${bar}]${percent}  ${trades.toLocaleString("en-US")} trades${rate}${left}  ${path}`;
}

function spellSeconds(seconds: number): string {
  const whole = Math.ceil(seconds);
  return whole < 120 ? `${whole} s` : `${Math.ceil(whole / 60)} min`;
}

export function printExample({ name, place, why }: Example): void {
  printLine(`${name}, line or row ${place}: ${why}`);
}

/** Returns the exit code: 1 when the files held trades and none could be taken. */
export function printImported(imported: Imported, isDry: boolean, isJson: boolean): number {
  const { files, trades, stored, known, windows, skipped, refused, notes } = imported;
  const did = isDry ? "would take" : "stored";
  const lines = [
    `${files === 1 ? "one file" : `${files} files`} with ${trades} trades: ${did} ${stored}` +
      (isDry ? "" : `, ${known} were there already; wrote ${windows} windows`),
    ...told(skipped, "left out"),
    ...told(refused, "refused"),
    ...told(notes, "taken"),
  ];
  for (const line of lines) printLine(line);
  if (isJson) printLine(JSON.stringify({ verb: "import", dryRun: isDry, ...imported }));
  const isAllRefused = stored + known === 0 && Object.keys(refused).length > 0;
  return isAllRefused ? 1 : 0;
}

function told(reasons: Readonly<Record<string, number>>, word: string): string[] {
  return Object.entries(reasons).map(([why, count]) => `  ${word}: ${count} (${why})`);
}

/** One trade of a dry run. */
export function printTrade(
  symbol: string,
  tradedAtMs: number,
  price: number,
  volume: number,
  uuid: string,
): void {
  printLine(`  ${symbol}  ${isoOf(tradedAtMs)}  price ${price}  volume ${volume}  ${uuid}`);
}
