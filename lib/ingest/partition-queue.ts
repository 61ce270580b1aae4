// What one partition waits for: records that were read from the outbox and are not acknowledged, in order, the first of
// them in a send. It knows how much goes into the next batch. It reads, sends and deletes nothing.

import assert from "node:assert/strict";
import type { OutboxRecord, PartitionId } from "../contracts/log.ts";

/** Why a partition cannot be written. `isDue`: the wait before the next attempt is over. */
export type Failure = { readonly sinceMs: number; reason: string; attempt: number; isDue: boolean };

/** What a record costs beside its value, in the batch (some 20) and in memory. */
export const RECORD_OVERHEAD_BYTES = 80;
/** The bound on bytes recovers slowly: where Kafka takes less than usual, every refusal on the way is a send for nothing. */
const BATCH_BYTES_GROWTH = 1.05;
/** The bound on records doubles; from here on it is lifted, since the bound on bytes comes first. */
const BATCH_RECORDS_UNBOUNDED_FROM = 4_096;
const UNBOUNDED = Number.POSITIVE_INFINITY;

export class PartitionQueue {
  readonly partition: PartitionId;
  /** Null: it can be written, as far as is known. */
  failure: Failure | null = null;
  /** Messages put aside since the last acknowledgement. */
  deadLettersInARow = 0;

  readonly #usualBatchBytesMax: number;
  /** The bounds of the next batch: less than usual while one is looked for that is too large, or refused. */
  #batchBytesMax: number;
  #batchRecordsMax = UNBOUNDED;

  /** Taken from the outbox and not acknowledged, in order. The first `#flightCount` of them are in a send. */
  #records: OutboxRecord[] = [];
  #flightCount = 0;
  #flightBytes = 0;
  /** The bytes of the records that are not in a send. */
  #waitingBytes = 0;

  #from: number;
  #isTaking = true;

  /** `batchBytesMax` bounds one send; as much again, and a page, may wait behind it. */
  constructor(partition: PartitionId, from: number, batchBytesMax: number) {
    this.partition = partition;
    this.#from = from;
    this.#usualBatchBytesMax = batchBytesMax;
    this.#batchBytesMax = batchBytesMax;
  }

  // ---- Reading ----------------------------------------------------------------------------------------------

  /** The next offset to look at: each of its records below is held here, acknowledged or put aside. */
  get from(): number {
    return this.#from;
  }

  get isFull(): boolean {
    return this.#waitingBytes >= this.#usualBatchBytesMax;
  }

  get isHalfFull(): boolean {
    return this.#waitingBytes >= this.#usualBatchBytesMax / 2;
  }

  /** A page of the outbox is read from `start` on: it is taken if nothing before it was passed and there is room. */
  beginPage(start: number): void {
    this.#isTaking = this.#from >= start && !this.isFull;
  }

  /** A record of the page, for this partition. */
  offer(record: OutboxRecord): void {
    if (!this.#isTaking || record.offset < this.#from) return;
    this.#records.push(record);
    this.#waitingBytes += bytesOf(record);
  }

  /** The page ended before the offset `next`. */
  endPage(next: number): void {
    if (this.#isTaking) this.#from = Math.max(this.#from, next);
  }

  // ---- Sending ----------------------------------------------------------------------------------------------

  get isEmpty(): boolean {
    return this.#records.length === 0;
  }

  get isInFlight(): boolean {
    return this.#flightCount > 0;
  }

  get flightCount(): number {
    return this.#flightCount;
  }

  /** Writable, and with batches of the usual size. */
  get isHealthy(): boolean {
    return (
      this.failure === null &&
      this.#batchBytesMax === this.#usualBatchBytesMax &&
      this.#batchRecordsMax === UNBOUNDED
    );
  }

  /** Puts the front of the queue into flight. The answer is a copy: records are added behind while it is out. */
  takeBatch(): OutboxRecord[] {
    assert.equal(this.#flightCount, 0, "never two sends for one partition");
    const records = this.#records;
    let bytes = 0;
    let count = 0;
    while (count < records.length && count < this.#batchRecordsMax) {
      const added = bytesOf(records[count]!);
      if (count > 0 && bytes + added > this.#batchBytesMax) break;
      bytes += added;
      count += 1;
    }
    this.#flightCount = count;
    this.#flightBytes = bytes;
    this.#waitingBytes -= bytes;
    return records.slice(0, count);
  }

  // ---- Outcomes ---------------------------------------------------------------------------------------------

  /** Adds the offsets in flight, in ascending order. */
  addFlightOffsets(offsets: number[]): void {
    for (let index = 0; index < this.#flightCount; index++) offsets.push(this.#records[index]!.offset);
  }

  /** The payload bytes in flight, and when the first of them was appended (ms since 1970). */
  flightSummary(): Readonly<{ bytes: number; oldestAtMs: number }> {
    return {
      bytes: this.#flightBytes - this.#flightCount * RECORD_OVERHEAD_BYTES,
      oldestAtMs: this.#records[0]!.timestampMs,
    };
  }

  /** What is in flight has arrived: it leaves the queue, and the next batch may be larger. */
  acknowledge(): void {
    this.#dropFirst(this.#flightCount);
    this.deadLettersInARow = 0;
    this.#batchRecordsMax =
      this.#batchRecordsMax >= BATCH_RECORDS_UNBOUNDED_FROM ? UNBOUNDED : this.#batchRecordsMax * 2;
    this.#batchBytesMax = Math.min(this.#usualBatchBytesMax, this.#batchBytesMax * BATCH_BYTES_GROWTH);
  }

  /** What was in flight has not arrived: it waits again. */
  returnFlight(): Readonly<{ count: number; bytes: number }> {
    const flight = { count: this.#flightCount, bytes: this.#flightBytes };
    this.#waitingBytes += this.#flightBytes;
    this.#flightCount = 0;
    this.#flightBytes = 0;
    return flight;
  }

  /** A batch of so many bytes was too large: the next one has half of them. */
  halveBytes(bytes: number): void {
    this.#batchBytesMax = bytes / 2;
  }

  /** A batch of so many records was refused: the next one has half of them, to find the one that is invalid. */
  halveRecords(count: number): void {
    this.#batchRecordsMax = Math.ceil(count / 2);
  }

  get first(): OutboxRecord {
    return this.#records[0]!;
  }

  /** The first record was put aside: the next batch need not be small any more. */
  dropDeadLetter(): void {
    this.#waitingBytes -= bytesOf(this.first);
    this.#dropFirst(1);
    this.#batchRecordsMax = UNBOUNDED;
    this.deadLettersInARow += 1;
  }

  /** In memory: read and not yet acknowledged. */
  heldBytes(): number {
    let bytes = 0;
    for (const record of this.#records) bytes += bytesOf(record);
    return bytes;
  }

  #dropFirst(count: number): void {
    this.#records = count === this.#records.length ? [] : this.#records.slice(count);
    this.#flightCount = 0;
    this.#flightBytes = 0;
  }
}

function bytesOf({ key, value }: OutboxRecord): number {
  return value.length + key.length + RECORD_OVERHEAD_BYTES;
}
