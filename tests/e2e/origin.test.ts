// The promise to whoever comes from the origin's pipeline, on both sides of the topic and by Avro's own library for
// Java instead of ours: a reader that knows only the origin's schema reads what our producer writes; what the origin's
// producer writes is put aside whole, holds nothing up, and is brought in once, however often it is replayed.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { type Admin, CompressionCodecs, CompressionTypes, Kafka, Partitioners } from "kafkajs";
import { startSimulator } from "../../lib/simulator/simulator.ts";
import { parseTape } from "../../lib/simulator/tape.ts";
import schemaJson from "../../schemas/trades.avsc" with { type: "json" };
import { eventually, seeded, temporaryDirectory, within } from "../support/builders.ts";
import { aggregateProblems, ofRow, ofTape, plainOfRow, tradeProblems } from "../support/compare.ts";
import { allCommitted } from "../support/kafka.ts";
import {
  addressesOf,
  buildBinaries,
  mustRun,
  ownNames,
  type Settings,
  startService,
} from "../support/processes.ts";
import { decodeAvro, encodeAvro } from "../support/services/avro.ts";
import { clientOptions as cassandraOptions } from "../support/services/cassandra.ts";
import { clientOptions as kafkaOptions } from "../support/services/kafka.ts";
import { services, sharedCassandra, sharedKafka, uniqueName } from "../support/services/shared.ts";
import { readCassandra } from "../support/tables.ts";
import type { TapeTrade } from "../support/tapes.ts";

const SERVICES_MS_MAX = 180_000;
const WAIT_MS_MAX = 60_000;
const OURS = schemaJson as object;
const SYMBOLS = ["AAPL", "MSFT", "BINANCE:BTCUSDT", "OANDA:EUR_USD"];
/** `max.message.bytes` of the trades' topic: Kafka's own default. */
const RECORD_BYTES_MAX = 1_048_588;
/** Kafka's number for it; the patched client hands a partition's own answer on instead of throwing it. */
const MESSAGE_TOO_LARGE = 10;

/** The origin's schema: what its readers and its producer have, and nothing else. */
const ORIGIN = {
  type: "record",
  name: "message",
  namespace: "FinnhubProducer",
  fields: [
    {
      name: "data",
      type: {
        type: "array",
        items: {
          type: "record",
          name: "data",
          fields: [
            { name: "c", type: [{ type: "array", items: ["null", "string"], default: [] }, "null"] },
            { name: "p", type: "double" },
            { name: "s", type: "string" },
            { name: "t", type: "long" },
            { name: "v", type: "double" },
          ],
        },
      },
    },
    { name: "type", type: "string" },
  ],
} as const;

type AvroTrade = Omit<TapeTrade, "c"> & { c: { array: ({ string: string } | null)[] } | null };
type AvroMessage = { data: AvroTrade[]; type: string };
type OurMessage = AvroMessage & { session: string; sequence: number; receivedAt: number };

/** What the topic holds, to be decoded by somebody else: the client only unpacks its batches. */
type RawRecord = Readonly<{
  partition: number;
  offset: number;
  timestampMs: number;
  key: string | null;
  value: Buffer;
}>;

type Letter = Readonly<{
  session: string;
  sequence: number;
  item: number;
  receivedAtMs: number;
  reason: string;
  source: string;
  payload: string;
}>;

let binaries: ReturnType<typeof buildBinaries>;
let engines: Settings;
let client: Kafka;
let cassandraPort: number;

