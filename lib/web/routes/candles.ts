// GET /candles: the candles of a symbol, a page at a time, newest first, the open one included. Wider ones are merged
// from their minutes. Pages continue by time.

import { type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Clock } from "../../base/clock.ts";
import type { StoreReader, TimeRange } from "../../contracts/store.ts";
import { AGGREGATES, type CandleRow } from "../../model/aggregates.ts";
import { sumOf } from "../../model/exact-sum.ts";
import { DAY_MS, dayOf } from "../../model/trade.ts";
import { INTERVALS_MS } from "../live/protocol.ts";
import { floorOf } from "../live/walk-back.ts";
import { type Page, pageOf, rangeOf } from "../pages.ts";
import { fromNewest as from, limit, PAGE_ITEMS_DEFAULT, parameter, query, symbol, to } from "../query.ts";
import { amount, listing, page, timeMs, vwap } from "../schemas.ts";

/** 1-minute rows read in one go for wider candles: about 3 ms, after which the event loop has its turn. */
const ROWS_PER_READ = 2_000;

const intervalNames = Object.keys(INTERVALS_MS);

const interval = parameter({
  name: "interval",
  accepts: `give one of ${intervalNames.join(", ")}`,
  read: (text) => intervalNames.find((name) => name === text),
  documented: { type: "string", enum: intervalNames, default: "1m" },
}).optional();

const candlesQuery = query({ symbol, interval, from, to, limit });

const candle = z
  .object({
    symbol: z.string(),
    day: z.string().openapi({ description: "YYYY-MM-DD, UTC" }),
    window_start: timeMs,
    open: amount,
    high: amount,
    low: amount,
    close: amount,
    volume: amount,
    price_volume_sum: amount,
    vwap,
    trade_count: z.int(),
  })
  .openapi("Candle");

export const candlesPage = page(candle);

const route = listing(
  "/candles",
  "Candles of a symbol, newest first, the open one included; `from` and `to` refer to window_start",
  candlesQuery,
  candlesPage,
);

export function addCandles(app: OpenAPIHono, deps: Readonly<{ store: StoreReader; clock: Clock }>): void {
  const { store, clock } = deps;
  app.openapi(route, async (context) =>
    context.json(await listCandles(store, context.req.valid("query"), clock), 200),
  );
}

/** Candles whose (aligned) window_start lies in the range; each is whole, wherever the range cuts. */
async function listCandles(
  store: StoreReader,
  asked: z.output<typeof candlesQuery>,
  clock: Clock,
): Promise<Page<CandleRow>> {
  const { symbol, interval = "1m", limit = PAGE_ITEMS_DEFAULT } = asked;
  const nowMs = clock.now();
  const from = asked.from ?? Math.min(floorOf(store, nowMs), (asked.to ?? nowMs) - DAY_MS);
  const { fromMs, toMs } = rangeOf({ ...asked, from: Math.max(0, from) }, nowMs);
  const widthMs = INTERVALS_MS[interval]!;
  const range = { fromMs: alignedUp(fromMs, widthMs), toMs: alignedUp(toMs, widthMs) };
  const stored = AGGREGATES.find((one) => one.shape === "candle" && one.widthMs === widthMs);
  const candles =
    stored?.shape === "candle"
      ? await store.listCandles({ symbol, range, limit: limit + 1 }, stored.kind)
      : await mergedCandles({ store, symbol, range, widthMs, countMax: limit + 1, clock });
  return pageOf("candles", candles, limit, (last) => ({
    symbol,
    interval,
    from: fromMs,
    to: last.window_start,
    limit,
  }));
}

type WideCandles = Readonly<{
  store: StoreReader;
  symbol: string;
  range: TimeRange;
  widthMs: number;
  countMax: number;
  clock: Clock;
}>;

/** Newest first, each from all its 1-minute rows, so at most `countMax` x 60 of them are read. */
async function mergedCandles(asked: WideCandles): Promise<CandleRow[]> {
  const { store, symbol, range, widthMs, countMax, clock } = asked;
  const candles: CandleRow[] = [];
  /** Those of the candle that is being gathered, newest first. */
  let minutes: CandleRow[] = [];
  let { toMs } = range;
  for (;;) {
    const rows = await store.listCandles({
      symbol,
      range: { fromMs: range.fromMs, toMs },
      limit: ROWS_PER_READ,
    });
    for (const row of rows) {
      const gathering = minutes[0];
      if (gathering && startOf(gathering, widthMs) !== startOf(row, widthMs)) {
        candles.push(mergeCandles(minutes, widthMs));
        if (candles.length === countMax) return candles;
        minutes = [];
      }
      minutes.push(row);
    }
    if (rows.length < ROWS_PER_READ) break;
    toMs = rows.at(-1)!.window_start;
    await new Promise<void>((resolve) => clock.atEndOfTick(resolve));
  }
  if (minutes.length > 0) candles.push(mergeCandles(minutes, widthMs));
  return candles;
}

/** One candle from the 1-minute candles of its window, newest first and at least one. */
function mergeCandles(minutes: readonly CandleRow[], widthMs: number): CandleRow {
  const newest = minutes[0]!;
  const oldest = minutes.at(-1)!;
  const windowStartMs = startOf(newest, widthMs);
  const volume = sumOf(minutes.map((minute) => minute.volume));
  const priceVolumeSum = sumOf(minutes.map(({ price_volume_sum }) => price_volume_sum));
  const high = Math.max(...minutes.map((minute) => minute.high));
  const low = Math.min(...minutes.map((minute) => minute.low));
  return {
    symbol: newest.symbol,
    day: dayOf(windowStartMs),
    window_start: windowStartMs,
    open: oldest.open,
    high,
    low,
    close: newest.close,
    volume,
    price_volume_sum: priceVolumeSum,
    // The sums of the minutes were rounded, so the last bit may lie outside.
    vwap: volume === 0 ? null : Math.min(high, Math.max(low, priceVolumeSum / volume)),
    trade_count: minutes.reduce((sum, { trade_count }) => sum + trade_count, 0),
  };
}

/** The widths divide the day, and days begin at a multiple of them since 1970: aligned to UTC. */
function startOf({ window_start }: CandleRow, widthMs: number): number {
  return window_start - (window_start % widthMs);
}

function alignedUp(timeMs: number, widthMs: number): number {
  return Math.ceil(timeMs / widthMs) * widthMs;
}
