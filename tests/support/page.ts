// A real Chromium, and its own trace of what the main thread of a page did: tasks and scripts in CPU time of that thread,
// which other processes on the machine do not make longer. For tests/e2e/page.test.ts and bench/page.ts.

import { existsSync } from "node:fs";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { eventually } from "./builders.ts";

export const CHROMIUM = "/usr/bin/chromium";
/** 50 symbols of one exchange, as many as the free plan streams. */
export const FIFTY_TICKERS: readonly string[] = [
  ..."BTC ETH SOL XRP DOGE ADA LTC DOT AVAX LINK".split(" "),
].flatMap((coin) => ["USDT", "USDC", "EUR", "BTC", "FDUSD"].map((quote) => `BINANCE:${coin}${quote}`));

export const WAIT_MS_MAX = 45_000;

/** Without a browser the tests of the page are skipped, and say so; with CI=true they fail instead. */
export function isBrowserThere(file: string): boolean {
  const isThere = existsSync(CHROMIUM) || process.env.CI === "true";
  if (!isThere) console.error(`${file} is skipped: there is no ${CHROMIUM} (apt-get install chromium)`);
  return isThere;
}

export const CHROMIUM_ARGS: readonly string[] = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const LAUNCH = { executablePath: CHROMIUM, headless: true, args: [...CHROMIUM_ARGS] };

export function launchChromium(): Promise<Browser> {
  return chromium.launch(LAUNCH);
}

/** A browser of which every process can be stopped, as by a machine that sleeps. */
export async function launchSleeper() {
  const server = await chromium.launchServer(LAUNCH);
  const browser = await chromium.connect(server.wsEndpoint());
  // It leads a process group of its own.
  const signal = (name: NodeJS.Signals) => process.kill(-server.process().pid!, name);
  return {
    browser,
    sleep: () => signal("SIGSTOP"),
    wake: () => signal("SIGCONT"),
    async [Symbol.asyncDispose]() {
      signal("SIGCONT");
      await server.close();
    },
  };
}

export type MainThread = Readonly<{
  /** CPU time of each task, the longest first. */
  tasksMs: readonly number[];
  /** CPU time within scripts. */
  scriptsMs: number;
  spanMs: number;
}>;

type TraceEvent = Readonly<{
  name: string;
  ph: string;
  pid: number;
  tid: number;
  /** us: when, how long, and how much of that its thread had the CPU. */
  ts: number;
  dur?: number;
  tdur?: number;
  args: Readonly<Record<string, unknown>>;
}>;

const TASK = /^(ThreadControllerImpl::)?RunTask$/;
/** Where the browser enters a script, or collects its garbage. */
const SCRIPT = /^(FunctionCall|EvaluateScript|v8\.evaluateModule|v8\.callFunction|v8\.run|MinorGC|MajorGC)$/;

/** What the main threads that ran scripts of this page's origin did during the work. */
export async function traceMainThread(
  browser: Browser,
  page: Page,
  work: () => Promise<unknown>,
): Promise<MainThread> {
  await browser.startTracing(page, { categories: ["toplevel", "devtools.timeline", "v8"] });
  const startedAtMs = performance.now();
  await work();
  const spanMs = performance.now() - startedAtMs;
  const { origin } = new URL(page.url());
  const { traceEvents } = JSON.parse(String(await browser.stopTracing())) as { traceEvents: TraceEvent[] };
  const threadOf = ({ pid, tid }: TraceEvent) => `${pid}/${tid}`;
  const mains = new Set(
    traceEvents
      .filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain")
      .map(threadOf),
  );
  const ours = new Set<string>();
  for (const event of traceEvents) {
    const thread = threadOf(event);
    if (mains.has(thread) && !ours.has(thread) && JSON.stringify(event.args).includes(origin))
      ours.add(thread);
  }
  const done = traceEvents.filter((event) => event.ph === "X" && ours.has(threadOf(event)));
  // The field is left out where it is 0.
  const cpuMs = ({ tdur = 0 }: TraceEvent) => tdur / 1_000;
  const scripts = outermost(done.filter(({ name }) => SCRIPT.test(name)));
  return {
    tasksMs: outermost(done.filter(({ name }) => TASK.test(name)))
      .map(cpuMs)
      .sort((one, other) => other - one),
    scriptsMs: scripts.reduce((sum, event) => sum + cpuMs(event), 0),
    spanMs,
  };
}

