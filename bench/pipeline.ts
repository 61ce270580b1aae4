// Question: how long does one trade take through all processes, from the frame that leaves the simulator to the row that
// another client can read in Cassandra? What do the processes cost when nothing happens, and how soon after a start are
// they at work? A second connection polls, so that no figure is the processes' own. The floor is one process with the
// bare clients.

import { mkdirSync } from "node:fs";
import cassandraDriver from "cassandra-driver";
import { temporaryDirectory } from "../tests/support/builders.ts";
import type { Settings } from "../tests/support/processes.ts";
import { clientOptions } from "../tests/support/services/cassandra.ts";
import { cpuSecondsOf, ended, mib, now, rssOf, sentAt, startSender } from "./children.ts";
import { type Engines, openEngines, STALL_MS_MAX, until } from "./engines.ts";
import { SYMBOLS } from "./material.ts";
import { type Figure, quantile, RUNS, type Spread, spreadOf } from "./measure.ts";
import { PROBE_EVERY, PROBE_SYMBOL } from "./sender.ts";

const RATES = [200, 1_000, 5_000] as const;
/** Each run has one trigger of the aggregates, which come every 5 seconds. */
const RUN_SECONDS = 5;
const RUN_SECONDS_SHORT = 2;
const WARM_UP_SECONDS = 4;
/**
 * Before anything is measured: engines that have just started compile for half a minute. In that time a trade takes six
 * times as long to its row, and whichever side came first would pay for it.
 */
const ENGINES_WARM_UP_RATE = 1_000;
/** The sleep between two polls. */
const POLL_MS = 1;
/** Rows of one partition may become readable in another order than they were sent in: each poll looks back so far. */
const LOOK_BACK_MS = 100;
const HOUR_MS = 3_600_000;
/** What was sent in the last second may still be on its way, and is not measured. */
const LAST_SECOND_MS = 1_000;
/** Five measurements of this length each: the kernel counts in hundredths of a second. */
const IDLE_SECONDS = 4;
const IDLE_SETTLE_SECONDS = 3;
const IDLE_POINTS_MAX = 0.5;
const START_RATE = 200;
const START_SECONDS = 90;
/** Relative to the floor of the same run. */
const P50_RATIO_MAX = 1.5;
const P99_MS_MAX: Readonly<Record<(typeof RATES)[number], number>> = { 200: 12, 1000: 15, 5000: 30 };

const ALL_SYMBOLS = [...SYMBOLS, PROBE_SYMBOL];

type Side = "ours" | "floor";
type Latency = Awaited<ReturnType<typeof latency>>;

export async function pipeline(isShort: boolean): Promise<Figure[]> {
  await using engines = await openEngines();
  const figures: Figure[] = [];
  // Ours warms up, because it asks everything of the engines that the floor does, and more.
  await latency(engines, ENGINES_WARM_UP_RATE, isShort ? RUN_SECONDS_SHORT : RUN_SECONDS, "ours");
  for (const rate of RATES) {
    const seconds = isShort ? RUN_SECONDS_SHORT : RUN_SECONDS;
    const ours = await latency(engines, rate, seconds, "ours");
    const floor = await latency(engines, rate, seconds, "floor");
    figures.push(...latencyFigures(rate, ours, floor));
  }
  return [...figures, ...(await starts(engines)), ...(await idle(engines))];
}

function settingsOf(engines: Engines, directory: string, wsUrl: string): Promise<Settings> {
  return engines.pipeline(directory, {
    FINNHUB_WS_URL: wsUrl,
    FINNHUB_STOCKS_TICKERS: JSON.stringify(ALL_SYMBOLS),
    FINNHUB_MAX_SYMBOLS: String(ALL_SYMBOLS.length),
  });
}

// ---- Latency

