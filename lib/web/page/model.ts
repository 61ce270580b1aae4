// What the page knows: from the events of the stream, and the seconds that history adds. It draws nothing.

import {
  type Delta,
  LINE_SECONDS,
  type SecondTuple,
  type SeenAt,
  type Snapshot,
  SPARK_BUCKET_MS,
  SPARK_BUCKETS,
  type Status,
} from "../live/protocol.ts";
import { decimalsOf } from "./format.ts";

export type SymbolView = {
  readonly symbol: string;
  readonly state: string;
  readonly unreceived: readonly [reason: string, sinceMs: number] | null;
  price: number | null;
  atMs: number;
  open: readonly [price: number, atMs: number] | null;
  /** Trades/s. */
  rate: number;
  decimals: number;
  /** [bucket, price], oldest first. */
  spark: [number, number][];
};

export const DAY_MS = 86_400_000;

export class Model {
  simulated = false;
  seenAt: SeenAt = "store";
  symbols: SymbolView[] = [];
  readonly bySymbol = new Map<string, SymbolView>();
  chosen: string | null = null;
  /** The seconds of the chosen symbol. */
  readonly seconds = new Map<number, SecondTuple>();
  status: Status | null = null;
  /** The server's clock at the last event, and ours (monotonic) when it came. */
  #serverMs = 0;
  #eventAtMs = Number.NEGATIVE_INFINITY;

  /** The server's time now, because the page's own clock may be wrong; 0 before the first event. */
  nowMs(): number {
    return this.#serverMs === 0 ? 0 : this.#serverMs + this.silentMs();
  }

  /** How long ago the last event came. */
  silentMs(): number {
    return performance.now() - this.#eventAtMs;
  }

  takeSnapshot(snapshot: Snapshot): void {
    const known = new Map(this.bySymbol);
    this.simulated = snapshot.simulated;
    this.seenAt = snapshot.seenAt;
    this.bySymbol.clear();
    this.symbols = snapshot.symbols.map(({ symbol, state, unreceived, last, open, spark }) => {
      const view: SymbolView = {
        symbol,
        state,
        unreceived,
        price: null,
        atMs: 0,
        open,
        rate: 0,
        decimals: known.get(symbol)?.decimals ?? 2,
        spark: spark.map(([bucket, price]) => [bucket, price]),
      };
      if (last !== null) takeLast(view, last[0], last[1]);
      this.bySymbol.set(symbol, view);
      return view;
    });
    if (snapshot.chosen !== this.chosen) this.seconds.clear();
    this.chosen = snapshot.chosen;
    this.#takeSeconds(snapshot.seconds, snapshot.nowMs);
    this.#takeStatus(snapshot.status);
    this.#takeTime(snapshot.nowMs);
  }

  /** Returns the symbols that have a new price. */
  takeDelta(delta: Delta): SymbolView[] {
    const moved: SymbolView[] = [];
    for (const [index, price, atMs] of delta.last ?? []) {
      const view = this.symbols[index];
      if (view === undefined) continue;
      takeLast(view, price, atMs);
      moved.push(view);
    }
    for (const [index, price, atMs] of delta.opens ?? []) {
      const view = this.symbols[index];
      if (view !== undefined) view.open = [price, atMs];
    }
    if (delta.seconds !== undefined) this.#takeSeconds(delta.seconds, delta.nowMs);
    if (delta.status !== undefined) this.#takeStatus(delta.status);
    this.#takeTime(delta.nowMs);
    return moved;
  }

  /** Adds seconds from history. Of two for the same second, the one with more trades has all of them. */
  takeHistory(symbol: string, seconds: readonly SecondTuple[]): void {
    if (symbol !== this.chosen) return;
    for (const second of seconds) {
      if ((this.seconds.get(second[0])?.[5] ?? 0) < second[5]) this.seconds.set(second[0], second);
    }
  }

  /**
   * The change since the first price of the UTC day, as a ratio; null while one of the two is not of today, and where
   * there is no ratio: the first price was zero or below.
   */
  changeOf({ price, open }: SymbolView): number | null {
    const nowMs = this.nowMs();
    if (price === null || open === null || open[1] < nowMs - (nowMs % DAY_MS)) return null;
    if (open[0] <= 0) return null;
    return price / open[0] - 1;
  }

  newestTradeAtMs(): number {
    return this.symbols.reduce((newest, { atMs }) => Math.max(newest, atMs), 0);
  }

  #takeSeconds(seconds: readonly SecondTuple[], nowMs: number): void {
    for (const second of seconds) if (second.every(Number.isFinite)) this.seconds.set(second[0], second);
    const oldest = nowMs / 1_000 - LINE_SECONDS - 5;
    for (const second of this.seconds.keys()) if (second < oldest) this.seconds.delete(second);
  }

  #takeStatus(status: Status): void {
    this.status = status;
    for (const [index, rate] of status.rates.entries()) {
      const view = this.symbols[index];
      if (view !== undefined) view.rate = rate;
    }
  }

  #takeTime(nowMs: number): void {
    this.#serverMs = nowMs;
    this.#eventAtMs = performance.now();
  }
}

function takeLast(view: SymbolView, price: number, atMs: number): void {
  if (!Number.isFinite(price) || !Number.isFinite(atMs)) return;
  view.price = price;
  view.atMs = atMs;
  view.decimals = Math.max(view.decimals, decimalsOf(price));
  const bucket = Math.floor(atMs / SPARK_BUCKET_MS);
  const newest = view.spark.at(-1);
  if (newest === undefined || bucket > newest[0]) view.spark.push([bucket, price]);
  else if (bucket === newest[0]) newest[1] = price;
  while ((view.spark[0]?.[0] ?? bucket) <= bucket - SPARK_BUCKETS) view.spark.shift();
}
