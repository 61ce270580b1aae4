// What the store knows of a symbol, by the JSON routes. A request that fails is not reported: it is repeated seconds
// later, and the badge shows a lost connection.

import type { Interval, SecondTuple } from "../live/protocol.ts";
import { DAY_MS } from "./model.ts";

export type Candle = Readonly<{
  window_start: number;
  open: number;
  high: number;
  low: number;
  close: number;
}>;
export type Average = Readonly<{ window_end: number; average_price: number }>;
type TradeItem = Readonly<{ trade_timestamp: number; price: number; volume: number }>;
type Page<Item> = Readonly<{ items: readonly Item[]; next: string | null }>;

/** A later answer counts as none. */
const ANSWER_MS_MAX = 5_000;
/** How far back a chart can be scrolled; without it a page would hold a day. */
const CANDLES_BACK_MS = 31 * DAY_MS;

async function request<Item>(
  path: string,
  parameters: Readonly<Record<string, string | number>>,
): Promise<Page<Item> | null> {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) query.set(name, String(value));
  return requestUrl(`${path}?${query}`);
}

async function requestUrl<Item>(url: string): Promise<Page<Item> | null> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(ANSWER_MS_MAX) });
    return response.ok ? ((await response.json()) as Page<Item>) : null;
  } catch {
    return null;
  }
}

/** The newest trades by the second, oldest first; only seconds whose trades are all in the page. */
export async function requestSeconds(symbol: string, fromMs: number): Promise<SecondTuple[]> {
  const page = await request<TradeItem>("/trades", { symbol, from: Math.floor(fromMs), limit: 1_000 });
  const items = page?.items ?? [];
  const seconds = new Map<number, SecondTuple>();
  for (const { trade_timestamp, price, volume } of items) {
    const second = Math.floor(trade_timestamp / 1_000);
    const known = seconds.get(second); // Newest first: what is known came later, and is its close.
    const [, close, high, low, sum, count] = known ?? [second, price, price, price, 0, 0];
    seconds.set(second, [
      second,
      close,
      Math.max(high, price),
      Math.min(low, price),
      sum + volume,
      count + 1,
    ]);
  }
  const oldest = items.at(-1);
  if (oldest !== undefined && page?.next) seconds.delete(Math.floor(oldest.trade_timestamp / 1_000));
  return [...seconds.values()].sort(([a], [b]) => a - b);
}

export async function requestAverages(symbol: string, fromMs: number): Promise<readonly Average[]> {
  return (await request<Average>("/averages", { symbol, from: Math.floor(fromMs), limit: 200 }))?.items ?? [];
}

export function requestCandles(
  symbol: string,
  interval: Interval,
  nowMs: number,
  limit: number,
): Promise<Page<Candle> | null> {
  const untilMs = Math.floor(nowMs);
  // Without an end a candle of a trade that is dated ahead would be the newest one.
  return request<Candle>("/candles", {
    symbol,
    interval,
    from: untilMs - CANDLES_BACK_MS,
    to: untilMs + 1,
    limit,
  });
}

export function requestOlder(next: string): Promise<Page<Candle> | null> {
  return requestUrl<Candle>(next);
}
