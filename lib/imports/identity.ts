// The identity of a trade that somebody else recorded. Where its source has ids, they are it. Where it has none, it is
// what the trade is (symbol, time, price, volume, conditions) and the how-manieth equal one of its file it is: two equal
// prints are two trades, and the same file, or another that holds the same millisecond in whole, gives the same ones.

import { createHash } from "node:crypto";
import { tradeUuids } from "../model/identity.ts";
import type { Trade } from "../model/trade.ts";

/** Equal prints stand close together. Contents that are remembered, some 20 MB. */
const CONTENTS_MAX = 100_000;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** `id`: of the source, unique among the trades of one symbol; null = it has none. `place`: in the file, from 1. */
export type Identifier = (trade: Trade, id: string | null, place: number) => string;

/** For one file. `space`: the ids of one source are not those of another. */
export function identifier(space: string, fileName: string): Identifier {
  /** How often each content came, the longest untouched first. */
  const counts = new Map<string, { nth: number; trade: Trade }>();
  /** By symbol, the newest trade among the forgotten: at or before it an equal one may have been. */
  const forgotten = new Map<string, number>();
  return (trade, id, place) => {
    if (id !== null) return UUID.test(id) ? id : uuidOf(trade.tradedAtMs, [space, trade.symbol, id]);
    const { symbol, tradedAtMs, price, volume, conditions } = trade;
    const content = JSON.stringify([symbol, tradedAtMs, price, volume, conditions]);
    // Far out of order, only the place in this file tells equal prints apart.
    if (tradedAtMs <= (forgotten.get(symbol) ?? Number.NEGATIVE_INFINITY))
      return uuidOf(tradedAtMs, [content, fileName, String(place)]);
    const nth = (counts.get(content)?.nth ?? 0) + 1;
    counts.delete(content);
    counts.set(content, { nth, trade });
    if (counts.size > CONTENTS_MAX) forgetOldest();
    return uuidOf(tradedAtMs, [content, String(nth)]);
  };

  function forgetOldest(): void {
    const [oldest] = counts;
    if (oldest === undefined) return;
    const [content, { trade }] = oldest;
    counts.delete(content);
    forgotten.set(trade.symbol, Math.max(forgotten.get(trade.symbol) ?? 0, trade.tradedAtMs));
  }
}

/** UUIDv7 of the trade's own time and 74 bits of a hash. */
function uuidOf(tradedAtMs: number, parts: readonly string[]): string {
  const hash = createHash("sha256").update(parts.join("\n")).digest();
  return tradeUuids(
    hash.toString("hex", 0, 4),
    hash.readUInt32BE(4),
    tradedAtMs,
  )(hash.readUInt16BE(8) & 0x3ff);
}
