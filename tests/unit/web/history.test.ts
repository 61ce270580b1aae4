// What is stored, as GET /trades, /averages, /candles and /feed-events answer it: which rows, in which order, and pages
// that neither repeat nor miss one.

import { expect, test } from "bun:test";
import type { AverageRow, CandleRow } from "../../../lib/model/aggregates.ts";
import {
  dayOf,
  type FeedEventRow,
  HOUR_MS,
  hourOf,
  MINUTE_MS,
  type TradeRow,
} from "../../../lib/model/trade.ts";
import type { SqliteStore } from "../../../lib/sqlite/store.ts";
import { NOON_MS, seeded } from "../../support/builders.ts";
import { openWeb, row, uuidOf } from "../../support/web.ts";

function average(windowEndMs: number): AverageRow {
  return {
    symbol: "AAPL",
    hour: hourOf(windowEndMs),
    window_end: windowEndMs,
    price_volume_multiply: 200,
    average_price: 100,
    vwap: 100,
    volume: 2,
    trade_count: 1,
  };
}

function candle(windowStartMs: number, fields: Partial<CandleRow> = {}): CandleRow {
  return {
    symbol: "AAPL",
    day: dayOf(windowStartMs),
    window_start: windowStartMs,
    open: 10,
    high: 12,
    low: 9,
    close: 11,
    volume: 2,
    price_volume_sum: 22,
    vwap: 11,
    trade_count: 3,
    ...fields,
  };
}

const putCandles = (store: SqliteStore, rows: readonly CandleRow[]) =>
  store.putWindows(rows.map((one) => ({ kind: "candle", row: one })));

// --- Trades ----------------------------------------------------------------------------------------------------

test("trades come in column names, times in ms, newest first", async () => {
  using web = openWeb();
  const old = row(1, NOON_MS - 1_000);
  const recent = row(2, NOON_MS - 500, { conditions: ["1", "12"] });
  await web.store.putTrades([old, recent, row(3, NOON_MS, { symbol: "MSFT" })]);
  expect((await web.get("/trades?symbol=AAPL")).body).toEqual({ items: [recent, old], next: null });
  expect(recent.trade_conditions).toBe('["1","12"]');
});

test("an unknown symbol is an empty page, not an error", async () => {
  using web = openWeb();
  for (const path of ["/trades?symbol=NOPE", "/averages?symbol=NOPE", "/candles?symbol=NOPE&interval=1h"]) {
    expect(await web.get(path)).toMatchObject({ status: 200, body: { items: [], next: null } });
  }
});

test("a symbol with blanks, colons or other scripts is found", async () => {
  using web = openWeb();
  for (const symbol of ["IC MARKETS:1", "BINANCE:BTCUSDT", "A&B=C", "日経/225"]) {
    await web.store.putTrades([row(1, NOON_MS, { symbol }), row(2, NOON_MS, { symbol })]);
    const path = `/trades?symbol=${encodeURIComponent(symbol)}&limit=1`;
    expect((await web.all<TradeRow>(path)).map((one) => one.symbol)).toEqual([symbol, symbol]);
  }
});

test("over the pages no trade stands twice and none is missing, though many share a millisecond", async () => {
  using web = openWeb();
  const random = seeded(7);
  const rows = Array.from({ length: 300 }, (_, number) =>
    row(number, NOON_MS - HOUR_MS + random(12) * 700_000),
  );
  await web.store.putTrades(rows);
  const newestFirst = rows.toSorted(
    (a, b) => b.trade_timestamp - a.trade_timestamp || (a.uuid < b.uuid ? 1 : -1),
  );
  for (const limit of [1, 7, 100, 299, 300, 1_000]) {
    const seen = await web.all<TradeRow>(`/trades?symbol=AAPL&limit=${limit}`);
    expect(seen.map(({ uuid }) => uuid)).toEqual(newestFirst.map(({ uuid }) => uuid));
  }
});

