// What a screen shows, in memory, from the rows as they are stored: the last trade of each symbol, its first of the
// day, its last minutes by the second, how fast rows come and how long storing took. A view for the eye: it is
// never written anywhere and decides nothing. It is told the time.
//
// Every change has a number, `version`. Whoever holds the view of version v asks for what changed since: there is
// nothing to queue, a reader who was away for a minute asks for more, and gets each thing once, in its newest state.

import type { CandleRow } from "../../model/aggregates.ts";
import { type AheadTrade, DAY_MS, type TradeRow } from "../../model/trade.ts";
import { TRADE_AHEAD_MS } from "../../model/validate.ts";
import {
  LINE_SECONDS,
  type OpenTuple,
  RATE_SECONDS,
  type SecondTuple,
  SPARK_BUCKET_MS,
  SPARK_BUCKETS,
} from "./protocol.ts";

export type Latency = Readonly<{ p50Ms: number; p99Ms: number; tradeCount: number }>;

export type LiveView = Readonly<{
  /**
   * Rows that were stored just now, in any order; the last by (trade_timestamp, uuid) stays. A row that comes twice
   * counts twice in trades/s and in the volume of its second; nothing else changes by it.
   */
  note(rows: readonly TradeRow[], nowMs: number): void;
  /** What an earlier run stored: it can be a symbol's last trade, but was not stored now. */
  restore(rows: readonly TradeRow[]): void;
  /** Candles of an earlier run: the first of the day tells its open, the last minutes stand in the sparkline. */
  restoreCandles(symbol: string, newestFirst: readonly CandleRow[], nowMs: number): void;
  /** Null: none was noted, or the view was full when the symbol first came. */
  of(symbol: string): TradeRow | null;
  /** The trade last received of those that speak of a wrong clock; null = none did. */
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
  /** Over the last LATENCY_SECONDS; exact to the millisecond below LATENCY_EXACT_MS, then to a twelfth. */
  latency(nowMs: number): Latency | null;
}>;

/** A row is about 200 bytes; a feed subscribes hundreds at the very most. */
const SYMBOLS_MAX = 10_000;
/** 20 KB each; what a feed subscribes is below it, beyond it there is a last trade and no line. */
const LINES_MAX = 1_000;
/** Beyond the line's own seconds there is room for those that are dated a little ahead. */
const SECOND_SLOTS = LINE_SECONDS + TRADE_AHEAD_MS / 1_000;
/** Some more than are counted, so that a second is not overwritten while it is. */
const RATE_SLOTS = 16;
const LATENCY_SECONDS = 10;
const LATENCY_EXACT_MS = 128;
const LATENCY_STEPS_PER_OCTAVE = 8;
/** Twelve octaves above 128 ms: nine minutes; the last one holds all that is longer. */
const LATENCY_BUCKETS = LATENCY_EXACT_MS + 12 * LATENCY_STEPS_PER_OCTAVE;

type First = Readonly<{ dayMs: number; atMs: number; uuid: string; price: number }>;

/** What was traded by the second of event time, in slots that are used again. */
type Line = Readonly<{
  second: Float64Array;
  version: Float64Array;
  lastRow: (TradeRow | null)[];
  high: Float64Array;
  low: Float64Array;
  volume: Float64Array;
  count: Float64Array;
  sparkBucket: Float64Array;
  sparkAtMs: Float64Array;
  sparkPrice: Float64Array;
  rateSecond: Float64Array;
  rateCount: Float64Array;
}>;

type SymbolState = {
  last: TradeRow | null;
  lastVersion: number;
  first: First | null;
  firstVersion: number;
  line: Line | null;
};

