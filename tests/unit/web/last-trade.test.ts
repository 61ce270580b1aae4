// The last trade in the store, by its definition over all rows, whatever is dated ahead among them.

import { expect, test } from "bun:test";
import { isLater } from "../../../lib/model/last-trade.ts";
import type { TradeRow } from "../../../lib/model/trade.ts";
import { readLastTrade } from "../../../lib/web/live/last-trade.ts";
import { NOON_MS, seeded } from "../../support/builders.ts";
import { openWeb, row } from "../../support/web.ts";

const HOUR_MS = 3_600_000;
const EVER = { fromMs: NOON_MS - 100 * HOUR_MS, toMs: NOON_MS + 100 * HOUR_MS };

test("it is the one that all rows together say, in few reads", async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = seeded(seed);
    const rows: TradeRow[] = Array.from({ length: 800 }, (_, number) => {
      const receivedAtMs = NOON_MS - (800 - number) * 700;
      const aheadMs = random(40) === 0 ? random(20 * HOUR_MS) : random(3) === 0 ? random(90) : -random(4_000);
      return { ...row(number, receivedAtMs + aheadMs), ingest_timestamp: receivedAtMs };
    });
    using web = openWeb();
    await web.store.putTrades(rows);
    let readCount = 0;
    const listTrades: typeof web.store.listTrades = (query) => {
      readCount += 1;
      return web.store.listTrades(query);
    };
    const expected = rows.reduce((last, one) => (isLater(one, last) ? one : last));
    expect(await readLastTrade({ listTrades }, "AAPL", EVER)).toEqual(expected);
    expect(readCount).toBeLessThanOrEqual(3);
  }
});

test("without rows there is none, and of rows that are all dated ahead it is the newest", async () => {
  using web = openWeb();
  expect(await readLastTrade(web.store, "AAPL", EVER)).toBeNull();
  // Our clock was two hours slow.
  const rows = Array.from({ length: 900 }, (_, number) => ({
    ...row(number, NOON_MS + number * 1_000),
    ingest_timestamp: NOON_MS + number * 1_000 - 2 * HOUR_MS,
  }));
  await web.store.putTrades(rows);
  expect(await readLastTrade(web.store, "AAPL", EVER)).toEqual(rows.at(-1)!);
});
