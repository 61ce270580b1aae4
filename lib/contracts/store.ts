// Contract: where rows are kept and read again.
//
// Every put is idempotent: the same rows may be put any number of times, by any process, in any order. A put
// resolves when all its rows are stored. It rejects with StoreUnavailableError when trying again may help
// (any part of it may have been written), with RowRefusedError when one of its rows is invalid.
// Aggregates carry a version (windowVersion): a poorer row never replaces a fuller one.

import type {
  AverageKind,
  AverageRow,
  CandleKind,
  CandleRow,
  WindowKind,
  WindowRow,
} from "../model/aggregates.ts";
import type { DeadLetter } from "../model/dead-letter.ts";
import type { FeedEventRow, TradeRow } from "../model/trade.ts";
import type { Window } from "../model/windows.ts";

/** Half-open: [fromMs, toMs). */
export type TimeRange = Readonly<{ fromMs: number; toMs: number }>;

/** Newest first. `before` continues a page: only rows that sort after it. */
export type TradeQuery = Readonly<{
  symbol: string;
  range: TimeRange;
  limit: number;
  before?: Readonly<{ trade_timestamp: number; uuid: string }>;
}>;
export type WindowQuery = Readonly<{ symbol: string; range: TimeRange; limit: number }>;

export interface StoreWriter {
  /** Rows of one put share this name and are at most rowsPerPutMax; putsInFlightMax puts may run at once. */
  groupOf(row: TradeRow): string;
  readonly rowsPerPutMax: number;
  readonly putsInFlightMax: number;
  putTrades(rows: readonly TradeRow[]): Promise<void>;
  putWindows(windows: readonly WindowRow[]): Promise<void>;
  putEvents(rows: readonly FeedEventRow[]): Promise<void>;
  putDead(deadLetters: readonly DeadLetter[]): Promise<void>;
  /** Whether `trades` holds no row at all. */
  isEmpty(): Promise<boolean>;
  /**
   * Every row of one symbol in [fromMs, toMs), each once, in pages of a bounded size, in any order: all that was
   * put before the call, and perhaps some of what is put while it runs.
   */
  scanTrades(symbol: string, range: TimeRange): AsyncIterable<readonly TradeRow[]>;
  /**
   * Rows received at or after the time, in pages; null = in the last two hours in which anything was received.
   * Only where the store can outlive the end of the log (two files, one power cut), so that the windows of
   * rows whose records are gone are computed all the same.
   */
  scanReceived?(sinceMs: number | null): AsyncIterable<readonly TradeRow[]>;
}

export interface StoreReader {
  listTrades(query: TradeQuery): Promise<readonly TradeRow[]>;
  /** Windows whose window_end lies in the range; without a kind those of 15 seconds. */
  listAverages(query: WindowQuery, kind?: AverageKind): Promise<readonly AverageRow[]>;
  /** Over how many days listCandles answers in some 100 ms, wherever in them the rows are. Absent: over any range. */
  readonly candleDaysMax?: number;
  /** Windows whose window_start lies in the range; without a kind those of a minute. */
  listCandles(query: WindowQuery, kind?: CandleKind): Promise<readonly CandleRow[]>;
  listEvents(query: Readonly<{ range: TimeRange; limit: number }>): Promise<readonly FeedEventRow[]>;
}

/** One hour of one symbol, as in `trades`. */
export type SymbolHour = Readonly<{ symbol: string; hour: number }>;

/** An aggregate with the version it was written at: a later put must reach it, or changes nothing. */
export type StoredWindow = Readonly<{ window: WindowRow; version: number }>;

/**
 * What the operator's verification needs beside StoreWriter. The repair chooses the version: windowVersion for a fuller
 * row, the next odd number above the stored version for a row that must win all the same.
 */
export interface StoreMender {
  /**
   * Pages of a bounded size, in any order: every hour that overlaps the range and in which the symbol, or without
   * one any symbol, holds a trade, an average (by window_end) or a candle (by window_start). It may name other
   * hours too, and an hour more than once.
   */
  scanHours(range: TimeRange, symbol?: string): AsyncIterable<readonly SymbolHour[]>;
  /**
   * Pages, in any order: every stored window of that kind whose window_end (average) or window_start (candle) lies
   * in the range, the open and the future ones too, as it stands when its page is read.
   */
  scanWindows(kind: WindowKind, symbol: string, range: TimeRange): AsyncIterable<readonly StoredWindow[]>;
  /** The whole row at this version, its nulls written. Changes nothing where a larger version is stored. */
  putWindowAt(stored: StoredWindow): Promise<void>;
  /**
   * The window has no row any more, for every reader, until a put at a larger version brings one: what was written
   * or is still to be written below this version stays unseen. Changes nothing where a larger version is stored.
   */
  removeWindow(window: Window, version: number): Promise<void>;
}
