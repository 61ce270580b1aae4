// The operator's verification: every closed window computed anew from the trades table and compared with what is
// stored. 0 differences is the promise, so a difference is read again before it is reported: the processor may be
// writing that very window. It remembers one hour of one symbol at a time, and on its own it changes nothing;
// asked to repair, it writes fuller rows, and only by force any other.

import { type Clock, createYielder } from "../base/clock.ts";
import type { StoredWindow, StoreMender, StoreWriter, TimeRange } from "../contracts/store.ts";
import type { WindowRow } from "../model/aggregates.ts";
import { DAY_MS, HOUR_MS, hourOf } from "../model/trade.ts";
import { TRADE_AHEAD_MS } from "../model/validate.ts";
import { WINDOW_MS, type Window, windowsOfPane, windowVersion } from "../model/windows.ts";
import { PANE_IDLE_MS } from "../processing/partition-state.ts";
import { readPanes, recomputeWindow, rowFromPanes, type Trades } from "../processing/recompute.ts";
import { retryForOperator } from "./retry.ts";

export type VerifyDeps = Readonly<{
  store: Trades & StoreMender & Pick<StoreWriter, "putWindows">;
  clock: Clock;
  /** Every window that overlaps it. */
  range: TimeRange;
  /** Only this one; without it all. */
  symbol?: string;
  retentionDays: number;
  /** `fuller`: rows that count less than the table. `force`: every other difference too, see Outcome. */
  repair: "nothing" | "fuller" | "force";
  /** Whether a processor may be writing to the store: then a difference is given time, and young rows no force. */
  isLive: boolean;
  /** Hears of each difference when it is certain, and what became of it. */
  onDifference: (difference: Difference) => void;
  /** Hears of the windows that were left out, at the end, once a symbol. */
  onSkipped: (skipped: Skipped) => void;
  signal: AbortSignal;
}>;

/**
 * `found`: nothing was to be repaired. `needs_force`: it is no fuller row. `too_young`: a process may hold its panes
 * in memory, and would write the old row again. `may_have_expired`: the table may count less because its rows ended.
 * `unrepaired`: it was written, and still differs.
 */
export type Outcome = "found" | "repaired" | "needs_force" | "too_young" | "may_have_expired" | "unrepaired";

export type Difference = Readonly<{
  window: Window;
  /** `missing`: no row. `extra`: a row, and no trade. */
  what: "missing" | "extra" | "differs";
  /** The columns that differ; of a missing or an extra row none. */
  columns: readonly string[];
  stored: WindowRow | null;
  /** From the trades table. */
  computed: WindowRow | null;
  outcome: Outcome;
}>;

/** Windows of a symbol whose trades may have expired. */
export type Skipped = Readonly<{ symbol: string; windowCount: number; fromMs: number; toMs: number }>;

export type Verified = {
  /** Windows compared, and how many of them differ. */
  compared: number;
  differences: number;
  missing: number;
  extra: number;
  repaired: number;
  /** Not compared: their trades may have expired. */
  skippedExpired: number;
  /** Not compared: not closed for long enough. */
  open: number;
};

/** A window that has just closed: its last trades are on their way, then up to 5 s until the trigger, then its write. */
export const CLOSED_AFTER_MS = 15_000;
/** Two triggers and their writes: what a processor was about to write is written. */
const REREAD_AFTER_MS = 12_000;
/** A window that late trades keep changing is read so often; then it is reported as it is. */
const READS_MAX = 5;
/** Differences that wait for their second reading together. */
const PENDING_MAX = 1_000;
/** Older than any pane in memory: nobody touched it for PANE_IDLE_MS, and a trigger has dropped it since. */
const FORCE_AFTER_MS = PANE_IDLE_MS + 60_000;
/** Hours of all symbols are listed for so much of the range at a time: some megabytes for thousands of symbols. */
const LISTING_MS = 7 * DAY_MS;
/** Sums and averages; counts, prices and times are exact. */
const RELATIVE_ERROR_MAX = 1e-9;
/** 2^32 trades in a window are beyond anything; it bounds a search. */
const VERSION_STEPS_MAX = 32;

type Pending = { window: Window; stored: StoredWindow | null; computed: WindowRow | null; reads: number };

