// The promises of lib/contracts/log.ts, as tests that run on every adapter. They know the interface alone: there may be
// any number of partitions, offsets may begin anywhere, everything may take a while. What an adapter promises beyond
// the contract is tested in its own file.

import { expect, test } from "bun:test";
import { StaleEpochError } from "../../lib/base/errors.ts";
import type {
  Delivery,
  LogEntry,
  LogReader,
  LogRecord,
  LogWriter,
  PartitionId,
  PartitionRange,
  Position,
  RecordKind,
} from "../../lib/contracts/log.ts";
import { seeded, within } from "../support/builders.ts";

/** One fresh log, as the suite drives it. */
export interface OpenLog extends AsyncDisposable {
  /** Replaced by reopen(). */
  readonly writer: LogWriter;
  /** The reader of this log. To be called once after the opening and once after each reopen(). */
  openReader(): Promise<LogReader>;
  /**
   * Reassigns the partitions, at the latest while the reader it resolves with is asked for deliveries. That may be the
   * same reader, whose iteration then goes on, or a new one; then the older one's iteration ends.
   */
  reassign(): Promise<LogReader>;
  /** Releases everything and starts again on what is durable, as a new process would. */
  reopen(): Promise<void>;
}

export type LogHarness = Readonly<{
  open(): Promise<OpenLog>;
  /** How long a single step may take before it counts as never. */
  stepMsMax: number;
  /** Steps of each random history; a reopen may be expensive. */
  historySteps: number;
}>;

type Batch = Delivery & { type: "batch" };
type Got = Readonly<{ partition: PartitionId; record: LogRecord }>;
type Start = "begin" | "commit";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The value of every entry whose content does not matter: key and number, readable in a failure. */
function entry(key: string, number: number, kind: RecordKind = "trades"): LogEntry {
  return { kind, key, value: encoder.encode(`${key}#${number}`) };
}

function nameOf({ record }: Got): string {
  return decoder.decode(record.value);
}

function namesOf(got: readonly Got[]): string[] {
  return got.map(nameOf);
}

/** As `AAPL#1`, `AAPL#2` ..., of one key only. */
function namesOfKey(got: readonly Got[], key: string): string[] {
  return namesOf(got).filter((name) => name.startsWith(`${key}#`));
}

function names(key: string, count: number, first = 1): string[] {
  return Array.from({ length: count }, (_, index) => `${key}#${first + index}`);
}

/** Enough keys that several partitions, where there are several, hold something. */
const KEYS = ["AAPL", "MSFT", "BINANCE:BTCUSDT", "IC MARKETS:1", "é", "𝛑", "'\"", "ZZZ"];

/**
 * Reads as the processor does, and checks in passing what holds of every delivery: of the current epoch, not
 * before a seek, contiguous, offsets rising and inside the batch.
 */
class Consumer {
  epoch = Number.NEGATIVE_INFINITY;
  partitions: readonly PartitionId[] = [];
  readonly expected = new Map<PartitionId, number>();
  readonly #iterator: AsyncIterator<Delivery>;
  readonly #abort = new AbortController();
  readonly #stepMsMax: number;
  readonly reader: LogReader;
  #asked: Promise<IteratorResult<Delivery>> | null = null;

  constructor(reader: LogReader, stepMsMax: number) {
    this.reader = reader;
    this.#stepMsMax = stepMsMax;
    this.#iterator = reader.deliveries(this.#abort.signal)[Symbol.asyncIterator]();
  }

  abort(): void {
    this.#abort.abort();
  }

  /** Asks for the next delivery without waiting for it: the next call that reads gets it. */
  ask(): void {
    this.#asked ??= this.#iterator.next();
  }

  /** The next delivery, checked; null = the iteration has ended. */
  async next(): Promise<Delivery | null> {
    this.ask();
    const asked = this.#asked!;
    const { done, value } = await within(this.#stepMsMax, "a delivery", () => asked);
    this.#asked = null;
    if (done === true) return null;
    if (value.type === "assigned") {
      expect(value.epoch).toBeGreaterThan(this.epoch);
      expect(new Set(value.partitions).size).toBe(value.partitions.length);
      this.epoch = value.epoch;
      this.partitions = value.partitions;
      this.expected.clear();
    } else {
      this.#check(value);
    }
    return value;
  }

  #check(batch: Batch): void {
    expect(batch.epoch).toBe(this.epoch);
    expect(this.partitions).toContain(batch.partition);
    // Also: nothing comes before a seek.
    expect(batch.fromOffset).toBe(this.expected.get(batch.partition) ?? Number.NaN);
    expect(batch.nextOffset).toBeGreaterThan(batch.fromOffset);
    let offset = batch.fromOffset - 1;
    for (const record of batch.records) {
      expect(record.offset).toBeGreaterThan(offset);
      offset = record.offset;
    }
    expect(batch.nextOffset).toBeGreaterThan(offset);
    this.expected.set(batch.partition, batch.nextOffset);
  }