/** An event within another is counted once. */
function outermost(events: readonly TraceEvent[]): TraceEvent[] {
  const ends = new Map<number, number>();
  return events
    .toSorted((one, other) => one.ts - other.ts || (other.dur ?? 0) - (one.dur ?? 0))
    .filter(({ tid, ts, dur = 0 }) => {
      if (ts < (ends.get(tid) ?? 0)) return false;
      ends.set(tid, ts + dur);
      return true;
    });
}

// --- A page under test -----------------------------------------------------------------------------------------

/** Pages that share what a browser shares between tabs; a fault of each is a fault. */
export async function openContext(browser: Browser, options: BrowserContextOptions = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const faults: string[] = [];
  await context.addInitScript(
    "addEventListener('securitypolicyviolation', (event) => console.error('policy: ' + event.violatedDirective))",
  );
  return {
    context,
    /** What must not happen: a message on the console, a breach of the policy, a foreign request. */
    faults,
    async open(url: string): Promise<Page> {
      const page = await context.newPage();
      page.setDefaultTimeout(WAIT_MS_MAX);
      page.on("pageerror", (error) => faults.push(String(error)));
      page.on("console", (message) => {
        // The browser itself reports a server that is away; the tests that stop one expect it.
        if (!message.text().includes("net::ERR_")) faults.push(message.text());
      });
      page.on("request", (request) => {
        if (!/^data:/.test(request.url()) && new URL(request.url()).origin !== new URL(url).origin)
          faults.push(`asked ${request.url()}`);
      });
      await page.goto(url);
      return page;
    },
    [Symbol.asyncDispose]: () => context.close(),
  };
}

export async function openPage(browser: Browser, url: string, options: BrowserContextOptions = {}) {
  const opened = await openContext(browser, options);
  const page = await opened.open(url);
  return { page, faults: opened.faults, [Symbol.asyncDispose]: opened[Symbol.asyncDispose] };
}

/** Waits until an expression is true in the page; it is a text, because it runs in the browser. */
export async function until(page: Page, expression: string, limitMs = WAIT_MS_MAX): Promise<void> {
  await eventually(limitMs, expression, async () => (await page.evaluate(`Boolean(${expression})`)) === true);
}

export const text = (page: Page, selector: string) => page.locator(selector).textContent();

export async function data(page: Page, selector: string): Promise<Record<string, number>> {
  const all = (await page.locator(selector).evaluate((element) => ({ ...element.dataset }))) as object;
  return Object.fromEntries(Object.entries(all).map(([name, value]) => [name, Number(value)]));
}

export const priceOf = (symbol: string) =>
  `document.querySelector('[data-symbol="${symbol}"] .last')?.dataset.value`;

export async function priceMoves(page: Page, symbol: string): Promise<void> {
  await until(page, `${priceOf(symbol)} !== undefined`);
  const before = await page.evaluate(priceOf(symbol));
  await until(page, `${priceOf(symbol)} !== ${JSON.stringify(before)}`);
}

/** High of each candle that can be pointed at, by the start of its window: read as a person does. */
export async function highsOnChart(page: Page): Promise<Map<number, number>> {
  const box = (await page.locator("#candle-chart").boundingBox())!;
  const highs = new Map<number, number>();
  const read = "JSON.stringify({ ...document.querySelector('#read-high').dataset })";
  for (let x = box.width - 80; x > 4; x -= 5) {
    await page.mouse.move(box.x + x, box.y + box.height / 2);
    await page.evaluate("new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))");
    const { value, start } = JSON.parse(String(await page.evaluate(read))) as Record<string, string>;
    if (start !== undefined) highs.set(Number(start), Number(value));
  }
  await page.mouse.move(box.x + 4, box.y - 40);
  return highs;
}
