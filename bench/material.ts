// What the questions are asked about: frames of the seeded market, and the messages and rows that come of them.
// Made before anything is measured. The floors get plain texts and arrays of it.

import { tradeUuids } from "../lib/model/identity.ts";
import { type Message, type Trade, type TradeRow, tradeRow } from "../lib/model/trade.ts";
import { frameText, type WireTrade } from "../lib/simulator/frames.ts";
import { createMarket } from "../lib/simulator/market.ts";

export type MarketFrame = Readonly<{ atMs: number; trades: readonly WireTrade[] }>;

/** Half crypto, half stocks, as many as the free plan streams. */
export const SYMBOLS: readonly string[] = Array.from({ length: 50 }, (_, index) =>
  index % 2 === 0 ? `BINANCE:COIN${index}USDT` : `S${String.fromCharCode(65 + (index >> 1))}K`,
);
const SEED = 1;
const SESSION = "0badcafe";
/** The market refuses to be asked for more than a few seconds at once: it would take that for a jump. */
const STEP_MS = 1_000;

/** Frames with at least so many trades, due from the moment on. */
export function marketFrames(tradeCountMin: number, tradesPerSecond: number, fromMs: number): MarketFrame[] {
  const market = createMarket({ seed: SEED, tradesPerSecond });
  for (const symbol of SYMBOLS) market.start(symbol, fromMs);
  market.framesUntil(fromMs);
  const frames: MarketFrame[] = [];
  let tradeCount = 0;
  for (let untilMs = fromMs + STEP_MS; tradeCount < tradeCountMin; untilMs += STEP_MS) {
    for (const frame of market.framesUntil(untilMs)) {
      frames.push(frame);
      tradeCount += frame.trades.length;
    }
  }
  return frames;
}

export function textsOf(frames: readonly MarketFrame[]): string[] {
  return frames.map(({ trades }) => frameText(trades));
}

export function tradeCountOf(frames: readonly Readonly<{ trades: readonly unknown[] }>[]): number {
  return frames.reduce((sum, { trades }) => sum + trades.length, 0);
}

/** One message a symbol of each frame, as the first loop makes them when a tick holds one frame. */
export function messagesOf(frames: readonly MarketFrame[]): Message[] {
  const messages: Message[] = [];
  for (const { atMs, trades } of frames) {
    const bySymbol = Map.groupBy(trades.map(tradeOfWire), ({ symbol }) => symbol);
    for (const ofSymbol of bySymbol.values()) {
      const sequence = messages.length + 1;
      messages.push({ session: SESSION, sequence, receivedAtMs: Math.floor(atMs), trades: ofSymbol });
    }
  }
  return messages;
}

export function rowsOf(messages: readonly Message[]): TradeRow[] {
  return messages.flatMap(({ session, sequence, receivedAtMs, trades }) => {
    const uuidOf = tradeUuids(session, sequence, receivedAtMs);
    return trades.map((trade, index) => tradeRow(trade, uuidOf(index), receivedAtMs));
  });
}

function tradeOfWire({ c, p, s, t, v }: WireTrade): Trade {
  return { symbol: s, price: p, volume: v, tradedAtMs: t, conditions: c ?? null };
}
