// What patches/ mends in kafkajs 2.2.4, tested on kafkajs's own modules. Without the patch every test here fails except
// the last, which shows what is left as it was. Work is counted, never timed.

import { expect, test } from "bun:test";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const silent = { debug() {}, info() {}, warn() {}, error() {}, namespace: () => silent };

type Timer = Readonly<{ callback: () => void; delayMs: number }>;

/** Runs with timers that fire only by hand. */
function withTimers(run: (timers: Timer[]) => void): void {
  const timers: Timer[] = [];
  const real = globalThis.setTimeout;
  const collect = (callback: () => void, delayMs: number) => timers.push({ callback, delayMs });
  globalThis.setTimeout = collect as unknown as typeof setTimeout;
  try {
    run(timers);
  } finally {
    globalThis.setTimeout = real;
  }
}

function openRequestQueue() {
  const RequestQueue = require("kafkajs/src/network/requestQueue");
  return new RequestQueue({
    maxInFlightRequests: 1,
    requestTimeout: 1_000,
    enforceRequestTimeout: false,
    clientId: "test",
    broker: "127.0.0.1:9092",
    logger: silent,
  });
}

function request(correlationId: number, sent: number[]) {
  return {
    entry: { apiKey: 0, apiName: "", apiVersion: 0, correlationId, resolve() {}, reject() {} },
    expectResponse: true,
    requestTimeout: null,
    sendRequest: () => sent.push(correlationId),
  };
}

test("a connection with nothing to send sets no timer, however many answers it has had", () => {
  withTimers((timers) => {
    const queue = openRequestQueue();
    const sent: number[] = [];
    for (let id = 1; id <= 3; id++) {
      queue.push(request(id, sent));
      queue.fulfillRequest({ correlationId: id, payload: null, size: 0 });
    }
    // A timer that was set nevertheless is fired a hundred times: it must not set itself again.
    for (let round = 0; round < 100; round++) timers.at(-1)?.callback();
    expect(sent).toEqual([1, 2, 3]);
    expect(timers.length).toBe(0);
  });
});

test("a request that waits is looked at again, with a positive delay, until it is sent", () => {
  withTimers((timers) => {
    const queue = openRequestQueue();
    const sent: number[] = [];
    queue.push(request(1, sent));
    queue.push(request(2, sent));
    expect(timers.map(({ delayMs }) => delayMs)).toEqual([10]);
    timers[0]!.callback();
    expect(timers.length).toBe(2);
    queue.fulfillRequest({ correlationId: 1, payload: null, size: 0 });
    expect(sent).toEqual([1, 2]);
    timers[1]!.callback();
    expect(timers.length).toBe(2);
  });
});

test("messages are grouped by partition without copying what is grouped already", () => {
  const group = require("kafkajs/src/producer/groupMessagesPerPartition");
  const count = 2_000;
  const messages = Array.from({ length: count }, (_, index) => ({ partition: index % 2, index }));
  const partitioner = ({ message }: { message: { partition: number } }) => message.partition;
  const iterate = Array.prototype[Symbol.iterator];
  let steps = 0;
  // Every spread and every loop over an array goes through here.
  Array.prototype[Symbol.iterator] = function* <T>(this: T[]) {
    for (let index = 0; index < this.length; index++) {
      steps += 1;
      yield this[index] as T;
    }
  } as unknown as typeof iterate;
  let grouped: Record<string, typeof messages>;
  try {
    grouped = group({ topic: "t", partitionMetadata: [{}, {}], messages, partitioner });
  } finally {
    Array.prototype[Symbol.iterator] = iterate;
  }
  expect(grouped["0"]).toEqual(messages.filter(({ partition }) => partition === 0));
  expect(grouped["1"]).toEqual(messages.filter(({ partition }) => partition === 1));
  expect(steps).toBeLessThanOrEqual(2 * count);
});

function openRunner(commitOffsets: () => Promise<void>) {
  const Runner = require("kafkajs/src/consumer/runner");
  return new Runner({
    logger: silent,
    consumerGroup: { commitOffsets },
    instrumentationEmitter: { emit() {} },
    concurrency: 1,
    onCrash() {},
    retry: { retries: 3, initialRetryTime: 1, maxRetryTime: 1 },
  });
}

test("a commit is tried once: a repeat would go through under the next generation", async () => {
  let tries = 0;
  const runner = openRunner(async () => {
    tries += 1;
    if (tries === 1) throw Object.assign(new Error("closed"), { retriable: true });
  });
  runner.running = true;
  await expect(runner.commitOffsets({ topics: [] })).rejects.toThrow("closed");
  expect(tries).toBe(1);
});

test("a commit while the consumer is not running fails instead of being forgotten", async () => {
  const runner = openRunner(async () => {});
  // In a function of its own: without the patch the answer is not even a promise.
  const committing = async () => runner.commitOffsets({ topics: [] });
  await expect(committing()).rejects.toThrow("nothing was committed");
});

