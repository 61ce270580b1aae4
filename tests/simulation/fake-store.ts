// lib/contracts/store.ts in memory: keyed rows, windows under the version rule, scans in pages by key, each page a
// request of its own. What is stored outlives every process. Faults are drawn per request and counted by
// kind.

import { RowRefusedError, StoreUnavailableError } from "../../lib/base/errors.ts";
import type { StoreWriter, TimeRange } from "../../lib/contracts/store.ts";
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
          this.#putWindow(window);
        }),
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

  /** Poorer never replaces fuller. */
  #putWindow(window: WindowRow): void {
    const key = windowKey(window);
    const version = versionOf(window);
    const stored = this.windows.get(key);
    if (stored === undefined || version >= stored.version) this.windows.set(key, { window, version });
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
