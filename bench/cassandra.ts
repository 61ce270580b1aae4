// Question: how many rows a second does one processor bring from a backlog in Kafka to where Cassandra has
// acknowledged them, aggregates and commits included, and what does it cost? The floor writes the same rows, prepared.
// Each run is a new process, a new group and new tables, ours and the floor's in turn.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import cassandraDriver from "cassandra-driver";
import { createPartitionChoice } from "../lib/kafka/sender.ts";
import { encodeMessage } from "../lib/model/codec.ts";
import type { Message, TradeRow } from "../lib/model/trade.ts";
import { temporaryDirectory } from "../tests/support/builders.ts";
import type { Settings } from "../tests/support/processes.ts";
import { clientOptions } from "../tests/support/services/cassandra.ts";
import { uniqueName } from "../tests/support/services/shared.ts";
import { cpuSecondsOf, mib, now, rssOf } from "./children.ts";
import { type Engines, openEngines, STALL_MS_MAX } from "./engines.ts";
import { marketFrames, messagesOf, rowsOf } from "./material.ts";
import { type Figure, RUNS, type Spread, spreadOf } from "./measure.ts";

const BACKLOG_TRADES = 500_000;
/** Of the backlog, uncounted: the engine compiles, the group is joined. */
const WARM_UP_SHARE = 0.2;
/** Of the market that the backlog was received from. */
const TRADES_PER_SECOND = 1_000;
const MESSAGES_PER_SEND = 2_000;
const PARTITIONS = 8;
const POLL_MS_MIN = 25;
const POLL_MS_MAX = 500;

/** From the first row after the warm-up to the last one. */
type Run = Readonly<{
  rowsPerSecond: number;
  clientPerMillion: number;
  cassandraPerMillion: number;
  kafkaPerMillion: number;
  cores: number;
  rssBytes: number;
}>;

export async function cassandra(isShort: boolean): Promise<Figure[]> {
  await using engines = await openEngines();
  using directory = temporaryDirectory();
  const messages = messagesOf(
    marketFrames(isShort ? BACKLOG_TRADES / 5 : BACKLOG_TRADES, TRADES_PER_SECOND, Date.now()),
  );
  const rows = rowsOf(messages);
  const topics = await engines.pipeline(directory.path);
  await produce(engines, topics.KAFKA_TOPIC_NAME!, messages);
  const file = join(directory.path, "rows");
  writeFileSync(file, rows.map((row) => JSON.stringify(Object.values(row))).join("\n"));

  const ours: Run[] = [];
  const floor: Run[] = [];
  const fetches: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const topic = topics.KAFKA_TOPIC_NAME!;
    const settings = await engines.pipeline(directory.path);
    ours.push(await runOurs(engines, { ...settings, KAFKA_TOPIC_NAME: topic }, rows));
    floor.push(await runFloor(engines, await engines.pipeline(directory.path), file, rows.length));
    fetches.push(await runFetch(engines, topics, messages.length, rows.length));
  }
  return figuresOf(ours, floor, fetches, rows.length);
}

function figuresOf(
  ours: readonly Run[],
  floor: readonly Run[],
  fetches: readonly number[],
  rowCount: number,
): Figure[] {
  const spread = (runs: readonly Run[], of: (run: Run) => number): Spread => spreadOf(runs.map(of));
  const client = spread(ours, ({ clientPerMillion }) => clientPerMillion);
  const rssBytes = Math.max(...ours.map((run) => run.rssBytes));
  const cpu = (which: string, of: (run: Run) => number): Figure => ({
    name: `cassandra, ${which}`,
    unit: "CPU s/M rows",
    ours: spread(ours, of),
    floor: spread(floor, of),
    goal: null,
    cpuSecondsPerMillion: null,
    rssBytes: null,
  });
  const fetch = spreadOf(fetches);
  return [
    {
      name: "cassandra, backlog",
      unit: "rows/s",
      ours: spread(ours, ({ rowsPerSecond }) => rowsPerSecond),
      floor: spread(floor, ({ rowsPerSecond }) => rowsPerSecond),
      goal: { of: "ratio", atLeast: 0.8 },
      cpuSecondsPerMillion: client.median,
      rssBytes,
      note:
        `${RUNS} runs over ${rowCount} rows, the first ${WARM_UP_SHARE * 100} % uncounted; ours used ` +
        `${spread(ours, ({ cores }) => cores).median.toFixed(2)} cores, the floor (batches of 50 of one partition, 16 in ` +
        `flight, no Kafka) ${spread(floor, ({ cores }) => cores).median.toFixed(2)}, RSS ${mib(Math.max(...floor.map((run) => run.rssBytes)))} MiB`,
    },
    {
      ...cpu("client", ({ clientPerMillion }) => clientPerMillion),
      // What ours does more than the floor's inserts and a bare fetch of the same topic is decoding and panes.
      floor: spreadOf(floor.map(({ clientPerMillion }, run) => clientPerMillion + fetches[run]!)),
      goal: { of: "ratio", atMost: 1.4 },
      note: `the floor's inserts, and ${fetch.median.toFixed(2)} (${fetch.min.toFixed(2)} - ${fetch.max.toFixed(2)}) s/M for a bare fetch of the topic`,
    },
    cpu("Cassandra", ({ cassandraPerMillion }) => cassandraPerMillion),
    cpu("Kafka", ({ kafkaPerMillion }) => kafkaPerMillion),
  ];
}

