// What one text frame of Finnhub's websocket holds. Values in, values out: it knows no socket, no clock and no
// counter. It never throws and never lets one bad element cost its neighbours; the order of keys has no meaning, and
// nothing it returns beside a trade is longer than a named limit, except what is refused: that is returned whole, as it
// was written.

import { parseObject } from "../base/json.ts";
import type { DeadReason } from "../model/dead-letter.ts";
import type { Trade } from "../model/trade.ts";
import { type BadTrade, badTrade, SYMBOL_LENGTH_MAX } from "../model/validate.ts";
import { messagesIn } from "./frame-split.ts";
import { elementTexts } from "./frame-text.ts";

/** What is refused: a whole frame, or one element written as a trade frame of its own. */
export type Refused = Readonly<{ reason: DeadReason; payload: string }>;

export type Frame =
  | { type: "trade"; trades: readonly Trade[]; refused: readonly Refused[] }
  | { type: "error"; message: string }
  | { type: "ping" | "news" | "pr" }
  | { type: "other"; name: string }
  | { type: "refused"; reason: DeadReason; payload: string };

/**
 * Characters. Bun's client accepts frames of any size (1.4.5: 40 MiB came through), while a trade frame of 30 trades has
 * 2,400: a longer one is not worth blocking the event loop for.
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

/**
 * A text frame is one message, or several; a broken one among them costs none of the others. `knownAtMs`: as badTrade has
 * it.
 */
export function parseFrames(text: string, knownAtMs: number): readonly Frame[] {
  const whole = parseFrame(text, knownAtMs);
  if (whole.type !== "refused" || whole.reason !== "garbage_frame") return [whole];
  const messages = messagesIn(text);
  // One that is as long as the text was asked about already.
  if (messages[0]?.length === text.length) return [whole];
  const frames = messages.map((message) => parseFrame(message, knownAtMs));
  // Nothing in it can be read: it stays in one piece.
  return frames.every(({ type }) => type === "refused") ? [whole] : frames;
}

/** One message. */
export function parseFrame(text: string, knownAtMs: number): Frame {
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
    return tradeFrame(data, text, knownAtMs);
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
function tradeFrame(data: readonly unknown[], text: string, knownAtMs: number): Frame {
  const trades: Trade[] = [];
  let refused: Refused[] | null = null;
  let texts: readonly string[] = NOTHING;
  for (let index = 0; index < data.length; index++) {
    const parsed = tradeFrom(data[index], knownAtMs);
    if (typeof parsed !== "string") {
      trades.push(parsed);
      continue;
    }
    if (refused === null) {
      refused = [];
      texts = elementTexts(text);
    }
    refused.push({ reason: parsed, payload: `{"data":[${texts[index]}],"type":"trade"}` });
  }
  return { type: "trade", trades, refused: refused ?? NOTHING };
}

function tradeFrom(element: unknown, knownAtMs: number): Trade | BadTrade {
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
  const trade = { symbol: s, price: p === 0 ? 0 : p, volume: v === 0 ? 0 : v, tradedAtMs: t, conditions };
  return badTrade(trade, knownAtMs) ?? trade;
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

/** The symbol that a refused trade names, as far as one can tell; null = none, or it is no trade at all. */
export function refusedSymbol(payload: string): string | null {
  const data = parseObject(payload)?.data;
  const symbol = Array.isArray(data) && data.length === 1 && isObject(data[0]) ? data[0].s : undefined;
  return typeof symbol === "string" && symbol !== "" ? symbol.slice(0, SYMBOL_LENGTH_MAX) : null;
}
