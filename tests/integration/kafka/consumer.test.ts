// The log on a real Kafka: the suite of the contract, and what only a consumer group can do to a reader.

import { describe, expect, test } from "bun:test";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import type { Clock } from "../../../lib/base/clock.ts";
import { systemClock } from "../../../lib/base/clock.ts";
import { PipelineError, SetupError, StaleEpochError } from "../../../lib/base/errors.ts";
import type { Delivery, LogEntry, PartitionId } from "../../../lib/contracts/log.ts";
import { createKafka, type KafkaDeps } from "../../../lib/kafka/client.ts";
import { type KafkaReader, openKafkaReader } from "../../../lib/kafka/consumer.ts";
import { openKafkaSender } from "../../../lib/kafka/sender.ts";
import { createKafkaWriter } from "../../../lib/kafka/writer.ts";
import { logContract } from "../../contract/log.ts";
import { seeded } from "../../support/builders.ts";
import {
  createTopics,
  deleteRecords,
  kafkaDeps,
  openKafkaLog,
  SESSION_MS,
  until,
} from "../../support/kafka.ts";
import { startKafka } from "../../support/services/kafka.ts";
import { services, sharedKafka, uniqueName } from "../../support/services/shared.ts";

const TEST_MS_MAX = 120_000;
/** What the reader buffers at most (kafka/assignment.ts), and a batch more. */
const BUFFERED_BYTES_MAX = 2.5 * 1024 * 1024;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function entries(key: string, count: number, first = 1): LogEntry[] {
  return Array.from({ length: count }, (_, index) => ({
    kind: "trades",
    key,
    value: encoder.encode(`${key}#${first + index}`),
  }));
}

async function append(deps: KafkaDeps, topic: string, toAppend: readonly LogEntry[]): Promise<void> {
  await using sender = openKafkaSender({ ...deps, topic });
  await createKafkaWriter(sender).append(toAppend);
}

/** Takes whatever comes, seeks every partition to its commit or begin, and remembers. */
class Follower {
  epochs: (Delivery & { type: "assigned" })[] = [];
  /** Of all epochs, in the order of arrival. */
  values: string[] = [];
  readonly positions = new Map<PartitionId, number>();
  readonly reader: KafkaReader;
  readonly #abort = new AbortController();
  readonly ended: Promise<void>;

  constructor(reader: KafkaReader) {
    this.reader = reader;
    this.ended = this.#run();
    // Seen by whoever waits for the end.
    this.ended.catch(() => {});
  }

  get epoch(): number {
    return this.epochs.at(-1)?.epoch ?? -1;
  }

  get partitions(): readonly PartitionId[] {
    return this.epochs.at(-1)?.partitions ?? [];
  }

  async #run(): Promise<void> {
    for await (const delivery of this.reader.deliveries(this.#abort.signal)) {
      if (delivery.type === "assigned") await this.#start(delivery);
      else {
        expect(delivery.fromOffset).toBe(this.positions.get(delivery.partition) ?? Number.NaN);
        this.positions.set(delivery.partition, delivery.nextOffset);
        for (const { value } of delivery.records) this.values.push(decoder.decode(value));
      }
    }
  }

  async #start(delivery: Delivery & { type: "assigned" }): Promise<void> {
    this.epochs.push(delivery);
    this.positions.clear();
    try {
      for (const id of delivery.partitions) {
        const { committed, beginOffset } = await this.reader.position(delivery.epoch, id);
        const offset = committed?.offset ?? beginOffset;
        this.reader.seek(delivery.epoch, id, offset);
        this.positions.set(id, offset);
      }
    } catch (error) {
      if (!(error instanceof StaleEpochError)) throw error;
    }
  }

  async commitAll(metadata = ""): Promise<void> {
    for (const [id, offset] of this.positions) {
      await this.reader.commit(this.epoch, id, { offset, metadata });
    }
  }

  async end(): Promise<void> {
    this.#abort.abort();
    await this.ended;
  }
}

