// When each symbol was last traded, as the producer saw it: for its health. It keeps one entry a symbol, nothing of
// a trade but its time, and decides nothing.

import type { AheadTrade, Trade } from "../model/trade.ts";
import { TRADE_AHEAD_MS } from "../model/validate.ts";

/** Beyond it new symbols are not taken; a feed subscribes hundreds at the very most. */
const SYMBOLS_MAX = 10_000;

export type LastValues = Readonly<{
  /** The trades of one message: all of one symbol. */
  note(symbol: string, receivedAtMs: number, trades: readonly Trade[]): void;
  /** When its last trade counts as traded (model/last-trade.ts), ms since 1970; null = none was seen. */
  of(symbol: string): number | null;
  /** The last trade that was dated over TRADE_AHEAD_MS ahead of its receipt; null = none was. */
  ahead(): AheadTrade | null;
}>;

export function createLastValues(): LastValues {
  const lastAtMs = new Map<string, number>();
  let ahead: AheadTrade | null = null;
  return {
    note(symbol, receivedAtMs, trades) {
      let newestMs = lastAtMs.get(symbol);
      if (newestMs === undefined && lastAtMs.size >= SYMBOLS_MAX) return;
      for (const { tradedAtMs } of trades) {
        // As countsAtMs has it, of what is not a row yet.
        const atMs = Math.min(tradedAtMs, receivedAtMs);
        newestMs = Math.max(newestMs ?? atMs, atMs);
        const aheadMs = tradedAtMs - receivedAtMs;
        if (aheadMs > TRADE_AHEAD_MS) ahead = { symbol, aheadMs, receivedAtMs };
      }
      if (newestMs !== undefined) lastAtMs.set(symbol, newestMs);
    },
    of: (symbol) => lastAtMs.get(symbol) ?? null,
    ahead: () => ahead,
  };
}
