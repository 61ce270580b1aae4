// The share of what came lately that was refused: by symbol and reason, over minutes of a clock that nobody sets.

import { expect, test } from "bun:test";
import { INTAKE_MINUTES, Intake } from "../../../lib/model/intake.ts";
import { MINUTE_MS } from "../../../lib/model/trade.ts";

test("nothing came: nothing is refused", () => {
  expect(new Intake().snapshot(0)).toEqual({ minutes: INTAKE_MINUTES, taken: 0, refused: 0, symbols: [] });
});

test("each refusal counts for its symbol with the commonest reason, the most refused symbol first", () => {
  const intake = new Intake();
  intake.taken(5, 0);
  intake.refused("A", "bad_price", 1);
  for (const reason of ["bad_time", "bad_price", "bad_price"]) intake.refused("B", reason, 2);
  intake.refused(null, "garbage_frame", 3);
  expect(intake.snapshot(4)).toEqual({
    minutes: INTAKE_MINUTES,
    taken: 5,
    refused: 5,
    symbols: [
      { symbol: "B", taken: 0, refused: 3, reason: "bad_price" },
      { symbol: "A", taken: 0, refused: 1, reason: "bad_price" },
    ],
  });
});

test("a symbol that is refused at times is told from one of which nothing is taken", () => {
  const intake = new Intake();
  expect(intake.isAnyRefused).toBe(false);
  intake.takenOf("A", 0);
  intake.refused("A", "bad_price", 0);
  intake.refused("B", "bad_price", 0);
  expect(intake.isAnyRefused).toBe(true);
  for (const symbol of ["A", "A", "C"]) intake.takenOf(symbol, MINUTE_MS);
  expect(intake.snapshot(MINUTE_MS).symbols).toEqual([
    { symbol: "A", taken: 2, refused: 1, reason: "bad_price" },
    { symbol: "B", taken: 0, refused: 1, reason: "bad_price" },
  ]);
});

test("what is older than the minutes counts no longer, also when nothing comes afterwards", () => {
  const intake = new Intake();
  intake.taken(7, 0);
  intake.refused("A", "bad_price", 0);
  const last = INTAKE_MINUTES * MINUTE_MS - 1;
  expect(intake.snapshot(last)).toMatchObject({ taken: 7, refused: 1 });
  expect(intake.snapshot(last + 1)).toMatchObject({ taken: 0, refused: 0, symbols: [] });
  expect(intake.isAnyRefused).toBe(false);
});

test("endlessly many symbols take bounded memory, and each refusal still counts", () => {
  const intake = new Intake();
  for (let n = 0; n < 5_000; n++) intake.refused(`S${n}`, "bad_price", 0);
  const { refused, symbols } = intake.snapshot(0);
  expect([refused, symbols.length]).toEqual([5_000, 1_000]);
});
