// Reads a range of a topic again, from a time to the ends that the topic had at the start, for an operator's replay. Its
// group is of its own, named for this process, and never commits. Partitions come in any order; the records of one
// partition come in theirs. It ends by itself.

import type { Admin, EachBatchPayload } from "kafkajs";
import { type Clock, withTimeout } from "../base/clock.ts";
import type { PartitionId } from "../contracts/log.ts";
import { createKafka, type KafkaDeps } from "./client.ts";
import { isKafkaError, kafkaError } from "./errors.ts";
import { missingTopic, partitionId } from "./topics.ts";

type RangeRecord = Readonly<{
  partition: PartitionId;
  offset: number;
  timestampMs: number;
  value: Uint8Array;
}>;

type RangeOptions = KafkaDeps &
  Readonly<{
    /** Its full name. */
    topic: string;
    /** Reading starts at the first record that was appended at or after it, ms since 1970; null = at the beginning. */
    fromMs: number | null;
    signal: AbortSignal;
  }>;

const SESSION_MS = 30_000;
const FETCH_WAIT_MS_MAX = 500;
const FETCH_PARTITION_BYTES_MAX = 256 * 1024;

/** The offsets of one partition that are still to be read: [next, end). */
type Remaining = { next: number; readonly end: number };

/** Rejects with LogUnavailableError, SetupError, or the signal's reason. Tombstones are omitted. */
export async function* readKafkaRange(options: RangeOptions): AsyncGenerator<RangeRecord> {
  const { topic, clock, signal } = options;
  const kafka = createKafka(options, { outlastsRestart: true });
  const ranges = await rangesOf(kafka.admin(), options);
  if (ranges.size === 0) return;

  const groupId = `${topic}.range.${Math.floor(clock.random() * 2 ** 48).toString(16)}`;
  const consumer = kafka.consumer({
    groupId,
    sessionTimeout: SESSION_MS,
    maxWaitTimeInMs: FETCH_WAIT_MS_MAX,
    maxBytesPerPartition: FETCH_PARTITION_BYTES_MAX,
    allowAutoTopicCreation: false,
  });
  const handover = createHandover(clock);
  const unfinished = new Set(ranges.keys());

  async function handOver({ batch, heartbeat }: EachBatchPayload): Promise<void> {
    const range = ranges.get(batch.partition);
    if (range === undefined || !unfinished.has(batch.partition)) return;
    const records = batch.messages.flatMap(({ offset, timestamp, value }) => {
      const at = Number(offset);
      if (value === null || at < range.next || at >= range.end) return [];
      return {
        partition: partitionId(topic, batch.partition),
        offset: at,
        timestampMs: Number(timestamp),
        value,
      };
    });
    // Offsets also leave out a batch that comes again after a rejoin.
    range.next = Math.max(range.next, Number(batch.lastOffset()) + 1);
    if (range.next >= range.end) unfinished.delete(batch.partition);
    if (records.length > 0) await handover.give(records, heartbeat);
    if (unfinished.size === 0) handover.end(null);
  }

  consumer.on(consumer.events.GROUP_JOIN, () => {
    for (const [partition, { next }] of ranges) consumer.seek({ topic, partition, offset: String(next) });
  });
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    if (!payload.restart) handover.end(kafkaError(payload.error, `${topic} cannot be read`));
  });
  const stop = () => handover.end(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  try {
    signal.throwIfAborted();
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({ autoCommit: false, eachBatch: handOver });
    for await (const records of handover.batches()) yield* records;
  } catch (error) {
    throw kafkaError(error, `${topic} cannot be read`);
  } finally {
    signal.removeEventListener("abort", stop);
    handover.end(null);
    await consumer.disconnect();
  }
}

/** By partition, without those that have nothing to read. */
async function rangesOf(admin: Admin, { topic, fromMs }: RangeOptions): Promise<Map<number, Remaining>> {
  try {
    await admin.connect();
    const ends = await admin.fetchTopicOffsets(topic);
    const starts = fromMs === null ? [] : await admin.fetchTopicOffsetsByTimestamp(topic, fromMs);
    const startOf = new Map(starts.map(({ partition, offset }) => [partition, Number(offset)]));
    return new Map(
      ends
        .map(({ partition, low, high }): [number, Remaining] => {
          // Where no record is that young, the client answers with the end.
          const start = startOf.get(partition) ?? Number(low);
          return [partition, { next: Math.max(start, Number(low)), end: Number(high) }];
        })
        .filter(([, { next, end }]) => next < end),
    );
  } catch (error) {
    const isMissing = isKafkaError(error, "UNKNOWN_TOPIC_OR_PARTITION");
    throw isMissing ? missingTopic(topic) : kafkaError(error, `the offsets of ${topic} cannot be seen`);
  } finally {
    await admin.disconnect();
  }
}

type Batch = readonly RangeRecord[];
/** While a batch waits to be consumed: how often the membership is kept alive. */
const HEARTBEAT_MS = 3_000;

/** One batch at a time from push to pull: `give` waits until the previous batch has been consumed. */
function createHandover(clock: Clock) {
  let waiting: Batch | null = null;
  let ended: Readonly<{ error: unknown }> | null = null;
  let changed = Promise.withResolvers<void>();
  const change = () => {
    changed.resolve();
    changed = Promise.withResolvers();
  };
  return {
    async give(batch: Batch, heartbeat: () => Promise<void>): Promise<void> {
      while (waiting !== null && ended === null) {
        await withTimeout(clock, HEARTBEAT_MS, () => changed.promise);
        await heartbeat();
      }
      if (ended !== null) return;
      waiting = batch;
      change();
    },
    end(error: unknown): void {
      ended ??= { error };
      change();
    },
    async *batches(): AsyncGenerator<Batch> {
      for (;;) {
        if (waiting !== null) {
          const batch = waiting;
          waiting = null;
          change();
          yield batch;
        } else if (ended !== null) {
          if (ended.error !== null) throw ended.error;
          return;
        } else await changed.promise;
      }
    },
  };
}
