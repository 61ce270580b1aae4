// Whether the dates of all trades agree that this machine's clock is wrong. One odd print says nothing; what every symbol
// says again and again does. It asks nobody and is told the time.

import type { ClockDifference } from "../contracts/feed.ts";
import { HOUR_MS, MINUTE_MS } from "../model/trade.ts";
import { TRADE_AHEAD_MS } from "../model/validate.ts";

/** A symbol that was silent for longer says nothing of now. */
const WINDOW_MS = 10 * MINUTE_MS;
/** In a row, of all symbols together: fewer can be a single bad batch. */
const TRADES_MIN = 5;
/** The share of symbols that must agree: one can be wrong by itself. */
const SYMBOLS_SHARE_MIN = 0.9;
/** Delayed feeds are 15 or 20 minutes late. */
const LATE_MS = HOUR_MS;
/** A feed subscribes hundreds at the very most. */
const SYMBOLS_MAX = 10_000;

/** The last trades of one symbol that were all too early, or all too late: how many, and the least difference. */
type Run = { sign: -1 | 0 | 1; tradeCount: number; byMs: number; atMonotonicMs: number };

export class MarketClock {
  readonly #runs = new Map<string, Run>();

  /** A trade that came, taken or refused; `aheadMs`: from its receipt to its date. */
  note(symbol: string, aheadMs: number, monotonicMs: number): void {
    const sign = aheadMs > TRADE_AHEAD_MS ? 1 : aheadMs < -LATE_MS ? -1 : 0;
    let run = this.#runs.get(symbol);
    if (run === undefined) {
      if (this.#runs.size >= SYMBOLS_MAX) return;
      run = { sign: 0, tradeCount: 0, byMs: 0, atMonotonicMs: 0 };
      this.#runs.set(symbol, run);
    }
    run.atMonotonicMs = monotonicMs;
    if (sign !== run.sign) {
      run.sign = sign;
      run.tradeCount = 0;
      run.byMs = Number.POSITIVE_INFINITY;
    }
    if (sign === 0) return;
    run.tradeCount += 1;
    run.byMs = Math.min(run.byMs, Math.abs(aheadMs));
  }

  /** Null: nothing was traded, or the dates are those of a right clock, or they do not agree. */
  difference(monotonicMs: number): ClockDifference | null {
    const recent = [...this.#runs.values()].filter((run) => monotonicMs - run.atMonotonicMs <= WINDOW_MS);
    for (const sign of [1, -1] as const) {
      const agreeing = recent.filter((run) => run.sign === sign);
      const tradeCount = agreeing.reduce((sum, run) => sum + run.tradeCount, 0);
      if (tradeCount < TRADES_MIN || agreeing.length < recent.length * SYMBOLS_SHARE_MIN) continue;
      return {
        clockIs: sign === 1 ? "behind" : "ahead",
        byMs: Math.min(...agreeing.map((run) => run.byMs)),
        tradeCount,
        symbolCount: agreeing.length,
      };
    }
    return null;
  }
}
