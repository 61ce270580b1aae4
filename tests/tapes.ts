// The recorded tapes, as lists of trades and as multisets: what went in, to be compared with what the tables hold.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseTape, type Tape } from "../lib/simulator/tape.ts";
import type { StoredTrade } from "./local-process.ts";
import type { PlainTrade } from "./reference.ts";

const TAPES = join(import.meta.dir, "../../shared/data");
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
  const text = new TextDecoder().decode(Bun.gunzipSync(await Bun.file(tapePath(name)).bytes()));
  return tradesOfFrames(
    text
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { frame: string }).frame),
  );
}

const fingerprint = (
  symbol: string,
  price: number,
  volume: number,
  atMs: number,
  conditions: string | null,
) => JSON.stringify([symbol, price, volume, atMs, conditions]);
export const ofTape = ({ s, p, v, t, c }: TapeTrade) => fingerprint(s, p, v, t, c ? JSON.stringify(c) : null);
export const ofRow = (row: StoredTrade) =>
  fingerprint(row.symbol, row.price, row.volume, row.trade_timestamp, row.trade_conditions);

export function counts(fingerprints: readonly string[]): Map<string, number> {
  const result = new Map<string, number>();
  for (const one of fingerprints) result.set(one, (result.get(one) ?? 0) + 1);
  return result;
}

/** What `from` holds more often than `other`, each as often as it is more. */
export function surplus(from: ReadonlyMap<string, number>, other: ReadonlyMap<string, number>): string[] {
  return [...from].flatMap(([one, count]) =>
    Array<string>(Math.max(0, count - (other.get(one) ?? 0))).fill(one),
  );
}

export const plainOf = ({ s: symbol, p: price, v: volume, t: atMs }: TapeTrade): PlainTrade => ({
  symbol,
  price,
  volume,
  atMs,
});

export const plainOfRow = (row: StoredTrade): PlainTrade => ({
  symbol: row.symbol,
  price: row.price,
  volume: row.volume,
  atMs: row.trade_timestamp,
  uuid: row.uuid,
});

/**
 * The tape's frames, byte for byte, at an even pace: squeezed as they came, an opening would be hundreds of thousands
 * of trades a second, and what the socket then holds at a kill is more than what was sent in its last moments.
 */
export async function evenly(name: string, durationMs: number): Promise<Tape> {
  const text = new TextDecoder().decode(Bun.gunzipSync(await Bun.file(tapePath(name)).bytes()));
  const frames = text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { at: number; frame: string });
  const startMs = frames[0]!.at;
  const paced = frames.map(({ frame }, index) =>
    JSON.stringify({ at: startMs + Math.floor((index * durationMs) / frames.length), frame }),
  );
  return parseTape(paced.join("\n"), name);
}
