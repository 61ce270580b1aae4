// The operator's verbs of admin, on Kafka and Cassandra: verify, which may run at any time, and replay, which reads
// the topics once more and commits nothing. It decides nothing about a trade.

import type { Context, Verb, VerbOptions } from "../base/command.ts";
import { namesOf } from "../base/config.ts";
import { SetupError } from "../base/errors.ts";
import { print } from "../base/logger.ts";
import { connectCassandra } from "../cassandra/client.ts";
import { type CassandraStore, openCassandraStore } from "../cassandra/store.ts";
import { createDeadWriter, createKafkaWriter, openKafkaSender } from "../kafka/consumer.ts";
import { readKafkaRange } from "../kafka/range-reader.ts";
import { openTopics, partitionId, topicNames } from "../kafka/topics.ts";
import { decodeDeadLetter } from "../model/codec.ts";
import { type DeadLetter, HOUR_MS } from "../model/trade.ts";
import {
  REPLAY_FLAGS,
  readRange,
  readRepair,
  readReplayRange,
  retentionStartMs,
  sayDeadReplayed,
  sayReplayed,
  VERIFY_FLAGS,
  verifyAndSay,
} from "./arguments.ts";
import { replayDead, replayRows } from "./replay.ts";

/** A producer's clock may be so far ahead of its broker's: a record may then look older than its receipt. */
const CLOCKS_APART_MS = HOUR_MS;
/** Between two commits, 5 s, some thousand records are nothing unusual. */
const FORCE_LAG_MAX = 10_000;

export const adminVerbs: readonly Verb[] = [
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

async function verify(context: Context, options: VerbOptions): Promise<number> {
  const { config, clock, signal } = context;
  const { retentionDays } = config;
  const nowMs = clock.now();
  const range = readRange(options, nowMs, retentionStartMs(nowMs, retentionDays));
  const repair = readRepair(options);
  if (repair === "force") await refuseWhileBehind(context);
  await using store = await openStore(context, async () => {
    throw new Error("a verification puts nothing aside");
  });
  return await verifyAndSay({ store, clock, range, retentionDays, repair, isLive: true, signal }, options);
}

/** Who works off a backlog holds panes of long ago in memory, and would write over what was mended by force. */
async function refuseWhileBehind({ config, clock, report }: Context): Promise<void> {
  const { topic, groupId } = namesOf(config, config.source);
  await using topics = openTopics({ settings: config.kafka, clientId: "admin", clock, report, topic });
  const behind = (await topics.lag(groupId)).reduce((sum, { lag }) => sum + lag, 0);
  if (behind <= FORCE_LAG_MAX) return;
  throw new SetupError(
    `the processors are ${behind} records behind, and may hold in memory what --force would mend`,
    "wait until the lag in admin's /health is small, and run it again",
  );
}

async function replay(context: Context, options: VerbOptions): Promise<number> {
  const { config, clock, report, signal } = context;
  const { retentionDays } = config;
  const isJson = options.json === true;
  const range = readReplayRange(options, clock.now());
  const names = topicNames(namesOf(config, config.source).topic);
  const kafka = { settings: config.kafka, clientId: "admin", clock, report };
  await using sender = openKafkaSender({ ...kafka, topic: names.trades });
  await sender.ready();
  const log = createKafkaWriter(sender);

  if (range === null) {
    await using topics = openTopics({ ...kafka, topic: names.trades });
    const count = await topics.partitionCount();
    const partitions = Array.from({ length: count }, (_, index) => partitionId(names.trades, index));
    const letters = readKafkaRange({ ...kafka, topic: names.dead, fromMs: null, signal });
    const parts = { log, partitions, clock, retentionDays, signal };
    const undecoded = { count: 0 };
    sayDeadReplayed(await replayDead(parts, lettersOf(letters, undecoded)), isJson);
    if (undecoded.count > 0) print(`${undecoded.count} records of ${names.dead} are no letters of ours`);
    return 0;
  }

  await using store = await openStore(context, createDeadWriter(log));
  // Records lie in the order of their append, which is at or after their receipt, however long after.
  const fromMs = Math.max(0, range.fromMs - CLOCKS_APART_MS);
  const records = readKafkaRange({ ...kafka, topic: names.trades, fromMs, signal });
  const parts = { store, clock, report, retentionDays, signal };
  sayReplayed(await replayRows(parts, records, range), range, isJson);
  return 0;
}

async function* lettersOf(
  records: AsyncIterable<Readonly<{ value: Uint8Array }>>,
  undecoded: { count: number },
): AsyncGenerator<DeadLetter> {
  for await (const { value } of records) {
    const letter = decodeDeadLetter(value);
    if (letter === null) undecoded.count += 1;
    else yield letter;
  }
}

async function openStore(
  { config, clock, report, metrics, signal }: Context,
  putDead: (letters: readonly DeadLetter[]) => Promise<void>,
): Promise<CassandraStore> {
  const { keyspace } = namesOf(config, config.source);
  const { retentionDays } = config;
  await using opened = new AsyncDisposableStack();
  const cassandra = opened.use(await connectCassandra({ settings: config.cassandra, clock, report, signal }));
  const store = await openCassandraStore({
    cassandra,
    keyspace,
    retentionDays,
    clock,
    report,
    metrics,
    putDead,
  });
  // It closes the connection at its own end.
  opened.move();
  return store;
}
