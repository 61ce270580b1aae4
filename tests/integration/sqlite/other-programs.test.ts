// local, and another program that has its market.sqlite open: a writer that holds the lock, a reader that never ends, a
// hand that takes the file away. Receipt and /health wait for none of them, nothing is lost or doubled, and /health says
// what stands in the way. The real process, a real websocket, real locks.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { eventually, temporaryDirectory } from "../../support/builders.ts";
import { serveSockets } from "../../support/feed.ts";
import { LOCAL, type ServiceProcess, startService } from "../../support/processes.ts";
import { holdDatabase } from "../../support/sqlite-holder.ts";

const STEP_MS_MAX = 30_000;
/** The promises: of /health, of receipt, and what no trade may take. A busy machine gets some of it. */
const HEALTH_MS_MAX = 100;
const RECEIPT_P99_MS_MAX = 250;
const RECEIPT_MS_MAX = 1_000;
const TRADES = 655;
const HELD_MS = 20_000;
const MEBIBYTE = 1_024 ** 2;
/** Each has pages of its own, and each put writes them all: the write-ahead log grows fast. */
const SYMBOLS_MANY = 40;
const TRADES_PER_SECOND = 2_000;

const sleep = (durationMs: number) => new Promise<void>((resolve) => setTimeout(resolve, durationMs));

/** `local` on a feed that sends what it is told to. The price of a trade is its number. */
async function openPipeline(directory: string, symbolCount = 2) {
  const symbols = Array.from({ length: symbolCount }, (_, index) => `SYM${index}`);
  const sockets = serveSockets();
  const start = () =>
    startService(LOCAL, {
      DATA_DIR: directory,
      FINNHUB_API_TOKEN: "token-of-a-test",
      FINNHUB_WS_URL: sockets.url,
      FINNHUB_VALIDATE_TICKERS: "0",
      FINNHUB_STOCKS_TICKERS: JSON.stringify(symbols),
    });
  const sentAtMs: number[] = [];
  let process = await start();
  return {
    sentAtMs,
    get process() {
      return process;
    },
    async subscribed(nth = 1) {
      const connection = await sockets.connections.nth(nth);
      await connection.messages.nth(symbolCount);
    },
    send(count: number) {
      const connection = sockets.connections.all.at(-1)!;
      for (let sent = 0; sent < count; sent++) {
        const now = Date.now();
        const p = sentAtMs.push(now);
        const s = symbols[p % symbolCount];
        connection.send({ data: [{ c: null, p, s, t: now, v: 1 }], type: "trade" });
      }
    },
    async killAndStart() {
      await process.kill();
      process = await start();
    },
    async [Symbol.asyncDispose]() {
      await process[Symbol.asyncDispose]();
      await sockets[Symbol.asyncDispose]();
    },
  };
}

type Row = Readonly<{ price: number; ingest_timestamp: number }>;

function rowsIn(directory: string): Row[] {
  using db = new Database(join(directory, "market.sqlite"), { readonly: true });
  return db.query<Row, []>("SELECT price, ingest_timestamp FROM trades ORDER BY price").all();
}

function allStored(directory: string, count: number): Promise<void> {
  return eventually(STEP_MS_MAX, `${count} rows`, async () => rowsIn(directory).length >= count);
}

function received(process: ServiceProcess, count: number): Promise<void> {
  const metric = "feed_trades_received_total";
  return eventually(STEP_MS_MAX, `${count} received`, async () => (await process.metric(metric)) === count);
}

/** Each number once, received soon after it was sent. */
function expectReceived(directory: string, sentAtMs: readonly number[]): void {
  const rows = rowsIn(directory);
  expect(rows.map(({ price }) => price)).toEqual(sentAtMs.map((_, index) => index + 1));
  const lagsMs = rows.map((row) => row.ingest_timestamp - sentAtMs[row.price - 1]!).sort((a, b) => a - b);
  const p99 = lagsMs[Math.floor(lagsMs.length * 0.99)]!;
  console.log(`receipt: p99 ${p99} ms, most ${lagsMs.at(-1)} ms, of ${rows.length} trades`);
  expect(p99).toBeLessThan(RECEIPT_P99_MS_MAX);
  expect(lagsMs.at(-1)).toBeLessThan(RECEIPT_MS_MAX);
}

