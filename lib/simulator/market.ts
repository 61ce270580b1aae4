// The simulated market: a random walk per symbol (simulator/walk.ts), as frames with the time they are due. Pure: it is
// told the time and has no timer, no socket and no client. The same seed and the same calls at the same times give the
// same frames, however often it is asked in between.

import { FRAME_TRADES_MAX, type WireTrade } from "./frames.ts";
import { type Instrument, instrumentOf } from "./listings.ts";
import { createSessions, type Session } from "./session.ts";
import { burst, burstMean, inExtendedHours, newWalk, type Walk } from "./walk.ts";

type TradeFrame = Readonly<{
  /** When it is due, ms since 1970; no trade in it is dated later. */
  atMs: number;
  trades: readonly WireTrade[];
}>;

type MarketOptions = Readonly<{
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
  /** The symbol trades from now on; false: this exchange does not stream it. */
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
  /** The price of the last print, or the base price; null where there is no such symbol. */
  price(symbol: string): number | null;
  instrument(symbol: string): Instrument | null;
}

/** What prints within one slot leaves together: frames of several symbols, yet hardly any delay. */
const SLOT_MS = 5;
/** A fresh subscription prints within this time: people judge the first half second. */
const FIRST_TRADE_MS_MAX = 250;
/** A clock that moved further than this between two calls was stepped, or the machine slept. */
const JUMP_MS_MAX = 5_000;
/** Prices of symbols that stopped are remembered for this many; a client can name any number of symbols. */
const SYMBOLS_REMEMBERED_MAX = 10_000;
/** Per symbol; keeps the size of one slot sane whatever rate was asked for. */
const TRADES_PER_SECOND_MAX = 50_000;

/** The share of bursts outside of the regular hours. */
const EXTENDED_HOURS_SHARE = 0.1;
/** A halt is for minutes; whoever halts ever new symbols must not fill the memory. */
const HALTS_MAX = 1_000;

export function createMarket(options: MarketOptions): Market {
  return new RandomMarket(options);
}

class RandomMarket implements Market {
  readonly #options: MarketOptions;
  readonly #instruments: ReadonlyMap<string, Instrument>;
  /** One for every symbol that ever traded, the latest started last. */
  readonly #walks = new Map<string, Walk>();
  readonly #active = new Map<string, Walk>();
  readonly #haltedUntilMs = new Map<string, number>();
  readonly #sessionOf = createSessions();
  #lastCallMs: number | null = null;
  #firstStartMs: number | null = null;
  /** Trades a second of all active symbols together, unscaled. */
  #naturalRate = 0;

  constructor(options: MarketOptions) {
    this.#options = options;
    this.#instruments = new Map(options.instruments?.map((instrument) => [instrument.symbol, instrument]));
  }

  instrument(symbol: string): Instrument | null {
    return this.#instruments.get(symbol) ?? instrumentOf(symbol);
  }

