// Which trade is the last one. Everything that shows a last price asks here: the live view, the tickers' list, health, the
// page. docs/DATA.md says the same in SQL and CQL.

import type { TradeRow } from "./trade.ts";

type Times = Pick<TradeRow, "trade_timestamp" | "ingest_timestamp">;

/**
 * When a trade counts as traded, ms since 1970: nothing is traded after its receipt, so one that is dated ahead counts as at
 * its receipt. Where the exchange's clock and ours differ by a constant, this gives the order of receipt.
 */
export function countsAtMs({ trade_timestamp, ingest_timestamp }: Times): number {
  return Math.min(trade_timestamp, ingest_timestamp);
}

/** Whether a row is the last one rather than the other: by countsAtMs, then by UUID, which sorts by receipt. */
export function isLater(row: TradeRow, than: TradeRow): boolean {
  const [atMs, thanAtMs] = [countsAtMs(row), countsAtMs(than)];
  return atMs === thanAtMs ? row.uuid > than.uuid : atMs > thanAtMs;
}