function latencyFigures(rate: (typeof RATES)[number], ours: Latency, floor: Latency): Figure[] {
  const name = `pipeline, ${rate.toLocaleString("en-US")} trades/s`;
  const figure = (of: "p50" | "p95" | "p99", goal: Figure["goal"]): Figure => ({
    name: `${name}, ${of}`,
    unit: "ms",
    ours: ours[of],
    floor: floor[of],
    goal,
    cpuSecondsPerMillion: ours.cpuPerMillion,
    rssBytes: Math.max(...ours.rss.map(([, bytes]) => bytes)),
  });
  const said = ({ cpuPerMillion, kafkaPerMillion, cassandraPerMillion }: Latency) =>
    `CPU s/M trades: processes ${cpuPerMillion.toFixed(1)}, Kafka ${kafkaPerMillion.toFixed(1)}, Cassandra with the looks ${cassandraPerMillion.toFixed(1)}`;
  return [
    figure("p50", { of: "ratio", atMost: P50_RATIO_MAX }),
    figure("p95", null),
    {
      ...figure("p99", { of: "ours", atMost: P99_MS_MAX[rate] }),
      note:
        `${RUNS} runs, ${ours.count} trades, ${ours.missed} of them missed by the looks (floor ${floor.missed}); a look each ${ours.pollMs.toFixed(2)} ms (floor ` +
        `${floor.pollMs.toFixed(2)}): half of it is in each figure; longest ${ours.longestMs.toFixed(0)} ms (floor ` +
        `${floor.longestMs.toFixed(0)}); ${said(ours)} (floor: ${said(floor)}); RSS ` +
        ours.rss.map(([what, bytes]) => `${what} ${mib(bytes)} MiB`).join(", "),
    },
  ];
}

async function latency(engines: Engines, rate: number, runSeconds: number, side: Side) {
  using directory = temporaryDirectory();
  const seconds = WARM_UP_SECONDS + RUNS * runSeconds;
  // While the processes start, the market stands still: it begins with whoever subscribes.
  await using sender = await startSender(rate, rate * (seconds + 2), 1);
  const settings = await settingsOf(engines, directory.path, sender.wsUrl);
  await using subjects = new AsyncDisposableStack();
  const processes: { name: string; pid: number }[] = [];
  if (side === "ours") {
    for (const name of ["processor", "producer"] as const) {
      const process = subjects.use(await engines.start(name, settings));
      processes.push({ name, pid: process.pid });
    }
  } else {
    const more = { url: `${sender.wsUrl}/?token=bench`, symbols: ALL_SYMBOLS };
    processes.push({ name: "floor", pid: subjects.use(await engines.floor("path", settings, more)).pid });
  }
  await using rows = await openRows(engines, settings);
  const cpuNow = () => ({
    own: processes.reduce((sum, { pid }) => sum + cpuSecondsOf(pid), 0),
    ...engines.cpuSeconds(),
  });

  await rows.next();
  const seen = new Map<number, number>();
  const beganAtMs = now() + WARM_UP_SECONDS * 1_000;
  const endAtMs = beganAtMs + RUNS * runSeconds * 1_000;
  let before = cpuNow();
  let measuredFrom = 0;
  let lookCount = 0;
  for (let atMs = now(); atMs < endAtMs; atMs = now()) {
    if (measuredFrom === 0 && atMs >= beganAtMs) {
      measuredFrom = atMs;
      before = cpuNow();
      lookCount = 0;
    }
    const numbers = await rows.look();
    const seenAtMs = now();
    lookCount++;
    for (const number of numbers) if (!seen.has(number)) seen.set(number, seenAtMs);
    await Bun.sleep(POLL_MS);
  }
  const measuredMs = now() - measuredFrom;
  const after = cpuNow();
  const rss = processes.map(({ name, pid }) => [name, rssOf(pid)] as const);
  const sent = await sender.end();
  // What was sent before the end is due a moment later.
  const lastDue = sent.findLast(([, atMs]) => atMs < endAtMs - LAST_SECOND_MS)![0];
  let stored = new Set<number>();
  await until("what was sent is stored", async () => {
    stored = new Set(await rows.since(beganAtMs - LAST_SECOND_MS));
    return [...stored].some((number) => number > lastDue + PROBE_EVERY);
  });
  const runs: number[][] = Array.from({ length: RUNS }, () => []);
  let due = 0;
  let missed = 0;
  for (let number = PROBE_EVERY; number < sent.at(-1)![0]; number += PROBE_EVERY) {
    const sentAtMs = sentAt(sent, number);
    const run = runs[Math.floor((sentAtMs - beganAtMs) / (runSeconds * 1_000))];
    if (run === undefined || sentAtMs > endAtMs - LAST_SECOND_MS) continue;
    due++;
    const seenAtMs = seen.get(number);
    if (seenAtMs === undefined) missed++;
    if (!stored.has(number)) throw new Error(`trade ${number} has no row`);
    // One that no look has met took longer than can be told.
    run.push(seenAtMs === undefined ? Number.POSITIVE_INFINITY : seenAtMs - sentAtMs);
  }
  for (const run of runs) run.sort((a, b) => a - b);
  const quantiles = (share: number): Spread => spreadOf(runs.map((run) => quantile(run, share)));
  const millions = (rate * measuredMs) / 1e9;
  return {
    p50: quantiles(0.5),
    p95: quantiles(0.95),
    p99: quantiles(0.99),
    longestMs: Math.max(...runs.map((run) => run.at(-1) ?? Number.NaN)),
    count: due,
    missed,
    pollMs: measuredMs / lookCount,
    cpuPerMillion: (after.own - before.own) / millions,
    kafkaPerMillion: (after.kafka - before.kafka) / millions,
    cassandraPerMillion: (after.cassandra - before.cassandra) / millions,
    rss,
  };
}

