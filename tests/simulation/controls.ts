// The negative controls: mistakes that the simulation must find, each a patch of the source's text that must fit
// exactly once, so that it breaks loudly when the source changes. They are planted in a copy, never in the tree.

export type Edit = Readonly<{ file: string; find: string; replace: string }>;

export type Control = Readonly<{
  name: string;
  edits: readonly Edit[];
  /** Where looking begins: 0 is the replay of thirty days. */
  from?: number;
  /** After so many seeds it counts as not found. */
  seedsMax?: number;
}>;

const FLUSH = "lib/processing/flush.ts";
const PARTITION_STATE = "lib/processing/partition-state.ts";
const DECODE = "lib/processing/decode.ts";
const WRITE_WINDOWS = "lib/processing/write-windows.ts";
const LATE_WINDOWS = "lib/processing/late-windows.ts";
const RELAY = "lib/ingest/relay.ts";

export const CONTROLS: readonly Control[] = [
  {
    name: "commit before write",
    edits: [
      {
        file: FLUSH,
        find: "      await writeWindows(state.deps, partition, windows, isWanted, (count) => {",
        replace:
          "      if (offset > partition.committedOffset) await log.commit(epoch, id, { offset, metadata: encodeBound(bound) });\n" +
          "      await writeWindows(state.deps, partition, windows, isWanted, (count) => {",
      },
    ],
  },
  {
    name: "commit guard deleted: the watermark is not waited for",
    edits: [
      {
        file: FLUSH,
        find: "const { windows, offset, bound } = partition.drainDirty();",
        replace:
          "const { windows, bound } = partition.drainDirty(); const offset = partition.expectedOffset;",
      },
    ],
  },
  {
    name: "commit past an unwritten window",
    edits: [{ file: FLUSH, find: "partition.markDirtyAgain(windows.slice(writtenCount));", replace: "" }],
  },
  {
    name: "two triggers overlapping on one partition",
    edits: [
      {
        file: FLUSH,
        find: "if (partition.isFlushing) {",
        replace: "if (partition.isFlushing && false) {",
      },
    ],
  },
  {
    name: "key without uuid",
    edits: [
      {
        file: "sql/market.sql",
        find: "PRIMARY KEY (symbol, hour, trade_timestamp, uuid)",
        replace: "PRIMARY KEY (symbol, hour, trade_timestamp)",
      },
    ],
  },
  {
    name: "uuid from a clock",
    edits: [
      {
        file: DECODE,
        find: "trades.length);\n  const uuidOf = tradeUuids(session, sequence, receivedAtMs)",
        replace: "trades.length);\n  const uuidOf = tradeUuids(session, sequence, record.timestampMs)",
      },
    ],
  },
  {
    name: "drop of one trade in 100,000",
    from: 0,
    seedsMax: 1,
    edits: [
      { file: DECODE, find: "function decodeTrades(", replace: "let met = 0;\nfunction decodeTrades(" },
      {
        file: DECODE,
        find: "    if (reason === null) {",
        replace:
          "    if (++met % 100_000 === 0) partition.tracker.acknowledge(inFlight);\n    else if (reason === null) {",
      },
    ],
  },
  {
    name: "resend counted twice",
    edits: [
      {
        file: PARTITION_STATE,
        find: "if (isResend) this.#raiseHorizon(memory, startMs);",
        replace: "void isResend;",
      },
    ],
  },
  {
    name: "last seen instead of highest seen",
    edits: [
      {
        file: PARTITION_STATE,
        find: "if (highest !== undefined && sequence <= highest) return true;",
        replace:
          "if (highest !== undefined && sequence <= highest) {\n      this.#sessions.set(session, sequence);\n      return true;\n    }",
      },
    ],
  },
  {
    name: "recompute skipped after a crash",
    edits: [
      {
        file: PARTITION_STATE,
        find: "horizonMs: this.#horizonAtStartMs",
        replace: "horizonMs: Number.NEGATIVE_INFINITY",
      },
    ],
  },
  {
    name: "a pane believed whole: untouched",
    edits: [
      {
        file: PARTITION_STATE,
        find: "    // Whether this row is in the pane already",
        replace:
          "    (memory.touched ??= new Set()).add(startMs);\n    // Whether this row is in the pane already",
      },
      {
        file: PARTITION_STATE,
        find: "if (read === undefined) missing.push(startMs);",
        replace:
          "if (read === undefined && !memory.touched?.has(startMs)) continue;\n      if (read === undefined) missing.push(startMs);",
      },
    ],
  },
  {
    name: "a pane believed whole: dropped and forgotten",
    edits: [
      {
        file: PARTITION_STATE,
        find: "    if (oldest) this.#raiseHorizon(this.#symbol(oldest.symbol), oldest.startMs);",
        replace:
          "    const [held] = this.#created.keys();\n    this.#created.delete(held);\n    this.#symbol(oldest.symbol).panes.delete(oldest.startMs);",
      },
    ],
  },
  {
    name: "a pane believed whole: marked for reading while another was read",
    edits: [
      {
        file: WRITE_WINDOWS,
        find: "    for (;;) {\n      // Classified",
        replace: "    for (let round = 0; ; round++) {\n      // Classified",
      },
      {
        file: WRITE_WINDOWS,
        find: "if (missing.length === 0) return windowRow(window, panes);",
        replace: "if (missing.length === 0 || round > 0) return windowRow(window, panes);",
      },
    ],
  },
  {
    name: "a read kept although a row of its pane was acknowledged meanwhile",
    edits: [
      {
        file: PARTITION_STATE,
        find: "if (memory.reads.delete(startMs)) this.#readCount -= 1;",
        replace: "void memory.reads.has(startMs);",
      },
    ],
  },
  {
    name: "late trade ignored: its row",
    edits: [
      {
        file: "lib/ingest/entries.ts",
        find: "        for (const trade of item.trades) {",
        replace:
          "        for (const trade of item.trades) {\n          if (trade.tradedAtMs < item.receivedAtMs - 600_000) continue;",
      },
    ],
  },
  {
    name: "late trade ignored: its windows",
    edits: [
      {
        file: PARTITION_STATE,
        find: "    this.markDirty(row.symbol, startMs);\n    this.tracker.acknowledge(inFlight);\n    if (this.#created",
        replace:
          "    if (nowMs - startMs < 600_000) this.markDirty(row.symbol, startMs);\n    this.tracker.acknowledge(inFlight);\n    if (this.#created",
      },
    ],
  },
  {
    name: "a paused processor's stale windows winning",
    edits: [
      {
        file: "tests/simulation/fake-store.ts",
        find: "if (one.version !== before.version) return one.version > before.version;",
        replace: "if (one.version !== before.version) return true;",
      },
    ],
  },
  {
    name: "a late window is put without a look at what is stored",
    edits: [
      {
        file: LATE_WINDOWS,
        find: "made.filter(({ row }) => isLate(windowOf(row)))",
        replace: "made.filter(({ row }) => isLate(windowOf(row)) && false)",
      },
    ],
  },
  {
    name: "a late window that others wrote too is put as memory has it",
    from: 200, // It needs a command beside a processor whose memory answers for a late window.
    edits: [
      {
        file: LATE_WINDOWS,
        find: 'from === "table" && isFirst && windowVersion(row) !== stored.version',
        replace: "from.length > 0 && isFirst",
      },
    ],
  },
  {
    name: "a forced repair in the generation that is there",
    edits: [
      {
        file: "lib/commands/verify-repair.ts",
        find: "generationOf(window, stored.version) + 1;",
        replace: "generationOf(window, stored.version);",
      },
    ],
  },
  {
    name: "outbox deletes before the acknowledgement",
    edits: [
      {
        file: "lib/outbox/reader.ts",
        find: "      seat.position = nextOffset;\n",
        replace: "      seat.position = nextOffset;\n      seat.deletion.deleteBelow(nextOffset);\n",
      },
    ],
  },
  {
    name: "relay deletes before the acknowledgement",
    edits: [
      {
        file: RELAY,
        find: "    this.#deps.sender\n      .send(batches)",
        replace:
          "    this.#deps.outbox.remove(batches.flatMap(({ entries }) => entries.map(({ offset }) => offset)));\n" +
          "    this.#deps.sender\n      .send(batches)",
      },
    ],
  },
  {
    name: "relay takes a whole send's acknowledgement for each partition's own",
    edits: [
      {
        file: RELAY,
        find: "        this.#outcomes.settle(sent, outcomes);",
        replace:
          '        this.#outcomes.settle(sent, outcomes.some(({ kind }) => kind === "acknowledged") ? outcomes.map(() => ({ kind: "acknowledged" })) : outcomes);',
      },
    ],
  },
  {
    name: "relay forgets what a full partition was passed with",
    edits: [
      {
        file: "lib/ingest/partition-queue.ts",
        find: "if (this.#isTaking) this.#from = Math.max(this.#from, next);",
        replace: "this.#from = Math.max(this.#from, next);",
      },
    ],
  },
];
