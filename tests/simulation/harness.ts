// Processors on simulated machines, over one log and one store, and a ledger of what was appended. The ledger knows what
// must be stored, and checks it at EVERY commit and at the end. Its identities and aggregates are computed here or in
// reference.ts, never by lib.

import { expect } from "bun:test";
import { silentLogger } from "../../lib/base/logger.ts";
import { createMetrics } from "../../lib/base/metrics.ts";
import type { LogEntry, PartitionId, Position } from "../../lib/contracts/log.ts";
import { AGGREGATES, type WindowRow } from "../../lib/model/aggregates.ts";
import { encodeDeadLetter, encodeEvent, encodeMessage } from "../../lib/model/codec.ts";
import type { DeadLetter } from "../../lib/model/dead-letter.ts";
import type { FeedEventRow, Message, Trade } from "../../lib/model/trade.ts";
import { createProcessor, type Processor } from "../../lib/processing/processor.ts";
import type { ProcessorLimits } from "../../lib/processing/processor-state.ts";
import { type PlainTrade, type PlainWindow, timeOf, windowsOf, windowTimesOf } from "../reference.ts";
import { NOON_MS } from "../support/builders.ts";
import { FakeLog, type FakeLogOptions, type FakeReader } from "./fake-log.ts";
import { FakeStore, type FakeStoreOptions } from "./fake-store.ts";
import { type Machine, World } from "./world.ts";

const DAY_MS = 86_400_000;
const YEAR_2000_MS = Date.UTC(2000, 0, 1);
export const TRIGGER_MS = 5_000;

/** One trade that must end as a row, or as the dead letter of its identity. */
type Owed = Readonly<{ uuid: string; deadLetter: string; trade: Trade; receivedAtMs: number }>;
type OwedRecord = Readonly<{
  rows: readonly Owed[];
  deadLetters: readonly string[];
  payload?: string;
  event?: string;
}>;

export class Ledger {
  /** By partition, one entry per record. */
  readonly #records = new Map<PartitionId, OwedRecord[]>();
  readonly #store: FakeStore;
  readonly problems: string[] = [];
  commitCount = 0;
  /** Whether a commit may lie below the previous one: only when the previous one proves nothing. */
  mayRewind = false;
  /** How far each partition's records have been checked, and the identities in each window. */
  readonly #checked = new Map<PartitionId, { offset: number; windows: Map<string, Set<string>> }>();

  constructor(store: FakeStore) {
    this.#store = store;
  }

  note(id: PartitionId, record: OwedRecord): void {
    const records = this.#records.get(id);
    if (records === undefined) this.#records.set(id, [record]);
    else records.push(record);
  }

  /** The end of the log was lost, so nothing of it is owed; the next record comes at `nextOffset`. */
  forget(id: PartitionId, fromOffset: number, nextOffset: number): void {
    const records = this.#records.get(id) ?? [];
    records.length = Math.min(records.length, fromOffset);
    while (records.length < nextOffset) records.push({ rows: [], deadLetters: [] });
    this.#checked.delete(id);
  }

  /** Everything below the offset must be stored, and counted in every window that it belongs to. */
  checkCommit(id: PartitionId, { offset }: Position, before: Position | null): void {
    this.commitCount += 1;
    if (before !== null && offset < before.offset && !this.mayRewind) {
      this.problems.push(`${id}: the commit went back from ${before.offset} to ${offset}`);
    }
    let checked = this.#checked.get(id);
    if (checked === undefined || checked.offset > offset) checked = { offset: 0, windows: new Map() };
    this.#checked.set(id, checked);
    const rows = this.#store.uuids;
    const touched = new Set<string>();
    for (; checked.offset < offset; checked.offset++) {
      const record = this.#records.get(id)?.[checked.offset];
      if (record === undefined) {
        this.problems.push(`${id}: a commit of ${offset} passes the end of the log`);
        return;
      }
      for (const key of this.#unstored(record, rows)) {
        this.problems.push(`${id}: a commit of ${offset} passes ${key} of offset ${checked.offset}`);
      }
      for (const { uuid, trade } of record.rows) {
        if (!rows.has(uuid)) continue;
        for (const key of windowKeysOf(trade)) {
          let identities = checked.windows.get(key);
          if (identities === undefined) {
            identities = new Set();
            checked.windows.set(key, identities);
          }
          identities.add(uuid);
          touched.add(key);
        }
      }
    }
    for (const key of touched) {
      const owed = checked.windows.get(key)?.size ?? 0;
      const counted = this.#store.windows.get(key)?.window.row.trade_count ?? 0;
      if (counted < owed) {
        this.problems.push(
          `${id}: a commit of ${offset} passes ${owed} trades of ${key}, which counts ${counted}`,
        );
      }
    }
  }

