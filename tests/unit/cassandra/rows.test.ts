// What a row becomes before it is sent: its bytes are made by us and not by the driver, and are the same.

import { expect, test } from "bun:test";
import cassandra from "cassandra-driver";
import fc from "fast-check";
import { RowRefusedError } from "../../../lib/base/errors.ts";
import { statementsFor } from "../../../lib/cassandra/rows.ts";
import type { WindowRow } from "../../../lib/model/aggregates.ts";
import { tradeRow } from "../../../lib/model/trade.ts";
import { NOON_MS } from "../../support/builders.ts";

const statements = statementsFor("market");

function boundUuid(uuid: string): string {
  const trade = { symbol: "AAPL", price: 1, volume: 1, tradedAtMs: 1_700_000_000_000, conditions: null };
  const { params } = statements.trade(tradeRow(trade, uuid, 1_700_000_000_000), undefined);
  return String(new cassandra.types.Uuid(params[3] as Buffer));
}

test("times, symbols and conditions are bound as Cassandra's protocol has them, one row after the other", () => {
  const time = fc.integer({ min: -8_640_000_000_000_000, max: 8_640_000_000_000_000 });
  const text = fc.string({ unit: "grapheme", maxLength: 8 });
  const some = fc.tuple(text, time, time, time, fc.option(text));
  fc.assert(
    fc.property(fc.array(some, { minLength: 1 }), (rows) => {
      for (const [symbol, hour, tradedAtMs, receivedAtMs, conditions] of [...rows, ...rows]) {
        const uuid = "018f3c5e-9a00-7001-8004-0401deadbeef";
        const row = { symbol, hour, trade_timestamp: tradedAtMs, uuid, price: 1.5, volume: 0 };
        const { params } = statements.trade(
          { ...row, trade_conditions: conditions, ingest_timestamp: receivedAtMs },
          60,
        );
        const bytesOf = (timeMs: number) => {
          const bytes = Buffer.alloc(8);
          bytes.writeBigInt64BE(BigInt(timeMs));
          return bytes;
        };
        const due = [
          Buffer.from(symbol),
          bytesOf(hour),
          bytesOf(tradedAtMs),
          Buffer.from(uuid.replaceAll("-", ""), "hex"),
        ];
        expect(params).toEqual([
          ...due,
          1.5,
          0,
          conditions === null ? undefined : Buffer.from(conditions),
          bytesOf(receivedAtMs),
          60,
        ]);
      }
    }),
    { seed: 1 },
  );
});

test("every UUID is bound as it is written, in either case of its letters", () => {
  fc.assert(
    fc.property(fc.uuid(), (uuid) => {
      expect(boundUuid(uuid)).toBe(uuid);
      expect(boundUuid(uuid.toUpperCase())).toBe(uuid);
    }),
    { seed: 1 },
  );
});

test("what is not a UUID refuses its row, and is never stored as another one", () => {
  const uuid = "018f3c5e-9a00-7001-8004-0401deadbeef";
  const cut = (at: number, put: string) => uuid.slice(0, at) + put + uuid.slice(at + 1);
  const places = Array.from(uuid, (_, at) => at);
  const wrong = ["", uuid.slice(1), `${uuid}0`, uuid.replaceAll("-", ""), `${uuid.replaceAll("-", "")}----`];
  // A foreign letter, a letter beyond ASCII, and a dash or a digit where the other belongs: at each place.
  const swapped = places.flatMap((at) => [cut(at, "g"), cut(at, "é"), cut(at, uuid[at] === "-" ? "0" : "-")]);
  for (const text of [...wrong, ...swapped]) expect(() => boundUuid(text)).toThrow(RowRefusedError);
});

test("an aggregate is bound whole, in the order of its columns, at its version, and removed by its key", () => {
  const average: WindowRow = {
    kind: "average",
    row: {
      symbol: "AAPL",
      hour: NOON_MS,
      window_end: NOON_MS + 5_000,
      price_volume_multiply: 1,
      average_price: 2,
      vwap: null,
      volume: 0,
      trade_count: 3,
    },
  };
  const put = statements.window(average, 7);
  expect(put.query).toBe(
    "INSERT INTO market.running_averages_15_sec (symbol, hour, window_end, price_volume_multiply, average_price, vwap, " +
      "volume, trade_count) VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
  );
  expect(put.params.map(String)).toEqual(["AAPL", NOON_MS, NOON_MS + 5_000, 1, 2, null, 0, 3, 7].map(String));
  const removal = statements.removal({ kind: "candle", symbol: "AAPL", startMs: NOON_MS }, 9);
  expect(removal.query).toBe(
    "DELETE FROM market.candles_1_min USING TIMESTAMP ? WHERE symbol = ? AND day = ? AND window_start = ?",
  );
  expect(removal.params.map(String)).toEqual(["9", "AAPL", "2026-01-05", String(NOON_MS)]);
});
