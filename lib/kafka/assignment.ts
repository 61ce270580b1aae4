// What a member of a consumer group holds: the partitions of its current epoch, where reading stands in each, and
// what was fetched ahead. It trusts no order of the client's events: a batch counts only if it begins where reading
// stands, and what was begun before a seek or in an older epoch changes nothing. It connects to nothing.

import assert from "node:assert/strict";
import type { Consumer, EachBatchPayload, KafkaMessage } from "kafkajs";
import type { Clock } from "../base/clock.ts";
import { StaleEpochError } from "../base/errors.ts";
import type { Delivery, LogRecord, PartitionId, RecordKind } from "../contracts/log.ts";
import { partitionId } from "./topics.ts";

/** Where reading stands in one partition of this epoch. */
export type Place = {
  readonly id: PartitionId;
  readonly topic: string;
  readonly partition: number;
  readonly kind: RecordKind;
  /** The next record to hand over; null = not sought yet. */
  expected: number | null;
  /** Counts the seeks: what was begun before one is void. */
  turn: number;
  seeksBack: number;
};

/** What is asked of kafkajs: all of it takes effect with the next fetch. */
export type FetchControl = Pick<Consumer, "pause" | "resume" | "seek">;

/** kafkajs's payload of eachBatch, as far as it is looked at. `fetchedOffset` is missing in its types. */
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

export interface Assignment {
  readonly epoch: number;
  readonly partitions: readonly PartitionId[];
  readonly heldBytes: number;
  /** From here on nothing of the old assignment holds: neither its commits nor its batches. */
  end(): void;
  begin(control: FetchControl, assigned: Readonly<Record<string, readonly number[]>>): void;
  /** Throws StaleEpochError when it is not of the current epoch. */
  place(epoch: number, id: PartitionId): Place;
  /** Whether `place` would find it. */
  holds(epoch: number, id: PartitionId): boolean;
  seek(epoch: number, id: PartitionId, offset: number): void;
  /** Takes a batch, or sends the client back. Waits, with heartbeats, while enough is held. */
  take(fetched: FetchedBatch): Promise<void>;
  /** What to hand over next. */
  next(): Delivery | null;
  /** Resolves when anything of the above has changed, or after so long. */
  changed(durationMs?: number): Promise<void>;
  wake(): void;
}

/** Fetched ahead of the consumer, so that fetching and storing overlap; beyond it the fetching waits. */
const HELD_BYTES_MAX = 2 * 1024 * 1024;
/** What a record costs beside its value. */
const RECORD_OVERHEAD_BYTES = 100;
/** While fetching waits: how often it is seen whether a heartbeat is due. */
const HELD_LOOK_MS = 250;
/** So often a batch that begins too far ahead is sought back; then nothing readable lies in between. */
const SEEKS_BACK_MAX = 3;

/** Counted by the process, so that no reader's epoch is taken for that of the one before it. */
let epochsOpened = 0;

type Totals = Readonly<{ delivery: Delivery & { type: "batch" }; bytes: number }>;

