// The operator's replays. `replayRows` reads what the log still has once more, writes its rows, and then their
// windows as the trades table says; it commits nothing, so no reader notices. `replayDead` sends what was put aside
// and can be taken now as messages, so that it goes the way of every trade. Both may be run any number of times:
// every trade has the identity that it had, or would have had, the first time.

import { chunkBy } from "../base/chunk.ts";
import type { Clock } from "../base/clock.ts";
import { RowRefusedError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { LogEntry, LogWriter, PartitionId } from "../contracts/log.ts";
import type { StoreWriter, TimeRange } from "../contracts/store.ts";
import type { WindowRow } from "../model/aggregates.ts";
import { decodeMessage, encodeMessage } from "../model/codec.ts";
import { type DeadLetter, isPlaceholder } from "../model/dead-letter.ts";
import { derivedSession, tradeUuids } from "../model/identity.ts";
import { paneStart } from "../model/panes.ts";
import { DAY_MS, type Message, type TradeRow, tradeRow } from "../model/trade.ts";
import { badTrade } from "../model/validate.ts";
import { deadLetterOf } from "../processing/decode.ts";
import { recomputeAround } from "../processing/recompute.ts";
import { redriveDeadLetter } from "./redrive.ts";
import { retryForOperator } from "./retry.ts";

/** A record of the topic as it lies there; `partition` and `offset` say where. */
export type ReplayRecord = Readonly<{
  partition: PartitionId;
  offset: number;
  timestampMs: number;
  value: Uint8Array;
}>;

export type ReplayDeps = Readonly<{
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
  /** Trades not written: older than the retention, no trades that can be true, or refused by the store. */
  expired: number;
  unfit: number;
  refused: number;
  windows: number;
};

/** Held before they are put, some MB: they fill the puts of many groups. */
const ROWS_HELD_MAX = 20_000;
/** Whose windows wait to be computed; then they are, and reading goes on. */
const PANES_TOUCHED_MAX = 20_000;
const WINDOWS_PER_PUT_MAX = 500;

/** Writes the rows of every message that was received in the range, and then the windows of these rows. */
export async function replayRows(
  deps: ReplayDeps,
  records: AsyncIterable<ReplayRecord>,
  range: TimeRange,
): Promise<Replayed> {
  const { store, clock, retentionDays, signal } = deps;
  const replayed = nothingReplayed();
  const touched = touchedPanes(deps, replayed);
  let held: TradeRow[] = [];

  for await (const { value } of records) {
    signal.throwIfAborted();
    replayed.records += 1;
    const decoded = decodeMessage(value);
    if (!decoded.ok) continue; // market.dead has it.
    const { session, sequence, receivedAtMs, trades } = decoded.message;
    if (receivedAtMs < range.fromMs || receivedAtMs >= range.toMs) continue;
    replayed.messages += 1;
    if (isExpired(receivedAtMs, retentionDays, clock)) {
      replayed.expired += trades.length;
      continue;
    }
    const uuidOf = tradeUuids(session, sequence, receivedAtMs);
    for (const [index, trade] of trades.entries()) {
      if (badTrade(trade, receivedAtMs) === null) held.push(tradeRow(trade, uuidOf(index), receivedAtMs));
      else if (!isPlaceholder(trade)) replayed.unfit += 1;
    }
    if (held.length >= ROWS_HELD_MAX) await putHeld();
  }
  await putHeld();
  await touched.write();
  return replayed;

  async function putHeld(): Promise<void> {
    const groups = groupsOf(store, held);
    held = [];
    let next = 0;
    const putOneByOne = async () => {
      for (let group = groups[next++]; group !== undefined; group = groups[next++]) await put(group);
    };
    await Promise.all(Array.from({ length: store.putsInFlightMax }, putOneByOne));
    if (touched.isFull()) await touched.write();
  }

  async function put(group: readonly TradeRow[]): Promise<void> {
    try {
      await retryForOperator(clock, signal, () => store.putTrades(group));
      replayed.rows += group.length;
      touched.note(group);
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      const [row] = group;
      if (group.length > 1) for (const one of group) await put([one]);
      else if (row !== undefined) {
        replayed.refused += 1;
        await retryForOperator(clock, signal, () => store.putDead([deadLetterOf({ row })]));
      }
    }
  }
}

/** Writes the windows of the given rows that were received in the range: for a store that outlives its log. */
export async function replayWindows(
  deps: ReplayDeps,
  pages: AsyncIterable<readonly TradeRow[]>,
  range: TimeRange,
): Promise<Replayed> {
  const replayed = nothingReplayed();
  const touched = touchedPanes(deps, replayed);
  for await (const rows of pages) {
    touched.note(
      rows.filter((row) => row.ingest_timestamp >= range.fromMs && row.ingest_timestamp < range.toMs),
    );
    if (touched.isFull()) await touched.write();
  }
  await touched.write();
  return replayed;
}

function nothingReplayed(): Replayed {
  return { records: 0, messages: 0, rows: 0, expired: 0, unfit: 0, refused: 0, windows: 0 };
}

/** `<=`: a time to live of 0 would be for ever. */
function isExpired(receivedAtMs: number, retentionDays: number, clock: Clock): boolean {
  return receivedAtMs + retentionDays * DAY_MS <= clock.now();
}

/** The panes whose rows were written, until their windows are: read from the table, at the fuller row's versions. */
function touchedPanes({ store, clock, logger, signal }: ReplayDeps, replayed: Replayed) {
  let panes = new Map<string, Set<number>>();
  let count = 0;

  async function put(windows: readonly WindowRow[]): Promise<void> {
    try {
      await retryForOperator(clock, signal, () => store.putWindows(windows));
      replayed.windows += windows.length;
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      if (windows.length > 1) for (const window of windows) await put([window]);
      else logger.error("the store refuses an aggregate for good", { error, window: windows[0] });
    }
  }

  return {
    isFull: () => count >= PANES_TOUCHED_MAX,
    note(rows: readonly TradeRow[]): void {
      for (const { symbol, trade_timestamp } of rows) {
        const starts = panes.get(symbol) ?? new Set<number>();
        if (starts.size === 0) panes.set(symbol, starts);
        const sizeBefore = starts.size;
        starts.add(paneStart(trade_timestamp));
        count += starts.size - sizeBefore;
      }
    },
    async write(): Promise<void> {
      const due = panes;
      panes = new Map();
      count = 0;
      for (const [symbol, starts] of due) {
        for await (const windows of recomputeAround(store, clock, symbol, starts)) {
          for (let from = 0; from < windows.length; from += WINDOWS_PER_PUT_MAX)
            await put(windows.slice(from, from + WINDOWS_PER_PUT_MAX));
          signal.throwIfAborted();
        }
      }
    },
  };
}

/** Rows of one put share the store's group, up to its size. */
function groupsOf(store: StoreWriter, rows: readonly TradeRow[]): TradeRow[][] {
  return chunkBy(rows, (row) => store.groupOf(row), store.rowsPerPutMax);
}

// ---- Dead letters -----------------------------------------------------------------------------------------------

export type RedriveDeps = Readonly<{
  log: LogWriter;
  /** Of the topic, all that there ever were: the place of a message without an identity is found among them. */
  partitions: readonly PartitionId[];
  clock: Clock;
  retentionDays: number;
  signal: AbortSignal;
}>;

export type RedriveCounts = {
  letters: number;
  /** Letters of which something was sent. */
  taken: number;
  messages: number;
  trades: number;
  /** Trades of letters older than the retention. */
  expired: number;
  /** What cannot be taken even now: trades, or letters without a trade that can be read, by reason. */
  unfit: Record<string, number>;
};

/** One append: some hundred KB. */
const ENTRIES_HELD_MAX = 256;
const ENTRY_BYTES_HELD_MAX = 512 * 1_024;

/** Sends what can be taken now. Letters stay where they are: sent again, they write the same rows. */
export async function redriveAll(
  { log, partitions, clock, retentionDays, signal }: RedriveDeps,
  deadLetters: AsyncIterable<DeadLetter>,
): Promise<RedriveCounts> {
  const replayed: RedriveCounts = { letters: 0, taken: 0, messages: 0, trades: 0, expired: 0, unfit: {} };
  const places = new Map(partitions.map((partition) => [derivedSession(partition, ""), partition]));
  let held: LogEntry[] = [];
  let heldBytes = 0;

  for await (const deadLetter of deadLetters) {
    signal.throwIfAborted();
    replayed.letters += 1;
    const { messages, unfit } = redriveDeadLetter(deadLetter, places);
    for (const reason of unfit) replayed.unfit[reason] = (replayed.unfit[reason] ?? 0) + 1;
    const messagesBefore = replayed.messages;
    for (const message of messages) await take(message);
    if (replayed.messages > messagesBefore) replayed.taken += 1;
  }
  await send();
  return replayed;

  async function take(message: Message): Promise<void> {
    const tradeCount = message.trades.filter((trade) => !isPlaceholder(trade)).length;
    if (isExpired(message.receivedAtMs, retentionDays, clock)) {
      replayed.expired += tradeCount;
      return;
    }
    const entry: LogEntry = {
      kind: "trades",
      key: message.trades[0]?.symbol ?? "",
      value: encodeMessage(message),
    };
    held.push(entry);
    heldBytes += entry.value.length;
    replayed.messages += 1;
    replayed.trades += tradeCount;
    if (held.length >= ENTRIES_HELD_MAX || heldBytes >= ENTRY_BYTES_HELD_MAX) await send();
  }

  async function send(): Promise<void> {
    const entries = held;
    held = [];
    heldBytes = 0;
    if (entries.length > 0) await retryForOperator(clock, signal, () => log.append(entries));
  }
}