test("a page goes on where it began, though newer trades come and time passes in between", async () => {
  using web = openWeb();
  await web.store.putTrades([row(1, NOON_MS - 23.9 * HOUR_MS), row(2, NOON_MS - 2), row(3, NOON_MS - 1)]);
  const first = await web.get("/trades?symbol=AAPL&limit=2");
  await web.store.putTrades([row(4, NOON_MS)]);
  web.time.nowMs += HOUR_MS; // The oldest is now more than a day old.
  const second = await web.get(String(first.body.next));
  expect(second.body).toMatchObject({ items: [{ uuid: uuidOf(1) }], next: null });
});

test("a page that is just full says that it is the last", async () => {
  using web = openWeb();
  await web.store.putTrades([row(1, NOON_MS), row(2, NOON_MS)]);
  expect((await web.get("/trades?symbol=AAPL&limit=2")).body.next).toBeNull();
});

test("from is in the range and to is not, in milliseconds and in ISO 8601", async () => {
  using web = openWeb();
  await web.store.putTrades([
    row(1, NOON_MS - 1),
    row(2, NOON_MS),
    row(3, NOON_MS + 999),
    row(4, NOON_MS + 1_000),
  ]);
  const numbers = async (from: string | number, to: string | number) =>
    (await web.all<TradeRow>(`/trades?symbol=AAPL&from=${from}&to=${to}`)).map(({ uuid }) =>
      Number(uuid.at(-1)),
    );
  expect(await numbers(NOON_MS, NOON_MS + 1_000)).toEqual([3, 2]);
  expect(await numbers("2026-01-05T12:00:00Z", "2026-01-05T12:00:01.000Z")).toEqual([3, 2]);
  expect(await numbers("2026-01-05T13:00:00%2B01:00", "2026-01-05T13:00:01+01:00")).toEqual([3, 2]);
  expect(await numbers("2026-01-05", "2026-01-06")).toEqual([4, 3, 2, 1]);
  expect(await numbers(0, NOON_MS)).toEqual([1]);
});

test("without `from` the newest trades there are come, however long ago, and then those before them", async () => {
  using web = openWeb();
  const hoursAgo = [-23, 0, 24, 25, 26, 60, 24 * 40, 24 * 40, 24 * 300];
  const rows = hoursAgo.map((hours, number) => row(99 - number, NOON_MS - hours * HOUR_MS + 7));
  await web.store.putTrades(rows);
  await putCandles(
    web.store,
    [...new Set(rows.map(({ trade_timestamp: at }) => at - (at % MINUTE_MS)))].map((startMs) =>
      candle(startMs),
    ),
  );
  for (const limit of [1, 2, 4, 100]) {
    expect(await web.all<TradeRow>(`/trades?symbol=AAPL&limit=${limit}`)).toEqual(rows);
  }
  const earlier = await web.all<TradeRow>(`/trades?symbol=AAPL&to=${NOON_MS - 26 * HOUR_MS}`);
  expect(earlier).toEqual(rows.slice(5));
  // With `from` the range is what it says.
  expect(await web.all(`/trades?symbol=AAPL&from=${NOON_MS - 24 * HOUR_MS}`)).toEqual(rows.slice(0, 3));
});

test("a symbol that is traded once a week is walked back in steps, over the pages to its beginning", async () => {
  using web = openWeb();
  const rows = Array.from({ length: 100 }, (_, week) => row(200 - week, NOON_MS - week * 7 * 24 * HOUR_MS));
  await web.store.putTrades(rows);
  await putCandles(
    web.store,
    rows.map(({ trade_timestamp: at }) => candle(at)),
  );
  const reads: number[] = [];
  const listTrades: SqliteStore["listTrades"] = (query) => {
    reads.push(query.range.toMs - query.range.fromMs);
    return web.store.listTrades(query);
  };
  using counting = openWeb({ store: { ...web.store, listTrades } });
  expect(await counting.all<TradeRow>("/trades?symbol=AAPL&limit=1000")).toEqual(rows);
  // A Cassandra is asked for hours: no read spans many of them.
  expect(Math.max(...reads)).toBeLessThanOrEqual(2 * 24 * HOUR_MS);
  expect(reads.length).toBeLessThan(110);
  // Where a store finds days only so far back it ends there: a Cassandra would have to read the keys of a whole table.
  const ancient = row(1, NOON_MS - 3 * 365 * 24 * HOUR_MS, { symbol: "OLD" });
  await web.store.putTrades([ancient]);
  await putCandles(web.store, [candle(ancient.trade_timestamp, { symbol: "OLD" })]);
  expect(await web.all("/trades?symbol=OLD")).toEqual([ancient]);
  using bounded = openWeb({ store: { ...web.store, candleDaysMax: 744 } });
  expect(await bounded.all("/trades?symbol=OLD")).toEqual([]);
  expect(await web.all("/trades?symbol=OLD&from=0")).toEqual([ancient]);
});

