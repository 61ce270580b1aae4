// What a run owes: every record that the log took, read here with avsc alone and named by an identity that lib
// did not make; what each commit may pass; and at the end the verdict over the rows and windows as they are. Of lib it
// takes which aggregates there are; what they hold is computed by reference.ts.

import { Type } from "avsc";
import type { LogRecord, PartitionId } from "../../lib/contracts/log.ts";
import { AGGREGATES, type WindowRow } from "../../lib/model/aggregates.ts";
import type { TradeRow } from "../../lib/model/trade.ts";
import schema from "../../schemas/trades.avsc" with { type: "json" };
import { type PlainTrade, timeOf, windowsOf, windowTimesOf } from "../reference.ts";
import { plainUuid } from "./harness.ts";

const YEAR_2000_MS = Date.UTC(2000, 0, 1);
const DAY_MS = 86_400_000;
const PROBLEMS_MAX = 20;

type AvroTrade = { c: (string | null)[] | null; p: number; s: string; t: number; v: number };
type AvroMessage = { data: AvroTrade[]; session: string; sequence: number; receivedAt: number };

const avro = Type.forSchema(schema as never, { omitRecordMethods: true });

export type OwedRow = Readonly<{ uuid: string; deadLetter: string; trade: AvroTrade; receivedAtMs: number }>;
export type OwedRecord = Readonly<{
  /** Null: not trades. */
  key: string | null;
  value: Uint8Array;
  rows: readonly OwedRow[];
  deadLetters: readonly string[];
  event: string | null;
  payload: string | null;
}>;

/** What is asked of a store, real or played. */
export type StoredWorld = Readonly<{
  hasRow: (uuid: string) => boolean;
  hasLetter: (deadLetter: string) => boolean;
  hasPayload: (payloadHex: string) => boolean;
  hasEvent: (event: string) => boolean;
  /** The trade count of a window; 0: it is not there. */
  countOf: (windowKey: string) => number;
}>;

export type Verdict = { trades: number; lost: number; doubled: number; wrongWindows: number };

export class Received {
  readonly problems: string[] = [];
  commitsUnlawful = 0;
  commitCount = 0;
  /** What commits passed too early. */
  passedRows = 0;
  passedWindows = 0;
  readonly #store: StoredWorld;
  readonly #records = new Map<PartitionId, OwedRecord[]>();
  /** The offset of a log's first record. */
  readonly #firstOffset: number;
  /** Of all that the log ever took, its lost end too. */
  readonly #ever = new Map<string, OwedRow>();
  readonly #feedLetters = new Set<string>();
  readonly #poisons = new Set<Uint8Array>();
  readonly #checked = new Map<PartitionId, { offset: number; windows: Map<string, Set<string>> }>();

  /** Trades that an operator has deleted by hand; a repeat from the log may bring them back. */
  readonly #deleted = new Set<string>();
  readonly #imported = new Set<string>();

  constructor(store: StoredWorld, firstOffset = 0) {
    this.#store = store;
    this.#firstOffset = firstOffset;
  }

  problem(text: string): void {
    if (this.problems.length < PROBLEMS_MAX) this.problems.push(text);
  }

  /** These bytes are going to be appended, and are no message. */
  poison(value: Uint8Array): void {
    this.#poisons.add(value);
  }

