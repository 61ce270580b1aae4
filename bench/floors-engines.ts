// The floors of the distributed mode: what the bare clients of Kafka and Cassandra (the same versions, the same patch)
// do in a plain loop, each in a process of its own. No line of lib is here and none is imported. Whoever finds a
// faster loop replaces one of these: slowing a floor is a defect. They survive nothing and aggregate nothing.
//
// `bun bench/floors-engines.ts <what> {"broker": ..., ...}`: see the table at the end. Each says `ready` on standard
// output when what comes before the measurement is done.

import { readFileSync } from "node:fs";
import { connect } from "node:net";
import cassandra from "cassandra-driver";
import { CompressionCodecs, CompressionTypes, Kafka, logLevel } from "kafkajs";

type Settings = Readonly<{
  /** host:port */
  broker: string;
  topic: string;
  group: string;
  /** host:port */
  node: string;
  keyspace: string;
  datacenter: string;
  /** Prepared material. */
  file: string;
  url: string;
  symbols: readonly string[];
  /** Messages in one send, or rows before the mark. */
  count: number;
}>;

type BareTrade = Readonly<{ p: number; s: string; t: number; v: number; c?: readonly string[] | null }>;
type BareFrame = Readonly<{ type: string; data: readonly BareTrade[] }>;

const HOUR_MS = 3_600_000;
const INSERT = `INSERT INTO trades (symbol, hour, trade_timestamp, uuid, price, volume, trade_conditions, ingest_timestamp)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?)`;
/** 72,000 rows a second; in twenties 58,000, alone 20,000. */
const ROWS_PER_BATCH = 50;
const BATCHES_IN_FLIGHT = 16;
/** Of one send, where messages are large. */
const SEND_BYTES_MAX = 2 * 1024 * 1024;
/** The same waits as ours. */
const GROUP_WAIT_MS = 250;
const TAIL_WAIT_MS = 500;

CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async ({ buffer }: { buffer: Buffer }) => Bun.zstdCompress(buffer, { level: 1 }),
  decompress: async (buffer: Buffer) => Bun.zstdDecompress(buffer),
});

function kafkaOf({ broker }: Settings): Kafka {
  return new Kafka({
    brokers: [broker],
    clientId: "floor",
    logLevel: logLevel.NOTHING,
    socketFactory: ({ host, port, onConnect }) => connect({ host, port, noDelay: true }, onConnect),
  });
}

function producerOf(kafka: Kafka) {
  return kafka.producer({
    allowAutoTopicCreation: false,
    createPartitioner:
      () =>
      ({ message }) =>
        message.partition ?? 0,
  });
}

async function clientOf({ node, keyspace, datacenter }: Settings): Promise<cassandra.Client> {
  const client = new cassandra.Client({
    contactPoints: [node],
    localDataCenter: datacenter,
    keyspace,
    protocolOptions: { maxVersion: cassandra.types.protocolVersion.v4 },
    pooling: { coreConnectionsPerHost: { [cassandra.types.distance.local]: 1 }, warmup: true },
    queryOptions: {
      prepare: true,
      isIdempotent: true,
      consistency: cassandra.types.consistencies.localQuorum,
    },
    encoding: { useUndefinedAsUnset: true },
  });
  await client.connect();
  return client;
}

const ready = () => console.log("ready");

/** Prepared messages, so many a send, one send in flight, acknowledged by all. */
async function produce(settings: Settings): Promise<void> {
  const file = readFileSync(settings.file);
  const messages: { partition: number; key: Buffer; value: Buffer }[] = [];
  for (let at = 0; at < file.length; ) {
    const keyEnd = at + 9 + file.readUInt32LE(at + 1);
    const end = keyEnd + file.readUInt32LE(at + 5);
    messages.push({
      partition: file[at]!,
      key: file.subarray(at + 9, keyEnd),
      value: file.subarray(keyEnd, end),
    });
    at = end;
  }
  const producer = producerOf(kafkaOf(settings));
  await producer.connect();
  ready();
  const { topic, count } = settings;
  for (let from = 0, to = 0; from < messages.length; from = to) {
    for (let bytes = 0; to < messages.length && to - from < count && bytes < SEND_BYTES_MAX; to++) {
      bytes += messages[to]!.value.length;
    }
    await producer.send({
      topic,
      acks: -1,
      compression: CompressionTypes.ZSTD,
      messages: messages.slice(from, to),
    });
  }
}

/** All of a topic through a consumer group, and nothing done with it; ends after so many messages. */
async function fetchAll(settings: Settings): Promise<void> {
  const consumer = groupOf(settings);
  const all = Promise.withResolvers<void>();
  let left = settings.count;
  await consumer.connect();
  await consumer.subscribe({ topic: settings.topic, fromBeginning: true });
  ready();
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      left -= batch.messages.length;
      if (left <= 0) all.resolve();
    },
  });
  await all.promise;
  console.log("done");
  // Until it is killed: the kernel forgets what a process has used when it is gone.
  await new Promise(() => {});
}

function groupOf(settings: Settings) {
  return kafkaOf(settings).consumer({
    groupId: settings.group,
    maxWaitTimeInMs: GROUP_WAIT_MS,
    minBytes: 1,
    allowAutoTopicCreation: false,
  });
}

type Batch = Readonly<{ params: unknown[][]; rowCount: number }>;

