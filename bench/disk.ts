// Question: how many bytes does a trade take, wherever it lies? In the outbox, in market.sqlite, on the topic (a live one
// and one that waited), and in Cassandra's table. Files are measured when they are closed or flushed. No floor: it is no speed.

import { readdirSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import cassandraDriver from "cassandra-driver";
import { CompressionTypes } from "kafkajs";
import { systemClock } from "../lib/base/clock.ts";
import { createMetrics } from "../lib/base/metrics.ts";
import { encodeMessage } from "../lib/model/codec.ts";
import type { Message, TradeRow } from "../lib/model/trade.ts";
import { openSqliteLog } from "../lib/outbox/log.ts";
import { openSqliteStore } from "../lib/sqlite/store.ts";
import { temporaryDirectory } from "../tests/support/builders.ts";
import { clientOptions } from "../tests/support/services/cassandra.ts";
import { type Engines, openEngines, until } from "./engines.ts";
import { marketFrames, messagesOf, rowsOf } from "./material.ts";
import { type Figure, spreadOf } from "./measure.ts";

const TRADES = 200_000;
const TRADES_PER_SECOND = 1_000;
const BYTES_MAX = 2 ** 30;
/** What the outbox coalesces at most (docs/GLOSSARY.md, message). */
const TRADES_PER_MESSAGE_MAX = 1_024;
const MESSAGES_PER_APPEND = 10;
const ROWS_PER_PUT = 200;
const MESSAGES_PER_SEND = 2_000;
/** Each is a batch of its own on the topic, whoever sends beside it. */
const SENDS_IN_FLIGHT = 64;
const INSERTS_IN_FLIGHT = 256;

export async function disk(isShort: boolean): Promise<Figure[]> {
  const messages = messagesOf(marketFrames(isShort ? TRADES / 5 : TRADES, TRADES_PER_SECOND, Date.now()));
  const rows = rowsOf(messages);
  const figure = (name: string, bytes: number): Figure => ({
    name: `disk, ${name}`,
    unit: "bytes/trade",
    ours: spreadOf([bytes / rows.length]),
    floor: null,
    goal: null,
    cpuSecondsPerMillion: null,
    rssBytes: null,
    note: `${rows.length} trades in ${messages.length} messages, ${TRADES_PER_SECOND} trades/s of 50 symbols`,
  });
  const figures = [
    figure("outbox", await outboxBytes(messages)),
    figure("market.sqlite, trades", await storeBytes(rows)),
  ];
  await using engines = await openEngines();
  const live = await topicBytes(engines, messages, 1);
  const waited = await topicBytes(engines, coalesced(messages), MESSAGES_PER_SEND);
  return [
    ...figures,
    figure("topic, live", live),
    figure("topic, a backlog", waited),
    figure("Cassandra, trades", await tableBytes(engines, rows)),
  ];
}

async function outboxBytes(messages: readonly Message[]): Promise<number> {
  using directory = temporaryDirectory();
  {
    using log = openSqliteLog({
      directory: directory.path,
      topic: "market",
      sync: "normal",
      bytesMax: BYTES_MAX,
      clock: systemClock,
      metrics: createMetrics(),
    });
    for (let from = 0; from < messages.length; from += MESSAGES_PER_APPEND) {
      const some = messages.slice(from, from + MESSAGES_PER_APPEND);
      const entries = some.map((message) => ({ ...recordOf(message), kind: "trades" as const }));
      await log.append(entries);
    }
  }
  return bytesBelow(directory.path);
}

async function storeBytes(rows: readonly TradeRow[]): Promise<number> {
  using directory = temporaryDirectory();
  {
    using store = openSqliteStore({ directory: directory.path, sync: "normal" });
    for (let from = 0; from < rows.length; from += ROWS_PER_PUT)
      await store.putTrades(rows.slice(from, from + ROWS_PER_PUT));
  }
  return bytesBelow(directory.path);
}

/** Of the broker's files of one topic, `perSend` messages in each request. */
async function topicBytes(engines: Engines, messages: readonly Message[], perSend: number): Promise<number> {
  using directory = temporaryDirectory();
  const { KAFKA_TOPIC_NAME: topic } = await engines.pipeline(directory.path);
  const producer = engines.client.producer();
  await producer.connect();
  const send = (from: number) =>
    producer.send({
      topic: topic!,
      acks: -1,
      compression: CompressionTypes.ZSTD,
      messages: messages.slice(from, from + perSend).map(recordOf),
    });
  for (let from = 0; from < messages.length; from += perSend * SENDS_IN_FLIGHT) {
    const starts = Array.from({ length: SENDS_IN_FLIGHT }, (_, index) => from + index * perSend);
    await Promise.all(starts.filter((start) => start < messages.length).map(send));
  }
  await producer.disconnect();
  return partsOf(join(directoryOf(engines.kafka.pid), "data"), new RegExp(`^${topic}-\\d+$`), /\.log$/);
}

/** Of the table's files once they are flushed; a table that was flushed once has nothing to compact. */
async function tableBytes(engines: Engines, rows: readonly TradeRow[]): Promise<number> {
  using directory = temporaryDirectory();
  const { CASSANDRA_KEYSPACE: keyspace } = await engines.pipeline(directory.path);
  const client = new cassandraDriver.Client({
    ...clientOptions(engines.cassandra.port),
    keyspace: keyspace!,
  });
  await client.connect();
  const names = Object.keys(rows[0]!);
  const insert = `INSERT INTO trades (${names.join(", ")}) VALUES (${names.map(() => "?").join(", ")})`;
  for (let from = 0; from < rows.length; from += INSERTS_IN_FLIGHT)
    await Promise.all(
      rows
        .slice(from, from + INSERTS_IN_FLIGHT)
        .map((row) => client.execute(insert, Object.values(row), { prepare: true })),
    );
  await client.execute("ALTER TABLE trades WITH memtable_flush_period_in_ms = 1000");
  const size = () => {
    const place = join(directoryOf(engines.cassandra.pid), "data", keyspace!);
    return partsOf(place, /^trades-/, /\.db$/);
  };
  await until("the table is flushed", () => size() > 0, 500);
  let before = -1;
  const isWhole = () => {
    const last = before;
    before = size();
    return before === last;
  };
  await until("its files are whole", isWhole, 2_000);
  await client.shutdown();
  return size();
}

const recordOf = (message: Message) => ({ key: message.trades[0]!.symbol, value: encodeMessage(message) });

/** As the outbox makes them of what waits: more trades of one symbol in each. */
function coalesced(messages: readonly Message[]): Message[] {
  const bySymbol = Map.groupBy(messages, ({ trades }) => trades[0]!.symbol);
  return [...bySymbol.values()].flatMap((own) => {
    const trades = own.flatMap((message) => message.trades);
    const count = Math.ceil(trades.length / TRADES_PER_MESSAGE_MAX);
    return Array.from({ length: count }, (_, index) => {
      const from = index * TRADES_PER_MESSAGE_MAX;
      return { ...own[0]!, trades: trades.slice(from, from + TRADES_PER_MESSAGE_MAX) };
    });
  });
}

/** Every server of ours works in a directory of its own. */
const directoryOf = (pid: number) => readlinkSync(`/proc/${pid}/cwd`);

function partsOf(place: string, directory: RegExp, file: RegExp): number {
  const own = readdirSync(place).filter((name) => directory.test(name));
  return own
    .flatMap((name) =>
      readdirSync(join(place, name))
        .filter((one) => file.test(one))
        .map((one) => join(place, name, one)),
    )
    .reduce((sum, path) => sum + statSync(path).size, 0);
}

function bytesBelow(directory: string): number {
  return readdirSync(directory)
    .map((name) => statSync(join(directory, name)).size)
    .reduce((sum, size) => sum + size, 0);
}
