// The engines go away while trades pour in: a broker that hangs and one that is killed, a producer killed in the
// middle of that, a node that hangs. On servers of this file's own, through the compiled binaries; what must be there
// at the end is what the simulator sent, and what the topic holds is read by a plain client.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import avro from "avsc";
import { type Consumer, Kafka } from "kafkajs";
import { type Simulator, startSimulator } from "../../lib/simulator/simulator.ts";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import { aggregateProblems, ofRow, ofTape, plainOfRow, tradeProblems } from "../support/compare.ts";
import { allCommitted } from "../support/kafka.ts";
import {
  addressesOf,
  buildBinaries,
  mustRun,
  ownNames,
  receivedAll,
  type ServiceProcess,
  type Settings,
  startService,
} from "../support/processes.ts";
import { clientOptions as nodeOptions, startCassandra } from "../support/services/cassandra.ts";
import { clientOptions as brokerOptions, startKafka } from "../support/services/kafka.ts";
import type { Server } from "../support/services/server.ts";
import { services, uniqueName } from "../support/services/shared.ts";
import { readCassandra } from "../support/tables.ts";
import { tradesOfFrames } from "../support/tapes.ts";

const START_MS_MAX = 180_000;
const STEP_MS_MAX = 120_000;
const TEST_MS_MAX = 400_000;
const TRADES_PER_SECOND = 1_000;
/** Producer and processor need some 150 MB; what an outage holds back must wait on disk. */
const RSS_BYTES_MAX = 400e6;
const SYMBOLS = ["BTC", "ETH", "XRP", "DOGE", "ADA", "SOL", "LTC", "BNB"]
  .map((coin) => `BINANCE:${coin}USDT`)
  .concat(["AAPL", "AMZN", "MSFT", "TSLA"]);

