// The newest rows there are, however long ago: for a weekend, a holiday, a symbol that was taken off the watchlist. It
// asks the store for the last day first, and then only for days in which a candle says that something was traded, so
// that nothing is searched hour by hour. It reads, and keeps nothing.

import type { StoreReader, TimeRange } from "../../contracts/store.ts";
import { DAY_MS, MINUTE_MS } from "../../model/trade.ts";

/** Each step reads a day of one symbol, which is some milliseconds; a page that is not full then says where to go on. */
const STEPS_MAX = 32;
/** A window or a trade of a candle's minute ends at most so long after its beginning. */
const CANDLE_REACH_MS = 2 * MINUTE_MS;

type Walk<Row> = Readonly<{
  store: Pick<StoreReader, "listCandles" | "candleDaysMax">;
  symbol: string;
  /** Exclusive. */
  toMs: number;
  nowMs: number;
  limit: number;
  /** Newest first. */
  read: (range: TimeRange, limit: number) => Promise<readonly Row[]>;
}>;

/** `untilMs`: rows before it may be missing, for there were too many steps; null = these are all, or enough. */
type Walked<Row> = Readonly<{ rows: readonly Row[]; untilMs: number | null }>;

/** How far back the newest is looked for: as far as the store finds a day with candles in some 100 ms. */
export function floorOf({ candleDaysMax }: Pick<StoreReader, "candleDaysMax">, nowMs: number): number {
  return candleDaysMax === undefined ? 0 : Math.max(0, nowMs - (candleDaysMax - 2) * DAY_MS);
}

export async function walkBack<Row>(walk: Walk<Row>): Promise<Walked<Row>> {
  const { store, symbol, nowMs, limit, read } = walk;
  const floorMs = floorOf(store, nowMs);
  let { toMs } = walk;
  // The newest candle may not be written yet, so the last day is read without it.
  let fromMs = Math.max(0, Math.min(toMs, nowMs) - DAY_MS);
  const rows: Row[] = [];
  for (let step = 0; step < STEPS_MAX; step++) {
    if (fromMs < toMs) rows.push(...(await read({ fromMs, toMs }, limit - rows.length)));
    if (rows.length >= limit || fromMs <= floorMs) return { rows, untilMs: null };
    toMs = Math.min(toMs, fromMs);
    const [newest] = await store.listCandles({ symbol, range: { fromMs: floorMs, toMs }, limit: 1 });
    if (newest === undefined) return { rows, untilMs: null };
    // Nothing lies between that candle's reach and what was read.
    toMs = Math.min(toMs, newest.window_start + CANDLE_REACH_MS);
    fromMs = Math.max(floorMs, toMs - DAY_MS);
  }
  return { rows, untilMs: toMs };
}
