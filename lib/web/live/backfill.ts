// What the live view does not know because an earlier run stored it: the last trade of a symbol, the first of the
// day, the last minutes. It reads the store, once where it can, and writes nothing.

import type { Clock } from "../../base/clock.ts";
import { StoreUnavailableError } from "../../base/errors.ts";
import type { Logger } from "../../base/logger.ts";
import type { StoreReader } from "../../contracts/store.ts";
import { DAY_MS, type TradeRow } from "../../model/trade.ts";
import type { LiveView } from "./view.ts";

export type Backfill = Readonly<{
  /** The last trade of a symbol: what was stored since the start, else what an earlier run stored in the last day. */
  last(symbol: string): Promise<TradeRow | null>;
  /**
   * The last trade, the open of the day and the last minutes of each, into the live view. A symbol is read once a
   * day, and from then on its open alone, at most each OPEN_EVERY_MS: a late trade may have come before it.
   */
  refresh(symbols: readonly string[]): Promise<void>;
}>;

/** A day has 1,440 minutes; as many again where the last minutes reach into yesterday are more than enough. */
const CANDLES_MAX = 1_500;
/** What the sparkline shows, and a minute more. */
const RECENT_MS = 360_000;
const MINUTE_MS = 60_000;
const OPEN_EVERY_MS = 60_000;

type Seed = { dayMs: number; openMinuteMs: number | null; askedAtMs: number };

export function createBackfill(store: StoreReader, live: LiveView, clock: Clock, logger: Logger): Backfill {
  /** One entry a ticker that was ever listed, so as many as the operator wanted. */
  const asked = new Map<string, Promise<void>>();
  const seeded = new Map<string, Seed>();
  let refreshing: Promise<void> | null = null;

  async function ask(symbol: string): Promise<void> {
    const range = { fromMs: clock.now() - DAY_MS, toMs: clock.now() + DAY_MS };
    live.restore(await store.listTrades({ symbol, range, limit: 1 }));
  }

  async function last(symbol: string): Promise<TradeRow | null> {
    if (live.of(symbol) === null) {
      const asking = asked.get(symbol) ?? ask(symbol);
      asked.set(symbol, asking);
      try {
        await asking;
      } catch (error) {
        // The list is known without the store; the price follows, and /health speaks of the store.
        asked.delete(symbol);
        if (!(error instanceof StoreUnavailableError)) throw error;
      }
    }
    return live.of(symbol);
  }

  async function seed(symbol: string): Promise<void> {
    await last(symbol);
    const nowMs = clock.now();
    const dayMs = nowMs - (nowMs % DAY_MS);
    const known = seeded.get(symbol);
    const isSameDay = known?.dayMs === dayMs;
    if (isSameDay && nowMs - known.askedAtMs < OPEN_EVERY_MS) return;
    const openMinuteMs = isSameDay ? known.openMinuteMs : null;
    const range =
      openMinuteMs === null
        ? { fromMs: Math.min(dayMs, nowMs - RECENT_MS), toMs: nowMs + 1 }
        : { fromMs: dayMs, toMs: openMinuteMs + MINUTE_MS };
    const candles = await store.listCandles({ symbol, range, limit: CANDLES_MAX });
    live.restoreCandles(symbol, candles, nowMs);
    const first = candles.findLast(({ window_start }) => window_start >= dayMs);
    seeded.set(symbol, {
      dayMs,
      openMinuteMs: first?.window_start ?? openMinuteMs,
      askedAtMs: nowMs,
    });
    // Each is up to 3 ms of reading; between two the event loop has its turn.
    await new Promise<void>((resolve) => clock.atEndOfTick(resolve));
  }

  async function seedAll(symbols: readonly string[]): Promise<void> {
    try {
      for (const symbol of symbols) await seed(symbol);
    } catch (error) {
      // The view goes without; what was stored since the start stands in it all the same.
      if (!(error instanceof StoreUnavailableError)) logger.error("the live view was not seeded", { error });
    }
  }

  return {
    last,
    refresh(symbols) {
      refreshing ??= seedAll(symbols).finally(() => {
        refreshing = null;
      });
      return refreshing;
    },
  };
}
