// The tables of aggregates of market.sqlite: puts under the version rule, lists, and what the operator's verification
// needs beside them. A removed window leaves a row of trade_count 0 at the removal's version, as Cassandra leaves a
// tombstone: readers leave it out, and no put below that version brings the window back.

import { type Database, inTransaction, storing } from "../base/sqlite.ts";
import type {
  StoredWindow,
  StoreMender,
  StoreReader,
  StoreWriter,
  SymbolHour,
  TimeRange,
  WindowQuery,
} from "../contracts/store.ts";
import {
  AGGREGATES,
  type Aggregate,
  type AverageRow,
  aggregateOf,
  bucketOf,
  type CandleRow,
  SHAPES,
  type Value,
  valuesOf,
  type WindowKind,
  type WindowRow,
} from "../model/aggregates.ts";
import { dayOf, HOUR_MS, hourOf } from "../model/trade.ts";
import { storedAtMs, timeOfRow, type Window, windowVersion } from "../model/windows.ts";
import type { WriteLock } from "./write-lock.ts";

const SCAN_PAGE_ROWS = 5_000;
const HOURS_PAGE_ROWS = 500;

type Versioned<Row> = Row & { version: number };
/** The first hour held after that one, in the order of the table. */
type NextHour = (symbol: string, hour: number) => SymbolHour | null;

export function aggregatesOf(
  db: Database,
  lock: WriteLock,
): Pick<StoreWriter, "putWindows" | "putWindowAt" | "scanWindows"> &
  Pick<StoreReader, "listAverages" | "listCandles"> &
  StoreMender {
  const put = putter(db);
  const tables = hourTables(db);
  return {
    async putWindows(windows: readonly WindowRow[]): Promise<void> {
      await lock.write(() =>
        inTransaction(db, () => {
          for (const window of windows) put(window.kind, valuesOf(window), windowVersion(window));
        }),
      );
    },

    async putWindowAt({ window, version }: StoredWindow): Promise<void> {
      await lock.write(() => inTransaction(db, () => put(window.kind, valuesOf(window), version)));
    },

    async removeWindow(window: Window, version: number): Promise<void> {
      await lock.write(() => inTransaction(db, () => put(window.kind, traceOf(window), version)));
    },

    async listAverages(query, kind = "average") {
      return list<AverageRow>(db, aggregateOf(kind), query);
    },

    async listCandles(query, kind = "candle") {
      return list<CandleRow>(db, aggregateOf(kind), query);
    },

    scanWindows: (kind, symbol, range) => scanWindows(db, kind, symbol, range),

    async *scanHours({ fromMs, toMs }: TimeRange, symbol?: string): AsyncGenerator<readonly SymbolHour[]> {
      if (!(fromMs < toMs)) return;
      for (const next of tables) {
        let page: SymbolHour[] = [];
        for (const found of hoursOf(next, hourOf(fromMs), toMs, symbol)) {
          page.push(found);
          if (page.length < HOURS_PAGE_ROWS) continue;
          yield page;
          page = [];
        }
        if (page.length > 0) yield page;
      }
    },
  };
}

/** Takes the values of all columns, in their order. */
function putter(db: Database): (kind: WindowKind, values: readonly Value[], version: number) => void {
  const statements = new Map(
    AGGREGATES.map(({ kind, table, shape }) => {
      const names = [...SHAPES[shape].columns.map(({ name }) => name), "version"];
      const [, , , ...changing] = names;
      return [
        kind,
        db.query(
          `INSERT INTO ${table} (${names.join(", ")}) VALUES (${names.map(() => "?").join(", ")})
           ON CONFLICT DO UPDATE SET ${changing.map((name) => `${name} = excluded.${name}`).join(", ")}
           WHERE excluded.version >= version`,
        ),
      ];
    }),
  );
  return (kind, values, version) => {
    statements.get(kind)!.run(...values, version);
  };
}

/** What a removed window leaves behind: its key, and nothing traded. */
function traceOf(window: Window): Value[] {
  const { shape } = aggregateOf(window.kind);
  const atMs = storedAtMs(window);
  const [, , , ...columns] = SHAPES[shape].columns.map((column) => ("isNullable" in column ? null : 0));
  return [window.symbol, bucketOf(shape, atMs), atMs, ...columns];
}

function columnsOf({ shape }: Aggregate): string {
  return SHAPES[shape].columns.map(({ name }) => name).join(", ");
}

