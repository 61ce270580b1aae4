// What one text frame of Finnhub's websocket holds. Values in, values out: it knows no socket, no clock and no
// counter. It promises never to throw and never to let one bad element cost its neighbours; it takes no
// meaning from the order of keys, and nothing it returns beside a trade is longer than a named limit, except
// what is refused: that is handed back whole, as it was written.

import type { DeadReason } from "../model/dead-letter.ts";
import type { Trade } from "../model/trade.ts";
import { type BadTrade, badTrade } from "../model/validate.ts";

/** What could not be taken: a whole frame, or one element written as a trade frame of its own. */
export type Refused = Readonly<{ reason: DeadReason; payload: string }>;

export type Frame =
  | { type: "trade"; trades: readonly Trade[]; refused: readonly Refused[] }
  | { type: "error"; message: string }
  | { type: "ping" | "news" | "pr" }
  | { type: "other"; name: string }
  | { type: "refused"; reason: DeadReason; payload: string };

/**
 * Characters. Bun's client takes frames of any size (1.4.5: 40 MiB came through), while a trade frame of 30
 * trades has 2,400: beyond this it is not worth blocking the loop to parse it.
 */
export const FRAME_LENGTH_MAX = 16 * 1024 * 1024;
/** What is kept of a longer one: enough to see what it was, little enough for one record of a topic. */
const LONG_FRAME_LENGTH_KEPT = 65_536;
/** Longest known: "Subscribing to too many symbols". It goes into events and log lines. */
const MESSAGE_LENGTH_MAX = 200;
const NAME_LENGTH_MAX = 40;

const NOTHING: readonly never[] = [];
const PING: Frame = { type: "ping" };
const NEWS: Frame = { type: "news" };
const PR: Frame = { type: "pr" };

export function parseFrame(text: string, receivedAtMs: number): Frame {
  if (text.length > FRAME_LENGTH_MAX) {
    return { type: "refused", reason: "frame_too_long", payload: text.slice(0, LONG_FRAME_LENGTH_KEPT) };
  }
  const frame = parseJson(text);
  if (!isObject(frame) || typeof frame.type !== "string") {
    return { type: "refused", reason: "garbage_frame", payload: text };
  }
  const { type, data } = frame;
  if (type === "trade") {
    if (!Array.isArray(data)) return { type: "refused", reason: "bad_frame", payload: text };
    return tradeFrame(data, text, receivedAtMs);
  }
  // Nobody knows what a trade under another name means, so it is no trade; but it is not thrown away either.
  if (data !== undefined && holdsTrades(data)) {
    return { type: "refused", reason: "unknown_frame", payload: text };
  }
  switch (type) {
    case "ping":
      return PING;
    case "news":
      return NEWS;
    case "pr":
      return PR;
    case "error":
      return { type, message: shortened(frame.msg, MESSAGE_LENGTH_MAX) };
    default:
      return { type: "other", name: shortened(type, NAME_LENGTH_MAX) };
  }
}

/** The one pass over the elements. Nothing is allocated for a good frame but its trades and their list. */
function tradeFrame(data: readonly unknown[], text: string, receivedAtMs: number): Frame {
  const trades: Trade[] = [];
  let refused: Refused[] | null = null;
  let texts: readonly string[] = NOTHING;
  for (let index = 0; index < data.length; index++) {
    const looked = tradeOf(data[index], receivedAtMs);
    if (typeof looked !== "string") {
      trades.push(looked);
      continue;
    }
    if (refused === null) {
      refused = [];
      texts = elementTexts(text);
    }
    refused.push({ reason: looked, payload: `{"data":[${texts[index]}],"type":"trade"}` });
  }
  return { type: "trade", trades, refused: refused ?? NOTHING };
}

function tradeOf(element: unknown, receivedAtMs: number): Trade | BadTrade {
  if (!isObject(element)) return "not_a_trade";
  const { s, p, v, t, c } = element;
  if (typeof s !== "string") return "bad_symbol";
  if (typeof p !== "number") return "bad_price";
  if (typeof v !== "number") return "bad_volume";
  if (typeof t !== "number") return "bad_time";
  let conditions: Trade["conditions"] = null;
  if (c !== undefined && c !== null) {
    if (!isConditions(c)) return "bad_conditions";
    conditions = c;
  }
  // Minus zero would make two texts of one number in the store.
  const trade = { symbol: s, price: p, volume: v === 0 ? 0 : v, tradedAtMs: t, conditions };
  return badTrade(trade, receivedAtMs) ?? trade;
}

