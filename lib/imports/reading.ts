// What formats.ts makes its readings of: a trade of fields as they come, the usual names of columns, conditions in their
// several writings. Values in, values out.

import type { Trade } from "../model/trade.ts";
import { numberOf, timeOf } from "./values.ts";

/** What a record turned out to be. `id`: of the source; null = it has none. `note`: what was made of it, for the report. */
export type Reading =
  | Readonly<{ kind: "trade"; trade: Trade; id: string | null; note?: string }>
  /** Of no use by its own word: a cancelled print, a quote. */
  | Readonly<{ kind: "skipped"; why: string }>
  /** Not what its format says. */
  | Readonly<{ kind: "refused"; why: string }>;

export const refused = (why: string): Reading => ({ kind: "refused", why });
export const skipped = (why: string): Reading => ({ kind: "skipped", why });

export const TIME = [
  "time",
  "timestamp",
  "trade_timestamp",
  "ts",
  "t",
  "date",
  "datetime",
  "gmt time",
  "local time",
  "transact_time",
];
export const PRICE = ["price", "p", "last", "trade_price", "px"];
export const SYMBOL = ["symbol", "s", "ticker", "instrument", "pair", "market"];
export const BID = ["bid", "bid_price", "bidprice"];
export const ASK = ["ask", "ask_price", "askprice"];
/** Ours -> what others call it. */
export const NAMES = {
  symbol: SYMBOL,
  time: TIME,
  price: PRICE,
  volume: ["volume", "v", "size", "qty", "quantity", "amount", "vol", "trade_size"],
  conditions: ["trade_conditions", "conditions", "c"],
  id: ["uuid", "id", "trade_id", "tradeid", "tid"],
} as const;

/** The column of one of these names, in any case. */
export function find(columns: readonly string[], names: readonly string[]): string | undefined {
  for (const name of names) {
    const column = columns.find((one) => one.trim().toLowerCase() === name);
    if (column !== undefined) return column;
  }
  return undefined;
}

export function has(columns: readonly string[], ...names: readonly string[]): boolean {
  return names.every((name) => columns.includes(name));
}

export function text(value: unknown): string {
  return value === undefined || value === null ? "" : String(value).trim();
}

export function reading(
  symbol: unknown,
  time: unknown,
  price: unknown,
  volume: unknown,
  conditions: Trade["conditions"],
): Reading {
  const name = text(symbol);
  const [tradedAtMs, priceNow, volumeNow] = [timeOf(time), numberOf(price), numberOf(volume)];
  if (name === "") return refused("no symbol: give --symbol");
  if (tradedAtMs === null) return refused(`not a time: ${text(time).slice(0, 40)}`);
  if (priceNow === null) return refused(`not a price: ${text(price).slice(0, 40)}`);
  if (volumeNow === null) return refused(`not a size: ${text(volume).slice(0, 40)}`);
  return {
    kind: "trade",
    trade: { symbol: name, price: priceNow, volume: volumeNow, tradedAtMs, conditions },
    id: null,
  };
}

export function withId(found: Reading, id: unknown): Reading {
  const name = text(id);
  return found.kind === "trade" && name !== "" ? { ...found, id: name } : found;
}

/** Undefined: it is no list of codes. A text without brackets is one code, or several with commas. */
export function conditionsOf(value: unknown): Trade["conditions"] | undefined {
  if (value === null || value === undefined) return null;
  if (Array.isArray(value)) return value.map((code) => (code === null ? null : String(code)));
  const codes = text(value);
  if (codes === "") return null;
  if (!codes.startsWith("[")) return codes.split(/\s*,\s*/);
  try {
    const list: unknown = JSON.parse(codes);
    const isList = Array.isArray(list) && list.every((code) => code === null || typeof code === "string");
    return isList ? (list as (string | null)[]) : undefined;
  } catch {
    return undefined;
  }
}