  noteDeleted(uuid: string): void {
    this.#deleted.add(uuid);
    for (const { windows } of this.#checked.values())
      for (const identities of windows.values()) identities.delete(uuid);
  }

  /** A row that no log had: a command puts it. */
  noteImported({ uuid }: TradeRow): void {
    this.#imported.add(uuid);
  }

  /** The highest offset that a commit has passed. */
  checkedOffset(id: PartitionId): number {
    return this.#checked.get(id)?.offset ?? 0;
  }

  note(id: PartitionId, record: LogRecord): void {
    let records = this.#records.get(id);
    if (records === undefined) {
      records = [];
      this.#records.set(id, records);
    }
    const owed = this.#owed(record);
    for (const row of owed.rows) this.#ever.set(row.uuid, row);
    records.push(owed);
  }

  records(id: PartitionId): readonly OwedRecord[] {
    return this.#records.get(id) ?? [];
  }

  forgetFrom(id: PartitionId, offset: number): void {
    this.#records.get(id)?.splice(offset - this.#firstOffset);
  }

  #owed({ kind, value, timestampMs }: LogRecord): OwedRecord {
    const none = { key: null, value, rows: [], deadLetters: [], event: null, payload: null };
    if (this.#poisons.has(value)) return { ...none, payload: Buffer.from(value).toString("hex") };
    if (kind === "event") {
      const { event_timestamp, session, sequence } = JSON.parse(Buffer.from(value).toString()) as Record<
        string,
        unknown
      >;
      return { ...none, event: `${event_timestamp} ${session} ${sequence}` };
    }
    if (kind === "dead") {
      const { session, sequence, item } = JSON.parse(Buffer.from(value).toString()) as Record<
        string,
        unknown
      >;
      const deadLetter = `${session} ${sequence} ${item}`;
      this.#feedLetters.add(deadLetter);
      return { ...none, deadLetters: [deadLetter] };
    }
    const { data, session, sequence, receivedAt } = decode(value);
    const rows: OwedRow[] = [];
    const deadLetters: string[] = [];
    for (const [index, trade] of data.entries()) {
      const deadLetter = `${session} ${sequence} ${index}`;
      const uuid = plainUuid(session, sequence, receivedAt, index);
      if (isPossible(trade, Math.max(receivedAt, timestampMs)))
        rows.push({ uuid, deadLetter, trade, receivedAtMs: receivedAt });
      else deadLetters.push(deadLetter);
    }
    return { ...none, key: data[0]?.s ?? "", rows, deadLetters };
  }

  /** Everything below the offset must be stored, and counted in every window it belongs to. Higher commits only. */
  checkCommit(id: PartitionId, offset: number): void {
    this.commitCount += 1;
    let checked = this.#checked.get(id);
    if (checked === undefined) {
      checked = { offset: this.#firstOffset, windows: new Map() };
      this.#checked.set(id, checked);
    }
    const before = this.passedRows + this.passedWindows;
    const touched = new Set<string>();
    for (; checked.offset < offset; checked.offset++) {
      const record = this.#records.get(id)?.[checked.offset - this.#firstOffset];
      if (record === undefined) {
        this.passedRows += 1;
        this.problem(`${id}: commit ${offset} passes the end of the log`);
        break;
      }
      for (const row of record.rows) {
        if (this.#deleted.has(row.uuid)) continue;
        if (!this.#store.hasRow(row.uuid)) {
          if (this.#store.hasLetter(row.deadLetter)) continue;
          this.passedRows += 1;
          this.problem(`${id}: commit ${offset} passes row ${row.uuid} of offset ${checked.offset}`);
        }
        for (const key of windowKeysOf(row.trade)) {
          let identities = checked.windows.get(key);
          if (identities === undefined) {
            identities = new Set();
            checked.windows.set(key, identities);
          }
          identities.add(row.uuid);
          touched.add(key);
        }
      }
      if (!this.#isSideStored(record)) {
        this.passedRows += 1;
        this.problem(`${id}: commit ${offset} passes a side record of offset ${checked.offset}`);
      }
    }
    for (const key of touched) {
      const owed = checked.windows.get(key)?.size ?? 0;
      const counted = this.#store.countOf(key);
      if (counted >= owed) continue;
      this.passedWindows += 1;
      this.problem(`${id}: commit ${offset} passes ${owed} trades of ${key}, which counts ${counted}`);
    }
    if (this.passedRows + this.passedWindows > before) this.commitsUnlawful += 1;
  }

  #isSideStored({ deadLetters, payload, event }: OwedRecord): boolean {
    return (
      deadLetters.every((deadLetter) => this.#store.hasLetter(deadLetter)) &&
      (payload === null || this.#store.hasPayload(payload)) &&
      (event === null || this.#store.hasEvent(event))
    );
  }

  /** How often the log took each content under an identity of its own; `dead`: what the feed refused. */
  contents(): Map<string, number> {
    const contents = new Map<string, number>();
    for (const { trade } of this.#ever.values()) addTo(contents, contentOf(trade), 1);
    addTo(contents, "dead", this.#feedLetters.size);
    return contents;
  }

  /** Over the tables as they are now. */
  verdict(rows: Iterable<TradeRow>, windows: Iterable<WindowRow>): Verdict {
    const stored = [...rows];
    const byUuid = new Map(stored.map((row) => [row.uuid, row]));
    let lost = this.passedRows;
    let doubled = stored.length - byUuid.size;
    if (doubled > 0) this.problem(`${doubled} rows stand twice`);
    const seen = new Set<string>();
    for (const record of [...this.#records.values()].flat()) {
      if (!this.#isSideStored(record)) {
        lost += 1;
        this.problem(`a side record is lost: ${record.event ?? record.payload ?? record.deadLetters.join()}`);
      }
      for (const owed of record.rows) {
        if (seen.has(owed.uuid)) continue;
        seen.add(owed.uuid);
        const row = byUuid.get(owed.uuid);
        if (row === undefined && this.#deleted.has(owed.uuid)) continue;
        if (row === undefined ? this.#store.hasLetter(owed.deadLetter) : isSame(row, owed)) continue;
        lost += 1;
        this.problem(`${row === undefined ? "no row" : "another row"} for ${JSON.stringify(owed)}`);
      }
    }
    for (const uuid of byUuid.keys()) {
      if (this.#ever.has(uuid) || this.#imported.has(uuid)) continue;
      doubled += 1;
      this.problem(`row ${uuid} was never received`);
    }
    for (const uuid of this.#imported) {
      if (byUuid.has(uuid) || this.#deleted.has(uuid)) continue;
      lost += 1;
      this.problem(`row ${uuid} of a command is lost`);
    }
    const wrongWindows = this.passedWindows + this.#wrongWindows(stored, windows);
    return { trades: this.#ever.size, lost, doubled, wrongWindows };
  }

  #wrongWindows(rows: readonly TradeRow[], windows: Iterable<WindowRow>): number {
    const trades: PlainTrade[] = rows.map(({ symbol, price, volume, trade_timestamp: atMs, uuid }) => ({
      symbol,
      price,
      volume,
      atMs,
      uuid,
    }));
    const expected = new Map<string, object>();
    for (const { kind, row } of windowsOf(trades, AGGREGATES))
      expected.set(`${kind} ${row.symbol} ${timeOf(row)}`, row);
    let wrong = 0;
    for (const { kind, row } of windows) {
      const key = `${kind} ${row.symbol} ${timeOf(row)}`;
      const truth = expected.get(key);
      expected.delete(key);
      if (truth !== undefined && isEqual(truth, row)) continue;
      wrong += 1;
      this.problem(`window ${key} is ${JSON.stringify(row)} and should be ${JSON.stringify(truth)}`);
    }
    for (const key of expected.keys()) this.problem(`window ${key} is missing`);
    return wrong + expected.size;
  }
}

export function addTo(counts: Map<string, number>, key: string, count: number): void {
  counts.set(key, (counts.get(key) ?? 0) + count);
}

export function decode(value: Uint8Array): AvroMessage {
  return avro.fromBuffer(Buffer.from(value.buffer, value.byteOffset, value.byteLength)) as AvroMessage;
}

/** What makes two prints equal: everything that the feed says of them. */
export function contentOf({ s, p, t, v, c }: AvroTrade): string {
  return `${s} ${p} ${t} ${v} ${JSON.stringify(c)}`;
}

export function isPossible({ p, v, t }: AvroTrade, knownAtMs: number): boolean {
  return Number.isFinite(p) && v >= 0 && Number.isInteger(t) && t >= YEAR_2000_MS && t <= knownAtMs + DAY_MS;
}

function isSame(row: TradeRow, { trade: { s, p, v, t, c }, receivedAtMs }: OwedRow): boolean {
  return (
    row.symbol === s &&
    row.price === p &&
    row.volume === v &&
    row.trade_timestamp === t &&
    row.hour === Math.floor(t / 3_600_000) * 3_600_000 &&
    row.trade_conditions === (c === null ? null : JSON.stringify(c)) &&
    row.ingest_timestamp === receivedAtMs
  );
}

function isEqual(one: object, other: object): boolean {
  const [left, right] = [one as Record<string, unknown>, other as Record<string, unknown>];
  const names = Object.keys(left);
  return names.length === Object.keys(right).length && names.every((name) => left[name] === right[name]);
}

function windowKeysOf({ s, t }: AvroTrade): string[] {
  return AGGREGATES.flatMap((aggregate) =>
    windowTimesOf(t, aggregate).map((atMs) => `${aggregate.kind} ${s} ${atMs}`),
  );
}
