// The operator's verification: every closed window is computed anew from the trades table and compared with what is
// stored. The promise is 0 differences, so a difference is read again before it is reported: the processor may be
// writing that very window. It remembers one hour of one symbol at a time. On its own it changes nothing; asked to
// repair, it has verify-repair.ts write.

import { type Clock, createYielder } from "../base/clock.ts";
import type { StoredWindow, StoreMender, StoreWriter, TimeRange } from "../contracts/store.ts";
import { AGGREGATES, AVERAGE_WIDTH_MS_MAX, type WindowRow } from "../model/aggregates.ts";
import { DAY_MS, HOUR_MS, hourOf } from "../model/trade.ts";
import { TRADE_AHEAD_MS } from "../model/validate.ts";
import { storedAtMs, type Window, windowEndMs, windowOf, windowsOfPane } from "../model/windows.ts";
import { readPanes, recomputeWindow, rowFromPanes, type Trades } from "../processing/recompute.ts";
import { retryForOperator } from "./retry.ts";
import {
  differingColumns,
  isEqualWindow,
  type Outcome,
  type Reading,
  repairWindow,
} from "./verify-repair.ts";

export type VerifyDeps = Readonly<{
  store: Trades & StoreMender & Pick<StoreWriter, "putWindows">;
  clock: Clock;
  /** Every window that overlaps it is compared. */
  range: TimeRange;
  /** Only this symbol; without it all. */
  symbol?: string;
  retentionDays: number;
  /** What the store lets expire at a time: each row by itself, or the rows of a symbol's hour with their aggregates. */
  expires: "rows" | "hours";
  /** `fuller`: rows that count less than the table. `force`: every other difference too, see Outcome. */
  repair: "nothing" | "fuller" | "force";
  /** Whether a processor may be writing to the store: then a difference is given time, and young rows no force. */
  isLive: boolean;
  /** Called with each difference when it is certain, and with what became of it. */
  onDifference: (difference: Difference) => void;
  /** Called at the end, once a symbol, with the windows that were left out. */
  onSkipped: (skipped: Skipped) => void;
  signal: AbortSignal;
}>;

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
/** Hours of all symbols are listed for so much of the range at a time: some megabytes for thousands of symbols. */
const LISTING_MS = 7 * DAY_MS;

type Pending = Reading & Readonly<{ window: Window; reads: number }>;

export async function verifyWindows(deps: VerifyDeps): Promise<Verified> {
  return new Verification(deps).run();
}

