// The floors: what the bare library does in a plain loop, as fast as we know how. No line of lib is here and none
// is imported, so that nothing which slows the pipeline slows its measure too. Whoever finds a faster loop
// replaces one of these: slowing a floor is a defect.

import { Database } from "bun:sqlite";
import type { Type } from "avsc";

/** The rows as a statement takes them, in the order of the columns. */
export type BareRow = readonly [
  symbol: string,
  hour: number,
  tradeTimestamp: number,
  uuid: string,
  price: number,
  volume: number,
  conditions: string | null,
  ingestTimestamp: number,
];
type BareFrame = Readonly<{ type: string; data: readonly BareTrade[] }>;
type BareTrade = Readonly<{ p: number; s: string; t: number; v: number; c?: readonly string[] | null }>;

/** The key is that of the real table: it decides what an insert costs, and what can be asked of the rows. */
export const TRADES_TABLE = `CREATE TABLE IF NOT EXISTS trades (
  symbol TEXT NOT NULL, hour INTEGER NOT NULL, trade_timestamp INTEGER NOT NULL, uuid TEXT NOT NULL,
  price REAL NOT NULL, volume REAL NOT NULL, trade_conditions TEXT, ingest_timestamp INTEGER NOT NULL,
  PRIMARY KEY (symbol, hour, trade_timestamp, uuid)) WITHOUT ROWID`;
/** One row a statement: 50 rows in one took 2.5 times as long, for the arguments. */
export const INSERT_TRADE = "INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
export const OUTBOX_TABLE = "CREATE TABLE IF NOT EXISTS records (offset INTEGER PRIMARY KEY, value BLOB)";
const HOUR_MS = 3_600_000;

/** Text -> values. Nothing is checked but that the fields can be reached. */
export function parseFloor(texts: readonly string[]): number {
  let sum = 0;
  for (const text of texts) {
    const { type, data } = JSON.parse(text) as BareFrame;
    if (type !== "trade") continue;
    for (const { p, v, t, s } of data) sum += p * v + t + s.length;
  }
  return sum;
}

export function encodeFloor(type: Type, records: readonly object[]): number {
  let bytes = 0;
  for (const record of records) bytes += type.toBuffer(record).length;
  return bytes;
}

export function decodeFloor(type: Type, encoded: readonly Buffer[]): number {
  let count = 0;
  for (const bytes of encoded) count += (type.fromBuffer(bytes) as { data: unknown[] }).data.length;
  return count;
}

export function openBare(path: string, table: string, isAlone: boolean): Database {
  const db = new Database(path, { create: true, readwrite: true });
  if (isAlone) db.run("PRAGMA locking_mode = EXCLUSIVE");
  db.run("PRAGMA journal_mode = WAL");
  db.run("PRAGMA synchronous = NORMAL");
  db.run(table);
  return db;
}

/** Append, read back, delete: each step one transaction of so many values. */
export function outboxFloor(db: Database, values: readonly Uint8Array[], perAppend: number): number {
  const insert = db.query("INSERT INTO records (value) VALUES (?)");
  const select = db.query<unknown, [number]>("SELECT offset, value FROM records WHERE offset > ?");
  const remove = db.query("DELETE FROM records WHERE offset <= ?");
  let last = 0;
  let bytes = 0;
  for (let from = 0; from < values.length; from += perAppend) {
    db.run("BEGIN");
    for (const value of values.slice(from, from + perAppend)) insert.run(value);
    db.run("COMMIT");
    for (const [offset, value] of select.values(last) as [number, Uint8Array][]) {
      last = offset;
      bytes += value.length;
    }
    remove.run(last);
  }
  return bytes;
}

export function storeFloor(db: Database, rows: readonly BareRow[], perPut: number): void {
  const insert = db.query(INSERT_TRADE);
  for (let from = 0; from < rows.length; from += perPut) {
    db.run("BEGIN");
    const end = Math.min(rows.length, from + perPut);
    for (let at = from; at < end; at++) {
      const [symbol, hour, tradedAt, uuid, price, volume, conditions, receivedAt] = rows[at]!;
      insert.run(symbol, hour, tradedAt, uuid, price, volume, conditions, receivedAt);
    }
    db.run("COMMIT");
  }
}

