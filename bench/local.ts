// Question: how many trades a second does the whole embedded path sustain, websocket -> row that somebody else
// can read, and how long does one trade take? `local` is a child as a user starts it, the simulator another one;
// this process only looks: a second connection to market.sqlite polls, so that no word of the writer's counts.

import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../tests/support/builders.ts";
import { LOCAL, startService } from "../tests/support/processes.ts";
import { cpuSecondsOf, ended, mib, now, rssOf, sentAt, startSender } from "./children.ts";
import { SYMBOLS } from "./material.ts";
import { type Figure, type Goal, quantile, RUNS, type Spread, spreadOf } from "./measure.ts";
import { PROBE_EVERY, PROBE_SYMBOL } from "./sender.ts";

/** Enough for RUNS times a second and more, at twice the goal. */
const THROUGHPUT_TRADES = 1_500_000;
/** Of the market that the tape at full speed is made of: some 10 trades a frame. */
const MARKET_TRADES_PER_SECOND = 20_000;
/** Each holds one trigger of the aggregates, which come every 5 seconds. */
const LATENCY_RUN_SECONDS = 5;
const WARM_UP_SECONDS = 3;
const LATENCY_RATES = [1_000, 5_000] as const;
/** Of the sleep between two looks; what a look costs comes on top, and both are told. */
const POLL_MS = 1;
const THROUGHPUT_POLL_MS = 10;
const START_MS_MAX = 60_000;
/** Without a new row for so long something is broken. */
const STALL_MS_MAX = 20_000;

const ALL_SYMBOLS = [...SYMBOLS, PROBE_SYMBOL];

type Subject = AsyncDisposable & Readonly<{ pid: number }>;
type Start = (directory: string, wsUrl: string) => Promise<Subject>;
type Seen = Readonly<{ number: number; seenAtMs: number }>;

export async function local(): Promise<Figure[]> {
  const ours = await throughput(startOurs);
  const floor = await throughput(startFloor);
  const unit = "trades/s";
  const figures: Figure[] = [
    {
      name: "local, sustained",
      unit,
      ours: ours.rates,
      floor: floor.rates,
      goal: { of: "ours", atLeast: 100_000 },
      cpuSecondsPerMillion: ours.cpuSecondsPerMillion,
      rssBytes: ours.rssBytes,
      note: `${ours.note}; the floor's CPU ${floor.cpuSecondsPerMillion.toFixed(2)} s/M, RSS ${mib(floor.rssBytes)} MiB`,
    },
  ];
  for (const rate of LATENCY_RATES) figures.push(...(await latencies(rate)));
  return figures;
}

// ---- Throughput

async function throughput(start: Start) {
  using directory = temporaryDirectory();
  await using sender = await startSender(MARKET_TRADES_PER_SECOND, THROUGHPUT_TRADES, "max");
  await using subject = await start(directory.path, sender.wsUrl);
  using rows = await openRows(directory.path);
  // Segments of the tape, the first of them the warm-up, each ended by the first look that shows its last trade.
  const marks = Array.from({ length: RUNS + 1 }, (_, index) =>
    Math.floor(((index + 1) * sender.tradeCount) / (RUNS + 1)),
  );
  let reached: Seen = { number: 0, seenAtMs: now() };
  let cpu = 0;
  let rssBytes = 0;
  const ends: Seen[] = [];
  let changedAtMs = now();
  while (ends.length < marks.length) {
    const number = rows.newest();
    const seenAtMs = now();
    if (number > reached.number) {
      reached = { number, seenAtMs };
      changedAtMs = seenAtMs;
      // The last trade is rarely the probe's.
      if (number + PROBE_EVERY > marks[ends.length]!) {
        if (ends.length === 0) cpu = cpuSecondsOf(subject.pid);
        ends.push(reached);
      }
    }
    if (seenAtMs - changedAtMs > STALL_MS_MAX) throw new Error(`no row since trade ${reached.number}`);
    await Bun.sleep(THROUGHPUT_POLL_MS);
  }
  const cpuSeconds = cpuSecondsOf(subject.pid) - cpu;
  rssBytes = rssOf(subject.pid);
  const first = ends[0]!;
  const last = ends.at(-1)!;
  const rates = ends.slice(1).map(({ number, seenAtMs }, index) => {
    const before = ends[index]!;
    return ((number - before.number) / (seenAtMs - before.seenAtMs)) * 1_000;
  });
  // A tick's trades are stored symbol by symbol, so the probe's last one need not be the last of all.
  const waitsFrom = now();
  for (let missing = sender.tradeCount; missing > 0; ) {
    missing = sender.tradeCount - rows.count();
    if (now() - waitsFrom > STALL_MS_MAX)
      throw new Error(`${missing} of ${sender.tradeCount} trades have no row`);
    await Bun.sleep(THROUGHPUT_POLL_MS);
  }
  const seconds = (last.seenAtMs - first.seenAtMs) / 1_000;
  const cores = cpuSeconds / seconds;
  return {
    rates: spreadOf(rates),
    cpuSecondsPerMillion: (cpuSeconds / (last.number - first.number)) * 1e6,
    rssBytes,
    note:
      `a tape at max, ${sender.tradeCount} trades, ${RUNS} segments in ${seconds.toFixed(1)} s after the first; ` +
      `polled each ${THROUGHPUT_POLL_MS} ms; ours used ${cores.toFixed(2)} cores, the simulator ${(sender.cpuSeconds() / seconds).toFixed(2)}`,
  };
}

