// The symbols that the upstream refused by name, and when each is asked for again. An answer of a moment is no fact: a
// refusal only makes the wait longer. It sends nothing and decides no place; it calls back when a symbol is due.

import { backoffMs, type Clock } from "../base/clock.ts";
import type { UnreceivedSymbol } from "../contracts/feed.ts";

export const REFUSAL_LIMITS = {
  /** The longest wait after a first refusal: what was refused at a bad moment is back within seconds. */
  againFirstMs: 10_000,
  /** One message a quarter of an hour for a symbol that does not exist costs nothing, and one that is listed is late by no more. */
  againMsMax: 900_000,
  /** Refusals come within a round trip. Silence for so long after a subscription is consent. */
  answerMsMax: 10_000,
  /** A symbol that the upstream takes and refuses in turn is told of once a minute. */
  tellMsMin: 60_000,
} as const;

export type RefusalLimits = Readonly<Record<keyof typeof REFUSAL_LIMITS, number>>;

/**
 * `waiting`: not subscribed. `asked`: subscribed again, beside the places, so that no other symbol is lost for it.
 * `placed`: subscribed in its place, as on a new connection.
 */
type Phase = "waiting" | "asked" | "placed";

type Refusal = { readonly sinceMs: number; message: string; attempts: number; phase: Phase; isTold: boolean };

export type RefusalsOptions = Readonly<{
  clock: Clock;
  limits: RefusalLimits;
  /** It is `asked` from now on. */
  onDue: () => void;
  /** It is refused no longer; `isTold`: its refusal was to be told. */
  onAccepted: (symbol: string, sinceMs: number, isTold: boolean) => void;
}>;

/** At least half of the capped back-off: what was refused just now is not asked for at once. */
export function againMs(attempt: number, { againFirstMs, againMsMax }: RefusalLimits, clock: Clock): number {
  const fullMs = Math.min(againMsMax, againFirstMs * 2 ** Math.min(attempt, 30));
  return fullMs / 2 + backoffMs(0, fullMs / 2, fullMs / 2, clock.random);
}

export function refusedReason(message: string): string {
  return `Finnhub refuses it (${message}); it is asked for again and again`;
}

export class Refusals {
  readonly #options: RefusalsOptions;
  readonly #refusals = new Map<string, Refusal>();
  readonly #timers = new Map<string, () => void>();
  /** Monotonic times. */
  readonly #toldAtMs = new Map<string, number>();

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /** True: it is to be told. */
  refuse(symbol: string, message: string): boolean {
    const { clock, limits } = this.#options;
    const monotonicMs = clock.monotonic();
    const known = this.#refusals.get(symbol);
    const isTold = known?.isTold ?? monotonicMs - this.#lastToldMs(symbol) >= limits.tellMsMin;
    const isNews = isTold && known === undefined;
    if (isNews) this.#toldAtMs.set(symbol, monotonicMs);
    const attempts = known === undefined ? 0 : known.attempts + 1;
    const sinceMs = known?.sinceMs ?? clock.now();
    this.#refusals.set(symbol, { sinceMs, message, attempts, phase: "waiting", isTold });
    this.#setTimer(symbol, againMs(attempts, limits, clock), () => {
      this.#moveTo(symbol, "asked");
      this.#options.onDue();
    });
    return isNews;
  }

  /** A new connection: each takes its place as if it had never been refused, and is refused again or not. */
  placeAll(): void {
    for (const symbol of this.#refusals.keys()) this.place(symbol);
  }

  place(symbol: string): void {
    this.#moveTo(symbol, "placed");
  }

  /** Without a connection nothing is due. */
  stopTimers(): void {
    for (const cancel of this.#timers.values()) cancel();
    this.#timers.clear();
  }

  /** It is received after all. False: it was not refused. */
  accept(symbol: string): boolean {
    const refusal = this.#refusals.get(symbol);
    if (refusal === undefined) return false;
    this.#drop(symbol);
    this.#options.onAccepted(symbol, refusal.sinceMs, refusal.isTold);
    return true;
  }

  /** Nobody wants the others any more. */
  keepOnly(symbols: readonly string[]): void {
    const wanted = new Set(symbols);
    for (const symbol of this.#refusals.keys()) if (!wanted.has(symbol)) this.#drop(symbol);
    for (const symbol of this.#toldAtMs.keys()) if (!wanted.has(symbol)) this.#toldAtMs.delete(symbol);
  }

  get isEmpty(): boolean {
    return this.#refusals.size === 0;
  }

  phaseOf(symbol: string): Phase | null {
    return this.#refusals.get(symbol)?.phase ?? null;
  }

  /** `asked` ones too: until the upstream had time to answer, nothing new is known. */
  list(): UnreceivedSymbol[] {
    return [...this.#refusals].map(([symbol, { sinceMs, message }]) => ({
      symbol,
      kind: "refused",
      sinceMs,
      reason: refusedReason(message),
    }));
  }

  #moveTo(symbol: string, phase: Phase): void {
    const refusal = this.#refusals.get(symbol);
    if (refusal === undefined) return;
    refusal.phase = phase;
    this.#setTimer(symbol, this.#options.limits.answerMsMax, () => this.accept(symbol));
  }

  #drop(symbol: string): void {
    this.#timers.get(symbol)?.();
    this.#timers.delete(symbol);
    this.#refusals.delete(symbol);
  }

  #setTimer(symbol: string, afterMs: number, callback: () => void): void {
    this.#timers.get(symbol)?.();
    this.#timers.set(symbol, this.#options.clock.after(afterMs, callback));
  }

  #lastToldMs(symbol: string): number {
    return this.#toldAtMs.get(symbol) ?? Number.NEGATIVE_INFINITY;
  }
}
