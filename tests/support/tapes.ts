// The recorded tapes, as lists of trades and as tapes to play: what goes in.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseTape, type Tape } from "../../lib/simulator/tape.ts";

const TAPES = join(import.meta.dir, "../../../shared/data");
export const tapes = [
  { name: "crypto", tradeCount: 15_863, symbols: ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"] },
  { name: "stocks", tradeCount: 84_293, symbols: ["IBM", "SPY"] },
  { name: "forex", tradeCount: 20_000, symbols: ["OANDA:EUR_USD"] },
] as const;

export const hasTapes = existsSync(TAPES);
if (!hasTapes)
  console.error(`SKIPPED: the recorded tapes are not at ${TAPES}, so nothing is proven on real input`);

export type TapeTrade = { s: string; p: number; v: number; t: number; c?: string[] | null };

export function tapePath(name: string): string {
  return join(TAPES, `${name}.ndjson.gz`);
}

export function tradesOfFrames(frames: readonly string[]): TapeTrade[] {
  return frames.flatMap((text) => {
    const frame = JSON.parse(text) as { type: string; data?: TapeTrade[] };
    return frame.type === "trade" ? frame.data! : [];
  });
}

export async function tapeTrades(name: string): Promise<TapeTrade[]> {
  return tradesOfFrames((await linesOf(name)).map(({ frame }) => frame));
}

async function linesOf(name: string): Promise<{ at: number; frame: string }[]> {
  const text = new TextDecoder().decode(Bun.gunzipSync(await Bun.file(tapePath(name)).bytes()));
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { at: number; frame: string });
}

/**
 * The tape's frames, byte for byte, at an even pace: squeezed as they came, an opening would be hundreds of thousands
 * of trades a second, and what the socket then holds at a kill is more than what was sent in its last moments.
 */
export async function evenly(name: string, durationMs: number): Promise<Tape> {
  const frames = await linesOf(name);
  const startMs = frames[0]!.at;
  const paced = frames.map(({ frame }, index) =>
    JSON.stringify({ at: startMs + Math.floor((index * durationMs) / frames.length), frame }),
  );
  return parseTape(paced.join("\n"), name);
}