  *#unstored({ rows: owed, deadLetters, payload, event }: OwedRecord, rows: ReadonlySet<string>) {
    for (const { uuid, deadLetter } of owed) {
      if (!rows.has(uuid) && !this.#store.deadLetters.has(deadLetter)) yield `row ${uuid}`;
    }
    for (const deadLetter of deadLetters)
      if (!this.#store.deadLetters.has(deadLetter)) yield `dead letter ${deadLetter}`;
    if (event !== undefined && !this.#store.events.has(event)) yield `event ${event}`;
    if (payload !== undefined && !this.payloads().includes(payload)) yield "an undecodable record";
  }

  payloads(): string[] {
    return [...this.#store.deadLetters.values()].map(({ payload }) => Buffer.from(payload).toString("hex"));
  }

  /** Every row that was ever owed and is not a dead letter, each once. */
  rows(): Owed[] {
    const owed = new Map<string, Owed>();
    for (const record of [...this.#records.values()].flat()) {
      for (const row of record.rows)
        if (!this.#store.deadLetters.has(row.deadLetter)) owed.set(row.uuid, row);
    }
    return [...owed.values()];
  }
}

/** A processor on a machine of its own. */
export type Process = {
  readonly machine: Machine;
  readonly processor: Processor;
  readonly reader: FakeReader;
  readonly stop: () => void;
  state: "running" | "ended" | "failed";
  error: unknown;
};

export type StageOptions = Readonly<{
  seed?: number;
  startMs?: number;
  log?: FakeLogOptions;
  store?: FakeStoreOptions;
  limits?: Partial<ProcessorLimits>;
  /** null: only the test (and a stop) calls the trigger. */
  triggerMs?: number | null;
}>;

export class PipelineHarness {
  readonly world: World;
  readonly log: FakeLog;
  readonly store: FakeStore;
  readonly ledger: Ledger;
  readonly metrics = createMetrics();
  /** All that ever ran, including dead ones. */
  readonly processes: Process[] = [];
  readonly #options: StageOptions;
  #sequence = 0;

  constructor(options: StageOptions = {}) {
    this.#options = options;
    this.world = new World(options.seed ?? 1, options.startMs ?? NOON_MS);
    this.log = new FakeLog(this.world, options.log);
    this.store = new FakeStore(this.world, options.store);
    this.ledger = new Ledger(this.store);
    this.log.onCommit = (id, position, before) => this.ledger.checkCommit(id, position, before);
  }

  // ---- What is appended -----------------------------------------------------------------------------------

  /** A message with plain defaults: session `0badcafe`, the next sequence, received now. */
  send(trades: readonly Trade[], fields: Partial<Omit<Message, "trades">> = {}): Message {
    const message = {
      session: "0badcafe",
      sequence: fields.sequence ?? ++this.#sequence,
      receivedAtMs: this.world.nowMs,
      ...fields,
      trades,
    };
    this.resend(message);
    return message;
  }

  /** The same message once more. */
  resend(message: Message): void {
    const { session, sequence, receivedAtMs, trades } = message;
    const rows: Owed[] = [];
    const deadLetters: string[] = [];
    for (const [index, trade] of trades.entries()) {
      const deadLetter = `${session} ${sequence} ${index}`;
      const uuid = plainUuid(session, sequence, receivedAtMs, index);
      if (isPossible(trade, receivedAtMs)) rows.push({ uuid, deadLetter, trade, receivedAtMs });
      else deadLetters.push(deadLetter);
    }
    this.#append(
      { kind: "trades", key: trades[0]?.symbol ?? "", value: encodeMessage(message) },
      { rows, deadLetters },
    );
  }

  /** Bytes that are not a message of this pipeline: they must end as one whole dead letter. */
  sendPoison(key: string, value: Uint8Array, kind: LogEntry["kind"] = "trades"): void {
    const payload = Buffer.from(value).toString("hex");
    this.#append({ kind, key, value }, { rows: [], deadLetters: [], payload });
  }

  sendEvent(row: FeedEventRow): void {
    const event = `${row.event_timestamp} ${row.session} ${row.sequence}`;
    this.#append(
      { kind: "event", key: row.session, value: encodeEvent(row) },
      { rows: [], deadLetters: [], event },
    );
  }

  sendLetter(deadLetter: DeadLetter): void {
    const { session, sequence, item } = deadLetter;
    const deadLetters = [`${session} ${sequence} ${item}`];
    this.#append(
      { kind: "dead", key: session, value: encodeDeadLetter(deadLetter) },
      { rows: [], deadLetters },
    );
  }

  #append(entry: LogEntry, owed: OwedRecord): void {
    this.ledger.note(this.log.partitionOf(entry.key), owed);
    this.log.append([entry]);
  }

  // ---- Who runs -------------------------------------------------------------------------------------------

  /** A new processor without any memory. It works once `deal` gives it partitions (here: all of them). */
  start(deals: "deal" | "wait" = "deal"): Process {
    const machine = this.world.machine();
    const reader = this.log.reader(machine);
    const controller = new AbortController();
    const { limits, triggerMs = TRIGGER_MS } = this.#options;
    const processor = createProcessor({
      log: reader,
      store: this.store.connect(machine),
      clock: machine.clock,
      logger: silentLogger,
      metrics: this.metrics,
      ...(limits === undefined ? {} : { limits }),
    });
    const process: Process = {
      machine,
      processor,
      reader,
      stop: () => controller.abort(),
      state: "running",
      error: null,
    };
    this.processes.push(process);
    const stopTrigger =
      triggerMs === null ? () => {} : machine.every(triggerMs, () => void processor.trigger());
    processor.run(controller.signal).then(
      () => {
        process.state = "ended";
        stopTrigger();
      },
      (error: unknown) => {
        process.state = "failed";
        process.error = error;
        machine.kill();
      },
    );
    if (deals === "deal") this.deal([process]);
    return process;
  }

  /** Assigns all partitions to these, in turn; the others hear nothing of it. */
  deal(processes: readonly Process[]): void {
    const shares = new Map<FakeReader, PartitionId[]>(processes.map(({ reader }) => [reader, []]));
    for (const [index, id] of this.log.ids.entries()) {
      shares.get(processes[index % processes.length]!.reader)?.push(id);
    }
    this.log.assign(shares);
  }

  /** kill -9, and a new process after it. */
  restart(process: Process): Process {
    process.machine.kill();
    this.log.forget(process.reader);
    return this.start();
  }

  // ---- What must be true ----------------------------------------------------------------------------------

  /** Runs until every partition is committed to its end, and then long enough for whatever is late. */
  settle(limitMs = 120_000): void {
    const isSettled = () =>
      this.log.ids.every((id) => this.log.partition(id).committed?.offset === this.log.endOffset(id));
    const hasFailed = () => this.processes.some(({ state }) => state === "failed");
    this.world.runUntil(() => isSettled() || hasFailed(), limitMs, "the last commit");
    this.expectLawful();
    this.world.run(20_000);
  }

  /**
   * Settled, every row that was appended is there and nothing else, and every window is the function of them.
   */
  expectComplete(limitMs?: number): void {
    this.settle(limitMs);
    this.expectLawful();
    this.expectRows();
    this.expectWindows();
  }

  /** No commit passed what was not stored, and no process failed. */
  expectLawful(): void {
    expect(this.processes.flatMap(({ error }) => (error === null ? [] : [error]))).toEqual([]);
    expect(this.ledger.problems).toEqual([]);
    expect(this.store.problems).toEqual([]);
  }

  expectRows(others: "no others" | "and others" = "no others"): void {
    const expected = this.ledger.rows().map(({ uuid, trade, receivedAtMs }) => ({
      symbol: trade.symbol,
      hour: Math.floor(trade.tradedAtMs / 3_600_000) * 3_600_000,
      trade_timestamp: trade.tradedAtMs,
      uuid,
      price: trade.price,
      volume: trade.volume,
      trade_conditions: trade.conditions === null ? null : JSON.stringify(trade.conditions),
      ingest_timestamp: receivedAtMs,
    }));
    const owed = new Set(expected.map(({ uuid }) => uuid));
    const stored = [...this.store.rows.values()].filter(
      ({ uuid }) => others === "no others" || owed.has(uuid),
    );
    expect(byUuid(stored)).toEqual(byUuid(expected));
  }

  /** Every aggregate is the pure function of the trades table. */
  expectWindows(): void {
    const trades: PlainTrade[] = [...this.store.rows.values()].map(
      ({ symbol, price, volume, trade_timestamp: atMs, uuid }) => ({ symbol, price, volume, atMs, uuid }),
    );
    const stored = [...this.store.windows.values()].map(({ window }) => window);
    const byTime = (one: WindowRow, other: WindowRow) =>
      order(one.row.symbol, other.row.symbol) || timeOf(one.row) - timeOf(other.row);
    for (const aggregate of AGGREGATES) {
      const ofKind = stored.filter(({ kind }) => kind === aggregate.kind).sort(byTime);
      expect<PlainWindow[]>(ofKind).toEqual(windowsOf(trades, [aggregate]));
    }
  }

  /** The sum of a counter over its labels, or of one label's value. */
  async counted(name: keyof PipelineHarness["metrics"], label?: string): Promise<number> {
    const metric = this.metrics[name];
    if (!("get" in metric)) throw new Error(`${name} is no counter`);
    const { values } = await metric.get();
    return values
      .filter(({ labels }) => label === undefined || Object.values(labels).includes(label))
      .reduce((sum, { value }) => sum + value, 0);
  }
}

/**
 * UUIDv7 as section 3 of the design lays out its bits: 48 of time, 32 of sequence, 10 of index, 32 of
 * session.
 */
export function plainUuid(session: string, sequence: number, receivedAtMs: number, index: number): string {
  const bits = (BigInt(sequence) << 42n) | (BigInt(index) << 32n) | BigInt(`0x${session}`);
  const high = (BigInt(receivedAtMs) << 16n) | 0x7000n | (bits >> 62n);
  const low = (2n << 62n) | (bits & ((1n << 62n) - 1n));
  const digits = high.toString(16).padStart(16, "0") + low.toString(16).padStart(16, "0");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function isPossible({ price, volume, tradedAtMs }: Trade, receivedAtMs: number): boolean {
  return price > 0 && volume >= 0 && tradedAtMs >= YEAR_2000_MS && tradedAtMs <= receivedAtMs + DAY_MS;
}

/** As the keys of FakeStore.windows. */
function windowKeysOf({ symbol, tradedAtMs }: Trade): string[] {
  return AGGREGATES.flatMap((aggregate) =>
    windowTimesOf(tradedAtMs, aggregate).map((atMs) => `${aggregate.kind} ${symbol} ${atMs}`),
  );
}

function byUuid<Row extends { uuid: string }>(rows: Row[]): Row[] {
  return rows.sort((one, other) => order(one.uuid, other.uuid));
}

function order(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
