// The last trade of each symbol, in memory, from the rows as they are stored. A view for the eye: it is never
// written anywhere, decides nothing, and never goes back to an older trade.

import { TRADE_AHEAD_MS, type TradeRow } from "./trade.ts";

/** A trade whose date is over TRADE_AHEAD_MS ahead of its receipt. */
export type AheadTrade = Readonly<{ symbol: string; aheadMs: number; receivedAtMs: number }>;

export type Latest = Readonly<{
  /** Rows in any order and any number of times; the last by (trade_timestamp, uuid) stays. */
  note(rows: readonly TradeRow[]): void;
  /** Null: none was noted, or the view was full when the symbol first came. */
  of(symbol: string): TradeRow | null;
  /** The trade last received of those that speak of a wrong clock; null = none did. */
  ahead(): AheadTrade | null;
}>;

/** A row is about 200 bytes; a feed subscribes hundreds at the very most. */
const SYMBOLS_MAX = 10_000;

/** Beyond its bound new symbols are not taken: dropping a known one could make it go back. */
export function createLatest(symbolsMax: number = SYMBOLS_MAX): Latest {
  const rowsBySymbol = new Map<string, TradeRow>();
  let ahead: AheadTrade | null = null;
  return {
    note(rows) {
      for (const row of rows) {
        const aheadMs = row.trade_timestamp - row.ingest_timestamp;
        if (aheadMs > TRADE_AHEAD_MS && row.ingest_timestamp >= (ahead?.receivedAtMs ?? 0)) {
          ahead = { symbol: row.symbol, aheadMs, receivedAtMs: row.ingest_timestamp };
        }
        const known = rowsBySymbol.get(row.symbol);
        if (known === undefined ? rowsBySymbol.size < symbolsMax : isAfter(row, known)) {
          rowsBySymbol.set(row.symbol, row);
        }
      }
    },
    of: (symbol) => rowsBySymbol.get(symbol) ?? null,
    ahead: () => ahead,
  };
}

function isAfter(row: TradeRow, known: TradeRow): boolean {
  return row.trade_timestamp === known.trade_timestamp
    ? row.uuid > known.uuid
    : row.trade_timestamp > known.trade_timestamp;
}
