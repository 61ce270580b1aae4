// `bun run soak [--minutes 10] [--rate 5000]`: does `local` keep its memory flat? The simulator (this process)
// sends 50 symbols at the rate; `local` is a child as a user starts it. Prints a line every twentieth of the time,
// then resident memory at the end over that after a fifth: with 10 minutes each 30 s, and after 2 minutes.

import { Database } from "bun:sqlite";
import { readFileSync, rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startSimulator } from "../lib/simulator/simulator.ts";
import { LOCAL, startService } from "../tests/support/processes.ts";

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "10" }, rate: { type: "string", default: "5000" } },
});
const minutes = Number(values.minutes);
const tradesPerSecond = Number(values.rate);
if (!(minutes > 0 && tradesPerSecond > 0)) throw new Error("--minutes and --rate must be above 0");
const STEPS = 20;
const WARM_STEPS = 4;
const stepSeconds = (minutes * 60) / STEPS;

const symbols = Array.from({ length: 50 }, (_, index) =>
  index % 2 === 0 ? `BINANCE:COIN${index}USDT` : `S${String.fromCharCode(65 + (index >> 1))}K`,
);
const directory = await mkdtemp(join(tmpdir(), "soak-"));
try {
  await using simulator = await startSimulator({ tradesPerSecond, ledger: false });
  await using local = await startService(LOCAL, {
    DATA_DIR: directory,
    FINNHUB_WS_URL: simulator.wsUrl,
    FINNHUB_API_TOKEN: "soak-token",
    FINNHUB_VALIDATE_TICKERS: "0",
    FINNHUB_STOCKS_TICKERS: JSON.stringify(symbols),
    LOG_LEVEL: "warn",
  });
  const startedAtMs = performance.now();
  let warmBytes = 0;
  let last = await measure(local.url, local.pid);
  for (let step = 1; step <= STEPS; step++) {
    await Bun.sleep(startedAtMs + step * stepSeconds * 1_000 - performance.now());
    const now = await measure(local.url, local.pid);
    const rate = Math.round((now.rows - last.rows) / stepSeconds);
    const cpu = (((now.cpuSeconds - last.cpuSeconds) / stepSeconds) * 100).toFixed(1);
    console.log(
      `${minutesAt(step)} min  RSS ${mb(now.rssBytes)}  rows ${now.rows}  ${rate}/s  CPU ${cpu} %  unstored ${now.unstored}`,
    );
    if (step === WARM_STEPS) warmBytes = now.rssBytes;
    last = now;
  }
  const exitCode = await local.stop();
  using db = new Database(join(directory, "market.sqlite"), { readonly: true });
  const rowCount = db.query<{ n: number }, []>("SELECT count(*) AS n FROM trades").get()?.n;
  console.log(
    `RSS after ${minutes} min / after ${minutesAt(WARM_STEPS)} min = ${(last.rssBytes / warmBytes).toFixed(3)} ` +
      `(${mb(last.rssBytes)} / ${mb(warmBytes)}), ${rowCount} rows of ${simulator.ledger.counts().tradesSent} sent, exit ${exitCode}`,
  );
} finally {
  rmSync(directory, { recursive: true, force: true });
}

function minutesAt(step: number): number {
  return Number(((step * stepSeconds) / 60).toPrecision(3));
}

async function measure(url: string, pid: number) {
  const text = await (await fetch(`${url}/metrics`)).text();
  const metric = (name: string) => Number(new RegExp(`^pipeline_${name} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
  // The kernel's word, not the process's own.
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return {
    rssBytes: Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1_024,
    rows: metric("processor_rows_stored_total"),
    unstored: metric("processor_records_unstored"),
    cpuSeconds: metric("process_cpu_seconds_total"),
  };
}

function mb(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
