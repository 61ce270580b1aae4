// Question: how many rows a second does the embedded store take, in puts of several sizes?

import { join } from "node:path";
import { openSqliteStore } from "../lib/sqlite/store.ts";
import { temporaryDirectory } from "../tests/support/builders.ts";
import { type BareRow, openBare, storeFloor, TRADES_TABLE } from "./floors.ts";
import { marketFrames, messagesOf, rowsOf } from "./material.ts";
import { type Figure, ratesOf } from "./measure.ts";

const TRADES_PER_SECOND = 5_000;
/** A frame at 1,000 trades a second, a tick at full speed, the largest put. */
const SIZES = [
  { perPut: 5, rows: 50_000 },
  { perPut: 200, rows: 150_000 },
  { perPut: 2_000, rows: 200_000 },
] as const;

export async function store(): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const { perPut, rows: count } of SIZES) {
    const rows = rowsOf(messagesOf(marketFrames(count, TRADES_PER_SECOND, Date.now()))).slice(0, count);
    const bare = rows.map((row) => Object.values(row) as unknown as BareRow);
    figures.push(
      await ratesOf({
        name: `store, ${perPut} a put`,
        unit: "rows/s",
        count,
        goal: { of: "ratio", atLeast: 0.6 },
        async ours() {
          using directory = temporaryDirectory();
          using opened = openSqliteStore({ directory: directory.path, sync: "normal" });
          for (let from = 0; from < count; from += perPut)
            await opened.putTrades(rows.slice(from, from + perPut));
        },
        floor() {
          using directory = temporaryDirectory();
          const db = openBare(join(directory.path, "floor.sqlite"), TRADES_TABLE, false);
          storeFloor(db, bare, perPut);
          db.close();
        },
      }),
    );
  }
  return figures;
}
