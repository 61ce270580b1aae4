// The reader of the log on Kafka: a member of a consumer group, mapped onto the contract of log.ts. kafkajs moves
// the bytes and keeps the membership; what it would do beyond that it is kept from: it commits nothing by itself,
// and where reading stands it is told, never asked. (The writing half is kafka-sender.ts.)
//
// What kafkajs does that the contract must not see:
// - After a join it fetches from whatever was committed meanwhile: every partition is paused until it is sought.
// - A batch of an older assignment may still be under way, and resolves into the new one: a batch counts only if it
//   begins where this reader stands, and it is resolved in the same step in which it is taken.
// - A fetch is as old as its request: a seek makes those of before void.
// (And what is mended in patches/: a commit tried again under a later generation; a commit over the group's own
// when an offset is out of range.)

import assert from "node:assert/strict";
import {
  type Admin,
  type Batch,
  type Consumer,
  type EachBatchPayload,
  type PartitionAssigner,
  PartitionAssigners,
} from "kafkajs";
import { backoffMs } from "./clock.ts";
import { LogUnavailableError, PipelineError, SetupError, StaleEpochError } from "./errors.ts";
import { checkKafka, createKafka, isKafkaError, type KafkaParts, kafkaError } from "./kafka.ts";
import { committedOffsets, missingTopic, partitionId, topicNames } from "./kafka-topics.ts";
import type {
  Delivery,
  LogReader,
  LogRecord,
  PartitionId,
  PartitionRange,
  Position,
  RecordKind,
} from "./log.ts";

export { createKafkaWriter, openKafkaSender } from "./kafka-sender.ts";

export type KafkaReaderOptions = KafkaParts &
  Readonly<{
    topic: string;
    groupId: string;
    /** Whose topics are read: those of the trades and the events, where nothing is said. */
    kinds?: readonly RecordKind[];
  }>;

export type KafkaReaderHealth = Readonly<{
  epoch: number;
  /** Empty between two epochs. */
  partitions: readonly PartitionId[];
  lastFetchAtMs: number | null;
  lastHeartbeatAtMs: number | null;
  /** Fetched and not yet asked for. */
  heldBytes: number;
}>;

/** Leaves the group when disposed, not when the iteration ends: until then the last commits are taken. */
export interface KafkaReader extends LogReader, AsyncDisposable {
  health(): KafkaReaderHealth;
}

/**
 * How long a broker holds a fetch when there is nothing. Data comes at once all the same; but nothing else of this
 * member moves meanwhile: heartbeats, a partition that was sought, leaving the group. 50 ms cost 4 % of a core idle
 * and brought no latency, 500 ms cost 1.5 %; joining and seeking are to take a quarter of a second at most.
 */
const FETCH_WAIT_MS_MAX = 250;
/** Of one partition in one answer: some thousand messages, 10 ms of decoding; and every symbol gets its turn. */
const FETCH_PARTITION_BYTES_MAX = 256 * 1024;
const FETCH_BYTES_MAX = 4 * 1024 * 1024;
/** Fetched ahead of the consumer, so that fetching and storing overlap; beyond it the fetching waits. */
const HELD_BYTES_MAX = 2 * 1024 * 1024;
/** What a record costs beside its value. */
const RECORD_OVERHEAD_BYTES = 100;
/** While fetching waits: how often it is seen whether a heartbeat is due. */
const HELD_LOOK_MS = 250;
const HEARTBEAT_MS_MAX = 3_000;
/** So often a batch that begins too far ahead is sought back; then nothing readable lies in between. */
const SEEKS_BACK_MAX = 3;
/** A live consumer fetches, beats, or tries to connect at least every few seconds, whatever the brokers do. */
const SILENCE_MS_MAX = 60_000;
const SILENCE_LOOK_MS = 5_000;
const START_RETRY_FIRST_MS = 100;
const START_RETRY_MAX_MS = 5_000;

