// What the processor remembers of one partition during one epoch. An aggregate is a pure function of the trades
// table; this is a cache of that function, with exact knowledge of what the cache may answer for. It is synchronous
// and is told the time, so each method is one step that nothing interleaves with. All of it is dropped when the epoch
// ends.
//
// The rule that everything rests on: each symbol has a HORIZON. A pane that begins after the horizon is completely in
// memory; if it is absent, it is empty. Every other pane is complete only in the table and must be read from there,
// whether or not a row of this epoch has touched it. A horizon only rises.

import { addTrade, newPane, type Pane, paneStart } from "../model/panes.ts";
import type { TradeRow } from "../model/trade.ts";
import { panesOfWindow, type Window, windowsOfPane } from "../model/windows.ts";
import type { Bound } from "./bound.ts";
import { type InFlight, OffsetTracker } from "./offset-tracker.ts";

/** About 600 bytes each: 6 MB. A 1-minute candle of 50 symbols needs 600, the rest is for late trades and replays. */
const PANES_MAX = 10_000;
/** A pane that no row has touched for so long is cheaper to read again than to keep. */
export const PANE_IDLE_MS = 180_000;
/**
 * One entry per run of a producer, kept for the epoch. Above it every message of a new session counts as a resend,
 * which costs reads and is never wrong.
 */
export const SESSIONS_MAX = 100_000;
/** Receipts may be out of the log's order by this much: an append was repeated, a clock was set back a little. */
const RECEIPT_MARGIN_MS = 60_000;
/** Panes read back and kept until their next row. Dropping one costs another read. */
const READS_MAX = 10_000;

/** One row on its way into the store, with the record it came in. */
export type PendingRow = Readonly<{ row: TradeRow; inFlight: InFlight; isResend: boolean }>;

/** What query 2 drained: once all windows are stored, `offset` may be committed, with `bound`. */
type Flush = Readonly<{ windows: readonly Window[]; offset: number; bound: Bound }>;

type MemoryPane = { pane: Pane; touchedAtMs: number };
/** A read of a pane; `pane` is null until it has ended. Once the object is replaced or deleted, the read is void. */
type PaneRead = { pane: Pane | null };
type SymbolMemory = {
  /** Memory answers for each pane that starts after it, ms since 1970. */
  horizonMs: number;
  /** By start; each after the horizon. */
  panes: Map<number, MemoryPane>;
  reads: Map<number, PaneRead>;
  /** Starts of panes whose windows have all been put into #dirtyWindows since the last flush. */
  dirtyPanes: Set<number>;
};

export class PartitionState {
  readonly tracker: OffsetTracker;
  /** Where the next batch must begin. */
  expectedOffset: number;
  committedOffset: number;
  /** Whether there is a flush whose windows are neither all stored nor dirty again. */
  isFlushing = false;
  /** Of all rows of this epoch, by the clocks of their producers. */
  newestReceiptMs = 0;

  readonly #horizonAtStartMs: number;
  readonly #panesMax: number;
  #bound: Bound;
  readonly #sessions = new Map<string, number>();
  readonly #symbols = new Map<string, SymbolMemory>();
  /** Symbol and start of each pane in memory, in order of creation, which is the order of eviction. */
  readonly #created = new Map<MemoryPane, Readonly<{ symbol: string; startMs: number }>>();
  #dirtyWindows = new Map<string, Window>();
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
    return this.#dirtyWindows.size;
  }

  get paneCount(): number {
    return this.#created.size;
  }

  /** Panes that were read back and kept, or are being read. */
  get readCount(): number {
    return this.#readCount;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Whether a message may be a copy of an earlier one. To be called in offset order: it remembers the message. */
  observeMessage(session: string, sequence: number): boolean {
    const highest = this.#sessions.get(session);
    if (highest !== undefined && sequence <= highest) return true;
    if (highest === undefined && this.#sessions.size >= SESSIONS_MAX) return true;
    this.#sessions.set(session, sequence);
    return false;
  }

  /** To be called for every trade that may reach the table, before the watermark can pass its record. */
  observeTradeTime(tradedAtMs: number): void {
    if (tradedAtMs > this.#bound.maxTradeMs) this.#bound = { ...this.#bound, maxTradeMs: tradedAtMs };
  }

  /** The store has the row: in one step it enters its pane, its windows are dirty and the watermark may move. */
  acknowledgeRow({ row, inFlight, isResend }: PendingRow, nowMs: number): void {
    const startMs = paneStart(row.trade_timestamp);
    const memory = this.#symbol(row.symbol);
    this.newestReceiptMs = Math.max(this.newestReceiptMs, row.ingest_timestamp);
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

  /** One step for a row that became a dead letter. An earlier attempt may have stored it: only the table knows. */
  acknowledgeRefused({ row, inFlight }: PendingRow): void {
    const startMs = paneStart(row.trade_timestamp);
    this.#raiseHorizon(this.#symbol(row.symbol), startMs);
    this.markDirty(row.symbol, startMs);
    this.tracker.acknowledge(inFlight);
  }

  /** The next flush writes the windows of this pane. */
  markDirty(symbol: string, paneStartMs: number): void {
    const { dirtyPanes } = this.#symbol(symbol);
    if (dirtyPanes.has(paneStartMs)) return;
    dirtyPanes.add(paneStartMs);
    for (const window of windowsOfPane(symbol, paneStartMs)) this.#dirtyWindows.set(keyOf(window), window);
  }

  /** In one step: every dirty window, and how far the rows are stored at this moment. */
  drainDirty(): Flush {
    const windows = [...this.#dirtyWindows.values()];
    this.#dirtyWindows = new Map();
    for (const { dirtyPanes } of this.#symbols.values()) dirtyPanes.clear();
    const { watermark: offset, passedSinceMs } = this.tracker;
    if (passedSinceMs !== null)
      this.#bound = { ...this.#bound, receivedSinceMs: passedSinceMs - RECEIPT_MARGIN_MS };
    return { windows, offset, bound: this.#bound };
  }

  /** The next flush writes windows that this one could not write. */
  markDirtyAgain(windows: readonly Window[]): void {
    for (const window of windows) this.#dirtyWindows.set(keyOf(window), window);
  }

  /**
   * In one step, either all panes of a window or the starts of those that must be read first. `readNow` holds what
   * the current flush has read since its drain. Such a pane has every row that was acknowledged before the drain,
   * which is all that the flush's commit speaks for.
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

  /** A read of a pane begins now. Rows acknowledged from here on may be missing from its result. */
  beginRead(symbol: string, startMs: number): PaneRead {
    const read: PaneRead = { pane: null };
    const { reads } = this.#symbol(symbol);
    if (!reads.has(startMs)) this.#readCount += 1;
    reads.set(startMs, read);
    if (this.#readCount > READS_MAX) this.#forgetReads();
    return read;
  }

  /** The result of a read. It is kept for later flushes only if no row of the pane was acknowledged meanwhile. */
  endRead(symbol: string, startMs: number, read: PaneRead, pane: Pane): void {
    if (this.#symbol(symbol).reads.get(startMs) === read) read.pane = pane;
  }

  /** Drops panes that no row has touched for PANE_IDLE_MS. */
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

  /** From now on the table answers for this pane and for every older pane of the symbol. */
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
