// Seed 0: thirty days of sparse trades wait in the log and are read at full speed by a processor that is killed
// on the way, with copies and late trades among them. The same verdict as of every seed, and the bounds of memory.

import { encodeMessage } from "../../lib/model/codec.ts";
import type { Message, Trade } from "../../lib/model/trade.ts";
import { createProcessor, type Processor } from "../../lib/processing/processor.ts";
import { NOON_MS } from "../support/builders.ts";
import { FakeLog } from "./fake-log.ts";
import { FakeStore } from "./fake-store.ts";
import { Chronicle } from "./faults.ts";
import { logger, metrics, newHost } from "./hosts.ts";
import { Received } from "./ledger.ts";
import { watchMemory } from "./memory.ts";
import { type Outcome, SETTLED_MS_MAX } from "./outcome.ts";
import { World } from "./world.ts";

const DAYS = 30;
const DAY_MS = 86_400_000;
/** Sparse: of 50 symbols, one trade in three minutes each. Enough that one in 100,000 is among them. */
const MESSAGES = 52_000;
const SYMBOL_COUNT = 50;
const MESSAGES_PER_SESSION = 700;
const BATCH_RECORDS_MAX = 400;
const TRADES_PER_MESSAGE_MAX = 3;
const ROWS_PER_PUT = 500;
const PUTS_IN_FLIGHT = 4;
const KILLS = 3;
/** A tenth of the usual ones, so that thirty days fill them many times over. */
const LIMITS = { panesMax: 1_000, windowsUnwrittenMax: 2_000 };
const READS_MAX = 10_000;
const REPLAY_MS_MAX = 600_000;

export function replayThirtyDays(lines: string[] | null): Outcome {
  const world = new World(0, NOON_MS);
  const chronicle = new Chronicle(world, lines);
  const store = new FakeStore(world, {
    rowsPerPutMax: ROWS_PER_PUT,
    putsInFlightMax: PUTS_IN_FLIGHT,
    pageRows: 500,
    groupBy: "all",
  });
  const log = new FakeLog(world, { batchMax: BATCH_RECORDS_MAX });
  const received = new Received({
    hasRow: (uuid) => store.uuids.has(uuid),
    hasLetter: (deadLetter) => store.deadLetters.has(deadLetter),
    hasPayload: () => false,
    hasEvent: () => false,
    countOf: (key) => store.windows.get(key)?.window.row.trade_count ?? 0,
  });
  const id = log.ids[0]!;
  log.onAppend = (partition, record) => received.note(partition, record);
  log.onCommit = (partition, { offset, metadata }) => {
    chronicle.note(`commit ${offset} ${metadata}`);
    received.checkCommit(partition, offset);
  };
  fill(world, log, chronicle);

  const failures: string[] = [];
  const peak = watchMemory();
  let rowsInFlight = 0;
  let isDone = false;
  const start = () => {
    const host = newHost(world);
    const reader = log.reader(host.machine);
    const processor: Processor = createProcessor({
      log: reader,
      store: store.connect(host.machine),
      clock: host.clock,
      logger,
      metrics,
      limits: LIMITS,
      onRowsStored: () => {
        rowsInFlight = Math.max(rowsInFlight, processor.health().rowsInFlight);
      },
    });
    host.machine.every(5_000, () => void processor.trigger());
    processor.run(new AbortController().signal).catch((error: unknown) => {
      failures.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
      isDone = true;
    });
    log.assign(new Map([[reader, [id]]]));
    return { host, reader };
  };
  let process = start();
  const endOffset = log.endOffset(id);
  const killAt = Array.from({ length: KILLS }, (_, index) =>
    Math.floor((endOffset * (index + 1)) / (KILLS + 1)),
  );
  const isRead = () => isDone || received.checkedOffset(id) >= endOffset;
  while (!isRead() && world.elapsedMs < REPLAY_MS_MAX) {
    world.run(20);
    if (killAt.length === 0 || received.checkedOffset(id) < killAt[0]!) continue;
    killAt.shift();
    chronicle.fire("processor_killed");
    process.host.machine.kill();
    log.forget(process.reader);
    process = start();
  }
  const readMs = world.elapsedMs;
  world.run(SETTLED_MS_MAX);
  const bounds = {
    panes: LIMITS.panesMax,
    reads: READS_MAX,
    sessions: Math.ceil(MESSAGES / MESSAGES_PER_SESSION) + 1,
    inFlights: BATCH_RECORDS_MAX + PUTS_IN_FLIGHT * ROWS_PER_PUT,
    unwritten:
      LIMITS.windowsUnwrittenMax +
      (BATCH_RECORDS_MAX * TRADES_PER_MESSAGE_MAX + PUTS_IN_FLIGHT * ROWS_PER_PUT) * 4,
    rowsInFlight: PUTS_IN_FLIGHT * ROWS_PER_PUT,
  };
  const peaks = { ...peak, rowsInFlight };
  chronicle.note(`peaks ${JSON.stringify(peaks)}`);
  for (const [name, bound] of Object.entries(bounds)) {
    const count = peaks[name as keyof typeof peaks];
    if (count > bound) failures.push(`${count} ${name}, the bound is ${bound}`);
    if (count === 0) failures.push(`${name} was never seen`);
  }
  const verdict = received.verdict(
    store.rows.values(),
    [...store.windows.values()].map(({ window }) => window),
  );
  return {
    seed: 0,
    faults: chronicle.counts,
    ...verdict,
    commits: received.commitCount,
    commitsUnlawful: received.commitsUnlawful,
    failures: [...failures, ...store.problems],
    recoveryMs: readMs < REPLAY_MS_MAX && !isDone ? 0 : null,
    problems: received.problems,
    hash: chronicle.hash.toString(16),
  };
}

/** Thirty days, ending now. */
function fill(world: World, log: FakeLog, chronicle: Chronicle): void {
  const stepMs = (DAYS * DAY_MS) / MESSAGES;
  const append = (message: Message) =>
    log.append([{ kind: "trades", key: message.trades[0]!.symbol, value: encodeMessage(message) }]);
  let before: Message | null = null;
  for (let index = 0; index < MESSAGES; index++) {
    const receivedAtMs = Math.floor(world.nowMs - DAYS * DAY_MS + index * stepMs);
    const symbol = `S${world.pick(SYMBOL_COUNT)}`;
    const trades: Trade[] = [];
    for (let count = 1 + world.pick(TRADES_PER_MESSAGE_MAX); count > 0; count--) {
      let tradedAtMs = receivedAtMs - world.pick(2_000);
      if (world.chance(0.005)) {
        chronicle.counts.trade_hour_late += 1;
        tradedAtMs -= 3_600_000;
      }
      trades.push({
        symbol,
        price: 10 + world.pick(50) / 10,
        volume: world.pick(30) / 10,
        tradedAtMs,
        conditions: null,
      });
    }
    const session = (0xabc00000 + Math.floor(index / MESSAGES_PER_SESSION)).toString(16);
    const message = { session, sequence: (index % MESSAGES_PER_SESSION) + 1, receivedAtMs, trades };
    append(message);
    if (before !== null && world.chance(0.003)) {
      chronicle.counts.log_resend += 1;
      append(before);
    }
    before = message;
  }
}
