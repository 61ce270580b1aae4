// The store of the embedded mode: market.sqlite, with the tables and columns of the distributed one. Every put
// is one transaction. The file stays readable by other processes while this one writes. It also keeps how far
// the log is stored, because a power cut must not part the two.

import { join } from "node:path";
import sql from "../../sql/market.sql" with { type: "text" };
import { type Clock, systemClock } from "../base/clock.ts";
import { type Logger, silentLogger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import {
  type Database,
  inTransaction,
  openDatabase,
  type SyncMode,
  setSync,
  storing,
} from "../base/sqlite.ts";
import type { Position } from "../contracts/log.ts";
import type { StoreMender, StoreReader, StoreWriter, TimeRange, TradeQuery } from "../contracts/store.ts";
import type { Watchlist } from "../contracts/watchlist.ts";
import type { StoreSnapshot } from "../health/store.ts";
import type { DeadLetter } from "../model/dead-letter.ts";
import { dayOf, type FeedEventRow, HOUR_MS, hourOf, keptFromMs, type TradeRow } from "../model/trade.ts";
import { aggregatesOf } from "./aggregates.ts";
import { dropReceivedBefore, retentionNowMs } from "./retention.ts";
import { createWalKeeper, syncFile } from "./wal.ts";
import { openWatchlistTable } from "./watchlist.ts";
import { createWriteLock, type WriteLock } from "./write-lock.ts";

type SqliteStoreOptions = Readonly<{
  directory: string;
  sync: SyncMode;
  clock?: Clock;
  logger?: Logger;
  metrics?: Metrics;
}>;

/** As the log's reader needs it (outbox/reader.ts). `check` may throw, and is called before each attempt. */
type CommitStore = Readonly<{
  load(logId: string): Position | null;
  save(logId: string, position: Position, check?: () => void): Promise<void>;
}>;

export interface SqliteStore extends StoreWriter, StoreReader, StoreMender, Disposable {
  /** Which symbols are on the watchlist: in embedded mode nobody else writes it. */
  readonly watchlist: Watchlist;
  readonly commits: CommitStore;
  /** Syncs what was written so far beside the event loop, so that the sync of a commit has little left to wait for. */
  syncEarly(): Promise<void>;
  /** What /health needs to know: who holds up writing, and how large the write-ahead log is. */
  health(): StoreSnapshot;
  /** To be called every other second while a service runs: keeps the write-ahead log small. */
  keepWalSmall(): Promise<void>;
  /**
   * Drops one slice of what was received before the cutoff; false when nothing is left to drop. An hour of a
   * symbol goes as a whole, with its aggregates, once its last row is old enough.
   */
  dropReceivedBefore(cutoffMs: number): boolean;
  /** The time from which a cutoff is counted back: now, or the newest trade where that is earlier. */
  retentionNowMs(nowMs: number): number;
  scanReceived(sinceMs: number | null): AsyncIterable<readonly TradeRow[]>;
  /** Every dead letter, in the order in which they were written. */
  scanDead(): AsyncIterable<DeadLetter>;
}

/** One transaction of rows takes about 5 ms. */
const ROWS_PER_PUT_MAX = 2_000;
const SCAN_PAGE_ROWS = 5_000;
/** Entries of a cache without which each put would write trade_hours. */
const KEPT_HOURS_MAX = 20_000;

/** Throws SetupError when the file cannot be used, and StoreUnavailableError while another program keeps it locked. */
export function openSqliteStore(options: SqliteStoreOptions): SqliteStore {
  const { directory, sync, clock = systemClock, logger = silentLogger, metrics } = options;
  const path = join(directory, "market.sqlite");
  const db = openDatabase({ path, sync, schema: sql, exclusive: false });
  const lock = createWriteLock({ db, path, clock });
  const wal = createWalKeeper({ db, path, lock, clock, logger, metrics });
  /** Hours of symbols (as in trade_hours) and until when they are known to be kept. */
  const keptHours = new Map<string, number>();
  return {
    ...tradeWriter(db, lock, keptHours),
    ...aggregatesOf(db, lock),
    ...sideWriter(db, lock),
    ...reader(db),
    watchlist: openWatchlistTable(db, sync, lock),
    commits: commitStore(db, sync, lock),
    syncEarly: () => syncFile(`${path}-wal`),
    health: () => ({ ...lock.health(), ...wal.health() }),
    async keepWalSmall() {
      lock.probe();
      await wal.look();
    },
    dropReceivedBefore(cutoffMs) {
      keptHours.clear();
      lock.check();
      return storing(() => dropReceivedBefore(db, cutoffMs));
    },
    retentionNowMs: (nowMs) => storing(() => retentionNowMs(db, nowMs)),
    [Symbol.dispose]() {
      wal[Symbol.dispose]();
      db.close();
    },
  };
}

function tradeWriter(db: Database, lock: WriteLock, keptHours: Map<string, number>) {
  // A stored row with this key is the same row: its key is its identity.
  const insert = db.query("INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING");
  const keepHour = db.query(
    "INSERT INTO trade_hours VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET ingested_until = max(ingested_until, excluded.ingested_until)",
  );
  const first = db.query("SELECT 1 FROM trades LIMIT 1");
  const hours = db.query<{ hour: number }, [string, number, number]>(
    "SELECT hour FROM trade_hours WHERE symbol = ? AND hour >= ? AND hour < ? ORDER BY hour",
  );
  // With one hour given by equality the key seeks; with a range of hours each page would scan its first hour.
  const page = db.query<TradeRow, [string, number, number, string, number, number]>(
    `SELECT * FROM trades WHERE symbol = ? AND hour = ? AND (trade_timestamp, uuid) > (?, ?) AND trade_timestamp < ?
     ORDER BY trade_timestamp, uuid LIMIT ?`,
  );

  const newestHour = db.query<{ until: number | null }, []>(
    "SELECT max(ingested_until) AS until FROM trade_hours",
  );
  const receivedHours = db.query<{ symbol: string; hour: number }, [number]>(
    "SELECT symbol, hour FROM trade_hours WHERE ingested_until >= ?",
  );

  /** By key, not by position: what is put meanwhile shifts nothing. */
  async function* scan(symbol: string, fromMs: number, toMs: number): AsyncGenerator<readonly TradeRow[]> {
    for (const { hour } of storing(() => hours.all(symbol, hourOf(fromMs), toMs))) {
      let [afterMs, afterUuid, isLast] = [fromMs, "", false];
      while (!isLast) {
        const rows = storing(() => page.all(symbol, hour, afterMs, afterUuid, toMs, SCAN_PAGE_ROWS));
        if (rows.length > 0) yield rows;
        isLast = rows.length < SCAN_PAGE_ROWS;
        const last = rows.at(-1);
        if (last !== undefined) [afterMs, afterUuid] = [last.trade_timestamp, last.uuid];
      }
    }
  }

  return {
    rowsPerPutMax: ROWS_PER_PUT_MAX,
    putsInFlightMax: 1,
    groupOf: () => "",

    async putTrades(rows: readonly TradeRow[]): Promise<void> {
      const news = await lock.write(() =>
        inTransaction(db, () => {
          // At each attempt: what is kept may have been forgotten since the one before.
          const found = newReceipts(rows, keptHours);
          for (const row of rows) {
            const { symbol, hour, trade_timestamp, uuid, price, volume, trade_conditions, ingest_timestamp } =
              row;
            insert.run(
              symbol,
              hour,
              trade_timestamp,
              uuid,
              price,
              volume,
              trade_conditions,
              ingest_timestamp,
            );
          }
          for (const { symbol, hour, until } of found.values()) keepHour.run(symbol, hour, until);
          return found;
        }),
      );
      // Known only once it is committed.
      for (const [key, { until }] of news) keptHours.set(key, until);
      if (keptHours.size > KEPT_HOURS_MAX) keptHours.clear();
    },

    async isEmpty(): Promise<boolean> {
      return storing(() => first.get() === null);
    },

    scanTrades: (symbol: string, { fromMs, toMs }: TimeRange) => scan(symbol, fromMs, toMs),
    async *scanReceived(sinceMs: number | null): AsyncGenerator<readonly TradeRow[]> {
      const newest = storing(() => newestHour.get())?.until ?? 0;
      const since = sinceMs ?? newest - 2 * HOUR_MS;
      for (const { symbol, hour } of storing(() => receivedHours.all(since))) {
        for await (const rows of scan(symbol, hour, hour + HOUR_MS)) {
          const received = rows.filter(({ ingest_timestamp }) => ingest_timestamp >= since);
          if (received.length > 0) yield received;
        }
      }
    },
  };
}

/**
 * The hours of symbols that these rows keep for longer than is known: the latest receipt (keptFromMs), rounded up to
 * the hour so that an hour is written once an hour and not with each put.
 */
function newReceipts(rows: readonly TradeRow[], keptHours: ReadonlyMap<string, number>) {
  const news = new Map<string, { symbol: string; hour: number; until: number }>();
  let last: { symbol: string; hour: number; keptFrom: number } | undefined;
  for (const row of rows) {
    const { symbol, hour, trade_timestamp, ingest_timestamp } = row;
    const keptFrom = keptFromMs(trade_timestamp, ingest_timestamp);
    // The rows of a message stand together and have the same receipt.
    if (last?.symbol === symbol && last.hour === hour && last.keptFrom === keptFrom) continue;
    last = { symbol, hour, keptFrom };
    const key = `${hour} ${symbol}`;
    const until = hourOf(keptFrom) + HOUR_MS;
    if (until > (news.get(key)?.until ?? keptHours.get(key) ?? 0)) news.set(key, { symbol, hour, until });
  }
  return news;
}

function sideWriter(db: Database, lock: WriteLock): Pick<SqliteStore, "putEvents" | "putDead" | "scanDead"> {
  const putEvent = db.query("INSERT INTO feed_events VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING");
  const putDeadLetter = db.query("INSERT INTO dead VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING");
  type StoredDeadLetter = Omit<DeadLetter, "receivedAtMs"> & { rowid: number; received_at: number };
  // One at a time: a dead letter may be a frame of many MB.
  const nextDeadLetter = db.query<StoredDeadLetter, [number]>(
    "SELECT rowid, * FROM dead WHERE rowid > ? ORDER BY rowid LIMIT 1",
  );
  return {
    async putEvents(rows) {
      await lock.write(() =>
        inTransaction(db, () => {
          for (const { day, event_timestamp, session, sequence, type, detail } of rows) {
            putEvent.run(day, event_timestamp, session, sequence, type, detail);
          }
        }),
      );
    },
    async putDead(deadLetters) {
      await lock.write(() =>
        inTransaction(db, () => {
          for (const { session, sequence, item, receivedAtMs, reason, source, payload } of deadLetters) {
            putDeadLetter.run(session, sequence, item, receivedAtMs, reason, source, payload);
          }
        }),
      );
    },
    async *scanDead() {
      let after = Number.MIN_SAFE_INTEGER;
      for (;;) {
        const row = storing(() => nextDeadLetter.get(after));
        if (row === null) return;
        const { rowid, received_at: receivedAtMs, ...deadLetter } = row;
        after = rowid;
        yield { ...deadLetter, receivedAtMs };
      }
    },
  };
}

function reader(db: Database): Pick<StoreReader, "listTrades" | "listEvents"> {
  // Both ends are rows of the key, so that the key seeks to them: an hour may hold millions of trades, and a bound on
  // its hour alone would walk through those beyond the page while everything else in the process waits.
  const trades = db.query<TradeRow, [string, number, number, number, number, string, number]>(
    `SELECT * FROM trades WHERE symbol = ? AND (hour, trade_timestamp) >= (?, ?)
     AND (hour, trade_timestamp, uuid) < (?, ?, ?) ORDER BY hour DESC, trade_timestamp DESC, uuid DESC LIMIT ?`,
  );
  const events = db.query<FeedEventRow, [string, string, number, number, number]>(
    `SELECT * FROM feed_events WHERE day BETWEEN ? AND ? AND event_timestamp >= ? AND event_timestamp < ?
     ORDER BY day DESC, event_timestamp DESC, session DESC, sequence DESC LIMIT ?`,
  );
  const isNothing = ({ fromMs, toMs }: TimeRange) => !(fromMs < toMs);
  return {
    async listTrades({ symbol, range, limit, before }: TradeQuery) {
      if (isNothing(range)) return [];
      const { fromMs, toMs } = range;
      // No UUID is smaller than "", so without `before` the page begins just below toMs.
      const [atMs, uuid] =
        before && before.trade_timestamp < toMs ? [before.trade_timestamp, before.uuid] : [toMs, ""];
      return storing(() => trades.all(symbol, hourOf(fromMs), fromMs, hourOf(atMs), atMs, uuid, limit));
    },
    async listEvents({ range, limit }) {
      if (isNothing(range)) return [];
      const { fromMs, toMs } = range;
      return storing(() => events.all(dayOf(fromMs), dayOf(toMs - 1), fromMs, toMs, limit));
    },
  };
}

function commitStore(db: Database, sync: SyncMode, lock: WriteLock): CommitStore {
  const load = db.query<Position, [string]>("SELECT offset, metadata FROM commits WHERE log_id = ?");
  const save = db.query("INSERT OR REPLACE INTO commits VALUES (?, ?, ?)");
  return {
    load: (logId) => storing(() => load.get(logId)),
    async save(logId, { offset, metadata }, check) {
      await lock.write(() => {
        check?.();
        // The log deletes below this as soon as it returns, so it is synced, and with it all that the same
        // write-ahead log holds before it: the rows and windows that the commit speaks of.
        setSync(db, "full");
        try {
          save.run(logId, offset, metadata);
        } finally {
          setSync(db, sync);
        }
      });
    },
  };
}
