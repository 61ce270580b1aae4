// GET /tickers: state, last price and age of each symbol, whatever the store can say.

import { expect, test } from "bun:test";
import { StoreUnavailableError } from "../../../lib/base/errors.ts";
import type { StoreReader } from "../../../lib/contracts/store.ts";
import { dayOf, HOUR_MS } from "../../../lib/model/trade.ts";
import { createLiveView } from "../../../lib/web/live/view.ts";
import { NOON_MS } from "../../support/builders.ts";
import { openWeb, row, uuidOf } from "../../support/web.ts";

test("tickers have their state, last price and age, in the order of the watchlist", async () => {
  const sets = { wanted: ["MSFT", "AAPL", "NEW"], subscribed: ["AAPL", "MSFT"], unsubscribed: ["OVER"] };
  using web = openWeb({ tickers: () => sets });
  web.live.note([row(2, NOON_MS - 2_000, { price: 7 }), row(1, NOON_MS - 3_000, { price: 6 })], NOON_MS);
  const items = (await web.get("/tickers")).body.items;
  const none = { unreceived: null, last_price: null, last_trade_timestamp: null, age_ms: null };
  expect(items).toEqual([
    { symbol: "MSFT", state: "subscribed", ...none },
    {
      symbol: "AAPL",
      state: "subscribed",
      unreceived: null,
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

test("after a weekend the last price is Friday's, with its age; a print that was dated ahead before it is not", async () => {
  using web = openWeb({ tickers: () => ({ wanted: ["AAPL"], subscribed: [], unsubscribed: [] }) });
  const fridayMs = NOON_MS - 65 * HOUR_MS;
  await web.store.putTrades([
    row(1, fridayMs, { price: 271.5 }),
    row(2, fridayMs + 1, { price: 271.6 }),
    { ...row(3, NOON_MS + 4 * HOUR_MS, { price: 9 }), ingest_timestamp: fridayMs - 1 },
  ]);
  const prices = {
    open: 1,
    high: 1,
    low: 1,
    close: 1,
    volume: 1,
    price_volume_sum: 1,
    vwap: 1,
    trade_count: 2,
  };
  await web.store.putWindows([
    { kind: "candle", row: { symbol: "AAPL", day: dayOf(fridayMs), window_start: fridayMs, ...prices } },
  ]);
  expect((await web.get("/tickers")).body.items).toMatchObject([
    { last_price: 271.6, age_ms: 65 * HOUR_MS - 1 },
  ]);
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