  async assigned(): Promise<void> {
    const before = this.epoch;
    while (this.epoch === before) {
      if ((await this.next()) === null) throw new Error("the iteration ended instead of a new epoch");
    }
  }

  seek(partition: PartitionId, offset: number): void {
    this.expected.set(partition, offset);
    this.reader.seek(this.epoch, partition, offset);
  }

  async positions(): Promise<Map<PartitionId, PartitionRange>> {
    const ranges = new Map<PartitionId, PartitionRange>();
    for (const id of this.partitions) ranges.set(id, await this.reader.position(this.epoch, id));
    return ranges;
  }

  /** Seeks every partition to its begin, or to its commit where it has one. */
  async start(at: Start): Promise<void> {
    for (const [id, { committed, beginOffset }] of await this.positions()) {
      this.seek(id, at === "commit" ? (committed?.offset ?? beginOffset) : beginOffset);
    }
  }

  /** Until so many records have come, or all that the log holds ahead. Partitions are assigned only once. */
  async read(count: number): Promise<Got[]> {
    const got: Got[] = [];
    while (got.length < count) {
      const delivery = await this.next();
      if (delivery?.type !== "batch") throw new Error(`a batch was due, not ${delivery?.type ?? "the end"}`);
      for (const record of delivery.records) got.push({ partition: delivery.partition, record });
    }
    expect(got.length).toBe(count);
    return got;
  }

  /** Everything up to the end of every partition that was sought. */
  async readAll(): Promise<Got[]> {
    const got: Got[] = [];
    for (;;) {
      const ranges = await this.positions();
      const isBehind = [...this.expected].some(([id, offset]) => offset < (ranges.get(id)?.endOffset ?? 0));
      if (!isBehind) return got;
      const delivery = await this.next();
      if (delivery?.type !== "batch") throw new Error(`a batch was due, not ${delivery?.type ?? "the end"}`);
      for (const record of delivery.records) got.push({ partition: delivery.partition, record });
    }
  }

