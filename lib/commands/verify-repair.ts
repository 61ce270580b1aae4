// What differs between two rows of one window, and the repair of a difference: fuller rows are written as a processor
// writes them, and by force any other row or removal, at an odd version of its own. What is in doubt stays as it is.

import type { StoredWindow, StoreMender, StoreWriter } from "../contracts/store.ts";
import { SHAPES, type WindowRow } from "../model/aggregates.ts";
import { DAY_MS } from "../model/trade.ts";
import { type Window, windowEndMs, windowVersion } from "../model/windows.ts";
import { PANE_IDLE_MS } from "../processing/partition-state.ts";

/**
 * `found`: nothing was to be repaired. `needs_force`: it is no fuller row. `too_young`: a process may hold its panes
 * in memory, and would write the old row again. `may_have_expired`: the table may count less because its rows ended.
 * `unrepaired`: it was written, and still differs.
 */
export type Outcome = "found" | "repaired" | "needs_force" | "too_young" | "may_have_expired" | "unrepaired";

/** A window as it is stored and as its trades say. */
export type Reading = Readonly<{ stored: StoredWindow | null; computed: WindowRow | null }>;

type RepairDeps = Readonly<{
  store: StoreMender & Pick<StoreWriter, "putWindows">;
  /** Whether any row may be written, and not only a fuller one. */
  isForced: boolean;
  /** Whether a processor may be writing to the store. */
  isLive: boolean;
  nowMs: () => number;
  retentionMs: number;
  /** The one owner of repetition. */
  retry: <T>(work: () => Promise<T>) => Promise<T>;
  readAgain: () => Promise<Reading>;
}>;

/** Older than any pane in memory: nobody touched it for PANE_IDLE_MS, and a trigger has dropped it since. */
const FORCE_AFTER_MS = PANE_IDLE_MS + 60_000;
/** Sums and averages; counts, prices and times are exact. */
const RELATIVE_ERROR_MAX = 1e-9;
/** 2^32 trades in a window are beyond anything; it bounds a search. */
const VERSION_STEPS_MAX = 32;

/** Writes what the trades say of the window, as far as it is allowed, and reads whether that has helped. */
export async function repairWindow(deps: RepairDeps, window: Window, reading: Reading): Promise<Outcome> {
  const { store, isForced, isLive, nowMs, retentionMs, retry } = deps;
  const { stored, computed } = reading;
  if (computed !== null && (stored === null || windowVersion(computed) > stored.version)) {
    await retry(() => store.putWindows([computed]));
    if (isEqualWindow(await deps.readAgain())) return "repaired";
  }
  if (!isForced) return "needs_force";
  if (isLive && nowMs() < windowEndMs(window) + FORCE_AFTER_MS) return "too_young";
  const countsMore = stored !== null && stored.window.row.trade_count > (computed?.row.trade_count ?? 0);
  // A trade may be dated a day ahead of its receipt, by which it expires.
  if (countsMore && window.startMs < nowMs() - retentionMs + DAY_MS) return "may_have_expired";
  return forceWindow(deps, window, reading);
}

async function forceWindow(deps: RepairDeps, window: Window, reading: Reading): Promise<Outcome> {
  const { store, retry, readAgain } = deps;
  const { stored, computed } = reading;
  if (stored !== null) {
    const version = nextOdd(stored.version);
    if (computed === null) await retry(() => store.removeWindow(window, version));
    else await retry(() => store.putWindowAt({ window: computed, version }));
    return isEqualWindow(await readAgain()) ? "repaired" : "unrepaired";
  }
  if (computed === null) return "unrepaired";
  // A removed window keeps out what is below the removal, and nobody can read at which version that was.
  for (let step = 1; step <= VERSION_STEPS_MAX; step++) {
    const version = windowVersion(computed) + 2 ** step - 1;
    await retry(() => store.putWindowAt({ window: computed, version }));
    if (isEqualWindow(await readAgain())) return "repaired";
  }
  return "unrepaired";
}

/** Repairs have the odd versions: between what a processor wrote and what it writes with one trade more. */
function nextOdd(version: number): number {
  return version % 2 === 0 ? version + 1 : version + 2;
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
