// Pages of what is stored: a checked query in, items and the URL of the next page out. No row stands on two pages
// and none is missed between them: trades and events continue by their key, windows by their time. It reads, and
// writes nothing.

import type { Clock } from "../base/clock.ts";
import type { StoreReader, TimeRange } from "../contracts/store.ts";
import { AGGREGATES, type AverageRow, type CandleRow } from "../model/aggregates.ts";
import { DAY_MS, dayOf, type FeedEventRow, HOUR_MS, type TradeRow } from "../model/trade.ts";
import {
  type AveragesQuery,
  type CandlesQuery,
  type EventsQuery,
  INTERVALS_MS,
  PAGE_ITEMS_DEFAULT,
  QueryError,
  RANGE_HOURS_DEFAULT,
  type TradesQuery,
} from "./query.ts";

export type Page<Item> = Readonly<{ items: readonly Item[]; next: string | null }>;

/** 1-minute rows read in one go for wider candles: about 3 ms, after which the event loop has its turn. */
const CANDLE_ROWS_PER_READ = 2_000;

export async function listTrades(
  store: StoreReader,
  query: TradesQuery,
  nowMs: number,
): Promise<Page<TradeRow>> {
  const { symbol, limit = PAGE_ITEMS_DEFAULT, before } = query;
  const { fromMs, toMs } = rangeOf(query, nowMs);
  // What cannot come any more is left out of the range, so that a store reads fewer of its hours.
  const range = { fromMs, toMs: before === undefined ? toMs : Math.min(toMs, before.trade_timestamp + 1) };
  const rows = await store.listTrades({ symbol, range, limit: limit + 1, ...(before && { before }) });
  return pageOf("/trades", rows, limit, (last) => ({
    symbol,
    from: fromMs,
    to: toMs,
    limit,
    before: `${last.trade_timestamp}.${last.uuid}`,
  }));
}

/** Windows that are over: of an average that still grows, half a truth would be shown. */
export async function listAverages(
  store: StoreReader,
  query: AveragesQuery,
  nowMs: number,
): Promise<Page<AverageRow>> {
  const { symbol, limit = PAGE_ITEMS_DEFAULT } = query;
  const { fromMs, toMs } = rangeOf(query, nowMs);
  const range = { fromMs, toMs: Math.min(toMs, nowMs + 1) };
  const rows = await store.listAverages({ symbol, range, limit: limit + 1 });
  return pageOf("/averages", rows, limit, (last) => ({ symbol, from: fromMs, to: last.window_end, limit }));
}

/** Candles whose (aligned) window_start lies in the range; each is whole, whatever the range cuts. */
export async function listCandles(
  store: StoreReader,
  query: CandlesQuery,
  clock: Clock,
): Promise<Page<CandleRow>> {
  const { symbol, interval = "1m", limit = PAGE_ITEMS_DEFAULT } = query;
  const { fromMs, toMs } = rangeOf(query, clock.now());
  const widthMs = INTERVALS_MS[interval]!;
  const range = { fromMs: alignedUp(fromMs, widthMs), toMs: alignedUp(toMs, widthMs) };
  const stored = AGGREGATES.find((one) => one.shape === "candle" && one.widthMs === widthMs);
  const candles =
    stored?.shape === "candle"
      ? await store.listCandles({ symbol, range, limit: limit + 1 }, stored.kind)
      : await mergedCandles(store, symbol, range, widthMs, limit + 1, clock);
  return pageOf("/candles", candles, limit, (last) => ({
    symbol,
    interval,
    from: fromMs,
    to: last.window_start,
    limit,
  }));
}

export async function listEvents(
  store: StoreReader,
  query: EventsQuery,
  nowMs: number,
): Promise<Page<FeedEventRow>> {
  const { limit = PAGE_ITEMS_DEFAULT, before } = query;
  const { fromMs, toMs } = rangeOf(query, nowMs);
  const range = { fromMs, toMs: before === undefined ? toMs : Math.min(toMs, before.event_timestamp + 1) };
  const rows = await eventsAfter(store, range, before, limit + 1);
  return pageOf("/feed-events", rows, limit, (last) => ({
    from: fromMs,
    to: toMs,
    limit,
    before: `${last.event_timestamp}.${last.session}.${last.sequence}`,
  }));
}

/**
 * The store continues events by time alone, and a few share a millisecond: it is asked for more until enough are
 * beyond the cursor. That ends, at the latest, with all events of one millisecond and a page.
 */