// ---- The sides

async function runOurs(engines: Engines, settings: Settings, rows: readonly TradeRow[]): Promise<Run> {
  await using processor = await engines.start("processor", {
    ...settings,
    KAFKA_GROUP_ID: uniqueName("group"),
  });
  const meter = startMeter(engines, processor.pid);
  /** Its metrics cost it some milliseconds each time: they are asked for seldom, until the end is near. */
  const reach = async (count: number) => {
    let [seen, changedAtMs] = [0, now()];
    for (;;) {
      const stored = await processor.metric("processor_rows_stored_total");
      if (stored >= count) return meter.mark(stored);
      const elapsedMs = now() - changedAtMs;
      if (stored === seen && elapsedMs > STALL_MS_MAX)
        throw new Error(`${seen} rows stored and no more\n${processor.stderr()}`);
      const rowsPerMs = (stored - seen) / elapsedMs;
      if (stored > seen) [seen, changedAtMs] = [stored, now()];
      const leftMs = rowsPerMs === 0 ? POLL_MS_MAX : (count - stored) / rowsPerMs;
      await Bun.sleep(Math.min(POLL_MS_MAX, Math.max(POLL_MS_MIN, leftMs)));
    }
  };
  await reach(rows.length * WARM_UP_SHARE);
  await reach(rows.length);
  const run = meter.run();
  if ((await processor.stop()) !== 0)
    throw new Error(`the processor did not end well\n${processor.stderr()}`);
  await checkRows(engines, settings.CASSANDRA_KEYSPACE!, rows);
  return run;
}

async function runFloor(engines: Engines, settings: Settings, file: string, rowCount: number): Promise<Run> {
  await using child = await engines.floor("insert", settings, { file, count: rowCount * WARM_UP_SHARE });
  const meter = startMeter(engines, child.pid);
  for await (const line of child.lines) {
    const [word, count] = line.split(" ");
    meter.mark(Number(count));
    if (word === "done") break;
  }
  return meter.run();
}

/** CPU seconds a million rows, of fetching the topic and doing nothing with it. */
async function runFetch(
  engines: Engines,
  settings: Settings,
  count: number,
  rowCount: number,
): Promise<number> {
  await using child = await engines.floor("fetch", settings, { count });
  const before = cpuSecondsOf(child.pid);
  const { value } = await child.lines.next();
  if (value !== "done") throw new Error(`the floor ended with ${value}`);
  return ((cpuSecondsOf(child.pid) - before) / rowCount) * 1e6;
}

function startMeter(engines: Engines, pid: number) {
  const marks: { rows: number; atMs: number; cpu: number; kafka: number; cassandra: number; rss: number }[] =
    [];
  return {
    mark(rows: number) {
      marks.push({ rows, atMs: now(), cpu: cpuSecondsOf(pid), rss: rssOf(pid), ...engines.cpuSeconds() });
    },
    run(): Run {
      const [first, last] = [marks[0]!, marks.at(-1)!];
      const seconds = (last.atMs - first.atMs) / 1_000;
      const millions = (last.rows - first.rows) / 1e6;
      return {
        rowsPerSecond: (last.rows - first.rows) / seconds,
        clientPerMillion: (last.cpu - first.cpu) / millions,
        cassandraPerMillion: (last.cassandra - first.cassandra) / millions,
        kafkaPerMillion: (last.kafka - first.kafka) / millions,
        cores: (last.cpu - first.cpu) / seconds,
        rssBytes: Math.max(first.rss, last.rss),
      };
    },
  };
}

// ---- Before and after

async function produce(engines: Engines, topic: string, messages: readonly Message[]): Promise<void> {
  const producer = engines.client.producer();
  const choosePartition = createPartitionChoice();
  await producer.connect();
  for (let from = 0; from < messages.length; from += MESSAGES_PER_SEND) {
    await producer.send({
      topic,
      messages: messages.slice(from, from + MESSAGES_PER_SEND).map((message) => {
        const key = message.trades[0]!.symbol;
        const value = Buffer.from(encodeMessage(message));
        return { key, value, partition: choosePartition(key, PARTITIONS) };
      }),
      // zstd, as ours does.
      compression: 4,
    });
  }
  await producer.disconnect();
}

/** No word of the processor's is believed: what is in the table is counted. */
async function checkRows(engines: Engines, keyspace: string, rows: readonly TradeRow[]): Promise<void> {
  const client = new cassandraDriver.Client({ ...clientOptions(engines.cassandra.port), keyspace });
  const partitions = new Map(rows.map(({ symbol, hour }) => [`${hour} ${symbol}`, { symbol, hour }]));
  let count = 0;
  for (const { symbol, hour } of partitions.values()) {
    const query = "SELECT count(*) AS n FROM trades WHERE symbol = ? AND hour = ?";
    const { rows: counted } = await client.execute(query, [symbol, hour], { prepare: true });
    count += Number(counted[0]?.n);
  }
  await client.shutdown();
  if (count !== rows.length) throw new Error(`${count} of ${rows.length} rows are in the table`);
}