class Verification {
  readonly #deps: VerifyDeps;
  readonly #retentionMs: number;
  readonly #verified: Verified = {
    compared: 0,
    differences: 0,
    missing: 0,
    extra: 0,
    repaired: 0,
    skippedExpired: 0,
    open: 0,
  };
  readonly #skipped = new Map<string, { windowCount: number; fromMs: number; toMs: number }>();
  #pending: Pending[] = [];
  readonly #yieldIfDue: () => Promise<void>;

  constructor(deps: VerifyDeps) {
    this.#deps = deps;
    this.#retentionMs = deps.retentionDays * DAY_MS;
    this.#yieldIfDue = createYielder(deps.clock);
  }

  async run(): Promise<Verified> {
    const { range, clock, onSkipped } = this.#deps;
    for (const listed of listings(range, clock.now(), this.#retentionMs)) {
      for (const [symbol, hours] of await this.#retry(() => this.#hoursIn(listed))) {
        for (const hour of [...hours].sort((a, b) => a - b)) {
          await this.#checkHour(symbol, hour);
          if (this.#pending.length >= PENDING_MAX) await this.#settlePending();
          await this.#yieldIfDue();
        }
      }
    }
    await this.#settlePending();
    for (const [symbol, entry] of this.#skipped) onSkipped({ symbol, ...entry });
    return this.#verified;
  }

  #retry<T>(work: () => Promise<T>): Promise<T> {
    return retryForOperator(this.#deps.clock, this.#deps.signal, work);
  }

  /** By symbol. An hour owns the averages that end in it: the trades of the hour before may be in them. */
  async #hoursIn(listed: TimeRange): Promise<Map<string, Set<number>>> {
    const hoursBySymbol = new Map<string, Set<number>>();
    const looked = { fromMs: listed.fromMs - HOUR_MS, toMs: listed.toMs };
    for await (const page of this.#deps.store.scanHours(looked, this.#deps.symbol)) {
      for (const { symbol, hour } of page) {
        const hours = hoursBySymbol.getOrInsertComputed(symbol, () => new Set());
        for (const owner of [hour, hour + HOUR_MS])
          if (owner >= listed.fromMs && owner < listed.toMs) hours.add(owner);
      }
    }
    return hoursBySymbol;
  }

  /** Every window that the hour owns: averages by their end, candles by their start. */
  async #checkHour(symbol: string, hour: number): Promise<void> {
    const { range, clock } = this.#deps;
    for (const [window, reading] of await this.#retry(() => this.#readHour(symbol, hour))) {
      const endMs = windowEndMs(window);
      if (window.startMs >= range.toMs || endMs <= range.fromMs) continue;
      if (endMs + CLOSED_AFTER_MS > clock.now()) this.#verified.open += 1;
      else if (this.#mayHaveExpired(window, reading)) this.#skip(window, endMs);
      else {
        this.#verified.compared += 1;
        if (!isEqualWindow(reading)) this.#pending.push({ window, ...reading, reads: 1 });
      }
    }
  }

  /**
   * Whether trades of the window may be gone, so that its row rightly counts more than the table. Retention counts from
   * receipt: of a window of that age all that was received when it was traded is gone, and what is there came later.
   */
  #mayHaveExpired(window: Window, { stored, computed }: Reading): boolean {
    const { clock, expires } = this.#deps;
    if (window.startMs >= clock.now() - this.#retentionMs + TRADE_AHEAD_MS) return false;
    if ((stored?.window.row.trade_count ?? 0) <= (computed?.row.trade_count ?? 0)) return false;
    return expires === "rows" || hourOf(window.startMs) !== hourOf(windowEndMs(window) - 1);
  }

  /** Every window of the hour that its trades or the tables know. */
  async #readHour(symbol: string, hour: number): Promise<Map<Window, Reading>> {
    const { store, clock } = this.#deps;
    const owned = { fromMs: hour, toMs: hour + HOUR_MS };
    const around = { fromMs: hour - AVERAGE_WIDTH_MS_MAX, toMs: owned.toMs };
    const panes = await readPanes(store, clock, symbol, around);
    const computed = new Map<string, { window: Window; row: WindowRow }>();
    for (const paneStartMs of panes.keys()) {
      for (const window of windowsOfPane(symbol, paneStartMs)) {
        const key = keyOf(window);
        if (hourOf(storedAtMs(window)) !== hour || computed.has(key)) continue;
        const row = rowFromPanes(window, panes);
        if (row !== null) computed.set(key, { window, row });
      }
    }
    const readings = new Map<string, [Window, Reading]>();
    for (const [key, { window, row }] of computed)
      readings.set(key, [window, { stored: null, computed: row }]);
    for (const { kind } of AGGREGATES) {
      for await (const page of store.scanWindows(kind, symbol, owned)) {
        for (const stored of page) {
          const window = windowOf(stored.window);
          const key = keyOf(window);
          readings.set(key, [window, { stored, computed: computed.get(key)?.row ?? null }]);
        }
      }
    }
    return new Map(readings.values());
  }

  #skip({ symbol, startMs }: Window, endMs: number): void {
    this.#verified.skippedExpired += 1;
    const known = this.#skipped.get(symbol);
    this.#skipped.set(symbol, {
      windowCount: (known?.windowCount ?? 0) + 1,
      fromMs: Math.min(known?.fromMs ?? startMs, startMs),
      toMs: Math.max(known?.toMs ?? endMs, endMs),
    });
  }

  /** Reads every difference again: the same one twice is a difference. */
  async #settlePending(): Promise<void> {
    const { isLive, clock, signal } = this.#deps;
    while (this.#pending.length > 0) {
      if (isLive) await clock.sleep(REREAD_AFTER_MS, signal);
      const due = this.#pending;
      this.#pending = [];
      for (const before of due) {
        const now = await this.#readAgain(before.window);
        if (isEqualWindow(now)) continue;
        const again = { ...before, ...now, reads: before.reads + 1 };
        if (isSame(before, again) || again.reads >= READS_MAX) await this.#conclude(again);
        else this.#pending.push(again);
        await this.#yieldIfDue();
      }
    }
  }

  #readAgain(window: Window): Promise<Reading> {
    const { store, clock } = this.#deps;
    return this.#retry(async () => {
      const computed = await recomputeWindow(store, clock, window);
      const atMs = storedAtMs(window);
      let stored: StoredWindow | null = null;
      const range = { fromMs: atMs, toMs: atMs + 1 };
      for await (const page of store.scanWindows(window.kind, window.symbol, range))
        stored = page[0] ?? stored;
      return { stored, computed };
    });
  }

  async #conclude({ window, stored, computed }: Pending): Promise<void> {
    const what = stored === null ? "missing" : computed === null ? "extra" : "differs";
    const outcome = await this.#repair(window, { stored, computed });
    this.#verified.differences += 1;
    if (what !== "differs") this.#verified[what] += 1;
    if (outcome === "repaired") this.#verified.repaired += 1;
    const columns = stored && computed ? differingColumns(stored.window, computed) : [];
    const row = stored?.window ?? null;
    this.#deps.onDifference({ window, what, columns, stored: row, computed, outcome });
  }

  async #repair(window: Window, reading: Reading): Promise<Outcome> {
    const { store, clock, repair, isLive } = this.#deps;
    if (repair === "nothing") return "found";
    return repairWindow(
      {
        store,
        isForced: repair === "force",
        isLive,
        nowMs: () => clock.now(),
        retentionMs: this.#retentionMs,
        retry: (work) => this.#retry(work),
        readAgain: () => this.#readAgain(window),
      },
      window,
      reading,
    );
  }
}

/**
 * The range in pieces whose hours are listed together. Nothing is closed beyond now; and before the retention there is
 * next to nothing, however far back the range goes.
 */
function listings({ fromMs, toMs }: TimeRange, nowMs: number, retentionMs: number): TimeRange[] {
  const endMs = Math.min(toMs + AVERAGE_WIDTH_MS_MAX, nowMs);
  const pieces: TimeRange[] = [];
  let startMs = hourOf(fromMs);
  while (startMs < endMs) {
    const nextMs = Math.min(endMs, Math.max(startMs + LISTING_MS, hourOf(nowMs - retentionMs)));
    pieces.push({ fromMs: startMs, toMs: nextMs });
    startMs = nextMs;
  }
  return pieces;
}

function keyOf({ kind, startMs }: Window): string {
  return `${kind} ${startMs}`;
}

function isSame(one: Pending, other: Pending): boolean {
  const text = ({ stored, computed }: Pending) => JSON.stringify([stored, computed]);
  return text(one) === text(other);
}
