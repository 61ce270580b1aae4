// Whether a trade looks like a copy of an earlier one. Only a hint: 8 to 25 % of genuine prints equal another one, so
// callers may count copies but never drop them.

import type { Trade } from "../model/trade.ts";

/** A burst of 200 ms on the busiest recorded tape holds a few hundred trades. A power of two. */
const DUPLICATE_SLOTS = 4096;
/** The copies of the 2026 recording came 18 to 97 ms after their first (finnhub.md 4.1). */
export const DUPLICATE_WITHIN_MS = 200;

/**
 * Tells whether a trade equals one that came at most DUPLICATE_WITHIN_MS before. One slot a hash: when two different
 * trades meet in it, the older one is forgotten, which can miss a copy but never invents one.
 */
export function createDuplicateHint(): (trade: Trade, receivedMonotonicMs: number) => boolean {
  const trades: (Trade | undefined)[] = new Array(DUPLICATE_SLOTS).fill(undefined);
  const seenMs = new Float64Array(DUPLICATE_SLOTS);
  const double = new Float64Array(2);
  const halves = new Int32Array(double.buffer);
  return (trade, receivedMonotonicMs) => {
    double[0] = trade.price;
    double[1] = trade.volume;
    let hash =
      Math.imul(halves[0]! ^ halves[1]!, 0x9e3779b1) ^ Math.imul(halves[2]! ^ halves[3]!, 0x85ebca6b);
    hash = Math.imul(hash ^ trade.tradedAtMs, 0xc2b2ae35);
    const slot = (hash ^ (hash >>> 15)) & (DUPLICATE_SLOTS - 1);
    const before = trades[slot];
    const isCopy =
      before !== undefined &&
      receivedMonotonicMs - seenMs[slot]! <= DUPLICATE_WITHIN_MS &&
      before.tradedAtMs === trade.tradedAtMs &&
      before.price === trade.price &&
      before.volume === trade.volume &&
      before.symbol === trade.symbol &&
      sameConditions(before.conditions, trade.conditions);
    trades[slot] = trade;
    seenMs[slot] = receivedMonotonicMs;
    return isCopy;
  };
}

function sameConditions(left: Trade["conditions"], right: Trade["conditions"]): boolean {
  if (left === null || right === null || left.length !== right.length) return left === right;
  for (let index = 0; index < left.length; index++) if (left[index] !== right[index]) return false;
  return true;
}