type BarePane = {
  count: number;
  pv: number;
  p: number;
  v: number;
  high: number;
  low: number;
  open: number;
  openAt: number;
  close: number;
  closeAt: number;
};

/** Rounded sums by symbol and 5 seconds: what one would write who knows of no late trade and no resend. */
export function panesFloor(rows: readonly BareRow[]): number {
  const symbols = new Map<string, Map<number, BarePane>>();
  for (const [symbol, , at, , price, volume] of rows) {
    let panes = symbols.get(symbol);
    if (panes === undefined) {
      panes = new Map();
      symbols.set(symbol, panes);
    }
    const start = at - (at % 5_000);
    let pane = panes.get(start);
    if (pane === undefined) {
      pane = {
        count: 0,
        pv: 0,
        p: 0,
        v: 0,
        high: price,
        low: price,
        open: price,
        openAt: at,
        close: price,
        closeAt: at,
      };
      panes.set(start, pane);
    }
    pane.count++;
    pane.pv += price * volume;
    pane.p += price;
    pane.v += volume;
    if (price > pane.high) pane.high = price;
    if (price < pane.low) pane.low = price;
    if (at < pane.openAt) {
      pane.open = price;
      pane.openAt = at;
    }
    if (at >= pane.closeAt) {
      pane.close = price;
      pane.closeAt = at;
    }
  }
  return symbols.size;
}

/** How much of the outbox is kept, as messages: about what the pipeline holds between two commits. */
const OUTBOX_KEPT = 20_000;

/**
 * The whole embedded path, bare: what one tick of the event loop received becomes one transaction of the outbox
 * and one of rows. It survives nothing and aggregates nothing.
 */
export function openPathFloor(directory: string) {
  const outbox = openBare(`${directory}/floor-outbox.sqlite`, OUTBOX_TABLE, true);
  const store = openBare(`${directory}/market.sqlite`, TRADES_TABLE, false);
  const append = outbox.query<{ offset: number }, [string]>("INSERT INTO records (value) VALUES (?)");
  const remove = outbox.query("DELETE FROM records WHERE offset <= ?");
  const insert = store.query(INSERT_TRADE);
  let appended = 0;
  let removed = 0;
  return {
    take(texts: readonly string[]): void {
      const now = Date.now();
      const frames = texts.map((text) => JSON.parse(text) as BareFrame);
      outbox.run("BEGIN");
      for (const text of texts) append.run(text);
      outbox.run("COMMIT");
      store.run("BEGIN");
      for (const { type, data } of frames) {
        if (type !== "trade") continue;
        for (const { s, p, v, t, c } of data) {
          insert.run(s, t - (t % HOUR_MS), t, Bun.randomUUIDv7(), p, v, c ? JSON.stringify(c) : null, now);
        }
      }
      store.run("COMMIT");
      appended += texts.length;
      if (appended - removed < OUTBOX_KEPT) return;
      removed = appended;
      remove.run(removed);
    },
    close() {
      outbox.close();
      store.close();
    },
  };
}

/** `bun bench/floors.ts <url> <directory> <symbols>`: the bare path behind a websocket, until it is killed. */
if (import.meta.main) {
  const [url = "", directory = "", symbols = ""] = process.argv.slice(2);
  const path = openPathFloor(directory);
  const socket = new WebSocket(url, { perMessageDeflate: false });
  let texts: string[] = [];
  socket.onmessage = ({ data }) => {
    if (texts.push(String(data)) > 1) return;
    setImmediate(() => {
      const taken = texts;
      texts = [];
      path.take(taken);
    });
  };
  socket.onopen = () => {
    for (const symbol of symbols.split(",")) socket.send(JSON.stringify({ type: "subscribe", symbol }));
  };
  process.on("SIGTERM", () => {
    path.close();
    process.exit(0);
  });
}
