// The tables of the outbox file (sql/log.sql): their columns, how a row is written with its checksum, and how a whole
// row is told from a damaged one. It opens no file and decides nothing about damage.

import type { Database } from "../base/sqlite.ts";
import type { RecordKind } from "../contracts/log.ts";
import { deadCrc, recordCrc } from "./checksum.ts";

/** The two tables with a row per record. */
export type RecordTable = "records" | "outbox_dead";
export const RECORD_TABLES: readonly RecordTable[] = ["records", "outbox_dead"];

/** A row of either table, as `recordsQuery` selects it. Times are in ms since 1970. */
export type RecordRow = [
  offset: number,
  kind: string,
  key: string,
  appendedAtMs: number,
  value: Uint8Array,
  crc: number | null,
  ...dead: [refusedAtMs?: number, reason?: string],
];

/** What the file holds. Bytes are those of the values alone. */
export type Totals = { recordCount: number; valueBytes: number; deadCount: number; deadValueBytes: number };

/** A larger number in the file is no offset. */
export const OFFSET_MAX = 2 ** 48;

/** Columns with their types, as `columnsOf` answers them. */
export const COLUMNS: Readonly<Record<string, string>> = {
  records: "offset INTEGER, kind TEXT, key TEXT, appended_at INTEGER, value BLOB",
  log_identity: "id TEXT",
  keeper: "id INTEGER, words TEXT, crc INTEGER",
  outbox_dead:
    "offset INTEGER, kind TEXT, key TEXT, appended_at INTEGER, value BLOB, crc INTEGER, refused_at INTEGER, reason TEXT",
};

/** A row for each record in a range of offsets; parameters: from, to (inclusive), the most rows. */
export function recordsQuery(table: RecordTable, order: "ASC" | "DESC" = "ASC", hasCrc = true): string {
  const crc = hasCrc ? "crc" : "NULL";
  const dead = table === "outbox_dead" ? ", refused_at, reason" : "";
  return `SELECT offset, kind, key, appended_at, value, ${crc}${dead} FROM ${table}
    WHERE offset BETWEEN ? AND ? ORDER BY offset ${order} LIMIT ?`;
}

/** Whether the row is what was written. A record without a checksum is from a file made before there were any. */
export function isWhole(row: RecordRow, table: RecordTable): boolean {
  const [offset, kind, key, appendedAtMs, value, crc, refusedAtMs, reason] = row;
  if (!(Number.isSafeInteger(offset) && offset > 0 && offset < OFFSET_MAX)) return false;
  if (!(value instanceof Uint8Array && typeof appendedAtMs === "number")) return false;
  if (table === "outbox_dead") {
    if (typeof refusedAtMs !== "number" || typeof reason !== "string") return false;
    return crc === deadCrc(recordCrc(offset, kind, key, appendedAtMs, value), refusedAtMs, reason);
  }
  if (crc === null) return kind === "trades" || kind === "event" || kind === "dead";
  return crc === recordCrc(offset, kind, key, appendedAtMs, value);
}

type InsertRecord = (
  offset: number,
  kind: RecordKind,
  key: string,
  appendedAtMs: number,
  value: Uint8Array,
) => void;

/** Writes a record with its checksum. To be called in a transaction. */
export function prepareRecordInsert(db: Database): InsertRecord {
  const insert = db.query("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)");
  return (offset, kind, key, appendedAtMs, value) => {
    insert.run(offset, kind, key, appendedAtMs, value, recordCrc(offset, kind, key, appendedAtMs, value));
  };
}

type DeadLetterOf = Readonly<{
  offset: number;
  kind: RecordKind;
  key: string;
  timestampMs: number;
  value: Uint8Array;
}>;

/** Writes a dead letter with its checksum. To be called in the transaction that deletes the record. */
export function prepareDeadInsert(
  db: Database,
): (record: DeadLetterOf, refusedAtMs: number, reason: string) => void {
  const insert = db.query("INSERT INTO outbox_dead VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  return ({ offset, kind, key, timestampMs, value }, refusedAtMs, reason) => {
    const crc = deadCrc(recordCrc(offset, kind, key, timestampMs, value), refusedAtMs, reason);
    insert.run(offset, kind, key, timestampMs, value, crc, refusedAtMs, reason);
  };
}

/** The last offset that SQLite notes as given; 0 before the first record. Not checked. */
export function lastOffsetNoted(db: Database): number {
  return Number(valuesOf(db, "SELECT seq FROM sqlite_sequence WHERE name = 'records'")[0]?.[0] ?? 0);
}

export function tableNames(db: Database): unknown[] {
  return valuesOf(db, "SELECT name FROM sqlite_schema WHERE type = 'table'").map(([name]) => name);
}

export function columnsOf(db: Database, table: string): string {
  const query = `SELECT group_concat(name || ' ' || type, ', ') FROM pragma_table_info('${table}')`;
  return String(valuesOf(db, query)[0]?.[0]);
}

/** False: a file made before there were checksums. */
export function hasChecksums(db: Database): boolean {
  return valuesOf(db, "SELECT 1 FROM pragma_table_info('records') WHERE name = 'crc'").length > 0;
}

/** All rows of a query that is run once. A statement left open would keep the file open beyond its connection. */
export function valuesOf(db: Database, query: string): unknown[][] {
  const statement = db.prepare(query);
  try {
    return statement.values();
  } finally {
    statement.finalize();
  }
}