export async function verifyWindows(deps: VerifyDeps): Promise<Verified> {
  const { store, clock, range, symbol: only, retentionDays, repair, isLive, signal } = deps;
  const retentionMs = retentionDays * DAY_MS;
  const verified: Verified = {
    compared: 0,
    differences: 0,
    missing: 0,
    extra: 0,
    repaired: 0,
    skippedExpired: 0,
    open: 0,
  };
  const skipped = new Map<string, { windowCount: number; fromMs: number; toMs: number }>();
  let pending: Pending[] = [];
  const yieldIfDue = createYielder(clock);
  const insist = <T>(work: () => Promise<T>) => retryForOperator(clock, signal, work);

  for (const listed of listings(range, clock.now(), retentionMs)) {
    for (const [symbol, hours] of await insist(() => heldHours(listed))) {
      for (const hour of [...hours].sort((a, b) => a - b)) {
        await checkHour(symbol, hour);
        if (pending.length >= PENDING_MAX) await settlePending();
        await yieldIfDue();
      }
    }
  }
  await settlePending();
  for (const [symbol, entry] of skipped) deps.onSkipped({ symbol, ...entry });
  return verified;

  /** By symbol. An hour owns the averages that end in it: the trades of the hour before may be in them. */
  async function heldHours(listed: TimeRange): Promise<Map<string, Set<number>>> {
    const held = new Map<string, Set<number>>();
    const looked = { fromMs: listed.fromMs - HOUR_MS, toMs: listed.toMs };
    for await (const page of store.scanHours(looked, only)) {
      for (const { symbol, hour } of page) {
        let hours = held.get(symbol);
        if (hours === undefined) {
          hours = new Set();
          held.set(symbol, hours);
        }
        for (const owner of [hour, hour + HOUR_MS])
          if (owner >= listed.fromMs && owner < listed.toMs) hours.add(owner);
      }
    }
    return held;
  }

  /** Every window that the hour owns: averages by their end, candles by their start. */
  async function checkHour(symbol: string, hour: number): Promise<void> {
    const { computed, stored } = await insist(() => readHour(symbol, hour));
    for (const [key, window] of windowsIn(computed, stored)) {
      const startMs = window.startMs;
      const windowEndMs = startMs + WINDOW_MS[window.kind];
      if (startMs >= range.toMs || windowEndMs <= range.fromMs) continue;
      if (windowEndMs + CLOSED_AFTER_MS > clock.now()) verified.open += 1;
      else if (startMs < clock.now() - retentionMs + TRADE_AHEAD_MS) skip(window, windowEndMs);
      else {
        verified.compared += 1;
        const row = computed.get(key)?.row ?? null;
        const held = stored.get(key)?.stored ?? null;
        if (isEqual(held?.window ?? null, row)) continue;
        pending.push({ window, stored: held, computed: row, reads: 1 });
      }
    }
  }

  async function readHour(symbol: string, hour: number) {
    const panes = await readPanes(store, clock, symbol, {
      fromMs: hour - WINDOW_MS.average,
      toMs: hour + HOUR_MS,
    });
    const computed = new Map<string, { window: Window; row: WindowRow }>();
    for (const paneStartMs of panes.keys()) {
      for (const window of windowsOfPane(symbol, paneStartMs)) {
        const key = `${window.kind} ${window.startMs}`;
        if (hourOf(ownTime(window)) !== hour || computed.has(key)) continue;
        const row = rowFromPanes(window, panes);
        if (row !== null) computed.set(key, { window, row });
      }
    }
    const stored = new Map<string, { window: Window; stored: StoredWindow }>();
    for (const kind of ["average", "candle"] as const) {
      const owned = { fromMs: hour, toMs: hour + HOUR_MS };
      for await (const page of store.scanWindows(kind, symbol, owned)) {
        for (const one of page) {
          const window = windowOf(one.window);
          stored.set(`${kind} ${window.startMs}`, { window, stored: one });
        }
      }
    }
    return { computed, stored };
  }

  function skip({ symbol, startMs }: Window, windowEndMs: number): void {
    verified.skippedExpired += 1;
    const known = skipped.get(symbol);
    skipped.set(symbol, {
      windowCount: (known?.windowCount ?? 0) + 1,
      fromMs: Math.min(known?.fromMs ?? startMs, startMs),
      toMs: Math.max(known?.toMs ?? windowEndMs, windowEndMs),
    });
  }

  /** Reads every difference again: the same one twice is a difference. */
  async function settlePending(): Promise<void> {
    while (pending.length > 0) {
      if (isLive) await clock.sleep(REREAD_AFTER_MS, signal);
      const due = pending;
      pending = [];
      for (const before of due) {
        const now = await insist(() => readWindow(before.window));
        if (isEqual(now.stored?.window ?? null, now.computed)) continue;
        const again = { ...before, ...now, reads: before.reads + 1 };
        if (isSame(before, again) || again.reads >= READS_MAX) await conclude(again);
        else pending.push(again);
        await yieldIfDue();
      }
    }
  }

  async function readWindow(window: Window): Promise<Pick<Pending, "stored" | "computed">> {
    const computed = await recomputeWindow(store, clock, window);
    const atMs = ownTime(window);
    let stored: StoredWindow | null = null;
    for await (const page of store.scanWindows(window.kind, window.symbol, { fromMs: atMs, toMs: atMs + 1 }))
      stored = page[0] ?? stored;
    return { computed, stored };
  }

  async function conclude({ window, stored, computed }: Pending): Promise<void> {
    const what = stored === null ? "missing" : computed === null ? "extra" : "differs";
    const outcome = repair === "nothing" ? "found" : await mend(window, stored, computed);
    verified.differences += 1;
    if (what !== "differs") verified[what] += 1;
    if (outcome === "repaired") verified.repaired += 1;
    const columns = stored && computed ? differingColumns(stored.window, computed) : [];
    deps.onDifference({ window, what, columns, stored: stored?.window ?? null, computed, outcome });
  }

  async function mend(
    window: Window,
    stored: StoredWindow | null,
    computed: WindowRow | null,
  ): Promise<Outcome> {
    const isMended = async () => {
      const now = await insist(() => readWindow(window));
      return isEqual(now.stored?.window ?? null, now.computed);
    };
    if (computed !== null && (stored === null || windowVersion(computed) > stored.version)) {
      await insist(() => store.putWindows([computed]));
      if (await isMended()) return "repaired";
    }
    if (repair !== "force") return "needs_force";
    if (isLive && clock.now() < window.startMs + WINDOW_MS[window.kind] + FORCE_AFTER_MS) return "too_young";
    const countsMore = stored !== null && stored.window.row.trade_count > (computed?.row.trade_count ?? 0);
    // A trade may be dated a day ahead of its receipt, by which it expires.
    if (countsMore && window.startMs < clock.now() - retentionMs + DAY_MS) return "may_have_expired";
    if (stored !== null) {
      const version = nextOdd(stored.version);
      if (computed === null) await insist(() => store.removeWindow(window, version));
      else await insist(() => store.putWindowAt({ window: computed, version }));
      return (await isMended()) ? "repaired" : "unrepaired";
    }
    if (computed === null) return "unrepaired";
    // A removed window keeps out what is below the removal, and nobody can read at which version that was.
    for (let step = 1; step <= VERSION_STEPS_MAX; step++) {
      const version = windowVersion(computed) + 2 ** step - 1;
      await insist(() => store.putWindowAt({ window: computed, version }));
      if (await isMended()) return "repaired";
    }
    return "unrepaired";
  }
}

