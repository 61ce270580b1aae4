// kill -9 of a producer that appends and relays: what it has said to be durable arrives at the log, first copies in
// order in each partition, whatever send, acknowledgement or deletion the kill fell into. FORWARD_KILLS says how many.

import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../../lib/base/clock.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { createRelay } from "../../../lib/ingest/relay.ts";
import { openSqliteLog } from "../../../lib/outbox/log.ts";
import { seeded, temporaryDirectory } from "../../support/builders.ts";
import {
  fileSender,
  keyOf,
  PARTITIONS,
  partitionOf,
  sinkPath,
} from "../../support/fixtures/forward-child.ts";
import { runAndKill } from "../../support/kill.ts";

const KILLS = Math.max(Number(process.env.FORWARD_KILLS ?? 24), 24);
const SEED = Number(process.env.FORWARD_SEED ?? 1);
const CHILD = join(import.meta.dir, "../../support/fixtures/forward-child.ts");
/** Of one kill, on a busy machine. */
const KILL_MS_MAX = 5_000;
const LINES_MAX = 40;

test(
  `nothing durable is missing at the log, or out of order, over ${KILLS} kills (seed ${SEED})`,
  async () => {
    using directory = temporaryDirectory();
    const random = seeded(SEED);
    /** By round, how many entries each append had. */
    const said: number[][] = [];
    for (let round = 0; round < KILLS; round++) {
      // Now and then it dies before it has said anything.
      said.push(await countsUntilKilled(directory.path, round, round % 8 === 7 ? 0 : 1 + random(LINES_MAX)));
    }
    await relayTheRest(directory.path);

    let repeats = 0;
    let firstCopies = 0;
    const arrived = new Set<string>();
    for (const partition of PARTITIONS) {
      const path = sinkPath(directory.path, partition);
      const whole = existsSync(path)
        ? readFileSync(path, "utf8")
            .split("\n")
            .filter((line) => line.endsWith(" ."))
        : [];
      let last = [-1, 0, 0];
      for (const word of whole.flatMap((line) => line.slice(0, -2).split(" "))) {
        if (arrived.has(word)) {
          repeats += 1;
          continue;
        }
        arrived.add(word);
        firstCopies += 1;
        const place = word.split(",").map(Number);
        const isHere = partitionOf(keyOf(place[1]!, place[2]!)) === partition;
        if (!isHere || compare(last, place) >= 0)
          throw new Error(`${partition}: ${place} arrived for the first time after ${last}`);
        last = place;
      }
    }
    for (const [round, counts] of said.entries()) {
      for (const [before, count] of counts.entries()) {
        for (let index = 0; index < count; index++) {
          const word = `${round},${before + 1},${index}`;
          if (!arrived.has(word)) throw new Error(`${word} was durable and never arrived`);
        }
      }
    }
    // An append that was cut off in saying is there whole: at most one a round.
    const durable = said.flat().reduce((sum, count) => sum + count, 0);
    expect(firstCopies).toBeGreaterThanOrEqual(durable);
    expect(durable).toBeGreaterThan(KILLS * 100);
    // The kills fell where they should: into what was sent and not yet deleted.
    expect(repeats).toBeGreaterThan(KILLS);
  },
  KILLS * KILL_MS_MAX,
);

function compare(one: readonly number[], other: readonly number[]): number {
  for (const [place, number] of one.entries()) if (number !== other[place]) return number - other[place]!;
  return 0;
}

/** The counts of the child's appends, in order. */
async function countsUntilKilled(directory: string, round: number, lineCount: number): Promise<number[]> {
  const counts: number[] = [];
  await runAndKill([CHILD, directory, String(SEED), String(round)], lineCount, 20 + round, (line) => {
    const [word, append, count] = line.split(" ");
    expect(word).toBe("a");
    counts.push(Number(count));
    expect(Number(append)).toBe(counts.length);
  });
  return counts;
}

/** The next start: what the last one left goes out, and the outbox is empty. */
async function relayTheRest(directory: string): Promise<void> {
  const clock = systemClock;
  const metrics = createMetrics();
  using log = openSqliteLog({
    directory,
    topic: "market",
    sync: "normal",
    bytesMax: 2 ** 30,
    clock,
    metrics,
  });
  using sender = fileSender(directory, () => 1);
  const controller = new AbortController();
  const { run } = createRelay({
    outbox: log.openOutbox(),
    sender,
    clock,
    logger: silentLogger,
    metrics,
  });
  const running = run(controller.signal);
  const endMs = performance.now() + 20_000;
  while (log.health().recordCount > 0 && performance.now() < endMs) await clock.sleep(5);
  controller.abort();
  await running;
  expect(log.health().recordCount).toBe(0);
}
