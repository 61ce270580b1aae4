// The compiled producer on a real Kafka of its own: what becomes of the feed when Kafka is away, when the producer is
// killed meanwhile, and when it slept while another took the feed over. Each trade carries its number as its price.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { readKafkaRange } from "../../lib/kafka/range-reader.ts";
import { topicNames } from "../../lib/kafka/topics.ts";
import { decodeEvent, decodeMessage } from "../../lib/model/codec.ts";
import { eventually, temporaryDirectory, within } from "../support/builders.ts";
import { createTopics, kafkaDeps } from "../support/kafka.ts";
import { buildBinaries, type ServiceProcess, type Settings, startService } from "../support/processes.ts";
import { startKafka } from "../support/services/kafka.ts";
import { services } from "../support/services/shared.ts";

const START_MS_MAX = 120_000;
const STEP_MS_MAX = 60_000;
const TEST_MS_MAX = 4 * STEP_MS_MAX;
/** Without Kafka a restart has its feed within so long. */
const AT_ONCE_MS_MAX = 5_000;
const SYMBOL = "AAPL";

/** Finnhub as far as the feed needs it: a socket that subscribes gets every trade from then on. */
function startWire() {
  const sockets = new Set<Bun.ServerWebSocket<undefined>>();
  let count = 0;
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request, own) => (own.upgrade(request) ? undefined : new Response("websocket only")),
    websocket: {
      message: (socket) => void sockets.add(socket),
      close: (socket) => void sockets.delete(socket),
    },
  });
  return {
    url: `ws://127.0.0.1:${server.port}`,
    connections: () => sockets.size,
    sent: () => count,
    send(more: number) {
      for (let index = 0; index < more; index++) {
        count += 1;
        const trade = { s: SYMBOL, p: count, t: Date.now(), v: 1, c: null };
        for (const socket of sockets) socket.send(JSON.stringify({ type: "trade", data: [trade] }));
      }
    },
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

describe.skipIf(!services.available)("the producer's lease", () => {
  let binaries: ReturnType<typeof buildBinaries>;
  let kafka: Awaited<ReturnType<typeof startKafka>>;
  beforeAll(async () => {
    binaries = buildBinaries();
    kafka = await startKafka();
  }, START_MS_MAX);
  afterAll(async () => {
    binaries?.[Symbol.dispose]();
    await kafka?.[Symbol.asyncDispose]();
  }, START_MS_MAX);

  const partsNow = () => kafkaDeps({ host: kafka.host, port: kafka.port });
  const settingsOf = (topic: string, wsUrl: string, directory: string): Settings => ({
    KAFKA_SERVER: kafka.host,
    KAFKA_PORT: String(kafka.port),
    KAFKA_TOPIC_NAME: topic,
    FINNHUB_WS_URL: wsUrl,
    FINNHUB_API_TOKEN: "token",
    FINNHUB_STOCKS_TICKERS: JSON.stringify([SYMBOL]),
    FINNHUB_VALIDATE_TICKERS: "0",
    DATA_DIR: directory,
  });
  const start = (settings: Settings) => startService(binaries.path("producer"), settings);

  /** All that the topic holds from its beginning to its end of now. */
  async function valuesIn(topic: string): Promise<Uint8Array[]> {
    const values: Uint8Array[] = [];
    const { signal } = new AbortController();
    await within(STEP_MS_MAX, `${topic} read`, async () => {
      for await (const { value } of readKafkaRange({ ...partsNow(), topic, fromMs: null, signal })) {
        values.push(value);
      }
    });
    return values;
  }

  /** The identities under which each trade is on the topic. */
  async function arrived(topic: string): Promise<Map<number, Set<string>>> {
    const byNumber = new Map<number, Set<string>>();
    for (const value of await valuesIn(topic)) {
      const decoded = decodeMessage(value);
      if (!decoded.ok) throw new Error(`a message that cannot be read: ${decoded.reason}`);
      const { session, sequence, trades } = decoded.message;
      for (const [index, { price }] of trades.entries()) {
        const identities = byNumber.get(price) ?? new Set();
        byNumber.set(price, identities.add(`${session} ${sequence} ${index}`));
      }
    }
    return byNumber;
  }

  const numbers = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, index) => from + index);
  const ofTimes = (times: number, all: ReadonlyMap<number, Set<string>>) =>
    [...all]
      .filter(([, { size }]) => size === times)
      .map(([number]) => number)
      .sort((a, b) => a - b);

  const received = (process: ServiceProcess, count: number) =>
    eventually(
      STEP_MS_MAX,
      `${count} trades received`,
      async () => (await process.metric("feed_trades_received_total")) >= count,
    );

  test(
    "killed and started again while Kafka is away it receives at once, and every trade arrives once",
    async () => {
      using directory = temporaryDirectory();
      await using wire = startWire();
      const topic = await createTopics(partsNow(), 2);
      const settings = settingsOf(topic, wire.url, directory.path);
      await using first = await start(settings);
      await eventually(STEP_MS_MAX, "the feed", async () => wire.connections() === 1);
      wire.send(100);
      await received(first, 100);
      await kafka.stop();
      wire.send(100);
      await received(first, 200);
      await first.kill();
      await eventually(STEP_MS_MAX, "the end of its socket", async () => wire.connections() === 0);

      await using second = await start(settings);
      await eventually(AT_ONCE_MS_MAX, "the feed without Kafka", async () => wire.connections() === 1);
      wire.send(100);
      await received(second, 100);
      await kafka.start();
      await eventually(
        STEP_MS_MAX,
        "an empty outbox",
        async () => (await second.metric("log_messages")) === 0,
      );
      wire.send(100);
      await received(second, 200);
      expect(await second.stop()).toBe(0);

      const all = await arrived(topic);
      expect(ofTimes(1, all)).toEqual(numbers(1, 400));
      expect(all.size).toBe(400);
    },
    TEST_MS_MAX,
  );

  test(
    "one that slept while another took the feed over sends nothing unconfirmed, says so and ends; a restart is refused",
    async () => {
      using directory = temporaryDirectory();
      await using wire = startWire();
      const topic = await createTopics(partsNow(), 2);
      const settings = settingsOf(topic, wire.url, join(directory.path, "one"));
      await using sleeper = await start(settings);
      await eventually(STEP_MS_MAX, "the feed", async () => wire.connections() === 1);
      wire.send(50);
      await received(sleeper, 50);
      sleeper.signal("SIGSTOP");
      wire.send(50);
      await using heir = await start(settingsOf(topic, wire.url, join(directory.path, "other")));
      await eventually(STEP_MS_MAX, "the heir's feed", async () => wire.connections() === 2);
      wire.send(50);
      await received(heir, 50);
      sleeper.signal("SIGCONT");
      expect(await within(STEP_MS_MAX, "the sleeper's end", () => sleeper.exited)).toBe(1);
      expect(sleeper.stderr()).toMatch(
        /another producer has taken over the feed: process \d+ on .*; \d+ messages that it may have received too are quarantined/,
      );
      await using again = await start(settings);
      expect(await within(STEP_MS_MAX, "the refusal", () => again.exited)).toBe(1);
      expect(again.stderr()).toContain(`another producer holds the feed: process ${heir.pid} on`);
      wire.send(50);
      await received(heir, 100);
      expect(await heir.stop()).toBe(0);

      const all = await arrived(topic);
      expect(ofTimes(1, all)).toEqual([...numbers(1, 50), ...numbers(101, 200)]);
      expect(all.size).toBe(150);
      const events = (await valuesIn(topicNames(topic).event)).map((value) => decodeEvent(value));
      const doubt = events.filter((event) => event?.type === "trades_in_doubt");
      expect(doubt).toHaveLength(1);
      expect(JSON.parse(doubt[0]!.detail)).toMatchObject({ droppedCount: 0 });
    },
    TEST_MS_MAX,
  );
});