/** Beyond its bounds new symbols are not taken: dropping a known one could make it go back. */
export function createLiveView(symbolsMax: number = SYMBOLS_MAX): LiveView {
  const states = new Map<string, SymbolState>();
  const latencies = createLatencies();
  let version = 0;
  let lineCount = 0;
  let ahead: AheadTrade | null = null;

  function stateOf(symbol: string): SymbolState | null {
    const known = states.get(symbol);
    if (known !== undefined) return known;
    if (states.size >= symbolsMax) return null;
    const state = {
      last: null,
      lastVersion: 0,
      first: null,
      firstVersion: 0,
      line: lineCount < LINES_MAX ? newLine() : null,
    };
    lineCount += 1;
    states.set(symbol, state);
    return state;
  }

  function noteAhead({ symbol, trade_timestamp, ingest_timestamp }: TradeRow): void {
    const aheadMs = trade_timestamp - ingest_timestamp;
    if (aheadMs > TRADE_AHEAD_MS && ingest_timestamp >= (ahead?.receivedAtMs ?? 0)) {
      ahead = { symbol, aheadMs, receivedAtMs: ingest_timestamp };
    }
  }

  function noteLast(state: SymbolState, row: TradeRow): void {
    if (state.last !== null && !isAfter(row, state.last)) return;
    state.last = row;
    state.lastVersion = version;
  }

  function noteFirst(state: SymbolState, row: TradeRow): void {
    const { trade_timestamp: atMs, uuid, price } = row;
    const { first } = state;
    if (first !== null) {
      if (atMs > first.atMs && atMs - first.dayMs < DAY_MS) return; // Nearly always.
      if (atMs < first.dayMs || (atMs === first.atMs && uuid >= first.uuid)) return;
    }
    state.first = { dayMs: atMs - (atMs % DAY_MS), atMs, uuid, price };
    state.firstVersion = version;
  }

  function restoreFirst(state: SymbolState, candle: CandleRow, dayMs: number): void {
    const { window_start: atMs, open: price } = candle;
    const { first } = state;
    if (first !== null && (first.dayMs > dayMs || (first.dayMs === dayMs && first.atMs < atMs))) return;
    if (first?.atMs === atMs && first.price === price) return;
    state.first = { dayMs, atMs, uuid: "", price };
    state.firstVersion = version;
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
          state = stateOf(symbol);
        }
        noteAhead(row);
        latencies.observe(nowMs - row.ingest_timestamp);
        if (state === null) continue;
        noteLast(state, row);
        // A trade from the future would stand in the line, and begin a day, before its time.
        if (row.trade_timestamp > nowMs + TRADE_AHEAD_MS) continue;
        noteFirst(state, row);
        if (state.line !== null) noteLine(state.line, row, version);
      }
    },
    restore(rows) {
      version += 1;
      for (const row of rows) {
        const state = stateOf(row.symbol);
        if (state !== null) noteLast(state, row);
      }
    },
    restoreCandles(symbol, newestFirst, nowMs) {
      const state = stateOf(symbol);
      if (state === null) return;
      version += 1;
      const dayMs = nowMs - (nowMs % DAY_MS);
      const firstOfDay = newestFirst.findLast(({ window_start }) => window_start >= dayMs);
      if (firstOfDay !== undefined) restoreFirst(state, firstOfDay, dayMs);
      for (const { window_start, close } of newestFirst) {
        // A minute's close is what stood at the beginning of its last bucket, or is overwritten by what came in it.
        const atMs = window_start + 60_000 - SPARK_BUCKET_MS;
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
      return line ? secondsOf(line, Math.floor(nowMs / 1_000) - LINE_SECONDS, since) : [];
    },
    sparkOf(symbol, nowMs) {
      const line = states.get(symbol)?.line;
      if (!line) return [];
      const from = Math.floor(nowMs / SPARK_BUCKET_MS) - SPARK_BUCKETS;
      return Array.from(
        line.sparkBucket,
        (bucket, slot) => [bucket, line.sparkPrice[slot]!] as [number, number],
      )
        .filter(([bucket]) => bucket > from)
        .sort(([a], [b]) => a - b);
    },
    rateOf(symbol, endMs) {
      const line = states.get(symbol)?.line;
      return line ? countBefore(line, Math.floor(endMs / 1_000)) / RATE_SECONDS : 0;
    },
    latency: latencies.over,
  };
}

function isAfter(row: TradeRow, known: TradeRow): boolean {
  return row.trade_timestamp === known.trade_timestamp
    ? row.uuid > known.uuid
    : row.trade_timestamp > known.trade_timestamp;
}

/** What a delta and a snapshot say of a symbol's open. */
export function openTuple(index: number, open: readonly [number, number]): OpenTuple {
  return [index, open[0], open[1]];
}

// --- The last minutes of a symbol ------------------------------------------------------------------------------

function newLine(): Line {
  const numbers = (length: number) => new Float64Array(length);
  return {
    second: numbers(SECOND_SLOTS),
    version: numbers(SECOND_SLOTS),
    lastRow: Array.from({ length: SECOND_SLOTS }, () => null),
    high: numbers(SECOND_SLOTS),
    low: numbers(SECOND_SLOTS),
    volume: numbers(SECOND_SLOTS),
    count: numbers(SECOND_SLOTS),
    sparkBucket: numbers(SPARK_BUCKETS),
    sparkAtMs: numbers(SPARK_BUCKETS),
    sparkPrice: numbers(SPARK_BUCKETS),
    rateSecond: numbers(RATE_SLOTS),
    rateCount: numbers(RATE_SLOTS),
  };
}