describe.skipIf(!services.available)("beside the origin", () => {
  beforeAll(async () => {
    // The client leaves it to its user, and our files may not be asked for it here.
    CompressionCodecs[CompressionTypes.ZSTD] = () => ({
      compress: async ({ buffer }: { buffer: Buffer }) => Bun.zstdCompress(buffer),
      decompress: async (buffer: Buffer) => Bun.zstdDecompress(buffer),
    });
    binaries = buildBinaries();
    const [kafka, cassandra] = await Promise.all([sharedKafka(), sharedCassandra()]);
    client = new Kafka({ ...kafkaOptions(kafka.port), retry: { retries: 5 }, requestTimeout: 30_000 });
    cassandraPort = cassandra.port;
    engines = {
      ...addressesOf(kafka, cassandra),
      KAFKA_SESSION_TIMEOUT_MS: "6000",
      FINNHUB_API_TOKEN: "feed-token",
      FINNHUB_VALIDATE_TICKERS: "0",
      LOG_LEVEL: "warn",
    };
  }, SERVICES_MS_MAX);
  afterAll(() => binaries?.[Symbol.dispose]());

  /** Settings of a pipeline of its own; topic, group and keyspace have one name. */
  function ownPipeline(directory: string): { name: string; settings: Settings } {
    const names = ownNames();
    return { name: names.KAFKA_TOPIC_NAME, settings: { ...engines, ...names, DATA_DIR: directory } };
  }

  const admin = (args: readonly string[], settings: Settings) =>
    mustRun(binaries.path("admin"), args, settings);

  test(
    "what our producer writes is read with the origin's schema by Avro's library for Java, trade for trade",
    async () => {
      using directory = temporaryDirectory();
      const trades = someTrades(2_000);
      await using simulator = await startSimulator({
        tape: tapeOf(trades),
        speed: "max",
        times: "recorded",
        ledger: false,
      });
      const { name, settings: shared } = ownPipeline(directory.path);
      const settings = {
        ...shared,
        FINNHUB_WS_URL: simulator.wsUrl,
        FINNHUB_STOCKS_TICKERS: JSON.stringify(SYMBOLS),
      };
      await admin(["init"], settings);
      const startedAtMs = Date.now();
      {
        await using producer = await startService(binaries.path("producer"), settings);
        await within(WAIT_MS_MAX, "the tape's end", () => simulator.tapeEnded);
        await eventually(
          WAIT_MS_MAX,
          "every trade received",
          async () => (await producer.metric("feed_trades_received_total")) >= trades.length,
        );
        // Stopping sends what waits.
        expect(await producer.stop()).toBe(0);
      }
      const endedAtMs = Date.now();

      const records = await recordsOf(name);
      const values = records.map(({ value }) => value);
      const asOrigin = await decodeAvro(ORIGIN, values);
      const messages = asOrigin.map(({ datum }) => datum as AvroMessage);
      const found = messages.flatMap(({ data }) => data.map(ofAvro));
      expect(tradeProblems(trades.map(ofTape), found.map(ofTape))).toEqual([]);
      expect(new Set(messages.map(({ type }) => type))).toEqual(new Set(["trade"]));
      // What the origin's schema does not know stands behind what it knows.
      for (const { bytesLeft } of asOrigin) expect(bytesLeft).toBeGreaterThan(0);

      const whole = await decodeAvro(OURS, values);
      expect(whole.filter(({ bytesLeft }) => bytesLeft !== 0)).toEqual([]);
      const ours = whole.map(({ datum }) => datum as OurMessage);
      expect(ours.map(({ data, type }) => ({ data, type }))).toEqual(messages);
      const sessions = new Set(ours.map(({ session }) => session));
      expect(sessions.size).toBe(1);
      for (const session of sessions) expect(session).toMatch(/^[0-9a-f]{8}$/);
      const sequences = ours.map(({ sequence }) => sequence);
      expect(new Set(sequences).size).toBe(sequences.length);
      expect(Math.min(...sequences)).toBeGreaterThanOrEqual(1);
      const received = ours.map(({ receivedAt }) => receivedAt);
      expect(Math.min(...received)).toBeGreaterThanOrEqual(startedAtMs);
      expect(Math.max(...received)).toBeLessThanOrEqual(endedAtMs);
      // One symbol a message, its key; and a partition keeps the order in which they were received.
      for (const [index, { data }] of ours.entries())
        expect(new Set(data.map(({ s }) => s))).toEqual(new Set([records[index]?.key ?? ""]));
      for (const own of Map.groupBy(ours.keys(), (index) => records[index]?.partition).values()) {
        const order = own.map((index) => sequences[index] ?? 0);
        expect(order).toEqual(order.toSorted((one, other) => one - other));
      }
    },
    3 * WAIT_MS_MAX,
  );

  test(
    "what the origin's producer writes is put aside whole, holds nothing up, and two replays bring it in once",
    async () => {
      using directory = temporaryDirectory();
      // Letters leave as they are, so that their size is what it seems.
      const { name: topic, settings: shared } = ownPipeline(directory.path);
      const settings = { ...shared, KAFKA_COMPRESSION: "none" };
      await admin(["init"], settings);

      const theirs = [tradesAt(0, ["AAPL", "MSFT", "AAPL", "MSFT", "AAPL"]), tradesAt(20_000, ["MSFT"])];
      // Of a symbol of its own: its partition is not the one where the others' trades belong.
      const after = tradesAt(40_000, ["GOOGL", "GOOGL"]);
      const [two, one] = await encodeAvro(
        ORIGIN,
        theirs.map((data) => ({ data: data.map(avroOf), type: "trade" })),
      );
      const [own] = await encodeAvro(OURS, [
        {
          data: after.map(avroOf),
          type: "trade",
          session: "0badcafe",
          sequence: 1,
          receivedAt: Date.now(),
        },
      ]);
      // As large as the topic takes them, and larger still as a letter.
      const garbage = noise(RECORD_BYTES_MAX - 1_000);
      const hopeless = [garbage, Buffer.from("no Avro at all"), null];

      await using processor = await startService(binaries.path("processor"), settings);
      const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner });
      await producer.connect();
      const send = async (value: Buffer | null | undefined, partition?: number) => {
        const place = partition === undefined ? {} : { partition };
        const [answer] = await producer.send({
          topic,
          messages: [{ key: null, value: value ?? null, ...place }],
        });
        expect(answer?.errorCode).toBe(0);
        return answer?.partition;
      };
      // Without a key it goes where the client likes: round robin, as the origin's did.
      const partition = await send(two);
      await send(one);
      for (const value of hopeless) await send(value, partition);
      await send(own, partition);
      await producer.disconnect();

      // Behind all of it stands a message of ours: where it is stored, nothing was held up.
      await eventually(
        WAIT_MS_MAX,
        "our own message stored",
        async () => (await processor.metric("processor_rows_stored_total")) >= after.length,
      );
      await allCommitted(client, topic, topic, WAIT_MS_MAX);
      const letterCount = theirs.length + hopeless.length;
      expect(await processor.metric("processor_dead_letters_total")).toBe(letterCount);
      const tables = () => readCassandra(cassandraOptions(cassandraPort), topic);
      expect((await tables()).trades.map(ofRow)).toEqual(after.map(ofTape));

      const records = await recordsOf(topic);
      const deadLetters = (await recordsOf(`${topic}.dead`)).map(({ value }) => ({
        bytes: value.length,
        deadLetter: JSON.parse(value.toString()) as Letter,
      }));
      expect(deadLetters.length).toBe(letterCount);
      const letterOf = (value: Buffer) =>
        deadLetters.filter(({ deadLetter }) => Buffer.from(deadLetter.payload, "base64").equals(value));
      for (const value of [two, one]) {
        const record = records.find((candidate) => candidate.value.equals(value ?? Buffer.alloc(0)));
        expect(record).toBeDefined();
        expect(letterOf(value ?? Buffer.alloc(0)).map(({ deadLetter }) => deadLetter)).toEqual([
          {
            // Its place, since it has no identity.
            session: sha256(`${topic}/${record?.partition}/`).slice(0, 8),
            sequence: record?.offset ?? -1,
            item: -1,
            receivedAtMs: record?.timestampMs ?? -1,
            reason: "no_session",
            source: "processor",
            payload: (value ?? Buffer.alloc(0)).toString("base64"),
          },
        ]);
      }
      for (const value of hopeless)
        expect(letterOf(value ?? Buffer.alloc(0)).map(({ deadLetter }) => deadLetter.reason)).toEqual([
          "undecodable",
        ]);
      // What is put aside may be larger than what was sent.
      expect(letterOf(garbage)[0]?.bytes).toBeGreaterThan(RECORD_BYTES_MAX);

      const brought = theirs.flat();
      const said = `read ${letterCount} dead letters and took 2 of them: ${brought.length} trades in 3 messages; 3 still unfit: undecodable`;
      const replayed: Awaited<ReturnType<typeof tables>>[] = [];
      for (const round of [1, 2]) {
        expect(await admin(["replay", "--dead"], settings)).toContain(said);
        await allCommitted(client, topic, topic, WAIT_MS_MAX);
        const rowCount = after.length + round * brought.length;
        expect(await processor.metric("processor_rows_stored_total")).toBe(rowCount);
        replayed.push(await tables());
      }
      const [once, twice] = replayed;
      expect(twice).toEqual(once!);
      expect(tradeProblems([...brought, ...after].map(ofTape), twice!.trades.map(ofRow))).toEqual([]);
      expect(aggregateProblems(twice!, twice!.trades.map(plainOfRow))).toEqual([]);
      // Nothing was put aside a second time, and each is received when the topic received it.
      expect((await recordsOf(`${topic}.dead`)).length).toBe(letterCount);
      const timestamps = new Set(records.map(({ timestampMs }) => timestampMs));
      const theirRows = twice!.trades.filter((row) => brought.map(ofTape).includes(ofRow(row)));
      expect(theirRows.filter((row) => !timestamps.has(row.ingest_timestamp))).toEqual([]);
      expect(await processor.stop()).toBe(0);
      expect(await admin(["verify"], settings)).toContain(": 0 differences");
    },
    4 * WAIT_MS_MAX,
  );

  test(
    "a record of the size of that letter is refused by the trades' topic: only the letters' takes it",
    async () => {
      using directory = temporaryDirectory();
      const { name, settings } = ownPipeline(directory.path);
      await admin(["init"], settings);
      const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner });
      await producer.connect();
      const value = noise((RECORD_BYTES_MAX * 4) / 3);
      const errorOf = async (topic: string) => {
        const [answer] = await producer.send({ topic, messages: [{ key: null, value }] });
        return answer?.errorCode;
      };
      expect(await errorOf(name)).toBe(MESSAGE_TOO_LARGE);
      expect(await errorOf(`${name}.dead`)).toBe(0);
      await producer.disconnect();
      expect((await recordsOf(`${name}.dead`))[0]?.value.equals(value)).toBe(true);
      // Somebody else's record among the letters is said, and stops nothing.
      expect(await admin(["replay", "--dead"], settings)).toContain("1 records of");
    },
    2 * WAIT_MS_MAX,
  );
});