// ---- Latency

async function latencies(rate: number): Promise<Figure[]> {
  const ours = await latency(rate, startOurs);
  const floor = await latency(rate, startFloor);
  const name = `local, ${rate.toLocaleString("en-US")} trades/s`;
  const figure = (which: string, of: "p50" | "p99", goal: Goal | null): Figure => ({
    name: `${name}, ${which}`,
    unit: "ms",
    ours: ours[of],
    floor: floor[of],
    goal,
    cpuSecondsPerMillion: ours.cpuSecondsPerMillion,
    rssBytes: ours.rssBytes,
  });
  return [
    figure("p50", "p50", null),
    {
      ...figure("p99", "p99", { of: "ours", atMost: rate === 1_000 ? 20 : 5 }),
      note:
        `${RUNS} runs of ${LATENCY_RUN_SECONDS} s, ${ours.count} trades seen; a look each ${ours.pollMs.toFixed(2)} ms: ` +
        `on average ${(ours.pollMs / 2).toFixed(2)} ms of each figure is the wait for it; ` +
        `longest ${ours.longestMs.toFixed(1)} ms (floor ${floor.longestMs.toFixed(1)})`,
    },
  ];
}

async function latency(rate: number, start: Start) {
  using directory = temporaryDirectory();
  const seconds = WARM_UP_SECONDS + RUNS * LATENCY_RUN_SECONDS;
  await using sender = await startSender(rate, rate * (seconds + 1), 1);
  await using subject = await start(directory.path, sender.wsUrl);
  using rows = await openRows(directory.path);
  const seen: Seen[] = [];
  let lookCount = 0;
  // It begins with the first trade: until then the child was starting.
  while (rows.newest() === 0) await Bun.sleep(POLL_MS);
  const beganAtMs = now() + WARM_UP_SECONDS * 1_000;
  const endAtMs = beganAtMs + RUNS * LATENCY_RUN_SECONDS * 1_000;
  const nextTrade = rows.following();
  let cpu = 0;
  let measuredFrom = 0;
  for (let atMs = now(); atMs < endAtMs; atMs = now()) {
    if (measuredFrom === 0 && atMs >= beganAtMs) {
      measuredFrom = atMs;
      cpu = cpuSecondsOf(subject.pid);
      lookCount = 0;
    }
    const numbers = nextTrade();
    const seenAtMs = now();
    lookCount++;
    for (const number of numbers) seen.push({ number, seenAtMs });
    await Bun.sleep(POLL_MS);
  }
  const measuredMs = now() - measuredFrom;
  const cpuSeconds = cpuSecondsOf(subject.pid) - cpu;
  const rssBytes = rssOf(subject.pid);
  const sent = await sender.end();
  const runs: number[][] = Array.from({ length: RUNS }, () => []);
  for (const { number, seenAtMs } of seen) {
    const sentAtMs = sentAt(sent, number);
    const run = Math.floor((sentAtMs - beganAtMs) / (LATENCY_RUN_SECONDS * 1_000));
    runs[run]?.push(seenAtMs - sentAtMs);
  }
  for (const run of runs) run.sort((a, b) => a - b);
  const quantiles = (share: number): Spread => spreadOf(runs.map((run) => quantile(run, share)));
  return {
    p50: quantiles(0.5),
    p99: quantiles(0.99),
    longestMs: Math.max(...runs.map((run) => run.at(-1) ?? Number.NaN)),
    count: runs.reduce((sum, run) => sum + run.length, 0),
    pollMs: measuredMs / lookCount,
    cpuSecondsPerMillion: (cpuSeconds / ((rate * measuredMs) / 1_000)) * 1e6,
    rssBytes,
  };
}

