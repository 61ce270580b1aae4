// `admin init` of the compiled binary on real engines: begun before they are there, run again, run with other wishes,
// and on a keyspace that is somebody else's. What it did is asked of Kafka and Cassandra by plain clients.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import cassandra from "cassandra-driver";
import { type Admin, ConfigResourceTypes, Kafka } from "kafkajs";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import { addressesOf, buildBinaries, runCommand, type Settings } from "../support/processes.ts";
import { DATACENTER, clientOptions as nodeOptions, startCassandra } from "../support/services/cassandra.ts";
import { clientOptions as brokerOptions, startKafka } from "../support/services/kafka.ts";
import type { Server } from "../support/services/server.ts";
import { services, uniqueName } from "../support/services/shared.ts";

const START_MS_MAX = 180_000;
const TEST_MS_MAX = 180_000;
const DAY_S = 86_400;

describe.skipIf(!services.available)("admin init", () => {
  let binaries: ReturnType<typeof buildBinaries>;
  let kafka: Server;
  let node: Server;

  beforeAll(async () => {
    binaries = buildBinaries();
    [kafka, node] = await Promise.all([startKafka(), startCassandra()]);
  }, START_MS_MAX);
  afterAll(async () => {
    binaries?.[Symbol.dispose]();
    await Promise.all([kafka?.[Symbol.asyncDispose](), node?.[Symbol.asyncDispose]()]);
  }, START_MS_MAX);

  function settingsOf(directory: string, changes: Settings = {}): Settings {
    const name = uniqueName("market");
    return {
      ...addressesOf(kafka, node),
      KAFKA_TOPIC_NAME: name,
      CASSANDRA_KEYSPACE: name,
      DATA_DIR: directory,
      ...changes,
    };
  }
  const init = (settings: Settings, ...args: string[]) =>
    runCommand(binaries.path("admin"), ["init", ...args], settings);

  async function askKafka<T>(question: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = new Kafka(brokerOptions(kafka.port)).admin();
    await admin.connect();
    try {
      return await question(admin);
    } finally {
      await admin.disconnect();
    }
  }
  const partitionCount = (topic: string) =>
    askKafka(async (admin) => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      return topics[0]!.partitions.length;
    });
  const configOf = (topic: string) =>
    askKafka(async (admin) => {
      const asked = [{ type: ConfigResourceTypes.TOPIC, name: topic }];
      const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: asked });
      return Object.fromEntries(
        resources[0]!.configEntries.map(({ configName, configValue }) => [configName, configValue]),
      );
    });
  async function askNode(query: string, params: unknown[] = []): Promise<cassandra.types.Row[]> {
    const client = new cassandra.Client(nodeOptions(node.port));
    try {
      return (await client.execute(query, params, { prepare: true })).rows ?? [];
    } finally {
      await client.shutdown();
    }
  }
  const ttls = async (keyspace: string) =>
    Object.fromEntries(
      (
        await askNode(
          "SELECT table_name, default_time_to_live FROM system_schema.tables WHERE keyspace_name = ?",
          [keyspace],
        )
      ).map((row) => [row.table_name, row.default_time_to_live]),
    );

  test(
    "begun before Kafka and Cassandra run it waits for both, and a second run changes nothing",
    async () => {
      using directory = temporaryDirectory();
      const settings = settingsOf(directory.path);
      await Promise.all([kafka.stop(), node.stop()]);
      let isEnded = false;
      const begun = init(settings).finally(() => {
        isEnded = true;
      });
      await kafka.start();
      expect(isEnded).toBe(false);
      await node.start();
      const first = await begun;
      expect(first).toMatchObject({ code: 0 });
      for (const words of ["Kafka cannot be reached", "Cassandra is not available"])
        expect(first.err).toContain(words);
      expect(first.out).toContain(`made the topic ${settings.KAFKA_TOPIC_NAME} (partitions: 8)`);
      expect(first.out).toContain(`created the keyspace ${settings.CASSANDRA_KEYSPACE}`);

      const topic = settings.KAFKA_TOPIC_NAME!;
      const topics = [topic, `${topic}.events`, `${topic}.dead`, `${topic}.tickers`];
      const made = () => Promise.all([...topics.map(configOf), ttls(topic), partitionCount(topic)]);
      const before = await made();
      expect(before[3]).toMatchObject({ "cleanup.policy": "compact" });
      const again = await init(settings);
      expect(again).toMatchObject({ code: 0, err: "" });
      expect(again.out).toBe(`the keyspace ${topic} is as it should be\n`);
      expect(await made()).toEqual(before);
    },
    TEST_MS_MAX,
  );

  test(
    "another number of partitions is refused, given with --force where it grows, and never taken away",
    async () => {
      using directory = temporaryDirectory();
      const settings = settingsOf(directory.path, { KAFKA_TOPIC_PARTITIONS: "2" });
      const topic = settings.KAFKA_TOPIC_NAME!;
      expect((await init(settings)).code).toBe(0);
      const more = { ...settings, KAFKA_TOPIC_PARTITIONS: "5" };
      const refused = await init(more);
      expect(refused.code).toBe(1);
      expect(refused.err).toContain(`${topic} has 2 partitions and KAFKA_TOPIC_PARTITIONS is 5`);
      expect(refused.err).toContain("--force");
      expect(await partitionCount(topic)).toBe(2);
      const forced = await init(more, "--force");
      expect(forced.code).toBe(0);
      expect(forced.out).toContain("admin verify --repair");
      expect(await partitionCount(topic)).toBe(5);
      const fewer = await init(settings, "--force");
      expect(fewer.code).toBe(1);
      expect(fewer.err).toContain("Kafka cannot take partitions away");
      expect(await partitionCount(topic)).toBe(5);
    },
    TEST_MS_MAX,
  );

  test(
    "another RETENTION_DAYS changes the tables, says what the topics keep, and is said only once",
    async () => {
      using directory = temporaryDirectory();
      const settings = settingsOf(directory.path, { RETENTION_DAYS: "10" });
      const name = settings.CASSANDRA_KEYSPACE!;
      expect((await init(settings)).code).toBe(0);
      for (const days of [3, 20]) {
        const changed = await init({ ...settings, RETENTION_DAYS: String(days) });
        expect(changed.code).toBe(0);
        expect(changed.out).toContain(`are kept for ${days} day(s) from now on`);
        // A topic belongs to its operator: it is said, and left.
        expect(changed.out).toContain(`${name} has retention.ms=${10 * DAY_S * 900}`);
        expect(await ttls(name)).toMatchObject({
          trades: days * DAY_S,
          feed_events: days * DAY_S,
          running_averages_15_sec: (days + 1) * DAY_S,
          candles_1_min: (days + 1) * DAY_S,
        });
        const again = await init({ ...settings, RETENTION_DAYS: String(days) });
        expect(again.out).toContain(`the keyspace ${name} is as it should be`);
      }
    },
    TEST_MS_MAX,
  );

  test(
    "a keyspace with the origin's tables is refused with a sentence, its rows are left, and no table of ours is added",
    async () => {
      using directory = temporaryDirectory();
      const settings = settingsOf(directory.path);
      const keyspace = settings.CASSANDRA_KEYSPACE!;
      await askNode(
        `CREATE KEYSPACE ${keyspace} WITH replication = {'class': 'NetworkTopologyStrategy', '${DATACENTER}': 1}`,
      );
      await askNode(
        `CREATE TABLE ${keyspace}.trades (uuid uuid, symbol text, trade_conditions text, price double, volume double,
         trade_timestamp timestamp, ingest_timestamp timestamp, PRIMARY KEY ((symbol), trade_timestamp))
         WITH CLUSTERING ORDER BY (trade_timestamp DESC)`,
      );
      await askNode(
        `INSERT INTO ${keyspace}.trades (symbol, trade_timestamp, price) VALUES ('AAPL', 1000, 2.5)`,
      );
      const refused = await init(settings);
      expect(refused.code).toBe(1);
      expect(refused.err).toContain(
        `${keyspace} has a table trades that is not ours: its key is ((symbol), trade_timestamp)`,
      );
      expect(refused.err).toContain("set CASSANDRA_KEYSPACE to a name that is free");
      expect((await askNode(`SELECT price FROM ${keyspace}.trades`)).map(({ price }) => price)).toEqual([
        2.5,
      ]);
      expect(Object.keys(await ttls(keyspace))).toEqual(["trades"]);
      // Nor does any other part work with it.
      for (const [name, port] of [
        ["processor", "PROCESSOR_PORT"],
        ["admin", "ADMIN_PORT"],
      ] as const) {
        const ended = await runCommand(binaries.path(name), [], { ...settings, [port]: "0" });
        expect(ended.code).toBe(1);
        expect(ended.err).toContain("a table trades that is not ours");
      }
    },
    TEST_MS_MAX,
  );

  test(
    "what Kafka refuses is told although Cassandra is not there, and a stop ends the waiting",
    async () => {
      using directory = temporaryDirectory();
      const settings = settingsOf(directory.path, { KAFKA_TOPIC_PARTITIONS: "2" });
      expect((await init(settings)).code).toBe(0);
      const nowhere = { ...settings, CASSANDRA_PORT: "1" };
      const refused = await init({ ...nowhere, KAFKA_TOPIC_PARTITIONS: "1" });
      expect(refused.code).toBe(1);
      expect(refused.err).toContain("Kafka cannot take partitions away");
      // By itself, not because it was stopped.
      expect(refused.err).not.toContain("stopping");
      const child = Bun.spawn([binaries.path("admin"), "init"], {
        cwd: directory.path,
        env: { HOME: directory.path, ...nowhere },
        stdout: "ignore",
        stderr: "pipe",
      });
      let said = "";
      void (async () => {
        for await (const chunk of child.stderr) said += new TextDecoder().decode(chunk);
      })();
      await eventually(TEST_MS_MAX, "it waits for Cassandra", async () => said.includes("Cassandra"));
      child.kill("SIGTERM");
      expect(await child.exited).not.toBe(0);
      expect(child.signalCode).toBeNull();
    },
    TEST_MS_MAX,
  );
});
