// `admin init`'s half of Kafka: topics made once, told when they are unlike, never changed behind an operator's
// back; and the figures of lag and of times.

import { describe, expect, test } from "bun:test";
import { LogUnavailableError, SetupError } from "../../../lib/base/errors.ts";
import { createKafka, type KafkaDeps } from "../../../lib/kafka/client.ts";
import { openKafkaReader } from "../../../lib/kafka/consumer.ts";
import { openKafkaSender } from "../../../lib/kafka/sender.ts";
import { openTopics } from "../../../lib/kafka/topics.ts";
import { DAY_MS } from "../../../lib/model/trade.ts";
import { createTopics, deleteRecords, kafkaDeps } from "../../support/kafka.ts";
import { startKafka } from "../../support/services/kafka.ts";
import { services, sharedKafka, uniqueName } from "../../support/services/shared.ts";

async function configOf(deps: KafkaDeps, topic: string): Promise<Map<string, string>> {
  const admin = createKafka(deps).admin();
  await admin.connect();
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: 2, name: topic }],
  });
  await admin.disconnect();
  return new Map(resources[0]!.configEntries.map(({ configName, configValue }) => [configName, configValue]));
}

test("nobody answers: waiting ends with the signal, and says what was wrong", async () => {
  const deps = kafkaDeps({ host: "127.0.0.1", port: 1 });
  await using topics = openTopics({ ...deps, topic: "market" });
  const waiting = topics.ready(AbortSignal.timeout(300));
  await expect(waiting).rejects.toBeInstanceOf(LogUnavailableError);
});

describe.skipIf(!services.available)("on a real broker", () => {
  test("four topics are made, and making them again changes nothing", async () => {
    const deps = kafkaDeps(await sharedKafka());
    const topic = uniqueName("market");
    await using topics = openTopics({ ...deps, topic });
    await expect(topics.partitionCount()).rejects.toMatchObject({
      name: "SetupError",
      hint: expect.stringContaining("admin init"),
    });
    const wanted = { partitions: 3, retentionDays: 10, force: false };
    expect(await topics.create(wanted)).toEqual([
      `made the topic ${topic} (partitions: 3)`,
      `made the topic ${topic}.events (partitions: 1)`,
      `made the topic ${topic}.dead (partitions: 1)`,
      `made the topic ${topic}.tickers (partitions: 1)`,
    ]);
    expect(await topics.create(wanted)).toEqual([]);
    expect(await topics.partitionCount()).toBe(3);

    const trades = await configOf(deps, topic);
    const dead = await configOf(deps, `${topic}.dead`);
    // With the last segment, which goes as a whole: still less than the rows live.
    const keptMs = Number(trades.get("retention.ms")) + Number(trades.get("segment.ms"));
    expect(keptMs).toBeLessThan(10 * DAY_MS);
    expect(keptMs).toBeGreaterThan(9 * DAY_MS);
    expect(Number(dead.get("max.message.bytes"))).toBeGreaterThan(Number(trades.get("max.message.bytes")));
    expect((await configOf(deps, `${topic}.tickers`)).get("cleanup.policy")).toBe("compact");
  }, 60_000);

  test("another number of partitions is refused, grown only by force, and never made smaller", async () => {
    const deps = kafkaDeps(await sharedKafka());
    const topic = await createTopics(deps, 2);
    await using topics = openTopics({ ...deps, topic });
    const create = (partitions: number, force: boolean) =>
      topics.create({ partitions, retentionDays: 30, force });
    await expect(create(4, false)).rejects.toMatchObject({
      name: "SetupError",
      message: expect.stringContaining(`${topic} has 2 partitions and KAFKA_TOPIC_PARTITIONS is 4`),
      hint: expect.stringContaining("--force"),
    });
    await expect(create(1, true)).rejects.toBeInstanceOf(SetupError);
    expect(await topics.partitionCount()).toBe(2);
    // A sender of before keeps its keys where they are.
    await using sender = openKafkaSender({ ...deps, topic });
    await sender.ready();
    const keys = Array.from({ length: 50 }, (_, index) => `key ${index}`);
    const before = keys.map((key) => sender.partitionOf("trades", key));
    expect(await create(4, true)).toHaveLength(1);
    expect(await topics.partitionCount()).toBe(4);
    await sender.ready();
    expect(keys.map((key) => sender.partitionOf("trades", key))).toEqual(before);
  }, 60_000);

  test("a topic that is unlike what is wanted is reported and left as it is", async () => {
    const deps = kafkaDeps(await sharedKafka());
    const topic = await createTopics(deps, 1);
    await using topics = openTopics({ ...deps, topic });
    const told = await topics.create({ partitions: 1, retentionDays: 60, force: false });
    const retentionMs = 30 * DAY_MS * 0.9;
    expect(told).toContain(
      `${topic} has retention.ms=${retentionMs}, but should have ${2 * retentionMs}; init does not change it: use kafka-configs.sh`,
    );
    expect((await configOf(deps, topic)).get("retention.ms")).toBe(String(retentionMs));
  }, 60_000);

  test("lag is what lies between the commit, or the log's beginning, and its end", async () => {
    const deps = kafkaDeps(await sharedKafka());
    const topic = await createTopics(deps, 1);
    const groupId = uniqueName("processor");
    await using topics = openTopics({ ...deps, topic });
    await using sender = openKafkaSender({ ...deps, topic });
    await sender.ready();
    const entry = { kind: "trades", key: "AAPL", value: Uint8Array.of(1) } as const;
    await sender.send([{ partition: `${topic}/0`, entries: Array.from({ length: 10 }, () => entry) }]);
    const events = {
      partition: `${topic}.events/0`,
      committed: null,
      beginOffset: 0,
      endOffset: 0,
      lag: 0,
    };
    const trades = { partition: `${topic}/0`, beginOffset: 0, endOffset: 10 };
    expect(await topics.lag(groupId)).toEqual([{ ...trades, committed: null, lag: 10 }, events]);

    await using reader = openKafkaReader({ ...deps, topic, groupId });
    for await (const delivery of reader.deliveries(AbortSignal.timeout(30_000))) {
      await reader.commit(delivery.epoch, `${topic}/0`, { offset: 4, metadata: "M" });
      break;
    }
    const committed = { offset: 4, metadata: "M" };
    expect(await topics.lag(groupId)).toEqual([{ ...trades, committed, lag: 6 }, events]);
    // What retention took before it was committed is no lag any more: nobody can catch it up.
    await deleteRecords(deps, `${topic}/0`, 7);
    expect((await topics.lag(groupId))[0]).toEqual({ ...trades, committed, beginOffset: 7, lag: 3 });
  }, 60_000);

  test("a broker that is still starting is waited for", async () => {
    await using kafka = await startKafka();
    await kafka.kill();
    await using topics = openTopics({ ...kafkaDeps(kafka), topic: "market" });
    const waiting = topics.ready(AbortSignal.timeout(60_000));
    await kafka.start();
    await waiting;
    expect(await topics.create({ partitions: 1, retentionDays: 1, force: false })).toHaveLength(4);
  }, 120_000);
});
