// The newest rows there are, however long ago: for a weekend, a holiday, a symbol that was taken off the watchlist. It
// asks the store for the last day first, and then only for days in which a candle says that something was traded, so
// that nothing is searched hour by hour. It reads, and keeps nothing.

import type { StoreReader, TimeRange } from "../../contracts/store.ts";
import { DAY_MS, MINUTE_MS } from "../../model/trade.ts";

/**
 * Two years, as days of candles: as many buckets as a Cassandra is asked one by one, in some 100 ms. Further back it
 * would read the keys of the whole table, for seconds.
 */
export const BACK_DAYS_MAX = 744;
/** Each step reads a day of one symbol, which is some milliseconds; a page that is not full then says where to go on. */
const STEPS_MAX = 32;
/** A window or a trade of a candle's minute ends at most so long after its beginning. */
const CANDLE_REACH_MS = 2 * MINUTE_MS;

type Walk<Row> = Readonly<{
  store: Pick<StoreReader, "listCandles">;
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

export function floorOf(nowMs: number): number {
  return Math.max(0, nowMs - (BACK_DAYS_MAX - 2) * DAY_MS);
}

export async function walkBack<Row>(walk: Walk<Row>): Promise<Walked<Row>> {
  const { store, symbol, nowMs, limit, read } = walk;
  const floorMs = floorOf(nowMs);
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