test("an offset out of range makes the member join anew and commits nothing", async () => {
  const ConsumerGroup = require("kafkajs/src/consumer/consumerGroup");
  const calls: string[] = [];
  const group = {
    logger: silent,
    preferredReadReplicasPerTopicPartition: {},
    offsetManager: { setDefaultOffset: async () => calls.push("commit") },
    joinAndSync: async () => calls.push("join"),
  };
  await ConsumerGroup.prototype.recoverFromOffsetOutOfRange.call(group, { topic: "t", partition: 0 });
  expect(calls).toEqual(["join"]);
});

test("a fetch that has nothing to ask for ends with a resume, after all that is resumed in that step", async () => {
  const ConsumerGroup = require("kafkajs/src/consumer/consumerGroup");
  const resumed: string[] = [];
  const openGroup = (maxWaitTime: number) => ({
    maxWaitTime,
    onResume: new Set(),
    logger: silent,
    cluster: { refreshMetadataIfNecessary: async () => {} },
    subscriptionState: { assigned: () => [], resume: (name: string) => resumed.push(name) },
    checkForStaleAssignment() {},
    filterPartitionsByNode: () => [],
    seekOffsets: async () => {},
    offsetManager: { committedOffsets: () => ({}) },
    getActiveTopicPartitions: () => ({}),
  });
  const { fetch, resume } = ConsumerGroup.prototype;
  // Longer than a test may take.
  const group = openGroup(600_000);
  let resumedThen: string[] = [];
  const fetched = fetch.call(group, 0).then(() => {
    resumedThen = [...resumed];
  });
  await new Promise((resolve) => setImmediate(resolve));
  resume.call(group, "one");
  await Promise.resolve();
  resume.call(group, "two");
  await fetched;
  expect(resumedThen).toEqual(["one", "two"]);
  // Without one it waits its time, and leaves nothing behind.
  const other = openGroup(1);
  expect(await fetch.call(other, 0)).toEqual([]);
  expect(other.onResume.size + group.onResume.size).toBe(0);
});

test("a partition without a leader does not hide where the others are; any other error of one is told", async () => {
  const { parse } = require("kafkajs/src/protocol/requests/metadata/v0/response");
  const metadata = (partitionErrorCode: number) => ({
    brokers: [],
    topicMetadata: [
      { topicErrorCode: 0, topic: "t", partitionMetadata: [{ partitionErrorCode, leader: -1 }] },
    ],
  });
  const leaderNotAvailable = metadata(5);
  expect(await parse(leaderNotAvailable)).toBe(leaderNotAvailable);
  await expect(parse(metadata(9))).rejects.toThrow();
});

test.each([0, 1, 2, 3, 4, 5, 6, 7])(
  "version %p of a produce answer: one bad partition hides no other",
  async (version) => {
    const { protocol } = require("kafkajs/src/protocol/requests/produce");
    const { response } = protocol({ version })({ acks: -1, timeout: 1, compression: 0, topicData: [] });
    const partitions = [0, 10, 0].map((errorCode, partition) => ({ partition, errorCode }));
    const answer = { topics: [{ topicName: "t", partitions }] };
    expect(await response.parse(answer)).toEqual(answer);
  },
);

type Answer = Readonly<{ partition: number; errorCode: number; error?: Error }>;

/** Sends one message to each partition of a topic; partition n is led by broker n. */
async function sendTo(
  brokers: readonly (() => Promise<number>)[],
  findBroker = async (_nodeId: number) => {},
) {
  const createSendMessages = require("kafkajs/src/producer/sendMessages");
  const removed: unknown[] = [];
  const cluster = {
    targetTopics: new Set(["t"]),
    brokerPool: { metadataExpireAt: 1 as number | null },
    addMultipleTargetTopics: async () => {},
    refreshMetadataIfNecessary: async () => {},
    refreshMetadata: async () => {},
    isConnected: () => true,
    removeBroker: (address: unknown) => removed.push(address),
    findTopicPartitionMetadata: () => brokers.map((_, partitionId) => ({ partitionId, leader: partitionId })),
    findLeaderForPartitions: () =>
      Object.fromEntries(brokers.map((_, partition) => [partition, [partition]])),
    async findBroker({ nodeId }: { nodeId: string }) {
      await findBroker(Number(nodeId));
      const produce = async () => {
        const errorCode = await brokers[Number(nodeId)]!();
        return { topics: [{ topicName: "t", partitions: [{ partition: Number(nodeId), errorCode }] }] };
      };
      return { nodeId, produce };
    },
  };
  const send = createSendMessages({
    logger: silent,
    cluster,
    partitioner: ({ message }: { message: { partition: number } }) => message.partition,
    eosManager: {
      acquireBrokerLock: async () => {},
      releaseBrokerLock: async () => {},
      isTransactional: () => false,
      getSequence: () => 0,
      updateSequence() {},
      getProducerId() {},
      getProducerEpoch() {},
    },
    retrier: (run: (bail: (error: Error) => void) => unknown) =>
      new Promise((resolve, reject) => Promise.resolve(run(reject)).then(resolve, reject)),
  });
  const messages = brokers.map((_, partition) => ({ partition, value: "v" }));
  const answers: Answer[] = await send({ acks: -1, topicMessages: [{ topic: "t", messages }] });
  answers.sort((a, b) => a.partition - b.partition);
  return { answers, removed, isToRefresh: cluster.brokerPool.metadataExpireAt === null };
}

