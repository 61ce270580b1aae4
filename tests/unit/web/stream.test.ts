// GET /events as a browser meets it: the app as a value and a clock that is moved by hand. What only a socket shows is in
// tests/integration/web/server.test.ts.

import { expect, test } from "bun:test";
import { DAY_MS, type TradeRow, tradeRow } from "../../../lib/model/trade.ts";
import { CLIENT_SLOW_MS_MAX, CLIENTS_MAX, TICK_MS } from "../../../lib/web/live/stream.ts";
import { NOON_MS, trade } from "../../support/builders.ts";
import { openLiveWeb, turn } from "../../support/web.ts";

let rowNumber = 0;
function row(fields: Parameters<typeof trade>[0] = {}): TradeRow {
  rowNumber += 1;
  const uuid = `019b8d4e-0000-7000-8000-${rowNumber.toString(16).padStart(12, "0")}`;
  return tradeRow(trade(fields), uuid, NOON_MS);
}

test("first comes the whole view, then what changed, at most ten times a second", async () => {
  using web = openLiveWeb();
  web.live.note([row({ price: 3 })], NOON_MS);
  const { response, events } = await web.open("/events?symbol=AAPL");
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  // No balancer or proxy may collect events, or compress them, before it hands them on.
  expect(response.headers.get("cache-control")).toBe("no-store, no-transform");
  expect(response.headers.get("x-accel-buffering")).toBe("no");
  expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
  await web.advance(TICK_MS);
  expect(events).toHaveLength(1);
  expect(events[0]).toMatchObject({
    name: "snapshot",
    data: {
      simulated: true,
      chosen: "AAPL",
      seconds: [[NOON_MS / 1_000, 3, 3, 3, 1, 1]],
      symbols: [
        { symbol: "AAPL", state: "subscribed", last: [3, NOON_MS], open: [3, NOON_MS] },
        { symbol: "MSFT", last: null, open: null, spark: [] },
      ],
    },
  });
  for (let price = 1; price <= 50; price++) {
    web.live.note([row({ price, symbol: "MSFT" })], NOON_MS);
    await web.advance(10);
  }
  expect(events).toHaveLength(6);
  expect(events[5]).toMatchObject({ name: "delta", data: { last: [[1, 50, NOON_MS]] } });
  expect(events[5]?.data.seconds).toBeUndefined(); // MSFT was not asked for.
});

test("a quiet minute has a heartbeat each second and nothing else", async () => {
  using web = openLiveWeb();
  const { events, state } = await web.open();
  await web.advance(600_000);
  expect(events.length).toBeGreaterThanOrEqual(600);
  expect(events.length).toBeLessThanOrEqual(601);
  for (const { data } of events.slice(1)) expect(Object.keys(data)).toEqual(["nowMs", "status"]);
  expect(state.isEnded || state.isBroken).toBe(false);
});

test("a client that comes back gets what it missed, each thing once; a client of another run gets everything", async () => {
  using web = openLiveWeb();
  const first = await web.open("/events?symbol=AAPL");
  await web.advance(TICK_MS);
  const { id } = first.events[0]!;
  await first.close();
  for (let price = 1; price <= 9; price++) web.live.note([row({ price })], NOON_MS);
  const second = await web.open("/events?symbol=AAPL", { "last-event-id": id });
  await web.advance(TICK_MS);
  expect(second.events).toMatchObject([
    { name: "delta", data: { last: [[0, 9, NOON_MS]], seconds: [[NOON_MS / 1_000, 9, 9, 1, 9, 9]] } },
  ]);
  const [run, list, version] = id.split(".");
  for (const foreign of [
    `ffffffff.${list}.${version}`,
    `${run}.9.${version}`,
    `${run}.${list}.99999`,
    "x",
    "",
  ]) {
    const other = await web.open("/events", { "last-event-id": foreign });
    await web.advance(TICK_MS);
    expect(other.events[0]?.name).toBe("snapshot");
  }
});

test("when the symbols change everybody gets the whole view again", async () => {
  using web = openLiveWeb();
  const { events } = await web.open();
  await web.advance(2_000);
  web.wanted.push("TSLA");
  await web.advance(1_000);
  expect(events.filter(({ name }) => name === "snapshot")).toHaveLength(2);
  expect(events.findLast(({ name }) => name === "snapshot")?.data.symbols).toHaveLength(3);
});

test("no timer runs without a client, one for all of them, and none after the last has gone", async () => {
  using web = openLiveWeb();
  expect(web.timerCount()).toBe(0);
  const clients = [await web.open(), await web.open(), await web.open()];
  await web.advance(1_000);
  expect(web.timerCount()).toBe(1);
  for (const client of clients) await client.close();
  await web.advance(1_000);
  expect(web.timerCount()).toBe(0);
});

test("at most one event waits for a client that does not read; then it gets the newest state", async () => {
  using web = openLiveWeb();
  const client = await web.open();
  await web.advance(TICK_MS);
  client.pause();
  for (let price = 1; price <= 90; price++) {
    web.live.note([row({ price })], NOON_MS);
    await web.advance(TICK_MS);
  }
  const seenCount = client.events.length;
  expect(seenCount).toBe(2); // The one that was asked for when it paused.
  client.resume();
  await web.advance(TICK_MS);
  expect(client.events.slice(seenCount).map(({ data }) => data.last)).toEqual([[[0, 90, NOON_MS]]]);
});

