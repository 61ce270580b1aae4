// What differs between two rows of one window, and the repair of a difference: fuller rows are written as a processor
// writes them, and by force any other row or removal, in the next generation. What is in doubt stays as it is.

import type { Clock } from "../base/clock.ts";
import type { StoredWindow, StoreMender, StoreWriter } from "../contracts/store.ts";
import { SHAPES, type WindowRow } from "../model/aggregates.ts";
import { DAY_MS } from "../model/trade.ts";
import { generationOf, versionAt, type Window, windowEndMs, windowVersion } from "../model/windows.ts";
import { LATE_AFTER_MS, putFromTable } from "../processing/late-windows.ts";
import type { Trades } from "../processing/recompute.ts";

/**
 * `found`: nothing was to be repaired. `needs_force`: it is no fuller row. `too_young`: a process may hold its panes
 * in memory, and would write the old row again. `may_have_expired`: the table may count less because its rows ended.
 * `unrepaired`: it was written, and still differs.
 */
export type Outcome = "found" | "repaired" | "needs_force" | "too_young" | "may_have_expired" | "unrepaired";

/** A window as it is stored and as its trades say. */
export type Reading = Readonly<{ stored: StoredWindow | null; computed: WindowRow | null }>;

type RepairDeps = Readonly<{
  store: Trades & StoreMender & Pick<StoreWriter, "putWindowAt" | "scanWindows">;
  clock: Clock;
  /** Whether any row may be written, and not only a fuller one. */
  isForced: boolean;
  /** Whether a processor may be writing to the store. */
  isLive: boolean;
  retentionMs: number;
  /** The one owner of repetition. */
  retry: <T>(work: () => Promise<T>) => Promise<T>;
  readAgain: () => Promise<Reading>;
}>;

/** By then a processor takes the window for a late one, and reads its version before it writes. */
const FORCE_AFTER_MS = LATE_AFTER_MS + 60_000;
/** Sums and averages; counts, prices and times are exact. */
const RELATIVE_ERROR_MAX = 1e-9;
/** Writes what the trades say of the window, as far as it is allowed, and reads whether that has helped. */
export async function repairWindow(deps: RepairDeps, window: Window, reading: Reading): Promise<Outcome> {
  const { store, clock, isForced, isLive, retentionMs, retry } = deps;
  const { stored, computed } = reading;
  if (computed !== null && (stored === null || countOf(computed) > countOf(stored.window))) {
    const generation = stored === null ? 0 : generationOf(window, stored.version);
    await retry(() => store.putWindowAt({ window: computed, version: windowVersion(computed, generation) }));
    if (isEqualWindow(await deps.readAgain())) return "repaired";
  }
  if (!isForced) return "needs_force";
  if (isLive && clock.now() < windowEndMs(window) + FORCE_AFTER_MS) return "too_young";
  const countsMore = stored !== null && countOf(stored.window) > (computed === null ? 0 : countOf(computed));
  // A trade may be dated a day ahead of its receipt, by which it expires.
  if (countsMore && window.startMs < clock.now() - retentionMs + DAY_MS) return "may_have_expired";
  return forceWindow(deps, window, reading);
}

/** The next generation. What is written is read again: a trade that came meanwhile was counted below it. */
async function forceWindow(
  deps: RepairDeps,
  window: Window,
  { stored, computed }: Reading,
): Promise<Outcome> {
  const { store, clock, retry, readAgain } = deps;
  if (stored === null && computed === null) return "unrepaired";
  const generation = stored === null ? 1 : generationOf(window, stored.version) + 1;
  if (computed === null) await retry(() => store.removeWindow(window, versionAt(window, generation, 0)));
  await retry(() => putFromTable({ store, clock }, window, generation));
  return isEqualWindow(await readAgain()) ? "repaired" : "unrepaired";
}

function countOf({ row }: WindowRow): number {
  return row.trade_count;
}

// --- The comparison --------------------------------------------------------------------------------------------

const ROUNDED: ReadonlySet<string> = new Set(
  Object.values(SHAPES).flatMap(({ columns }) =>
    columns.flatMap((column) => ("isRounded" in column ? [column.name] : [])),
  ),
);

/** Names of the columns in which two rows of one window differ: sums and averages beyond 1e-9, all others at all. */
export function differingColumns(stored: WindowRow, computed: WindowRow): string[] {
  const storedValues = new Map<string, unknown>(Object.entries(stored.row));
  return Object.entries(computed.row)
    .filter(([column, value]) => !isEqualValue(column, storedValues.get(column), value))
    .map(([column]) => column);
}

/** Whether what is stored is what the trades say. */
export function isEqualWindow({ stored, computed }: Reading): boolean {
  if (stored === null || computed === null) return stored === computed;
  return differingColumns(stored.window, computed).length === 0;
}

function isEqualValue(column: string, stored: unknown, computed: unknown): boolean {
  if (stored === computed) return true;
  if (!ROUNDED.has(column) || typeof stored !== "number" || typeof computed !== "number") return false;
  return Math.abs(stored - computed) <= RELATIVE_ERROR_MAX * Math.max(Math.abs(stored), Math.abs(computed));
}
