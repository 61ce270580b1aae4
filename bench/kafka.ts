// Question: how many trades a second does the producer bring from a websocket, through its outbox on disk, to Kafka's
// acknowledgement? And how fast does an outbox drain that has filled up while Kafka was away? Both are measured from
// outside, by the offsets of the topic. The floor sends prepared bytes of the same messages, with nothing before it.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../lib/base/clock.ts";
import { createMetrics } from "../lib/base/metrics.ts";
import { createPartitionChoice } from "../lib/kafka/sender.ts";
import { decodeMessage, encodeMessage } from "../lib/model/codec.ts";
import type { Message } from "../lib/model/trade.ts";
import { openSqliteLog } from "../lib/outbox/log.ts";
import { temporaryDirectory } from "../tests/support/builders.ts";
import { uniqueName } from "../tests/support/services/shared.ts";
import { cpuSecondsOf, mib, now, rssOf, startSender } from "./children.ts";
import { type Engines, openEngines, STALL_MS_MAX, until } from "./engines.ts";
import { marketFrames, messagesOf, SYMBOLS, tradeCountOf } from "./material.ts";
import { type Figure, RUNS, spreadOf } from "./measure.ts";
import { PROBE_SYMBOL } from "./sender.ts";

/** Each of RUNS segments is then a second and more; another one before them warms up. */
const TRADES = 1_500_000;
const BACKLOG_TRADES = 1_000_000;
const LIVE_TRADES_PER_SECOND = 1_000;
const LIVE_SECONDS_MAX = 120;
/** Of the market that the tape at full speed is made of. */
const MARKET_TRADES_PER_SECOND = 20_000;
const BACKLOG_MARKET_TRADES_PER_SECOND = 5_000;
/** Of one send of the floor: 500 were 20 % slower, 8,000 no faster. */
const MESSAGES_PER_SEND = 2_000;
const APPEND_MESSAGES = 500;
/** What `admin init` makes unless told otherwise. */
const PARTITIONS = 8;
const OUTBOX_BYTES_MAX = 2 ** 30;
const POLL_MS = 10;

const ALL_SYMBOLS = [...SYMBOLS, PROBE_SYMBOL];

type Subject = Readonly<{ pid: number; stderr?: () => string }>;
type Pass = Awaited<ReturnType<typeof watch>>;

export async function kafka(isShort: boolean): Promise<Figure[]> {
  await using engines = await openEngines();
  const scale = isShort ? 3 : 1;
  const sent = await send(engines, TRADES / scale);
  return [...sent, ...(await drain(engines, BACKLOG_TRADES / scale))];
}

// ---- As fast as they come

async function send(engines: Engines, tradeCountMin: number): Promise<Figure[]> {
  using directory = temporaryDirectory();
  const settings = await engines.pipeline(directory.path, {
    FINNHUB_STOCKS_TICKERS: JSON.stringify(ALL_SYMBOLS),
    FINNHUB_MAX_SYMBOLS: String(ALL_SYMBOLS.length),
  });
  const topic = settings.KAFKA_TOPIC_NAME!;
  const ours = await (async () => {
    await using sender = await startSender(MARKET_TRADES_PER_SECOND, tradeCountMin, "max");
    await using producer = await engines.start("producer", { ...settings, FINNHUB_WS_URL: sender.wsUrl });
    const pass = await watch(engines, producer, topic, async () => {
      const received = await producer.metric("feed_trades_received_total");
      return received === sender.tradeCount && (await producer.metric("log_messages")) === 0;
    });
    return { ...pass, tradeCount: sender.tradeCount, senderCpuSeconds: sender.cpuSeconds() };
  })();

  const stored = await tradesIn(engines, topic, ours.recordCount);
  if (stored !== ours.tradeCount)
    throw new Error(`the topic has ${stored} trades, and ${ours.tradeCount} were sent`);

  const messages = messagesOf(marketFrames(tradeCountMin, MARKET_TRADES_PER_SECOND, Date.now()));
  const perMessage = tradeCountOf(messages) / messages.length;
  const floor = await sendBare(engines, messages);
  const perRecord = stored / ours.recordCount;
  const note =
    `${stored} trades, which ours made ${ours.recordCount} records of (what waits is coalesced, ${perRecord.toFixed(1)} each); ` +
    `ours used ${ours.cores.toFixed(2)} cores, the simulator ${(ours.senderCpuSeconds / ours.wholeSeconds).toFixed(2)}, Kafka ${ours.kafkaCores.toFixed(2)}`;
  return figuresOf("kafka, producer", 130_000, { ours: tradesOf(ours, perRecord), floor, perMessage, note });
}