/**
 * The range in pieces whose hours are listed together. Nothing is closed beyond now; and before the retention there is
 * next to nothing, however far back the range goes.
 */
function listings({ fromMs, toMs }: TimeRange, nowMs: number, retentionMs: number): TimeRange[] {
  const endMs = Math.min(toMs + WINDOW_MS.average, nowMs);
  const pieces: TimeRange[] = [];
  let startMs = hourOf(fromMs);
  while (startMs < endMs) {
    const nextMs = Math.min(endMs, Math.max(startMs + LISTING_MS, hourOf(nowMs - retentionMs)));
    pieces.push({ fromMs: startMs, toMs: nextMs });
    startMs = nextMs;
  }
  return pieces;
}

/** Every window that either of them knows. */
function windowsIn(
  computed: ReadonlyMap<string, { window: Window }>,
  stored: ReadonlyMap<string, { window: Window }>,
): Map<string, Window> {
  const all = new Map<string, Window>();
  for (const known of [computed, stored]) for (const [key, { window }] of known) all.set(key, window);
  return all;
}

/** The time that a window's row is stored under. */
function ownTime({ kind, startMs }: Window): number {
  return kind === "average" ? startMs + WINDOW_MS.average : startMs;
}

function windowOf({ kind, row }: WindowRow): Window {
  const startMs = kind === "average" ? row.window_end - WINDOW_MS.average : row.window_start;
  return { kind, symbol: row.symbol, startMs };
}

/** Repairs have the odd versions: between what a processor wrote and what it writes with one trade more. */
function nextOdd(version: number): number {
  return version % 2 === 0 ? version + 1 : version + 2;
}

const SUMS: ReadonlySet<string> = new Set([
  "price_volume_multiply",
  "average_price",
  "vwap",
  "volume",
  "price_volume_sum",
]);

/** Names of the columns in which two rows of one window differ: sums and averages beyond 1e-9, all others at all. */
export function differingColumns(stored: WindowRow, computed: WindowRow): string[] {
  const held = new Map<string, unknown>(Object.entries(stored.row));
  return Object.entries(computed.row)
    .filter(([column, value]) => !isEqualValue(column, held.get(column), value))
    .map(([column]) => column);
}

function isEqualValue(column: string, stored: unknown, computed: unknown): boolean {
  if (stored === computed) return true;
  if (!SUMS.has(column) || typeof stored !== "number" || typeof computed !== "number") return false;
  return Math.abs(stored - computed) <= RELATIVE_ERROR_MAX * Math.max(Math.abs(stored), Math.abs(computed));
}

function isEqual(stored: WindowRow | null, computed: WindowRow | null): boolean {
  if (stored === null || computed === null) return stored === computed;
  return differingColumns(stored, computed).length === 0;
}

function isSame(one: Pending, other: Pending): boolean {
  const text = ({ stored, computed }: Pending) => JSON.stringify([stored, computed]);
  return text(one) === text(other);
}
