// Question: how long does each query of Grafana's market dashboard take, asked every 500 ms as a viewer's Grafana asks
// (all panels at once), with 5 million trades in the tables, half of them of the symbol that is looked at, while 1,000
// trades a second are written? The node runs with what compose.yaml gives it; the answers are taken as the plugin does.

import cassandra from "cassandra-driver";
import market from "../grafana/dashboards/market.json" with { type: "json" };
import { systemClock } from "../lib/base/clock.ts";
import { applySchema } from "../lib/cassandra/schema.ts";
import { connectTo } from "../tests/support/cassandra.ts";
import { cassandraFlags, readCompose } from "../tests/support/compose.ts";
import { ask, cqlOf, type Target } from "../tests/support/grafana-plugin.ts";
import { clientOptions, DATACENTER, startCassandra } from "../tests/support/services/cassandra.ts";
import { type Figure, quantile, RUNS, spreadOf } from "./measure.ts";

const TRADES = 5_000_000;
/** So many hours hold them, this one and the ones before. */
const HOURS = 3;
const SYMBOL = "BINANCE:BTCUSDT";
const SYMBOLS = [SYMBOL, "BINANCE:ETHUSDT", "AAPL", "AMZN", "MSFT", "TSLA"];
/** Of all trades. */
const SYMBOL_SHARE = 0.5;
const LIVE_TRADES_PER_SECOND = 1_000;
const LIVE_EVERY_MS = 20;
const REFRESH_MS = 500;
/** Of each run; and before them, uncounted: statements are prepared, caches fill. */
const REFRESHES = 40;
const WARM_UP_REFRESHES = 20;
const BATCH_ROWS = 50;
const BATCHES_IN_FLIGHT = 12;
/** A node that is asked too much says so: the same rows again, a little later. */
const ATTEMPTS_MAX = 20;
const RETRY_MS = 1_000;
const GOAL_MS = 100;
const HOUR_MS = 3_600_000;
const KEYSPACE = "bench";

type Asked = { name: string; target: Target; tookMs: number[][] };

export async function grafana(isShort: boolean): Promise<Figure[]> {
  await using node = await startCassandra({
    isOptimized: true,
    jvm: cassandraFlags(readCompose({}), "127.0.0.1"),
  });
  {
    await using schema = await connectTo(node);
    await applySchema({
      cassandra: schema,
      keyspace: KEYSPACE,
      datacenter: DATACENTER,
      replicationFactor: 1,
      retentionDays: 30,
      clock: systemClock,
    });
  }
  const client = new cassandra.Client({
    ...clientOptions(node.port),
    keyspace: KEYSPACE,
    // A node that is loaded like this may stand still for some seconds.
    socketOptions: { readTimeout: 30_000 },
  });
  const viewer = new cassandra.Client({ ...clientOptions(node.port), keyspace: KEYSPACE });
  try {
    await Promise.all([client.connect(), viewer.connect()]);
    const count = isShort ? TRADES / 5 : TRADES;
    const startedAt = performance.now();
    await load(client, count);
    const loadS = (performance.now() - startedAt) / 1_000;

    const questions: Asked[] = [
      ...market.panels.flatMap(({ title, targets }) =>
        targets.map((target) => ({ name: `${title} ${target.refId}`, target: target as Target, tookMs: [] })),
      ),
      ...market.annotations.list.map(({ target }) => ({
        name: "Gaps",
        target: target as Target,
        tookMs: [],
      })),
    ];
    const over = new AbortController();
    const live = writeLive(client, over.signal);
    let rowCount = 0;
    for (let refresh = -WARM_UP_REFRESHES; refresh < RUNS * REFRESHES; refresh++) {
      const dueAt = performance.now() + REFRESH_MS;
      const run = Math.floor(refresh / REFRESHES);
      await Promise.all(
        questions.map(async ({ target, tookMs }) => {
          const askedAt = performance.now();
          const frames = await ask(viewer, cqlOf(target, { symbol: SYMBOL }, { fromMs: 0, toMs: 0 }));
          const took = performance.now() - askedAt;
          rowCount += frames[0]?.fields[0]?.values.length ?? 0;
          if (run < 0) return;
          tookMs[run] ??= [];
          tookMs[run].push(took);
        }),
      );
      await Bun.sleep(Math.max(0, dueAt - performance.now()));
    }
    over.abort();
    const written = await live;
    if (rowCount === 0) throw new Error("no question had an answer");

    return questions.map(({ name, tookMs }): Figure => {
      const sorted = (values: readonly number[]) => values.toSorted((a, b) => a - b);
      const all = sorted(tookMs.flat());
      const p50 = quantile(all, 0.5).toFixed(1);
      const p99 = quantile(all, 0.99).toFixed(1);
      return {
        name: `grafana, ${name}, p99`,
        unit: "ms",
        ours: spreadOf(tookMs.map((run) => quantile(sorted(run), 0.99))),
        floor: null,
        goal: { of: "ours", atMost: GOAL_MS },
        cpuSecondsPerMillion: null,
        rssBytes: null,
        note:
          `p50 ${p50} ms, p99 ${p99} ms of ${all.length} answers; ${count.toLocaleString("en-US")} trades in the ` +
          `tables (loaded in ${loadS.toFixed(0)} s), ${Math.round(written)} trades/s written meanwhile`,
      };
    });
  } finally {
    await Promise.all([client.shutdown(), viewer.shutdown()]);
  }
}

const INSERT_TRADE =
  "INSERT INTO trades (symbol, hour, trade_timestamp, uuid, price, volume, trade_conditions, ingest_timestamp) " +
  "VALUES (?, ?, ?, ?, ?, ?, ?, ?)";

let uuidCount = 0;

