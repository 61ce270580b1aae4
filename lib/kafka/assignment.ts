// What a member of a consumer group has: the partitions of its current epoch, where reading stands in each, and the
// batches that were fetched ahead. It relies on no order of the client's events. A batch counts only if it begins
// where reading stands; work that began before a seek or in an older epoch changes nothing. It connects to nothing.

import assert from "node:assert/strict";
import type { Consumer, EachBatchPayload, KafkaMessage } from "kafkajs";
import type { Clock } from "../base/clock.ts";
import { StaleEpochError } from "../base/errors.ts";
import type { Delivery, LogRecord, PartitionId, RecordKind } from "../contracts/log.ts";
import { partitionId } from "./topics.ts";

/** Where reading stands in one partition of the current epoch. */
type Place = {
  readonly id: PartitionId;
  readonly topic: string;
  readonly partition: number;
  readonly kind: RecordKind;
  /** The offset of the next record to hand over; null = not sought yet. */
  expected: number | null;
  /** Work that began before the last seek is void. */
  seekCount: number;
  /** How often in a row a batch from elsewhere was sought back. */
  seeksBack: number;
};

/** The calls to kafkajs; all of them take effect with the next fetch. */
type FetchControl = Pick<Consumer, "pause" | "resume" | "seek">;

/** The fields of kafkajs's payload of eachBatch that are used. `fetchedOffset` is missing in its types. */
export type FetchedBatch = Pick<EachBatchPayload, "resolveOffset" | "heartbeat" | "isRunning"> &
  Readonly<{
    batch: Readonly<{
      topic: string;
      partition: number;
      messages: readonly KafkaMessage[];
      lastOffset(): string;
      /** The offset that was asked for. */
      fetchedOffset?: string;
    }>;
  }>;

/** Batches are fetched ahead up to this size, so that fetching and storing overlap; above it fetching waits. */
const BUFFERED_BYTES_MAX = 2 * 1024 * 1024;
/** What a record costs beside its value. */
const RECORD_OVERHEAD_BYTES = 100;
/** While fetching waits: how often kafkajs gets to see whether a heartbeat is due. */
const HEARTBEAT_CHECK_MS = 250;
/** After so many seeks back, a batch that begins too far ahead proves that nothing readable lies in between. */
const SEEKS_BACK_MAX = 3;

/** Counted for the whole process, so that no two readers have an epoch of one number. */
let epochsOpened = 0;

type BufferedBatch = Readonly<{ delivery: Delivery & { type: "batch" }; bytes: number }>;

export class Assignment {
  readonly #kindOfTopic: ReadonlyMap<string, RecordKind>;
  readonly #clock: Pick<Clock, "after">;
  #epoch = 0;
  /** Null between the end of an epoch and the begin of the next. */
  #control: FetchControl | null = null;
  #places = new Map<PartitionId, Place>();
  /** The `assigned` delivery that has not been handed over yet. */
  #announcement: Delivery | null = null;
  #queue: BufferedBatch[] = [];
  #bufferedBytes = 0;
  readonly #waiters = new Set<() => void>();

  constructor(kindOfTopic: ReadonlyMap<string, RecordKind>, clock: Pick<Clock, "after">) {
    this.#kindOfTopic = kindOfTopic;
    this.#clock = clock;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** Empty between two epochs. */
  get partitions(): readonly PartitionId[] {
    return [...this.#places.keys()];
  }

  /** Fetched and not yet handed over. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** From here on nothing of the old assignment is valid: neither its commits nor its batches. */
  end(): void {
    this.#control = null;
    this.#places = new Map();
    this.#announcement = null;
    this.#queue = [];
    this.#bufferedBytes = 0;
    this.wakeUp();
  }

  begin(control: FetchControl, assigned: Readonly<Record<string, readonly number[]>>): void {
    this.end();
    this.#control = control;
    epochsOpened += 1;
    this.#epoch = epochsOpened;
    for (const [topic, partitions] of Object.entries(assigned)) {
      const kind = this.#kindOfTopic.get(topic);
      // While the settings of a group are being changed, a member with other topics may be assigned one of them.
      if (kind !== undefined) {
        for (const partition of partitions) {
          const id = partitionId(topic, partition);
          this.#places.set(id, { id, topic, partition, kind, expected: null, seekCount: 0, seeksBack: 0 });
        }
      }
      // Until it is sought: the client would begin at whatever was committed meanwhile.
      control.pause([{ topic, partitions: [...partitions] }]);
    }
    this.#announcement = { type: "assigned", epoch: this.#epoch, partitions: [...this.#places.keys()] };
    this.wakeUp();
  }

  /** Throws StaleEpochError when the partition is not one of the current epoch. */
  place(epoch: number, id: PartitionId): Readonly<Place> {
    return this.#place(epoch, id);
  }

  /** Whether `place` would find it. */
  isCurrent(epoch: number, id: PartitionId): boolean {
    return epoch === this.#epoch && this.#places.has(id);
  }

  /** Throws StaleEpochError as `place` does. */
  seek(epoch: number, id: PartitionId, offset: number): void {
    const sought = this.#place(epoch, id);
    const isFirst = sought.expected === null;
    sought.expected = offset;
    sought.seekCount += 1;
    sought.seeksBack = 0;
    this.#queue = this.#queue.filter(({ delivery, bytes }) => {
      if (delivery.partition !== id) return true;
      this.#bufferedBytes -= bytes;
      return false;
    });
    this.#seekClient(sought, offset);
    if (isFirst) this.#control?.resume([{ topic: sought.topic, partitions: [sought.partition] }]);
    this.wakeUp();
  }