test("averages and candles without `from` are the newest there are, too", async () => {
  using web = openWeb();
  const fridayMs = NOON_MS - 65 * HOUR_MS;
  await putCandles(web.store, [candle(fridayMs)]);
  const rows = [20_000, 60_000, 70_000].map((afterMs) => average(fridayMs + afterMs));
  await web.store.putWindows(rows.map((one) => ({ kind: "average", row: one })));
  for (const limit of [1, 100]) {
    expect(await web.all<AverageRow>(`/averages?symbol=AAPL&limit=${limit}`)).toEqual(rows.toReversed());
  }
  for (const interval of ["1m", "5m", "1h"]) {
    expect(await web.all(`/candles?symbol=AAPL&interval=${interval}`)).toHaveLength(1);
  }
});

test("100 items are a page by default, and 1,000 at most", async () => {
  using web = openWeb();
  await web.store.putTrades(Array.from({ length: 1_001 }, (_, number) => row(number, NOON_MS)));
  expect((await web.get("/trades?symbol=AAPL")).body.items).toHaveLength(100);
  const page = await web.get("/trades?symbol=AAPL&limit=1000");
  expect(page.body.items).toHaveLength(1_000);
  expect((await web.get(String(page.body.next))).body.items).toHaveLength(1);
});

// --- Averages and candles --------------------------------------------------------------------------------------

test("averages whose window is not over are not shown", async () => {
  using web = openWeb();
  const rows = [NOON_MS - 5_000, NOON_MS, NOON_MS + 5_000].map(average);
  await web.store.putWindows(rows.map((one) => ({ kind: "average", row: one })));
  const ends = async () => (await web.all<AverageRow>("/averages?symbol=AAPL")).map((one) => one.window_end);
  expect(await ends()).toEqual([NOON_MS, NOON_MS - 5_000]);
  expect((await web.get("/averages?symbol=AAPL")).body.items).toEqual([rows[1], rows[0]]);
  web.time.nowMs += 5_000;
  expect(await ends()).toEqual([NOON_MS + 5_000, NOON_MS, NOON_MS - 5_000]);
});

test("over the pages no window stands twice and none is missing", async () => {
  using web = openWeb();
  const ends = Array.from({ length: 50 }, (_, index) => NOON_MS - index * 5_000);
  await web.store.putWindows(ends.map((endMs) => ({ kind: "average", row: average(endMs) })));
  await putCandles(
    web.store,
    ends.map((_, index) => candle(NOON_MS - index * MINUTE_MS)),
  );
  for (const limit of [1, 7, 49, 50]) {
    const averages = await web.all<AverageRow>(`/averages?symbol=AAPL&limit=${limit}`);
    expect(averages.map((one) => one.window_end)).toEqual(ends);
    const candles = await web.all<CandleRow>(`/candles?symbol=AAPL&limit=${limit}`);
    expect(candles.map((one) => one.window_start)).toEqual(
      ends.map((_, index) => NOON_MS - index * MINUTE_MS),
    );
  }
});

test("the open candle is shown", async () => {
  using web = openWeb();
  const open = candle(NOON_MS);
  await putCandles(web.store, [open]);
  web.time.nowMs = NOON_MS + 20_000;
  expect((await web.get("/candles?symbol=AAPL")).body.items).toEqual([open]);
});

