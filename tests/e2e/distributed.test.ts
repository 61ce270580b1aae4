// The main promise on the real engines: recorded tapes through the simulator's websocket into the compiled producer,
// real Kafka, two compiled processors and real Cassandra. What the tables must hold is computed from the tape by
// reference.ts, which shares no line with lib.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { Kafka } from "kafkajs";
import { startSimulator } from "../../lib/simulator/simulator.ts";
import type { PlainTrade } from "../reference.ts";
import { eventually, temporaryDirectory, within } from "../support/builders.ts";
import { aggregateProblems, ofRow, ofTape, plainOf, plainOfRow, tradeProblems } from "../support/compare.ts";
import { allCommitted } from "../support/kafka.ts";
import {
  addressesOf,
  buildBinaries,
  mustRun,
  ownNames,
  receivedAll,
  runCommand,
  type ServiceProcess,
  type Settings,
  startService,
} from "../support/processes.ts";
import { clientOptions } from "../support/services/cassandra.ts";
import { clientOptions as brokerOptions } from "../support/services/kafka.ts";
import { services, sharedCassandra, sharedKafka, uniqueName } from "../support/services/shared.ts";
import { readCassandra } from "../support/tables.ts";
import { hasTapes, tapePath, tapes, tapeTrades, tradesOfFrames } from "../support/tapes.ts";

const SERVICES_MS_MAX = 120_000;
const TAPE_MS_MAX = 60_000;
/** Tapes are from years ago, and rows live from their receipt on: only verify must not take them for expired. */
const RETENTION_DAYS = "6000";

/** Enough of them that each processor has some. */
const MANY_SYMBOLS = ["BTC", "ETH", "XRP", "DOGE", "ADA", "SOL", "LTC", "BNB"]
  .map((coin) => `BINANCE:${coin}USDT`)
  .concat(["AAPL", "AMZN", "MSFT", "TSLA", "SPY", "NVDA", "META", "GOOGL"]);

type Binaries = ReturnType<typeof buildBinaries>;
let binaries: Binaries;
let engines: Settings;
let cassandraPort: number;
let kafkaPort: number;

