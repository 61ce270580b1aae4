// Question: how many trades a second does one core read out of Finnhub's text frames, each field checked?

import { parseFrame } from "../lib/finnhub/frame.ts";
import { parseFloor } from "./floors.ts";
import { marketFrames, textsOf, tradeCountOf } from "./material.ts";
import { type Figure, ratesOf } from "./measure.ts";

const TRADES = 300_000;
/** Of the same texts, so that a run takes some hundred ms. */
const REPEATS = 5;
/** Of the market: how full its frames are. */
const TRADES_PER_SECOND = 5_000;

export async function parse(): Promise<Figure[]> {
  const nowMs = Date.now();
  const frames = marketFrames(TRADES, TRADES_PER_SECOND, nowMs);
  const texts = Array.from({ length: REPEATS }, () => textsOf(frames)).flat();
  const count = tradeCountOf(frames) * REPEATS;
  const ours = () => {
    let taken = 0;
    for (const text of texts) {
      const frame = parseFrame(text, nowMs);
      if (frame.type === "trade") taken += frame.trades.length;
    }
    if (taken !== count) throw new Error(`${taken} of ${count} trades were taken`);
  };
  const floor = () => void parseFloor(texts);
  const goal = { of: "ratio", atLeast: 0.6 } as const;
  return [await ratesOf({ name: "parse", unit: "trades/s", count, goal, ours, floor })];
}