  start(symbol: string, atMs: number): boolean {
    if (this.#active.has(symbol)) return true;
    const instrument = this.instrument(symbol);
    if (instrument === null) return false;
    this.#firstStartMs ??= atMs;
    const walk = this.#walks.get(symbol) ?? newWalk(instrument, this.#options.seed);
    this.#remember(symbol, walk);
    this.#active.set(symbol, walk);
    this.#changeRate();
    walk.nextBurstAtMs = atMs + walk.random() * FIRST_TRADE_MS_MAX;
    return true;
  }

  stop(symbol: string): void {
    if (this.#active.delete(symbol)) this.#changeRate();
  }

  halt(symbol: string, untilMs: number): void {
    const halts = this.#haltedUntilMs;
    halts.delete(symbol);
    halts.set(symbol, untilMs);
    for (const oldest of halts.keys()) {
      if (halts.size <= HALTS_MAX) break;
      halts.delete(oldest);
    }
  }

  active(): readonly string[] {
    return [...this.#active.keys()];
  }

  nextAtMs(): number | null {
    let earliestMs = Number.POSITIVE_INFINITY;
    for (const walk of this.#active.values()) earliestMs = Math.min(earliestMs, walk.nextBurstAtMs);
    return this.#active.size === 0 ? null : (Math.floor(earliestMs / SLOT_MS) + 1) * SLOT_MS;
  }

  framesUntil(nowMs: number): TradeFrame[] {
    if (this.#lastCallMs !== null && Math.abs(nowMs - this.#lastCallMs) > JUMP_MS_MAX) this.#jump(nowMs);
    this.#lastCallMs = nowMs;
    const frames: TradeFrame[] = [];
    for (let dueMs = this.nextAtMs(); dueMs !== null && dueMs <= nowMs; dueMs = this.nextAtMs()) {
      this.#addSlot(dueMs, frames);
    }
    return frames;
  }

  price(symbol: string): number | null {
    return this.#walks.get(symbol)?.price ?? this.instrument(symbol)?.basePrice ?? null;
  }

  #remember(symbol: string, walk: Walk): void {
    this.#walks.delete(symbol);
    this.#walks.set(symbol, walk);
    for (const oldest of this.#walks.keys()) {
      if (this.#walks.size <= SYMBOLS_REMEMBERED_MAX) break;
      if (!this.#active.has(oldest)) this.#walks.delete(oldest);
    }
  }

  #changeRate(): void {
    this.#naturalRate = 0;
    for (const walk of this.#active.values()) this.#naturalRate += walk.instrument.tradesPerSecond;
  }

  /** Moves the walks that the jump left behind or threw ahead; one that was just started is not touched. */
  #jump(nowMs: number): void {
    for (const walk of this.#active.values()) {
      if (Math.abs(walk.nextBurstAtMs - nowMs) > JUMP_MS_MAX) walk.nextBurstAtMs = nowMs + this.#gapMs(walk);
    }
  }

  #gapMs(walk: Walk): number {
    const { tradesPerSecond, speed = 1, pace } = this.#options;
    const { instrument, nextBurstAtMs } = walk;
    const natural = instrument.tradesPerSecond;
    const scaled = tradesPerSecond === undefined ? natural : (tradesPerSecond * natural) / this.#naturalRate;
    const elapsedMs = Math.max(0, nextBurstAtMs - (this.#firstStartMs ?? nextBurstAtMs));
    const perSecond = Math.min(TRADES_PER_SECOND_MAX, scaled * speed * (pace?.(elapsedMs) ?? 1));
    const meanMs = (1_000 * burstMean(instrument.assetClass)) / perSecond;
    return -Math.log(1 - walk.random()) * meanMs;
  }

  /** Adds the frames of everything that prints before that time. */
  #addSlot(dueMs: number, frames: TradeFrame[]): void {
    const bursts: { atMs: number; trades: WireTrade[] }[] = [];
    for (const walk of this.#active.values()) {
      while (walk.nextBurstAtMs < dueMs) {
        bursts.push({ atMs: walk.nextBurstAtMs, trades: this.#burstOf(walk) });
        walk.nextBurstAtMs += this.#gapMs(walk);
      }
    }
    const trades = bursts.sort((a, b) => a.atMs - b.atMs).flatMap((one) => one.trades);
    for (let from = 0; from < trades.length; from += FRAME_TRADES_MAX) {
      frames.push({ atMs: dueMs, trades: trades.slice(from, from + FRAME_TRADES_MAX) });
    }
  }

  /** The next burst of the walk; empty while its symbol does not trade. */
  #burstOf(walk: Walk): WireTrade[] {
    const atMs = Math.floor(walk.nextBurstAtMs);
    const session = this.#options.sessionHours ? this.#sessionOf(atMs) : "regular";
    if (this.#isQuiet(walk, session)) return [];
    const trades = burst(walk, atMs);
    return session === "regular" ? trades : trades.map(inExtendedHours);
  }

  #isQuiet(walk: Walk, session: Session | null): boolean {
    const { symbol, assetClass } = walk.instrument;
    if (walk.nextBurstAtMs < (this.#haltedUntilMs.get(symbol) ?? 0)) return true;
    if (!this.#options.sessionHours || assetClass !== "stock" || session === "regular") return false;
    return session === null || walk.random() >= EXTENDED_HOURS_SHARE;
  }
}
