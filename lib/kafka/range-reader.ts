// A stretch of a topic read once more, from given offsets to the ends that were there at the start, under a group
// made up for this process that never commits: for an operator's replay. Partitions come in any order, each of them
// in its own. It ends by itself.

import type { Admin, EachBatchPayload } from "kafkajs";
import type { Clock } from "../base/clock.ts";
import type { PartitionId } from "../contracts/log.ts";
import { createKafka, isKafkaError, type KafkaDeps, kafkaError } from "./client.ts";
import { missingTopic, partitionId } from "./topics.ts";

export type RangeRecord = Readonly<{
  partition: PartitionId;
  offset: number;
  timestampMs: number;
  value: Uint8Array;
}>;

export type RangeOptions = KafkaDeps &
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

type Stretch = { next: number; readonly end: number };

/** Rejects with LogUnavailableError, SetupError, or the signal's reason. Tombstones are left out. */
export async function* readKafkaRange(options: RangeOptions): AsyncGenerator<RangeRecord> {
  const { topic, clock, signal } = options;
  const kafka = createKafka(options, "insisting");
  const stretches = await stretchesOf(kafka.admin(), options);
  if (stretches.size === 0) return;

  const groupId = `${topic}.range.${Math.floor(clock.random() * 2 ** 48).toString(16)}`;
  const consumer = kafka.consumer({
    groupId,
    sessionTimeout: SESSION_MS,
    maxWaitTimeInMs: FETCH_WAIT_MS_MAX,
    maxBytesPerPartition: FETCH_PARTITION_BYTES_MAX,
    allowAutoTopicCreation: false,
  });
  const handover = createHandover(clock);
  const left = new Set(stretches.keys());

  async function takeBatch({ batch, heartbeat }: EachBatchPayload): Promise<void> {
    const stretch = stretches.get(batch.partition);
    if (stretch === undefined || !left.has(batch.partition)) return;
    const records = batch.messages.flatMap(({ offset, timestamp, value }) => {
      const at = Number(offset);
      if (value === null || at < stretch.next || at >= stretch.end) return [];
      return {
        partition: partitionId(topic, batch.partition),
        offset: at,
        timestampMs: Number(timestamp),
        value,
      };
    });
    // A batch that a rejoin brings again is left out by its offsets.
    stretch.next = Math.max(stretch.next, Number(batch.lastOffset()) + 1);
    if (stretch.next >= stretch.end) left.delete(batch.partition);
    if (records.length > 0) await handover.give(records, heartbeat);
    if (left.size === 0) handover.end(null);
  }

  consumer.on(consumer.events.GROUP_JOIN, () => {
    for (const [partition, { next }] of stretches) consumer.seek({ topic, partition, offset: String(next) });
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
    await consumer.run({ autoCommit: false, eachBatch: takeBatch });
    for await (const records of handover.taken()) yield* records;
  } catch (error) {
    throw kafkaError(error, `${topic} cannot be read`);
  } finally {
    signal.removeEventListener("abort", stop);
    handover.end(null);
    await consumer.disconnect();
  }
}

/** Where each partition begins and ends; those without a record between are not in it. */
async function stretchesOf(admin: Admin, { topic, fromMs }: RangeOptions): Promise<Map<number, Stretch>> {
  try {
    await admin.connect();
    const ends = await admin.fetchTopicOffsets(topic);
    const starts = fromMs === null ? [] : await admin.fetchTopicOffsetsByTimestamp(topic, fromMs);
    const startOf = new Map(starts.map(({ partition, offset }) => [partition, Number(offset)]));
    return new Map(
      ends
        .map(({ partition, low, high }): [number, Stretch] => {
          // Where nothing is as young the client answers with the end.
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
/** How long a batch may wait to be taken before the membership is kept alive again. */
const HEARTBEAT_MS = 3_000;

/** One batch at a time from push to pull: whoever gives waits until it is taken. */
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
        const patience = new AbortController();
        await Promise.race([changed.promise, clock.sleep(HEARTBEAT_MS, patience.signal)]);
        patience.abort();
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
    async *taken(): AsyncGenerator<Batch> {
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
