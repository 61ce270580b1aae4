// The last trade in the store. The store's own order is by the trades' dates, and a trade that is dated ahead of its
// receipt comes too early in it: some rows are read, and the last of them by isLater is taken.

import type { StoreReader, TimeRange } from "../../contracts/store.ts";
import { countsAtMs, isLater } from "../../model/last-trade.ts";
import type { TradeRow } from "../../model/trade.ts";

/** The first row is nearly always the last trade, and the second proves it. */
const FIRST_PAGE_ROWS = 10;
const PAGE_ROWS = 500;
/** With a clock that was slow by hours every row of them is dated ahead, and the newest row is the last trade anyway. */
const ROWS_MAX = 5_000;

/** The last trade of a symbol that is dated in the range; null = there is none. */
export async function readLastTrade(
  store: Pick<StoreReader, "listTrades">,
  symbol: string,
  range: TimeRange,
): Promise<TradeRow | null> {
  let last: TradeRow | null = null;
  let before: TradeRow | undefined;
  for (let count = 0; count < ROWS_MAX; ) {
    const limit = count === 0 ? FIRST_PAGE_ROWS : PAGE_ROWS;
    const rows = await store.listTrades({ symbol, range, limit, ...(before && { before }) });
    for (const row of rows) {
      // It counts as at its date at the latest, and so does each row behind it.
      if (last !== null && row.trade_timestamp < countsAtMs(last)) return last;
      if (last === null || isLater(row, last)) last = row;
    }
    if (rows.length < limit) return last;
    before = rows.at(-1);
    count += rows.length;
  }
  return last;
}
