// What one partition's processor remembers, in one epoch: a cache of "an aggregate is a pure function of the
// trades table", and the exact knowledge of what that cache may answer for. Synchronous and told the time, so
// each method is one step that nothing interleaves with; all of it is dropped when the epoch ends.
//
// The rule that everything rests on: each symbol has a HORIZON. A pane that begins after it is in memory whole,
// and absent means empty. Every other pane is only in the table and must be read, touched or not.

import { addTrade, newPane, type Pane, paneStart } from "../model/panes.ts";
import type { TradeRow } from "../model/trade.ts";
import { panesOfWindow, type Window, windowsOfPane } from "../model/windows.ts";
import { type InFlight, OffsetTracker } from "./offset-tracker.ts";

/** About 600 bytes each: 6 MB. A 1-minute candle of 50 symbols needs 600, the rest is for late trades and replays. */
export const PANES_MAX = 10_000;
/** A pane that nobody touched for so long is cheaper to read again than to keep. */
export const PANE_IDLE_MS = 180_000;
/** One entry a producer run, kept for the epoch. Beyond it every message counts as a resend: dearer, never wrong. */
export const SESSIONS_MAX = 100_000;
/** Receipts follow the order of the log but for this: an append that was repeated, a clock set back a little. */
const RECEIPT_MARGIN_MS = 60_000;
/** Panes read back and kept until their next row; dropping one costs a read. */
const READS_MAX = 10_000;

/** One row on its way into the store, with the record it came in. */
export type PendingRow = Readonly<{ row: TradeRow; inFlight: InFlight; isResend: boolean }>;

/** What is known of the rows at a position of the log; it travels in the commit's metadata. */
export type Bound = Readonly<{
  /** Not below the largest trade time below the position; -Infinity = there is none. */
  maxTradeMs: number;
  /** Not above the receipt of any row at or above the position; null = unknown. */
  receivedSinceMs: number | null;
}>;

/** What query 2 has taken to write: when it is all stored, `offset` may be committed, with `bound`. */
export type Flush = Readonly<{ windows: readonly Window[]; offset: number; bound: Bound }>;

type MemoryPane = { pane: Pane; touchedAtMs: number };
/** A pane being read from the table, or read. The object is its identity: replaced or deleted, it is void. */
export type PaneRead = { pane: Pane | null };
type SymbolMemory = {
  horizonMs: number;
  panes: Map<number, MemoryPane>;
  reads: Map<number, PaneRead>;
  /** Starts of panes whose windows are all in #changed since the last take. */
  dirtyPanes: Set<number>;
};

export class PartitionState {
  readonly tracker: OffsetTracker;
  /** Where the next batch must begin. */
  expectedOffset: number;
  committedOffset: number;
  /** A take whose windows are neither all acknowledged nor put back. */
  isFlushing = false;

  readonly #horizonAtStartMs: number;
  readonly #panesMax: number;
  #bound: Bound;
  readonly #sessions = new Map<string, number>();
  readonly #symbols = new Map<string, SymbolMemory>();
  /** Symbol and start of each pane in memory, in the order of creation: the order of eviction. */
  readonly #created = new Map<MemoryPane, Readonly<{ symbol: string; startMs: number }>>();
  #changed = new Map<string, Window>();
  #readCount = 0;

  constructor(offset: number, bound: Bound, panesMax = PANES_MAX) {
    this.tracker = new OffsetTracker(offset);
    this.expectedOffset = offset;
    this.committedOffset = offset;
    this.#horizonAtStartMs = bound.maxTradeMs;
    this.#bound = bound;
    this.#panesMax = panesMax;
  }

  get unwrittenCount(): number {
    return this.#changed.size;
  }

  get paneCount(): number {
    return this.#created.size;
  }