// ---- The processes, and the eye

async function startOurs(directory: string, wsUrl: string): Promise<Subject> {
  return startService(LOCAL, {
    DATA_DIR: directory,
    FINNHUB_WS_URL: wsUrl,
    FINNHUB_API_TOKEN: "bench-token",
    FINNHUB_VALIDATE_TICKERS: "0",
    FINNHUB_STOCKS_TICKERS: JSON.stringify(ALL_SYMBOLS),
    FINNHUB_MAX_SYMBOLS: String(ALL_SYMBOLS.length),
    LOG_LEVEL: "warn",
  });
}

async function startFloor(directory: string, wsUrl: string): Promise<Subject> {
  const child = Bun.spawn(
    [
      process.execPath,
      join(import.meta.dir, "floors.ts"),
      `${wsUrl}/?token=bench`,
      directory,
      ALL_SYMBOLS.join(","),
    ],
    { stdin: "ignore", stdout: "inherit", stderr: "inherit" },
  );
  return { pid: child.pid, [Symbol.asyncDispose]: () => ended(child) };
}

/** The second connection. */
async function openRows(directory: string) {
  const path = join(directory, "market.sqlite");
  const startedAtMs = now();
  const open = () => {
    if (!existsSync(path)) return null;
    const db = new Database(path, { readonly: true });
    try {
      db.query("SELECT 1 FROM trades LIMIT 1").get();
      return db;
    } catch {
      // Not made yet.
      db.close();
      return null;
    }
  };
  let db = open();
  while (db === null) {
    if (now() - startedAtMs > START_MS_MAX) throw new Error("the subject made no table of trades");
    await Bun.sleep(POLL_MS);
    db = open();
  }
  const opened = db;
  const newest = opened.query<{ volume: number }, [string]>(
    "SELECT volume FROM trades WHERE symbol = ? ORDER BY hour DESC, trade_timestamp DESC, uuid DESC LIMIT 1",
  );
  const following = opened.query<
    { hour: number; trade_timestamp: number; uuid: string; volume: number },
    [string, number, number, string]
  >(
    `SELECT hour, trade_timestamp, uuid, volume FROM trades
     WHERE symbol = ? AND (hour, trade_timestamp, uuid) > (?, ?, ?) ORDER BY hour, trade_timestamp, uuid`,
  );
  return {
    /** The number of the probe's newest trade; 0 = there is none. */
    newest: () => newest.get(PROBE_SYMBOL)?.volume ?? 0,
    /** At each call the numbers that were not there before. The probe's times ascend, as do the UUIDs within one. */
    following() {
      let after = { hour: 0, trade_timestamp: 0, uuid: "" };
      return () => {
        const rows = following.all(PROBE_SYMBOL, after.hour, after.trade_timestamp, after.uuid);
        after = rows.at(-1) ?? after;
        return rows.map(({ volume }) => volume);
      };
    },
    count: () => opened.query<{ n: number }, []>("SELECT count(*) AS n FROM trades").get()?.n ?? 0,
    [Symbol.dispose]: () => opened.close(),
  };
}
