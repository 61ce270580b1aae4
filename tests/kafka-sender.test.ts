// The far end of the outbox: what counts as acknowledged, when a leader moves, a broker dies or a batch is refused.

import { describe, expect, test } from "bun:test";
import { SetupError } from "../lib/errors.ts";
import { createKafka } from "../lib/kafka.ts";
import { createPartitionChoice, openKafkaSender } from "../lib/kafka-sender.ts";
import { openTopics } from "../lib/kafka-topics.ts";
import type { LogEntry, PartitionId, SendBatch, SendOutcome } from "../lib/log.ts";
import { openStubCluster } from "./kafka-stub.ts";
import { startKafka } from "./services/kafka.ts";
import { services, sharedKafka, uniqueName } from "./services/shared.ts";
import { seeded } from "./support.ts";
import { createTopics, kafkaParts, until } from "./support-kafka.ts";

const TOPIC = "market";

function batch(partition: PartitionId, count = 1, bytes = 10): SendBatch {
  const random = seeded(count);
  // Bytes that no codec makes smaller.
  const value = () => Uint8Array.from({ length: bytes }, () => random(256));
  const entries = Array.from(
    { length: count },
    (): LogEntry => ({ kind: "trades", key: "k", value: value() }),
  );
  return { partition, entries };
}

function kindsOf(outcomes: readonly SendOutcome[]): string[] {
  return outcomes.map(({ kind }) => kind);
}

/** On stub brokers, whose address is the only one that matters. */
function stubParts(addresses: readonly string[]) {
  return kafkaParts({ host: "", port: 0 }, { brokers: [...addresses], compression: "none" });
}

/**
 * Partition 0 is led by broker 0, partition 1 by broker 1; broker 1 answers second, and by then broker 0 leads both.
 */
async function openMovingCluster() {
  const cluster = await openStubCluster(TOPIC, [0, 1]);
  const first = Promise.withResolvers<void>();
  cluster.beforeProduce = async (broker) => {
    if (broker === 0) {
      first.resolve();
      return;
    }
    await first.promise;
    cluster.partitions[1]!.leader = 0;
    // A moment for the first answer to arrive before this one.
    await Bun.sleep(50);
  };
  return cluster;
}

test("a leader that moves to a broker which has answered: nothing is acknowledged that was not written", async () => {
  await using cluster = await openMovingCluster();
  await using sender = openKafkaSender({ ...stubParts(cluster.addresses), topic: TOPIC });
  await sender.ready();
  const batches = [batch("market/0", 3), batch("market/1", 4)];
  const outcomes = await sender.send(batches);
  for (const [index, { kind }] of outcomes.entries()) {
    if (kind === "acknowledged") expect(cluster.partitions[index]!.written).toBeGreaterThan(0);
  }
  expect(outcomes[1]!.kind).toBe("unavailable");
  // The next send knows the new leader.
  expect(kindsOf(await sender.send([batches[1]!]))).toEqual(["acknowledged"]);
  expect(cluster.partitions[1]!.written).toBe(4);
});

test("kafkajs's own retry resolves there although one partition was never written: why it is off", async () => {
  await using cluster = await openMovingCluster();
  const producer = createKafka(stubParts(cluster.addresses), "once").producer({
    retry: { retries: 3, initialRetryTime: 10 },
    createPartitioner:
      () =>
      ({ message }) =>
        message.partition ?? 0,
  });
  await producer.connect();
  const message = (partition: number) => ({ key: "k", value: Buffer.from("v"), partition });
  await producer.sendBatch({ topicMessages: [{ topic: TOPIC, messages: [message(0), message(1)] }] });
  expect(cluster.partitions.map(({ written }) => written)).toEqual([1, 0]);
  await producer.disconnect();
});

test("a partition without a leader keeps nobody else from being acknowledged", async () => {
  await using cluster = await openStubCluster(TOPIC, [0, -1, 1]);
  await using sender = openKafkaSender({ ...stubParts(cluster.addresses), topic: TOPIC });
  await sender.ready();
  expect(kindsOf(await sender.send([batch("market/0"), batch("market/2")]))).toEqual([
    "acknowledged",
    "acknowledged",
  ]);
  expect(kindsOf(await sender.send([batch("market/1")]))).toEqual(["unavailable"]);
  expect(kindsOf(await sender.send([batch("market/0")]))).toEqual(["acknowledged"]);
});

