// lib/contracts/store.ts in memory: keyed rows, windows under the version rule, scans in pages by key, each page a
// request of its own. What is stored outlives every process. Faults are drawn per request and counted by
// kind.

import { RowRefusedError, StoreUnavailableError } from "../../lib/base/errors.ts";
import type { StoreMender, StoreWriter, TimeRange } from "../../lib/contracts/store.ts";
import { aggregateOf, type WindowRow } from "../../lib/model/aggregates.ts";
import type { DeadLetter } from "../../lib/model/dead-letter.ts";
import type { FeedEventRow, TradeRow } from "../../lib/model/trade.ts";
import { timeOf } from "../reference.ts";
import { Faults, type Machine, request, type World } from "./world.ts";

export type StoreOperation =
  | "putTrades"
  | "putWindows"
  | "putEvents"
  | "putDead"
  | "isEmpty"
  | "scanTrades"
  | "scanReceived";

export type StoredWindow = Readonly<{ window: WindowRow; version: number }>;

export type FakeStoreOptions = Readonly<{
  rowsPerPutMax?: number;
  putsInFlightMax?: number;
  pageRows?: number;
  /** One name for each of these: `symbol` puts what one symbol traded together, `all` everything. */
  groupBy?: "symbol" | "all";
  /** Whether it can tell what was received since (the embedded mode). */
  hasScanReceived?: boolean;
}>;

const HOUR_MS = 3_600_000;

type Cell = Readonly<{ value: string | number | null; version: number; second: number }>;
type StoredCells = { removedAt: number; cells: Map<string, Cell>; window: WindowRow | null };

export class FakeStore {
  readonly faults: Faults<StoreOperation>;
  /** By primary key. */
  readonly rows = new Map<string, TradeRow>();
  readonly uuids = new Set<string>();
  readonly windows = new Map<string, StoredWindow>();
  readonly events = new Map<string, FeedEventRow>();
  readonly deadLetters = new Map<string, DeadLetter>();
  /** Rows that are invalid to this store, for good. */
  refuses: (row: TradeRow) => boolean = () => false;
  refusesDeadLetter: (deadLetter: DeadLetter) => boolean = () => false;
  refusesWindow: (window: WindowRow) => boolean = () => false;
  /** What no process may ever do. */
  readonly problems: string[] = [];
  /** Each pane-sized read as it is asked for: `AAPL 1767614400000`. */
  readonly scans: string[] = [];
  readonly #world: World;
  readonly #options: Required<FakeStoreOptions>;
  readonly #cells = new Map<string, StoredCells>();
  /** Of each version of a window, what was written at it. */
  readonly #contents = new Map<string, Set<string>>();
  /** Rows of one hour of one symbol, by key. */
  readonly #byHour = new Map<string, Map<string, TradeRow>>();