test("a 5-minute candle is merged from its minutes and aligned to UTC", async () => {
  using web = openWeb();
  await putCandles(web.store, [
    candle(NOON_MS - MINUTE_MS),
    candle(NOON_MS, {
      open: 1,
      high: 5,
      low: 1,
      close: 4,
      volume: 0.3,
      price_volume_sum: 0.9,
      trade_count: 2,
    }),
    candle(NOON_MS + 2 * MINUTE_MS, {
      open: 4,
      high: 9,
      low: 3,
      close: 8,
      volume: 0.2,
      price_volume_sum: 0.6,
    }),
    candle(NOON_MS + 4 * MINUTE_MS, {
      open: 8,
      high: 8,
      low: 2,
      close: 3,
      volume: 0.1,
      price_volume_sum: 0.3,
    }),
  ]);
  web.time.nowMs = NOON_MS + 10 * MINUTE_MS;
  const [newest, older] = await web.all<CandleRow>("/candles?symbol=AAPL&interval=5m");
  expect(newest).toEqual({
    symbol: "AAPL",
    day: "2026-01-05",
    window_start: NOON_MS,
    open: 1,
    high: 9,
    low: 1,
    close: 3,
    volume: 0.6,
    price_volume_sum: 1.8,
    vwap: 1.8 / 0.6,
    trade_count: 8,
  });
  expect(older).toMatchObject({ window_start: NOON_MS - 5 * MINUTE_MS, trade_count: 3 });
});

test("a wide candle without volume has no vwap", async () => {
  using web = openWeb();
  await putCandles(web.store, [candle(NOON_MS, { volume: 0, price_volume_sum: 0, vwap: null })]);
  expect((await web.all<CandleRow>("/candles?symbol=AAPL&interval=1h"))[0]?.vwap).toBeNull();
});

test("neither a page nor a range cuts a wide candle in half", async () => {
  using web = openWeb();
  const random = seeded(3);
  const starts = Array.from({ length: 4_500 }, (_, index) => NOON_MS - index * MINUTE_MS).filter(
    () => random(10) > 0,
  );
  await putCandles(
    web.store,
    starts.map((startMs) =>
      candle(startMs, { high: 100 + random(50), low: 50 + random(50), volume: random(9) }),
    ),
  );
  for (const [interval, widthMs] of [["5m", 300_000] as const, ["1h", HOUR_MS] as const]) {
    const from = NOON_MS - 70.3 * HOUR_MS;
    const to = NOON_MS - 1.7 * HOUR_MS;
    const counts = new Map<number, number>();
    for (const startMs of starts) {
      const aligned = Math.floor(startMs / widthMs) * widthMs;
      if (aligned >= from && aligned < to) counts.set(aligned, (counts.get(aligned) ?? 0) + 3);
    }
    for (const limit of [10, 999]) {
      const path = `/candles?symbol=AAPL&interval=${interval}&from=${from}&to=${to}&limit=${limit}`;
      const candles = await web.all<CandleRow>(path);
      expect(candles.map((one) => [one.window_start, one.trade_count])).toEqual([...counts]);
    }
  }
});

// --- Feed events -----------------------------------------------------------------------------------------------

test("feed events are listed alike, and many of one millisecond each stand on one page only", async () => {
  using web = openWeb();
  const event = (atMs: number, session: string, sequence: number): FeedEventRow => ({
    day: dayOf(atMs),
    event_timestamp: atMs,
    session,
    sequence,
    type: "disconnected",
    detail: "{}",
  });
  const rows = [event(NOON_MS, "00000002", 9)];
  for (let sequence = 30; sequence > 0; sequence--) rows.push(event(NOON_MS - 1, "00000002", sequence));
  for (let sequence = 12; sequence > 0; sequence--) rows.push(event(NOON_MS - 1, "00000001", sequence));
  rows.push(event(NOON_MS - 2, "00000001", 1), event(NOON_MS - 13 * HOUR_MS, "00000001", 2));
  await web.store.putEvents(rows.toReversed());
  for (const limit of [1, 2, 7, 1_000]) {
    expect(await web.all<FeedEventRow>(`/feed-events?limit=${limit}`)).toEqual(rows);
  }
  expect(await web.all<FeedEventRow>(`/feed-events?from=${NOON_MS}`)).toEqual(rows.slice(0, 1));
});
