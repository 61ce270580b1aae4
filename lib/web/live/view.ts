// What a screen shows, in memory, from the rows as they are stored: the last trade of each symbol, its first of the
// day, its last minutes by the second, how fast rows come and how long storing took. A view for the eye: it is
// never written anywhere and decides nothing. It is told the time.
//
// Every change has a number, `version`. Whoever holds the view of version v asks for what changed since: there is
// nothing to queue, a reader who was away for a minute asks for more, and gets each thing once, in its newest state.

import type { CandleRow } from "../../model/aggregates.ts";
import { type AheadTrade, DAY_MS, MINUTE_MS, type TradeRow } from "../../model/trade.ts";
import { TRADE_AHEAD_MS } from "../../model/validate.ts";
import { type Latency, LatencyWindow } from "./latency.ts";
import { noteReceipt, noteSpark, noteTrade, rateBefore, secondsIn, sparkIn } from "./line.ts";
import { type SecondTuple, SPARK_BUCKET_MS } from "./protocol.ts";
import { newSymbolState, noteFirst, noteLast, restoreFirst, type SymbolState } from "./symbol-state.ts";

export type LiveView = Readonly<{
  /**
   * Rows that were stored just now, in any order; the last by isLater stays. A row that comes twice
   * counts twice in trades/s and in the volume of its second; nothing else changes by it.
   */
  note(rows: readonly TradeRow[], nowMs: number): void;
  /** Rows that an earlier run stored: one can be a symbol's last trade, but was not stored now. */
  restore(rows: readonly TradeRow[]): void;
  /** Candles of an earlier run: the first of the day tells its open, the last minutes stand in the sparkline. */
  restoreCandles(symbol: string, newestFirst: readonly CandleRow[], nowMs: number): void;
  /** Null: none was noted, or the view was full when the symbol first came. */
  of(symbol: string): TradeRow | null;
  /** The last received of the trades that are dated too far ahead, which suggests a wrong clock; null = none was. */
  ahead(): AheadTrade | null;

  /** Rises with every change. */
  version(): number;
  /** Whether its last trade is of a later version. */
  isLastNewer(symbol: string, version: number): boolean;
  /** The first trade of the day of the last; null when unknown, or (with a version) when it is no newer. */
  openOf(symbol: string, sinceVersion?: number): readonly [price: number, atMs: number] | null;
  /** Oldest first; with a version only the seconds that changed since. */
  secondsOf(symbol: string, nowMs: number, sinceVersion?: number): SecondTuple[];
  /** Oldest first. */
  sparkOf(symbol: string, nowMs: number): [bucket: number, price: number][];
  /** Trades/s over the RATE_SECONDS whole seconds before endMs. */
  rateOf(symbol: string, endMs: number): number;
  /** Over the last ten seconds; null = nothing was noted in them. */
  latency(nowMs: number): Latency | null;
}>;

/** A row is about 200 bytes; a feed subscribes hundreds at the very most. */
const SYMBOLS_MAX = 10_000;
/** 20 KB each. A feed subscribes fewer symbols; those beyond it have a last trade and no line. */
const LINES_MAX = 1_000;

/** Beyond its bounds new symbols are not taken: dropping a known one could make it go back. */
export function createLiveView(symbolsMax: number = SYMBOLS_MAX): LiveView {
  const states = new Map<string, SymbolState>();
  const latencies = new LatencyWindow();
  let version = 0;
  let ahead: AheadTrade | null = null;

  function stateFor(symbol: string): SymbolState | null {
    const known = states.get(symbol);
    if (known !== undefined) return known;
    if (states.size >= symbolsMax) return null;
    const state = newSymbolState(states.size < LINES_MAX);
    states.set(symbol, state);
    return state;
  }

  function noteAhead({ symbol, trade_timestamp, ingest_timestamp }: TradeRow): void {
    const aheadMs = trade_timestamp - ingest_timestamp;
    if (aheadMs > TRADE_AHEAD_MS && ingest_timestamp >= (ahead?.receivedAtMs ?? 0)) {
      ahead = { symbol, aheadMs, receivedAtMs: ingest_timestamp };
    }
  }

  return {
    note(rows, nowMs) {
      version += 1;
      let symbol: string | null = null;
      let state: SymbolState | null = null;
      latencies.turnTo(nowMs);
      for (const row of rows) {
        if (row.symbol !== symbol) {
          symbol = row.symbol;
          state = stateFor(symbol);
        }
        noteAhead(row);
        latencies.observe(nowMs - row.ingest_timestamp);
        if (state === null) continue;
        noteLast(state, row, version);
        if (state.line !== null) noteReceipt(state.line, row);
        // A trade from the future would stand in the line, and begin a day, before its time.
        if (row.trade_timestamp > nowMs + TRADE_AHEAD_MS) continue;
        if (dayStartOf(row.trade_timestamp) <= dayStartOf(nowMs)) noteFirst(state, row, version);
        if (state.line !== null) noteTrade(state.line, row, version);
      }
    },
    restore(rows) {
      version += 1;
      for (const row of rows) {
        const state = stateFor(row.symbol);
        if (state !== null) noteLast(state, row, version);
      }
    },
    restoreCandles(symbol, newestFirst, nowMs) {
      const state = stateFor(symbol);
      if (state === null) return;
      version += 1;
      const dayMs = dayStartOf(nowMs);
      const firstOfDay = newestFirst.findLast(({ window_start }) => window_start >= dayMs);
      if (firstOfDay !== undefined) restoreFirst(state, firstOfDay, dayMs, version);
      for (const { window_start, close } of newestFirst) {
        // A minute's close stands at the beginning of its last bucket: what came within that bucket overwrites it.
        const atMs = window_start + MINUTE_MS - SPARK_BUCKET_MS;
        if (state.line !== null && atMs <= nowMs) noteSpark(state.line, atMs, close);
      }
    },
    of: (symbol) => states.get(symbol)?.last ?? null,
    ahead: () => ahead,
    version: () => version,
    isLastNewer: (symbol, since) => (states.get(symbol)?.lastVersion ?? 0) > since,
    openOf(symbol, since = -1) {
      const state = states.get(symbol);
      return state?.first && state.firstVersion > since ? [state.first.price, state.first.atMs] : null;
    },
    secondsOf(symbol, nowMs, since = -1) {
      const line = states.get(symbol)?.line;
      return line ? secondsIn(line, nowMs, since) : [];
    },
    sparkOf(symbol, nowMs) {
      const line = states.get(symbol)?.line;
      return line ? sparkIn(line, nowMs) : [];
    },
    rateOf(symbol, endMs) {
      const line = states.get(symbol)?.line;
      return line ? rateBefore(line, endMs) : 0;
    },
    latency: (nowMs) => latencies.over(nowMs),
  };
}

function dayStartOf(timeMs: number): number {
  return timeMs - (timeMs % DAY_MS);
}
