// What a row becomes before it is sent: the UUID is read by us and not by the driver.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { statementsFor } from "../lib/cassandra-rows.ts";
import { RowRefusedError } from "../lib/errors.ts";
import { tradeRow } from "../lib/trade.ts";

const statements = statementsFor("market");

function boundUuid(uuid: string): string {
  const trade = { symbol: "AAPL", price: 1, volume: 1, tradedAtMs: 1_700_000_000_000, conditions: null };
  const { params } = statements.trade(tradeRow(trade, uuid, 1_700_000_000_000), undefined);
  return String(params[3]);
}

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
