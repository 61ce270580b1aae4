// What the topics should be like, and what is said about a topic that is unlike that.

import { expect, test } from "bun:test";
import { SetupError } from "../../../lib/base/errors.ts";
import { checkPartitionCount, differencesOf, topicConfigs } from "../../../lib/kafka/topic-configs.ts";
import { topicNames } from "../../../lib/kafka/topics.ts";

const DAY_MS = 86_400_000;
const wanted = { partitions: 8, retentionDays: 30, force: false };

function settingsOf(brokerCount: number) {
  const configs = topicConfigs(topicNames("market"), wanted, brokerCount);
  return configs.map(({ topic, numPartitions, replicationFactor, configEntries = [] }) => ({
    topic,
    numPartitions,
    replicationFactor,
    settings: Object.fromEntries(configEntries.map(({ name, value }) => [name, value])),
  }));
}

test("only the trades have several partitions, and only the tickers are compacted", () => {
  expect(
    settingsOf(1).map(({ topic, numPartitions, settings }) => [
      topic,
      numPartitions,
      settings["cleanup.policy"],
    ]),
  ).toEqual([
    ["market", 8, "delete"],
    ["market.events", 1, "delete"],
    ["market.dead", 1, "delete"],
    ["market.tickers", 1, "compact"],
  ]);
});

test("a record and its segment are gone before the trades' time to live is over", () => {
  const [trades] = settingsOf(1);
  expect(trades!.settings["retention.ms"]).toBe(String(27 * DAY_MS));
  expect(trades!.settings["segment.ms"]).toBe(String(DAY_MS));
});

test.each([
  [1, 1, "1"],
  [2, 2, "1"],
  [3, 3, "2"],
  [5, 3, "2"],
])("with %d brokers there are %d copies, %s of which must have a record", (brokers, copies, inSync) => {
  for (const { replicationFactor, settings } of settingsOf(brokers)) {
    expect([replicationFactor, settings["min.insync.replicas"]]).toEqual([copies, inSync]);
  }
});

test("the number of partitions is never made smaller, and larger only by force", () => {
  const check = (found: number, force: boolean) => () =>
    checkPartitionCount("market", found, { ...wanted, force });
  check(8, false)();
  check(4, true)();
  expect(check(4, false)).toThrow("market has 4 partitions and KAFKA_TOPIC_PARTITIONS is 8");
  expect(check(9, true)).toThrow(SetupError);
});

test("a setting that is unlike what is wanted has a sentence, and one that is missing too", () => {
  const config = {
    topic: "market",
    configEntries: [
      { name: "retention.ms", value: "2" },
      { name: "segment.ms", value: "1" },
      { name: "cleanup.policy", value: "delete" },
    ],
  };
  const values = new Map([
    ["retention.ms", "1"],
    ["cleanup.policy", "delete"],
  ]);
  expect(differencesOf(config, values)).toEqual([
    "market has retention.ms=1, but should have 2; init does not change it: use kafka-configs.sh",
    "market has segment.ms=undefined, but should have 1; init does not change it: use kafka-configs.sh",
  ]);
});
