// Decodes a batch of the log into rows, feed events and dead letters, each with the in-flight record it came in.
// Nothing is left out: what cannot be read, or cannot be true, becomes a dead letter with a reason.

import { decodeDeadLetter, decodeEvent, decodeMessage, encodeMessage, readForeign } from "../model/codec.ts";
import { type DeadLetter, type DeadReason, isPlaceholder, WHOLE_MESSAGE } from "../model/dead-letter.ts";
import { derivedSequence, derivedSession, identityOf, tradeUuids } from "../model/identity.ts";
import { type FeedEventRow, type TradeRow, tradeOfRow, tradeRow } from "../model/trade.ts";
import { badTrade, knownAtMs } from "../model/validate.ts";
import type { InFlight } from "./offset-tracker.ts";
import type { PartitionState, PendingRow } from "./partition-state.ts";

/** The fields of a log record that are decoded; contracts/log.ts describes them. */
type UndecodedRecord = Readonly<{
  kind: "trades" | "event" | "dead";
  offset: number;
  timestampMs: number;
  value: Uint8Array;
}>;

/** An event or a dead letter on its way into the store. */
export type Pending<T> = Readonly<{ item: T; inFlight: InFlight }>;

export type DecodedBatch = {
  rows: PendingRow[];
  events: Pending<FeedEventRow>[];
  deadLetters: Pending<DeadLetter>[];
};

/** Synchronous, so that sessions and in-flight records are seen in offset order. `partitionId`: `topic/number`. */
export function decodeBatch(
  partition: PartitionState,
  partitionId: string,
  records: readonly UndecodedRecord[],
): DecodedBatch {
  const decoded: DecodedBatch = { rows: [], events: [], deadLetters: [] };
  for (const record of records) {
    if (record.kind === "trades") decodeTrades(partition, partitionId, record, decoded);
    else decodeSideRecord(partition, partitionId, record, decoded);
  }
  return decoded;
}

/** The rows of one message as the table will hold them, without trades that will be dead letters. For a live view. */
export function rowsIn({ value, timestampMs }: Pick<UndecodedRecord, "value" | "timestampMs">): TradeRow[] {
  const decoded = decodeMessage(value);
  if (!decoded.ok) return [];
  const { session, sequence, receivedAtMs, trades } = decoded.message;
  const uuidOf = tradeUuids(session, sequence, receivedAtMs);
  const judgedAtMs = knownAtMs(receivedAtMs, timestampMs);
  return trades.flatMap((trade, index) =>
    badTrade(trade, judgedAtMs) === null ? [tradeRow(trade, uuidOf(index), receivedAtMs)] : [],
  );
}

/** The dead letter of a row that the store refuses. */
export function deadLetterOf({ row }: Pick<PendingRow, "row">): DeadLetter {
  const { session, sequence, index: item } = identityOf(row.uuid);
  const receivedAtMs = row.ingest_timestamp;
  const payload = encodeMessage({ session, sequence, receivedAtMs, trades: [tradeOfRow(row)] });
  return { session, sequence, item, receivedAtMs, reason: "refused_by_store", source: "processor", payload };
}

function decodeTrades(
  partition: PartitionState,
  partitionId: string,
  record: UndecodedRecord,
  { rows, deadLetters }: DecodedBatch,
): void {
  const decoded = decodeMessage(record.value);
  if (!decoded.ok) {
    const inFlight = partition.tracker.open(record.offset + 1, record.timestampMs, 1);
    deadLetters.push({ item: wholeDeadLetter(partitionId, record, decoded.reason), inFlight });
    return;
  }
  const { session, sequence, receivedAtMs, trades } = decoded.message;
  const isResend = partition.observeMessage(session, sequence);
  // The earlier of the two: a message may have waited to be appended.
  const receivedSinceMs = Math.min(record.timestampMs, receivedAtMs);
  const inFlight = partition.tracker.open(record.offset + 1, receivedSinceMs, trades.length);
  const uuidOf = tradeUuids(session, sequence, receivedAtMs);
  const judgedAtMs = knownAtMs(receivedAtMs, record.timestampMs);
  for (const [item, trade] of trades.entries()) {
    const reason = badTrade(trade, judgedAtMs);
    if (reason === null) {
      partition.observeTradeTime(trade.tradedAtMs);
      rows.push({ row: tradeRow(trade, uuidOf(item), receivedAtMs), inFlight, isResend });
    } else if (isPlaceholder(trade)) {
      partition.tracker.acknowledge(inFlight);
    } else {
      const payload = encodeMessage({ session, sequence, receivedAtMs, trades: [trade] });
      deadLetters.push({
        item: { session, sequence, item, receivedAtMs, reason, source: "processor", payload },
        inFlight,
      });
    }
  }
}

function decodeSideRecord(
  partition: PartitionState,
  partitionId: string,
  record: UndecodedRecord,
  { events, deadLetters }: DecodedBatch,
): void {
  const inFlight = partition.tracker.open(record.offset + 1, record.timestampMs, 1);
  const event = record.kind === "event" ? decodeEvent(record.value) : null;
  if (event !== null) {
    events.push({ item: event, inFlight });
    return;
  }
  const deadLetter = record.kind === "dead" ? decodeDeadLetter(record.value) : null;
  deadLetters.push({ item: deadLetter ?? wholeDeadLetter(partitionId, record, "undecodable"), inFlight });
}

/** It takes the identity of its content where there is one, so that a copy becomes the same dead letter. */
function wholeDeadLetter(partitionId: string, record: UndecodedRecord, reason: DeadReason): DeadLetter {
  const derived = {
    session: derivedSession(partitionId, ""),
    sequence: derivedSequence(record.offset),
    receivedAtMs: record.timestampMs,
  };
  return {
    ...(readForeign(record.value)?.identity ?? derived),
    item: WHOLE_MESSAGE,
    reason,
    source: "processor",
    payload: record.value,
  };
}
