// The simulated market: a seeded random walk per symbol, as frames with the time they are due. Pure: it is told
// the time and asks nobody; it holds no timer, no socket and no client. The same seed, the same calls at the same
// times give the same frames, however often it is asked in between.
//
// A symbol prints in bursts: the gaps between bursts are exponential, a burst is one to a few dozen prints within
// some milliseconds, many of them in ONE millisecond, some of them equal in everything (as on real tapes, where
// equal prints are different trades), now and then one that is late by a few milliseconds.

import { seededRandom } from "../base/random.ts";
import { type AssetClass, hashOf, type Instrument, instrumentOf } from "./listings.ts";
import { createSessions, type Session } from "./session.ts";

/** A trade as it stands in a frame: keys in the alphabetical order that Finnhub sends. `c` may be missing. */
export type WireTrade = Readonly<{
  c?: readonly string[] | null;
  p: number;
  s: string;
  t: number;
  v: number;
}>;

export type TradeFrame = Readonly<{
  /** When it is due, ms since 1970; no trade in it is dated later. */
  atMs: number;
  trades: readonly WireTrade[];
}>;

export type MarketOptions = Readonly<{
  seed: number;
  /** All streamed symbols together; without it each symbol keeps its natural rate. */
  tradesPerSecond?: number | undefined;
  /** Multiplies the rate, whichever it is. */
  speed?: number | undefined;
  /** Multiplies it further, by the time since the first start of a symbol; above 0. */
  pace?: ((elapsedMs: number) => number) | undefined;
  /** Stocks keep New York's hours. */
  sessionHours?: boolean | undefined;
  /** Instruments that replace or extend the listings. */
  instruments?: readonly Instrument[] | undefined;
}>;

export interface Market {
  /** The symbol trades from now on; false: this exchange has nothing to say about it. */
  start(symbol: string, atMs: number): boolean;
  /** It goes quiet, and remembers its price. */
  stop(symbol: string): void;
  /** Nobody trades it until then; it stays subscribed. */
  halt(symbol: string, untilMs: number): void;
  active(): readonly string[];
  /** When the next frame is due; null while nothing trades. */
  nextAtMs(): number | null;
  /** Every frame due until then, in order. A jump of the clock is skipped, not made up for. */
  framesUntil(nowMs: number): TradeFrame[];
  /** The price of the last print, or the base price; null for a symbol that is none. */
  price(symbol: string): number | null;
  instrument(symbol: string): Instrument | null;
}

/** Finnhub's biggest frame seen. */
export const FRAME_TRADES_MAX = 30;
/** What prints within one slot leaves together: frames of several symbols, yet hardly any delay. */
const SLOT_MS = 5;
/** A fresh subscription prints within this time: people judge the first half second. */
const FIRST_TRADE_MS_MAX = 250;
/** A clock that moved further than this between two questions was stepped, or the machine slept. */
const JUMP_MS_MAX = 5_000;
/** Prices of symbols that stopped are remembered for this many; a client can name any number of symbols. */
const SYMBOLS_REMEMBERED_MAX = 10_000;
/** Per symbol; keeps the size of one slot sane whatever rate was asked for. */
const TRADES_PER_SECOND_MAX = 50_000;

/** Of the regular hours' bursts, before and after them. */
const EXTENDED_HOURS_SHARE = 0.1;
/** A halt is for minutes; whoever halts ever new symbols must not fill the memory. */
const HALTS_MAX = 1_000;
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
/** Of the price, one standard deviation a burst. */
const STEP = { stock: 0.000_15, crypto: 0.000_2, forex: 0.000_03 } as const;
/** Pulls a price home slowly, so that a soak test of days stays near the base price. */
const HOMING = 0.000_02;

type Walk = {
  readonly instrument: Instrument;
  readonly random: () => number;
  readonly decimals: number;
  /** ln(price / base price). */
  drift: number;
  price: number;
  nextBurstAtMs: number;
};

