// Small builders shared by the tests. A test names only what it is about; the rest is here.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Trade } from "../lib/trade.ts";

/** A noon that begins an hour, far from any day boundary. */
export const NOON_MS = Date.UTC(2026, 0, 5, 12);

/** A trade with plain defaults: `trade({ tradedAtMs: NOON_MS, price: 3 })`. */
export function trade(fields: Partial<Trade> = {}): Trade {
  return { symbol: "AAPL", price: 100, volume: 1, tradedAtMs: NOON_MS, conditions: null, ...fields };
}

/** A repeatable source of whole numbers below a bound (mulberry32). */
export function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** A directory of its own, removed at the end of the scope: `using directory = temporaryDirectory();` */
export function temporaryDirectory(): { path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), "pipeline-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