function isConditions(value: unknown): value is readonly (string | null)[] {
  if (!Array.isArray(value)) return false;
  for (const condition of value) if (typeof condition !== "string" && condition !== null) return false;
  return true;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function holdsTrades(data: unknown): boolean {
  return Array.isArray(data) ? data.some(looksLikeTrade) : looksLikeTrade(data);
}

function looksLikeTrade(value: unknown): boolean {
  return isObject(value) && value.p !== undefined && value.s !== undefined && value.t !== undefined;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function shortened(value: unknown, lengthMax: number): string {
  return typeof value === "string" ? value.slice(0, lengthMax).toWellFormed() : "";
}

/**
 * The elements of the list under the key `data`, as they are written in a text that is known to be JSON. A
 * refused element must be kept as it was: written anew, 1e999 would be null and a long number another one.
 */
function elementTexts(text: string): readonly string[] {
  let texts: string[] = [];
  let depth = 0;
  let start = -1; // Of the element being read; -1 outside of the list.
  let key = ""; // The last string of the outermost object: before an opening bracket that is the key.
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '"': {
        const end = closingQuote(text, at);
        if (depth === 1) key = JSON.parse(text.slice(at, end + 1)) as string;
        at = end;
        break;
      }
      case "{":
      case "[":
        depth++;
        if (depth === 2 && key === "data" && text[at] === "[") {
          texts = []; // A key that stands twice: the last one counts, as it does for JSON.parse.
          start = at + 1;
        }
        break;
      case "}":
      case "]":
        depth--;
        if (depth === 1 && start >= 0) {
          texts.push(text.slice(start, at).trim());
          start = -1;
        }
        break;
      case ",":
        if (depth === 2 && start >= 0) {
          texts.push(text.slice(start, at).trim());
          start = at + 1;
        }
        break;
    }
  }
  return texts;
}

function closingQuote(text: string, openingAt: number): number {
  let at = openingAt + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at;
}

/** Slots; a burst of 200 ms on the busiest recorded tape holds a few hundred trades. A power of two. */
const DUPLICATE_SLOTS = 4096;
/** The copies of the 2026 recording came 18 to 97 ms after their first (finnhub.md 4.1). */
export const DUPLICATE_WITHIN_MS = 200;

/**
 * Tells whether a trade equals one that came shortly before. Only a hint: 8 to 25 % of genuine prints are
 * equal to another one, so whoever asks may count but never drop. One slot a hash: when two different trades
 * meet in it the older one is forgotten, which can miss a copy but never invents one.
 */
export function createDuplicateHint(): (trade: Trade, receivedMonotonicMs: number) => boolean {
  const trades: (Trade | undefined)[] = new Array(DUPLICATE_SLOTS).fill(undefined);
  const seenMs = new Float64Array(DUPLICATE_SLOTS);
  const double = new Float64Array(2);
  const words = new Int32Array(double.buffer);
  return (trade, receivedMonotonicMs) => {
    double[0] = trade.price;
    double[1] = trade.volume;
    let hash = Math.imul(words[0]! ^ words[1]!, 0x9e3779b1) ^ Math.imul(words[2]! ^ words[3]!, 0x85ebca6b);
    hash = Math.imul(hash ^ trade.tradedAtMs, 0xc2b2ae35);
    const slot = (hash ^ (hash >>> 15)) & (DUPLICATE_SLOTS - 1);
    const before = trades[slot];
    const hit =
      before !== undefined &&
      receivedMonotonicMs - seenMs[slot]! <= DUPLICATE_WITHIN_MS &&
      before.tradedAtMs === trade.tradedAtMs &&
      before.price === trade.price &&
      before.volume === trade.volume &&
      before.symbol === trade.symbol &&
      sameConditions(before.conditions, trade.conditions);
    trades[slot] = trade;
    seenMs[slot] = receivedMonotonicMs;
    return hit;
  };
}

function sameConditions(left: Trade["conditions"], right: Trade["conditions"]): boolean {
  if (left === null || right === null || left.length !== right.length) return left === right;
  for (let index = 0; index < left.length; index++) if (left[index] !== right[index]) return false;
  return true;
}