const writes = async () => 0;
const codesOf = (answers: readonly Answer[]) => answers.map(({ errorCode }) => errorCode);

test("a broker that fails speaks for its own partitions only, and is asked for anew", async () => {
  const closed = Object.assign(new Error("closed"), {
    name: "KafkaJSConnectionClosedError",
    host: "h",
    port: 1,
  });
  const { answers, removed, isToRefresh } = await sendTo([writes, () => Promise.reject(closed), writes]);
  expect(codesOf(answers)).toEqual([0, -1, 0]);
  expect(answers[1]!.error).toBe(closed);
  expect(removed).toEqual([{ host: "h", port: 1 }]);
  expect(isToRefresh).toBe(true);
});

test("a leader that is not found keeps nothing from being sent to the others", async () => {
  const { answers, isToRefresh } = await sendTo([writes, writes], async (nodeId) => {
    if (nodeId === 0) throw new Error("not found");
  });
  expect(codesOf(answers)).toEqual([-1, 0]);
  expect(answers[0]!.error?.message).toBe("not found");
  expect(isToRefresh).toBe(true);
});

test("after an answer that tells of a moved leader the next send asks where it is; after any other it does not", async () => {
  for (const [code, type, isToRefresh] of [
    [3, "UNKNOWN_TOPIC_OR_PARTITION", true],
    [5, "LEADER_NOT_AVAILABLE", true],
    [6, "NOT_LEADER_FOR_PARTITION", true],
    [10, "MESSAGE_TOO_LARGE", false],
  ] as const) {
    const sent = await sendTo([writes, async () => code]);
    expect(codesOf(sent.answers)).toEqual([0, code]);
    expect(sent.answers[1]!.error).toMatchObject({ type });
    expect(sent.isToRefresh).toBe(isToRefresh);
  }
  expect((await sendTo([writes])).isToRefresh).toBe(false);
});

test("brokers that all fail are an error", async () => {
  const fails = () => Promise.reject(new Error("away"));
  await expect(sendTo([fails, fails])).rejects.toThrow("away");
});

test("the records of a batch in one buffer are the bytes that each alone would be", () => {
  const Encoder = require("kafkajs/src/protocol/encoder");
  const encodeOne = require("kafkajs/src/protocol/recordBatch/record/v0");
  const encodeRecords = require("kafkajs/src/protocol/recordBatch/record/v0/encodeRecords");
  type Sent = { key: string | null; value: Uint8Array | null; timestamp?: string; headers?: object };
  const times = { dateNow: 1_000, firstTimestamp: 1_000 };
  const expectSame = (messages: readonly Sent[]) => {
    const alone = messages.map((message, offsetDelta) =>
      encodeOne({
        ...message,
        value: message.value === null ? null : Buffer.from(message.value),
        offsetDelta,
        timestampDelta: Number(message.timestamp ?? times.dateNow) - times.firstTimestamp,
      }),
    );
    const bytes: Buffer = encodeRecords(messages, times).buffer;
    expect(bytes.equals(new Encoder().writeEncoderArray(alone).buffer)).toBe(true);
  };
  // Lengths and deltas on both sides of where they take a byte more: 63, 8,191 and 1,048,575.
  const sizes = [0, 1, 50, 57, 62, 63, 64, 65, 8_100, 8_191, 8_192, 1_048_575, 1_048_576];
  expectSame(sizes.map((size) => ({ key: "AAPL", value: Buffer.alloc(size, 7) })));
  expectSame(sizes.map((size) => ({ key: "K".repeat(size), value: Buffer.from("v") })));
  expectSame(["", "BINANCE:BTCUSDT", "é", "株", "\ud800"].map((key) => ({ key, value: Buffer.alloc(9) })));
  expectSame(Array.from({ length: 10_000 }, () => ({ key: "k", value: Buffer.from("v") })));
  const plain = { key: "k", value: new Uint8Array([1, 2, 3]) };
  const others = [
    { ...plain, key: null },
    { ...plain, value: null },
    { ...plain, headers: { name: "value" } },
    { ...plain, timestamp: "1007" },
  ];
  for (const other of others) expectSame([plain, other, plain]);
});

test("bytes need not be a Buffer's, whichever version of a request writes them", async () => {
  const bytes = new Uint8Array([9, 1, 2, 3, 9]).subarray(1, 4);
  for (const version of [0, 1, 2, 7]) {
    const request = require(`kafkajs/src/protocol/requests/produce/v${version}/request`);
    const encode = async (value: Uint8Array): Promise<Buffer> => {
      const messages = [{ key: "k", value, timestamp: "5", headers: { name: value } }];
      const topicData = [{ topic: "t", partitions: [{ partition: 0, messages }] }];
      return (await request({ acks: -1, timeout: 1, topicData }).encode()).buffer;
    };
    expect((await encode(bytes)).equals(await encode(Buffer.from(bytes)))).toBe(true);
  }
});