/** Records a second as trades a second. */
function tradesOf(pass: Pass, perRecord: number): Pass {
  return {
    ...pass,
    rates: pass.rates.map((rate) => rate * perRecord),
    cpuPerMillion: pass.cpuPerMillion / perRecord,
    kafkaPerMillion: pass.kafkaPerMillion / perRecord,
  };
}

/** The messages of the tape, one a symbol of each frame, without us. */
async function sendBare(engines: Engines, messages: readonly Message[]): Promise<Pass> {
  using directory = temporaryDirectory();
  const settings = await engines.pipeline(directory.path);
  const file = join(directory.path, "messages");
  const choosePartition = createPartitionChoice();
  writeFileSync(file, Buffer.concat(messages.map((message) => bytesOf(message, choosePartition))));
  await using child = await engines.floor("produce", settings, { file, count: MESSAGES_PER_SEND });
  const pass = await watch(engines, child, settings.KAFKA_TOPIC_NAME!, async () => true, messages.length);
  return tradesOf(pass, tradeCountOf(messages) / messages.length);
}

/** As the floor reads it: partition, lengths, key, value. */
function bytesOf(message: Message, choosePartition: ReturnType<typeof createPartitionChoice>): Buffer {
  const { symbol } = message.trades[0]!;
  const key = Buffer.from(symbol);
  const value = encodeMessage(message);
  const head = Buffer.alloc(9);
  head[0] = choosePartition(symbol, PARTITIONS);
  head.writeUInt32LE(key.length, 1);
  head.writeUInt32LE(value.length, 5);
  return Buffer.concat([head, key, value]);
}

function figuresOf(
  name: string,
  tradesGoal: number,
  { ours, floor, perMessage, note }: { ours: Pass; floor: Pass; perMessage: number; note: string },
): Figure[] {
  const figure = { cpuSecondsPerMillion: ours.cpuPerMillion, rssBytes: ours.rssBytes };
  const of = ({ rates }: Pass, factor: number) => spreadOf(rates.map((rate) => rate * factor));
  const cpu = (which: string, secondsOf: (pass: Pass) => number): Figure => ({
    name: `${name}, ${which}`,
    unit: "CPU s/M trades",
    ours: spreadOf([secondsOf(ours)]),
    floor: spreadOf([secondsOf(floor)]),
    goal: null,
    cpuSecondsPerMillion: null,
    rssBytes: null,
  });
  return [
    {
      name,
      unit: "messages/s",
      ours: of(ours, 1 / perMessage),
      floor: of(floor, 1 / perMessage),
      goal: { of: "ratio", atLeast: 0.8 },
      ...figure,
    },
    {
      name,
      unit: "trades/s",
      ours: of(ours, 1),
      floor: of(floor, 1),
      goal: { of: "ours", atLeast: tradesGoal },
      ...figure,
      note:
        `${note}; a message is ${perMessage.toFixed(2)} trades, a symbol's of one frame; ${RUNS} segments after the first; the floor sends ` +
        `${MESSAGES_PER_SEND} prepared messages at once, one send in flight: ${floor.cores.toFixed(2)} cores, RSS ${mib(floor.rssBytes)} MiB`,
    },
    cpu("client", ({ cpuPerMillion }) => cpuPerMillion),
    cpu("Kafka", ({ kafkaPerMillion }) => kafkaPerMillion),
  ];
}

// ---- After an outage

async function drain(engines: Engines, tradeCountMin: number): Promise<Figure[]> {
  using directory = temporaryDirectory();
  await using sender = await startSender(
    LIVE_TRADES_PER_SECOND,
    LIVE_TRADES_PER_SECOND * LIVE_SECONDS_MAX,
    1,
  );
  const settings = await engines.pipeline(directory.path, {
    FINNHUB_WS_URL: sender.wsUrl,
    FINNHUB_STOCKS_TICKERS: JSON.stringify(ALL_SYMBOLS),
    FINNHUB_MAX_SYMBOLS: String(ALL_SYMBOLS.length),
  });
  const backlog = messagesOf(marketFrames(tradeCountMin, BACKLOG_MARKET_TRADES_PER_SECOND, Date.now()));
  const perMessage = tradeCountOf(backlog) / backlog.length;
  mkdirSync(settings.DATA_DIR!, { recursive: true });
  {
    using log = openSqliteLog({
      directory: settings.DATA_DIR!,
      topic: settings.KAFKA_TOPIC_NAME!,
      sync: "normal",
      bytesMax: OUTBOX_BYTES_MAX,
      clock: systemClock,
      metrics: createMetrics(),
    });
    for (let from = 0; from < backlog.length; from += APPEND_MESSAGES) {
      await log.append(
        backlog.slice(from, from + APPEND_MESSAGES).map((message) => ({
          kind: "trades",
          key: message.trades[0]!.symbol,
          value: encodeMessage(message),
        })),
      );
    }
  }
  const topic = settings.KAFKA_TOPIC_NAME!;
  await using producer = await engines.start("producer", settings);
  const ours = await watch(engines, producer, topic, async () => true, backlog.length);
  const received = await producer.metric("feed_trades_received_total");
  if (received === 0) throw new Error("no live trade was received meanwhile");
  await until("the live trades behind it", async () => (await producer.metric("log_messages")) < 100);
  await producer.stop();
  const floor = await sendBare(engines, backlog);
  const note =
    `${tradeCountOf(backlog)} trades on disk at the start, ${received} live ones received meanwhile; ` +
    `ours used ${ours.cores.toFixed(2)} cores, Kafka ${ours.kafkaCores.toFixed(2)}`;
  return figuresOf("kafka, drain of an outbox", 100_000, {
    ours: tradesOf(ours, perMessage),
    floor,
    perMessage,
    note,
  });
}

