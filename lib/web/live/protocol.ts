// What the live stream sends and the page reads: its types, and the few numbers that both must agree on. No state is kept
// here. Lists instead of objects where something comes ten times a second.

import { AGGREGATES } from "../../model/aggregates.ts";

/** A sparkline is the last price of each such bucket. */
export const SPARK_BUCKET_MS = 5_000;
export const SPARK_BUCKETS = 60;
/** How far back the price line goes, a point a second. */
export const LINE_SECONDS = 300;
/** Trades/s are the mean of this many whole seconds, by receipt. */
export const RATE_SECONDS = 10;
/** A status goes out this often, also when nothing else does: it is the stream's heartbeat. */
export const STATUS_EVERY_MS = 1_000;
/** One stream serves all tabs of a browser: so many symbols can be chosen in them. A symbol's five minutes are 10 KB. */
export const CHOSEN_MAX = 32;
/** A client says this often that it reads; three in a row may be lost before its place counts as free. */
export const READING_EVERY_MS = 4_000;
/** Widths of candles that are merged from those of a minute, in ms. */
const MERGED_WIDTHS_MS = [300_000, 3_600_000];
/** The widths of the stored candles and of the merged ones in ms, by name, narrowest first: of GET /candles and the page. */
export const INTERVALS_MS: Readonly<Record<string, number>> = Object.fromEntries(
  [...AGGREGATES.flatMap((one) => (one.shape === "candle" ? [one.widthMs] : [])), ...MERGED_WIDTHS_MS]
    .sort((a, b) => a - b)
    .map((widthMs) => [intervalName(widthMs), widthMs]),
);
export type Interval = string;

function intervalName(widthMs: number): string {
  if (widthMs % 3_600_000 === 0) return `${widthMs / 3_600_000}h`;
  return widthMs % 60_000 === 0 ? `${widthMs / 60_000}m` : `${widthMs / 1_000}s`;
}

/** [index in the snapshot's symbols, price, when it counts as traded (countsAtMs)] */
export type LastTuple = readonly [index: number, price: number, atMs: number];
/** The first trade since midnight UTC; its day is that of atMs. */
export type OpenTuple = readonly [index: number, price: number, atMs: number];
/** What was traded in one second of event time, as far as the view heard of it since the start. */
export type SecondTuple = readonly [
  second: number,
  close: number,
  high: number,
  low: number,
  volume: number,
  tradeCount: number,
];

export type SymbolSeconds = readonly [symbol: string, seconds: readonly SecondTuple[]];

export type SeenAt = "store" | "topic";

type SnapshotSymbol = Readonly<{
  symbol: string;
  state: "subscribed" | "unsubscribed" | "wanted";
  /** Why it is not received, and since when; null = it is, as far as is known. */
  unreceived: readonly [reason: string, sinceMs: number] | null;
  last: readonly [price: number, atMs: number] | null;
  open: readonly [price: number, atMs: number] | null;
  /** [bucket number since 1970, price], oldest first. */
  spark: readonly (readonly [bucket: number, price: number])[];
}>;

export type Status = Readonly<{
  /** Trades/s of each symbol, in the snapshot's order, by receipt in [rateEndMs - RATE_SECONDS s, rateEndMs). */
  rates: readonly number[];
  rateEndMs: number;
  /** From receipt to where the view hears of a trade, over the last seconds; null = none came in them. */
  latency: Readonly<{ p50Ms: number; p99Ms: number; tradeCount: number }> | null;
  health: Readonly<{ status: "ok" | "failing"; reason: string | null; warnings: readonly string[] }>;
}>;

export type Snapshot = Readonly<{
  nowMs: number;
  simulated: boolean;
  /** Where the view hears of a trade: when its row is stored, or before that, when it is on the topic. */
  seenAt: SeenAt;
  symbols: readonly SnapshotSymbol[];
  /** The place that the server holds for the stream: who posts it to /events/{place} says that he reads. */
  place: string;
  /** The symbol that was asked for, and its seconds. */
  chosen: string | null;
  seconds: readonly SecondTuple[];
  /** The same of each symbol of `also`. */
  others?: readonly SymbolSeconds[];
  status: Status;
}>;

export type Delta = Readonly<{
  nowMs: number;
  last?: readonly LastTuple[];
  opens?: readonly OpenTuple[];
  seconds?: readonly SecondTuple[];
  others?: readonly SymbolSeconds[];
  status?: Status;
}>;