function tradeRow(symbol: string, atMs: number): unknown[] {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(atMs, 0, 6);
  bytes.writeUInt32BE(uuidCount++, 12);
  const price = 60_000 + (uuidCount % 1_000);
  const uuid = new cassandra.types.Uuid(bytes);
  return [symbol, hourOf(atMs), new Date(atMs), uuid, price, 0.01, "[]", new Date(atMs + 80)];
}

function hourOf(timeMs: number): Date {
  return new Date(timeMs - (timeMs % HOUR_MS));
}

/** Trades evenly over the hours up to now, their windows and candles, and a day's events. */
async function load(client: cassandra.Client, count: number): Promise<void> {
  const nowMs = Date.now();
  const spanMs = HOURS * HOUR_MS;
  const work: (() => Promise<unknown>)[] = [];
  for (const [index, symbol] of SYMBOLS.entries()) {
    const share = index === 0 ? SYMBOL_SHARE : (1 - SYMBOL_SHARE) / (SYMBOLS.length - 1);
    const rows = Math.round(count * share);
    for (let from = 0; from < rows; from += BATCH_ROWS) {
      work.push(() => {
        const times = Array.from({ length: Math.min(BATCH_ROWS, rows - from) }, (_, i) =>
          Math.floor(nowMs - spanMs + ((from + i) / rows) * spanMs),
        );
        // A batch is of one partition: the one that holds the full hour is cut there.
        const hours = Map.groupBy(times, (timeMs) => Number(hourOf(timeMs)));
        return Promise.all([...hours.values()].map((part) => insertTrades(client, symbol, part)));
      });
    }
    for (let endMs = nowMs - (nowMs % 5_000); endMs > nowMs - HOUR_MS; endMs -= 5_000)
      work.push(() => insertWindow(client, symbol, endMs));
    for (let startMs = nowMs - (nowMs % 60_000); startMs > nowMs - 7 * 24 * HOUR_MS; startMs -= 60_000)
      work.push(() => insertCandle(client, symbol, startMs));
  }
  for (let index = 0; index < 200; index++)
    work.push(() => insertEvent(client, nowMs - index * 50_000, index));

  let next = 0;
  const worker = async () => {
    while (next < work.length) await again(work[next++]!);
  };
  await Promise.all(Array.from({ length: BATCHES_IN_FLIGHT }, worker));
}

async function again(work: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const fault = await work().then(
      () => null,
      (error: unknown) => error,
    );
    if (fault === null) return;
    if (attempt === ATTEMPTS_MAX) throw fault;
    await Bun.sleep(RETRY_MS);
  }
}

function insertTrades(client: cassandra.Client, symbol: string, times: readonly number[]) {
  const queries = times.map((timeMs) => ({ query: INSERT_TRADE, params: tradeRow(symbol, timeMs) }));
  return client.batch(queries, { prepare: true, logged: false });
}

function insertWindow(client: cassandra.Client, symbol: string, endMs: number) {
  return client.execute(
    "INSERT INTO running_averages_15_sec (symbol, hour, window_end, price_volume_multiply, average_price, vwap, " +
      "volume, trade_count) VALUES (?, ?, ?, 600.5, 60000.5, 60000.4, 12.5, 1500)",
    [symbol, hourOf(endMs), new Date(endMs)],
    { prepare: true },
  );
}

function insertCandle(client: cassandra.Client, symbol: string, startMs: number) {
  return client.execute(
    "INSERT INTO candles_1_min (symbol, day, window_start, open, high, low, close, volume, price_volume_sum, vwap, " +
      "trade_count) VALUES (?, ?, ?, 1.5, 4.5, 0.5, 2.5, 9.5, 9.5, 9.5, 9)",
    [symbol, cassandra.types.LocalDate.fromDate(new Date(startMs)), new Date(startMs)],
    { prepare: true },
  );
}

function insertEvent(client: cassandra.Client, atMs: number, index: number) {
  return client.execute(
    "INSERT INTO feed_events (day, event_timestamp, session, sequence, type, detail) VALUES (?, ?, ?, ?, ?, ?)",
    [
      cassandra.types.LocalDate.fromDate(new Date(atMs)),
      new Date(atMs),
      "0000002a",
      index,
      index % 2 === 0 ? "disconnected" : "connected",
      "{}",
    ],
    { prepare: true },
  );
}

/** As the processors write: what came in a tick as a batch of one symbol, windows every 5 s. Trades a second. */
async function writeLive(client: cassandra.Client, signal: AbortSignal): Promise<number> {
  const startedAt = performance.now();
  let written = 0;
  let nextWindowMs = Date.now();
  for (let tick = 0; !signal.aborted; tick++) {
    const due = Math.floor(((performance.now() - startedAt) / 1_000) * LIVE_TRADES_PER_SECOND) - written;
    const nowMs = Date.now();
    const symbol = SYMBOLS[tick % 2 === 0 ? 0 : 1 + (tick % (SYMBOLS.length - 1))]!;
    const times = Array.from({ length: Math.min(due, 500) }, () => nowMs);
    if (times.length > 0) await again(() => insertTrades(client, symbol, times));
    written += times.length;
    if (nowMs >= nextWindowMs) {
      nextWindowMs = nowMs + 5_000;
      const endMs = nowMs - (nowMs % 5_000);
      await again(() => Promise.all(SYMBOLS.map((one) => insertWindow(client, one, endMs))));
      const startMs = nowMs - (nowMs % 60_000);
      await again(() => Promise.all(SYMBOLS.map((one) => insertCandle(client, one, startMs))));
    }
    await Bun.sleep(LIVE_EVERY_MS);
  }
  return written / ((performance.now() - startedAt) / 1_000);
}