/** Asks for /health all the time, until it is stopped. */
function watchHealth(process: ServiceProcess) {
  const timesMs: number[] = [];
  const warnings = new Set<string>();
  const reasons = new Set<string>();
  let isStopped = false;
  const watching = (async () => {
    while (!isStopped) {
      const begunAt = performance.now();
      const { parts, reason } = await process.health();
      timesMs.push(performance.now() - begunAt);
      const { warning } = parts.store as unknown as Readonly<{ warning: string | null }>;
      if (warning !== null) warnings.add(warning);
      if (reason !== null) reasons.add(reason);
      await sleep(100);
    }
  })();
  return {
    warnings,
    reasons,
    async stop() {
      isStopped = true;
      await watching;
      timesMs.sort((a, b) => a - b);
      const p95 = timesMs[Math.floor(timesMs.length * 0.95)]!;
      console.log(`/health: p95 ${p95.toFixed(1)} ms, most ${timesMs.at(-1)?.toFixed(1)} ms`);
      expect(p95).toBeLessThan(HEALTH_MS_MAX);
      expect(timesMs.at(-1)).toBeLessThan(RECEIPT_MS_MAX);
    },
  };
}

/** After a stop every window is written, the open ones too: each trade is in three averages and in one candle. */
function expectAggregated(directory: string, tradeCount: number): void {
  using db = new Database(join(directory, "market.sqlite"), { readonly: true });
  const countOf = (query: string) => db.query<{ n: number }, []>(query).get()?.n;
  expect(countOf("SELECT sum(trade_count) AS n FROM running_averages_15_sec")).toBe(3 * tradeCount);
  expect(countOf("SELECT sum(trade_count) AS n FROM candles_1_min")).toBe(tradeCount);
  const wrong = `SELECT count(*) AS n FROM running_averages_15_sec w WHERE (trade_count, round(average_price, 6)) <>
    (SELECT count(*), round(avg(price), 6) FROM trades t WHERE t.symbol = w.symbol AND t.hour BETWEEN w.hour - 3600000
      AND w.hour AND t.trade_timestamp >= w.window_end - 15000 AND t.trade_timestamp < w.window_end)`;
  expect(countOf(wrong)).toBe(0);
}

test("while another program holds the write lock for 20 s, receipt and /health do not wait, and all is stored", async () => {
  using directory = temporaryDirectory();
  await using pipeline = await openPipeline(directory.path);
  await pipeline.subscribed();
  pipeline.send(5);
  await allStored(directory.path, 5);
  const health = watchHealth(pipeline.process);
  await using holder = await holdDatabase(directory.path, "BEGIN IMMEDIATE");
  const heldUntil = performance.now() + HELD_MS;
  while (performance.now() < heldUntil) {
    if (pipeline.sentAtMs.length < TRADES) pipeline.send(1);
    await sleep(25);
  }
  expect(rowsIn(directory.path).length).toBe(5);
  await holder.release();
  pipeline.send(TRADES - pipeline.sentAtMs.length);
  await allStored(directory.path, TRADES);
  await health.stop();

  const who = `another program \\(bun[^;]*, process ${holder.pid}\\)`;
  const warning = new RegExp(`^${who} has held the write lock of market\\.sqlite for \\d+ s: `);
  expect([...health.warnings].some((text) => warning.test(text))).toBe(true);
  const failing = new RegExp(`no progress for \\d+ s: ${who} holds the write lock of market\\.sqlite`);
  expect([...health.reasons].some((text) => failing.test(text))).toBe(true);
  await eventually(STEP_MS_MAX, "health again", async () => (await pipeline.process.health()).code === 200);
  expectReceived(directory.path, pipeline.sentAtMs);
  expect(await pipeline.process.stop()).toBe(0);
  expectAggregated(directory.path, TRADES);
}, 120_000);