  /** Accepts a batch, or seeks the client back. Waits, with heartbeats, while too much is buffered. */
  async accept({ batch, resolveOffset, heartbeat, isRunning }: FetchedBatch): Promise<void> {
    const place = this.#places.get(partitionId(batch.topic, batch.partition));
    const last = batch.messages.at(-1);
    if (place === undefined || place.expected === null || last === undefined) return;
    assert(batch.fetchedOffset !== undefined, "kafkajs says from where it has fetched");
    if (!followsOn(place, Number(batch.fetchedOffset))) return this.#seekClient(place, place.expected);
    const { seekCount } = place;
    const isWanted = () =>
      isRunning() && this.#places.get(place.id) === place && place.seekCount === seekCount;
    while (this.#bufferedBytes > BUFFERED_BYTES_MAX && isWanted()) {
      await this.changed(HEARTBEAT_CHECK_MS);
      // It throws when the group rebalances: then this batch was not accepted, and comes again.
      await heartbeat();
    }
    if (!isWanted()) return;
    // From here to the end is one synchronous step: what is accepted is resolved in the assignment it was accepted in.
    const { records, bytes } = recordsOf(place.kind, batch.messages);
    const fromOffset = place.expected;
    const nextOffset = Number(batch.lastOffset()) + 1;
    this.#queue.push({
      bytes,
      delivery: {
        type: "batch",
        epoch: this.#epoch,
        partition: place.id,
        fromOffset,
        nextOffset,
        records,
      },
    });
    this.#bufferedBytes += bytes;
    place.expected = nextOffset;
    place.seeksBack = 0;
    resolveOffset(last.offset);
    this.wakeUp();
  }

  /** The next delivery to hand over; null = there is none now. */
  next(): Delivery | null {
    if (this.#announcement !== null) {
      const assigned = this.#announcement;
      this.#announcement = null;
      return assigned;
    }
    const first = this.#queue.shift();
    if (first === undefined) return null;
    this.#bufferedBytes -= first.bytes;
    this.wakeUp();
    return first.delivery;
  }

  /** Resolves when anything of the above has changed, or after so long. */
  changed(durationMs?: number): Promise<void> {
    return new Promise((resolve) => {
      let cancel = () => {};
      const resume = () => {
        this.#waiters.delete(resume);
        cancel();
        resolve();
      };
      this.#waiters.add(resume);
      if (durationMs !== undefined) cancel = this.#clock.after(durationMs, resume);
    });
  }

  wakeUp(): void {
    for (const resume of [...this.#waiters]) resume();
  }

  #place(epoch: number, id: PartitionId): Place {
    const found = epoch === this.#epoch ? this.#places.get(id) : undefined;
    if (found === undefined) throw new StaleEpochError(`epoch ${epoch} of ${id} has ended`);
    return found;
  }

  #seekClient({ topic, partition }: Place, offset: number): void {
    assert(this.#control !== null, "a place has a client");
    this.#control.seek({ topic, partition, offset: String(offset) });
  }
}

/** Whether a batch that was fetched from that offset continues where reading stands. Counts the seeks back. */
function followsOn(place: Place, fetchedOffset: number): boolean {
  if (fetchedOffset === place.expected) return true;
  // Ahead time after time, although the client was told to begin here: the offsets in between hold no record
  // (compaction, transaction markers), and kafkajs went past them.
  if (fetchedOffset > place.expected! && place.seeksBack >= SEEKS_BACK_MAX) return true;
  place.seeksBack += 1;
  return false;
}

function recordsOf(kind: RecordKind, messages: readonly KafkaMessage[]) {
  let bytes = 0;
  const records = messages.map(({ offset, timestamp, value }): LogRecord => {
    // A message without a value cannot be decoded; the decoder makes it a dead letter.
    const bytesOfValue = value ?? new Uint8Array(0);
    bytes += bytesOfValue.length + RECORD_OVERHEAD_BYTES;
    return { kind, offset: Number(offset), timestampMs: Number(timestamp), value: bytesOfValue };
  });
  return { records, bytes };
}
