// What the live view does not know because an earlier run stored it: the last trade of a symbol, the first of the day,
// the last minutes. It reads the store, as seldom as it can, and writes nothing.

import type { Clock } from "../../base/clock.ts";
import { StoreUnavailableError } from "../../base/errors.ts";
import type { Logger } from "../../base/logger.ts";
import type { StoreReader, TimeRange } from "../../contracts/store.ts";
import { DAY_MS, MINUTE_MS, type TradeRow } from "../../model/trade.ts";
import { readLastTrade } from "./last-trade.ts";
import type { LiveView } from "./view.ts";
import { walkBack } from "./walk-back.ts";

export type Backfill = Readonly<{
  /** The last trade of a symbol: what was stored since the start, else the newest that an earlier run stored. */
  last(symbol: string): Promise<TradeRow | null>;
  /**
   * Puts the last trade, the open of the day and the last minutes of each symbol into the live view. A symbol is read
   * once a day; after that its open alone, at most every OPEN_EVERY_MS, because a late trade may have come before it.
   * Never rejects.
   */
  refresh(symbols: readonly string[]): Promise<void>;
}>;

/** A day has 1,440 minutes, and the last minutes may reach a few into yesterday. */
const CANDLES_MAX = 1_500;
/** What the sparkline shows, and a minute more. */
const RECENT_MS = 6 * MINUTE_MS;
const OPEN_EVERY_MS = MINUTE_MS;

/** When the candles of a symbol were last read, for which day, and which minute of it was its first. */
type Filled = Readonly<{ dayMs: number; openMinuteMs: number | null; readAtMs: number }>;

export function createBackfill(store: StoreReader, live: LiveView, clock: Clock, logger: Logger): Backfill {
  /** One entry for each symbol that was ever listed, so as many as the operator wanted. */
  const reads = new Map<string, Promise<void>>();
  const filled = new Map<string, Filled>();
  let refreshing: Promise<void> | null = null;

  async function readLast(symbol: string): Promise<void> {
    const nowMs = clock.now();
    const read = async (range: TimeRange) => {
      const row = await readLastTrade(store, symbol, range);
      return row === null ? [] : [row];
    };
    // A trade that is dated ahead by up to a day can be the last: it counts as at its receipt.
    live.restore((await walkBack({ store, symbol, toMs: nowMs + DAY_MS, nowMs, limit: 1, read })).rows);
  }

  async function last(symbol: string): Promise<TradeRow | null> {
    if (live.of(symbol) === null) {
      const reading = reads.get(symbol) ?? readLast(symbol);
      reads.set(symbol, reading);
      try {
        await reading;
      } catch (error) {
        // The list is known without the store. The price follows, and /health tells of the store.
        reads.delete(symbol);
        if (!(error instanceof StoreUnavailableError)) throw error;
      }
    }
    return live.of(symbol);
  }

  async function fill(symbol: string): Promise<void> {
    await last(symbol);
    const nowMs = clock.now();
    const dayMs = nowMs - (nowMs % DAY_MS);
    const known = filled.get(symbol);
    const isSameDay = known?.dayMs === dayMs;
    if (isSameDay && nowMs - known.readAtMs < OPEN_EVERY_MS) return;
    const openMinuteMs = isSameDay ? known.openMinuteMs : null;
    const range =
      openMinuteMs === null
        ? { fromMs: Math.min(dayMs, nowMs - RECENT_MS), toMs: nowMs + 1 }
        : { fromMs: dayMs, toMs: openMinuteMs + MINUTE_MS };
    const candles = await store.listCandles({ symbol, range, limit: CANDLES_MAX });
    live.restoreCandles(symbol, candles, nowMs);
    const first = candles.findLast(({ window_start }) => window_start >= dayMs);
    filled.set(symbol, { dayMs, openMinuteMs: first?.window_start ?? openMinuteMs, readAtMs: nowMs });
    // Each symbol is up to 3 ms of reading; between two the event loop has its turn.
    await new Promise<void>((resolve) => clock.atEndOfTick(resolve));
  }

  async function fillAll(symbols: readonly string[]): Promise<void> {
    try {
      for (const symbol of symbols) await fill(symbol);
    } catch (error) {
      // The view goes without; what was stored since the start stands in it all the same.
      if (!(error instanceof StoreUnavailableError))
        logger.error("the live view was not backfilled", { error });
    }
  }

  return {
    last,
    refresh(symbols) {
      refreshing ??= fillAll(symbols).finally(() => {
        refreshing = null;
      });
      return refreshing;
    },
  };
}
