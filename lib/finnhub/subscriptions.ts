// Which symbols of the watchlist are subscribed on the current connection. It decides, and sends through a callback; it
// knows no socket and no message of the other side. No refusal is final: whatever was refused is asked for again.

import type { Clock } from "../base/clock.ts";
import type { UnreceivedSymbol } from "../contracts/feed.ts";
import { againMs, type RefusalLimits, Refusals, refusedReason } from "./refused-symbols.ts";

export type SubscriptionsOptions = Readonly<{
  symbols: readonly string[];
  /** Subscriptions at a time: the cap of the plan. */
  symbolsMax: number;
  clock: Clock;
  limits: RefusalLimits;
  send: (type: "subscribe" | "unsubscribe", symbol: string) => void;
  /** Something changed without a frame: time has passed. */
  onTurn: () => void;
  /** A symbol whose refusal was told is received again. */
  onAccepted: (symbol: string, sinceMs: number) => void;
}>;

/**
 * The first symbols of the watchlist are subscribed, in its order, as many as the upstream accepts; a symbol that the
 * upstream refused by name takes no place. Only the difference to what is subscribed is sent.
 */
export class Subscriptions {
  readonly #options: SubscriptionsOptions;
  readonly #refusals: Refusals;
  #watched: readonly string[];
  /** On this connection, in the order of their subscription. */
  readonly #subscribed = new Set<string>();
  #cap: number;
  #overCap: readonly string[] = [];
  /**
   * What the feed tells of it. A new connection, and each later trial, tries all of them again; until it has refused as
   * many as the one before, or has pinged without doing so, nothing new is known and nothing is told.
   */
  #overCapTold: readonly string[] = [];
  readonly #overCapSinceMs = new Map<string, number>();
  #isOnTrial = false;
  #isOpen = false;
  /** Trials of the whole cap in a row that were refused. */
  #capAttempts = 0;
  /** Until the next trial, or until the answer to one counts as given. */
  #cancelCapTimer: (() => void) | null = null;
  #isCapAsked = false;
  /** The one subscription that is left, of which the upstream said that it is too many. */
  #lastRefused: UnreceivedSymbol | null = null;

