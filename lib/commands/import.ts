// The operator's import: trades that somebody else recorded, from files into the store, and then their windows, computed
// from the table. It may be stopped and run again at any time: a trade's identity is its own, so what is stored already
// is passed, and nothing is there twice.

import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import type { StoreWriter } from "../contracts/store.ts";
import { type ImportItem, type ReadOptions, readImport } from "../imports/read.ts";
import { type TradeRow, tradeRow } from "../model/trade.ts";
import { badTrade } from "../model/validate.ts";
import { nothingReplayed, ReplayWriter } from "./replay.ts";
import { retryForOperator } from "./retry.ts";

type ImportDeps = Readonly<{
  store: StoreWriter;
  clock: Clock;
  logger: Logger;
  retentionDays: number;
  signal: AbortSignal;
  /** Trades dated at or after it are refused: a processor may have their windows in memory. Infinity: none runs. */
  beforeMs: number;
  /** Called a few times a second. */
  onProgress: (progress: ImportProgress) => void;
}>;

export type ImportProgress = Readonly<{ path: string; readBytes: number; sizeBytes: number; trades: number }>;

/** The keys are those of --json. */
export type Imported = {
  files: number;
  /** Trades of the files; those of them that were new, and those that were stored already. */
  trades: number;
  stored: number;
  known: number;
  windows: number;
  /** Reason -> how many. */
  skipped: Record<string, number>;
  refused: Record<string, number>;
  /** What was made of some trades -> how many. */
  notes: Record<string, number>;
};

/** The first of each reason, for the report: where, and what. */
export type Example = Readonly<{ name: string; place: number; why: string }>;

/** Rows in memory before they are put, some MB. */
const ROWS_BUFFERED_MAX = 20_000;
const PROGRESS_EVERY_MS = 250;
/** Reasons that hold a piece of the file could be endless. */
const REASONS_MAX = 20;

export function nothingImported(): Imported {
  return { files: 0, trades: 0, stored: 0, known: 0, windows: 0, skipped: {}, refused: {}, notes: {} };
}

/** Rejects with a SetupError for a file that cannot be read, and with the signal's reason when that aborts. */
export async function importFiles(
  deps: ImportDeps,
  paths: readonly string[],
  options: ReadOptions,
  onExample: (example: Example) => void,
): Promise<Imported> {
  const { clock, signal, onProgress } = deps;
  const imported = nothingImported();
  const writer = new ImportWriter(deps, imported);
  for (const path of paths) {
    const file = readImport(path, options);
    const { sizeBytes } = file;
    let toldAtMs = Number.NEGATIVE_INFINITY;
    for await (const { name, items } of file.entries) {
      for await (const item of items) {
        if (item.kind === "trade")
          await writer.add(item, (why) => onExample({ name, place: item.place, why }));
        else if (count(imported[item.kind], item.why) && item.kind === "refused")
          onExample({ name, place: item.place, why: item.why });
        if (clock.monotonic() - toldAtMs < PROGRESS_EVERY_MS) continue;
        signal.throwIfAborted();
        toldAtMs = clock.monotonic();
        onProgress({ path, sizeBytes, readBytes: file.readBytes(), trades: imported.trades });
      }
    }
    imported.files += 1;
    onProgress({ path, sizeBytes, readBytes: sizeBytes, trades: imported.trades });
  }
  await writer.end();
  return imported;
}

/** Counts a reason; true for the first of its kind. Reasons with a colon are of one kind up to it. */
function count(reasons: Record<string, number>, why: string): boolean {
  const [kind = why] = why.split(":");
  const isNew = reasons[kind] === undefined;
  const key = isNew && Object.keys(reasons).length >= REASONS_MAX ? "other" : kind;
  reasons[key] = (reasons[key] ?? 0) + 1;
  return isNew;
}

class ImportWriter {
  readonly #deps: ImportDeps;
  readonly #imported: Imported;
  readonly #replayed = nothingReplayed();
  readonly #writer: ReplayWriter;
  #rows: TradeRow[] = [];

  constructor(deps: ImportDeps, imported: Imported) {
    this.#deps = deps;
    this.#imported = imported;
    this.#writer = new ReplayWriter(deps, this.#replayed);
  }

