// The rows of the outbox file: written with a checksum that any other row, byte or table fails.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { deadCrc, recordCrc } from "../../../lib/outbox/checksum.ts";
import {
  isWhole,
  OFFSET_MAX,
  prepareDeadInsert,
  prepareRecordInsert,
  type RecordRow,
  type RecordTable,
  recordsQuery,
} from "../../../lib/outbox/tables.ts";
import sql from "../../../sql/log.sql" with { type: "text" };

const VALUE = Buffer.from("value");

function rowOf(table: RecordTable): RecordRow {
  using db = new Database(":memory:");
  db.run(sql);
  prepareRecordInsert(db)(7, "trades", "AAPL", 1_000, VALUE);
  const record = { offset: 7, kind: "trades", key: "AAPL", timestampMs: 1_000, value: VALUE } as const;
  prepareDeadInsert(db)(record, 2_000, "refused: x");
  return db.prepare(recordsQuery(table)).values(1, OFFSET_MAX, 9)[0] as RecordRow;
}

/** The row with another value in one column. */
function changed(row: RecordRow, column: number, value: unknown): RecordRow {
  return row.map((one, index) => (index === column ? value : one)) as RecordRow;
}

test("the checksums of files that exist do not change", () => {
  const crc = recordCrc(7, "trades", "AAPL", 1_000, VALUE);
  expect(crc).toBe(Bun.hash.crc32(Buffer.concat([Buffer.from("7 trades 1000 AAPL"), VALUE])));
  expect(deadCrc(crc, 2_000, "refused: x")).toBe(Bun.hash.crc32("2000 refused: x", crc));
});

test.each(["records", "outbox_dead"] as const)(
  "a row of %s is whole, and with any other content it is not",
  (table) => {
    const row = rowOf(table);
    expect(isWhole(row, table)).toBe(true);
    const others: unknown[] = [8, "event", "MSFT", 1_001, Buffer.from("valuf"), 1, 2_001, "refused: y"];
    for (const column of row.keys()) expect(isWhole(changed(row, column, others[column]), table)).toBe(false);
    for (const wrong of [0, -1, 1.5, OFFSET_MAX, "7"])
      expect(isWhole(changed(row, 0, wrong), table)).toBe(false);
    expect(isWhole(changed(row, 4, "value"), table)).toBe(false);
    expect(isWhole(changed(row, 3, null), table)).toBe(false);
  },
);

test("a dead letter is no record, and a record no dead letter", () => {
  expect(isWhole(rowOf("outbox_dead"), "records")).toBe(false);
  expect(isWhole(rowOf("records"), "outbox_dead")).toBe(false);
});

test("a record from before there were checksums is whole when its kind is known; a dead letter always has one", () => {
  const row = changed(rowOf("records"), 5, null);
  expect(isWhole(row, "records")).toBe(true);
  expect(isWhole(changed(row, 1, "tradez"), "records")).toBe(false);
  expect(isWhole(changed(rowOf("outbox_dead"), 5, null), "outbox_dead")).toBe(false);
});