test("a start finds the write lock taken: it receives at once, and stores when the lock is free", async () => {
  using directory = temporaryDirectory();
  await using pipeline = await openPipeline(directory.path);
  await pipeline.subscribed();
  await pipeline.process.stop();
  await using holder = await holdDatabase(directory.path, "BEGIN IMMEDIATE");
  await pipeline.killAndStart();
  await pipeline.subscribed(2);
  for (let number = 0; number < 20; number++) {
    pipeline.send(1);
    await sleep(20);
  }
  await received(pipeline.process, 20);
  await holder.release();
  await allStored(directory.path, 20);
  expectReceived(directory.path, pipeline.sentAtMs);
}, 60_000);

test("a reader that stays makes the -wal grow: /health says so, and with its end the file is small again", async () => {
  using directory = temporaryDirectory();
  await using pipeline = await openPipeline(directory.path, SYMBOLS_MANY);
  const sizeOfWal = () => statSync(join(directory.path, "market.sqlite-wal")).size;
  await pipeline.subscribed();
  pipeline.send(5);
  await allStored(directory.path, 5);
  const health = watchHealth(pipeline.process);
  await using reader = await holdDatabase(directory.path, "BEGIN", "SELECT count(*) FROM trades");
  const warning = new RegExp(
    `^another program \\(bun[^;]*, process ${reader.pid}\\) keeps a read transaction open since 20\\S+Z: ` +
      "market\\.sqlite-wal has grown to \\d+ MiB",
  );
  const isWarned = () => [...health.warnings].some((text) => warning.test(text));
  const sendUntil = (isEnough: () => boolean, name: string) =>
    eventually(STEP_MS_MAX, name, async () => {
      pipeline.send(SYMBOLS_MANY);
      await sleep(1_000 * (SYMBOLS_MANY / TRADES_PER_SECOND));
      return isEnough();
    });
  await sendUntil(() => isWarned() && sizeOfWal() > 64 * MEBIBYTE, "a warning");
  expect(await pipeline.process.metric("store_wal_bytes")).toBeGreaterThan(32 * MEBIBYTE);
  await reader.release();
  await sendUntil(() => sizeOfWal() < 8 * MEBIBYTE, "a small file while it goes on writing");
  await allStored(directory.path, pipeline.sentAtMs.length);
  await health.stop();
  expect([...health.reasons]).toEqual([]);
  await eventually(STEP_MS_MAX, "no warning", async () => {
    const { store } = (await pipeline.process.health()).parts;
    return (store as unknown as Readonly<{ warning: string | null }>).warning === null;
  });
  expectReceived(directory.path, pipeline.sentAtMs);
  const told = pipeline.process.stderr().match(/\) keeps a read transaction open/g) ?? [];
  expect(told.length).toBe(1);
  expect(await pipeline.process.stop()).toBe(0);
  expectAggregated(directory.path, pipeline.sentAtMs.length);
}, 120_000);

test("market.sqlite is taken away under the process: /health fails and says so, and nothing received since is lost", async () => {
  using directory = temporaryDirectory();
  await using pipeline = await openPipeline(directory.path);
  await pipeline.subscribed();
  pipeline.send(20);
  await allStored(directory.path, 20);
  for (const suffix of ["", "-wal", "-shm"]) {
    const path = join(directory.path, `market.sqlite${suffix}`);
    renameSync(path, `${path}.away`);
  }
  pipeline.send(20);
  await received(pipeline.process, 40);
  await eventually(STEP_MS_MAX, "a failing health", async () => {
    const { code, reason } = await pipeline.process.health();
    return code === 503 && reason?.includes("market.sqlite was deleted or replaced") === true;
  });
  await pipeline.killAndStart();
  const since = () => rowsIn(directory.path).flatMap(({ price }) => (price > 20 ? [price] : []));
  await eventually(STEP_MS_MAX, "the rest in the new file", async () => since().length >= 20);
  expect(since()).toEqual(Array.from({ length: 20 }, (_, index) => index + 21));
}, 60_000);
