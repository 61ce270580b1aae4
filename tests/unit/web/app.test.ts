// The web as a browser or a program meets it: the app as a value on a real store in a directory of its own, and a
// few promises over a real socket.

import { expect, test } from "bun:test";
import { type Clock, systemClock } from "../../../lib/base/clock.ts";
import { SetupError, StoreUnavailableError } from "../../../lib/base/errors.ts";
import { type Logger, silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type { StoreReader } from "../../../lib/contracts/store.ts";
import { type HealthDocument, healthDocument } from "../../../lib/health/health.ts";
import type { AverageRow, CandleRow } from "../../../lib/model/aggregates.ts";
import {
  dayOf,
  type FeedEventRow,
  HOUR_MS,
  hourOf,
  type TradeRow,
  tradeRow,
} from "../../../lib/model/trade.ts";
import { openSqliteStore, type SqliteStore } from "../../../lib/sqlite/store.ts";
import { createWeb, type WebDeps } from "../../../lib/web/app.ts";
import { createLiveView } from "../../../lib/web/live/view.ts";
import { INTERVALS_MS } from "../../../lib/web/query.ts";
import { serveWeb } from "../../../lib/web/server.ts";
import { NOON_MS, seeded, temporaryDirectory, trade } from "../../support/builders.ts";

const MINUTE_MS = 60_000;
const PAGES_MAX = 500;

type Answer = Readonly<{ status: number; headers: Headers; body: Record<string, unknown>; text: string }>;

/** An app on an empty store, at noon. */
function openWeb(fields: Partial<WebDeps> = {}) {
  const directory = temporaryDirectory();
  const store = openSqliteStore({ directory: directory.path, sync: "normal" });
  const time = { nowMs: NOON_MS };
  const clock: Clock = { ...systemClock, now: () => time.nowMs };
  const live = createLiveView();
  const app = createWeb({
    store,
    live,
    clock,
    logger: silentLogger,
    metrics: createMetrics(),
    health: () => healthDocument(false, {}),
    tickers: () => ({ wanted: [], subscribed: [], unsubscribed: [] }),
    simulated: false,
    ...fields,
  });
  return {
    app,
    store,
    live,
    clock,
    time,
    async get(path: string, init?: RequestInit): Promise<Answer> {
      const response = await app.request(path, init);
      const text = await response.text();
      const isJson = response.headers.get("content-type")?.startsWith("application/json") && text !== "";
      return {
        status: response.status,
        headers: response.headers,
        body: isJson ? JSON.parse(text) : {},
        text,
      };
    },
    /** Every item of every page, by following `next`. */
    async all<Item>(path: string): Promise<Item[]> {
      const items: Item[] = [];
      let next: string | null = path;
      for (let page = 0; next !== null; page++) {
        if (page > PAGES_MAX) throw new Error("the pages do not end");
        const { status, body } = await this.get(next);
        expect(status).toBe(200);
        items.push(...(body.items as Item[]));
        next = body.next as string | null;
      }
      return items;
    },
    [Symbol.dispose]() {
      store[Symbol.dispose]();
      directory[Symbol.dispose]();
    },
  };
}

/** A store that answers with a fault. */
function brokenStore(error: Error): StoreReader {
  const fail = () => Promise.reject(error);
  return { listTrades: fail, listAverages: fail, listCandles: fail, listEvents: fail };
}

function uuidOf(number: number): string {
  return `019b8d4e-0000-7000-8000-${number.toString(16).padStart(12, "0")}`;
}

function row(number: number, tradedAtMs: number, fields: Parameters<typeof trade>[0] = {}): TradeRow {
  return tradeRow(trade({ tradedAtMs, ...fields }), uuidOf(number), tradedAtMs);
}

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

test("without a range a page holds the last 24 hours, and what is dated up to a day ahead", async () => {
  using web = openWeb();
  await web.store.putTrades([
    row(1, NOON_MS - 24 * HOUR_MS - 1),
    row(2, NOON_MS - 24 * HOUR_MS),
    row(3, NOON_MS + 23 * HOUR_MS),
  ]);
  expect((await web.all<TradeRow>("/trades?symbol=AAPL")).map(({ uuid }) => uuid)).toEqual([
    uuidOf(3),
    uuidOf(2),
  ]);
  const earlier = await web.all<TradeRow>(`/trades?symbol=AAPL&to=${NOON_MS - 24 * HOUR_MS}`);
  expect(earlier.map(({ uuid }) => uuid)).toEqual([uuidOf(1)]);
});

test("100 items are a page by default, and 1,000 at most", async () => {
  using web = openWeb();
  await web.store.putTrades(Array.from({ length: 1_001 }, (_, number) => row(number, NOON_MS)));
  expect((await web.get("/trades?symbol=AAPL")).body.items).toHaveLength(100);
  const page = await web.get("/trades?symbol=AAPL&limit=1000");
  expect(page.body.items).toHaveLength(1_000);
  expect((await web.get(String(page.body.next))).body.items).toHaveLength(1);
});

// --- Mistakes in a query ---------------------------------------------------------------------------------------

test("each mistake in a query is one sentence that names the parameter and what is accepted", async () => {
  using web = openWeb();
  const { status, body } = await web.get("/candles?symbl=AAPL&limit=0&interval=2m&from=yesterday&to=1&to=2");
  expect(status).toBe(400);
  expect(body).toEqual({
    error: expect.any(String),
    problems: [
      "symbol is missing: give a symbol of 1 to 128 characters, like AAPL or BINANCE:BTCUSDT",
      `interval is "2m": give one of ${Object.keys(INTERVALS_MS).join(", ")}`,
      'from is "yesterday": give milliseconds since 1970, like 1767614400000, or ISO 8601 with a zone, like 2026-01-05T12:00:00Z',
      "to is given 2 times: give it once",
      'limit is "0": give a whole number from 1 to 1000',
      '"symbl" is no parameter here: did you mean symbol? accepted are symbol, interval, from, to, limit',
    ],
  });
});

test("a limit outside 1 to 1,000 is a mistake, and never cut silently", async () => {
  using web = openWeb();
  for (const limit of ["0", "1001", "-1", "1.5", "1e2", "ten", "", "%20", "99999999999999999999"]) {
    expect((await web.get(`/trades?symbol=AAPL&limit=${limit}`)).status).toBe(400);
  }
});

test("times that are no times are mistakes, and the slip is guessed", async () => {
  using web = openWeb();
  const problem = async (from: string) => {
    const { status, body } = await web.get(`/trades?symbol=AAPL&from=${from}`);
    expect(status).toBe(400);
    return String(body.error);
  };
  expect(await problem("1767614400")).toEndWith("(for these seconds 1767614400000)");
  expect(await problem("2026-01-05T12:00:00")).toEndWith("(in UTC 2026-01-05T12:00:00Z)");
  for (const text of [
    "2026-02-30",
    "2026-13-01",
    "2026-01-05T25:00Z",
    "-5",
    "1e15",
    "9999999999999999",
    "",
    "NaN",
  ]) {
    expect(await problem(text)).toContain("give milliseconds since 1970");
  }
});

test("a range that ends before it begins is a mistake", async () => {
  using web = openWeb();
  for (const path of [
    "/trades?symbol=AAPL&",
    "/averages?symbol=AAPL&",
    "/candles?symbol=AAPL&",
    "/feed-events?",
  ]) {
    const { status, body } = await web.get(`${path}from=${NOON_MS}&to=${NOON_MS}`);
    expect(status).toBe(400);
    expect(body.error).toBe(
      "from must be earlier than to: from is 2026-01-05T12:00:00.000Z, to is 2026-01-05T12:00:00.000Z",
    );
  }
  expect((await web.get(`/trades?symbol=AAPL&from=${NOON_MS + 48 * HOUR_MS}`)).status).toBe(400);
});

test("a cursor that we did not write is a mistake", async () => {
  using web = openWeb();
  for (const before of ["x", "1", `${NOON_MS}.`, `${NOON_MS}.${uuidOf(1)}'--`, `.${uuidOf(1)}`]) {
    expect((await web.get(`/trades?symbol=AAPL&before=${before}`)).status).toBe(400);
    expect((await web.get(`/feed-events?before=${before}`)).status).toBe(400);
  }
});

test("names that others give to a parameter are recognised", async () => {
  using web = openWeb();
  const problem = async (path: string) => (await web.get(path)).body.error;
  expect(await problem("/trades?symbol=AAPL&start=1")).toContain("did you mean from?");
  expect(await problem("/candles?symbol=AAPL&resolution=5m")).toContain("did you mean interval?");
  expect(await problem("/trades?symbol=AAPL&xyzzy=1")).toBe(
    '"xyzzy" is no parameter here: accepted are symbol, from, to, limit, before',
  );
  expect(await problem("/tickers?symbol=AAPL")).toBe('"symbol" is no parameter here: this route takes none');
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

// --- Tickers ---------------------------------------------------------------------------------------------------

test("tickers tell their state, last price and age, in the order of the list", async () => {
  const sets = { wanted: ["MSFT", "AAPL", "NEW"], subscribed: ["AAPL", "MSFT"], unsubscribed: ["OVER"] };
  using web = openWeb({ tickers: () => sets });
  web.live.note([row(2, NOON_MS - 2_000, { price: 7 }), row(1, NOON_MS - 3_000, { price: 6 })], NOON_MS);
  const items = (await web.get("/tickers")).body.items;
  const none = { last_price: null, last_trade_timestamp: null, age_ms: null };
  expect(items).toEqual([
    { symbol: "MSFT", state: "subscribed", ...none },
    {
      symbol: "AAPL",
      state: "subscribed",
      last_price: 7,
      last_trade_timestamp: NOON_MS - 2_000,
      age_ms: 2_000,
    },
    { symbol: "NEW", state: "wanted", ...none },
    { symbol: "OVER", state: "unsubscribed", ...none },
  ]);
});

test("one ticker is asked for by its name, whatever is in it; another is 404 with a guess", async () => {
  const wanted = ["AAPL", "IC MARKETS:1", "A/B"];
  using web = openWeb({ tickers: () => ({ wanted, subscribed: wanted, unsubscribed: [] }) });
  for (const symbol of wanted) {
    expect((await web.get(`/tickers/${encodeURIComponent(symbol)}`)).body).toMatchObject({ symbol });
  }
  expect(await web.get("/tickers/aapl")).toMatchObject({
    status: 404,
    body: { error: '"aapl" is not among the tickers: did you mean AAPL?' },
  });
  expect((await web.get("/tickers/NOPE")).body.error).toBe(
    '"NOPE" is not among the tickers: /tickers lists them',
  );
});

test("after a restart last prices come from the store, which is asked once a symbol", async () => {
  const live = createLiveView();
  let askedCount = 0;
  using earlier = openWeb();
  await earlier.store.putTrades([
    row(1, NOON_MS - HOUR_MS, { price: 3 }),
    row(2, NOON_MS - HOUR_MS, { price: 4 }),
  ]);
  const listTrades: StoreReader["listTrades"] = (query) => {
    askedCount += 1;
    return earlier.store.listTrades(query);
  };
  const wanted = ["AAPL", "QUIET"];
  using web = openWeb({
    live,
    store: { ...earlier.store, listTrades },
    tickers: () => ({ wanted, subscribed: wanted, unsubscribed: [] }),
  });
  for (let times = 0; times < 3; times++) {
    await Promise.all([web.get("/tickers"), web.get("/tickers")]);
    expect((await web.get("/tickers")).body.items).toMatchObject([
      { symbol: "AAPL", last_price: 4, age_ms: HOUR_MS },
      { symbol: "QUIET", last_price: null },
    ]);
  }
  expect(askedCount).toBe(2);
});

test("tickers are listed although the store is away, and get their price when it is back", async () => {
  let isAway = true;
  using web = openWeb({ tickers: () => ({ wanted: ["AAPL"], subscribed: [], unsubscribed: [] }) });
  await web.store.putTrades([row(1, NOON_MS)]);
  const listTrades: StoreReader["listTrades"] = (query) =>
    isAway ? Promise.reject(new StoreUnavailableError("away")) : web.store.listTrades(query);
  using other = openWeb({
    store: { ...web.store, listTrades },
    tickers: () => ({ wanted: ["AAPL"], subscribed: [], unsubscribed: [] }),
  });
  expect((await other.get("/tickers")).body.items).toMatchObject([{ symbol: "AAPL", last_price: null }]);
  isAway = false;
  expect((await other.get("/tickers")).body.items).toMatchObject([{ symbol: "AAPL", last_price: 100 }]);
});

test("the latest trade never goes back, goes by time and then UUID, and its symbols are bounded", () => {
  const live = createLiveView(2);
  live.note([row(5, NOON_MS), row(4, NOON_MS), row(9, NOON_MS - 1)], NOON_MS);
  expect(live.of("AAPL")?.uuid).toBe(uuidOf(5));
  live.note([row(6, NOON_MS)], NOON_MS);
  expect(live.of("AAPL")?.uuid).toBe(uuidOf(6));
  live.note([row(1, NOON_MS, { symbol: "B" }), row(1, NOON_MS, { symbol: "C" })], NOON_MS);
  expect(live.of("B")).not.toBeNull();
  expect(live.of("C")).toBeNull();
  expect(live.ahead()).toBeNull();
  live.note([{ ...row(1, NOON_MS + 60_001), ingest_timestamp: NOON_MS }], NOON_MS);
  expect(live.ahead()).toEqual({ symbol: "AAPL", aheadMs: 60_001, receivedAtMs: NOON_MS });
  live.note([{ ...row(1, NOON_MS + 80_000), ingest_timestamp: NOON_MS - 1 }], NOON_MS);
  expect(live.ahead()?.aheadMs).toBe(60_001);
});

// --- Health, metrics, the page, the document -------------------------------------------------------------------

test("health is 200 when ok and 503 when failing, with the same document", async () => {
  let document: HealthDocument = healthDocument(true, {});
  using web = openWeb({ health: () => document, simulated: true });
  expect(await web.get("/health")).toMatchObject({ status: 200, body: { status: "ok", simulated: true } });
  const part = { ok: false, reason: "silent", lastProgressAt: null, ageMs: null, state: "waiting" };
  document = healthDocument(true, { feed: part });
  const { status, body } = await web.get("/health");
  expect(status).toBe(503);
  expect(body).toEqual({ status: "failing", reason: "feed: silent", simulated: true, parts: { feed: part } });
  expect(await web.get("/health?pretty")).toMatchObject({
    status: 503,
    text: JSON.stringify(document, null, 2),
  });
});

test("metrics are the text of the registry, with gauges refreshed for it", async () => {
  const metrics = createMetrics();
  using web = openWeb({ metrics, refreshGauges: () => metrics.logBytes.set(42) });
  const { headers, text } = await web.get("/metrics");
  expect(headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
  expect(text).toContain("pipeline_log_bytes 42\n");
});

const FOREIGN = /https?:\/\/|innerHTML|style=|<script>|\son\w+=/;

test("a page that the browser has is not sent again, and one that it takes packed is sent packed", async () => {
  using web = openWeb();
  const { app } = web;
  for (const path of ["/", "/page.css", "/page.js"]) {
    const plain = await app.request(path);
    const text = await plain.text();
    expect(plain.headers.get("content-encoding")).toBeNull();
    const etag = plain.headers.get("etag")!;
    for (const [known, status] of [
      [etag, 304],
      [`"other", ${etag}`, 304],
      ['W/"other"', 200],
    ] as const) {
      const again = await app.request(path, { headers: { "if-none-match": known } });
      expect([again.status, (await again.text()).length > 0]).toEqual([status, status === 200]);
      expect(again.headers.get("etag")).toBe(etag);
    }
    const packed = await app.request(path, { headers: { "accept-encoding": "br, gzip;q=0.8" } });
    expect(packed.headers.get("content-encoding")).toBe("gzip");
    expect(packed.headers.get("vary")).toBe("accept-encoding");
    const bytes = Bun.gunzipSync(await packed.arrayBuffer());
    expect(new TextDecoder().decode(bytes)).toBe(text);
    const refused = await app.request(path, { headers: { "accept-encoding": "gzip;q=0, identity" } });
    expect(refused.headers.get("content-encoding")).toBeNull();
  }
});

test("the page and its files are there, each within a policy that allows nothing from elsewhere", async () => {
  using web = openWeb();
  for (const [path, type, part] of [
    ["/", "text/html; charset=utf-8", '<script src="/page.js" type="module">'],
    ["/page.css", "text/css; charset=utf-8", ":root"],
    ["/page.js", "text/javascript; charset=utf-8", "EventSource"],
  ] as const) {
    const { status, headers, text } = await web.get(path);
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe(type);
    expect(text).toContain(part);
    expect(headers.get("content-security-policy")).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
        "base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    );
    // The script is bundled with what it imports; tests/e2e/page.test.ts sees that it asks nobody else.
    if (path !== "/page.js") expect(text.replaceAll("https://www.tradingview.com/", "")).not.toMatch(FOREIGN);
  }
});

test("every answer says where the data is from, and JSON is not kept by anybody", async () => {
  for (const simulated of [true, false]) {
    using web = openWeb({ simulated, store: brokenStore(new Error("boom")) });
    for (const path of [
      "/",
      "/tickers",
      "/health",
      "/metrics",
      "/doc",
      "/nothing",
      "/trades",
      "/trades?symbol=A",
    ]) {
      const { headers } = await web.get(path);
      expect(headers.get("x-data-source")).toBe(simulated ? "simulated" : "finnhub");
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("cache-control")).toBe(path === "/" ? "no-cache" : "no-store");
    }
  }
});

test("the document lists every route with its parameters and limits", async () => {
  using web = openWeb();
  const { status, body } = await web.get("/doc");
  expect(status).toBe(200);
  const paths = body.paths as Record<string, { get: { parameters?: { name: string; schema: object }[] } }>;
  expect(Object.keys(paths).sort()).toEqual([
    "/averages",
    "/candles",
    "/events",
    "/feed-events",
    "/health",
    "/metrics",
    "/tickers",
    "/tickers/{symbol}",
    "/trades",
  ]);
  const parameters = paths["/candles"]?.get.parameters ?? [];
  expect(parameters.map(({ name }) => name)).toEqual(["symbol", "interval", "from", "to", "limit"]);
  expect(parameters.find(({ name }) => name === "limit")).toMatchObject({
    required: false,
    schema: { type: "integer", minimum: 1, maximum: 1_000, default: 100 },
  });
  expect(parameters.find(({ name }) => name === "symbol")).toMatchObject({ required: true });
});

// --- Misses and faults -----------------------------------------------------------------------------------------

test("an unknown route is 404, lists the routes and guesses the slip", async () => {
  using web = openWeb();
  const { status, body } = await web.get("/trade");
  expect(status).toBe(404);
  expect(body.error).toStartWith(
    'there is nothing at "/trade". Did you mean /trades? There is /trades, /averages,',
  );
  expect(body.error).toContain("/tickers/:symbol");
});

test("a wrong method is 405 and says what the route takes; HEAD is GET without a body", async () => {
  using web = openWeb();
  for (const path of ["/trades", "/", "/tickers/AAPL"]) {
    const { status, headers, body } = await web.get(path, { method: "PUT" });
    expect(status).toBe(405);
    expect(headers.get("allow")).toBe("GET, HEAD");
    expect(body.error).toBe(`PUT is not possible here: ${path} takes GET, HEAD`);
  }
  expect(await web.get("/health", { method: "HEAD" })).toMatchObject({ status: 200, text: "" });
});

test("a store that is away is 503 with the time to come back, and its words stay in the log", async () => {
  const said: string[] = [];
  const logger: Logger = { ...silentLogger, warn: (message) => said.push(message) };
  using web = openWeb({ store: brokenStore(new StoreUnavailableError("10.0.0.9: refused")), logger });
  for (const path of [
    "/trades?symbol=A",
    "/averages?symbol=A",
    "/candles?symbol=A&interval=5m",
    "/feed-events",
  ]) {
    const { status, headers, text } = await web.get(path);
    expect(status).toBe(503);
    expect(headers.get("retry-after")).toBe("2");
    expect(text).not.toContain("10.0.0.9");
  }
  expect(said).toHaveLength(4);
});

test("a fault of ours is 500 without a word of what it was, and reported", async () => {
  const said: unknown[] = [];
  const logger: Logger = { ...silentLogger, error: (_, fields) => said.push(fields?.error) };
  using web = openWeb({ store: brokenStore(new Error("token=hunter2")), logger });
  const { status, text } = await web.get("/trades?symbol=AAPL");
  expect(status).toBe(500);
  expect(text).toBe('{"error":"this is a fault of ours; the log says more"}');
  expect(said).toEqual([new Error("token=hunter2")]);
});

// --- Over a socket ---------------------------------------------------------------------------------------------

test("over a socket: any free port, the page, JSON, HEAD, and a stop that frees the port", async () => {
  using web = openWeb();
  const server = serveWeb({ app: web.app, hostname: "127.0.0.1", port: 0, clock: systemClock });
  expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
  expect(await (await fetch(server.url)).text()).toStartWith("<!doctype html>");
  expect(await (await fetch(`${server.url}/tickers`)).json()).toEqual({ items: [] });
  const head = await fetch(`${server.url}/trades?symbol=AAPL`, { method: "HEAD" });
  expect([head.status, await head.text()]).toEqual([200, ""]);
  await server.stop();
  await using again = serveWeb({
    app: web.app,
    hostname: "127.0.0.1",
    port: server.port,
    clock: systemClock,
  });
  expect(again.port).toBe(server.port);
});

test("a port in use is refused in a sentence that names the setting", async () => {
  using web = openWeb();
  const options = { app: web.app, hostname: "127.0.0.1", clock: systemClock };
  await using server = serveWeb({ ...options, port: 0 });
  const again = () => serveWeb({ ...options, port: server.port, portSetting: "PROCESSOR_PORT" });
  expect(again).toThrow(SetupError);
  expect(again).toThrow(`the web cannot listen on 127.0.0.1:${server.port}: another process has the port`);
  expect(again).toThrow(expect.objectContaining({ hint: expect.stringContaining("set PROCESSOR_PORT to") }));
});

test("a stop lets an answer on its way be finished", async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<Response>();
  const app = {
    fetch: () => {
      asked.resolve();
      return answer.promise;
    },
  };
  const server = serveWeb({ app, hostname: "127.0.0.1", port: 0, clock: systemClock });
  const response = fetch(server.url);
  await asked.promise;
  const stopped = server.stop();
  answer.resolve(new Response("in time"));
  expect(await (await response).text()).toBe("in time");
  await stopped;
});

test("a stop waits for no answer that never ends", async () => {
  const clock: Clock = { ...systemClock, sleep: async () => {} };
  const endless = () => new Response(new ReadableStream({ start: (controller) => controller.enqueue("x") }));
  const server = serveWeb({ app: { fetch: endless }, hostname: "127.0.0.1", port: 0, clock });
  const reader = (await fetch(server.url)).body!.getReader();
  await reader.read();
  await server.stop();
  await expect(reader.read()).rejects.toThrow();
});