/** The second connection. */
async function openRows(engines: Engines, settings: Settings) {
  const client = new cassandraDriver.Client({
    ...clientOptions(engines.cassandra.port),
    keyspace: settings.CASSANDRA_KEYSPACE!,
  });
  await client.connect();
  const query =
    "SELECT trade_timestamp, volume FROM trades WHERE symbol = ? AND hour = ? AND trade_timestamp >= ? LIMIT 100000";
  let newestMs = now();
  /** The numbers of the probe's trades that are there and were traded since then. */
  async function since(fromMs: number): Promise<number[]> {
    const sinceMs = Math.floor(fromMs);
    const numbers: number[] = [];
    const last = Math.floor(now() / HOUR_MS);
    for (let hour = Math.floor(sinceMs / HOUR_MS); hour <= last; hour++) {
      const params = [PROBE_SYMBOL, hour * HOUR_MS, sinceMs];
      const { rows } = await client.execute(query, params, { prepare: true, fetchSize: 100_000 });
      for (const row of rows) {
        numbers.push(row.volume as number);
        newestMs = Math.max(newestMs, (row.trade_timestamp as Date).getTime());
      }
    }
    return numbers;
  }
  const look = () => since(newestMs - LOOK_BACK_MS);
  return {
    look,
    since,
    /** Resolves when there is a row that was traded later than any that was seen. */
    async next() {
      const endMs = now() + STALL_MS_MAX;
      for (const fromMs = newestMs; newestMs <= fromMs; await Bun.sleep(POLL_MS)) {
        if (now() > endMs) throw new Error("no row");
        await look();
      }
    },
    [Symbol.asyncDispose]: () => client.shutdown(),
  };
}

// ---- Starting

type StartTimes = Readonly<{ lineMs: number; rowMs: number }>;