describe.skipIf(!services.available || !hasTapes)("on real Kafka and Cassandra", () => {
  beforeAll(async () => {
    binaries = buildBinaries();
    const [kafka, cassandra] = await Promise.all([sharedKafka(), sharedCassandra()]);
    cassandraPort = cassandra.port;
    kafkaPort = kafka.port;
    engines = {
      ...addressesOf(kafka, cassandra),
      KAFKA_SESSION_TIMEOUT_MS: "6000",
      RETENTION_DAYS,
      LOG_LEVEL: "warn",
      FINNHUB_VALIDATE_TICKERS: "0",
    };
  }, SERVICES_MS_MAX);
  afterAll(() => binaries?.[Symbol.dispose]());

  /** Settings of a pipeline of its own: topic, group, keyspace and directory. */
  const ownPipeline = (directory: string, source: Settings): Settings => ({
    ...engines,
    ...source,
    ...ownNames(),
    DATA_DIR: directory,
  });

  const tapeSource = (wsUrl: string, symbols: readonly string[]): Settings => ({
    FINNHUB_WS_URL: wsUrl,
    FINNHUB_API_TOKEN: "tape-token",
    FINNHUB_STOCKS_TICKERS: JSON.stringify(symbols),
  });

  const tablesOf = (settings: Settings) =>
    readCassandra(clientOptions(cassandraPort), settings.CASSANDRA_KEYSPACE!);

  const admin = (args: readonly string[], settings: Settings) =>
    mustRun(binaries.path("admin"), args, settings);

  const everythingCommitted = ({ KAFKA_TOPIC_NAME: topic, KAFKA_GROUP_ID: group }: Settings) =>
    allCommitted(new Kafka(brokerOptions(kafkaPort)), topic!, group!, TAPE_MS_MAX);

  const storedBy = (service: ServiceProcess) => service.metric("processor_rows_stored_total");

  const partitionsOf = async (service: ServiceProcess) =>
    (await service.health()).parts.group?.partitions ?? [];

  /** The range that holds all of the trades, as verify takes it. */
  function rangeOf(trades: readonly PlainTrade[]): string[] {
    const times = trades.map(({ atMs }) => atMs);
    const fromMs = times.reduce((one, other) => Math.min(one, other));
    const toMs = times.reduce((one, other) => Math.max(one, other));
    return ["--from", new Date(fromMs - 60_000).toISOString(), "--to", new Date(toMs + 60_000).toISOString()];
  }

  for (const { name, tradeCount, symbols } of tapes) {
    test(
      `the ${name} tape ends up in Cassandra: every trade once, every aggregate right, and a replay from offset 0 changes nothing`,
      async () => {
        using directory = temporaryDirectory();
        await using simulator = await startSimulator({
          tape: tapePath(name),
          speed: "max",
          times: "recorded",
          ledger: false,
        });
        const startedAtMs = Date.now();
        const settings = ownPipeline(directory.path, tapeSource(simulator.wsUrl, symbols));
        await admin(["init"], settings);
        {
          await using one = await startService(binaries.path("processor"), settings);
          await using other = await startService(binaries.path("processor"), settings);
          await using producer = await startService(binaries.path("producer"), settings);
          await within(TAPE_MS_MAX, "the tape's end", () => simulator.tapeEnded);
          await eventually(TAPE_MS_MAX, "every trade stored", async () => {
            const stored = await Promise.all([one, other].map(storedBy));
            return stored.reduce((sum, count) => sum + count, 0) >= tradeCount;
          });
          // What was read before the partitions were dealt out anew was stored, and counted, again.
          await eventually(
            TAPE_MS_MAX,
            "every trade in the table",
            async () => (await tablesOf(settings)).trades.length >= tradeCount,
          );
          // A stop in the middle of reading again would leave windows to the next start.
          await everythingCommitted(settings);
          expect(await Promise.all([producer, one, other].map((service) => service.stop()))).toEqual([
            0, 0, 0,
          ]);
        }

        const tape = await tapeTrades(name);
        const tables = await tablesOf(settings);
        expect(tradeProblems(tape.map(ofTape), tables.trades.map(ofRow))).toEqual([]);
        expect(tables.trades.length).toBe(tradeCount);
        const plain = tape.map(plainOf);
        expect(aggregateProblems(tables, plain)).toEqual([]);
        expect(await admin(["verify", ...rangeOf(plain)], settings)).toContain(": 0 differences");

        // A group that never committed reads from the beginning.
        await using again = await startService(binaries.path("processor"), {
          ...settings,
          KAFKA_GROUP_ID: uniqueName("replay"),
        });
        await eventually(
          TAPE_MS_MAX,
          "everything stored again",
          async () => (await storedBy(again)) >= tradeCount,
        );
        expect(await again.stop()).toBe(0);
        expect(await tablesOf(settings)).toEqual(tables);

        // The operator's replay reads the topic by itself: into empty tables it brings the same rows and windows.
        const restored = { ...settings, CASSANDRA_KEYSPACE: uniqueName("restored") };
        await admin(["init"], restored);
        const receivedFrom = new Date(startedAtMs - 1).toISOString();
        expect(await admin(["replay", "--from", receivedFrom], restored)).toContain(
          `replayed ${tradeCount} trades`,
        );
        expect(await tablesOf(restored)).toEqual(tables);
      },
      4 * TAPE_MS_MAX,
    );
  }

  test(
    "a processor killed -9 in mid-stream, and one asleep through a rebalance and awake again, leave no trace",
    async () => {
      using directory = temporaryDirectory();
      let isPlaying = true;
      await using simulator = await startSimulator({
        seed: 11,
        tradesPerSecond: 800,
        pace: () => (isPlaying ? 1 : 1e-6),
        ledger: 1_000_000,
      });
      const settings = ownPipeline(directory.path, tapeSource(simulator.wsUrl, MANY_SYMBOLS));
      await admin(["init"], settings);
      const start = () => startService(binaries.path("processor"), settings);
      await using victim = await start();
      await using sleeper = await start();
      await using producer = await startService(binaries.path("producer"), settings);
      await eventually(TAPE_MS_MAX, "both store rows", async () =>
        (await Promise.all([victim, sleeper].map(storedBy))).every((stored) => stored > 500),
      );
      await victim.kill();
      await using heir = await start();
      await eventually(TAPE_MS_MAX, "the heir stores rows", async () => (await storedBy(heir)) > 500);
      // Longer than its session: the heir gets its partitions, and writes windows of which the sleeper knows less.
      sleeper.signal("SIGSTOP");
      await eventually(TAPE_MS_MAX, "the heir got all partitions", async () => {
        const held = (await partitionsOf(heir)).filter((id) => !id.includes(".events"));
        return held.length === 8;
      });
      const before = await storedBy(heir);
      await eventually(TAPE_MS_MAX, "the heir goes on", async () => (await storedBy(heir)) > before + 5_000);
      sleeper.signal("SIGCONT");
      await eventually(
        TAPE_MS_MAX,
        "the sleeper is a member again",
        async () => (await partitionsOf(sleeper)).length > 0 && (await partitionsOf(heir)).length < 9,
      );
      isPlaying = false;
      const sentCount = await receivedAll(TAPE_MS_MAX, simulator, producer);
      expect(await producer.stop()).toBe(0);
      await eventually(
        TAPE_MS_MAX,
        "every trade in the table",
        async () => (await tablesOf(settings)).trades.length >= sentCount,
      );
      await everythingCommitted(settings);
      expect(await Promise.all([sleeper, heir].map((service) => service.stop()))).toEqual([0, 0]);

      const sent = simulator.ledger.entries().filter((entry) => entry.sent);
      const expected = tradesOfFrames(sent.map(({ text }) => text)).map(ofTape);
      const tables = await tablesOf(settings);
      expect(tradeProblems(expected, tables.trades.map(ofRow))).toEqual([]);
      const plain = tables.trades.map(plainOfRow);
      expect(aggregateProblems(tables, plain)).toEqual([]);
      expect(await admin(["verify", ...rangeOf(plain)], settings)).toContain(": 0 differences");
    },
    5 * TAPE_MS_MAX,
  );

  test(
    "a second producer on the same topic is refused, and told which one holds it",
    async () => {
      using directory = temporaryDirectory();
      const settings = ownPipeline(directory.path, {
        FINNHUB_WS_URL: "ws://127.0.0.1:1",
        FINNHUB_API_TOKEN: "tape-token",
      });
      await admin(["init"], settings);
      await using first = await startService(binaries.path("producer"), settings);
      const holdsTopic = async (service: ServiceProcess) => (await service.health()).parts.feed !== undefined;
      await eventually(TAPE_MS_MAX, "the first holds the topic", () => holdsTopic(first));
      const other = { ...settings, DATA_DIR: join(directory.path, "other"), PRODUCER_PORT: "0" };
      const second = await runCommand(binaries.path("producer"), [], other);
      expect(second.code).toBe(1);
      expect(second.err).toContain(String(first.pid));
      // After a stop the topic is free at once.
      expect(await first.stop()).toBe(0);
      await using heir = await startService(binaries.path("producer"), other);
      await eventually(5_000, "the other holds the topic", () => holdsTopic(heir));
    },
    2 * TAPE_MS_MAX,
  );
});