  async add(
    { trade, uuid, note }: ImportItem & { kind: "trade" },
    onRefused: (why: string) => void,
  ): Promise<void> {
    const { clock, beforeMs } = this.#deps;
    const imported = this.#imported;
    const nowMs = clock.now();
    imported.trades += 1;
    const why = trade.tradedAtMs >= beforeMs ? "too young" : badTrade(trade, nowMs);
    if (why !== null) {
      if (count(imported.refused, why)) onRefused(why);
      return;
    }
    if (note !== null) count(imported.notes, note);
    this.#rows.push(tradeRow(trade, uuid, nowMs));
    if (this.#rows.length >= ROWS_BUFFERED_MAX) await this.#put();
  }

  async end(): Promise<void> {
    await this.#put();
    await this.#writer.putWindows();
    this.#count();
  }

  /** New rows are put; of those that are there the windows are computed too, since a run may have ended before them. */
  async #put(): Promise<void> {
    const rows = this.#rows;
    this.#rows = [];
    const known: TradeRow[] = [];
    for (const group of Map.groupBy(rows, ({ symbol, hour }) => `${hour} ${symbol}`).values()) {
      const uuids = await this.#uuidsAmong(group);
      for (const row of group) {
        if (uuids.has(row.uuid)) known.push(row);
        else {
          uuids.add(row.uuid); // A file may hold one id twice.
          this.#writer.add(row);
        }
      }
    }
    await this.#writer.putRows();
    await this.#writer.touch(known);
    this.#imported.known += known.length;
    this.#count();
  }

  #count(): void {
    this.#imported.stored = this.#replayed.rows;
    this.#imported.windows = this.#replayed.windows;
    if (this.#replayed.refused > 0) this.#imported.refused.refused_by_store = this.#replayed.refused;
  }

  async #uuidsAmong(group: readonly TradeRow[]): Promise<Set<string>> {
    const { store, clock, signal } = this.#deps;
    const times = group.map((row) => row.trade_timestamp);
    const fromMs = times.reduce((least, time) => Math.min(least, time));
    const toMs = times.reduce((most, time) => Math.max(most, time)) + 1;
    return retryForOperator(clock, signal, async () => {
      const uuids = new Set<string>();
      const wanted = new Set(group.map(({ uuid }) => uuid));
      for await (const page of store.scanTrades(group[0]!.symbol, { fromMs, toMs }))
        for (const { uuid } of page) if (wanted.has(uuid)) uuids.add(uuid);
      return uuids;
    });
  }
}

/** Trades of each file that a dry run shows. */
const SHOWN_MAX = 5;

/** Reads the files as an import does, and stores nothing. `onTrade`: the first trades of each file. */
export async function dryRun(
  { clock, signal, beforeMs, onProgress }: Pick<ImportDeps, "clock" | "signal" | "beforeMs" | "onProgress">,
  paths: readonly string[],
  options: ReadOptions,
  told: Readonly<{
    onEntry: (name: string, format: string) => void;
    onTrade: (row: TradeRow) => void;
    onExample: (example: Example) => void;
  }>,
): Promise<Imported> {
  const imported = nothingImported();
  for (const path of paths) {
    const file = readImport(path, options);
    for await (const { name, format, items } of file.entries) {
      told.onEntry(name, `${format.name}: ${format.says}`);
      let shown = 0;
      for await (const item of items) {
        signal.throwIfAborted();
        if (item.kind !== "trade") {
          if (count(imported[item.kind], item.why) && item.kind === "refused")
            told.onExample({ name, place: item.place, why: item.why });
          continue;
        }
        imported.trades += 1;
        const { trade, uuid, note, place } = item;
        const why = trade.tradedAtMs >= beforeMs ? "too young" : badTrade(trade, clock.now());
        if (why !== null) {
          if (count(imported.refused, why)) told.onExample({ name, place, why });
          continue;
        }
        if (note !== null) count(imported.notes, note);
        imported.stored += 1;
        if (shown++ < SHOWN_MAX) told.onTrade(tradeRow(trade, uuid, clock.now()));
      }
    }
    imported.files += 1;
    onProgress({ path, sizeBytes: file.sizeBytes, readBytes: file.sizeBytes, trades: imported.trades });
  }
  return imported;
}
