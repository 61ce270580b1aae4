// What went in beside what the tables hold: trades as multisets, because they carry no identity on their way in, and
// aggregates beside reference.ts. What differs is told in sentences, few enough to be read.

import { averagesOf, candlesOf, type PlainTrade, timeOf, windowsOf } from "../reference.ts";
import type { StoredTrade, Tables } from "./tables.ts";
import type { TapeTrade } from "./tapes.ts";

/** Of each kind; how many there are is told too. */
const EXAMPLES_MAX = 5;

const fingerprint = (
  symbol: string,
  price: number,
  volume: number,
  atMs: number,
  conditions: string | null,
) => JSON.stringify([symbol, price, volume, atMs, conditions]);
export const ofTape = ({ s, p, v, t, c }: TapeTrade) => fingerprint(s, p, v, t, c ? JSON.stringify(c) : null);
export const ofRow = (row: StoredTrade) =>
  fingerprint(row.symbol, row.price, row.volume, row.trade_timestamp, row.trade_conditions);

export function counts(fingerprints: readonly string[]): Map<string, number> {
  const result = new Map<string, number>();
  for (const one of fingerprints) result.set(one, (result.get(one) ?? 0) + 1);
  return result;
}

/** What `from` holds more often than `other`, each as often as it is more. */
export function surplus(from: ReadonlyMap<string, number>, other: ReadonlyMap<string, number>): string[] {
  return [...from].flatMap(([one, count]) =>
    Array<string>(Math.max(0, count - (other.get(one) ?? 0))).fill(one),
  );
}

export const plainOf = ({ s: symbol, p: price, v: volume, t: atMs }: TapeTrade): PlainTrade => ({
  symbol,
  price,
  volume,
  atMs,
});

export const plainOfRow = (row: StoredTrade): PlainTrade => ({
  symbol: row.symbol,
  price: row.price,
  volume: row.volume,
  atMs: row.trade_timestamp,
  uuid: row.uuid,
});

/** Whether every fingerprint that was expected was found, as often, and no other, in any order; [] = so it is. */
export function tradeProblems(expected: readonly string[], found: readonly string[]): string[] {
  const [expectedCounts, foundCounts] = [counts(expected), counts(found)];
  const sizes = `of ${expected.length} expected and ${found.length} found`;
  return [
    ...told(`trades lost (${sizes})`, surplus(expectedCounts, foundCounts)),
    ...told(`trades doubled or made up (${sizes})`, surplus(foundCounts, expectedCounts)),
  ];
}

/**
 * Whether the windows are exactly those of the trades, computed from scratch; [] = so it is. Of trades without a UUID
 * the list's order says who opens and who closes among equal times.
 */
export function aggregateProblems(tables: Omit<Tables, "trades">, trades: readonly PlainTrade[]): string[] {
  return [
    ...rowProblems(
      "averages",
      tables.averages,
      averagesOf(trades),
      (row) => `${row.symbol} ${row.window_end}`,
    ),
    ...rowProblems(
      "candles",
      tables.candles,
      candlesOf(trades),
      (row) => `${row.symbol} ${row.window_start}`,
    ),
    ...(tables.others ?? []).flatMap(({ aggregate, rows }) =>
      rowProblems(
        `rows of ${aggregate.kind}`,
        rows,
        windowsOf(trades, [aggregate]).map(({ row }) => row),
        (row) => `${row.symbol} ${timeOf(row)}`,
      ),
    ),
  ];
}

function rowProblems<Row>(
  what: string,
  found: readonly Row[],
  expected: readonly Row[],
  keyOf: (row: Row) => string,
): string[] {
  const foundByKey = new Map(found.map((row) => [keyOf(row), row]));
  const expectedKeys = new Set(expected.map(keyOf));
  const missing = expected.filter((row) => !foundByKey.has(keyOf(row)));
  const wrong = expected.flatMap((row) => {
    const other = foundByKey.get(keyOf(row));
    if (other === undefined || Bun.deepEquals(other, row)) return [];
    return `${JSON.stringify(other)} and not ${JSON.stringify(row)}`;
  });
  const sizes = `of ${expected.length} expected and ${found.length} found`;
  return [
    ...told(`${what} missing (${sizes})`, missing.map(keyOf)),
    ...told(`${what} wrong (${sizes})`, wrong),
    ...told(
      `${what} of windows without a trade (${sizes})`,
      found.map(keyOf).filter((key) => !expectedKeys.has(key)),
    ),
    ...told(
      `${what} more than once (${sizes})`,
      surplus(counts(found.map(keyOf)), counts([...foundByKey.keys()])),
    ),
  ];
}

function told(what: string, examples: readonly string[]): string[] {
  if (examples.length === 0) return [];
  const rest = examples.length > EXAMPLES_MAX ? " ..." : "";
  return [`${examples.length} ${what}: ${examples.slice(0, EXAMPLES_MAX).join("; ")}${rest}`];
}