describe.skipIf(!services.available)("outages", () => {
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

  async function setUp(directory: string, wsUrl: string): Promise<Settings> {
    const settings = {
      ...addressesOf(kafka, node),
      ...ownNames(),
      // What a plain kafkajs can read.
      KAFKA_COMPRESSION: "gzip",
      KAFKA_SESSION_TIMEOUT_MS: "6000",
      FINNHUB_WS_URL: wsUrl,
      FINNHUB_API_TOKEN: "outage-token",
      FINNHUB_STOCKS_TICKERS: JSON.stringify(SYMBOLS),
      FINNHUB_VALIDATE_TICKERS: "0",
      LOG_LEVEL: "warn",
      DATA_DIR: directory,
    };
    await mustRun(binaries.path("admin"), ["init"], settings);
    return settings;
  }

  /** All trades that a client got are in the table once, and the aggregates are right. */
  async function expectAllStored(simulator: Simulator, settings: Settings): Promise<void> {
    const sent = simulator.ledger.entries().filter((entry) => entry.sent);
    expect(simulator.ledger.forgotten()).toBe(0);
    const expected = tradesOfFrames(sent.map(({ text }) => text)).map(ofTape);
    const tables = await readCassandra(nodeOptions(node.port), settings.CASSANDRA_KEYSPACE!);
    expect(tradeProblems(expected, tables.trades.map(ofRow))).toEqual([]);
    expect(aggregateProblems(tables, tables.trades.map(plainOfRow))).toEqual([]);
  }

  test(
    "a broker that hangs and one that is killed: the outbox grows, /health says so, a killed producer loses nothing, and all drains in order",
    async () => {
      using directory = temporaryDirectory();
      await using simulator = await startSimulator({
        seed: 21,
        tradesPerSecond: TRADES_PER_SECOND,
        ledger: 1_000_000,
      });
      const settings = await setUp(directory.path, simulator.wsUrl);
      await using processor = await startService(binaries.path("processor"), settings);
      let receivedBefore = 0;
      {
        await using producer = await startService(binaries.path("producer"), settings);
        await eventually(STEP_MS_MAX, "trades are stored", async () => (await stored(processor)) > 2_000);
        expect((await producer.health()).code).toBe(200);

        // It hangs: nothing is refused, and nothing is answered.
        await kafka.kill("SIGSTOP");
        await eventually(STEP_MS_MAX, "/health tells of the broker", async () => {
          const { code, reason } = await producer.health();
          return (
            code === 503 &&
            /kafka: records are waiting and none has been acknowledged for \d+ s/.test(reason!)
          );
        });
        await eventually(STEP_MS_MAX, "the outbox grows", async () => (await outboxOf(producer)) > 3_000);
        const depth = await outboxOf(producer);
        expect((await producer.health()).parts.outbox!.recordCount).toBeGreaterThanOrEqual(depth);
        await eventually(STEP_MS_MAX, "it goes on receiving", async () => (await outboxOf(producer)) > depth);
        await kafka.kill("SIGCONT");
        await drained(producer, "after the broker hung");
        await eventually(
          STEP_MS_MAX,
          "/health is well again",
          async () => (await producer.health()).code === 200,
        );

        // It is gone, and then the producer is killed too.
        await kafka.kill();
        const from = await outboxOf(producer);
        await eventually(
          STEP_MS_MAX,
          "the outbox grows",
          async () => (await outboxOf(producer)) > from + 3_000,
        );
        halt(simulator);
        await receivedAll(STEP_MS_MAX, simulator, producer, receivedBefore);
        receivedBefore = simulator.ledger.counts().tradesSent;
        expect(await rssOf(producer)).toBeLessThan(RSS_BYTES_MAX);
        const left = await outboxOf(producer);
        await producer.kill();
        await using heir = await startService(binaries.path("producer"), settings);
        await eventually(
          STEP_MS_MAX,
          "what was received is there",
          async () => (await outboxOf(heir)) >= left,
        );
        goOn(simulator);
        // It held the feed, so it need not wait for the broker to receive.
        await eventually(STEP_MS_MAX, "it receives more", async () => (await outboxOf(heir)) > left + 1_000);
        await eventually(STEP_MS_MAX, "its /health tells why", async () =>
          /none has been acknowledged for \d+ s \(.*ECONNREFUSED/.test((await heir.health()).reason ?? ""),
        );
        await kafka.start();
        await drained(heir, "after the broker was killed");
        await eventually(
          STEP_MS_MAX,
          "it receives again",
          async () => (await heir.metric("feed_trades_received_total")) > 2_000,
        );
        halt(simulator);
        await receivedAll(STEP_MS_MAX, simulator, heir, receivedBefore);
        await eventually(STEP_MS_MAX, "everything is sent", async () => (await outboxOf(heir)) === 0);
        expect(await heir.stop()).toBe(0);
      }
      await allStored(settings, processor);
      expect(await rssOf(processor)).toBeLessThan(RSS_BYTES_MAX);
      expect(await processor.stop()).toBe(0);

      await expectAllStored(simulator, settings);
      expectFirstCopiesInOrder(await readTopic(kafka.port, settings.KAFKA_TOPIC_NAME!));
    },
    TEST_MS_MAX,
  );

  test(
    "a node that hangs under load: the processor names it, keeps its memory, and stores everything when it is back",
    async () => {
      using directory = temporaryDirectory();
      await using simulator = await startSimulator({
        seed: 22,
        tradesPerSecond: TRADES_PER_SECOND,
        ledger: 1_000_000,
      });
      const settings = await setUp(directory.path, simulator.wsUrl);
      await using processor = await startService(binaries.path("processor"), settings);
      await using producer = await startService(binaries.path("producer"), settings);
      await eventually(STEP_MS_MAX, "trades are stored", async () => (await stored(processor)) > 2_000);
      await node.kill("SIGSTOP");
      await eventually(STEP_MS_MAX, "/health names Cassandra", async () => {
        const { code, reason } = await processor.health();
        return code === 503 && reason!.includes("Cassandra");
      });
      expect((await producer.health()).code).toBe(200);
      await node.kill("SIGCONT");
      await eventually(
        STEP_MS_MAX,
        "/health is well again",
        async () => (await processor.health()).code === 200,
      );
      console.log(`processor after the node hung: ${mb(await rssOf(processor))}`);
      expect(await rssOf(processor)).toBeLessThan(RSS_BYTES_MAX);
      halt(simulator);
      await receivedAll(STEP_MS_MAX, simulator, producer);
      await allStored(settings, processor);
      expect(await Promise.all([producer, processor].map((service) => service.stop()))).toEqual([0, 0]);
      await expectAllStored(simulator, settings);
    },
    TEST_MS_MAX,
  );

  test(
    "SIGTERM while the engines hang: the producer leaves the rest on disk and ends well, a processor that waits ends at the second signal",
    async () => {
      using directory = temporaryDirectory();
      await using simulator = await startSimulator({
        seed: 23,
        tradesPerSecond: TRADES_PER_SECOND,
        ledger: 1_000_000,
      });
      const settings = await setUp(directory.path, simulator.wsUrl);
      await using processor = await startService(binaries.path("processor"), {
        ...settings,
        LOG_LEVEL: "info",
      });
      {
        await using producer = await startService(binaries.path("producer"), settings);
        await eventually(STEP_MS_MAX, "trades are stored", async () => (await stored(processor)) > 2_000);
        await kafka.kill("SIGSTOP");
        await eventually(STEP_MS_MAX, "the outbox grows", async () => (await outboxOf(producer)) > 1_000);
        halt(simulator);
        await receivedAll(STEP_MS_MAX, simulator, producer);
        const fromMs = performance.now();
        expect(await producer.stop()).toBe(0);
        console.log(`producer ended ${Math.round(performance.now() - fromMs)} ms after SIGTERM`);
      }
      const { tradesSent } = simulator.ledger.counts();
      await kafka.kill("SIGCONT");
      await node.kill("SIGSTOP");
      await using producer = await startService(binaries.path("producer"), settings);
      await eventually(
        STEP_MS_MAX,
        "what was left is sent",
        async () => (await producer.metric("forward_messages_total")) > 500,
      );
      await eventually(STEP_MS_MAX, "rows are on their way", async () => (await rowsInFlight(processor)) > 0);
      processor.signal("SIGTERM");
      await eventually(STEP_MS_MAX, "it finishes", async () =>
        processor.stderr().includes("stopping: finishing"),
      );
      processor.signal("SIGTERM");
      expect(await processor.exited).toBe(75);
      expect(processor.stderr()).toContain("asked twice to stop");
      await node.kill("SIGCONT");
      await using heir = await startService(binaries.path("processor"), settings);
      goOn(simulator);
      await eventually(
        STEP_MS_MAX,
        "it is received again",
        async () => (await producer.metric("feed_trades_received_total")) > 1_000,
      );
      halt(simulator);
      await receivedAll(STEP_MS_MAX, simulator, producer, tradesSent);
      await eventually(STEP_MS_MAX, "everything is sent", async () => (await outboxOf(producer)) === 0);
      await allStored(settings, heir);
      expect(await Promise.all([producer, heir].map((service) => service.stop()))).toEqual([0, 0]);
      await expectAllStored(simulator, settings);
    },
    TEST_MS_MAX,
  );

  /** A processor that ended would be waited for in vain: what it said is the failure then. */
  const allStored = async (
    { KAFKA_TOPIC_NAME: topic, KAFKA_GROUP_ID: group }: Settings,
    processor: ServiceProcess,
  ) => {
    const ended = processor.exited.then((code) => {
      throw new Error(`the processor ended with ${code}\n${processor.stderr()}`);
    });
    const client = new Kafka(brokerOptions(kafka.port));
    const committed = allCommitted(client, topic!, group!, STEP_MS_MAX).catch(async (error: unknown) => {
      throw new Error(`${error}\n${JSON.stringify(await processor.health())}\n${processor.stderr()}`);
    });
    await Promise.race([committed, ended]);
    ended.catch(() => {}); // It is stopped next.
  };
});

const stored = (service: ServiceProcess) => service.metric("processor_rows_stored_total");
const outboxOf = (service: ServiceProcess) => service.metric("log_messages");
const rssOf = (service: ServiceProcess) => service.metric("process_resident_memory_bytes");
const rowsInFlight = async (service: ServiceProcess) =>
  (await service.health()).parts.processor?.rowsInFlight ?? 0;
const mb = (bytes: number) => `${Math.round(bytes / 1e6)} MB`;

/** Waits for the backlog's end, and prints how fast that was beside what came in meanwhile. */
async function drained(producer: ServiceProcess, when: string): Promise<void> {
  const forwarded = () => producer.metric("forward_messages_total");
  const [sentBefore, depth] = [await forwarded(), await outboxOf(producer)];
  await eventually(STEP_MS_MAX, "the first is acknowledged", async () => (await forwarded()) > sentBefore);
  const fromMs = performance.now();
  await eventually(STEP_MS_MAX, "the outbox is drained", async () => (await outboxOf(producer)) < 200);
  const seconds = (performance.now() - fromMs) / 1_000;
  const sent = (await forwarded()) - sentBefore;
  console.log(
    `${when}: ${depth} messages waited; ${sent} acknowledged in ${seconds.toFixed(1)} s of draining ` +
      `(live: at most ${TRADES_PER_SECOND}/s), producer ${mb(await rssOf(producer))}`,
  );
  expect(sent).toBeGreaterThanOrEqual(depth - 200);
}

/** All symbols stand still until they go on. */
function halt({ faults }: Simulator): void {
  for (const symbol of SYMBOLS) faults.halt(symbol, TEST_MS_MAX);
}

function goOn({ faults }: Simulator): void {
  for (const symbol of SYMBOLS) faults.halt(symbol, 0);
}

type Message = { session: string; sequence: number };
const messageType = avro.Type.forSchema(
  (await Bun.file(join(import.meta.dir, "../../schemas/trades.avsc")).json()) as avro.Schema,
);

/** By partition, in the order of the topic. */
async function readTopic(port: number, topic: string): Promise<Map<number, Message[]>> {
  const client = new Kafka(brokerOptions(port));
  const admin = client.admin();
  await admin.connect();
  const ends = new Map(
    (await admin.fetchTopicOffsets(topic)).map((one) => [one.partition, Number(one.high)]),
  );
  await admin.disconnect();
  const messages = new Map([...ends.keys()].map((partition) => [partition, [] as Message[]]));
  const consumer: Consumer = client.consumer({ groupId: uniqueName("reader") });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      messages.get(partition)!.push(messageType.fromBuffer(message.value!) as Message);
    },
  });
  await eventually(STEP_MS_MAX, "the topic is read", async () =>
    [...ends].every(([partition, end]) => messages.get(partition)!.length >= end),
  );
  await consumer.disconnect();
  return messages;
}

/** Repeats are allowed; the first copies ascend, and an older session's all stand before a newer one's. */
function expectFirstCopiesInOrder(partitions: ReadonlyMap<number, readonly Message[]>): void {
  const sessions = new Set<string>();
  let repeats = 0;
  for (const messages of partitions.values()) {
    const highest = new Map<string, number>();
    const seen = new Set<string>();
    const late: string[] = [];
    for (const { session, sequence } of messages) {
      const name = `${session} ${sequence}`;
      if (seen.has(name)) {
        repeats += 1;
        continue;
      }
      seen.add(name);
      const isNewest = !highest.has(session) || [...highest.keys()].at(-1) === session;
      if (!isNewest || sequence < (highest.get(session) ?? 0)) late.push(name);
      highest.set(session, sequence);
    }
    for (const session of highest.keys()) sessions.add(session);
    expect(late).toEqual([]);
  }
  expect(sessions.size).toBe(2);
  console.log(`the topic: ${[...partitions.values()].flat().length} messages, ${repeats} of them repeats`);
}