// --- Helpers ---------------------------------------------------------------------------------------------------

async function withAdmin<T>(work: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = client.admin();
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
}

/** Everything that a topic holds now, by partition and offset, read by a client that knows nothing of us. */
async function recordsOf(topic: string): Promise<RawRecord[]> {
  const ends = await withAdmin((admin) => admin.fetchTopicOffsets(topic));
  const left = new Map(
    ends
      .filter(({ low, high }) => Number(high) > Number(low))
      .map(({ partition, high }) => [partition, Number(high)]),
  );
  const records: RawRecord[] = [];
  if (left.size === 0) return records;
  const consumer = client.consumer({ groupId: uniqueName("reader"), maxWaitTimeInMs: 250 });
  await consumer.connect();
  try {
    await consumer.subscribe({ topic, fromBeginning: true });
    const { promise: read, resolve } = Promise.withResolvers<void>();
    await consumer.run({
      autoCommit: false,
      async eachMessage({ partition, message: { offset, timestamp, key, value } }) {
        const at = Number(offset);
        records.push({
          partition,
          offset: at,
          timestampMs: Number(timestamp),
          key: key?.toString() ?? null,
          value: value ?? Buffer.alloc(0),
        });
        if (at + 1 >= (left.get(partition) ?? 0)) left.delete(partition);
        if (left.size === 0) resolve();
      },
    });
    await within(WAIT_MS_MAX, `the records of ${topic}`, () => read);
  } finally {
    await consumer.disconnect();
  }
  return records.sort((one, other) => one.partition - other.partition || one.offset - other.offset);
}

