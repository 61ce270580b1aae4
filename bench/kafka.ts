// Question: how many trades a second does the producer bring from a websocket to where Kafka has acknowledged them,
// through its outbox on disk; and how fast does an outbox drain that has filled up while Kafka was away? Both are seen
// from outside: in the offsets of the topic. The floor sends the very messages that ours has sent, with nothing before.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../lib/clock.ts";
import { decodeMessage, encodeMessage } from "../lib/codec.ts";
import { openSqliteLog } from "../lib/log-sqlite.ts";
import { createMetrics } from "../lib/metrics.ts";
import { uniqueName } from "../tests/services/shared.ts";
import { temporaryDirectory } from "../tests/support.ts";
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
const OUTBOX_BYTES_MAX = 2 ** 30;
const POLL_MS = 20;

const ALL_SYMBOLS = [...SYMBOLS, PROBE_SYMBOL];

type Subject = Readonly<{ pid: number }>;
type Pass = Awaited<ReturnType<typeof watch>>;

export async function kafka(isShort: boolean): Promise<Figure[]> {
  await using engines = await openEngines();
  const scale = isShort ? 5 : 1;
  const sent = await send(engines, TRADES / scale);
  return [...sent, await drain(engines, BACKLOG_TRADES / scale)];
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

  const messages = await readAll(engines, topic, ours.recordCount);
  const tradeCount = messages.reduce((sum, message) => sum + message.tradeCount, 0);
  if (tradeCount !== ours.tradeCount)
    throw new Error(`the topic holds ${tradeCount} trades, and ${ours.tradeCount} were sent`);
  const perMessage = tradeCount / messages.length;
  const file = join(directory.path, "messages");
  writeFileSync(file, Buffer.concat(messages.map(({ bytes }) => bytes)));

  const again = await engines.pipeline(directory.path);
  const floor = await (async () => {
    await using child = await engines.floor("produce", again, { file, count: MESSAGES_PER_SEND });
    return watch(engines, child, again.KAFKA_TOPIC_NAME!, async () => true, messages.length);
  })();

  const figure = { cpuSecondsPerMillion: ours.cpuPerMillion / perMessage, rssBytes: ours.rssBytes };
  const of = ({ rates }: Pass, factor: number) => spreadOf(rates.map((rate) => rate * factor));
  return [
    {
      name: "kafka, producer",
      unit: "messages/s",
      ours: of(ours, 1),
      floor: of(floor, 1),
      goal: { of: "ratio", atLeast: 0.8 },
      ...figure,
    },
    {
      name: "kafka, producer",
      unit: "trades/s",
      ours: of(ours, perMessage),
      floor: of(floor, perMessage),
      goal: { of: "ours", atLeast: 130_000 },
      ...figure,
      note:
        `${tradeCount} trades in ${messages.length} messages (${perMessage.toFixed(2)} each), ${RUNS} segments after the first; ` +
        `the floor sends the same messages, ${MESSAGES_PER_SEND} at once; ours used ${ours.cores.toFixed(2)} cores, the simulator ` +
        `${(ours.senderCpuSeconds / ours.seconds).toFixed(2)}, Kafka ${ours.kafkaCores.toFixed(2)}; the floor ${floor.cores.toFixed(2)}, RSS ${mib(floor.rssBytes)} MiB`,
    },
    ...cpuFigures("kafka, producer", ours, floor, perMessage),
  ];
}

function cpuFigures(name: string, ours: Pass, floor: Pass, perMessage: number): Figure[] {
  const line = (which: string, of: (pass: Pass) => number): Figure => ({
    name: `${name}, ${which}`,
    unit: "CPU s/M trades",
    ours: spreadOf([of(ours) / perMessage]),
    floor: spreadOf([of(floor) / perMessage]),
    goal: null,
    cpuSecondsPerMillion: null,
    rssBytes: null,
  });
  return [
    line("client", ({ cpuPerMillion }) => cpuPerMillion),
    line("Kafka", ({ kafkaPerMillion }) => kafkaPerMillion),
  ];
}

// ---- After an outage

async function drain(engines: Engines, tradeCountMin: number): Promise<Figure> {
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
  const pass = await watch(engines, producer, topic, async () => true, backlog.length);
  const received = await producer.metric("feed_trades_received_total");
  if (received === 0) throw new Error("no live trade was received meanwhile");
  await until("the live trades behind it", async () => (await producer.metric("log_messages")) < 100);
  return {
    name: "kafka, drain of an outbox",
    unit: "trades/s",
    ours: spreadOf(pass.rates.map((rate) => rate * perMessage)),
    floor: null,
    goal: { of: "ours", atLeast: 100_000 },
    cpuSecondsPerMillion: pass.cpuPerMillion / perMessage,
    rssBytes: pass.rssBytes,
    note:
      `${tradeCountOf(backlog)} trades in ${backlog.length} messages on disk at the start, ${received} live ones received ` +
      `meanwhile; ours used ${pass.cores.toFixed(2)} cores, Kafka ${pass.kafkaCores.toFixed(2)}`,
  };
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
  let changedAtMs = now();
  for (;;) {
    const count = await engines.recordCount(topic);
    const atMs = now();
    const before = samples.at(-1)?.count ?? 0;
    if (count > before) {
      samples.push({
        atMs,
        count,
        cpu: recordsWanted !== undefined && count >= recordsWanted ? lastCpu(subject) : cpuSecondsOf(subject.pid),
        kafkaCpu: engines.cpuSeconds().kafka,
      });
      rssBytes = Math.max(rssBytes, rssIfAlive(subject));
      changedAtMs = atMs;
      if (recordsWanted !== undefined && count >= recordsWanted) break;
    } else if (recordsWanted === undefined && before > 0 && atMs - changedAtMs > 500 && (await isOver())) break;
    if (atMs - changedAtMs > STALL_MS_MAX) throw new Error(`nothing new in the topic after ${before} records`);
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
    return ((count - before.count) / (atMs - before.atMs)) * 1_000;
  });
  const seconds = (last.atMs - first.atMs) / 1_000;
  const millions = (last.count - first.count) / 1e6;
  return {
    recordCount,
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

/** What the topic holds, in the order of receipt, as the floor reads it: partition, lengths, key, value. */
async function readAll(engines: Engines, topic: string, count: number) {
  const messages: { sequence: number; tradeCount: number; bytes: Buffer }[] = [];
  const consumer = engines.client.consumer({ groupId: uniqueName("eye") });
  const all = Promise.withResolvers<void>();
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      for (const { key, value } of batch.messages) {
        const decoded = decodeMessage(value!);
        if (!decoded.ok) return all.reject(new Error("a message of the topic is unreadable"));
        const { sequence, trades } = decoded.message;
        const head = Buffer.alloc(9);
        head[0] = batch.partition;
        head.writeUInt32LE(key!.length, 1);
        head.writeUInt32LE(value!.length, 5);
        messages.push({ sequence, tradeCount: trades.length, bytes: Buffer.concat([head, key!, value!]) });
      }
      if (messages.length >= count) all.resolve();
    },
  });
  await all.promise;
  await consumer.disconnect();
  return messages.sort((a, b) => a.sequence - b.sequence);
}