/** Prepared rows in unlogged batches of one partition; says `mark` after so many and `done` after all. */
async function insert(settings: Settings): Promise<void> {
  const batches: Batch[] = [];
  const open = new Map<string, unknown[][]>();
  const close = (params: unknown[][]) => batches.push({ params, rowCount: params.length });
  for (const line of readFileSync(settings.file, "utf8").split("\n")) {
    if (line === "") continue;
    const [symbol, hour, tradedAt, uuid, price, volume, conditions, receivedAt] = JSON.parse(line);
    const name = `${hour} ${symbol}`;
    let params = open.get(name);
    if (params === undefined) {
      params = [];
      open.set(name, params);
    }
    const id = cassandra.types.Uuid.fromString(uuid);
    params.push([symbol, hour, tradedAt, id, price, volume, conditions ?? undefined, receivedAt]);
    if (params.length < ROWS_PER_BATCH) continue;
    close(params);
    open.delete(name);
  }
  for (const params of open.values()) close(params);
  const client = await clientOf(settings);
  ready();
  let stored = 0;
  let next = 0;
  const worker = async () => {
    for (let batch = batches[next++]; batch !== undefined; batch = batches[next++]) {
      await client.batch(
        batch.params.map((params) => ({ query: INSERT, params })),
        { prepare: true, logged: false },
      );
      const before = stored;
      stored += batch.rowCount;
      if (before < settings.count && stored >= settings.count) console.log(`mark ${stored}`);
    }
  };
  await Promise.all(Array.from({ length: BATCHES_IN_FLIGHT }, worker));
  console.log(`done ${stored}`);
  await new Promise(() => {}); // As above.
}

/** Websocket -> Kafka -> consumer -> Cassandra in one process, until it is killed. */
async function path(settings: Settings): Promise<void> {
  const { topic, url, symbols } = settings;
  const kafka = kafkaOf(settings);
  const producer = producerOf(kafka);
  const consumer = groupOf(settings);
  const [client] = await Promise.all([clientOf(settings), producer.connect(), consumer.connect()]);
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      const now = Date.now();
      const writes = batch.messages.map(({ value }) => {
        const queries = (JSON.parse(value!.toString()) as BareTrade[]).map(({ s, p, v, t, c }) => ({
          query: INSERT,
          params: [s, t - (t % HOUR_MS), t, Bun.randomUUIDv7(), p, v, c ? JSON.stringify(c) : undefined, now],
        }));
        const [first] = queries;
        return queries.length === 1
          ? client.execute(first!.query, first!.params)
          : client.batch(queries, { prepare: true, logged: false });
      });
      await Promise.all(writes);
    },
  });
  let waiting: { partition: number; key: string; value: string }[] = [];
  let isSending = false;
  const send = async () => {
    if (isSending || waiting.length === 0) return;
    isSending = true;
    const messages = waiting;
    waiting = [];
    await producer.send({ topic, acks: -1, compression: CompressionTypes.ZSTD, messages });
    isSending = false;
    void send();
  };
  const socket = new WebSocket(url, { perMessageDeflate: false });
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(String(data)) as BareFrame;
    if (frame.type !== "trade") return;
    for (const [key, trades] of Map.groupBy(frame.data, ({ s }) => s)) {
      waiting.push({ partition: symbols.indexOf(key) % 8, key, value: JSON.stringify(trades) });
    }
    void send();
  };
  socket.onopen = () => {
    for (const symbol of symbols) socket.send(JSON.stringify({ type: "subscribe", symbol }));
    ready();
  };
  await new Promise(() => {});
}

/** What a producer is connected to: the feed, a producer of Kafka, a consumer that follows a small topic. */
async function idleProducer(settings: Settings): Promise<void> {
  const kafka = kafkaOf(settings);
  const producer = producerOf(kafka);
  await producer.connect();
  const consumer = kafka.consumer({ groupId: settings.group, maxWaitTimeInMs: TAIL_WAIT_MS, minBytes: 1 });
  await consumer.connect();
  await consumer.subscribe({ topic: `${settings.topic}.tickers`, fromBeginning: true });
  await consumer.run({ autoCommit: false, eachBatch: async () => {} });
  const socket = new WebSocket(settings.url, { perMessageDeflate: false });
  socket.onopen = ready;
  await new Promise(() => {});
}

/** What a processor is connected to: a consumer group, a producer for what it puts aside, Cassandra. */
async function idleProcessor(settings: Settings): Promise<void> {
  const producer = producerOf(kafkaOf(settings));
  const consumer = groupOf(settings);
  await Promise.all([clientOf(settings), producer.connect(), consumer.connect()]);
  await consumer.subscribe({ topics: [settings.topic, `${settings.topic}.events`], fromBeginning: true });
  await consumer.run({ autoCommit: false, eachBatch: async () => {} });
  ready();
  await new Promise(() => {});
}

const FLOORS: Readonly<Record<string, (settings: Settings) => Promise<void>>> = {
  produce,
  fetch: fetchAll,
  insert,
  path,
  "idle-producer": idleProducer,
  "idle-processor": idleProcessor,
};

const [what = "", settings = "{}"] = process.argv.slice(2);
const floor = FLOORS[what];
if (floor === undefined) throw new Error(`there is no floor ${what}`);
await floor(JSON.parse(settings) as Settings);
process.exit(0);
