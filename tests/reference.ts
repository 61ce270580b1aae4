// What the tables must hold, computed from scratch out of a list of trades, in the plainest way. It imports
// nothing of lib on purpose: a mistake there must not be made here again.

import { type Dyadic, dyadicOf, nearest, nearestQuotient, plus, times, ZERO } from "./support/dyadic.ts";

/** One trade; its place in the list is its place among equal times, unless `uuid` says otherwise. */
export type PlainTrade = { symbol: string; price: number; volume: number; atMs: number; uuid?: string };

export type PlainAverage = {
  symbol: string;
  hour: number;
  window_end: number;
  price_volume_multiply: number;
  average_price: number;
  vwap: number | null;
  volume: number;
  trade_count: number;
};

export type PlainCandle = {
  symbol: string;
  day: string;
  window_start: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  price_volume_sum: number;
  vwap: number | null;
  trade_count: number;
};

/** A row of any aggregate; a kind is a name that the caller chose. */
export type PlainWindow = { kind: string; row: PlainAverage | PlainCandle };
export type PlainAggregate = Readonly<{
  kind: string;
  shape: "average" | "candle";
  widthMs: number;
  stepMs: number;
}>;

/** Every window of these aggregates that holds a trade, by aggregate, symbol and time. */
export function windowsOf(
  trades: readonly PlainTrade[],
  aggregates: readonly PlainAggregate[],
): PlainWindow[] {
  return aggregates.flatMap(({ kind, shape, widthMs, stepMs }) =>
    (shape === "average" ? averagesOf(trades, widthMs, stepMs) : candlesOf(trades, widthMs)).map((row) => ({
      kind,
      row,
    })),
  );
}

/** In how many windows a trade is. */
export function windowsPerTrade(aggregates: readonly PlainAggregate[]): number {
  return aggregates.reduce((sum, { widthMs, stepMs }) => sum + widthMs / stepMs, 0);
}

/** The times under which the windows that hold a trade of this time are stored: an average by its end. */
export function windowTimesOf(atMs: number, { shape, widthMs, stepMs }: PlainAggregate): number[] {
  if (shape === "candle") return [Math.floor(atMs / widthMs) * widthMs];
  const firstEnd = (Math.floor(atMs / stepMs) + 1) * stepMs;
  return Array.from({ length: widthMs / stepMs }, (_, later) => firstEnd + later * stepMs);
}

/** The time under which a row is stored. */
export function timeOf(row: PlainAverage | PlainCandle): number {
  return "window_end" in row ? row.window_end : row.window_start;
}

/** Every 15-second window that ends at a multiple of 5 s and holds a trade, by symbol and end; others if asked. */
export function averagesOf(trades: readonly PlainTrade[], widthMs = 15_000, stepMs = 5_000): PlainAverage[] {
  const windows = new Map<string, { symbol: string; end: number; trades: PlainTrade[] }>();
  for (const trade of trades) {
    // An end e belongs to the trade when e - 15 s <= at < e.
    const firstEnd = (Math.floor(trade.atMs / stepMs) + 1) * stepMs;
    for (let end = firstEnd; end - widthMs <= trade.atMs; end += stepMs) {
      const key = `${trade.symbol} ${end}`;
      if (!windows.has(key)) windows.set(key, { symbol: trade.symbol, end, trades: [] });
      windows.get(key)!.trades.push(trade);
    }
  }
  return [...windows.values()]
    .map(({ symbol, end, trades: inside }) => {
      const { pv, p, v } = sums(inside);
      const count = dyadicOf(inside.length);
      return {
        symbol,
        hour: Math.floor(end / 3_600_000) * 3_600_000,
        window_end: end,
        price_volume_multiply: nearestQuotient(pv, count),
        average_price: nearestQuotient(p, count),
        vwap: vwapOf(pv, v),
        volume: nearest(v),
        trade_count: inside.length,
      };
    })
    .sort((a, b) => (a.symbol < b.symbol ? -1 : a.symbol > b.symbol ? 1 : a.window_end - b.window_end));
}

/** Every minute that holds a trade, by symbol and start; other widths if asked. */
export function candlesOf(trades: readonly PlainTrade[], widthMs = 60_000): PlainCandle[] {
  const minutes = new Map<string, { symbol: string; start: number; trades: PlainTrade[] }>();
  for (const trade of trades) {
    const start = Math.floor(trade.atMs / widthMs) * widthMs;
    const key = `${trade.symbol} ${start}`;
    if (!minutes.has(key)) minutes.set(key, { symbol: trade.symbol, start, trades: [] });
    minutes.get(key)!.trades.push(trade);
  }
  return [...minutes.values()]
    .map(({ symbol, start, trades: inside }) => {
      const { pv, v } = sums(inside);
      const ordered = inside.toSorted(
        (a, b) =>
          a.atMs - b.atMs || ((a.uuid ?? "") < (b.uuid ?? "") ? -1 : (a.uuid ?? "") > (b.uuid ?? "") ? 1 : 0),
      );
      const prices = inside.map(({ price }) => price);
      return {
        symbol,
        day: new Date(start).toISOString().slice(0, 10),
        window_start: start,
        open: ordered[0]!.price,
        high: prices.reduce((a, b) => Math.max(a, b)),
        low: prices.reduce((a, b) => Math.min(a, b)),
        close: ordered.at(-1)!.price,
        volume: nearest(v),
        price_volume_sum: nearest(pv),
        vwap: vwapOf(pv, v),
        trade_count: inside.length,
      };
    })
    .sort((a, b) => (a.symbol < b.symbol ? -1 : a.symbol > b.symbol ? 1 : a.window_start - b.window_start));
}

/** Exact: each figure of a row is rounded once, from these. */
function sums(trades: readonly PlainTrade[]) {
  let [pv, p, v] = [ZERO, ZERO, ZERO];
  for (const { price, volume } of trades) {
    const [exactPrice, exactVolume] = [dyadicOf(price), dyadicOf(volume)];
    pv = plus(pv, times(exactPrice, exactVolume));
    p = plus(p, exactPrice);
    v = plus(v, exactVolume);
  }
  return { pv, p, v };
}

function vwapOf(pv: Dyadic, v: Dyadic): number | null {
  return nearest(v) === 0 ? null : nearestQuotient(pv, v);
}
