// The far end of the outbox: what counts as acknowledged, when a leader moves, a broker dies or a batch is refused.

import { describe, expect, test } from "bun:test";
import { type Clock, systemClock } from "../../../lib/base/clock.ts";
import { LogUnavailableError, SetupError } from "../../../lib/base/errors.ts";
import type { LogEntry, PartitionId, SendBatch, SendOutcome } from "../../../lib/contracts/log.ts";
import { createKafka } from "../../../lib/kafka/client.ts";
import { openCompactedTopic } from "../../../lib/kafka/compacted-topic.ts";
import { createPartitionChoice, openKafkaSender } from "../../../lib/kafka/sender.ts";
import { seeded } from "../../support/builders.ts";
import { createTopics, kafkaDeps, until } from "../../support/kafka.ts";
import { openStubCluster } from "../../support/kafka-stub.ts";
import { startKafka } from "../../support/services/kafka.ts";
import { services, sharedKafka, uniqueName } from "../../support/services/shared.ts";

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
function stubDeps(addresses: readonly string[]) {
  return kafkaDeps({ host: "", port: 0 }, { brokers: [...addresses], compression: "none" });
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
  await using sender = openKafkaSender({ ...stubDeps(cluster.addresses), topic: TOPIC });
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

test("a partition without a leader keeps nobody else from being acknowledged", async () => {
  await using cluster = await openStubCluster(TOPIC, [0, -1, 1]);
  await using sender = openKafkaSender({ ...stubDeps(cluster.addresses), topic: TOPIC });
  await sender.ready();
  const all = [batch("market/0"), batch("market/1"), batch("market/2")];
  const expected = ["acknowledged", "unavailable", "acknowledged"];
  expect(kindsOf(await sender.send(all))).toEqual(expected);
  expect(kindsOf(await sender.send([batch("market/1")]))).toEqual(["unavailable"]);
  expect(kindsOf(await sender.send(all))).toEqual(expected);
  expect(cluster.partitions.map(({ written }) => written)).toEqual([2, 0, 2]);
});

const REFUSALS: readonly [name: string, code: number, several: string, alone: string][] = [
  ["MESSAGE_TOO_LARGE", 10, "too_large", "refused"],
  ["RECORD_LIST_TOO_LARGE", 18, "too_large", "refused"],
  ["INVALID_RECORD", 87, "too_large", "refused"],
  ["INVALID_TIMESTAMP", 32, "unavailable", "unavailable"],
  ["CORRUPT_MESSAGE", 2, "unavailable", "unavailable"],
  ["NOT_ENOUGH_REPLICAS", 19, "unavailable", "unavailable"],
  ["TOPIC_AUTHORIZATION_FAILED", 29, "unavailable", "unavailable"],
  ["a code that nobody knows", 30_000, "unavailable", "unavailable"],
];

test.each(REFUSALS)("%s is said of its own partition only", async (_name, code, several, alone) => {
  // The first of its broker's answer, which another broker's follows.
  await using cluster = await openStubCluster(TOPIC, [0, 0, 1]);
  await using sender = openKafkaSender({ ...stubDeps(cluster.addresses), topic: TOPIC });
  await sender.ready();
  cluster.partitions[0]!.refusal = code;
  for (const [count, kind] of [
    [2, several],
    [1, alone],
  ] as const) {
    const sent = [batch("market/0", count), batch("market/1"), batch("market/2")];
    expect(kindsOf(await sender.send(sent))).toEqual([kind, "acknowledged", "acknowledged"]);
  }
  expect(cluster.partitions.map(({ written }) => written)).toEqual([0, 2, 2]);
});

test("one leader that has moved: the others are acknowledged at once, and the next send finds it", async () => {
  await using cluster = await openStubCluster(TOPIC, [0, 1, 1]);
  await using sender = openKafkaSender({ ...stubDeps(cluster.addresses), topic: TOPIC });
  await sender.ready();
  const all = [batch("market/0"), batch("market/1"), batch("market/2")];
  await sender.send(all);
  cluster.partitions[1]!.leader = 0;
  const askedCount = cluster.counts.metadata;
  expect(kindsOf(await sender.send(all))).toEqual(["acknowledged", "unavailable", "acknowledged"]);
  // They did not wait for it.
  expect(cluster.counts.metadata).toBe(askedCount);
  expect(kindsOf(await sender.send(all))).toEqual(["acknowledged", "acknowledged", "acknowledged"]);
  expect(cluster.partitions.map(({ written }) => written)).toEqual([3, 2, 3]);
});

test("a broker that dies while it is asked: what the other one leads is acknowledged, in every send", async () => {
  await using cluster = await openStubCluster(TOPIC, [0, 1]);
  await using sender = openKafkaSender({ ...stubDeps(cluster.addresses), topic: TOPIC });
  await sender.ready();
  const both = [batch("market/0"), batch("market/1")];
  expect(kindsOf(await sender.send(both))).toEqual(["acknowledged", "acknowledged"]);
  cluster.beforeProduce = async (broker) => {
    if (broker === 1) await cluster.kill(1);
  };
  // First its connection breaks, then it refuses one.
  for (let sends = 0; sends < 3; sends++) {
    const outcomes = await sender.send(both);
    expect(kindsOf(outcomes)).toEqual(["acknowledged", "unavailable"]);
    expect(outcomes[1]).toMatchObject({ error: { message: expect.stringMatching(/onnection/) } });
  }
  expect(cluster.partitions[0]!.written).toBe(4);
  cluster.partitions[1]!.leader = 0;
  await until("the new leader", async () => kindsOf(await sender.send(both))[1] === "acknowledged");
});

test("a send is one try, whatever becomes of it", async () => {
  await using cluster = await openStubCluster(TOPIC, [0]);
  await using sender = openKafkaSender({ ...stubDeps(cluster.addresses), topic: TOPIC });
  await sender.ready();
  cluster.beforeProduce = () => cluster.hangUp(0);
  expect(kindsOf(await sender.send([batch("market/0")]))).toEqual(["unavailable"]);
  expect(cluster.counts.produce).toBe(1);
});

test("a topic recreated with fewer partitions: a partition that is gone says that a restart is needed", async () => {
  await using cluster = await openStubCluster(TOPIC, [0, 1, 0]);
  await using sender = openKafkaSender({ ...stubDeps(cluster.addresses), topic: TOPIC });
  await sender.ready();
  const all = [batch("market/0"), batch("market/1"), batch("market/2")];
  await sender.send(all);
  cluster.partitions.length = 2;
  expect(kindsOf(await sender.send(all))).toEqual(["acknowledged", "acknowledged", "unavailable"]);
  const outcomes = await sender.send(all);
  expect(kindsOf(outcomes)).toEqual(["acknowledged", "acknowledged", "unavailable"]);
  expect(outcomes[2]).toMatchObject({
    error: { message: "market has 2 partitions now, 3 when this process started: restart it" },
  });
});

describe("a broker that never answers", () => {
  /** Its bounds fire only by hand. */
  function byHand() {
    const due = new Set<() => void>();
    const clock: Clock = {
      ...systemClock,
      after(_durationMs, callback) {
        due.add(callback);
        return () => due.delete(callback);
      },
    };
    return { clock, due };
  }

  /** An hour back, for as long as it lasts. */
  function setWallClockBack(): Disposable {
    const real = Date.now;
    Date.now = () => real() - 3_600_000;
    return {
      [Symbol.dispose]() {
        Date.now = real;
      },
    };
  }

  async function openSilentCluster(topic: string) {
    const cluster = await openStubCluster(topic, [0, 1]);
    const silence = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    cluster.beforeProduce = () => {
      asked.resolve();
      return silence.promise;
    };
    return { cluster, asked: asked.promise, endSilence: () => silence.resolve() };
  }

  test("is waited for no longer than the bound, also when the wall clock is set back", async () => {
    const { cluster, asked, endSilence } = await openSilentCluster(TOPIC);
    await using _ = cluster;
    const { clock, due } = byHand();
    await using sender = openKafkaSender({ ...stubDeps(cluster.addresses), clock, topic: TOPIC });
    await sender.ready();
    expect(due.size).toBe(0);
    const sends = [sender.send([batch("market/0"), batch("market/1")]), sender.send([batch("market/0")])];
    await asked;
    using _past = setWallClockBack();
    expect(due.size).toBe(2);
    const [first] = due;
    first?.();
    const [common, alone] = await Promise.all(sends);
    expect([...kindsOf(common!), ...kindsOf(alone!)]).toEqual(["unavailable", "unavailable", "unavailable"]);
    expect(common![0]).toMatchObject({ error: { message: expect.stringContaining("not answered in time") } });
    expect(due.size).toBe(0);
    // The connections are gone, so a late answer reaches nobody; the next send makes new ones.
    await until("no connection", () => cluster.connectionCount === 0);
    cluster.beforeProduce = () => {};
    endSilence();
    expect(kindsOf(await sender.send([batch("market/0"), batch("market/1")]))).toEqual([
      "acknowledged",
      "acknowledged",
    ]);
  });

  test("keeps nobody from closing", async () => {
    const { cluster, asked } = await openSilentCluster(TOPIC);
    await using _ = cluster;
    const { clock, due } = byHand();
    const sender = openKafkaSender({ ...stubDeps(cluster.addresses), clock, topic: TOPIC });
    await sender.ready();
    const sent = sender.send([batch("market/0")]);
    await asked;
    using _past = setWallClockBack();
    const closed = sender[Symbol.asyncDispose]();
    // The second one is that of closing.
    expect(due.size).toBe(2);
    [...due][1]?.();
    await closed;
    expect(kindsOf(await sent)).toEqual(["unavailable"]);
    await until("no connection", () => cluster.connectionCount === 0);
  });

  test("is waited for no longer than the bound by a single put", async () => {
    const { cluster, asked } = await openSilentCluster(TOPIC);
    await using _ = cluster;
    const { clock, due } = byHand();
    await using writer = openCompactedTopic({ ...stubDeps(cluster.addresses), clock, topic: TOPIC });
    const put = writer.put("key", new Uint8Array(1));
    await asked;
    using _past = setWallClockBack();
    for (const bound of due) bound();
    await expect(put).rejects.toBeInstanceOf(LogUnavailableError);
    cluster.beforeProduce = () => {};
    await writer.put("key", new Uint8Array(1));
    expect(cluster.partitions[0]!.written).toBe(1);
  });
});

test("a put that is refused says why", async () => {
  await using cluster = await openStubCluster(TOPIC, [0]);
  await using writer = openCompactedTopic({ ...stubDeps(cluster.addresses), topic: TOPIC });
  cluster.partitions[0]!.refusal = 29;
  await expect(writer.put("key", new Uint8Array(1))).rejects.toBeInstanceOf(SetupError);
  cluster.partitions[0]!.refusal = 19;
  await expect(writer.put("key", new Uint8Array(1))).rejects.toBeInstanceOf(LogUnavailableError);
});

test("nothing to send is acknowledged without a word to Kafka", async () => {
  await using sender = openKafkaSender({ ...stubDeps(["127.0.0.1:1"]), topic: TOPIC });
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
    const deps = kafkaDeps(await sharedKafka());
    const topic = await createTopics(deps, 3);
    await using sender = openKafkaSender({ ...deps, topic });
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
    const admin = createKafka(deps).admin();
    await admin.connect();
    const ends = await admin.fetchTopicOffsets(topic);
    await admin.disconnect();
    expect(ends.map(({ partition, high }) => [partition, high]).sort()).toEqual([
      [0, "3"],
      [1, "2"],
      [2, "2"],
    ]);
  }, 60_000);

  test("a batch too large is said only of the one it is about, and of one message only alone", async () => {
    const deps = kafkaDeps(await sharedKafka());
    const topic = await createTopics(deps, 2);
    await using sender = openKafkaSender({ ...deps, topic });
    await sender.ready();
    const large = batch(`${topic}/0`, 2, 700_000);
    const huge = batch(`${topic}/0`, 1, 1_200_000);
    expect(kindsOf(await sender.send([large]))).toEqual(["too_large"]);
    expect(kindsOf(await sender.send([huge]))).toEqual(["refused"]);
    expect(kindsOf(await sender.send([large, batch(`${topic}/1`)]))).toEqual(["too_large", "acknowledged"]);
    expect(kindsOf(await sender.send([batch(`${topic}/1`)]))).toEqual(["acknowledged"]);
    expect(kindsOf(await sender.send([batch(`${topic}.dead/0`, 1, 1_200_000)]))).toEqual(["acknowledged"]);
  }, 60_000);

  test("without its topics the sender says what to run", async () => {
    const deps = kafkaDeps(await sharedKafka());
    await using sender = openKafkaSender({ ...deps, topic: uniqueName("market") });
    const refusal = sender.ready();
    await expect(refusal).rejects.toBeInstanceOf(SetupError);
    await expect(refusal).rejects.toMatchObject({ hint: expect.stringContaining("admin init") });
  }, 60_000);

  test("a broker that dies makes sends unavailable, and acknowledges again when it is back", async () => {
    await using kafka = await startKafka();
    const deps = kafkaDeps(kafka);
    const topic = await createTopics(deps, 1);
    await using sender = openKafkaSender({ ...deps, topic });
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