test("nothing to send is acknowledged without a word to Kafka", async () => {
  await using sender = openKafkaSender({ ...stubParts(["127.0.0.1:1"]), topic: TOPIC });
  expect(await sender.send([])).toEqual([]);
  expect(kindsOf(await sender.send([{ partition: "market/0", entries: [] }]))).toEqual(["acknowledged"]);
  expect(kindsOf(await sender.send([batch("market/0")]))).toEqual(["unavailable"]);
  expect(() => sender.partitionOf("trades", "AAPL")).toThrow("before ready()");
});

test("keys go where Java's producer sends them", () => {
  // Hashes from Apache Kafka's own UtilsTest, made positive as Java does.
  const hashes: [string, number][] = [
    ["21", -973932308],
    ["foobar", -790332482],
    ["a-little-bit-long-string", -985981536],
    ["a-little-bit-longer-string", -1486304829],
    ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
    ["abc", 479470107],
  ];
  const choose = createPartitionChoice();
  for (const [key, hash] of hashes) {
    for (const count of [2, 8, 1_000]) {
      const expected = (hash & 0x7fffffff) % count;
      expect([choose(key, count), choose(key, count)]).toEqual([expected, expected]);
    }
  }
  expect(choose("", 8)).toBeLessThan(8);
});

describe.skipIf(!services.available)("on a real broker", () => {
  test("each kind goes to its topic, and one send covers several partitions", async () => {
    const parts = kafkaParts(await sharedKafka());
    const topic = await createTopics(parts, 3);
    await using sender = openKafkaSender({ ...parts, topic });
    await sender.ready();
    await sender.ready();
    expect(sender.partitionOf("event", "any")).toBe(`${topic}.events/0`);
    expect(sender.partitionOf("dead", "any")).toBe(`${topic}.dead/0`);
    const partitions = [0, 1, 2].map((partition) => `${topic}/${partition}`);
    expect(partitions).toContain(sender.partitionOf("trades", "AAPL"));
    const all = [...partitions, `${topic}.events/0`, `${topic}.dead/0`];
    expect(new Set(kindsOf(await sender.send(all.map((id) => batch(id, 2)))))).toEqual(
      new Set(["acknowledged"]),
    );
    // What does not stand in the answer is not acknowledged.
    expect(kindsOf(await sender.send([batch(`${topic}/0`), batch(`${topic}/77`)]))).toEqual([
      "acknowledged",
      "unavailable",
    ]);
    await using topics = openTopics({ ...parts, topic });
    const ends = await topics.offsetsAt(topic, Date.now() + 60_000);
    expect(Object.fromEntries(ends)).toEqual({ [`${topic}/0`]: 3, [`${topic}/1`]: 2, [`${topic}/2`]: 2 });
  }, 60_000);

  test("a batch too large is said only of the one it is about, and of one message only alone", async () => {
    const parts = kafkaParts(await sharedKafka());
    const topic = await createTopics(parts, 2);
    await using sender = openKafkaSender({ ...parts, topic });
    await sender.ready();
    const large = batch(`${topic}/0`, 2, 700_000);
    const huge = batch(`${topic}/0`, 1, 1_200_000);
    expect(kindsOf(await sender.send([large]))).toEqual(["too_large"]);
    expect(kindsOf(await sender.send([huge]))).toEqual(["refused"]);
    expect(kindsOf(await sender.send([large, batch(`${topic}/1`)]))).toEqual(["unavailable", "unavailable"]);
    expect(kindsOf(await sender.send([batch(`${topic}/1`)]))).toEqual(["acknowledged"]);
    expect(kindsOf(await sender.send([batch(`${topic}.dead/0`, 1, 1_200_000)]))).toEqual(["acknowledged"]);
  }, 60_000);

  test("without its topics the sender says what to run", async () => {
    const parts = kafkaParts(await sharedKafka());
    await using sender = openKafkaSender({ ...parts, topic: uniqueName("market") });
    const refusal = sender.ready();
    await expect(refusal).rejects.toBeInstanceOf(SetupError);
    await expect(refusal).rejects.toMatchObject({ hint: expect.stringContaining("admin init") });
  }, 60_000);

  test("a broker that dies makes sends unavailable, and acknowledges again when it is back", async () => {
    await using kafka = await startKafka();
    const parts = kafkaParts(kafka);
    const topic = await createTopics(parts, 1);
    await using sender = openKafkaSender({ ...parts, topic });
    await sender.ready();
    const one = [batch(`${topic}/0`)];
    expect(kindsOf(await sender.send(one))).toEqual(["acknowledged"]);
    await kafka.kill();
    expect(kindsOf(await sender.send(one))).toEqual(["unavailable"]);
    expect(kindsOf(await sender.send(one))).toEqual(["unavailable"]);
    await kafka.start();
    await until("an acknowledgement", async () => kindsOf(await sender.send(one))[0] === "acknowledged");
  }, 120_000);
});
