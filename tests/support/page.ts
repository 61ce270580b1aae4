// A real Chromium, and its own trace of what the main thread of a page did: tasks and scripts in CPU time of that thread,
// which other processes on the machine do not make longer. For tests/e2e/page.test.ts and bench/page.ts.

import { type Browser, chromium, type Page } from "playwright-core";

export const CHROMIUM = "/usr/bin/chromium";
/** 50 symbols of one exchange, as many as the free plan streams. */
export const FIFTY_TICKERS: readonly string[] = [
  ..."BTC ETH SOL XRP DOGE ADA LTC DOT AVAX LINK".split(" "),
].flatMap((coin) => ["USDT", "USDC", "EUR", "BTC", "FDUSD"].map((quote) => `BINANCE:${coin}${quote}`));

export function launchChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
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
