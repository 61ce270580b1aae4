// The page's candles against the real routes, over absences of any length: after the next question they are those of the
// store, whatever was added, amended or taken away in the meantime.

import { afterEach, expect, test } from "bun:test";
import type { CandleRow } from "../../../lib/model/aggregates.ts";
import { dayOf, MINUTE_MS } from "../../../lib/model/trade.ts";
import { CandleHistory } from "../../../lib/web/page/candle-history.ts";
import { NOON_MS } from "../../support/builders.ts";
import { openWeb } from "../../support/web.ts";

const realFetch = globalThis.fetch;
afterEach(() => {
  globalThis.fetch = realFetch;
});

function openHistory() {
  const web = openWeb();
  let isAway = false;
  let requestCount = 0;
  globalThis.fetch = Object.assign(
    async (address: unknown) => {
      requestCount += 1;
      if (isAway) throw new TypeError("Failed to fetch");
      return web.app.request(`/${String(address)}`);
    },
    { preconnect: realFetch.preconnect },
  );
  return {
    web,
    history: new CandleHistory(),
    requests: () => requestCount,
    setAway(away: boolean) {
      isAway = away;
    },
    async put(startMs: number, high = 10, trade_count = 1): Promise<void> {
      const prices = {
        open: 5,
        high,
        low: 1,
        close: 5,
        volume: 1,
        price_volume_sum: 5,
        vwap: 5,
        trade_count,
      };
      const row: CandleRow = { symbol: "AAPL", day: dayOf(startMs), window_start: startMs, ...prices };
      await web.store.putWindows([{ kind: "candle", row }]);
    },
    [Symbol.dispose]: () => web[Symbol.dispose](),
  };
}

for (const minutes of [1, 7, 20, 300, 3_000]) {
  test(`after ${minutes} minutes away every candle is there, and the amended ones are as they are stored`, async () => {
    using open = openHistory();
    const { web, history } = open;
    for (let back = 40; back >= 20; back--) await open.put(NOON_MS - back * MINUTE_MS);
    history.choose("AAPL", "1m");
    expect(await history.refresh(NOON_MS)).toBe(true);
    expect(history.sorted).toHaveLength(21);

    open.setAway(true);
    web.time.nowMs = NOON_MS + minutes * MINUTE_MS;
    expect(await history.refresh(web.time.nowMs)).toBe(false);
    for (let minute = 1; minute <= minutes; minute++) await open.put(NOON_MS + minute * MINUTE_MS);
    await open.put(NOON_MS - 35 * MINUTE_MS, 150, 2);
    open.setAway(false);
    expect(await history.refresh(web.time.nowMs)).toBe(true);
    expect(history.sorted).toHaveLength(21 + minutes);
    expect(history.get(NOON_MS - 35 * MINUTE_MS)?.high).toBe(150);
    const starts = history.sorted.map(({ window_start }) => window_start);
    expect(starts).toEqual([...new Set(starts)].sort((a, b) => a - b));
  });
}

test("a short gap that the stream tells of is asked for whole, and without one only the newest are", async () => {
  using open = openHistory();
  const { history } = open;
  for (let back = 40; back >= 0; back--) await open.put(NOON_MS - back * MINUTE_MS);
  history.choose("AAPL", "1m");
  await history.refresh(NOON_MS);
  await open.put(NOON_MS - 35 * MINUTE_MS, 150, 2);
  await open.put(NOON_MS - 2 * MINUTE_MS, 160, 2);
  await history.refresh(NOON_MS + 5_000);
  expect([history.get(NOON_MS - 35 * MINUTE_MS)?.high, history.get(NOON_MS - 2 * MINUTE_MS)?.high]).toEqual([
    10, 160,
  ]);
  history.expectGap();
  await history.refresh(NOON_MS + 10_000);
  expect(history.get(NOON_MS - 35 * MINUTE_MS)?.high).toBe(150);
  // A minute later it would have been, in any case.
  await open.put(NOON_MS - 36 * MINUTE_MS, 170, 2);
  for (let afterMs = 15_000; afterMs <= 70_000; afterMs += 5_000) await history.refresh(NOON_MS + afterMs);
  expect(history.get(NOON_MS - 36 * MINUTE_MS)?.high).toBe(170);
  expect(open.requests()).toBe(15);
});

test("a candle that is dated ahead waits for its time", async () => {
  using open = openHistory();
  await open.put(NOON_MS);
  await open.put(NOON_MS + 240 * MINUTE_MS);
  open.history.choose("AAPL", "1m");
  await open.history.refresh(NOON_MS);
  expect(open.history.sorted.map(({ window_start }) => window_start)).toEqual([NOON_MS]);
});