export function createAssignment(
  kindOfTopic: ReadonlyMap<string, RecordKind>,
  clock: Pick<Clock, "after">,
): Assignment {
  let epoch = 0;
  /** Null between the end of an epoch and the beginning of the next. */
  let control: FetchControl | null = null;
  let places = new Map<PartitionId, Place>();
  let announcement: Delivery | null = null;
  let queue: Totals[] = [];
  let heldBytes = 0;
  const waiters = new Set<() => void>();

  function wake(): void {
    for (const resume of [...waiters]) resume();
  }

  function changed(durationMs?: number): Promise<void> {
    return new Promise((resolve) => {
      let cancel = () => {};
      const resume = () => {
        waiters.delete(resume);
        cancel();
        resolve();
      };
      waiters.add(resume);
      if (durationMs !== undefined) cancel = clock.after(durationMs, resume);
    });
  }

  function end(): void {
    control = null;
    places = new Map();
    announcement = null;
    queue = [];
    heldBytes = 0;
    wake();
  }

  function begin(by: FetchControl, assigned: Readonly<Record<string, readonly number[]>>): void {
    end();
    control = by;
    epochsOpened += 1;
    epoch = epochsOpened;
    for (const [topic, partitions] of Object.entries(assigned)) {
      const kind = kindOfTopic.get(topic);
      // Of a member with other topics, while the settings of a group are being changed: not ours to read.
      if (kind !== undefined) {
        for (const partition of partitions) {
          const id = partitionId(topic, partition);
          places.set(id, { id, topic, partition, kind, expected: null, turn: 0, seeksBack: 0 });
        }
      }
      // Until it is sought: the client would begin at whatever was committed meanwhile.
      by.pause([{ topic, partitions: [...partitions] }]);
    }
    announcement = { type: "assigned", epoch, partitions: [...places.keys()] };
    wake();
  }

  function place(given: number, id: PartitionId): Place {
    const found = given === epoch ? places.get(id) : undefined;
    if (found === undefined) throw new StaleEpochError(`epoch ${given} of ${id} has ended`);
    return found;
  }

  const holds = (given: number, id: PartitionId) => given === epoch && places.has(id);

  function sendTo({ topic, partition }: Place, offset: number): void {
    assert(control !== null, "a place has a client");
    control.seek({ topic, partition, offset: String(offset) });
  }

  function seek(given: number, id: PartitionId, offset: number): void {
    const sought = place(given, id);
    const isFirst = sought.expected === null;
    sought.expected = offset;
    sought.turn += 1;
    sought.seeksBack = 0;
    queue = queue.filter(({ delivery, bytes }) => {
      if (delivery.partition !== id) return true;
      heldBytes -= bytes;
      return false;
    });
    sendTo(sought, offset);
    if (isFirst) control?.resume([{ topic: sought.topic, partitions: [sought.partition] }]);
    wake();
  }

  async function take({ batch, resolveOffset, heartbeat, isRunning }: FetchedBatch): Promise<void> {
    const taken = places.get(partitionId(batch.topic, batch.partition));
    const last = batch.messages.at(-1);
    if (taken === undefined || taken.expected === null || last === undefined) return;
    assert(batch.fetchedOffset !== undefined, "kafkajs says from where it has fetched");
    if (!followsOn(taken, Number(batch.fetchedOffset))) return sendTo(taken, taken.expected);
    const { turn } = taken;
    const isWanted = () => isRunning() && places.get(taken.id) === taken && taken.turn === turn;
    while (heldBytes > HELD_BYTES_MAX && isWanted()) {
      await changed(HELD_LOOK_MS);
      // It throws when the group deals out anew: then this batch was not taken, and comes again.
      await heartbeat();
    }
    if (!isWanted()) return;
    // From here to the end one synchronous step: what is taken is resolved, in the assignment it is taken in.
    const { records, bytes } = recordsOf(taken.kind, batch.messages);
    const fromOffset = taken.expected;
    const nextOffset = Number(batch.lastOffset()) + 1;
    queue.push({
      bytes,
      delivery: { type: "batch", epoch, partition: taken.id, fromOffset, nextOffset, records },
    });
    heldBytes += bytes;
    taken.expected = nextOffset;
    taken.seeksBack = 0;
    resolveOffset(last.offset);
    wake();
  }

  function next(): Delivery | null {
    if (announcement !== null) {
      const assigned = announcement;
      announcement = null;
      return assigned;
    }
    const held = queue.shift();
    if (held === undefined) return null;
    heldBytes -= held.bytes;
    wake();
    return held.delivery;
  }

  return {
    get epoch() {
      return epoch;
    },
    get partitions() {
      return [...places.keys()];
    },
    get heldBytes() {
      return heldBytes;
    },
    end,
    begin,
    place,
    holds,
    seek,
    take,
    next,
    changed,
    wake,
  };
}

/** Whether a batch that was fetched from there goes on where reading stands. */
function followsOn(place: Place, fetchedOffset: number): boolean {
  if (fetchedOffset === place.expected) return true;
  // Ahead time after time, although it was told to begin here: what is missing is no record (compaction, the marks
  // of transactions), and kafkajs went past it.
  if (fetchedOffset > place.expected! && place.seeksBack >= SEEKS_BACK_MAX) return true;
  place.seeksBack += 1;
  return false;
}

function recordsOf(kind: RecordKind, messages: readonly KafkaMessage[]) {
  let bytes = 0;
  const records = messages.map(({ offset, timestamp, value }): LogRecord => {
    // A message without a value cannot be decoded, and is told so where that is told.
    const bytesOfValue = value ?? new Uint8Array(0);
    bytes += bytesOfValue.length + RECORD_OVERHEAD_BYTES;
    return { kind, offset: Number(offset), timestampMs: Number(timestamp), value: bytesOfValue };
  });
  return { records, bytes };
}
