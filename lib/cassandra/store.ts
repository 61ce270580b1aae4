// The store of the distributed mode: trades, aggregates and events on Cassandra. A put is one batch of one partition;
// how many run at once follows what the nodes can take, and nothing is ever dropped for it. Aggregates are written at
// their version, so that the fuller row wins without a lock. Dead letters are not kept here: they go to their topic.

import { chunkBy } from "../base/chunk.ts";
import type { Clock } from "../base/clock.ts";
import { RowRefusedError, StoreOverloadedError, StoreUnavailableError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import { type Metrics, startAtZero } from "../base/metrics.ts";
import type { StoreMender, StoreReader, StoreWriter } from "../contracts/store.ts";
import type { WindowRow } from "../model/aggregates.ts";
import type { DeadLetter } from "../model/dead-letter.ts";
import { DAY_MS, HOUR_MS, keptFromMs, type TradeRow } from "../model/trade.ts";
import { windowVersion } from "../model/windows.ts";
import type { Cassandra, Statement } from "./client.ts";
import { createConcurrencyLimiter, type Pressure } from "./concurrency-limiter.ts";
import { listsOf } from "./lists.ts";
import { dayKey, statementsFor, timeOf } from "./rows.ts";
import { scansOf } from "./scans.ts";
import { checkSchema } from "./schema.ts";

type CassandraStoreOptions = Readonly<{
  /** The store owns it: disposing the store closes it. */
  cassandra: Cassandra;
  keyspace: string;
  /** Only compared with the tables, which decide: `admin init` sets them. */
  retentionDays: number;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  /** Where dead letters go; its rejections are passed on. */
  putDead: (deadLetters: readonly DeadLetter[]) => Promise<void>;
}>;

export interface CassandraStore extends StoreWriter, StoreReader, StoreMender, AsyncDisposable {
  /** One small read at the configured consistency; rejects with StoreUnavailableError. For /health. */
  probe(): Promise<void>;
}

/** A batch of 50 was 72,000 rows a second, one of 20 58,000. */
const ROWS_PER_PUT_MAX = 50;
/** More in flight bought only latency. */
const PUTS_IN_FLIGHT_MAX = 16;
/**
 * For all putWindows and putEvents together, so that a trade's row waits behind so many of them at most. A trigger writes
 * some hundred small batches at once; with eight at once a row took twice as long for a tenth of a second.
 */
const WINDOW_BATCHES_AT_ONCE_MAX = 2;
const PROBE_TIMEOUT_MS = 3_000;
/** A row this fresh is written with the table's own TTL, and lives up to this much longer; aggregates a day. */
const FRESH_MS = HOUR_MS;
const NODE_CLOCK_AGE_MS_MAX = 60_000;

/** Rejects with SetupError ("run `admin init`") when the tables are not what this version needs. */
export async function openCassandraStore(options: CassandraStoreOptions): Promise<CassandraStore> {
  const { keyspace, retentionDays, clock, logger, metrics, putDead } = options;
  const { tradesTtlS } = await checkSchema(options.cassandra, keyspace);
  if (tradesTtlS * 1_000 !== retentionDays * DAY_MS) {
    logger.warn("the tables keep rows for another time than RETENTION_DAYS: run `admin init`", {
      tradesTtlS,
      retentionDays,
    });
  }
  const cassandra = countingFaults(options.cassandra, metrics);
  startAtZero(metrics.storeFaultsTotal, "reason", ["refused", "overloaded", "down", "other"]);
  startAtZero(metrics.storeRowsExpiredTotal, "table", ["trades", "feed_events"]);
  const limiter = createConcurrencyLimiter({
    limitMax: PUTS_IN_FLIGHT_MAX,
    pressureOf,
    onLimit(limit) {
      metrics.storeRequestsMax.set(limit);
      logger.debug("writes that may run at once", { limit });
    },
  });
  const statements = statementsFor(keyspace);
  const write = (batch: readonly Statement[]) => limiter.run(() => send(cassandra, batch));
  const writeAll = writerInBackground(write);
  const nodeNowMs = nodeClock(cassandra, clock);
  const unexpired = async <Row, Kept>(
    table: "trades" | "feed_events",
    rows: readonly Row[],
    receivedAtMs: (row: Row) => number,
    make: (row: Row, ttlS: number | undefined) => Kept,
  ): Promise<Kept[]> => {
    let nowMs = clock.now();
    if (tradesTtlS > 0 && rows.some((row) => nowMs - receivedAtMs(row) > FRESH_MS)) {
      nowMs = Math.min(nowMs, await nodeNowMs());
    }
    const kept = makeUnexpired(rows, receivedAtMs, make, nowMs, tradesTtlS);
    if (kept.length < rows.length) metrics.storeRowsExpiredTotal.inc({ table }, rows.length - kept.length);
    return kept;
  };

  return {
    ...listsOf(cassandra, keyspace, clock),
    ...scansOf(cassandra, keyspace),

    groupOf: ({ hour, symbol }: TradeRow) => `${hour} ${symbol}`,
    rowsPerPutMax: ROWS_PER_PUT_MAX,
    get putsInFlightMax() {
      return limiter.limit;
    },

    async putTrades(rows) {
      const keptFrom = (row: TradeRow) => keptFromMs(row.trade_timestamp, row.ingest_timestamp);
      const kept = await unexpired("trades", rows, keptFrom, statements.trade);
      if (kept.length > 0) await write(kept);
    },

    async putWindows(windows) {
      await writeAll(
        windows.map((window) => [partitionOf(window), statements.window(window, windowVersion(window))]),
      );
    },

    async putEvents(rows) {
      await writeAll(
        await unexpired(
          "feed_events",
          rows,
          ({ event_timestamp }) => event_timestamp,
          (row, ttlS) => [row.day, statements.event(row, ttlS)] as const,
        ),
      );
    },

    putDead,

    async putWindowAt({ window, version }) {
      await write([statements.window(window, version)]);
    },

    async removeWindow(window, version) {
      await write([statements.removal(window, version)]);
    },

    async probe() {
      const query = `SELECT type FROM ${keyspace}.feed_events WHERE day = ? LIMIT 1`;
      await cassandra.execute(query, [dayKey(clock.now())], { timeoutMs: PROBE_TIMEOUT_MS });
    },

    [Symbol.asyncDispose]: () => options.cassandra[Symbol.asyncDispose](),
  };
}

/**
 * The node's time. It is the node that lets rows expire, and our own clock may be ahead by weeks: it would give a row that
 * was just received no time to live. Asked at most once in NODE_CLOCK_AGE_MS_MAX.
 */
function nodeClock(cassandra: Cassandra, clock: Clock): () => Promise<number> {
  let known: { atMs: number; monotonicMs: number } | null = null;
  return async () => {
    const ageMs = clock.monotonic() - (known?.monotonicMs ?? Number.NEGATIVE_INFINITY);
    if (known !== null && ageMs <= NODE_CLOCK_AGE_MS_MAX) return known.atMs + ageMs;
    const { rows } = await cassandra.execute("SELECT toTimestamp(now()) AS node_time FROM system.local", []);
    const atMs = timeOf(rows[0]?.node_time);
    known = { atMs, monotonicMs: clock.monotonic() };
    return atMs;
  };
}

/** Writes statements that are in no hurry, a batch a partition, some batches at once; rejects when one of them fails. */
function writerInBackground(write: (batch: readonly Statement[]) => Promise<void>) {
  /** Of all calls together. It never narrows by itself: what it lets through waits for the limiter of all writes too. */
  const limiter = createConcurrencyLimiter({
    limitMax: WINDOW_BATCHES_AT_ONCE_MAX,
    pressureOf: () => null,
    onLimit() {},
  });
  return async (items: readonly (readonly [partition: string, Statement])[]): Promise<void> => {
    const batches = batchesOf(items);
    const workers = Array.from({ length: Math.min(WINDOW_BATCHES_AT_ONCE_MAX, batches.length) }, async () => {
      for (let batch = batches.pop(); batch !== undefined; batch = batches.pop()) {
        try {
          await limiter.run(() => write(batch));
        } catch (error) {
          batches.length = 0; // After a failure no further one is begun.
          throw error;
        }
      }
    });
    // All of them have ended when this does: nothing is written behind the caller's back.
    const failed = (await Promise.allSettled(workers)).find(({ status }) => status === "rejected");
    if (failed?.status === "rejected") throw failed.reason;
  };
}

async function send(cassandra: Cassandra, batch: readonly Statement[]): Promise<void> {
  const [first] = batch;
  // A batch of one costs the node more than the statement alone.
  if (first !== undefined && batch.length === 1) await cassandra.execute(first.query, first.params);
  else await cassandra.batch(batch);
}

/** Batches of one partition and at most ROWS_PER_PUT_MAX rows. */
function batchesOf(items: readonly (readonly [partition: string, Statement])[]): Statement[][] {
  const batches = chunkBy(items, ([partition]) => partition, ROWS_PER_PUT_MAX);
  return batches.map((batch) => batch.map(([, statement]) => statement));
}

function partitionOf(window: WindowRow): string {
  const { kind, row } = window;
  return `${kind} ${"day" in row ? row.day : row.hour} ${row.symbol}`;
}

/** What is made of the rows that have still to live, with the TTL that is left to each of them. */
function makeUnexpired<Row, Kept>(
  rows: readonly Row[],
  receivedAtMs: (row: Row) => number,
  make: (row: Row, ttlS: number | undefined) => Kept,
  nowMs: number,
  tableTtlS: number,
): Kept[] {
  const kept: Kept[] = [];
  for (const row of rows) {
    const ttlS = remainingTtlS(receivedAtMs(row), nowMs, tableTtlS);
    if (ttlS !== "expired") kept.push(make(row, ttlS));
  }
  return kept;
}

/**
 * How long a row has still to live, counted from its receipt: undefined = as long as the table says. It must not be
 * written once that is over, since a TTL of 0 would mean for ever. A table without a TTL keeps everything.
 */
function remainingTtlS(
  receivedAtMs: number,
  nowMs: number,
  tableTtlS: number,
): number | undefined | "expired" {
  if (tableTtlS === 0 || nowMs - receivedAtMs <= FRESH_MS) return undefined;
  const remainingS = Math.ceil((receivedAtMs - nowMs) / 1_000) + tableTtlS;
  // Not the other way round: NaN must be refused as a row, not taken for old.
  return remainingS <= 0 ? "expired" : remainingS;
}

function pressureOf(error: unknown): Pressure {
  if (error instanceof StoreOverloadedError) return "overloaded";
  return error instanceof StoreUnavailableError ? "down" : null;
}

/** The same connection, whose failures are counted. */
function countingFaults(cassandra: Cassandra, metrics: Metrics): Cassandra {
  const counted = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      const reason = error instanceof RowRefusedError ? "refused" : pressureOf(error);
      metrics.storeFaultsTotal.inc({ reason: reason ?? "other" });
      throw error;
    }
  };
  return {
    ...cassandra,
    execute: (query, params, options) => counted(cassandra.execute(query, params, options)),
    batch: (statements) => counted(cassandra.batch(statements)),
  };
}
