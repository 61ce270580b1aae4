// kill -9 loses nothing that was received: a real process appends, is killed at a moment from a seed, and the next
// one continues with the same file, again and again. In half of the rounds it also reads and commits, so that kills
// fall into deletion and commit. OUTBOX_KILLS is the number of kills; a longer run is another command, not another test.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { systemClock } from "../../../lib/base/clock.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type { LogRecord, Position } from "../../../lib/contracts/log.ts";
import { type CommitStore, openSqliteLog } from "../../../lib/outbox/log.ts";
import { openSqliteStore } from "../../../lib/sqlite/store.ts";
import { seeded, temporaryDirectory } from "../../support/builders.ts";
import { runAndKill } from "../../support/kill.ts";

const KILLS = Math.max(Number(process.env.OUTBOX_KILLS ?? 32), 30);
const SEED = Number(process.env.OUTBOX_SEED ?? 1);
/** One kill with the checks after it takes about 150 ms, and ten times that on a busy machine. */
const KILL_MS_MAX = 2_000;
/** A file that nobody reads grows, and each check of it takes longer. */
const KILLS_PER_FILE = 16;
/** The child is killed after at most so many of its lines. */
const LINES_MAX = 90;
const CHILD = join(import.meta.dir, "../../support/fixtures/outbox-child.ts");

type Mode = "write" | "write-and-read";
/** What the children have printed, over all rounds. */
type Printed = {
  /** `round append` -> entries of the append. */
  acknowledged: Map<string, number>;
  /** offset -> `round,append,index,count`: what it read. */
  read: Map<number, string>;
  /** The last commit that was durable. */
  committed: number | null;
};

for (const mode of ["write", "write-and-read"] as const) {
  for (let first = 1; first <= KILLS / 2; first += KILLS_PER_FILE) {
    const last = Math.min(first + KILLS_PER_FILE - 1, Math.ceil(KILLS / 2));
    test(
      `no append that was acknowledged is lost, doubled or out of order over kills ${first} to ${last} (${mode}, seed ${SEED})`,
      async () => {
        using directory = temporaryDirectory();
        const random = seeded(SEED + first + (mode === "write" ? 0 : 500));
        const printed: Printed = { acknowledged: new Map(), read: new Map(), committed: null };
        /** offset -> the record that is or was there. */
        const seenAt = new Map<number, string>();
        for (let round = first; round <= last; round++) {
          // Every eighth one dies before it has printed anything, while it opens the file.
          const lineCount = round % 8 === 0 ? 0 : 1 + random(LINES_MAX);
          // The moment of such a kill differs from round to round by itself.
          const command = [CHILD, directory.path, mode, String(SEED), String(round)];
          await runAndKill(command, lineCount, 20 + round, (line) => note(line, round, printed));
          await checkAfterKill(directory.path, mode, printed, seenAt);
        }
        // The last few rounds of a longer run may have been too few for either.
        if (last - first + 1 < KILLS_PER_FILE) return;
        expect(printed.acknowledged.size).toBeGreaterThan(50);
        if (mode === "write-and-read") expect(printed.committed).toBeGreaterThan(1_000);
      },
      { timeout: (last - first + 1) * KILL_MS_MAX },
    );
  }
}

function note(line: string, round: number, printed: Printed): void {
  const [word, ...parts] = line.split(" ");
  if (word === "a") printed.acknowledged.set(`${round} ${parts[0]}`, Number(parts[1]));
  else if (word === "k") printed.committed = Number(parts[0]);
  else if (word === "r") {
    for (const part of parts) {
      const comma = part.indexOf(",");
      noteOnce(printed.read, Number(part.slice(0, comma)), part.slice(comma + 1));
    }
  } else throw new Error(`unexpected line of the child: ${line}`);
}

/** An offset belongs to one record, for ever. */
function noteOnce(places: Map<number, string>, offset: number, name: string): void {
  const other = places.get(offset);
  if (other !== undefined && other !== name) throw new Error(`offset ${offset} has ${name} and had ${other}`);
  places.set(offset, name);
}

