// Puts windows so that none stays below what a forced repair wrote, and none leaves out what a command has put into the
// trades table beside this process. A window that closed a while ago may have been forced or replayed, so its stored row is
// read before it is put; a fresh one may not, so the live path reads nothing. A window that others
// have written too is computed from the table alone: memory may lack a trade of theirs, or hold the one that was deleted.
//
// Why no trade is left out: its row is stored before the writer reads the stored window. Either the other had written by
// then, and the writer goes by the table, or the other reads the table after its write, and counts the trade.

import type { Clock } from "../base/clock.ts";
import type { StoredWindow, StoreWriter } from "../contracts/store.ts";
import type { WindowRow } from "../model/aggregates.ts";
import { hourOf } from "../model/trade.ts";
import {
  generationOf,
  storedAtMs,
  type Window,
  windowEndMs,
  windowOf,
  windowVersion,
} from "../model/windows.ts";
import { PANE_IDLE_MS } from "./partition-state.ts";
import { recomputeWindow } from "./recompute.ts";

type WindowStore = Pick<StoreWriter, "scanTrades" | "scanWindows" | "putWindowAt">;
type Deps = Readonly<{ store: WindowStore; clock: Clock }>;

/** A row to be put. `table`: all of it was read from the table just now; `partly`: some of it; `memory`: nothing. */
export type MadeRow = Readonly<{ row: WindowRow; from: "table" | "partly" | "memory" }>;

/** A window that ended so long ago is late. A forced repair waits a minute longer: two clocks and a write lie between. */
export const LATE_AFTER_MS = PANE_IDLE_MS;
/**
 * Generations 1, 2, 4, ... up to 2^18 are tried: 2^50 us after the window, beyond any deletion by hand, which Cassandra
 * stamps with the time of the day. A window that others keep changing is left to them: each reads the version anew.
 */
const WRITES_MAX = 20;

/** Of small ranges each; more would make a trade's row wait behind them. */
const SCANS_AT_ONCE_MAX = 8;

/** Puts them all: with `put` where nothing stands in the way, and from the table where something does. */
export async function putOverGenerations(
  deps: Deps,
  made: readonly MadeRow[],
  nowMs: number,
  put: (rows: readonly WindowRow[]) => Promise<void>,
): Promise<void> {
  const isLate = (window: Window) => windowEndMs(window) <= nowMs - LATE_AFTER_MS;
  const readFirst = made.filter(({ row }) => isLate(windowOf(row)));
  const before = await readStored(
    deps.store,
    readFirst.map(({ row }) => windowOf(row)),
  );
  const inPlace: WindowRow[] = [];
  const fromTable: Window[] = [];
  for (const one of made) {
    const way = wayOf(one, before.get(keyOf(windowOf(one.row))));
    if (way === "in place") inPlace.push(one.row);
    else if (way === "from the table") fromTable.push(windowOf(one.row));
  }
  if (inPlace.length > 0) await put(inPlace);
  const added = readFirst.map(({ row }) => windowOf(row)).filter((window) => !before.has(keyOf(window)));
  const after = await readStored(deps.store, added);
  // Nobody can read at which version a window was removed: that a put is not seen tells of it.
  for (const window of added) if (!after.has(keyOf(window))) await putFromTable(deps, window, 1);
  for (const window of fromTable) await putFromTable(deps, window, 0);
}

function wayOf(
  { row, from }: MadeRow,
  stored: StoredWindow | undefined,
): "in place" | "from the table" | "nowhere" {
  if (stored === undefined) return "in place";
  if (isSameRow(stored.window, row)) return "nowhere";
  const isFirst = generationOf(windowOf(row), stored.version) === 0;
  // At the same version two contents would mix.
  return from === "table" && isFirst && windowVersion(row) !== stored.version ? "in place" : "from the table";
}

/**
 * Writes what the table says, in the generation that is stored or in this one if it is later, until what is stored says
 * the same. False: what is stored counts more, another writer was always ahead, or the table has no trade of the window.
 */
export async function putFromTable(
  { store, clock }: Deps,
  window: Window,
  firstGeneration: number,
): Promise<boolean> {
  let generation = firstGeneration;
  for (let writes = 0; writes <= WRITES_MAX; writes++) {
    const stored = (await readStored(store, [window])).get(keyOf(window));
    // Read after the write: a trade that came in between was counted below it.
    const row = await recomputeWindow(store, clock, window);
    if (row === null) return false;
    if (stored === undefined) {
      if (writes > 0) generation = Math.max(1, generation * 2);
    } else {
      if (isSameRow(stored.window, row)) return true;
      generation = Math.max(generation, generationOf(window, stored.version));
      const version = windowVersion(row, generation);
      if (version < stored.version) return false;
      if (version === stored.version) generation += 1;
    }
    if (writes < WRITES_MAX)
      await store.putWindowAt({ window: row, version: windowVersion(row, generation) });
  }
  return false;
}

/** By key, those of the windows that are stored: one scan for each hour of a symbol and kind. */
async function readStored(
  store: WindowStore,
  windows: readonly Window[],
): Promise<Map<string, StoredWindow>> {
  const scans = new Map<string, { kind: Window["kind"]; symbol: string; fromMs: number; toMs: number }>();
  for (const window of windows) {
    const { kind, symbol } = window;
    const atMs = storedAtMs(window);
    const key = `${kind} ${hourOf(atMs)} ${symbol}`;
    const { fromMs, toMs } = scans.get(key) ?? { fromMs: atMs, toMs: atMs + 1 };
    scans.set(key, { kind, symbol, fromMs: Math.min(fromMs, atMs), toMs: Math.max(toMs, atMs + 1) });
  }
  const found = new Map<string, StoredWindow>();
  const waiting = scans.values();
  const scanInTurn = async () => {
    for (const { kind, symbol, fromMs, toMs } of waiting) {
      for await (const page of store.scanWindows(kind, symbol, { fromMs, toMs }))
        for (const stored of page) found.set(keyOf(windowOf(stored.window)), stored);
    }
  };
  await Promise.all(Array.from({ length: SCANS_AT_ONCE_MAX }, scanInTurn));
  return found;
}

function keyOf({ kind, symbol, startMs }: Window): string {
  return `${kind} ${startMs} ${symbol}`;
}

function isSameRow(one: WindowRow, other: WindowRow): boolean {
  const values = new Map<string, unknown>(Object.entries(one.row));
  return Object.entries(other.row).every(([column, value]) => values.get(column) === value);
}
