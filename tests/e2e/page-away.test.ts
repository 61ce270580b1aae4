// A page that was away: its wire was cut, its tab hidden or frozen, or the market closed. What it missed is there when it is
// back, without a reload.

import { afterAll, expect, test } from "bun:test";
import type { Browser, Page } from "playwright-core";
import { systemClock } from "../../lib/base/clock.ts";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import { MINUTE_MS, minuteBefore, type Print, startField } from "../support/field.ts";
import {
  data,
  highsOnChart,
  isBrowserThere,
  launchChromium,
  launchSleeper,
  openPage,
  text,
  until,
} from "../support/page.ts";
import { launchRawBrowser } from "../support/raw-browser.ts";

const browserTest = test.skipIf(!isBrowserThere("tests/e2e/page-away.test.ts"));
const TEST_MS_MAX = 90_000;
/** Longer than a silence that the page bears. */
const SLEEP_MS = 9_000;
const HOUR_MS = 60 * MINUTE_MS;

let starting: Promise<Browser> | null = null;
function browser(): Promise<Browser> {
  starting ??= launchChromium();
  return starting;
}
afterAll(async () => (await starting)?.close());

const candleCount = "Number(document.querySelector('#candle-chart').dataset.candles)";
const choose = (page: Page, symbol: string) => page.locator(`[data-symbol="${symbol}"] button`).click();

/** One print a minute of each symbol. */
function minutes(nowMs: number, from: number, to: number, ...symbols: readonly string[]): Print[] {
  return Array.from({ length: from - to + 1 }, (_, index) =>
    symbols.map((symbol) => ({ symbol, price: 120, atMs: minuteBefore(nowMs, from - index) + 1_000 })),
  ).flat();
}

/** What the page's charts must hold: each candle, and each average of the line's five minutes. */
async function isWhole(field: Awaited<ReturnType<typeof startField>>, page: Page, count: number) {
  await until(page, `${candleCount} === ${count}`, 20_000);
  await eventually(15_000, "every average of the last five minutes", async () => {
    const shown = (await data(page, "#price-chart")).averages;
    const fromMs = systemClock.now() - 299_000;
    const stored = await field.items(`/averages?symbol=AAPL&from=${Math.floor(fromMs)}&limit=1000`);
    return stored.length > 0 && Math.abs(stored.length - (shown ?? 0)) <= 1; // One may pass out of view.
  });
}

browserTest(
  "after a cut wire every candle and average of twenty minutes is there, of each symbol, amended ones too",
  async () => {
    await using field = await startField(["AAPL", "MSFT"]);
    const nowMs = systemClock.now();
    field.send(...minutes(nowMs, 40, 20, "AAPL", "MSFT"));
    await field.candles(21, "AAPL", "MSFT");
    await using opened = await openPage(await browser(), `${field.wire.url}/#AAPL`);
    const { page, faults } = opened;
    await until(page, `${candleCount} === 21`);
    field.wire.cut();
    field.send(...minutes(nowMs, 19, 0, "AAPL", "MSFT"));
    field.send({ symbol: "AAPL", price: 150, atMs: minuteBefore(nowMs, 35) + 30_000 });
    await field.candles(41, "AAPL", "MSFT");
    await until(page, "document.querySelector('#connection').dataset.state === 'lost'");
    field.wire.mend();
    await isWhole(field, page, 41);
    const highs = await highsOnChart(page);
    console.log(`candles after the cut: ${await page.evaluate(candleCount)} of 41`);
    expect(highs.get(minuteBefore(nowMs, 35))).toBe(150);
    expect(highs.size).toBeGreaterThanOrEqual(41);
    await choose(page, "MSFT");
    await until(
      page,
      `${candleCount} === 41 && document.querySelector('#chosen-symbol').textContent === 'MSFT'`,
    );
    expect(faults).toEqual([]);
  },
  TEST_MS_MAX,
);

