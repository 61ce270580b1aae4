// The operator's verbs of admin, on Kafka and Cassandra: verify, which may run at any time, and replay, which reads
// the topics once more and commits nothing. It decides nothing about a trade.

import type { Command, CommandOptions, Context } from "../base/command.ts";
import { namesOf } from "../base/config.ts";
import { SetupError } from "../base/errors.ts";
import { printLine } from "../base/logger.ts";
import { connectCassandra } from "../cassandra/client.ts";
import { type CassandraStore, openCassandraStore } from "../cassandra/store.ts";
import { createDeadWriter, createKafkaWriter, openKafkaSender } from "../kafka/consumer.ts";
import { readKafkaRange } from "../kafka/range-reader.ts";
import { openTopics, partitionId, topicNames } from "../kafka/topics.ts";
import { decodeDeadLetter } from "../model/codec.ts";
import type { DeadLetter } from "../model/dead-letter.ts";
import { HOUR_MS } from "../model/trade.ts";
import {
  printRedriveCounts,
  printReplayed,
  REPLAY_FLAGS,
  readRange,
  readRepair,
  readReplayRange,
  retentionStartMs,
  VERIFY_FLAGS,
  verifyAndPrint,
} from "./arguments.ts";
import { redriveAll, replayRows } from "./replay.ts";

/** A producer's clock may be so far ahead of its broker's: a record may then look older than its receipt. */
const CLOCKS_APART_MS = HOUR_MS;
/** Between two commits, 5 s, some thousand records are nothing unusual. */
const FORCE_LAG_MAX = 10_000;

export const adminCommands: readonly Command[] = [
  {
    name: "verify",
    usage:
      "compute every closed window anew from its trades and compare; exit 1 when any differs, repaired or not.\n" +
      "It may run at any time. Without --from: all that is kept.",
    options: VERIFY_FLAGS,
    main: verify,
  },
  {
    name: "replay",
    usage:
      "read the topic once more and store what was received in a range, then the windows of these trades from the\n" +
      "table. It commits nothing and may run at any time. With --dead: send again what was put aside.",
    options: REPLAY_FLAGS,
    main: replay,
  },
];

async function verify(context: Context, options: CommandOptions): Promise<number> {
  const { config, clock, signal } = context;
  const { retentionDays } = config;
  const nowMs = clock.now();
  const range = readRange(options, nowMs, retentionStartMs(nowMs, retentionDays));
  const repair = readRepair(options);
  if (repair === "force") await refuseWhileBehind(context);
  await using store = await openStore(context, async () => {
    throw new Error("a verification puts nothing aside");
  });
  return await verifyAndPrint({ store, clock, range, retentionDays, repair, isLive: true, signal }, options);
}

/** Who works off a backlog holds panes of long ago in memory, and would write over what was mended by force. */
async function refuseWhileBehind({ config, clock, logger }: Context): Promise<void> {
  const { topic, groupId } = namesOf(config, config.source);
  await using topics = openTopics({ settings: config.kafka, clientId: "admin", clock, logger, topic });
  const behind = (await topics.lag(groupId)).reduce((sum, { lag }) => sum + lag, 0);
  if (behind <= FORCE_LAG_MAX) return;
  throw new SetupError(
    `the processors are ${behind} records behind, and may hold in memory what --force would mend`,
    "wait until the lag in admin's /health is small, and run it again",
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
    const deadLetters = readKafkaRange({ ...kafka, topic: names.dead, fromMs: null, signal });
    const deps = { log, partitions, clock, retentionDays, signal };
    const undecoded = { count: 0 };
    printRedriveCounts(await redriveAll(deps, lettersOf(deadLetters, undecoded)), isJson);
    if (undecoded.count > 0) printLine(`${undecoded.count} records of ${names.dead} are no letters of ours`);
    return 0;
  }

  await using store = await openStore(context, createDeadWriter(log));
  // Records lie in the order of their append, which is at or after their receipt, however long after.
  const fromMs = Math.max(0, range.fromMs - CLOCKS_APART_MS);
  const records = readKafkaRange({ ...kafka, topic: names.trades, fromMs, signal });
  const deps = { store, clock, logger, retentionDays, signal };
  printReplayed(await replayRows(deps, records, range), range, isJson);
  return 0;
}

async function* lettersOf(
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
  // It closes the connection at its own end.
  opened.move();
  return store;
}
