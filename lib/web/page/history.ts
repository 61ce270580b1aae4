// What the store knows of a symbol, by the JSON routes: each list whole, over as many pages as it has. What is handed on is
// numeric. Null is "could not be asked"; whoever asked does so again seconds later.

import type { Interval, SecondTuple } from "../live/protocol.ts";

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
type Range = Readonly<{ fromMs: number; toMs: number }>;

/** A later answer counts as none. */
const ANSWER_MS_MAX = 5_000;
/** What the server gives at most. */
const PAGE_ITEMS_MAX = 1_000;
/** A month of candles, which is as far as one can scroll. */
const PAGES_MAX = 45;
/** The trades of the line's five minutes at 20 a second; a busier symbol's line begins later after a restart. */
const SECONDS_PAGES_MAX = 6;

async function requestPage<Item>(
  address: string,
  isWhole: (item: Item) => boolean,
): Promise<Page<Item> | null> {
  try {
    const response = await fetch(address, { signal: AbortSignal.timeout(ANSWER_MS_MAX) });
    if (!response.ok) return null;
    const { items, next } = (await response.json()) as Page<Item>;
    return { items: items.filter(isWhole), next: next === null ? null : relative(next) };
  } catch {
    return null;
  }
}

/** The page may stand below a prefix, of which the server knows nothing. */
function relative(address: string): string {
  return address.replace(/^\/+/, "");
}

function addressOf(path: string, parameters: Readonly<Record<string, string | number>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) query.set(name, String(value));
  return `${path}?${query}`;
}

/** Page after page; `isWhole` false: there were more pages than `pagesMax`. */
async function requestAll<Item>(
  address: string,
  isNumeric: (item: Item) => boolean,
  pagesMax: number,
): Promise<Readonly<{ items: readonly Item[]; isWhole: boolean }> | null> {
  const items: Item[] = [];
  let next: string | null = address;
  for (let count = 0; next !== null; count++) {
    if (count === pagesMax) return { items, isWhole: false };
    const page: Page<Item> | null = await requestPage(next, isNumeric);
    if (page === null) return null;
    items.push(...page.items);
    next = page.next;
  }
  return { items, isWhole: true };
}

const areNumbers = (...values: readonly unknown[]) => values.every((value) => Number.isFinite(value));
const isCandle = (one: Candle) => areNumbers(one.window_start, one.open, one.high, one.low, one.close);
const isAverage = (one: Average) => areNumbers(one.window_end, one.average_price);
const isTrade = (one: TradeItem) => areNumbers(one.trade_timestamp, one.price, one.volume);

/** The trades by the second, oldest first; only seconds whose trades are all known. */
export async function requestSeconds(symbol: string, fromMs: number): Promise<SecondTuple[] | null> {
  const address = addressOf("trades", { symbol, from: Math.floor(fromMs), limit: PAGE_ITEMS_MAX });
  const found = await requestAll(address, isTrade, SECONDS_PAGES_MAX);
  if (found === null) return null;
  const seconds = new Map<number, SecondTuple>();
  for (const { trade_timestamp, price, volume } of found.items) {
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
  const oldest = found.items.at(-1);
  if (oldest !== undefined && !found.isWhole) seconds.delete(Math.floor(oldest.trade_timestamp / 1_000));
  return [...seconds.values()].sort(([a], [b]) => a - b);
}

export async function requestAverages(symbol: string, fromMs: number): Promise<readonly Average[] | null> {
  const address = addressOf("averages", { symbol, from: Math.floor(fromMs), limit: 200 });
  return (await requestAll(address, isAverage, PAGES_MAX))?.items ?? null;
}

/** The newest of the range, and the address of those before them. */
export function requestCandles(
  symbol: string,
  interval: Interval,
  { fromMs, toMs }: Range,
  limit: number,
): Promise<Page<Candle> | null> {
  return requestPage(addressOf("candles", { symbol, interval, from: fromMs, to: toMs, limit }), isCandle);
}

/** All of the range. */
export async function requestAllCandles(
  symbol: string,
  interval: Interval,
  { fromMs, toMs }: Range,
): Promise<readonly Candle[] | null> {
  const address = addressOf("candles", { symbol, interval, from: fromMs, to: toMs, limit: PAGE_ITEMS_MAX });
  return (await requestAll(address, isCandle, PAGES_MAX))?.items ?? null;
}

export function requestOlder(next: string): Promise<Page<Candle> | null> {
  return requestPage(next, isCandle);
}