export function createMarket(options: MarketOptions): Market {
  const instruments = new Map(options.instruments?.map((instrument) => [instrument.symbol, instrument]));
  const walks = new Map<string, Walk>();
  const active = new Map<string, Walk>();
  const haltedUntilMs = new Map<string, number>();
  const sessionOf = createSessions();
  let askedAtMs: number | null = null;
  let beganAtMs: number | null = null;
  let naturalRate = 0;

  const instrument = (symbol: string) => instruments.get(symbol) ?? instrumentOf(symbol);

  function gapMs(walk: Walk): number {
    const natural = walk.instrument.tradesPerSecond;
    const scaled =
      options.tradesPerSecond === undefined ? natural : (options.tradesPerSecond * natural) / naturalRate;
    const pace = options.pace?.(Math.max(0, walk.nextBurstAtMs - (beganAtMs ?? walk.nextBurstAtMs))) ?? 1;
    const perSecond = Math.min(TRADES_PER_SECOND_MAX, scaled * (options.speed ?? 1) * pace);
    const meanMs = (1_000 * burstMean(walk.instrument.assetClass)) / perSecond;
    return -Math.log(1 - walk.random()) * meanMs;
  }

  function changeRate() {
    naturalRate = 0;
    for (const walk of active.values()) naturalRate += walk.instrument.tradesPerSecond;
  }

  function isQuiet(walk: Walk, session: Session | null): boolean {
    const { symbol, assetClass } = walk.instrument;
    if (walk.nextBurstAtMs < (haltedUntilMs.get(symbol) ?? 0)) return true;
    if (!options.sessionHours || assetClass !== "stock" || session === "regular") return false;
    return session === null || walk.random() >= EXTENDED_HOURS_SHARE;
  }

  /** The next burst of the walk, none where nobody trades just then. */
  function burstOf(walk: Walk): WireTrade[] {
    const atMs = Math.floor(walk.nextBurstAtMs);
    const session = options.sessionHours ? sessionOf(atMs) : "regular";
    if (isQuiet(walk, session)) return [];
    const trades = burst(walk, atMs);
    return session === "regular" ? trades : trades.map(inExtendedHours);
  }

  function framesOfSlot(dueMs: number, frames: TradeFrame[]) {
    const bursts: { atMs: number; trades: WireTrade[] }[] = [];
    for (const walk of active.values()) {
      while (walk.nextBurstAtMs < dueMs) {
        bursts.push({ atMs: walk.nextBurstAtMs, trades: burstOf(walk) });
        walk.nextBurstAtMs += gapMs(walk);
      }
    }
    const trades = bursts.sort((a, b) => a.atMs - b.atMs).flatMap((one) => one.trades);
    for (let from = 0; from < trades.length; from += FRAME_TRADES_MAX) {
      frames.push({ atMs: dueMs, trades: trades.slice(from, from + FRAME_TRADES_MAX) });
    }
  }

  const market: Market = {
    instrument,

    start(symbol, atMs) {
      if (active.has(symbol)) return true;
      const found = instrument(symbol);
      if (found === null) return false;
      beganAtMs ??= atMs;
      const walk = walks.get(symbol) ?? newWalk(found, options.seed);
      walks.delete(symbol);
      walks.set(symbol, walk);
      for (const [oldest] of walks) {
        if (walks.size <= SYMBOLS_REMEMBERED_MAX) break;
        if (!active.has(oldest)) walks.delete(oldest);
      }
      active.set(symbol, walk);
      changeRate();
      walk.nextBurstAtMs = atMs + walk.random() * FIRST_TRADE_MS_MAX;
      return true;
    },

    stop(symbol) {
      if (active.delete(symbol)) changeRate();
    },

    halt(symbol, untilMs) {
      haltedUntilMs.delete(symbol);
      haltedUntilMs.set(symbol, untilMs);
      for (const oldest of haltedUntilMs.keys()) {
        if (haltedUntilMs.size <= HALTS_MAX) break;
        haltedUntilMs.delete(oldest);
      }
    },

    active: () => [...active.keys()],

    nextAtMs() {
      let earliestMs = Number.POSITIVE_INFINITY;
      for (const walk of active.values()) earliestMs = Math.min(earliestMs, walk.nextBurstAtMs);
      return active.size === 0 ? null : (Math.floor(earliestMs / SLOT_MS) + 1) * SLOT_MS;
    },

    framesUntil(nowMs) {
      if (askedAtMs !== null && Math.abs(nowMs - askedAtMs) > JUMP_MS_MAX) {
        for (const walk of active.values()) {
          // Only who was left behind, or thrown ahead, by the jump; who was just started is not touched.
          if (Math.abs(walk.nextBurstAtMs - nowMs) > JUMP_MS_MAX) walk.nextBurstAtMs = nowMs + gapMs(walk);
        }
      }
      askedAtMs = nowMs;
      const frames: TradeFrame[] = [];
      for (let dueMs = market.nextAtMs(); dueMs !== null && dueMs <= nowMs; dueMs = market.nextAtMs()) {
        framesOfSlot(dueMs, frames);
      }
      return frames;
    },

    price: (symbol) => walks.get(symbol)?.price ?? instrument(symbol)?.basePrice ?? null,
  };
  return market;
}

/** The frame's text, byte for byte in Finnhub's form. */
export function frameText(trades: readonly WireTrade[]): string {
  return `{"data":${JSON.stringify(trades)},"type":"trade"}`;
}

function newWalk(instrument: Instrument, seed: number): Walk {
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

function burstMean(assetClass: AssetClass): number {
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

function burst(walk: Walk, atMs: number): WireTrade[] {
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
function inExtendedHours(trade: WireTrade): WireTrade {
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
