// The operator's replay of a time range: reads the records that the log still has once more, writes their rows, and then
// the windows of these rows, computed from the trades table. It commits nothing, so no reader notices. It may be run any
// number of times: every trade has the identity that it had the first time.

import { chunkBy } from "../base/chunk.ts";
import type { Clock } from "../base/clock.ts";
import { RowRefusedError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { PartitionId } from "../contracts/log.ts";
import type { StoreWriter, TimeRange } from "../contracts/store.ts";
import type { WindowRow } from "../model/aggregates.ts";
import { decodeMessage } from "../model/codec.ts";
import { isPlaceholder } from "../model/dead-letter.ts";
import { tradeUuids } from "../model/identity.ts";
import { paneStart } from "../model/panes.ts";
import { type TradeRow, tradeRow } from "../model/trade.ts";
import { badTrade, knownAtMs } from "../model/validate.ts";
import { deadLetterOf } from "../processing/decode.ts";
import { recomputeAround } from "../processing/recompute.ts";
import { isMessageExpired } from "./retention.ts";
import { retryForOperator } from "./retry.ts";

/** A record of the topic, with its place. */
export type ReplayRecord = Readonly<{
  partition: PartitionId;
  offset: number;
  timestampMs: number;
  value: Uint8Array;
}>;

type ReplayDeps = Readonly<{
  store: StoreWriter;
  clock: Clock;
  logger: Logger;
  retentionDays: number;
  signal: AbortSignal;
}>;

export type Replayed = {
  /** Records read, and those of them that are messages received in the range. */
  records: number;
  messages: number;
  rows: number;
  /** Trades not written: older than the retention, not valid, or refused by the store. The keys are those of --json. */
  expired: number;
  unfit: number;
  refused: number;
  windows: number;
};

/** Rows in memory before they are put, some MB: they fill the puts of many groups. */
const ROWS_BUFFERED_MAX = 20_000;
/** Panes whose windows wait to be computed; when there are more, reading pauses until they are. */
const PANES_TOUCHED_MAX = 20_000;
const WINDOWS_PER_PUT_MAX = 500;

/** Writes the rows of every message that was received in the range, and then the windows of these rows. */
export async function replayRows(
  deps: ReplayDeps,
  records: AsyncIterable<ReplayRecord>,
  range: TimeRange,
): Promise<Replayed> {
  const { clock, retentionDays, signal } = deps;
  const replayed = nothingReplayed();
  const writer = new ReplayWriter(deps, replayed);
  for await (const { value, timestampMs } of records) {
    signal.throwIfAborted();
    replayed.records += 1;
    const decoded = decodeMessage(value);
    if (!decoded.ok) continue; // It is a dead letter already.
    const { session, sequence, receivedAtMs, trades } = decoded.message;
    if (!isReceivedIn(range, receivedAtMs)) continue;
    replayed.messages += 1;
    if (isMessageExpired(decoded.message, retentionDays, clock.now())) {
      replayed.expired += trades.length;
      continue;
    }
    const uuidOf = tradeUuids(session, sequence, receivedAtMs);
    const judgedAtMs = knownAtMs(receivedAtMs, timestampMs);
    for (const [index, trade] of trades.entries()) {
      if (badTrade(trade, judgedAtMs) === null) writer.add(tradeRow(trade, uuidOf(index), receivedAtMs));
      else if (!isPlaceholder(trade)) replayed.unfit += 1;
    }
    if (writer.isFull()) await writer.putRows();
  }
  await writer.putRows();
  await writer.putWindows();
  return replayed;
}

/** Writes the windows of the given rows that were received in the range: for a store that outlives its log. */
export async function replayWindows(
  deps: ReplayDeps,
  pages: AsyncIterable<readonly TradeRow[]>,
  range: TimeRange,
): Promise<Replayed> {
  const replayed = nothingReplayed();
  const writer = new ReplayWriter(deps, replayed);
  for await (const rows of pages) {
    await writer.touch(rows.filter((row) => isReceivedIn(range, row.ingest_timestamp)));
  }
  await writer.putWindows();
  return replayed;
}

function isReceivedIn({ fromMs, toMs }: TimeRange, receivedAtMs: number): boolean {
  return receivedAtMs >= fromMs && receivedAtMs < toMs;
}

export function nothingReplayed(): Replayed {
  return { records: 0, messages: 0, rows: 0, expired: 0, unfit: 0, refused: 0, windows: 0 };
}

/** Puts rows, and then the windows of their panes: read from the table, at the fuller row's versions. */
export class ReplayWriter {
  readonly #deps: ReplayDeps;
  /** What is put is counted there. */
  readonly #replayed: Replayed;
  #rows: TradeRow[] = [];
  /** By symbol, the starts of the panes whose windows are to be computed. */
  #panes = new Map<string, Set<number>>();
  #paneCount = 0;

  constructor(deps: ReplayDeps, replayed: Replayed) {
    this.#deps = deps;
    this.#replayed = replayed;
  }

  add(row: TradeRow): void {
    this.#rows.push(row);
  }

  isFull(): boolean {
    return this.#rows.length >= ROWS_BUFFERED_MAX;
  }

  /** Puts the rows that were added, as many groups at once as the store takes. */
  async putRows(): Promise<void> {
    const { store } = this.#deps;
    const groups = chunkBy(this.#rows, (row) => store.groupOf(row), store.rowsPerPutMax);
    this.#rows = [];
    let next = 0;
    const putOneByOne = async () => {
      for (let group = groups[next++]; group !== undefined; group = groups[next++]) await this.#put(group);
    };
    await Promise.all(Array.from({ length: store.putsInFlightMax }, putOneByOne));
    await this.#putWindowsIfMany();
  }

  /** Marks the panes of rows that the table has. When there are too many, their windows are put. */
  async touch(rows: readonly TradeRow[]): Promise<void> {
    this.#mark(rows);
    await this.#putWindowsIfMany();
  }

  async putWindows(): Promise<void> {
    const { store, clock, signal } = this.#deps;
    const panes = this.#panes;
    this.#panes = new Map();
    this.#paneCount = 0;
    for (const [symbol, starts] of panes) {
      for await (const windows of recomputeAround(store, clock, symbol, starts)) {
        for (let from = 0; from < windows.length; from += WINDOWS_PER_PUT_MAX) {
          await this.#putWindows(windows.slice(from, from + WINDOWS_PER_PUT_MAX));
        }
        signal.throwIfAborted();
      }
    }
  }

  async #putWindowsIfMany(): Promise<void> {
    if (this.#paneCount >= PANES_TOUCHED_MAX) await this.putWindows();
  }

  #mark(rows: readonly TradeRow[]): void {
    for (const { symbol, trade_timestamp } of rows) {
      const starts = this.#panes.get(symbol) ?? new Set<number>();
      if (starts.size === 0) this.#panes.set(symbol, starts);
      const sizeBefore = starts.size;
      starts.add(paneStart(trade_timestamp));
      this.#paneCount += starts.size - sizeBefore;
    }
  }

  async #put(group: readonly TradeRow[]): Promise<void> {
    const { store, clock, signal } = this.#deps;
    try {
      await retryForOperator(clock, signal, () => store.putTrades(group));
      this.#replayed.rows += group.length;
      this.#mark(group);
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      const [row] = group;
      if (group.length > 1) for (const one of group) await this.#put([one]);
      else if (row !== undefined) {
        this.#replayed.refused += 1;
        await retryForOperator(clock, signal, () => store.putDead([deadLetterOf({ row })]));
      }
    }
  }

  async #putWindows(windows: readonly WindowRow[]): Promise<void> {
    const { store, clock, logger, signal } = this.#deps;
    try {
      await retryForOperator(clock, signal, () => store.putWindows(windows));
      this.#replayed.windows += windows.length;
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      if (windows.length > 1) for (const window of windows) await this.#putWindows([window]);
      else logger.error("the store refuses an aggregate for good", { error, window: windows[0] });
    }
  }
}