browserTest(
  "a hidden tab has no stream, and a frozen one does nothing; both are whole when they are back",
  async () => {
    await using field = await startField(["AAPL"]);
    const nowMs = systemClock.now();
    field.send(...minutes(nowMs, 40, 20, "AAPL"));
    await field.candles(21, "AAPL");
    using directory = temporaryDirectory();
    await using tabs = await launchRawBrowser(directory.path);
    const tab = await tabs.open(field.wire.url);
    const isCount = (count: number) => async () => (await tab.evaluate(candleCount)) === count;
    await eventually(15_000, "21 candles", isCount(21));
    expect(field.wire.streamCount()).toBe(1);
    const other = await tabs.open("about:blank");
    await other.show();
    await eventually(5_000, "a hidden tab", async () => (await tab.evaluate("document.hidden")) === true);
    await eventually(5_000, "the end of the stream", () => field.wire.streamCount() === 0);
    field.send(...minutes(nowMs, 19, 8, "AAPL"));
    await field.candles(33, "AAPL");
    expect(await tab.evaluate(candleCount)).toBe(21);
    await tab.show();
    await eventually(15_000, "33 candles", isCount(33));

    await tab.evaluate("window.turns = 0; setInterval(() => { window.turns += 1; }, 100)");
    await other.show();
    await tab.setFrozen(true);
    const turns = await tab.evaluate("window.turns");
    field.send(...minutes(nowMs, 7, 0, "AAPL"));
    await field.candles(41, "AAPL");
    expect(Number(await tab.evaluate("window.turns")) - Number(turns)).toBeLessThanOrEqual(2);
    expect(await tab.evaluate(candleCount)).toBe(33);
    await tab.setFrozen(false);
    await tab.show();
    await eventually(15_000, "41 candles", isCount(41));
    console.log(`candles after hidden and frozen: ${await tab.evaluate(candleCount)} of 41`);
    expect(tabs.faults).toEqual([]);
  },
  TEST_MS_MAX,
);

browserTest(
  "a browser that slept is whole when it wakes, without an event of its own",
  async () => {
    await using field = await startField(["AAPL"]);
    const nowMs = systemClock.now();
    field.send(...minutes(nowMs, 40, 20, "AAPL"));
    await field.candles(21, "AAPL");
    await using sleeper = await launchSleeper();
    await using opened = await openPage(sleeper.browser, field.wire.url);
    const { page, faults } = opened;
    await until(page, `${candleCount} === 21`);
    sleeper.sleep();
    field.send(...minutes(nowMs, 19, 0, "AAPL"));
    await field.candles(41, "AAPL");
    await Bun.sleep(SLEEP_MS);
    sleeper.wake();
    await isWhole(field, page, 41);
    expect(faults).toEqual([]);
  },
  TEST_MS_MAX,
);

browserTest(
  "after a restart at the weekend Friday's price is there with its age, and /trades gives the newest there are",
  async () => {
    await using field = await startField(["AAPL", "MSFT"]);
    const fridayMs = systemClock.now() - 40 * HOUR_MS;
    field.send(
      { symbol: "AAPL", price: 271.5, atMs: fridayMs },
      { symbol: "AAPL", price: 271.6, atMs: fridayMs + MINUTE_MS },
      // A symbol that was last traded three weeks ago.
      { symbol: "MSFT", price: 400.25, atMs: fridayMs - 500 * HOUR_MS },
    );
    await eventually(15_000, "Friday's candles", async () => {
      const all = await field.items(`/candles?symbol=AAPL&from=${fridayMs - HOUR_MS}`);
      const others = await field.items(`/candles?symbol=MSFT&from=${fridayMs - 600 * HOUR_MS}`);
      return all.length === 2 && others.length === 1;
    });
    await field.restart();
    const tickers = await field.items("/tickers");
    console.log(
      `after the restart: ${JSON.stringify(tickers.map((one) => [one.symbol, one.last_price, one.age_ms]))}`,
    );
    expect(tickers).toMatchObject([{ last_price: 271.6 }, { last_price: 400.25 }]);
    expect(tickers[0]!.age_ms! / HOUR_MS).toBeCloseTo(40, 0);
    const prices = async (path: string) => (await field.items(path)).map(({ price }) => price);
    expect(await prices("/trades?symbol=AAPL")).toEqual([271.6, 271.5]);
    expect(await prices("/trades?symbol=MSFT")).toEqual([400.25]);
    expect((await field.items("/candles?symbol=AAPL")).length).toBe(2);
    expect((await field.items("/averages?symbol=AAPL")).length).toBeGreaterThan(2);
    await using opened = await openPage(await browser(), `${field.url}/#AAPL`);
    const { page, faults } = opened;
    await until(page, "document.querySelector('#chosen-price').textContent === '271.60'");
    expect(await text(page, '[data-symbol="AAPL"] .last')).toBe("271.60");
    expect(await text(page, '[data-symbol="AAPL"] td.age')).toMatch(/^(39|40) h$/);
    await until(page, `${candleCount} === 2`);
    expect(faults).toEqual([]);
  },
  TEST_MS_MAX,
);
