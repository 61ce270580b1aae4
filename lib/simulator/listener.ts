// What clients send to the simulator, and what follows: symbols come and go, on the market too. Nothing is ever
// acknowledged; only an invalid symbol and one above the cap are answered.

import type { Clock } from "../base/clock.ts";
import { SYMBOL_LENGTH_MAX } from "../model/validate.ts";
import type { Connection, Connections } from "./connections.ts";
import { treatmentOf } from "./listings.ts";
import type { Market } from "./market.ts";
import type { Player } from "./player.ts";
import type { Later } from "./timers.ts";

type ListenerDeps = Readonly<{
  clock: Clock;
  connections: Connections;
  later: Later;
  /** Null: a tape plays, and the market is quiet. */
  market: Market | null;
  player: Player;
  /** A client that has subscribed to all of these is its audience. */
  tapeSymbols: readonly string[];
  symbolsAccepted: number;
}>;

/** A client that has not subscribed to everything this long after its first subscription will not. */
const SUBSCRIBE_GRACE_MS = 2_000;
const TOO_MANY_TEXT = '{"msg":"Subscribing to too many symbols","type":"error"}';

export function createListener(deps: ListenerDeps) {
  const { clock, connections, later, market, player, tapeSymbols, symbolsAccepted } = deps;

  /** Symbols that are refused though they are listed, each until then, in monotonic ms. */
  const refusedUntilMs = new Map<string, number>();

  function isRefused(symbol: string): boolean {
    const untilMs = refusedUntilMs.get(symbol);
    if (untilMs === undefined) return treatmentOf(symbol) === "invalid";
    if (clock.monotonic() < untilMs) return true;
    refusedUntilMs.delete(symbol);
    return isRefused(symbol);
  }

  function subscribe(from: Connection, symbol: string): void {
    if (isRefused(symbol)) {
      connections.post(from, "error", JSON.stringify({ msg: `Invalid symbol ${symbol}`, type: "error" }), 0);
      return;
    }
    if (from.symbols.has(symbol)) return;
    if (from.symbols.size >= symbolsAccepted) {
      connections.post(from, "error", TOO_MANY_TEXT, 0);
      return;
    }
    from.symbols.add(symbol);
    if (!from.hasGrace) {
      from.hasGrace = true;
      later(SUBSCRIBE_GRACE_MS, () => {
        from.attentive = true;
        player.wake();
      });
    }
    if (tapeSymbols.every((one) => from.symbols.has(one))) from.attentive = true;
    market?.start(symbol, clock.now());
    player.wake();
  }

  function unsubscribe(from: Connection, symbol: string): void {
    from.symbols.delete(symbol);
    if (!connections.open().some((one) => one.symbols.has(symbol))) market?.stop(symbol);
    player.wake();
  }

  /** Symbols of a client that is gone go on trading, until somebody connects and does not want them. */
  function stopUnwanted(): void {
    const clients = connections.open();
    if (clients.length === 0) return;
    for (const symbol of market?.active() ?? []) {
      if (!clients.some((one) => one.symbols.has(symbol))) market?.stop(symbol);
    }
  }

  return {
    /** A new client has this long to subscribe. */
    greet: () => void later(SUBSCRIBE_GRACE_MS, stopUnwanted),

    refuse: (symbol: string, durationMs: number) =>
      void refusedUntilMs.set(symbol, clock.monotonic() + durationMs),

    /** It is unknown what Finnhub does with anything else; silence is the likeliest, and the hardest on a client. */
    listen(from: Connection, text: string): void {
      let message: unknown;
      try {
        message = JSON.parse(text);
      } catch {
        return;
      }
      if (typeof message !== "object" || message === null) return;
      if (!("type" in message && "symbol" in message)) return;
      const { type, symbol } = message;
      if (typeof symbol !== "string" || symbol === "" || symbol.length > SYMBOL_LENGTH_MAX) return;
      if (type === "subscribe") subscribe(from, symbol);
      if (type === "unsubscribe") unsubscribe(from, symbol);
    },
  };
}