test("a client that takes nothing for 15 s is dropped, and the others do not notice", async () => {
  using web = openLiveWeb();
  const [slow, good] = [await web.open(), await web.open()];
  await web.advance(TICK_MS);
  slow.pause();
  await web.advance(CLIENT_SLOW_MS_MAX + 2_000);
  expect(good.events.length).toBeGreaterThan(15);
  slow.resume();
  await web.advance(TICK_MS);
  expect(slow.state.isBroken).toBe(true);
  expect(good.state.isBroken).toBe(false);
});

test("the number of clients is limited; a place that becomes free is given again", async () => {
  using web = openLiveWeb();
  const clients = [];
  for (let count = 0; count < CLIENTS_MAX; count++) clients.push(await web.open());
  const refused = await web.app.request("/events");
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "2"]);
  await clients[0]!.close();
  expect((await web.app.request("/events")).status).toBe(200);
});

test("a place is kept by who says that he reads; of the others the longest silent gives his to a newcomer", async () => {
  using web = openLiveWeb();
  const confirm = (place: string) => web.app.request(`/events/${place}`, { method: "POST" });
  const readers = [await web.open(), await web.open()];
  const silent = [];
  for (let count = readers.length; count < CLIENTS_MAX; count++) silent.push(await web.open());
  await web.advance(TICK_MS);
  const places = readers.map(({ events }) => events[0]!.data.place);
  expect(new Set(places).size).toBe(2);
  // They all take what they are sent: their sockets say nothing of who reads.
  for (let second = 0; second < CLIENT_SLOW_MS_MAX; second += 5_000) {
    expect((await web.app.request("/events")).status).toBe(503);
    await web.advance(5_000);
    for (const place of places) expect((await confirm(place)).status).toBe(204);
  }
  const newcomer = await web.open();
  expect(newcomer.response.status).toBe(200);
  await web.advance(1_000);
  expect(newcomer.events.length).toBeGreaterThan(0);
  expect(silent.filter(({ state }) => state.isBroken)).toHaveLength(1);
  expect(silent[0]!.state.isBroken).toBe(true);
  // The rest is served on, for nobody needs the places.
  const { length } = silent[5]!.events;
  await web.advance(2_000);
  expect(silent[5]!.events.length).toBeGreaterThan(length);
  for (let count = 1; count < silent.length; count++) expect((await web.open()).response.status).toBe(200);
  expect((await web.app.request("/events")).status).toBe(503);
  expect(readers.some(({ state }) => state.isBroken)).toBe(false);
  expect((await confirm("1-abc")).status).toBe(404);
});

test("one stream has the seconds of several symbols, each under its name", async () => {
  using web = openLiveWeb();
  web.live.note([row({ price: 3 }), row({ price: 5, symbol: "MSFT" })], NOON_MS);
  const also = encodeURIComponent(JSON.stringify(["MSFT", "AAPL", "NOPE"]));
  const { events } = await web.open(`/events?symbol=AAPL&also=${also}`);
  await web.advance(TICK_MS);
  const second = NOON_MS / 1_000;
  expect(events[0]?.data).toMatchObject({
    chosen: "AAPL",
    seconds: [[second, 3, 3, 3, 1, 1]],
    others: [
      ["MSFT", [[second, 5, 5, 5, 1, 1]]],
      ["NOPE", []],
    ],
  });
  web.live.note([row({ price: 6, symbol: "MSFT" })], NOON_MS);
  await web.advance(TICK_MS);
  expect(events[1]?.data).toMatchObject({ others: [["MSFT", [[second, 6, 6, 5, 2, 2]]]] });
  expect(events[1]?.data.seconds).toBeUndefined();
  for (const wrong of ["MSFT", "[1]", '[""]', JSON.stringify(Array.from({ length: 32 }, () => "A"))]) {
    const { status } = await web.app.request(`/events?also=${encodeURIComponent(wrong)}`);
    expect(status).toBe(400);
  }
});

test("a stop ends every stream, and a new one ends at once", async () => {
  using web = openLiveWeb();
  const client = await web.open();
  await web.advance(TICK_MS);
  web.stop.abort();
  await turn();
  expect(client.state.isEnded).toBe(true);
  expect(web.timerCount()).toBe(0);
});

test("HEAD opens no stream, and a mistake in the query is answered", async () => {
  using web = openLiveWeb();
  const head = await web.app.request("/events", { method: "HEAD" });
  expect([head.status, web.timerCount()]).toEqual([200, 0]);
  expect((await web.app.request("/events?symbl=AAPL")).status).toBe(400);
});

test("after a restart last price, open and sparkline come from the store", async () => {
  using web = openLiveWeb();
  const midnightMs = NOON_MS - (NOON_MS % DAY_MS);
  await web.store.putTrades([row({ price: 7, tradedAtMs: NOON_MS - 30_000 })]);
  const candle = (window_start: number, open: number, close: number) => {
    const fields = { symbol: "AAPL", day: "2026-01-05", high: 9, low: 1, volume: 1 };
    const row = { ...fields, window_start, open, close, price_volume_sum: 1, vwap: 1, trade_count: 1 };
    return { kind: "candle", row } as const;
  };
  await web.store.putWindows([candle(midnightMs + 60_000, 4, 5), candle(NOON_MS - 60_000, 6, 7)]);
  const { events } = await web.open();
  await web.advance(TICK_MS);
  expect(events[0]?.data.symbols[0]).toMatchObject({
    last: [7, NOON_MS - 30_000],
    open: [4, midnightMs + 60_000],
    spark: [[NOON_MS / 5_000 - 1, 7]],
  });
});
