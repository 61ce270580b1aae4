// The operator's commands of local, on the store and the log of its own DATA_DIR: verify, which may run beside it, and
// those that write, which may not. It decides nothing about a trade.

import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Command, CommandOptions, Context } from "../base/command.ts";
import { chooseSource, namesOf } from "../base/config.ts";
import { LogFullError, SetupError } from "../base/errors.ts";
import { takeOwnership } from "../base/sqlite.ts";
import type { LogWriter } from "../contracts/log.ts";
import { type CommitStore, openSqliteLog, type SqliteLog } from "../outbox/log.ts";
import { createProcessor, type Processor } from "../processing/processor.ts";
import { openSqliteStore, type SqliteStore } from "../sqlite/store.ts";
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
import { type ReplayRecord, replayRows, replayWindows } from "./replay.ts";
import { retryForOperator } from "./retry.ts";

const POLL_MS = 5;
/** A full log is emptied by storing what it holds, at most so often for one append. */
const ROOM_ATTEMPTS_MAX = 20;
const ROOM_PAUSE_MS = 50;

export const localCommands: readonly Command[] = [
  {
    name: "verify",
    usage:
      "compute every closed window again from its trades and compare; exit 1 when any differs, repaired or not.\n" +
      "It may run beside local, but --repair may not. Without --from: everything that is kept.",
    options: VERIFY_FLAGS,
    main: verify,
  },
  {
    name: "replay",
    usage:
      "store again what was received in a range, while no local runs on this DATA_DIR. The log here keeps only what is\n" +
      "not yet stored: that is read once more without committing, and the windows of all rows received in the range\n" +
      "are computed again from the table. With --dead: send the dead letters again.",
    options: REPLAY_FLAGS,
    main: replay,
  },
  {
    name: "import",
    usage: `${IMPORT_USAGE}\nNo local may run on this DATA_DIR meanwhile.`,
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
  const { directory } = placeOf(config);
  using _alone = repair === "nothing" ? null : takeAlone(directory, "verify --repair");
  using store = await openStore(context, directory);
  return await verifyAndPrint(
    { store, clock, range, retentionDays, expires: "hours", repair, isLive: repair === "nothing", signal },
    options,
  );
}

async function replay(context: Context, options: CommandOptions): Promise<number> {
  const { config, clock, logger, metrics, signal } = context;
  const { retentionDays } = config;
  const range = readReplayRange(options, clock.now());
  const { directory, topic } = placeOf(config);
  const { sync, bytesMax } = config.outbox;
  using store = await openStore(context, directory);
  using log = alone("replay", () =>
    openSqliteLog({ directory, topic, sync, bytesMax, clock, metrics, logger }),
  );
  const isJson = options.json === true;
  if (range !== null) {
    const deps = { store, clock, logger, retentionDays, signal };
    const fromLog = await replayRows(deps, recordsOf(log, signal), range);
    // The table has the rows of the log by now, so these windows include theirs.
    const fromTable = await replayWindows(deps, store.scanReceived(range.fromMs), range);
    printReplayed({ ...fromLog, windows: fromTable.windows }, range, isJson);
    return 0;
  }

  // The messages go the way of every trade: through the log and the processor.
  const reader = log.openReader(store.commits);
  const processor = createProcessor({ log: reader, store, clock, logger, metrics });
  const stopped = new AbortController();
  const running = processor.run(AbortSignal.any([stopped.signal, signal]));
  const work = async () => {
    const deps = {
      log: roomyWriter(log, processor, clock),
      partitions: [`${topic}/0`],
      clock,
      retentionDays,
      signal,
    };
    const replayed = await redriveAll(deps, store.scanDead());
    await allRead(log, clock);
    return replayed;
  };
  try {
    const replayed = await Promise.race([work(), running.then(() => Promise.reject(signal.reason))]);
    stopped.abort();
    await running;
    printRedriveCounts(replayed, isJson);
    return 0;
  } finally {
    stopped.abort();
    await running;
  }
}

async function importTrades(
  context: Context,
  options: CommandOptions,
  paths: readonly string[],
): Promise<number> {
  const source = chooseSource(context.config, "local");
  if (source.kind === "simulator") {
    throw new SetupError(
      "these settings are those of simulated data, and trades that really happened would lie among them",
      "set FINNHUB_API_TOKEN as for a local that receives real trades, and DATA_DIR if it is to be another one",
    );
  }
  const { dataDirectory: directory } = namesOf(context.config, source);
  await using opened = new AsyncDisposableStack();
  return await runImport(context, options, paths, Number.POSITIVE_INFINITY, async () => {
    mkdirSync(directory, { recursive: true });
    opened.use(takeAlone(directory, "import"));
    return opened.use(await openStore(context, directory));
  });
}

function placeOf(config: Context["config"]): { directory: string; topic: string } {
  const source = chooseSource(config, "local");
  const { dataDirectory: directory, topic } = namesOf(config, source);
  if (!existsSync(join(directory, "market.sqlite"))) {
    const kind = source.kind === "simulator" ? "simulated" : "real";
    throw new SetupError(
      `there is no store of ${kind} data in ${directory}`,
      "set DATA_DIR, and the source of trades (FINNHUB_API_TOKEN, FINNHUB_SIMULATE), as they are set for local",
    );
  }
  return { directory, topic };
}

/** Another program may keep it locked for a moment. */
function openStore({ config, clock, signal }: Context, directory: string): Promise<SqliteStore> {
  const { sync } = config.outbox;
  return retryForOperator(clock, signal, async () => openSqliteStore({ directory, sync, clock }));
}

/** The outbox has one owner: while a command owns it, no local runs and none can start. */
function takeAlone(directory: string, command: string): Disposable {
  return alone(command, () => takeOwnership(join(directory, "outbox.sqlite")));
}

function alone<T>(command: string, open: () => T): T {
  try {
    return open();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    throw new SetupError(
      `${command} needs DATA_DIR to itself: ${error.message}`,
      "stop local, run this again, then start local again",
      error,
    );
  }
}

/** Everything that the log holds now. No position is saved, so nothing is committed and nothing deleted. */
async function* recordsOf(log: SqliteLog, signal: AbortSignal): AsyncGenerator<ReplayRecord> {
  const nowhere: CommitStore = {
    load: () => null,
    save: () => {
      throw new Error("a replay commits nothing");
    },
  };
  const reader = log.openReader(nowhere);
  let endOffset = 0;
  for await (const delivery of reader.deliveries(signal)) {
    if (delivery.type === "assigned") {
      const [partition] = delivery.partitions;
      if (partition === undefined) return;
      const range = await reader.position(delivery.epoch, partition);
      endOffset = range.endOffset;
      if (range.beginOffset >= endOffset) return;
      reader.seek(delivery.epoch, partition, range.beginOffset);
      continue;
    }
    for (const { kind, offset, timestampMs, value } of delivery.records)
      if (kind === "trades") yield { partition: delivery.partition, offset, timestampMs, value };
    if (delivery.nextOffset >= endOffset) return;
  }
}

async function allRead(log: SqliteLog, clock: Clock): Promise<void> {
  while (log.health().unreadCount > 0) await clock.sleep(POLL_MS);
}

/** A writer that makes room in a full log: what the log holds is stored and committed first. */
function roomyWriter(log: SqliteLog, processor: Processor, clock: Clock): LogWriter {
  return {
    async append(entries) {
      for (let attempt = 0; ; attempt++) {
        try {
          return await log.append(entries);
        } catch (error) {
          if (!(error instanceof LogFullError) || attempt >= ROOM_ATTEMPTS_MAX) throw error;
          await allRead(log, clock);
          await processor.trigger();
          await clock.sleep(ROOM_PAUSE_MS);
        }
      }
    },
  };
}