// ---- The eye

/**
 * Rates in records a second, by RUNS segments behind a first one that warms up. It ends at `recordsWanted`, or when
 * the topic stands still and `isOver`.
 */
async function watch(
  engines: Engines,
  subject: Subject,
  topic: string,
  isOver: () => Promise<boolean>,
  recordsWanted?: number,
) {
  type Sample = Readonly<{ atMs: number; count: number; cpu: number; kafkaCpu: number }>;
  const samples: Sample[] = [];
  let rssBytes = 0;
  const startedAtMs = now();
  let changedAtMs = startedAtMs;
  for (;;) {
    const count = await engines.recordCount(topic);
    const atMs = now();
    const before = samples.at(-1)?.count ?? 0;
    if (count > before) {
      samples.push({
        atMs,
        count,
        cpu:
          recordsWanted !== undefined && count >= recordsWanted
            ? lastCpu(subject)
            : cpuSecondsOf(subject.pid),
        kafkaCpu: engines.cpuSeconds().kafka,
      });
      rssBytes = Math.max(rssBytes, rssIfAlive(subject));
      changedAtMs = atMs;
      if (recordsWanted !== undefined && count >= recordsWanted) break;
    } else if (recordsWanted === undefined && before > 0 && atMs - changedAtMs > 500 && (await isOver()))
      break;
    if (atMs - changedAtMs > STALL_MS_MAX)
      throw new Error(`nothing new in the topic after ${before} records\n${subject.stderr?.() ?? ""}`);
    await Bun.sleep(POLL_MS);
  }
  function lastCpu({ pid }: Subject): number {
    // A floor ends by itself as soon as it is done.
    try {
      return cpuSecondsOf(pid);
    } catch {
      return samples.at(-1)?.cpu ?? 0;
    }
  }
  const recordCount = recordsWanted ?? samples.at(-1)!.count;
  const marks = Array.from({ length: RUNS + 1 }, (_, index) =>
    Math.floor(((index + 1) * recordCount) / (RUNS + 1)),
  );
  const ends = marks.map((mark) => samples.find(({ count }) => count >= mark)!);
  const [first, last] = [ends[0]!, ends.at(-1)!];
  const rates = ends.slice(1).map(({ count, atMs }, index) => {
    const before = ends[index]!;
    if (count === before.count) throw new Error("too few records for so many segments");
    return ((count - before.count) / (atMs - before.atMs)) * 1_000;
  });
  const seconds = (last.atMs - first.atMs) / 1_000;
  const millions = (last.count - first.count) / 1e6;
  return {
    recordCount,
    wholeSeconds: (last.atMs - startedAtMs) / 1_000,
    rates,
    rssBytes,
    seconds,
    cores: (last.cpu - first.cpu) / seconds,
    kafkaCores: (last.kafkaCpu - first.kafkaCpu) / seconds,
    cpuPerMillion: (last.cpu - first.cpu) / millions,
    kafkaPerMillion: (last.kafkaCpu - first.kafkaCpu) / millions,
  };
}

function rssIfAlive({ pid }: Subject): number {
  try {
    return rssOf(pid);
  } catch {
    return 0;
  }
}

/** Trades in the whole topic. */
async function tradesIn(engines: Engines, topic: string, recordCount: number): Promise<number> {
  let tradeCount = 0;
  let left = recordCount;
  const consumer = engines.client.consumer({ groupId: uniqueName("eye") });
  const all = Promise.withResolvers<void>();
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      for (const { value } of batch.messages) {
        const decoded = decodeMessage(value!);
        if (!decoded.ok) return all.reject(new Error("a message of the topic is unreadable"));
        tradeCount += decoded.message.trades.length;
      }
      left -= batch.messages.length;
      if (left <= 0) all.resolve();
    },
  });
  await all.promise;
  await consumer.disconnect();
  return tradeCount;
}
