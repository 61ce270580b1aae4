// The faults that a test, or chaos by the clock, can order at any time. It carries them out on the simulator's parts; which
// fault meets which frame by chance, simulator/faults.ts decides.

import type { Clock } from "../base/clock.ts";
import type { ChaosActions } from "./chaos.ts";
import type { Connections, Stall } from "./connections.ts";
import type { DelayLine } from "./delay.ts";
import {
  EXTRA_TEXT,
  type ExtraFrame,
  type FaultPlanner,
  type FramePlan,
  type HandshakeFault,
  SLOW_HANDSHAKE_MS,
} from "./faults.ts";
import type { Market } from "./market.ts";
import { checkOptions } from "./options.ts";
import type { Player } from "./player.ts";
import type { SearchOutage } from "./rest-answers.ts";
import { isPing, tradesOf } from "./tape.ts";
import type { Later } from "./timers.ts";

export interface SimulatorFaults {
  /** Cuts every connection without a close frame. Returns how many there were. */
  resetConnections(): number;
  refuseHandshakes(status: HandshakeFault, count: number): void;
  /** Answers the next upgrades so much later. */
  slowHandshakes(delayMs: number, count: number): void;
  /** Plans these faults for the next `count` trade frames, whatever the rates say. */
  planFrames(plan: Partial<FramePlan>, count?: number): void;
  /** Lets the open connections hang, with pings or without, for the time or until they end. Returns how many there are. */
  stall(pings: boolean, durationMs?: number | null): number;
  /** Halts a symbol of the market for so long; a tape has no halts. */
  halt(symbol: string, durationMs: number): void;
  /** From now on trade frames leave so much later, those that are already held back too. */
  delay(delayMs: number): void;
  breakSearch(outage: SearchOutage | null): void;
  /** Answers each subscription of the symbol with "Invalid symbol" for so long, though it is listed. */
  refuseSymbol(symbol: string, durationMs: number): void;
  /** Sends a text frame to every client, now, whatever it holds. Returns how many clients got it. */
  send(text: string): number;
  /** The same with a frame of that kind. */
  sendExtra(kind: ExtraFrame): number;
}

type FaultControlsDeps = Readonly<{
  clock: Clock;
  later: Later;
  connections: Connections;
  planner: FaultPlanner;
  market: Market;
  player: Player;
  delayLine: DelayLine;
  breakSearch: (outage: SearchOutage | null) => void;
  refuseSymbol: (symbol: string, durationMs: number) => void;
}>;

export function createFaultControls(deps: FaultControlsDeps): SimulatorFaults {
  const { clock, later, connections, planner, market, player, delayLine, breakSearch, refuseSymbol } = deps;
  return {
    breakSearch,
    refuseSymbol,
    resetConnections() {
      const clients = connections.open();
      for (const one of clients) connections.drop(one, "reset");
      return clients.length;
    },
    refuseHandshakes: (status, count) => planner.planHandshakes(status, count),
    slowHandshakes: (delayMs, count) => planner.planHandshakeDelays(delayMs, count),
    planFrames: (plan, count = 1) => planner.planFrames(plan, count),
    stall(pings, durationMs = null) {
      const clients = connections.open();
      const set = (stall: Stall | null) => {
        for (const one of clients) one.stall = stall;
        player.wake();
      };
      set(pings ? "trades" : "everything");
      if (durationMs !== null) later(durationMs, () => set(null));
      return clients.length;
    },
    halt: (symbol, durationMs) => market.halt(symbol, clock.now() + durationMs),
    delay(delayMs) {
      checkOptions({ delayMs });
      delayLine.set(delayMs);
    },
    send(text) {
      const tradeCount = tradesOf(text).length;
      const kind = tradeCount > 0 ? "trade" : isPing(text) ? "ping" : "other";
      const clients = connections.open();
      return clients.filter((one) => connections.post(one, kind, text, tradeCount, "injected")).length;
    },
    sendExtra(kind) {
      const clients = connections.open();
      return clients.filter((one) => connections.post(one, kind, EXTRA_TEXT[kind], 0, "injected")).length;
    },
  };
}

/** What chaos does, by these faults. */
export function chaosActions(faults: SimulatorFaults, market: Market): ChaosActions {
  return {
    reset(next) {
      if (next === "slow") faults.slowHandshakes(SLOW_HANDSHAKE_MS, 1);
      else if (next !== null) faults.refuseHandshakes(next, 1);
      faults.resetConnections();
    },
    stall: (pings, durationMs) => void faults.stall(pings, durationMs),
    halt(share, durationMs) {
      const symbols = market.active();
      const symbol = symbols[Math.floor(share * symbols.length)];
      if (symbol !== undefined) faults.halt(symbol, durationMs);
    },
    delay: (delayMs) => faults.delay(delayMs),
    breakSearch: (isBroken) => faults.breakSearch(isBroken ? "empty" : null),
  };
}