  /** Panes read back and kept, or being read. */
  get readCount(): number {
    return this.#readCount;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Whether a message, met in offset order, may be a copy of an earlier one. Remembers it. */
  observeMessage(session: string, sequence: number): boolean {
    const highest = this.#sessions.get(session);
    if (highest !== undefined && sequence <= highest) return true;
    if (highest === undefined && this.#sessions.size >= SESSIONS_MAX) return true;
    this.#sessions.set(session, sequence);
    return false;
  }

  /** To be called for every trade that may reach the table, before its record can be passed. */
  observeTradeTime(tradedAtMs: number): void {
    if (tradedAtMs > this.#bound.maxTradeMs) this.#bound = { ...this.#bound, maxTradeMs: tradedAtMs };
  }

  /** The store has the row: it enters its pane, its windows have changed, the watermark moves. One step. */
  acknowledgeRow({ row, inFlight, isResend }: PendingRow, nowMs: number): void {
    const startMs = paneStart(row.trade_timestamp);
    const memory = this.#symbol(row.symbol);
    // Whether this row is in the pane already cannot be known, so the pane is read from the table from now on.
    if (isResend) this.#raiseHorizon(memory, startMs);
    if (startMs > memory.horizonMs) {
      let cached = memory.panes.get(startMs);
      if (cached === undefined) {
        cached = { pane: newPane(), touchedAtMs: nowMs };
        memory.panes.set(startMs, cached);
        this.#created.set(cached, { symbol: row.symbol, startMs });
      }
      cached.touchedAtMs = nowMs;
      addTrade(cached.pane, row);
    } else {
      this.#dropRead(memory, startMs);
    }
    this.markDirty(row.symbol, startMs);
    this.tracker.acknowledge(inFlight);
    if (this.#created.size > this.#panesMax) this.#evictOldest();
  }

  /** The row is a dead letter, but an earlier attempt may have stored it: only the table knows. One step. */
  acknowledgeRefused({ row, inFlight }: PendingRow): void {
    const startMs = paneStart(row.trade_timestamp);
    this.#raiseHorizon(this.#symbol(row.symbol), startMs);
    this.markDirty(row.symbol, startMs);
    this.tracker.acknowledge(inFlight);
  }

  /** The windows of this pane are written by the next take. */
  markDirty(symbol: string, paneStartMs: number): void {
    const { dirtyPanes } = this.#symbol(symbol);
    if (dirtyPanes.has(paneStartMs)) return;
    dirtyPanes.add(paneStartMs);
    for (const window of windowsOfPane(symbol, paneStartMs)) this.#changed.set(keyOf(window), window);
  }

  /** Takes every changed window, and remembers how far the rows were stored at this moment. One step. */
  drainDirty(): Flush {
    const windows = [...this.#changed.values()];
    this.#changed = new Map();
    for (const { dirtyPanes } of this.#symbols.values()) dirtyPanes.clear();
    const { watermark: offset, passedAtMs } = this.tracker;
    if (passedAtMs !== null)
      this.#bound = { ...this.#bound, receivedSinceMs: passedAtMs - RECEIPT_MARGIN_MS };
    return { windows, offset, bound: this.#bound };
  }

  /** Windows that could not be written wait for the next take. */
  markDirtyAgain(windows: readonly Window[]): void {
    for (const window of windows) this.#changed.set(keyOf(window), window);
  }

  /**
   * Classifies all panes of a window, in one step: its panes, or the starts that must be read first. `fresh`:
   * what the take in hand has read since it was taken; such a pane holds every row acknowledged before the
   * take, which is all that its commit speaks for.
   */
  panesOf(window: Window, readNow: ReadonlyMap<string, Pane>): { panes: Pane[]; missing: number[] } {
    const memory = this.#symbol(window.symbol);
    const panes: Pane[] = [];
    const missing: number[] = [];
    for (const startMs of panesOfWindow(window)) {
      if (startMs > memory.horizonMs) {
        const cached = memory.panes.get(startMs);
        if (cached !== undefined) panes.push(cached.pane);
        continue;
      }
      const read = memory.reads.get(startMs)?.pane ?? readNow.get(paneKey(window.symbol, startMs));
      if (read === undefined) missing.push(startMs);
      else panes.push(read);
    }
    return { panes, missing };
  }

  /** A read of a pane begins now: rows acknowledged from here on may be missing in what it brings. */
  beginRead(symbol: string, startMs: number): PaneRead {
    const read: PaneRead = { pane: null };
    const { reads } = this.#symbol(symbol);
    if (!reads.has(startMs)) this.#readCount += 1;
    reads.set(startMs, read);
    if (this.#readCount > READS_MAX) this.#forgetReads();
    return read;
  }

  /** It brought this. It is kept for later takes only if no row of the pane was acknowledged meanwhile. */
  endRead(symbol: string, startMs: number, read: PaneRead, pane: Pane): void {
    if (this.#symbol(symbol).reads.get(startMs) === read) read.pane = pane;
  }

  /** Drops what nobody touched for PANE_IDLE_MS. */
  dropIdle(nowMs: number): void {
    for (const [cached, { symbol, startMs }] of this.#created) {
      if (nowMs - cached.touchedAtMs > PANE_IDLE_MS) this.#raiseHorizon(this.#symbol(symbol), startMs);
    }
  }

  #symbol(symbol: string): SymbolMemory {
    let memory = this.#symbols.get(symbol);
    if (memory === undefined) {
      memory = {
        horizonMs: this.#horizonAtStartMs,
        panes: new Map(),
        reads: new Map(),
        dirtyPanes: new Set(),
      };
      this.#symbols.set(symbol, memory);
    }
    return memory;
  }

  /** From now on this pane and every older one of the symbol is answered by the table. */
  #raiseHorizon(memory: SymbolMemory, startMs: number): void {
    if (startMs <= memory.horizonMs) return;
    memory.horizonMs = startMs;
    for (const [start, cached] of memory.panes) {
      if (start > startMs) continue;
      memory.panes.delete(start);
      this.#created.delete(cached);
    }
  }

  #evictOldest(): void {
    const [oldest] = this.#created.values();
    if (oldest) this.#raiseHorizon(this.#symbol(oldest.symbol), oldest.startMs);
  }

  #dropRead(memory: SymbolMemory, startMs: number): void {
    if (memory.reads.delete(startMs)) this.#readCount -= 1;
  }

  #forgetReads(): void {
    for (const memory of this.#symbols.values()) memory.reads.clear();
    this.#readCount = 0;
  }
}

export function paneKey(symbol: string, startMs: number): string {
  return `${startMs} ${symbol}`;
}

function keyOf({ kind, symbol, startMs }: Window): string {
  return `${kind}${startMs} ${symbol}`;
}