describe.skipIf(!services.available)("on a real broker", () => {
  logContract("kafka", {
    open: async () => openKafkaLog(kafkaDeps(await sharedKafka()), 3),
    stepMsMax: 20_000,
    historySteps: 12,
  });

  test(
    "two members share the partitions, and what one has committed the other goes on from",
    async () => {
      const deps = kafkaDeps(await sharedKafka());
      const topic = await createTopics(deps, 4);
      const groupId = uniqueName("processor");
      const open = () => openKafkaReader({ ...deps, topic, groupId, kinds: ["trades"] });
      const keys = ["AAPL", "MSFT", "TSLA", "SPY", "AMZN", "QQQ"];
      for (const key of keys) await append(deps, topic, entries(key, 20));

      await using oneReader = open();
      const one = new Follower(oneReader);
      await until("all by one", () => one.values.length === 120);
      expect(one.partitions.length).toBe(4);
      await one.commitAll("by one");
      const oldEpoch = one.epoch;
      const [someId] = one.partitions;

      await using otherReader = open();
      const other = new Follower(otherReader);
      await until("two halves", () => one.partitions.length === 2 && other.partitions.length === 2);
      expect(new Set([...one.partitions, ...other.partitions]).size).toBe(4);
      expect(other.values).toEqual([]);
      for (const id of other.partitions) {
        const { committed } = await otherReader.position(other.epoch, id);
        expect(committed?.metadata).toBe("by one");
      }
      const late = oneReader.commit(oldEpoch, someId!, { offset: 0, metadata: "late" });
      await expect(late).rejects.toBeInstanceOf(StaleEpochError);
      expect(() => oneReader.seek(oldEpoch, someId!, 0)).toThrow(StaleEpochError);

      for (const key of keys) await append(deps, topic, entries(key, 5, 21));
      await until("the rest by both", () => one.values.length + other.values.length === 150);
      expect([...one.values, ...other.values].sort()).toEqual(
        keys.flatMap((key) => entries(key, 25).map(({ value }) => decoder.decode(value))).sort(),
      );
      await other.end();
      await otherReader[Symbol.asyncDispose]();
      await until("all four again", () => one.partitions.length === 4);
      await one.end();
    },
    TEST_MS_MAX,
  );

  test(
    "a member that was stopped for longer than its session wakes up stale, and its commit changes nothing",
    async () => {
      const address = await sharedKafka();
      const deps = kafkaDeps(address);
      const topic = await createTopics(deps, 1);
      const groupId = uniqueName("processor");
      await append(deps, topic, entries("AAPL", 10));
      const script = new URL("../../support/fixtures/kafka-member.ts", import.meta.url).pathname;
      const child = Bun.spawn(
        [process.execPath, script, address.host, String(address.port), topic, groupId],
        { stdin: "pipe", stdout: "pipe", stderr: "inherit" },
      );
      try {
        const told: Record<string, unknown>[] = [];
        const lines = createInterface({ input: Readable.fromWeb(child.stdout as never) });
        lines.on("line", (line) => told.push(JSON.parse(line) as Record<string, unknown>));
        await until("the child has read", () => told.some(({ read }) => read === 10));
        child.kill("SIGSTOP");

        await using reader = openKafkaReader({ ...deps, topic, groupId, kinds: ["trades"] });
        const sync = new Follower(reader);
        await until("it was given up", () => sync.values.length === 10, 4 * SESSION_MS);
        await sync.commitAll("by the living");
        child.stdin.write(`${topic}/0 3\n`);
        await child.stdin.flush();
        child.kill("SIGCONT");
        await until("its commit is refused", () => told.some(({ commit }) => commit !== undefined));
        expect(told.find(({ commit }) => commit !== undefined)).toEqual({ commit: "StaleEpochError" });
        // It rejoins the group, and whoever is assigned the partition finds what the living member had committed.
        await until("it joins again", () => told.filter(({ assigned }) => assigned).length === 2);
        await until("one of them has it", () => reader.assignment.partitions.length === 1 || told.length > 3);
        child.kill("SIGKILL");
        await child.exited;
        await until("it is all ours", () => reader.assignment.partitions.length === 1, 4 * SESSION_MS);
        const { committed } = await reader.position(reader.assignment.epoch, `${topic}/0`);
        expect(committed).toEqual({ offset: 10, metadata: "by the living" });
        await sync.end();
      } finally {
        child.kill("SIGKILL");
        await child.exited;
      }
    },
    TEST_MS_MAX,
  );

  test(
    "a consumer that asks for nothing keeps its membership, limits what is buffered, and then misses nothing",
    async () => {
      const deps = kafkaDeps(await sharedKafka());
      const topic = await createTopics(deps, 1);
      const count = await fill(deps, topic);
      await using reader = openKafkaReader({ ...deps, topic, groupId: uniqueName("processor") });
      const deliveries = reader.deliveries(new AbortController().signal)[Symbol.asyncIterator]();
      const { epoch } = await assigned(deliveries);
      reader.seek(epoch, `${topic}/0`, 0);
      const sinceMs = performance.now();
      while (performance.now() - sinceMs < 2 * SESSION_MS) {
        expect(reader.assignment.bufferedBytes).toBeLessThan(BUFFERED_BYTES_MAX);
        await Bun.sleep(100);
      }
      expect(reader.assignment.epoch).toBe(epoch);
      expect(reader.assignment.bufferedBytes).toBeGreaterThan(1024 * 1024);
      let next = 0;
      while (next < count) {
        const { value } = await deliveries.next();
        expect(value).toMatchObject({ type: "batch", epoch, fromOffset: next });
        next = (value as Delivery & { type: "batch" }).nextOffset;
      }
      await reader.commit(epoch, `${topic}/0`, { offset: next, metadata: "still a member" });
    },
    TEST_MS_MAX,
  );

  test(
    "records that are gone before they were read open a new epoch, and the commit is left as it was",
    async () => {
      const deps = kafkaDeps(await sharedKafka());
      const topic = await createTopics(deps, 1);
      const id = `${topic}/0`;
      const count = await fill(deps, topic);
      await using reader = openKafkaReader({ ...deps, topic, groupId: uniqueName("processor") });
      const deliveries = reader.deliveries(new AbortController().signal)[Symbol.asyncIterator]();
      const { epoch } = await assigned(deliveries);
      reader.seek(epoch, id, 0);
      await reader.commit(epoch, id, { offset: 1, metadata: "kept" });
      await until("its buffer is full", () => reader.assignment.bufferedBytes > 2 * 1024 * 1024);
      await deleteRecords(deps, id, count - 1);

      // Whatever was buffered may still come; then the new epoch, because the next record is not there any more.
      const newer = await assigned(deliveries);
      expect(newer.epoch).toBeGreaterThan(epoch);
      const stale = reader.commit(epoch, id, { offset: 2, metadata: "stale" });
      await expect(stale).rejects.toBeInstanceOf(StaleEpochError);
      const range = await reader.position(newer.epoch, id);
      expect(range).toEqual({
        committed: { offset: 1, metadata: "kept" },
        beginOffset: count - 1,
        endOffset: count,
      });
      reader.seek(newer.epoch, id, range.beginOffset);
      const { value } = await deliveries.next();
      expect(value).toMatchObject({ type: "batch", fromOffset: count - 1, nextOffset: count });
    },
    TEST_MS_MAX,
  );

  test(
    "records of others that nobody may see (an aborted transaction) are passed over without a gap",
    async () => {
      const deps = kafkaDeps(await sharedKafka());
      const topic = await createTopics(deps, 1);
      const producer = createKafka(deps, { outlastsRestart: true }).producer({
        transactionalId: uniqueName("others"),
        idempotent: true,
        maxInFlightRequests: 1,
        createPartitioner: () => () => 0,
      });
      await producer.connect();
      for (const isCommitted of [true, false, true]) {
        const transaction = await producer.transaction();
        const value = isCommitted ? "seen" : "unseen";
        await transaction.send({ topic, messages: [{ key: "k", value }] });
        await (isCommitted ? transaction.commit() : transaction.abort());
      }
      const aborted = await producer.transaction();
      await aborted.send({ topic, messages: [{ key: "k", value: "unseen" }] });
      await aborted.abort();
      await producer.disconnect();
      await append(deps, topic, entries("AAPL", 1));
      await using reader = openKafkaReader({ ...deps, topic, groupId: uniqueName("processor") });
      const sync = new Follower(reader);
      await until("the last record", () => sync.values.includes("AAPL#1"));
      expect(sync.values).toEqual(["seen", "seen", "AAPL#1"]);
      expect(sync.positions.get(`${topic}/0`)).toBe(9);
      await sync.end();
    },
    TEST_MS_MAX,
  );

  test.each(["zstd", "gzip", "none"] as const)(
    "what was written with %s is read",
    async (compression) => {
      const deps = kafkaDeps(await sharedKafka(), { compression });
      const topic = await createTopics(deps, 1);
      await append(deps, topic, entries("AAPL", 500));
      await using reader = openKafkaReader({ ...deps, topic, groupId: uniqueName("processor") });
      const sync = new Follower(reader);
      await until("all", () => sync.values.length === 500);
      expect(sync.values).toEqual(entries("AAPL", 500).map(({ value }) => decoder.decode(value)));
      await sync.end();
    },
    TEST_MS_MAX,
  );

  test(
    "a reader without its topics ends with what to run",
    async () => {
      const deps = kafkaDeps(await sharedKafka());
      await using reader = openKafkaReader({
        ...deps,
        topic: uniqueName("market"),
        groupId: uniqueName("processor"),
      });
      const { ended } = new Follower(reader);
      await expect(ended).rejects.toBeInstanceOf(SetupError);
      await expect(ended).rejects.toMatchObject({ hint: expect.stringContaining("admin init") });
    },
    TEST_MS_MAX,
  );

  test(
    "a consumer from which nothing is heard ends the iteration with an error; one long sleep does not",
    async () => {
      const looks: (() => void)[] = [];
      const clock: Clock = {
        ...systemClock,
        after(durationMs, callback) {
          // The looks for silence: by hand.
          if (durationMs !== 5_000) return systemClock.after(durationMs, callback);
          looks.push(callback);
          return () => {};
        },
      };
      const deps = { ...kafkaDeps(await sharedKafka()), clock };
      const topic = await createTopics(deps, 1);
      await using reader = openKafkaReader({ ...deps, topic, groupId: uniqueName("processor") });
      const sync = new Follower(reader);
      await until("a member", () => sync.epochs.length === 1);
      const look = () => looks.at(-1)?.();
      look();
      await append(deps, topic, entries("AAPL", 1));
      await until("all is well", () => sync.values.length === 1);
      // In one step, so that nothing can be heard in between.
      for (let count = 0; count < 20; count++) look();
      await expect(sync.ended).rejects.toBeInstanceOf(PipelineError);
      await expect(sync.ended).rejects.toThrow("neither fetched nor connected");
    },
    TEST_MS_MAX,
  );

  test(
    "a broker that is killed and comes back costs neither the reader nor a record",
    async () => {
      await using kafka = await startKafka();
      const deps = kafkaDeps(kafka);
      const topic = await createTopics(deps, 2);
      await append(deps, topic, [...entries("AAPL", 50), ...entries("MSFT", 50)]);
      await using reader = openKafkaReader({ ...deps, topic, groupId: uniqueName("processor") });
      const sync = new Follower(reader);
      await until("the first half", () => sync.values.length === 100);
      await sync.commitAll();
      await kafka.restart();
      await append(deps, topic, [...entries("AAPL", 50, 51), ...entries("MSFT", 50, 51)]);
      await until("the other half", () => new Set(sync.values).size === 200, 60_000);
      // Committed before the restart: none of the first half comes again.
      expect(sync.values.length).toBe(200);
      await sync.commitAll("after");
      await sync.end();
    },
    TEST_MS_MAX,
  );
});

/** More than a reader buffers, in records of 20 kB that no codec makes smaller; answers their number. */
async function fill(deps: KafkaDeps, topic: string): Promise<number> {
  const count = 300;
  const random = seeded(1);
  const values = Array.from({ length: count }, () => Uint8Array.from({ length: 20_000 }, () => random(256)));
  await append(
    deps,
    topic,
    values.map((value) => ({ kind: "trades", key: "AAPL", value })),
  );
  return count;
}

/** The next epoch; batches before it are passed over. */
async function assigned(deliveries: AsyncIterator<Delivery>): Promise<Delivery & { type: "assigned" }> {
  for (;;) {
    const { done, value } = await deliveries.next();
    if (done) throw new Error("the iteration ended instead of a new epoch");
    if (value.type === "assigned") return value;
  }
}