/** Where reading stands in one partition of this epoch. */
type Place = {
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

/** Counted by the process, so that no reader's epoch is taken for that of the one before it. */
let epochsOpened = 0;

type Held = Readonly<{ delivery: Delivery & { type: "batch" }; bytes: number }>;

export function openKafkaReader(options: KafkaReaderOptions): KafkaReader {
  const { settings, topic, groupId, kinds = ["trades", "event"], clock, report } = options;
  const names = topicNames(topic);
  const kindOfTopic = new Map(kinds.map((kind) => [names[kind], kind]));
  const topics = [...kindOfTopic.keys()];
  /** Above any time that a join may take, which is the only long silence of a healthy member. */
  const silenceMsMax = SILENCE_MS_MAX + settings.rebalanceTimeoutMs;

  let epoch = 0;
  /** Of the current epoch. Empty between the moment an epoch ends and the next one's beginning. */
  let places = new Map<PartitionId, Place>();
  let hasAssignment = false;
  let announcement: Delivery | null = null;
  let queue: Held[] = [];
  let heldBytes = 0;
  let failure: Error | null = null;
  let isIterated = false;
  let isDisposed = false;
  let quietMs = 0;
  let lastFetchAtMs: number | null = null;
  let lastHeartbeatAtMs: number | null = null;
  /** Whoever waits for anything above to change. */
  const waiters = new Set<() => void>();
  let openedConsumer: Consumer | null = null;
  let openedAdmin: Admin | null = null;
  let cancelLook = () => {};

  const touch = () => {
    quietMs = 0;
  };
  const wake = () => {
    for (const resume of [...waiters]) resume();
  };
  /** Until something changes, or so long. */
  function change(durationMs?: number): Promise<void> {
    return new Promise((resolve) => {
      const resume = () => {
        waiters.delete(resume);
        cancel();
        resolve();
      };
      waiters.add(resume);
      const cancel = durationMs === undefined ? () => {} : clock.after(durationMs, resume);
    });
  }
  function fail(error: Error): void {
    failure ??= error;
    endEpoch();
  }

  // ---- Epochs ---------------------------------------------------------------------------------------------------

  /** From here on nothing of the old assignment holds: neither its commits nor its batches. */
  function endEpoch(): void {
    places = new Map();
    hasAssignment = false;
    announcement = null;
    queue = [];
    heldBytes = 0;
    wake();
  }

  function beginEpoch(consumer: Consumer, assignment: Readonly<Record<string, number[]>>): void {
    endEpoch();
    epochsOpened += 1;
    epoch = epochsOpened;
    hasAssignment = true;
    for (const [name, partitions] of Object.entries(assignment)) {
      const kind = kindOfTopic.get(name);
      // Of a member with other topics, while the settings of a group are being changed: not ours to read.
      if (kind === undefined) continue;
      for (const partition of partitions) {
        const id = partitionId(name, partition);
        places.set(id, { id, topic: name, partition, kind, expected: null, turn: 0, seeksBack: 0 });
      }
      consumer.pause([{ topic: name, partitions }]);
    }
    announcement = { type: "assigned", epoch, partitions: [...places.keys()] };
    wake();
  }

  function placeIn(given: number, id: PartitionId): Place {
    const place = given === epoch && hasAssignment ? places.get(id) : undefined;
    if (place === undefined) throw new StaleEpochError(`epoch ${given} of ${id} has ended`);
    return place;
  }

  /** The group's protocol has no message for the end of an assignment: it is when this member asks to join anew. */
  const assigner: PartitionAssigner = (config) => {
    const inner = PartitionAssigners.roundRobin(config);
    return {
      ...inner,
      protocol(subscription) {
        endEpoch();
        return inner.protocol(subscription);
      },
    };
  };

  // ---- What kafkajs brings --------------------------------------------------------------------------------------

  async function takeBatch(consumer: Consumer, payload: EachBatchPayload): Promise<void> {
    const { batch, resolveOffset, heartbeat, isRunning } = payload;
    const place = places.get(partitionId(batch.topic, batch.partition));
    const last = batch.messages.at(-1);
    if (place === undefined || place.expected === null || last === undefined) return;
    const { turn } = place;
    const isWanted = () =>
      !isDisposed && isRunning() && places.get(place.id) === place && place.turn === turn;
    if (!followsOn(place, fetchedFrom(batch))) {
      seekKafka(consumer, place, place.expected);
      return;
    }
    while (heldBytes > HELD_BYTES_MAX && isWanted()) {
      await change(HELD_LOOK_MS);
      // It throws when the group deals out anew: then this batch was not taken, and comes again.
      await heartbeat();
    }
    if (!isWanted()) return;
    // From here to the end one synchronous step: what is taken is resolved, in the assignment it is taken in.
    const held = holdingOf(place, batch, epoch);
    queue.push(held);
    heldBytes += held.bytes;
    place.expected = held.delivery.nextOffset;
    place.seeksBack = 0;
    resolveOffset(last.offset);
    wake();
  }

  /** Whether a batch that was fetched from there goes on where this reader stands. */
  function followsOn(place: Place, fetchedOffset: number): boolean {
    if (fetchedOffset === place.expected) return true;
    // Ahead time after time, although it was told to begin here: what is missing is no record (compaction, the
    // marks of transactions), and kafkajs went past it.
    if (fetchedOffset > place.expected! && place.seeksBack >= SEEKS_BACK_MAX) return true;
    place.seeksBack += 1;
    return false;
  }

  function seekKafka(consumer: Consumer, place: Place, offset: number): void {
    consumer.seek({ topic: place.topic, partition: place.partition, offset: String(offset) });
  }

  // ---- Start and end --------------------------------------------------------------------------------------------

  /** Joins the group, as soon as there is a broker. Whatever goes wrong for good comes out of `deliveries`. */
  async function start(signal: AbortSignal): Promise<void> {
    let isTold = false;
    for (let attempt = 0; !signal.aborted && !isDisposed; attempt++) {
      try {
        await checkKafka(options);
        await join();
        return;
      } catch (error) {
        const known = kafkaError(error, "the consumer group cannot be joined");
        if (!(known instanceof LogUnavailableError)) return fail(known);
        if (!isTold) report.warn("the log cannot be read yet; trying until it can", { error: known });
        isTold = true;
        await openedConsumer?.disconnect();
        openedConsumer = null;
        await clock.sleep(backoffMs(attempt, START_RETRY_FIRST_MS, START_RETRY_MAX_MS, clock.random), signal);
      }
    }
  }

  async function join(): Promise<void> {
    const consumer = createKafka(options, "insisting", touch).consumer({
      groupId,
      sessionTimeout: settings.sessionTimeoutMs,
      rebalanceTimeout: settings.rebalanceTimeoutMs,
      heartbeatInterval: Math.min(HEARTBEAT_MS_MAX, Math.floor(settings.sessionTimeoutMs / 3)),
      maxWaitTimeInMs: FETCH_WAIT_MS_MAX,
      minBytes: 1,
      maxBytesPerPartition: FETCH_PARTITION_BYTES_MAX,
      maxBytes: FETCH_BYTES_MAX,
      allowAutoTopicCreation: false,
      partitionAssigners: [assigner],
      retry: {
        restartOnFailure: async (error) => !(kafkaError(error, "") instanceof SetupError),
      },
    });
    openedConsumer = consumer;
    listen(consumer);
    await consumer.connect();
    try {
      // From the beginning: kafkajs would otherwise begin at the end where there is no commit.
      await consumer.subscribe({ topics, fromBeginning: true });
    } catch (error) {
      throw isKafkaError(error, "UNKNOWN_TOPIC_OR_PARTITION") ? missingTopic(topics.join(" or ")) : error;
    }
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: (payload) => takeBatch(consumer, payload),
    });
  }

  function listen(consumer: Consumer): void {
    const { GROUP_JOIN, STOP, CRASH, FETCH, HEARTBEAT } = consumer.events;
    consumer.on(GROUP_JOIN, ({ payload }) => {
      touch();
      if (!isDisposed) beginEpoch(consumer, payload.memberAssignment);
    });
    consumer.on(STOP, endEpoch);
    consumer.on(CRASH, ({ payload }) => {
      touch();
      const error = kafkaError(payload.error, "the consumer has stopped");
      if (payload.restart) {
        endEpoch();
        report.warn("the consumer begins anew", { error });
      } else fail(error);
    });
    consumer.on(FETCH, () => {
      touch();
      lastFetchAtMs = clock.now();
    });
    consumer.on(HEARTBEAT, () => {
      touch();
      lastHeartbeatAtMs = clock.now();
    });
  }

  /**
   * kafkajs can hang without an error. Silence is counted in looks, not read from the clock: a process that was
   * itself stopped has looked but once.
   */
  function lookForSilence(): void {
    cancelLook = clock.after(SILENCE_LOOK_MS, () => {
      quietMs += SILENCE_LOOK_MS;
      if (quietMs <= silenceMsMax) return lookForSilence();
      fail(
        new PipelineError(
          `the Kafka consumer has neither fetched nor connected for ${quietMs} ms`,
          "the process ends, so that its supervisor starts it again",
        ),
      );
    });
  }

  async function* deliveries(signal: AbortSignal): AsyncGenerator<Delivery> {
    assert(!isIterated, "the deliveries are iterated once");
    isIterated = true;
    if (signal.aborted) return;
    signal.addEventListener("abort", wake, { once: true });
    lookForSilence();
    const started = start(signal).catch((error: unknown) =>
      fail(kafkaError(error, "the log cannot be read")),
    );
    try {
      while (!signal.aborted && !isDisposed) {
        if (failure !== null) throw failure;
        if (announcement !== null) {
          const assigned = announcement;
          announcement = null;
          yield assigned;
          continue;
        }
        const held = queue.shift();
        if (held === undefined) {
          await change();
          continue;
        }
        heldBytes -= held.bytes;
        wake();
        yield held.delivery;
      }
    } finally {
      cancelLook();
      // Without a member there is nothing to commit to: then nobody need wait for the start either.
      if (hasAssignment) await started;
    }
  }

  // ---- What the reader is asked ---------------------------------------------------------------------------------

  async function position(given: number, id: PartitionId): Promise<PartitionRange> {
    const { topic: name, partition } = placeIn(given, id);
    try {
      openedAdmin ??= createKafka(options, "once").admin();
      await openedAdmin.connect();
      const [committed, offsets] = await Promise.all([
        committedOffsets(openedAdmin, groupId, [name]),
        openedAdmin.fetchTopicOffsets(name),
      ]);
      placeIn(given, id);
      const range = offsets.find((one) => one.partition === partition);
      if (range === undefined) throw new LogUnavailableError(`${id} is not known to Kafka just now`);
      return {
        committed: committed.get(id) ?? null,
        beginOffset: Number(range.low),
        endOffset: Number(range.high),
      };
    } catch (error) {
      placeIn(given, id);
      throw kafkaError(error, `the position of ${id} cannot be read`);
    }
  }

  async function commit(given: number, id: PartitionId, { offset, metadata }: Position): Promise<void> {
    const { topic: name, partition } = placeIn(given, id);
    assert(openedConsumer !== null);
    try {
      await openedConsumer.commitOffsets([{ topic: name, partition, offset: String(offset), metadata }]);
    } catch (error) {
      placeIn(given, id);
      if (isKafkaError(error, ...NO_MEMBER)) {
        throw new StaleEpochError(`Kafka deals ${id} out anew`, undefined, error);
      }
      throw kafkaError(error, `${id} cannot be committed`);
    }
  }

  return {
    deliveries,
    position,
    seek(given, id, offset) {
      const place = placeIn(given, id);
      assert(openedConsumer !== null);
      const isFirst = place.expected === null;
      place.expected = offset;
      place.turn += 1;
      place.seeksBack = 0;
      queue = queue.filter(({ delivery, bytes }) => {
        if (delivery.partition !== id) return true;
        heldBytes -= bytes;
        return false;
      });
      seekKafka(openedConsumer, place, offset);
      if (isFirst) openedConsumer.resume([{ topic: place.topic, partitions: [place.partition] }]);
      wake();
    },
    commit,
    health: () => ({
      epoch,
      partitions: [...places.keys()],
      lastFetchAtMs,
      lastHeartbeatAtMs,
      heldBytes,
    }),
    async [Symbol.asyncDispose]() {
      isDisposed = true;
      cancelLook();
      endEpoch();
      await Promise.all([openedConsumer?.disconnect(), openedAdmin?.disconnect()]);
    },
  };
}

/** The broker's words for a member that is not, or not of this generation, or in the middle of a rebalance. */
const NO_MEMBER = ["ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "FENCED_INSTANCE_ID"];

/** The offset that was asked for: there at run time, missing in the types. */
function fetchedFrom(batch: Batch): number {
  const { fetchedOffset } = batch as Batch & { fetchedOffset?: unknown };
  assert(fetchedOffset !== undefined, "kafkajs says from where it has fetched");
  return Number(fetchedOffset);
}

function holdingOf(place: Place, batch: Batch, epoch: number): Held {
  let bytes = 0;
  const records: LogRecord[] = [];
  for (const { offset, timestamp, value } of batch.messages) {
    // A message without a value cannot be decoded, and is told so where that is told.
    const bytesOfValue = value ?? new Uint8Array(0);
    bytes += bytesOfValue.length + RECORD_OVERHEAD_BYTES;
    records.push({
      kind: place.kind,
      offset: Number(offset),
      timestampMs: Number(timestamp),
      value: bytesOfValue,
    });
  }
  return {
    bytes,
    delivery: {
      type: "batch",
      epoch,
      partition: place.id,
      fromOffset: place.expected!,
      nextOffset: Number(batch.lastOffset()) + 1,
      records,
    },
  };
}
