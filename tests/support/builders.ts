// Small builders and ways to wait, shared by the tests. A test names only what it is about; the rest is here.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { seededRandom } from "../../lib/base/random.ts";
import type { Trade } from "../../lib/model/trade.ts";

const POLL_MS = 20;

/** A noon that begins an hour, far from any day boundary. */
export const NOON_MS = Date.UTC(2026, 0, 5, 12);

/** A trade with plain defaults: `trade({ tradedAtMs: NOON_MS, price: 3 })`. */
export function trade(fields: Partial<Trade> = {}): Trade {
  return { symbol: "AAPL", price: 100, volume: 1, tradedAtMs: NOON_MS, conditions: null, ...fields };
}

/** A repeatable source of whole numbers below a bound. */
export function seeded(seed: number): (below: number) => number {
  const random = seededRandom(seed);
  // The 32 bits behind the fraction, so that a bound takes their lowest digits.
  return (below) => (random() * 2 ** 32) % below;
}

/** A directory of its own, removed at the end of the scope: `using directory = temporaryDirectory();` */
export function temporaryDirectory(): { path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), "pipeline-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** Polls until the check holds; fails by name after the time. */
export async function eventually(
  limitMs: number,
  name: string,
  check: () => boolean | Promise<boolean>,
): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!(await check())) {
    if (performance.now() > endMs) throw new Error(`not within ${limitMs} ms: ${name}`);
    await Bun.sleep(POLL_MS);
  }
}

export async function within<T>(limitMs: number, name: string, work: () => Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`not within ${limitMs} ms: ${name}`)), limitMs);
  try {
    return await Promise.race([work(), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
