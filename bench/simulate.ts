// `bun run simulate [--seeds 1000] [--from 0]`: that many seeds, each a run of the real loops in virtual time over
// contracts that misbehave; seed 0 replays thirty days. Prints what was met and what came of it. `--seed N` shows
// one seed step by step; `--until-wrong` ends at the first that lost, doubled or miscounted; `--json` closes with one line for machines.
// Exit code 1: a seed was red, or (from FULL_SEEDS_MIN seeds on) a kind of fault never fired.

import { parseArgs } from "node:util";
import { KINDS } from "../tests/simulation/faults.ts";
import { isGreen, type Outcome } from "../tests/simulation/outcome.ts";
import { simulateSeed } from "../tests/simulation/seed.ts";
import { addOutcome, newTotal } from "../tests/simulation/total.ts";

/** So many fire every kind: it is a mistake in the simulation when one does not. */
const FULL_SEEDS_MIN = 500;
const PROGRESS_MS = 10_000;
const RED_SAID_MAX = 10;

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "0" },
    seed: { type: "string" },
    json: { type: "boolean", default: false },
    "until-wrong": { type: "boolean", default: false },
  },
});

if (values.seed === undefined) runMany(wholeNumber(values.from), wholeNumber(values.seeds));
else runOne(wholeNumber(values.seed));

function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`"${text}" is no whole number`);
  return Number(text);
}

function runOne(seed: number): void {
  const lines: string[] = [];
  const outcome = simulateSeed(seed, lines);
  console.log(lines.join("\n"));
  say(outcome);
  close([outcome], 0);
}

function runMany(from: number, seeds: number): void {
  const startedMs = performance.now();
  let saidMs = startedMs;
  const outcomes: Outcome[] = [];
  let redCount = 0;
  for (let seed = from; seed < from + seeds; seed++) {
    const outcome = simulateSeed(seed);
    outcomes.push(outcome);
    if (!isGreen(outcome)) {
      redCount += 1;
      if (redCount <= RED_SAID_MAX) say(outcome);
    }
    if (values["until-wrong"] && outcome.lost + outcome.doubled + outcome.wrongWindows > 0) break;
    if (performance.now() - saidMs < PROGRESS_MS) continue;
    saidMs = performance.now();
    console.error(`${outcomes.length} seeds, ${redCount} red, ${Math.round((saidMs - startedMs) / 1_000)} s`);
  }
  close(outcomes, performance.now() - startedMs);
}

function say(outcome: Outcome): void {
  const { seed, trades, lost, doubled, wrongWindows, commits, commitsUnlawful, recoveryMs, hash } = outcome;
  console.log(
    `seed ${seed}: ${isGreen(outcome) ? "green" : "RED"}, ${trades} trades, ${lost} lost, ${doubled} doubled, ` +
      `${wrongWindows} windows wrong, ${commits} commits, ${commitsUnlawful} unlawful, ` +
      `${recoveryMs === null ? "not settled" : `settled in ${recoveryMs} ms`}, trace ${hash}`,
  );
  for (const text of [...outcome.failures, ...outcome.problems].slice(0, RED_SAID_MAX))
    console.log(`  ${text}`);
}

function close(outcomes: readonly Outcome[], tookMs: number): void {
  const total = newTotal();
  for (const outcome of outcomes) addOutcome(total, outcome);
  const { faults, seeds, trades, lost, doubled, wrongWindows } = total;
  const unfired = KINDS.filter((kind) => faults[kind] === 0);
  if (values.seed === undefined) {
    for (const kind of KINDS) console.log(`  ${kind.padEnd(36)}${String(faults[kind]).padStart(10)}`);
  }
  console.log(
    [
      `seeds ${seeds} (${total.red} red)`,
      `faults ${total.faultCount} of ${KINDS.length - unfired.length} kinds`,
      `trades ${trades}`,
      `commits ${total.commits} (${total.commitsUnlawful} unlawful)`,
      `lost ${lost}`,
      `doubled ${doubled}`,
      `wrong windows ${wrongWindows}`,
      `failures ${total.failures}`,
      `slowest recovery ${total.slowestRecoveryMs} ms (virtual)`,
      ...(tookMs > 0 ? [`took ${(tookMs / 1_000).toFixed(1)} s`] : []),
    ].join("\n"),
  );
  const isUnfired = seeds >= FULL_SEEDS_MIN && unfired.length > 0;
  if (isUnfired) console.log(`never fired: ${unfired.join(", ")}`);
  if (values.json) console.log(JSON.stringify({ seeds, faults, trades, lost, doubled, wrongWindows }));
  process.exitCode = total.red > 0 || isUnfired ? 1 : 0;
}