/** Opens what the killed process left and checks it against all that the children have ever printed. */
async function checkAfterKill(directory: string, mode: Mode, printed: Printed, seenAt: Map<number, string>) {
  using log = openSqliteLog({
    directory,
    topic: "market",
    sync: "normal",
    bytesMax: 2 ** 30,
    clock: systemClock,
    metrics: createMetrics(),
  });
  using store = mode === "write-and-read" ? openSqliteStore({ directory, sync: "normal" }) : null;
  const seen: { commit: Position | null } = { commit: null };
  // The log sees no commit, so nothing is deleted during the check.
  const commits: CommitStore = {
    load: (logId) => {
      seen.commit = store?.commits.load(logId) ?? null;
      return null;
    },
    save: () => {},
  };
  const { records, end } = await readAll(log, commits);
  const committed = seen.commit;
  const commitOffset = committed?.offset ?? 1;

  // A commit that was durable is not undone, and keeps its metadata.
  if (printed.committed !== null) expect(commitOffset).toBeGreaterThanOrEqual(printed.committed);
  if (committed !== null) expect(committed.metadata).toBe(`up to ${commitOffset}`);

  for (const [offset, name] of printed.read) noteOnce(seenAt, offset, name);
  const kept = new Set<number>();
  for (const record of records) {
    kept.add(record.offset);
    noteOnce(seenAt, record.offset, nameOf(record));
  }
  // At or above the commit nothing that was ever seen is gone.
  for (const offset of seenAt.keys()) {
    if (offset >= commitOffset && !kept.has(offset))
      throw new Error(`${seenAt.get(offset)} at ${offset} is gone`);
  }
  expect(end).toBeGreaterThanOrEqual(commitOffset);
  checkAppends(seenAt, printed.acknowledged);
}

async function readAll(log: ReturnType<typeof openSqliteLog>, commits: CommitStore) {
  const abort = new AbortController();
  const reader = log.openReader(commits);
  const records: LogRecord[] = [];
  let range = { beginOffset: 0, endOffset: 0 };
  for await (const delivery of reader.deliveries(abort.signal)) {
    if (delivery.type === "assigned") {
      range = await reader.position(delivery.epoch, "market/0");
      reader.seek(delivery.epoch, "market/0", range.beginOffset);
      if (range.beginOffset === range.endOffset) break;
    } else {
      records.push(...delivery.records);
      if (delivery.nextOffset === range.endOffset) break;
    }
  }
  return { records, end: range.endOffset };
}

/** `round,append,index,count`, after a check of every byte. */
function nameOf({ value, offset }: LogRecord): string {
  const bytes = Buffer.from(value);
  const [round = 0, append = 0, index = 0, count = 0] = [0, 4, 8, 12].map((place) =>
    bytes.readUInt32LE(place),
  );
  const tail = Buffer.alloc((append * 7 + index * 13) % 200, (append + index) % 251);
  if (!bytes.subarray(16).equals(tail)) throw new Error(`wrong bytes at offset ${offset}`);
  return `${round},${append},${index},${count}`;
}

/** In the order of the offsets: appends in their order, each whole and once, and all that were acknowledged. */
function checkAppends(seenAt: ReadonlyMap<number, string>, acknowledged: ReadonlyMap<string, number>): void {
  const offsets = [...seenAt.keys()].sort((a, b) => a - b);
  const found = new Map<string, number>();
  let before = { round: 0, append: 0, index: 0, count: 1 };
  for (const offset of offsets) {
    const [round = 0, append = 0, index = 0, count = 0] = seenAt.get(offset)!.split(",").map(Number);
    const isNext = round === before.round && append === before.append && index === before.index + 1;
    const isFirst = index === 0 && before.index === before.count - 1;
    const isLater = round > before.round || (round === before.round && append > before.append);
    if (!isNext && !(isFirst && isLater)) {
      throw new Error(`${seenAt.get(offset)} at ${offset} follows ${JSON.stringify(before)}`);
    }
    found.set(`${round} ${append}`, index + 1);
    before = { round, append, index, count };
  }
  expect(before.index).toBe(before.count - 1);
  const lost = [...acknowledged].filter(([name, count]) => found.get(name) !== count);
  expect(lost).toEqual([]);
}
