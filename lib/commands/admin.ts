// The operator's commands of admin, on Kafka and Cassandra: verify, which may run at any time, and replay, which reads
// the topics once more and commits nothing. It decides nothing about a trade.

import type { Command, CommandOptions, Context } from "../base/command.ts";
import { namesOf } from "../base/config.ts";
import { SetupError } from "../base/errors.ts";
import { printLine } from "../base/logger.ts";
import { connectCassandra } from "../cassandra/client.ts";
import { type CassandraStore, openCassandraStore } from "../cassandra/store.ts";
import { readKafkaRange } from "../kafka/range-reader.ts";
import { openKafkaSender } from "../kafka/sender.ts";
import { openTopics, partitionId, topicNames } from "../kafka/topics.ts";
import { createDeadWriter, createKafkaWriter } from "../kafka/writer.ts";
import { decodeDeadLetter } from "../model/codec.ts";
import type { DeadLetter } from "../model/dead-letter.ts";
import { HOUR_MS } from "../model/trade.ts";
import {
  IMPORT_FLAGS,
  REPLAY_FLAGS,
  readRange,
  readRepair,
  readReplayRange,
  VERIFY_FLAGS,
} from "./arguments.ts";
import { IMPORT_USAGE, runImport } from "./import-command.ts";
import { printRedriveCounts, printReplayed, verifyAndPrint } from "./output.ts";
import { redriveAll } from "./redrive.ts";
import { replayRows } from "./replay.ts";

/** How far a producer's clock may be ahead of its broker's: a record may then look older than its receipt. */
const CLOCKS_APART_MS = HOUR_MS;
/** Some thousand records between two commits, 5 s, are nothing unusual. */
const FORCE_LAG_MAX = 10_000;

export const adminCommands: readonly Command[] = [
  {
    name: "verify",
    usage:
      "compute every closed window again from its trades and compare; exit 1 when any differs, repaired or not.\n" +
      "It may run at any time. Without --from: everything that is kept.",
    options: VERIFY_FLAGS,
    main: verify,
  },
  {
    name: "replay",
    usage:
      "read the topic once more and store what was received in a range, then the windows of these trades from the\n" +
      "table. It commits nothing and may run at any time. With --dead: send the dead letters again.",
    options: REPLAY_FLAGS,
    main: replay,
  },
  {
    name: "import",
    usage: `${IMPORT_USAGE}\nIt may run at any time; trades of the last hour are refused, since processors may still write their windows.`,
    operands: "<files...>",
    options: IMPORT_FLAGS,
    main: importTrades,
  },
];

async function verify(context: Context, options: CommandOptions): Promise<number> {
  const { config, clock, signal } = context;
  const { retentionDays } = config;
  const nowMs = clock.now();
  const range = readRange(options, nowMs, 0);
  const repair = readRepair(options);
  if (repair === "force") await refuseWhileBehind(context);
  await using store = await openStore(context, async () => {
    throw new Error("a verification makes no dead letters");
  });
  return await verifyAndPrint(
    { store, clock, range, retentionDays, expires: "rows", repair, isLive: true, signal },
    options,
  );
}

/** A processor with a backlog has old panes in memory, and would write over what is repaired by force. */
async function refuseWhileBehind({ config, clock, logger }: Context): Promise<void> {
  const { topic, groupId } = namesOf(config, config.source);
  await using topics = openTopics({ settings: config.kafka, clientId: "admin", clock, logger, topic });
  const behind = (await topics.lag(groupId)).reduce((sum, { lag }) => sum + lag, 0);
  if (behind <= FORCE_LAG_MAX) return;
  throw new SetupError(
    `nothing was repaired: the processors are ${behind} records behind, and may write old windows from memory over what --force repairs`,
    "wait until the lag in admin's /health is small, then run this again",
  );
}

async function replay(context: Context, options: CommandOptions): Promise<number> {
  const { config, clock, logger, signal } = context;
  const { retentionDays } = config;
  const isJson = options.json === true;
  const range = readReplayRange(options, clock.now());
  const names = topicNames(namesOf(config, config.source).topic);
  const kafka = { settings: config.kafka, clientId: "admin", clock, logger };
  await using sender = openKafkaSender({ ...kafka, topic: names.trades });
  await sender.ready();
  const log = createKafkaWriter(sender);

  if (range === null) {
    await using topics = openTopics({ ...kafka, topic: names.trades });
    const count = await topics.partitionCount();
    const partitions = Array.from({ length: count }, (_, index) => partitionId(names.trades, index));
    const records = readKafkaRange({ ...kafka, topic: names.dead, fromMs: null, signal });
    const deps = { log, partitions, clock, retentionDays, signal };
    const undecoded = { count: 0 };
    printRedriveCounts(await redriveAll(deps, deadLettersIn(records, undecoded)), isJson);
    if (undecoded.count > 0)
      printLine(`${undecoded.count} records of ${names.dead} are not dead letters of this pipeline`);
    return 0;
  }

  await using store = await openStore(context, createDeadWriter(log));
  // Records are in the order of their append, which follows their receipt at any distance.
  const fromMs = Math.max(0, range.fromMs - CLOCKS_APART_MS);
  const records = readKafkaRange({ ...kafka, topic: names.trades, fromMs, signal });
  const deps = { store, clock, logger, retentionDays, signal };
  printReplayed(await replayRows(deps, records, range), range, isJson);
  return 0;
}

async function importTrades(
  context: Context,
  options: CommandOptions,
  paths: readonly string[],
): Promise<number> {
  const { config, clock, logger } = context;
  const names = topicNames(namesOf(config, config.source).topic);
  await using opened = new AsyncDisposableStack();
  return await runImport(context, options, paths, clock.now() - HOUR_MS, async () => {
    const kafka = { settings: config.kafka, clientId: "admin", clock, logger };
    const sender = opened.use(openKafkaSender({ ...kafka, topic: names.trades }));
    await sender.ready();
    return opened.use(await openStore(context, createDeadWriter(createKafkaWriter(sender))));
  });
}

async function* deadLettersIn(
  records: AsyncIterable<Readonly<{ value: Uint8Array }>>,
  undecoded: { count: number },
): AsyncGenerator<DeadLetter> {
  for await (const { value } of records) {
    const deadLetter = decodeDeadLetter(value);
    if (deadLetter === null) undecoded.count += 1;
    else yield deadLetter;
  }
}

async function openStore(
  { config, clock, logger, metrics, signal }: Context,
  putDead: (deadLetters: readonly DeadLetter[]) => Promise<void>,
): Promise<CassandraStore> {
  const { keyspace } = namesOf(config, config.source);
  const { retentionDays } = config;
  await using opened = new AsyncDisposableStack();
  const cassandra = opened.use(await connectCassandra({ settings: config.cassandra, clock, logger, signal }));
  const store = await openCassandraStore({
    cassandra,
    keyspace,
    retentionDays,
    clock,
    logger,
    metrics,
    putDead,
  });
  // The store closes the connection.
  opened.move();
  return store;
}