/** An hour ago, so that every window is closed. */
function someTrades(count: number): TapeTrade[] {
  const random = seeded(count);
  const firstAtMs = Date.now() - 3_600_000;
  return Array.from({ length: count }, (_, index) => ({
    c: [null, [], ["1"], ["1", "12"], ["№ 7"]][random(5)] ?? null,
    p: (1 + random(1_000_000_000)) / 1_000_000,
    s: SYMBOLS[random(SYMBOLS.length)]!,
    t: firstAtMs + index,
    v: random(1_000) / 10,
  }));
}

/** So many ms after a full minute some hours ago, two in each ms. */
function tradesAt(afterMs: number, symbols: readonly string[]): TapeTrade[] {
  const minuteMs = Math.floor(Date.now() / 60_000) * 60_000 - 2 * 3_600_000;
  return symbols.map((s, index) => ({
    c: [null, ["1"], []][index % 3] ?? null,
    p: 100 + index,
    s,
    t: minuteMs + afterMs + Math.floor(index / 2),
    v: 1 + index,
  }));
}

/** Frames of ten, of several symbols. */
function tapeOf(trades: readonly TapeTrade[]) {
  const lines: string[] = [];
  for (let from = 0; from < trades.length; from += 10) {
    const data = trades.slice(from, from + 10);
    lines.push(JSON.stringify({ at: data[0]?.t, frame: JSON.stringify({ data, type: "trade" }) }));
  }
  return parseTape(lines.join("\n"), "stream");
}

/** As Avro writes it in JSON, and back: a value of a union names its branch. */
function avroOf({ c, ...others }: TapeTrade): AvroTrade {
  return { ...others, c: c ? { array: c.map((string) => ({ string })) } : null };
}

function ofAvro({ c, ...others }: AvroTrade): TapeTrade {
  return { ...others, c: c === null ? null : c.array.map((one) => one?.string ?? "null") };
}

/** Bytes that nothing can pack. */
function noise(length: number): Buffer {
  const random = seeded(7);
  return Buffer.from(Uint8Array.from({ length: Math.floor(length) }, () => random(256)));
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
