// The stage of the simulator's player: delivers each frame to every client that subscribed to its symbols, with the faults
// that are planned for it, and tells whether the clients have room for more.

import type { Clock } from "../base/clock.ts";
import { type Connection, type Connections, isOpen } from "./connections.ts";
import { EXTRA_TEXT, type FaultPlanner } from "./faults.ts";
import { FRAME_TRADES_MAX, frameText } from "./frames.ts";
import type { SentFault } from "./ledger.ts";
import type { OutFrame, Stage } from "./player.ts";
import { isPing, split, tradesOf } from "./tape.ts";
import type { Later } from "./timers.ts";

type StageDeps = Readonly<{
  clock: Clock;
  connections: Connections;
  planner: FaultPlanner;
  later: Later;
  /** As fast as the clients read. */
  isMax: boolean;
  /** A tape at "max" plays for its audience alone; at a factor it is a market, and plays for everybody. */
  isForAudience: boolean;
}>;

/** Unread frames of a tape at "max": few, so that "sent" is soon "read" even for a slow client. */
const FRAMES_UNREAD_MAX = 256;

export function createStage(deps: StageDeps): Stage {
  const { clock, connections, later, isMax, isForAudience } = deps;
  return {
    clock,
    later,
    deliver(frame) {
      const audience = connections.open().filter((one) => !isForAudience || one.attentive);
      // A fault of one frame can drop a connection that comes later in the list.
      for (const one of audience) if (isOpen(one)) deliverTo(deps, one, frame);
      if (audience.length === 0) connections.recordUnsent("no client", null, frame);
    },
    audience() {
      const audience = connections.open().filter((one) => one.attentive);
      // A tape at "max" loses nothing, so it waits for a connection that hangs too.
      if (audience.some((one) => isBehind(one) || (isForAudience && one.stall !== null))) return "busy";
      return audience.length > 0 ? "ready" : "nobody";
    },
    flush() {
      if (isMax) connections.pingAll();
    },
  };
}

function isBehind(one: Connection): boolean {
  return one.full || one.framesSent - one.framesRead >= FRAMES_UNREAD_MAX;
}

function deliverTo(deps: StageDeps, to: Connection, frame: OutFrame): void {
  const { connections } = deps;
  if (frame.symbols.length === 0) {
    connections.post(to, isPing(frame.text) ? "ping" : "other", frame.text, 0);
  } else if (frame.symbols.every((symbol) => to.symbols.has(symbol))) {
    postTrades(deps, to, frame.text, frame.tradeCount);
  } else {
    const { taken, left } = split(frame.text, (symbol) => to.symbols.has(symbol));
    if (left !== null) connections.recordUnsent("not subscribed", to.number, left);
    if (taken !== null) postTrades(deps, to, taken.text, taken.tradeCount);
  }
}

/** Posts one trade frame, already of subscribed symbols only, with the faults that are planned for it. */
function postTrades(deps: StageDeps, to: Connection, text: string, tradeCount: number): void {
  const { connections, planner, later } = deps;
  const plan = planner.nextFrame();
  for (const extra of plan.extras) connections.post(to, extra, EXTRA_TEXT[extra], 0, "injected");
  const post = (fault: SentFault | null) => {
    for (const part of repeated(text, tradeCount, plan.copies)) {
      connections.post(to, "trade", part.text, part.tradeCount, plan.copies > 1 ? "duplicate" : fault);
    }
  };
  if (plan.holdBackMs > 0) later(plan.holdBackMs, () => post("held back"));
  else post(null);
  for (const delayMs of plan.againAfterMs) {
    later(delayMs, () => {
      // A second copy without a client is no trade missed: the first one was sent.
      if (isOpen(to)) connections.post(to, "trade", text, tradeCount, "duplicate");
    });
  }
  if (plan.reset) connections.drop(to, "reset");
}

/** The frame with each of its trades that often; in several frames where one would be larger than any seen. */
function repeated(text: string, tradeCount: number, copies: number) {
  if (copies === 1) return [{ text, tradeCount }];
  const trades = tradesOf(text).flatMap((trade) => Array.from({ length: copies }, () => trade));
  const parts: { text: string; tradeCount: number }[] = [];
  for (let from = 0; from < trades.length; from += FRAME_TRADES_MAX) {
    const part = trades.slice(from, from + FRAME_TRADES_MAX);
    parts.push({ text: frameText(part), tradeCount: part.length });
  }
  return parts;
}
