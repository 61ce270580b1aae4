// Question: what does the live page cost with 50 symbols at 5,000 trades/s, in scripts of the browser's main thread and in
// the process that serves 100 of them? `local` simulates the market; a Chromium shows one page, and the other clients are
// plain streams that this process reads. No pixel is judged here (tests/e2e/page.test.ts does that).

import { existsSync } from "node:fs";
import { eventually, temporaryDirectory } from "../tests/support/builders.ts";
import { CHROMIUM, FIFTY_TICKERS, launchChromium, traceMainThread } from "../tests/support/page.ts";
import { LOCAL, startService } from "../tests/support/processes.ts";
import { cpuSecondsOf, rssOf } from "./children.ts";
import { type Figure, RUNS, spreadOf } from "./measure.ts";

const TRADES_PER_SECOND = 5_000;
/** The speed of the simulated market: it gives somewhat more trades than that. */
const SPEED = "60";
const SPAN_MS = 4_000;
const CLIENTS = 100;
const START_MS_MAX = 30_000;

export async function page(): Promise<Figure[]> {
  using directory = temporaryDirectory();
  await using local = await startService(LOCAL, {
    DATA_DIR: directory.path,
    LOG_LEVEL: "warn",
    FINNHUB_SIMULATE: "1",
    FINNHUB_STOCKS_TICKERS: JSON.stringify(FIFTY_TICKERS),
    SIMULATOR_SPEED: SPEED,
  });
  await eventually(START_MS_MAX, `${TRADES_PER_SECOND} trades/s`, async () => {
    const before = await rowsStored(local.url);
    await Bun.sleep(1_000);
    return (await rowsStored(local.url)) - before >= TRADES_PER_SECOND;
  });
  const figures = await clients(local.url, local.pid);
  if (existsSync(CHROMIUM)) figures.push(await scripts(local.url));
  else console.error(`bench page: there is no ${CHROMIUM}, so no page was measured`);
  return figures;
}

async function rowsStored(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^pipeline_processor_rows_stored_total (\d+)$/m.exec(text)?.[1] ?? 0);
}

async function scripts(url: string): Promise<Figure> {
  const browser = await launchChromium();
  try {
    const shown = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    await shown.goto(url);
    await shown.waitForTimeout(SPAN_MS);
    const shares: number[] = [];
    const totals: number[] = [];
    const longest: number[] = [];
    for (let run = 0; run < RUNS; run++) {
      const { tasksMs, scriptsMs, spanMs } = await traceMainThread(browser, shown, () =>
        shown.waitForTimeout(SPAN_MS),
      );
      shares.push((scriptsMs / spanMs) * 100);
      longest.push(tasksMs[0] ?? Number.NaN);
      totals.push((tasksMs.reduce((sum, ms) => sum + ms, 0) / spanMs) * 100);
    }
    return {
      name: "page, scripts",
      unit: "% of a core",
      ours: spreadOf(shares),
      floor: null,
      goal: { of: "ours", atMost: 25 },
      cpuSecondsPerMillion: null,
      rssBytes: null,
      note:
        `${RUNS} runs of ${SPAN_MS / 1_000} s; with layout, painting and the tracing itself the main thread took ` +
        `${spreadOf(totals).median.toFixed(0)} %; its longest task ${Math.max(...longest).toFixed(1)} ms of CPU`,
    };
  } finally {
    await browser.close();
  }
}

/** What the process uses in addition with so many clients, and how many events the slowest of them gets. */
async function clients(url: string, pid: number): Promise<Figure[]> {
  const before: number[] = [];
  for (let run = 0; run < RUNS; run++) before.push(await cpuShare(pid));
  const alone = spreadOf(before).median;
  const stop = new AbortController();
  const counts = new Array<number>(CLIENTS).fill(0);
  const reading = counts.map(async (_, client) => {
    const symbol = encodeURIComponent(FIFTY_TICKERS[client % FIFTY_TICKERS.length]!);
    const { body } = await fetch(`${url}/events?symbol=${symbol}`, { signal: stop.signal });
    const decoder = new TextDecoder();
    for await (const bytes of body!)
      counts[client]! += decoder.decode(bytes, { stream: true }).match(/^event: /gm)?.length ?? 0;
  });
  await eventually(START_MS_MAX, "an event for each client", async () => counts.every((count) => count > 0));
  const shares: number[] = [];
  const slowest: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const counted = [...counts];
    const startedAtMs = performance.now();
    shares.push((await cpuShare(pid)) - alone);
    const seconds = (performance.now() - startedAtMs) / 1_000;
    slowest.push(Math.min(...counts.map((count, client) => (count - counted[client]!) / seconds)));
  }
  const rssBytes = rssOf(pid);
  stop.abort();
  await Promise.allSettled(reading);
  const common = { floor: null, cpuSecondsPerMillion: null, rssBytes };
  return [
    {
      ...common,
      name: `events, ${CLIENTS} clients`,
      unit: "% of a core",
      ours: spreadOf(shares),
      goal: null,
      note: `beside the ${alone.toFixed(0)} % that the pipeline took without a client`,
    },
    {
      ...common,
      name: `events, ${CLIENTS} clients, the slowest`,
      unit: "events/s",
      ours: spreadOf(slowest),
      goal: null,
    },
  ];
}

async function cpuShare(pid: number): Promise<number> {
  const before = cpuSecondsOf(pid);
  const startedAtMs = performance.now();
  await Bun.sleep(SPAN_MS);
  return ((cpuSecondsOf(pid) - before) / (performance.now() - startedAtMs)) * 100_000;
}