  constructor(world: World, options: FakeStoreOptions = {}) {
    this.#world = world;
    this.faults = new Faults(world);
    this.#options = {
      rowsPerPutMax: 4,
      putsInFlightMax: 3,
      pageRows: 3,
      groupBy: "symbol",
      hasScanReceived: false,
      ...options,
    };
  }

  window(kind: WindowRow["kind"], symbol: string, atMs: number): WindowRow["row"] | undefined {
    return this.windows.get(`${kind} ${symbol} ${atMs}`)?.window.row;
  }

  connect(machine: Machine): StoreWriter {
    const { rowsPerPutMax, putsInFlightMax, groupBy, hasScanReceived } = this.#options;
    const put = <Item>(operation: StoreOperation, items: readonly Item[], write: (item: Item) => void) =>
      request(machine, this.faults, operation, {
        work: () => items.forEach(write),
        part: () => this.#some(items).forEach(write),
        lost: unavailable,
      });
    const writer: StoreWriter = {
      rowsPerPutMax,
      putsInFlightMax,
      groupOf: ({ symbol, hour }) => (groupBy === "all" ? "" : `${symbol} ${hour}`),
      putTrades: (rows) =>
        request(machine, this.faults, "putTrades", {
          work: () => {
            const isRefused = rows.some((row) => this.refuses(row));
            // Of a refused put a part may be there all the same, but never the invalid row.
            for (const row of isRefused ? this.#some(rows) : rows) this.#putTrade(row);
            if (isRefused) throw new RowRefusedError("the fake store refuses a row");
          },
          part: () => {
            for (const row of this.#some(rows)) this.#putTrade(row);
          },
          lost: unavailable,
        }),
      putWindows: (windows) =>
        put("putWindows", windows, (window) => {
          if (this.refusesWindow(window)) throw new RowRefusedError("the fake store refuses a window");
          this.#putWindow(window, versionOf(window));
        }),
      putWindowAt: ({ window, version }) =>
        put("putWindows", [window], (one) => {
          if (this.refusesWindow(one)) throw new RowRefusedError("the fake store refuses a window");
          this.#putWindow(one, version);
        }),
      scanWindows: (kind, symbol, range) => this.#scanWindows(machine, kind, symbol, range),
      putEvents: (rows) =>
        put("putEvents", rows, (row) => {
          this.events.set(`${row.event_timestamp} ${row.session} ${row.sequence}`, row);
        }),
      putDead: (deadLetters) =>
        put("putDead", deadLetters, (deadLetter) => {
          if (this.refusesDeadLetter(deadLetter))
            throw new RowRefusedError("the fake store refuses a dead letter");
          this.deadLetters.set(`${deadLetter.session} ${deadLetter.sequence} ${deadLetter.item}`, deadLetter);
        }),
      isEmpty: () =>
        request(machine, this.faults, "isEmpty", { work: () => this.rows.size === 0, lost: unavailable }),
      scanTrades: (symbol, range) => this.#scanTrades(machine, symbol, range),
    };
    if (!hasScanReceived) return writer;
    return { ...writer, scanReceived: (sinceMs) => this.#scanReceived(machine, sinceMs) };
  }

  #putTrade(row: TradeRow): void {
    if (this.refuses(row)) return;
    const key = keyOf(row);
    const stored = this.rows.get(key);
    if (stored !== undefined && (stored.price !== row.price || stored.volume !== row.volume)) {
      this.problems.push(`${key} was put with two contents`);
    }
    this.rows.set(key, row);
    this.uuids.add(row.uuid);
    const name = `${row.symbol} ${row.hour}`;
    let ofHour = this.#byHour.get(name);
    if (ofHour === undefined) {
      ofHour = new Map();
      this.#byHour.set(name, ofHour);
    }
    ofHour.set(key, row);
  }

  /** The store as the operator's verification sees it. */
  mender(machine: Machine): StoreWriter & StoreMender {
    const ask = <Result>(work: () => Result) =>
      request(machine, this.faults, "scanTrades", { work, lost: unavailable });
    const store = this;
    return {
      ...this.connect(machine),
      async *scanHours({ fromMs, toMs }, symbol) {
        yield await ask(() =>
          [...store.#byHour.keys(), ...store.windows.values().map(({ window }) => hourNameOf(window))]
            .map((name) => name.split(" ") as [string, string])
            .map(([of, hour]) => ({ symbol: of, hour: Number(hour) }))
            .filter((one) => symbol === undefined || one.symbol === symbol)
            .filter(({ hour }) => hour + HOUR_MS > fromMs && hour < toMs),
        );
      },
      removeWindow: ({ kind, symbol, startMs }, version) =>
        request(machine, this.faults, "putWindows", {
          work: () => {
            const { shape, widthMs } = aggregateOf(kind);
            const key = `${kind} ${symbol} ${shape === "average" ? startMs + widthMs : startMs}`;
            const stored = this.#storedAs(key);
            stored.removedAt = Math.max(stored.removedAt, version);
            this.#look(key);
          },
          part: () => {},
          lost: unavailable,
        }),
    };
  }

  /** By hand, with the store's own shell. */
  deleteTrade(row: TradeRow): void {
    this.rows.delete(keyOf(row));
    this.uuids.delete(row.uuid);
    this.#byHour.get(`${row.symbol} ${row.hour}`)?.delete(keyOf(row));
  }

  /** Windows that stand at a version at which two contents were written. */
  mixed(): string[] {
    return [...this.windows]
      .filter(([key, { version }]) => (this.#contents.get(`${key} ${version}`)?.size ?? 0) > 1)
      .map(([key, { version }]) => `${key} stands at ${version}, which two contents share`);
  }

  #storedAs(key: string): StoredCells {
    let stored = this.#cells.get(key);
    if (stored === undefined) {
      stored = { removedAt: 0, cells: new Map(), window: null };
      this.#cells.set(key, stored);
    }
    return stored;
  }

  #putWindow(window: WindowRow, version: number): void {
    const key = windowKey(window);
    const atVersion = `${key} ${version}`;
    const contents = this.#contents.get(atVersion) ?? new Set();
    this.#contents.set(atVersion, contents.add(JSON.stringify(window.row)));
    const stored = this.#storedAs(key);
    stored.window = window;
    // Every row has the table's time to live, so the second of its expiry is that of its writing.
    const second = Math.floor(this.#world.nowMs / 1_000);
    for (const [column, value] of Object.entries(window.row)) {
      const cell = { value, version, second };
      const before = stored.cells.get(column);
      if (before === undefined || wins(cell, before)) stored.cells.set(column, cell);
    }
    this.#look(key);
  }

  /** What a reader sees: each column by itself. */
  #look(key: string): void {
    const { cells, removedAt, window } = this.#storedAs(key);
    const count = cells.get("trade_count");
    if (window === null || count === undefined || count.version <= removedAt) {
      this.windows.delete(key);
      return;
    }
    const row = Object.fromEntries([...cells].map(([column, { value }]) => [column, value]));
    this.windows.set(key, { window: { kind: window.kind, row } as WindowRow, version: count.version });
  }

  async *#scanWindows(
    machine: Machine,
    kind: WindowRow["kind"],
    symbol: string,
    { fromMs, toMs }: TimeRange,
  ) {
    const page = await request(machine, this.faults, "scanTrades", {
      work: () => {
        const { shape, stepMs } = aggregateOf(kind);
        const found: StoredWindow[] = [];
        for (let atMs = Math.ceil(fromMs / stepMs) * stepMs; atMs < toMs; atMs += stepMs) {
          const stored = this.windows.get(`${kind} ${symbol} ${atMs}`);
          if (stored !== undefined) found.push(stored);
        }
        return shape === "average" ? found.reverse() : found;
      },
      lost: unavailable,
    });
    if (page.length > 0) yield page;
  }

  /** Pages follow the key of the last row, so a row put meanwhile is in or not, and none comes twice. */
  async *#scanTrades(machine: Machine, symbol: string, { fromMs, toMs }: TimeRange) {
    this.scans.push(`${symbol} ${fromMs}`);
    let after = "";
    for (;;) {
      const page = await request(machine, this.faults, "scanTrades", {
        work: () =>
          this.#hours(symbol, fromMs, toMs)
            .flatMap((rows) => [...rows])
            .filter(
              ([key, row]) => key > after && row.trade_timestamp >= fromMs && row.trade_timestamp < toMs,
            )
            .sort(([one], [other]) => (one < other ? -1 : 1))
            .slice(0, this.#options.pageRows)
            .map(([, row]) => row),
        lost: unavailable,
      });
      if (page.length > 0) yield page;
      if (page.length < this.#options.pageRows) return;
      after = keyOf(page.at(-1)!);
    }
  }

  /** The rows of each hour that the range touches. */
  #hours(symbol: string, fromMs: number, toMs: number): Map<string, TradeRow>[] {
    const hours: Map<string, TradeRow>[] = [];
    for (let hour = fromMs - (fromMs % HOUR_MS); hour < toMs; hour += HOUR_MS) {
      const rows = this.#byHour.get(`${symbol} ${hour}`);
      if (rows !== undefined) hours.push(rows);
    }
    return hours;
  }

  async *#scanReceived(machine: Machine, sinceMs: number | null) {
    let after = "";
    for (;;) {
      const page = await request(machine, this.faults, "scanReceived", {
        work: () => {
          let newestMs = 0;
          for (const { ingest_timestamp } of this.rows.values())
            newestMs = Math.max(newestMs, ingest_timestamp);
          const fromMs = sinceMs ?? newestMs - 2 * HOUR_MS;
          return [...this.rows]
            .filter(([key, row]) => key > after && row.ingest_timestamp >= fromMs)
            .sort(([one], [other]) => (one < other ? -1 : 1))
            .slice(0, this.#options.pageRows)
            .map(([, row]) => row);
        },
        lost: unavailable,
      });
      if (page.length > 0) yield page;
      if (page.length < this.#options.pageRows) return;
      after = keyOf(page.at(-1)!);
    }
  }

  #some<Item>(items: readonly Item[]): Item[] {
    return items.filter(() => this.#world.chance(0.5));
  }
}

/** The primary key of `trades`, in the order of a scan (times have 13 digits). */
function keyOf({ symbol, hour, trade_timestamp, uuid }: TradeRow): string {
  return `${symbol} ${hour} ${trade_timestamp} ${uuid}`;
}

/**
 * As Cassandra 5 decides between two writes of one column: the larger timestamp, among equal ones a null, then the later
 * second of expiry, then the larger bytes.
 */
function wins(one: Cell, before: Cell): boolean {
  if (one.version !== before.version) return one.version > before.version;
  if (one.value === null || before.value === null) return one.value === null;
  if (one.second !== before.second) return one.second > before.second;
  return (
    typeof one.value === "number" && Buffer.compare(bytesOf(one.value), bytesOf(Number(before.value))) > 0
  );
}

function bytesOf(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(value);
  return bytes;
}

function hourNameOf(window: WindowRow): string {
  const atMs = timeOf(window.row);
  return `${window.row.symbol} ${atMs - (atMs % HOUR_MS)}`;
}

export function windowKey({ kind, row }: WindowRow): string {
  return `${kind} ${row.symbol} ${timeOf(row)}`;
}

/** Said here once more, so that a mistake in lib is not made twice. */
function versionOf({ kind, row }: WindowRow): number {
  const endMs = "window_end" in row ? row.window_end : row.window_start + aggregateOf(kind).widthMs;
  return endMs * 1_000 + 2 * row.trade_count;
}

function unavailable(): Error {
  return new StoreUnavailableError("the fake store does not answer");
}
