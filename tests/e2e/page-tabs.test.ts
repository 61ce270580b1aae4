// Many tabs of one browser, which gives a server six connections: they share one stream, and requests go on.

import { afterAll, expect, test } from "bun:test";
import type { Browser, Page } from "playwright-core";
import { systemClock } from "../../lib/base/clock.ts";
import { eventually } from "../support/builders.ts";
import { startField } from "../support/field.ts";
import { isBrowserThere, launchChromium, openContext, priceMoves, until } from "../support/page.ts";

const browserTest = test.skipIf(!isBrowserThere("tests/e2e/page-tabs.test.ts"));
const TEST_MS_MAX = 120_000;
const TABS = 10;
/** A starved request waits for ever; how long one takes beside other tests says nothing, and is printed. */
const ANSWER_MS_MAX = 20_000;
const WAIT_MS_MAX = 60_000;
const SYMBOLS = ["AAPL", "MSFT", "TSLA", "A&B=C"];

let starting: Promise<Browser> | null = null;
function browser(): Promise<Browser> {
  starting ??= launchChromium();
  return starting;
}
afterAll(async () => (await starting)?.close());

async function startBusy() {
  const field = await startField(SYMBOLS);
  let count = 0;
  const timer = setInterval(() => {
    count += 1;
    // Each symbol has prices of its own, so that a tab that shows another's is seen.
    const atMs = systemClock.now();
    field.send(
      ...SYMBOLS.map((symbol, index) => ({ symbol, price: (index + 1) * 1_000 + (count % 50), atMs })),
    );
  }, 250);
  return {
    field,
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await field[Symbol.asyncDispose]();
    },
  };
}

const askHealth = (page: Page) =>
  page.evaluate(
    "(async () => { const at = performance.now(); await (await fetch('/health')).text(); return performance.now() - at; })()",
  ) as Promise<number>;

const second = "Number(document.querySelector('#read-price').dataset.second)";
const priceShown = "Number(document.querySelector('#read-price').dataset.value)";

async function lineMoves(page: Page): Promise<void> {
  await until(page, `${second} > 0`);
  const before = Number(await page.evaluate(second));
  await until(page, `${second} > ${before}`);
}

browserTest(
  "ten tabs have one stream, each its own symbol, and a request of any is answered at once",
  async () => {
    await using busy = await startBusy();
    const { wire } = busy.field;
    await using opened = await openContext(await browser());
    const tabs: Page[] = [];
    for (let tab = 0; tab < TABS; tab++) {
      const symbol = SYMBOLS[tab % SYMBOLS.length]!;
      tabs.push(await opened.open(`${wire.url}/#${encodeURIComponent(symbol)}`));
      await priceMoves(tabs.at(-1)!, "AAPL");
    }
    for (const [tab, page] of tabs.entries()) {
      await lineMoves(page);
      const price = Number(await page.evaluate(priceShown));
      expect(Math.floor(price / 1_000)).toBe((tab % SYMBOLS.length) + 1);
    }
    const answersMs = [];
    for (const page of [tabs[0]!, tabs.at(-1)!]) answersMs.push(await askHealth(page));
    console.log(`${TABS} tabs, ${wire.streamCount()} stream; /health in ms: ${answersMs.map(Math.round)}`);
    expect(wire.streamCount()).toBe(1);
    expect(Math.max(...answersMs)).toBeLessThan(ANSWER_MS_MAX);

    await eventually(WAIT_MS_MAX, "the page says that it reads", () => wire.readingCount() > 3);

    // Another symbol in one tab changes no other tab.
    await tabs[1]!.locator('[data-symbol="TSLA"] button').click();
    await until(tabs[1]!, `Math.floor(${priceShown} / 1000) === 3`);
    await lineMoves(tabs[0]!);
    expect(Math.floor(Number(await tabs[0]!.evaluate(priceShown)) / 1_000)).toBe(1);

    // Whoever held the stream: the rest goes on without it, and the last one ends it.
    for (const page of tabs.slice(0, TABS - 1)) await page.close();
    await lineMoves(tabs.at(-1)!);
    expect(wire.streamCount()).toBe(1);
    wire.reset();
    await lineMoves(tabs.at(-1)!);
    await tabs.at(-1)!.close();
    await eventually(WAIT_MS_MAX, "the end of the stream", () => wire.streamCount() === 0);
    expect(opened.faults).toEqual([]);
  },
  TEST_MS_MAX,
);

browserTest(
  "a browser without shared workers has a stream a tab, and one whose worker cannot be had too",
  async () => {
    await using busy = await startBusy();
    const { wire } = busy.field;
    for (const script of [
      "delete window.SharedWorker",
      "window.SharedWorker = class { constructor() { throw new Error('forbidden') } }",
      // It is there, and says nothing.
      "window.SharedWorker = class extends EventTarget { port = { postMessage() {} } }",
    ]) {
      await using opened = await openContext(await browser());
      await opened.context.addInitScript(script);
      const page = await opened.open(`${wire.url}/#MSFT`);
      await lineMoves(page);
      expect(wire.streamCount()).toBe(1);
      expect(opened.faults).toEqual([]);
    }
  },
  TEST_MS_MAX,
);