async function eventsAfter(
  store: StoreReader,
  range: TimeRange,
  before: EventsQuery["before"],
  wantedCount: number,
): Promise<readonly FeedEventRow[]> {
  if (before === undefined) return store.listEvents({ range, limit: wantedCount });
  for (let limit = wantedCount * 2; ; limit *= 2) {
    const rows = await store.listEvents({ range, limit });
    const rest = rows.filter((row) => isAfterCursor(row, before));
    if (rest.length >= wantedCount || rows.length < limit) return rest.slice(0, wantedCount);
  }
}

/** In the order of feed_events: newest first, then session and sequence descending. */
function isAfterCursor(row: FeedEventRow, before: NonNullable<EventsQuery["before"]>): boolean {
  if (row.event_timestamp !== before.event_timestamp) return row.event_timestamp < before.event_timestamp;
  if (row.session !== before.session) return row.session < before.session;
  return row.sequence < before.sequence;
}

/** Without `to` everything that can be true lies before a day from now; without `from` a page is a day's. */
function rangeOf(
  query: Readonly<{ from?: number | undefined; to?: number | undefined }>,
  nowMs: number,
): TimeRange {
  const toMs = query.to ?? nowMs + DAY_MS;
  const fromMs = query.from ?? Math.max(0, Math.min(toMs, nowMs) - RANGE_HOURS_DEFAULT * HOUR_MS);
  if (fromMs < toMs) return { fromMs, toMs };
  const isDefault = query.to === undefined ? ", which is a day ahead of now when it is not given" : "";
  throw new QueryError(
    `from must be earlier than to${isDefault}: from is ${iso(fromMs)}, to is ${iso(toMs)}`,
  );
}

function iso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

/** One row more than the page was read: whether there is one tells whether there is a next page. */
function pageOf<Row>(
  path: string,
  rows: readonly Row[],
  limit: number,
  nextQuery: (last: Row) => Readonly<Record<string, string | number>>,
): Page<Row> {
  if (rows.length <= limit) return { items: rows, next: null };
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(nextQuery(rows[limit - 1]!)))
    parameters.set(name, String(value));
  return { items: rows.slice(0, limit), next: `${path}?${parameters}` };
}

// --- Wider candles -----------------------------------------------------------------------------------------------

/** Newest first, each from all its 1-minute rows, so at most `countMax` x 60 of them are read. */
async function mergedCandles(
  store: StoreReader,
  symbol: string,
  range: TimeRange,
  widthMs: number,
  countMax: number,
  clock: Clock,
): Promise<CandleRow[]> {
  const candles: CandleRow[] = [];
  let minutes: CandleRow[] = []; // Of the candle that is being gathered, newest first.
  let toMs = range.toMs;
  for (;;) {
    const rows = await store.listCandles({
      symbol,
      range: { fromMs: range.fromMs, toMs },
      limit: CANDLE_ROWS_PER_READ,
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
    if (rows.length < CANDLE_ROWS_PER_READ) break;
    toMs = rows.at(-1)!.window_start;
    await new Promise<void>((resolve) => clock.atEndOfTick(resolve));
  }
  if (minutes.length > 0) candles.push(mergeCandles(minutes, widthMs));
  return candles;
}

/** One candle of the 1-minute candles of one window, newest first and at least one. */
export function mergeCandles(minutes: readonly CandleRow[], widthMs: number): CandleRow {
  const newest = minutes[0]!;
  const oldest = minutes.at(-1)!;
  const windowStartMs = startOf(newest, widthMs);
  const volume = Math.sumPrecise(minutes.map((minute) => minute.volume));
  const priceVolumeSum = Math.sumPrecise(minutes.map(({ price_volume_sum }) => price_volume_sum));
  return {
    symbol: newest.symbol,
    day: dayOf(windowStartMs),
    window_start: windowStartMs,
    open: oldest.open,
    high: Math.max(...minutes.map(({ high }) => high)),
    low: Math.min(...minutes.map(({ low }) => low)),
    close: newest.close,
    volume,
    price_volume_sum: priceVolumeSum,
    vwap: volume === 0 ? null : priceVolumeSum / volume,
    trade_count: minutes.reduce((sum, { trade_count }) => sum + trade_count, 0),
  };
}

/** The widths divide the day, and the day begins at a multiple of them since 1970: aligned to UTC. */
function startOf({ window_start }: CandleRow, widthMs: number): number {
  return window_start - (window_start % widthMs);
}

function alignedUp(timeMs: number, widthMs: number): number {
  return Math.ceil(timeMs / widthMs) * widthMs;
}