function noteLine(line: Line, row: TradeRow, version: number): void {
  const { trade_timestamp: atMs, ingest_timestamp: receivedAtMs, price, volume } = row;
  noteRate(line, Math.floor(receivedAtMs / 1_000));
  noteSpark(line, atMs, price);
  const second = Math.floor(atMs / 1_000);
  const slot = second % SECOND_SLOTS;
  const known = line.second[slot]!;
  if (second < known) return; // Too late for the line; the tables have it.
  if (second > known) {
    line.second[slot] = second;
    line.lastRow[slot] = row;
    line.high[slot] = price;
    line.low[slot] = price;
    line.volume[slot] = volume;
    line.count[slot] = 1;
  } else {
    if (isAfter(row, line.lastRow[slot]!)) line.lastRow[slot] = row;
    if (price > line.high[slot]!) line.high[slot] = price;
    if (price < line.low[slot]!) line.low[slot] = price;
    line.volume[slot]! += volume;
    line.count[slot]! += 1;
  }
  line.version[slot] = version;
}

function noteSpark(line: Line, atMs: number, price: number): void {
  const bucket = Math.floor(atMs / SPARK_BUCKET_MS);
  const slot = bucket % SPARK_BUCKETS;
  const known = line.sparkBucket[slot]!;
  if (bucket < known || (bucket === known && atMs < line.sparkAtMs[slot]!)) return;
  line.sparkBucket[slot] = bucket;
  line.sparkAtMs[slot] = atMs;
  line.sparkPrice[slot] = price;
}

function noteRate(line: Line, second: number): void {
  const slot = second % RATE_SLOTS;
  const known = line.rateSecond[slot]!;
  if (second < known) return;
  line.rateCount[slot] = second === known ? line.rateCount[slot]! + 1 : 1;
  line.rateSecond[slot] = second;
}

function countBefore(line: Line, endSecond: number): number {
  let count = 0;
  for (let slot = 0; slot < RATE_SLOTS; slot++) {
    const second = line.rateSecond[slot]!;
    if (second >= endSecond - RATE_SECONDS && second < endSecond) count += line.rateCount[slot]!;
  }
  return count;
}

function secondsOf(line: Line, fromSecond: number, since: number): SecondTuple[] {
  const seconds: SecondTuple[] = [];
  for (let slot = 0; slot < SECOND_SLOTS; slot++) {
    const row = line.lastRow[slot];
    const second = line.second[slot]!;
    if (!row || second <= fromSecond || line.version[slot]! <= since) continue;
    seconds.push([
      second,
      row.price,
      line.high[slot]!,
      line.low[slot]!,
      line.volume[slot]!,
      line.count[slot]!,
    ]);
  }
  return seconds.sort(([a], [b]) => a - b);
}

// --- How long storing took -------------------------------------------------------------------------------------

/** A histogram a second, so that the oldest can be let go. */
function createLatencies() {
  const counts = Array.from({ length: LATENCY_SECONDS }, () => new Uint32Array(LATENCY_BUCKETS));
  const seconds = new Float64Array(LATENCY_SECONDS);
  let current = counts[0]!;
  return {
    turnTo(nowMs: number): void {
      const second = Math.floor(nowMs / 1_000);
      const slot = second % LATENCY_SECONDS;
      current = counts[slot]!;
      if (seconds[slot] === second) return;
      seconds[slot] = second;
      current.fill(0);
    },
    observe(latencyMs: number): void {
      current[bucketOf(latencyMs)]! += 1;
    },
    over(nowMs: number): Latency | null {
      const sinceSecond = Math.floor(nowMs / 1_000) - LATENCY_SECONDS;
      const sums = new Float64Array(LATENCY_BUCKETS);
      let tradeCount = 0;
      for (const [slot, histogram] of counts.entries()) {
        if (seconds[slot]! <= sinceSecond) continue;
        for (let bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
          sums[bucket]! += histogram[bucket]!;
          tradeCount += histogram[bucket]!;
        }
      }
      if (tradeCount === 0) return null;
      return {
        p50Ms: quantile(sums, tradeCount * 0.5),
        p99Ms: quantile(sums, tradeCount * 0.99),
        tradeCount,
      };
    },
  };
}

/** A clock that stepped back makes it negative: that is none. */
function bucketOf(latencyMs: number): number {
  if (latencyMs < LATENCY_EXACT_MS) return latencyMs > 0 ? latencyMs | 0 : 0;
  const step = Math.floor(Math.log2(latencyMs / LATENCY_EXACT_MS) * LATENCY_STEPS_PER_OCTAVE);
  return Math.min(LATENCY_BUCKETS - 1, LATENCY_EXACT_MS + step);
}

function quantile(sums: Float64Array, rank: number): number {
  let seen = 0;
  let bucket = 0;
  for (; bucket < sums.length - 1; bucket++) {
    seen += sums[bucket]!;
    if (seen >= rank) break;
  }
  if (bucket < LATENCY_EXACT_MS) return bucket;
  return Math.round(LATENCY_EXACT_MS * 2 ** ((bucket - LATENCY_EXACT_MS + 0.5) / LATENCY_STEPS_PER_OCTAVE));
}
