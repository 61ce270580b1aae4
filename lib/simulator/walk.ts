// One symbol of the simulated market: a seeded random walk that prints in bursts. Pure: it is told the time.
//
// The gaps between bursts are exponential. A burst is one to a few dozen prints within some milliseconds, many of them in
// ONE millisecond, some of them equal in everything (as on real tapes, where equal prints are different trades), now and
// then one that is late by a few milliseconds.

import { seededRandom } from "../base/random.ts";
import type { WireTrade } from "./frames.ts";
import { type AssetClass, hashOf, type Instrument } from "./listings.ts";

const FORM_T = "24";

const BIG_BURST_CHANCE = 0.02;
const BIG_BURST_MIN = 10;
const BIG_BURST_MAX = 40;
/** With this chance a burst goes on after each print. */
const BURST_ON_CHANCE = { stock: 0.55, crypto: 0.6, forex: 0.1 } as const;
/** Equal to the print before it; about 15 % of the prints of a burst-prone symbol, real tapes have 8 to 25 %. */
const EQUAL_CHANCE = { stock: 0.24, crypto: 0.24, forex: 0 } as const;
const SAME_MS_CHANCE = 0.6;
const LATE_CHANCE = 0.04;
const LATE_MS_MAX = 4;
/** From the print to the moment the burst is on its way. */
const AGE_MS_MAX = 8;
const SUB_PENNY_CHANCE = 0.08;
/** One standard deviation of the price a burst, as a fraction. */
const STEP = { stock: 0.000_15, crypto: 0.000_2, forex: 0.000_03 } as const;
/** Pulls a price home slowly, so that a soak test of days stays near the base price. */
const HOMING = 0.000_02;

export type Walk = {
  readonly instrument: Instrument;
  readonly random: () => number;
  readonly decimals: number;
  /** ln(price / base price). */
  drift: number;
  price: number;
  nextBurstAtMs: number;
};

export function newWalk(instrument: Instrument, seed: number): Walk {
  return {
    instrument,
    // Multiplied before it is mixed, so that neighbouring seeds are not neighbouring markets.
    random: seededRandom(hashOf(instrument.symbol) ^ Math.imul(seed + 1, 0x9e3779b1)),
    decimals: decimalsOf(instrument),
    drift: 0,
    price: instrument.basePrice,
    nextBurstAtMs: Number.POSITIVE_INFINITY,
  };
}

/** Prints of a burst, on average. */
export function burstMean(assetClass: AssetClass): number {
  const ordinary = 1 / (1 - BURST_ON_CHANCE[assetClass]);
  const bigChance = assetClass === "forex" ? 0 : BIG_BURST_CHANCE;
  return (1 - bigChance) * ordinary + bigChance * ((BIG_BURST_MIN + BIG_BURST_MAX) / 2);
}

function burstSize(walk: Walk): number {
  const { assetClass } = walk.instrument;
  if (assetClass !== "forex" && walk.random() < BIG_BURST_CHANCE) {
    return BIG_BURST_MIN + Math.floor(walk.random() * (BIG_BURST_MAX - BIG_BURST_MIN + 1));
  }
  // The geometric distribution in one draw, bounded like a big burst.
  return Math.min(
    BIG_BURST_MAX,
    1 + Math.floor(Math.log(1 - walk.random()) / Math.log(BURST_ON_CHANCE[assetClass])),
  );
}

/** The prints of one burst that leaves at that time, in their order; moves the price. */
export function burst(walk: Walk, atMs: number): WireTrade[] {
  const { random, instrument } = walk;
  const size = burstSize(walk);
  const gaussian = (random() + random() + random() - 1.5) * 2;
  walk.drift = walk.drift * (1 - HOMING) + STEP[instrument.assetClass] * gaussian;
  const middle = instrument.basePrice * Math.exp(walk.drift);

  const trades: WireTrade[] = [];
  let ageMs = 1 + Math.floor(random() * AGE_MS_MAX);
  let ticks = 0;
  for (let index = 0; index < size; index += 1) {
    const before = trades[index - 1];
    if (before !== undefined && random() < EQUAL_CHANCE[instrument.assetClass]) {
      trades.push(before);
      continue;
    }
    if (index > 0 && random() > SAME_MS_CHANCE) ageMs = Math.max(1, ageMs - 1 - Math.floor(random() * 2));
    const lateMs = random() < LATE_CHANCE ? 1 + Math.floor(random() * LATE_MS_MAX) : 0;
    if (index > 0 && random() < 0.4) ticks += random() < 0.5 ? -1 : 1;
    trades.push(print(walk, middle, ticks, atMs - ageMs - lateMs));
  }
  walk.price = trades[trades.length - 1]?.p ?? walk.price;
  return trades;
}

function print(walk: Walk, middle: number, ticks: number, tMs: number): WireTrade {
  const { random, instrument } = walk;
  const decimals = instrument.assetClass === "stock" && random() < SUB_PENNY_CHANCE ? 4 : walk.decimals;
  const tick = 10 ** -walk.decimals;
  const p = Math.max(tick, rounded(middle + ticks * tick, decimals));
  const s = instrument.symbol;
  switch (instrument.assetClass) {
    case "crypto":
      return { c: null, p, s, t: tMs, v: coins(random, p) };
    case "forex":
      // Half of the symbols say null, half say nothing; no authentic payload tells which it is.
      return hashOf(s) % 2 === 0 ? { c: null, p, s, t: tMs, v: 0 } : { p, s, t: tMs, v: 0 };
    case "stock": {
      const v = shares(random);
      return { c: conditions(random, v), p, s, t: tMs, v };
    }
  }
}

/** Orders are made in money: a few dollars to some ten thousand, whatever the coin costs. */
function coins(random: () => number, price: number): number {
  const amount = (5 * 2_000 ** (random() * random())) / price;
  return price < 1 ? Math.max(1, Math.round(amount)) : Math.max(0.000_01, rounded(amount, 5));
}

function shares(random: () => number): number {
  if (random() < 0.45) return 1 + Math.floor(random() * 99);
  return 100 * (1 + Math.floor(random() * random() * 9));
}

/** 12 says "odd lot" and stands where it is one; a few prints carry an empty list. */
function conditions(random: () => number, volume: number): readonly string[] {
  if (random() < 0.06) return [];
  const sweep = random() < 0.3;
  if (volume < 100) return sweep ? ["1", "8", "12"] : ["1", "12"];
  return sweep ? ["1", "8"] : ["1"];
}

/** As seen before the opening: ["1","24","12"]. */
export function inExtendedHours(trade: WireTrade): WireTrade {
  if (!trade.c || trade.s.includes(":")) return trade;
  const [first = "1", ...others] = trade.c;
  return { ...trade, c: [first, FORM_T, ...others] };
}

function decimalsOf({ assetClass, basePrice, symbol }: Instrument): number {
  if (assetClass === "stock") return 2;
  if (assetClass === "forex") return symbol.endsWith("JPY") ? 3 : 5;
  if (basePrice >= 100) return 2;
  if (basePrice >= 1) return 4;
  return basePrice >= 0.01 ? 5 : 10;
}

function rounded(value: number, decimals: number): number {
  return Math.round(value * 10 ** decimals) / 10 ** decimals;
}