  constructor(options: SubscriptionsOptions) {
    const { symbols, symbolsMax, clock, limits, onTurn, onAccepted } = options;
    this.#options = options;
    this.#watched = [...new Set(symbols)];
    this.#cap = symbolsMax;
    this.#refusals = new Refusals({
      clock,
      limits,
      onDue: () => {
        this.#sendDifference();
        onTurn();
      },
      onAccepted: (symbol, sinceMs, isTold) => {
        if (isTold && this.#subscribed.has(symbol)) onAccepted(symbol, sinceMs);
        this.#sendDifference();
        onTurn();
      },
    });
    this.#sendDifference();
  }

  setSymbols(next: readonly string[]): void {
    this.#watched = [...new Set(next)];
    this.#isOnTrial = false;
    this.#refusals.keepOnly(this.#watched);
    this.#sendDifference();
  }

  /** A new connection tries everything again: a lowered cap or a refusal may have come at a bad moment. */
  connected(): void {
    this.#isOpen = true;
    this.#isOnTrial = true;
    this.#cap = this.#options.symbolsMax;
    this.#refusals.placeAll();
    this.#sendDifference();
  }

  /** The upstream pinged: it has no more to refuse. */
  proven(): void {
    this.#isOnTrial = false;
    this.#tellOverCap();
  }

  disconnected(): void {
    this.#isOpen = false;
    this.#subscribed.clear();
    this.#refusals.stopTimers();
    this.#stopCapTimer();
    this.#lastRefused = null;
  }

  /** A trade came: whatever the upstream said of the symbol, it streams. To be called while something is refused. */
  received(symbol: string): void {
    if (this.#lastRefused?.symbol === symbol) this.#lastRefused = null;
    if (this.#refusals.phaseOf(symbol) === null) return;
    this.#subscribed.add(symbol);
    this.#refusals.accept(symbol);
  }

  get isAnyRefused(): boolean {
    return this.#lastRefused !== null || !this.#refusals.isEmpty;
  }

  /**
   * The error names no symbol. The last subscription is the one that did not fit, so it is dropped and the cap comes
   * down to what is left; of several such errors after one burst each takes one. The cap never falls below one: an
   * upstream gone mad cannot talk us out of everything. After a wait the whole cap is tried again. False: nothing was left
   * to drop.
   */
  tooMany(message: string): boolean {
    const last = [...this.#subscribed].at(-1);
    if (last === undefined) return false;
    this.#tryCapLater();
    if (this.#subscribed.size === 1) {
      this.#lastRefused ??= {
        symbol: last,
        kind: "refused",
        sinceMs: this.#options.clock.now(),
        reason: refusedReason(message),
      };
      return false;
    }
    this.#subscribed.delete(last);
    this.#options.send("unsubscribe", last); // Should it have been accepted after all, its place is free now.
    if (this.#refusals.phaseOf(last) === "asked") {
      this.#refusals.place(last); // It did not fit beside the others, so it competes for a place.
    } else {
      const besides = [...this.#subscribed].filter((symbol) => this.#refusals.phaseOf(symbol) === "asked");
      this.#cap = Math.max(1, this.#subscribed.size - besides.length);
    }
    this.#sendDifference();
    return true;
  }

  /** `rejected`: for the first time, so it is to be told. */
  reject(symbol: string, message: string): "rejected" | "known" | "not_subscribed" {
    if (!this.#subscribed.delete(symbol)) return "not_subscribed";
    const isNews = this.#refusals.refuse(symbol, message);
    this.#sendDifference();
    return isNews ? "rejected" : "known";
  }

  overCapTold(): readonly string[] {
    return this.#overCapTold;
  }

  subscribed(): string[] {
    return [...this.#subscribed];
  }

  unsubscribed(): string[] {
    const refused = this.#watched.filter((symbol) => this.#refusals.phaseOf(symbol) === "waiting");
    return [...this.#overCap, ...refused];
  }

  unreceived(): UnreceivedSymbol[] {
    const overCap = this.#overCapTold.map((symbol) => ({
      symbol,
      kind: "over_cap" as const,
      sinceMs: this.#overCapSinceMs.get(symbol) ?? this.#options.clock.now(),
      reason: `over the cap: Finnhub takes ${this.#cap} symbols just now, and others stand before it`,
    }));
    const last = this.#lastRefused === null ? [] : [this.#lastRefused];
    return [...this.#refusals.list(), ...last, ...overCap];
  }

  #sendDifference(): void {
    const { send } = this.#options;
    const isBeside = (symbol: string) => {
      const phase = this.#refusals.phaseOf(symbol);
      return phase === "waiting" || phase === "asked";
    };
    const eligible = this.#watched.filter((symbol) => !isBeside(symbol));
    this.#overCap = eligible.slice(this.#cap);
    if (this.#overCap.length >= this.#overCapTold.length) this.#isOnTrial = false;
    if (!this.#isOnTrial) this.#tellOverCap();
    if (!this.#isOpen) return;
    const asked = this.#watched.filter((symbol) => this.#refusals.phaseOf(symbol) === "asked");
    const wanted = new Set([...eligible.slice(0, this.#cap), ...asked]);
    for (const symbol of this.#subscribed) {
      if (wanted.has(symbol)) continue;
      this.#subscribed.delete(symbol);
      send("unsubscribe", symbol); // First, since it frees the place that the next one takes.
    }
    for (const symbol of wanted) {
      if (this.#subscribed.has(symbol)) continue;
      this.#subscribed.add(symbol);
      send("subscribe", symbol);
    }
  }

  #tellOverCap(): void {
    this.#overCapTold = this.#overCap;
    const told = new Set(this.#overCapTold);
    for (const symbol of this.#overCapSinceMs.keys()) {
      if (!told.has(symbol)) this.#overCapSinceMs.delete(symbol);
    }
    for (const symbol of told) {
      if (!this.#overCapSinceMs.has(symbol)) this.#overCapSinceMs.set(symbol, this.#options.clock.now());
    }
  }

  /** Several errors of one burst begin one wait. */
  #tryCapLater(): void {
    if (this.#cancelCapTimer !== null && !this.#isCapAsked) return;
    this.#stopCapTimer();
    const { clock, limits } = this.#options;
    const waitMs = againMs(this.#capAttempts++, limits, clock);
    this.#cancelCapTimer = clock.after(waitMs, () => this.#tryCap());
  }

  #tryCap(): void {
    const { symbolsMax, clock, limits, send, onTurn } = this.#options;
    this.#isCapAsked = true;
    this.#cancelCapTimer = clock.after(limits.answerMsMax, () => {
      this.#stopCapTimer();
      this.#capAttempts = 0;
      this.#lastRefused = null;
      this.proven();
      onTurn();
    });
    if (this.#lastRefused !== null && this.#subscribed.has(this.#lastRefused.symbol)) {
      send("subscribe", this.#lastRefused.symbol);
    }
    this.#isOnTrial = true;
    this.#cap = symbolsMax;
    this.#sendDifference();
    onTurn();
  }

  #stopCapTimer(): void {
    this.#cancelCapTimer?.();
    this.#cancelCapTimer = null;
    this.#isCapAsked = false;
  }
}