  async commit(partition: PartitionId, position: Position): Promise<void> {
    const committing = this.reader.commit(this.epoch, partition, position);
    await within(this.#stepMsMax, "a commit", () => committing);
  }
}

function byPartition(got: readonly Got[]): Map<PartitionId, LogRecord[]> {
  const groups = new Map<PartitionId, LogRecord[]>();
  for (const { partition, record } of got) {
    const group = groups.get(partition);
    if (group) group.push(record);
    else groups.set(partition, [record]);
  }
  return groups;
}

/** Runs every promise of the contract on one adapter. */
export function logContract(name: string, harness: LogHarness): void {
  const { stepMsMax } = harness;
  /** Twenty steps, and never without a bound. */
  const options = { timeout: 20 * stepMsMax };
  const promise = (title: string, run: (log: OpenLog) => Promise<void>) =>
    test(
      `${name}: ${title}`,
      async () => {
        await using log = await harness.open();
        await run(log);
      },
      options,
    );

  /** A reader of the log that has met its first epoch. */
  async function consume(log: OpenLog, start?: Start): Promise<Consumer> {
    const consumer = new Consumer(await within(stepMsMax, "a reader", () => log.openReader()), stepMsMax);
    await consumer.assigned();
    if (start !== undefined) await consumer.start(start);
    return consumer;
  }

  /** The consumer of the next epoch: the same one where its iteration goes on. */
  async function reassigned(log: OpenLog, older: Consumer): Promise<Consumer> {
    const reader = await within(stepMsMax, "a reassignment", () => log.reassign());
    const consumer = reader === older.reader ? older : new Consumer(reader, stepMsMax);
    const epochBefore = older.epoch;
    await consumer.assigned();
    expect(consumer.epoch).toBeGreaterThan(epochBefore);
    return consumer;
  }

  const append = (log: OpenLog, entries: readonly LogEntry[]) =>
    within(stepMsMax, "an append", () => log.writer.append(entries));

  /** `count` of each key, alternating, in appends of different sizes. */
  async function fill(log: OpenLog, keys: readonly string[], count: number, first = 1): Promise<void> {
    for (let number = first; number < first + count; number++) {
      const entries = keys.map((key) => entry(key, number));
      if (number % 3 === 0) for (const one of entries) await append(log, [one]);
      else await append(log, entries);
    }
  }

  promise("records of one key come in the order of their appends", async (log) => {
    await fill(log, KEYS, 40);
    const consumer = await consume(log, "begin");
    const got = await consumer.read(KEYS.length * 40);
    for (const key of KEYS) {
      expect(namesOfKey(got, key)).toEqual(names(key, 40));
      const ofKey = got.filter((one) => nameOf(one).startsWith(`${key}#`));
      expect(new Set(ofKey.map(({ partition }) => partition)).size).toBe(1);
    }
  });

  promise("appends that were started without waiting keep their order within a key", async (log) => {
    const started = Array.from({ length: 50 }, (_, index) => append(log, [entry("AAPL", index + 1)]));
    await Promise.all(started);
    const consumer = await consume(log, "begin");
    expect(namesOf(await consumer.read(50))).toEqual(names("AAPL", 50));
  });

  promise("one append of thousands of entries comes whole, in contiguous batches", async (log) => {
    const count = 3_000;
    await append(
      log,
      Array.from({ length: count }, (_, index) => entry("AAPL", index + 1)),
    );
    const consumer = await consume(log, "begin");
    expect(namesOf(await consumer.read(count))).toEqual(names("AAPL", count));
  });

  promise("an append of nothing is an append", async (log) => {
    await append(log, []);
    await append(log, [entry("AAPL", 1)]);
    const consumer = await consume(log, "begin");
    expect(namesOf(await consumer.readAll())).toEqual(["AAPL#1"]);
  });

  promise("every kind, key and value comes back byte for byte", async (log) => {
    const every = Uint8Array.from({ length: 256 }, (_, index) => index);
    const random = seeded(7);
    const big = Uint8Array.from({ length: 200_000 }, () => random(256));
    const values: Uint8Array[] = [new Uint8Array(0), Uint8Array.of(0), every, big];
    // A view into a larger buffer: only the view is the value.
    values.push(new Uint8Array(every.buffer, 100, 3), Buffer.from("from a shared pool"));
    const kinds: RecordKind[] = ["trades", "event", "dead"];
    // Keys of every sort; which record is which is told by kind, and by order within the key.
    for (const kind of kinds) {
      await append(
        log,
        values.map((value) => ({ kind, key: "k 'é' 😀:1", value })),
      );
    }
    const consumer = await consume(log, "begin");
    const got = await consumer.read(kinds.length * values.length);
    for (const kind of kinds) {
      const ofKind = got.filter(({ record }) => record.kind === kind);
      expect(ofKind.map(({ record }) => Buffer.from(record.value).toString("hex"))).toEqual(
        values.map((value) => Buffer.from(value).toString("hex")),
      );
      expect(ofKind.every(({ record }) => record.value instanceof Uint8Array)).toBe(true);
    }
  });

  promise("what the caller does to a value after the append changes nothing", async (log) => {
    const value = Uint8Array.of(1, 2, 3);
    await append(log, [{ kind: "trades", key: "AAPL", value }]);
    value.fill(9);
    const consumer = await consume(log, "begin");
    expect([...(await consumer.read(1))[0]!.record.value]).toEqual([1, 2, 3]);
  });

  promise("any key is a key: empty, long, with every sort of character", async (log) => {
    const keys = [
      "",
      " ",
      "\u0000",
      "a\u0000b",
      "e\u0301",
      "é",
      "😀",
      "'; DROP TABLE records; --",
      "x".repeat(1_000),
    ];
    for (const number of [1, 2]) {
      for (const [index, key] of keys.entries()) {
        await append(log, [{ kind: "trades", key, value: encoder.encode(`${index}#${number}`) }]);
      }
    }
    const consumer = await consume(log, "begin");
    const got = await consumer.read(2 * keys.length);
    for (const index of keys.keys()) expect(namesOfKey(got, String(index))).toEqual(names(String(index), 2));
  });

  promise("a record says when it was appended", async (log) => {
    const before = Date.now();
    await append(log, [entry("AAPL", 1)]);
    const after = Date.now();
    const consumer = await consume(log, "begin");
    const [one] = await consumer.read(1);
    // Another machine may have stamped it, but not another day.
    expect(one!.record.timestampMs).toBeGreaterThan(before - 60_000);
    expect(one!.record.timestampMs).toBeLessThan(after + 60_000);
  });

  promise("no batch comes for a partition before it was sought", async (log) => {
    await fill(log, KEYS, 5);
    const consumer = await consume(log);
    consumer.ask();
    // Round trips enough for anything that would come by itself.
    await fill(log, KEYS, 5, 6);
    const ranges = await consumer.positions();
    const held = [...ranges].filter(([, { beginOffset, endOffset }]) => endOffset > beginOffset);
    expect(held.length).toBeGreaterThan(0);
    const seen: Got[] = [];
    for (const [id, { endOffset }] of held) {
      // The last record only: a batch that came unasked would begin elsewhere, and Consumer would see it.
      consumer.seek(id, endOffset - 1);
      while (consumer.expected.get(id)! < endOffset) {
        const delivery = await consumer.next();
        if (delivery?.type !== "batch") throw new Error("a batch was due");
        for (const record of delivery.records) seen.push({ partition: delivery.partition, record });
      }
    }
    expect(seen.length).toBe(held.length);
  });

  promise("seeking back delivers the same records again: offsets, times and bytes", async (log) => {
    await fill(log, KEYS, 30);
    const consumer = await consume(log, "begin");
    const first = byPartition(await consumer.readAll());
    const random = seeded(3);
    for (const [id, records] of first) {
      for (let turn = 0; turn < 3; turn++) {
        const from = random(records.length);
        consumer.seek(id, records[from]!.offset);
        expect(byPartition(await consumer.readAll())).toEqual(new Map([[id, records.slice(from)]]));
      }
    }
  });

  promise("a seek between two batches holds for the very next one", async (log) => {
    const count = 1_500;
    await append(
      log,
      Array.from({ length: count }, (_, index) => entry("AAPL", index + 1)),
    );
    const consumer = await consume(log, "begin");
    const batch = await consumer.next();
    if (batch?.type !== "batch") throw new Error("a batch was due");
    consumer.seek(batch.partition, batch.fromOffset);
    expect(namesOf(await consumer.readAll())).toEqual(names("AAPL", count));
    consumer.seek(batch.partition, batch.nextOffset);
    expect(namesOf(await consumer.readAll())).toEqual(names("AAPL", count).slice(batch.records.length));
  });

  promise("seeking to the end delivers only what is appended afterwards", async (log) => {
    await fill(log, KEYS, 10);
    const consumer = await consume(log);
    for (const [id, { endOffset }] of await consumer.positions()) consumer.seek(id, endOffset);
    await fill(log, KEYS, 3, 11);
    const got = await consumer.read(KEYS.length * 3);
    for (const key of KEYS) expect(namesOfKey(got, key)).toEqual(names(key, 3, 11));
  });

  promise("a waiting reader is woken by an append", async (log) => {
    const consumer = await consume(log, "begin");
    for (let number = 1; number <= 20; number++) {
      consumer.ask();
      await append(log, [entry("AAPL", number)]);
      expect(namesOf(await consumer.read(1))).toEqual([`AAPL#${number}`]);
    }
  });

  promise("a reader that takes its time misses nothing that is appended meanwhile", async (log) => {
    const consumer = await consume(log, "begin");
    const got: Got[] = [];
    for (let round = 0; round < 20; round++) {
      await fill(log, KEYS, 4, round * 4 + 1);
      got.push(...(await consumer.read(KEYS.length * 4)));
    }
    for (const key of KEYS) expect(namesOfKey(got, key)).toEqual(names(key, 80));
  });

  promise("position names the oldest record and the offset of the next one", async (log) => {
    await fill(log, KEYS, 10);
    const consumer = await consume(log, "begin");
    const got = byPartition(await consumer.readAll());
    for (const [id, { committed, beginOffset, endOffset }] of await consumer.positions()) {
      const records = got.get(id) ?? [];
      expect(committed).toBeNull();
      expect(beginOffset).toBe(records[0]?.offset ?? endOffset);
      if (records.length > 0) expect(endOffset).toBe(records.at(-1)!.offset + 1);
    }
    const ends = await consumer.positions();
    await fill(log, KEYS, 1, 11);
    for (const [id, records] of byPartition(await consumer.readAll())) {
      expect(records[0]!.offset).toBe(ends.get(id)!.endOffset);
    }
  });

  promise("the log never moves a committed position by itself", async (log) => {
    await fill(log, KEYS, 10);
    const consumer = await consume(log, "begin");
    await consumer.readAll();
    for (const { committed } of (await consumer.positions()).values()) expect(committed).toBeNull();
    const ends = await consumer.positions();
    for (const id of consumer.partitions) {
      await consumer.commit(id, { offset: ends.get(id)!.beginOffset, metadata: `of ${id}` });
    }
    await fill(log, KEYS, 10, 11);
    await consumer.readAll();
    const newer = await reassigned(log, consumer);
    await newer.start("commit");
    await newer.readAll();
    for (const [id, { committed }] of await newer.positions()) {
      expect(committed).toEqual({ offset: ends.get(id)!.beginOffset, metadata: `of ${id}` });
    }
  });

  promise("a commit and its metadata survive, and reading goes on exactly there", async (log) => {
    await fill(log, KEYS, 30);
    const consumer = await consume(log, "begin");
    const got = byPartition(await consumer.readAll());
    const commits = new Map<PartitionId, Position>();
    for (const [id, records] of got) {
      const metadata = `{"M":1767614400000,"é":"😀 '${id}'"}`;
      const position = { offset: records[Math.floor(records.length / 3)]!.offset, metadata };
      // The one before is replaced.
      await consumer.commit(id, { offset: records[1]!.offset, metadata: "older" });
      await consumer.commit(id, position);
      commits.set(id, position);
    }
    await log.reopen();
    const later = await consume(log, "commit");
    for (const [id, { committed, beginOffset, endOffset }] of await later.positions()) {
      expect(committed).toEqual(commits.get(id) ?? null);
      if (committed === null) continue;
      expect(beginOffset).toBeLessThanOrEqual(committed.offset);
      expect(endOffset).toBeGreaterThanOrEqual(committed.offset);
    }
    const rest = byPartition(await later.readAll());
    for (const [id, records] of got) {
      expect(rest.get(id)).toEqual(records.filter(({ offset }) => offset >= commits.get(id)!.offset));
    }
  });

  promise("metadata of a thousand characters, and of none, survives", async (log) => {
    await fill(log, ["AAPL"], 3);
    let consumer = await consume(log, "begin");
    const [one] = await consumer.readAll();
    for (const metadata of ["x".repeat(1_000), "", "é".repeat(1_000), "back"]) {
      await consumer.commit(one!.partition, { offset: one!.record.offset + 1, metadata });
      await log.reopen();
      consumer = await consume(log, "commit");
      expect((await consumer.reader.position(consumer.epoch, one!.partition)).committed).toEqual({
        offset: one!.record.offset + 1,
        metadata,
      });
    }
  });

  promise("what was read and not committed is delivered again after a reopen", async (log) => {
    await fill(log, KEYS, 20);
    const consumer = await consume(log, "begin");
    const got = byPartition(await consumer.readAll());
    await log.reopen();
    const later = await consume(log, "commit");
    for (const { committed } of (await later.positions()).values()) expect(committed).toBeNull();
    expect(byPartition(await later.readAll())).toEqual(got);
  });

  promise("an append that resolved is there after a reopen that follows at once", async (log) => {
    for (let number = 1; number <= 3; number++) {
      await append(log, [entry("AAPL", number)]);
      await log.reopen();
    }
    const consumer = await consume(log, "begin");
    expect(namesOf(await consumer.read(3))).toEqual(names("AAPL", 3));
  });

  promise("offsets go on rising when everything is read, committed and reopened", async (log) => {
    const ends = new Map<PartitionId, number>();
    for (let round = 0; round < 3; round++) {
      await fill(log, KEYS, 3, round * 3 + 1);
      const consumer = await consume(log, "commit");
      const got = await consumer.readAll();
      for (const key of KEYS) expect(namesOfKey(got, key)).toEqual(names(key, 3, round * 3 + 1));
      for (const { partition, record } of got) {
        expect(record.offset).toBeGreaterThanOrEqual(ends.get(partition) ?? record.offset);
      }
      for (const [id, { endOffset }] of await consumer.positions()) {
        ends.set(id, endOffset);
        await consumer.commit(id, { offset: endOffset, metadata: "" });
      }
      await log.reopen();
    }
  });

  promise("a reassignment opens a higher epoch, and what was not committed comes again", async (log) => {
    await fill(log, KEYS, 10);
    let consumer = await consume(log, "begin");
    const all = byPartition(await consumer.readAll());
    for (let round = 0; round < 3; round++) {
      consumer = await reassigned(log, consumer);
      await consumer.start("commit");
      expect(byPartition(await consumer.readAll())).toEqual(all);
    }
  });

  promise("a new epoch delivers nothing before its own seek", async (log) => {
    await fill(log, KEYS, 10);
    const consumer = await consume(log, "begin");
    await consumer.readAll();
    const newer = await reassigned(log, consumer);
    newer.ask();
    await fill(log, KEYS, 1, 11);
    const last = byPartition(await seekToLast(newer));
    for (const records of last.values()) expect(records.length).toBe(1);
  });

  /** The last record of each partition that holds one. Consumer sees a batch that begins anywhere else. */
  async function seekToLast(consumer: Consumer): Promise<Got[]> {
    for (const [id, { beginOffset, endOffset }] of await consumer.positions()) {
      if (endOffset > beginOffset) consumer.seek(id, endOffset - 1);
    }
    return consumer.readAll();
  }

  promise("an older reader's iteration ends when another one takes over", async (log) => {
    await fill(log, KEYS, 10);
    const consumer = await consume(log, "begin");
    await consumer.readAll();
    consumer.ask();
    const newer = await reassigned(log, consumer);
    // Where the same reader goes on there is no older one.
    if (newer !== consumer) expect(await consumer.next()).toBeNull();
    await newer.start("begin");
    const got = await newer.readAll();
    for (const key of KEYS) expect(namesOfKey(got, key)).toEqual(names(key, 10));
  });

  promise("a commit of an older epoch fails with StaleEpochError and changes nothing", async (log) => {
    await fill(log, KEYS, 10);
    const older = await consume(log, "begin");
    const olderEpoch = older.epoch;
    const got = byPartition(await older.readAll());
    for (const [id, records] of got) {
      await older.commit(id, { offset: records[1]!.offset, metadata: "kept" });
    }
    const newer = await reassigned(log, older);
    for (const [id, records] of got) {
      const tooLate = { offset: records.at(-1)!.offset + 1, metadata: "too late" };
      const committing = older.reader.commit(olderEpoch, id, tooLate);
      await expect(within(stepMsMax, "a refusal", () => committing)).rejects.toBeInstanceOf(StaleEpochError);
    }
    await newer.start("commit");
    const rest = byPartition(await newer.readAll());
    for (const [id, { committed }] of await newer.positions()) {
      const records = got.get(id);
      expect(committed).toEqual(records ? { offset: records[1]!.offset, metadata: "kept" } : null);
      if (records) expect(rest.get(id)).toEqual(records.slice(1));
    }
  });

  promise("a position asked for, or a seek, of an older epoch does not disturb the new one", async (log) => {
    await fill(log, KEYS, 10);
    const older = await consume(log, "begin");
    const olderEpoch = older.epoch;
    const all = byPartition(await older.readAll());
    const newer = await reassigned(log, older);
    for (const [id, records] of all) {
      await expect(older.reader.position(olderEpoch, id)).rejects.toBeInstanceOf(StaleEpochError);
      try {
        older.reader.seek(olderEpoch, id, records[5]!.offset);
      } catch (error) {
        expect(error).toBeInstanceOf(StaleEpochError);
      }
    }
    await newer.start("begin");
    expect(byPartition(await newer.readAll())).toEqual(all);
  });

  promise("an abort ends the iteration of a reader that waits", async (log) => {
    const consumer = await consume(log, "begin");
    consumer.ask();
    consumer.abort();
    expect(await consumer.next()).toBeNull();
    expect(await consumer.next()).toBeNull();
  });

  promise("an abort ends the iteration in the middle of a backlog", async (log) => {
    await append(
      log,
      Array.from({ length: 3_000 }, (_, index) => entry("AAPL", index + 1)),
    );
    const consumer = await consume(log, "begin");
    expect((await consumer.next())?.type).toBe("batch");
    consumer.abort();
    expect(await consumer.next()).toBeNull();
  });

  promise("an abort before the first delivery means no delivery", async (log) => {
    await fill(log, ["AAPL"], 3);
    const consumer = new Consumer(await log.openReader(), stepMsMax);
    consumer.abort();
    expect(await consumer.next()).toBeNull();
  });

  promise("after an abort the last commit is still accepted", async (log) => {
    await fill(log, ["AAPL"], 5);
    const consumer = await consume(log, "begin");
    const got = await consumer.read(5);
    consumer.abort();
    expect(await consumer.next()).toBeNull();
    const { partition, record } = got[2]!;
    await consumer.commit(partition, { offset: record.offset + 1, metadata: "drained" });
    await log.reopen();
    const later = await consume(log, "commit");
    expect(namesOf(await later.readAll())).toEqual(names("AAPL", 2, 4));
  });

  test.each([1, 2, 3, 4])(
    `${name}: no history of appends, reads, commits, seeks, reassignments and reopens loses a record (seed %d)`,
    async (seed) => {
      await using log = await harness.open();
      await randomHistory(log, seeded(seed));
    },
    { timeout: 40 * stepMsMax },
  );

  /** Against a model: what was appended, and what each partition is known to hold, by offset. */
  async function randomHistory(log: OpenLog, random: (below: number) => number): Promise<void> {
    const appended = new Map<string, number>();
    const known = new Map<string, string>();
    const committed = new Map<PartitionId, Position>();
    let consumer = await consume(log, "begin");

    const note = (got: readonly Got[]) => {
      for (const one of got) {
        const place = `${one.partition} ${one.record.offset}`;
        // One offset, one record, for ever.
        expect(known.get(place) ?? nameOf(one)).toBe(nameOf(one));
        known.set(place, nameOf(one));
      }
    };
    const checkPositions = async () => {
      for (const [id, range] of await consumer.positions()) {
        expect(range.committed).toEqual(committed.get(id) ?? null);
        expect(range.beginOffset).toBeLessThanOrEqual(range.committed?.offset ?? range.beginOffset);
        expect(range.endOffset).toBeGreaterThanOrEqual(range.committed?.offset ?? range.endOffset);
      }
    };
    const steps: (() => Promise<void>)[] = [
      async () => {
        const entries = Array.from({ length: random(random(6) === 0 ? 700 : 8) }, () => {
          const key = KEYS[random(KEYS.length)]!;
          appended.set(key, (appended.get(key) ?? 0) + 1);
          return entry(key, appended.get(key)!);
        });
        await append(log, entries);
      },
      async () => note(await consumer.readAll()),
      async () => {
        for (const [id, expected] of consumer.expected) {
          const atLeast =
            committed.get(id)?.offset ?? (await consumer.reader.position(consumer.epoch, id)).beginOffset;
          const position = {
            offset: atLeast + random(Math.max(expected - atLeast, 0) + 1),
            metadata: String(random(99)),
          };
          await consumer.commit(id, position);
          committed.set(id, position);
        }
      },
      async () => {
        for (const [id, range] of await consumer.positions()) {
          // Back only: what is skipped could be committed unseen.
          const from = range.committed?.offset ?? range.beginOffset;
          consumer.seek(id, from + random(Math.max(consumer.expected.get(id)! - from, 0) + 1));
        }
      },
      async () => {
        consumer = await reassigned(log, consumer);
        await checkPositions();
        await consumer.start("commit");
      },
      async () => {
        if (random(2) === 0) return;
        await log.reopen();
        consumer = await consume(log);
        await checkPositions();
        await consumer.start("commit");
      },
    ];
    for (let step = 0; step < harness.historySteps; step++) await steps[random(steps.length)]!();

    // Everything at or above the commits is there; with what was seen before, so is every append, once.
    consumer = await reassigned(log, consumer);
    await consumer.start("commit");
    const rest = await consumer.readAll();
    note(rest);
    const restByKey = (key: string) => namesOfKey(rest, key);
    for (const [key, count] of appended) {
      const tail = restByKey(key);
      expect(tail).toEqual(names(key, tail.length, count - tail.length + 1));
    }
    const expectedNames = [...appended].flatMap(([key, count]) => names(key, count));
    expect([...known.values()].sort()).toEqual(expectedNames.sort());
  }
}