/** Each process alone is stopped cleanly and started again, while trades come and everything else runs. */
async function starts(engines: Engines): Promise<Figure[]> {
  using directory = temporaryDirectory();
  await using sender = await startSender(START_RATE, START_RATE * START_SECONDS, 1);
  const settings = { ...(await settingsOf(engines, directory.path, sender.wsUrl)), LOG_LEVEL: "info" };
  const figures: Figure[] = [];
  await using rows = await openRows(engines, settings);
  await using started = new AsyncDisposableStack();
  const running = {
    processor: started.use(spawn(engines.binary("processor"), settings)),
    producer: started.use(spawn(engines.binary("producer"), settings)),
  };
  await rows.next();
  for (const name of ["processor", "producer"] as const) {
    const times: StartTimes[] = [];
    for (let run = 0; run < RUNS; run++) {
      await running[name].stop();
      // What was on its way when the producer stopped.
      for (let look = 0; look < 50; look++) await rows.look();
      const startedAtMs = now();
      running[name] = started.use(spawn(engines.binary(name), settings));
      const lineMs = (await running[name].firstLineAtMs) - startedAtMs;
      await rows.next();
      times.push({ lineMs, rowMs: now() - startedAtMs });
    }
    const figure = (what: string, of: (time: StartTimes) => number, atMost: number): Figure => ({
      name: `pipeline, ${name}, start to ${what}`,
      unit: "ms",
      ours: spreadOf(times.map(of)),
      floor: null,
      goal: { of: "ours", atMost },
      cpuSecondsPerMillion: null,
      rssBytes: null,
    });
    figures.push(
      figure("first log line", ({ lineMs }) => lineMs, 100),
      figure("first row", ({ rowMs }) => rowMs, 400),
    );
  }
  for (const process of Object.values(running)) await process.stop();
  return figures;
}

function spawn(binary: string, settings: Settings) {
  const ports = { PRODUCER_PORT: "0", PROCESSOR_PORT: "0" };
  mkdirSync(settings.DATA_DIR!, { recursive: true });
  const child = Bun.spawn([binary], {
    cwd: settings.DATA_DIR!,
    env: { HOME: settings.DATA_DIR!, ...ports, ...settings },
    stdout: "ignore",
    stderr: "pipe",
  });
  const line = Promise.withResolvers<number>();
  let said = "";
  void (async () => {
    for await (const bytes of child.stderr) {
      line.resolve(now());
      said += Buffer.from(bytes).toString();
    }
  })();
  return {
    firstLineAtMs: line.promise,
    async stop() {
      child.kill("SIGTERM");
      const code = await child.exited;
      if (code !== 0) throw new Error(`${binary} ended with ${code}\n${said}`);
    },
    [Symbol.asyncDispose]: () => ended(child),
  };
}

// ---- Doing nothing

async function idle(engines: Engines): Promise<Figure[]> {
  using directory = temporaryDirectory();
  // A feed that takes subscriptions and says nothing.
  using silent = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request, server) => (server.upgrade(request) ? undefined : new Response(null, { status: 400 })),
    websocket: { message() {} },
  });
  const wsUrl = `ws://127.0.0.1:${silent.port}`;
  const settings = await settingsOf(engines, directory.path, wsUrl);
  const figures: Figure[] = [];
  for (const name of ["producer", "processor"] as const) {
    const ours = await (async () => {
      await using process = await engines.start(name, settings);
      return await idleOf(process.pid);
    })();
    const bare = await engines.pipeline(directory.path);
    const floor = await (async () => {
      await using process = await engines.floor(`idle-${name}`, bare, { url: wsUrl });
      return await idleOf(process.pid);
    })();
    figures.push({
      name: `pipeline, idle ${name}`,
      unit: "% of a core",
      ours: ours.percent,
      floor: floor.percent,
      goal: { of: "difference", atMost: IDLE_POINTS_MAX },
      cpuSecondsPerMillion: null,
      rssBytes: ours.rssBytes,
      note: `connected, nothing comes; the floor's RSS ${mib(floor.rssBytes)} MiB`,
    });
  }
  return figures;
}

async function idleOf(pid: number) {
  await Bun.sleep(IDLE_SETTLE_SECONDS * 1_000);
  const percents: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const [cpu, atMs] = [cpuSecondsOf(pid), now()];
    await Bun.sleep(IDLE_SECONDS * 1_000);
    percents.push(((cpuSecondsOf(pid) - cpu) / ((now() - atMs) / 1_000)) * 100);
  }
  return { percent: spreadOf(percents), rssBytes: rssOf(pid) };
}
