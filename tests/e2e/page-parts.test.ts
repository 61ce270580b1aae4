// A part of the page that fails ends no other, says so in its corner, and mends itself; and what comes late or broken is
// no reason to fail.

import { afterAll, expect, test } from "bun:test";
import type { Browser, Page } from "playwright-core";
import { systemClock } from "../../lib/base/clock.ts";
import { eventually } from "../support/builders.ts";
import { MINUTE_MS, minuteBefore, startField } from "../support/field.ts";
import {
  data,
  highsOnChart,
  isBrowserThere,
  launchChromium,
  openContext,
  openPage,
  priceMoves,
  until,
} from "../support/page.ts";

const browserTest = test.skipIf(!isBrowserThere("tests/e2e/page-parts.test.ts"));
const TEST_MS_MAX = 120_000;
const LIVE_EVERY_MS = 250;

let starting: Promise<Browser> | null = null;
function browser(): Promise<Browser> {
  starting ??= launchChromium();
  return starting;
}
afterAll(async () => (await starting)?.close());

const candleCount = "Number(document.querySelector('#candle-chart').dataset.candles)";
const corner = (place: string) => `document.querySelector('#${place} > .corner')?.textContent ?? ''`;

/** Prices that never stand still, until the end of the scope. */
function streaming(field: Awaited<ReturnType<typeof startField>>, ...symbols: readonly string[]): Disposable {
  let count = 0;
  const timer = setInterval(() => {
    count += 1;
    const atMs = systemClock.now();
    field.send(...symbols.map((symbol) => ({ symbol, price: 100 + (count % 50), atMs })));
  }, LIVE_EVERY_MS);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

const averageEnd = async (page: Page) => (await data(page, "#read-average")).second ?? 0;

async function averageMoves(page: Page): Promise<void> {
  const before = await averageEnd(page);
  await until(page, `Number(document.querySelector('#read-average').dataset.second) > ${before}`, 25_000);
}

browserTest(
  "a late print in an empty minute becomes its candle, and the average goes on",
  async () => {
    await using field = await startField(["AAPL"]);
    const nowMs = systemClock.now();
    const at = (minute: number) => ({
      symbol: "AAPL",
      price: 100,
      atMs: minuteBefore(nowMs, minute) + 1_000,
    });
    field.send(...[6, 5, 4, 2, 1].map(at));
    using _ = streaming(field, "AAPL");
    await field.candles(6, "AAPL");
    await using opened = await openPage(await browser(), field.url);
    const { page, faults } = opened;
    await until(page, `${candleCount} >= 6`);
    await averageMoves(page);
    const lateMs = minuteBefore(nowMs, 3);
    field.send({ symbol: "AAPL", price: 103, atMs: lateMs + 30_000 });
    await until(page, `${candleCount} >= 7`);
    for (let twice = 0; twice < 2; twice++) await averageMoves(page);
    const highs = await highsOnChart(page);
    console.log(
      `the late print's candle: ${highs.get(lateMs)}; the average goes on; faults: ${faults.length}`,
    );
    expect(highs.get(lateMs)).toBe(103);
    expect(await page.locator(".corner").count()).toBe(0);
    expect(faults).toEqual([]);
  },
  TEST_MS_MAX,
);

/** Breaks what a part stands on while `broken` names it, as a driver, an extension or a full disk may. */
const BREAKER = `
  window.broken = new Set();
  const within = (element, place) => element instanceof Element && element.closest("#" + place) !== null;
  for (const name of ["clearRect", "fillRect", "beginPath"]) {
    const real = CanvasRenderingContext2D.prototype[name];
    CanvasRenderingContext2D.prototype[name] = function (...args) {
      for (const place of ["price-chart", "candle-chart", "rows"]) {
        if (broken.has(place) && within(this.canvas, place)) throw new Error("the canvas of " + place + " is lost");
      }
      return real.apply(this, args);
    };
  }
  const animate = Element.prototype.animate;
  Element.prototype.animate = function (...args) {
    if (broken.has("animate")) throw new Error("no animations here");
    return animate.apply(this, args);
  };
  const replaceState = History.prototype.replaceState;
  History.prototype.replaceState = function (...args) {
    if (broken.has("address")) throw new Error("too many changes of the address");
    return replaceState.apply(this, args);
  };
  const title = Object.getOwnPropertyDescriptor(Document.prototype, "title");
  Object.defineProperty(Document.prototype, "title", {
    ...title,
    set(value) {
      if (broken.has("title")) throw new Error("no title here");
      title.set.call(this, value);
    },
  });
`;

browserTest(
  "each part fails alone, says so in its corner, and mends itself",
  async () => {
    await using field = await startField(["AAPL", "MSFT"]);
    using _ = streaming(field, "AAPL", "MSFT");
    await using opened = await openContext(await browser());
    await opened.context.addInitScript(BREAKER);
    const page = await opened.open(`${field.wire.url}/#AAPL`);
    await priceMoves(page, "AAPL");
    await averageMoves(page);
    const scenes = [
      { broken: "price-chart", place: "lines", says: "The price chart failed" },
      { broken: "candle-chart", place: "candles", says: "The candle chart failed" },
      { broken: "rows", place: "market", says: "The drawing of the sparklines failed" },
      { broken: "animate", place: "market", says: "The table failed" },
      { broken: "title", place: "footer", says: "The headline failed" },
    ];
    for (const { broken, place, says } of scenes) {
      await page.evaluate(`broken.add(${JSON.stringify(broken)}); void dispatchEvent(new Event("resize"))`);
      await until(page, `${corner(place)}.includes(${JSON.stringify(says)})`);
      console.log(`${broken}: ${await page.evaluate(corner(place))}`);
      // The others go on.
      if (broken !== "animate") await priceMoves(page, "MSFT");
      if (broken !== "price-chart") await averageMoves(page);
      expect(await page.locator(".corner").count()).toBe(1);
      await page.evaluate(`broken.delete(${JSON.stringify(broken)})`);
      await until(page, "document.querySelector('.corner') === null");
    }
    await priceMoves(page, "AAPL");
    // A refused address does not keep a symbol from being chosen.
    await page.evaluate(`broken.add("address")`);
    await page.locator('[data-symbol="MSFT"] button').click();
    await until(page, "document.querySelector('#chosen-symbol').textContent === 'MSFT'");
    await until(page, `${corner("footer")}.includes("The change of the address failed")`);
    await page.evaluate(`broken.delete("address")`);
    await page.keyboard.press("ArrowUp");
    await until(page, "document.querySelector('#chosen-symbol').textContent === 'AAPL'");
    await eventually(15_000, "the address is changed again", async () => {
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("ArrowUp");
      return (await page.locator(".corner").count()) === 0;
    });
    expect(new URL(page.url()).hash).toBe("#AAPL");
    expect(opened.faults).toEqual([]);
  },
  TEST_MS_MAX,
);

browserTest(
  "a broken event, an answer that is none, and an address that cannot be read end nothing",
  async () => {
    await using field = await startField(["AAPL"]);
    field.send({ symbol: "AAPL", price: 99, atMs: systemClock.now() - 2 * MINUTE_MS });
    using _ = streaming(field, "AAPL");
    await using opened = await openPage(await browser(), `${field.wire.url}/#%E0%A4%A`);
    const { page, faults } = opened;
    await priceMoves(page, "AAPL");
    field.wire.spoilOnce((bytes) => {
      const at = bytes.indexOf("data: {");
      if (at === -1 || !bytes.includes("event: delta")) return null;
      bytes[at + 6] = "<".charCodeAt(0);
      return bytes;
    });
    await until(page, "document.querySelector('#connection').dataset.state === 'lost'");
    await until(page, "document.querySelector('#connection').dataset.state === 'connected'");
    await priceMoves(page, "AAPL");

    await page.route("**/candles?*", (route) => route.fulfill({ status: 200, body: "<html>log in</html>" }));
    await until(page, `${corner("candles")}.includes("The request for candles failed")`);
    await averageMoves(page);
    await page.unroute("**/candles?*");
    await until(page, "document.querySelector('.corner') === null", 20_000);
    await page.route("**/candles?*", (route) =>
      route.fulfill({
        json: {
          items: [
            { window_start: minuteBefore(systemClock.now(), 1), open: null, high: 1, low: 1, close: 1 },
            { window_start: "x", open: 1, high: 1, low: 1, close: 1 },
          ],
          next: null,
        },
      }),
    );
    await averageMoves(page);
    await averageMoves(page);
    expect(await page.locator(".corner").count()).toBe(0);
    expect(faults).toEqual([]);
  },
  TEST_MS_MAX,
);