/** Newest first. The database keeps the prepared statement of each text. */
function list<Row>(db: Database, aggregate: Aggregate, { symbol, range, limit }: WindowQuery): Row[] {
  const { fromMs, toMs } = range;
  if (!(fromMs < toMs)) return [];
  const { shape, table } = aggregate;
  const { bucket, time } = SHAPES[shape];
  const query = db.query<Row, [string, Value, Value, number, number, number]>(
    `SELECT ${columnsOf(aggregate)} FROM ${table} WHERE symbol = ? AND ${bucket} BETWEEN ? AND ?
     AND ${time} >= ? AND ${time} < ? AND trade_count > 0 ORDER BY ${bucket} DESC, ${time} DESC LIMIT ?`,
  );
  const [first, last] = [bucketOf(shape, fromMs), bucketOf(shape, toMs - 1)];
  return storing(() => query.all(symbol, first, last, fromMs, toMs, limit));
}

function scanWindows(db: Database, kind: WindowKind, symbol: string, range: TimeRange) {
  const aggregate = aggregateOf(kind);
  return aggregate.shape === "average"
    ? scan<AverageRow>(db, aggregate, symbol, range, ({ version, ...row }) => ({
        window: { kind: aggregate.kind, row },
        version,
      }))
    : scan<CandleRow>(db, aggregate, symbol, range, ({ version, ...row }) => ({
        window: { kind: aggregate.kind, row },
        version,
      }));
}

/** By key, not by position: what is put meanwhile shifts nothing. */
async function* scan<Row>(
  db: Database,
  aggregate: Aggregate,
  symbol: string,
  { fromMs, toMs }: TimeRange,
  storedOf: (row: Versioned<Row>) => StoredWindow,
): AsyncGenerator<readonly StoredWindow[]> {
  const { shape, table } = aggregate;
  const { bucket, time } = SHAPES[shape];
  const query = db.query<Versioned<Row>, [string, Value, number, Value, number, number]>(
    `SELECT ${columnsOf(aggregate)}, version FROM ${table} WHERE symbol = ? AND (${bucket}, ${time}) > (?, ?)
     AND ${bucket} <= ? AND ${time} < ? AND trade_count > 0 ORDER BY ${bucket}, ${time} LIMIT ?`,
  );
  let [afterMs, isLast] = [fromMs - 1, !(fromMs < toMs)];
  while (!isLast) {
    const first = bucketOf(shape, Math.max(afterMs, fromMs));
    const last = bucketOf(shape, toMs - 1);
    const rows = storing(() => query.all(symbol, first, afterMs, last, toMs, SCAN_PAGE_ROWS));
    const page = rows.map(storedOf);
    if (page.length > 0) yield page;
    isLast = page.length < SCAN_PAGE_ROWS;
    const newest = page.at(-1)?.window;
    if (newest !== undefined) afterMs = timeOfRow(newest);
  }
}

function hourTables(db: Database): readonly NextHour[] {
  const afterHour = (table: string): NextHour => {
    const next = db.query<SymbolHour, [string, number]>(
      `SELECT symbol, hour FROM ${table} WHERE (symbol, hour) > (?, ?) ORDER BY symbol, hour LIMIT 1`,
    );
    return (symbol, hour) => next.get(symbol, hour);
  };
  const afterDay = (table: string, time: string): NextHour => {
    const next = db.query<{ symbol: string; atMs: number }, [string, string, number]>(
      `SELECT symbol, ${time} AS atMs FROM ${table} WHERE (symbol, day, ${time}) > (?, ?, ?)
       ORDER BY symbol, day, ${time} LIMIT 1`,
    );
    return (symbol, hour) => {
      const row = next.get(symbol, dayOf(hour), hour + HOUR_MS - 1);
      return row === null ? null : { symbol: row.symbol, hour: hourOf(row.atMs) };
    };
  };
  return [
    // Each put of trades names its hours there, and retention forgets them last.
    afterHour("trade_hours"),
    ...AGGREGATES.map(({ table, shape }) => {
      const { bucket, time } = SHAPES[shape];
      return bucket === "hour" ? afterHour(table) : afterDay(table, time);
    }),
  ];
}

/** Seeks from hour to hour: a table of millions of rows has some hundred of them. */
function* hoursOf(next: NextHour, firstHour: number, toMs: number, only?: string): Generator<SymbolHour> {
  let [symbol, hour] = [only ?? "", firstHour - HOUR_MS];
  for (;;) {
    const found = storing(() => next(symbol, hour));
    if (found === null || (only !== undefined && found.symbol !== only)) return;
    const isWithin = found.hour >= firstHour && found.hour < toMs;
    if (isWithin) yield found;
    // The first text after a symbol is the symbol with a zero behind it.
    symbol = found.hour < toMs ? found.symbol : `${found.symbol}\u0000`;
    hour = isWithin ? found.hour : firstHour - HOUR_MS;
  }
}
