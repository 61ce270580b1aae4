// The simulator's open connections: hands frames to sockets, writes down in the ledger what became of each, and
// lets faults befall them. Which frame is due, and what a client may subscribe to, others decide.

import type { ServerWebSocket } from "bun";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import { EXTRA_TEXT, type FaultPlanner } from "./faults.ts";
import type { FrameKind, LedgerBook, LedgerConnection, SentFault, UnsentReason } from "./ledger.ts";
import { FRAME_TRADES_MAX, frameText } from "./market.ts";
import type { OutFrame, Stage } from "./player.ts";
import { isPing, split, tradesOf } from "./tape.ts";
import type { Later } from "./timers.ts";

/** What a connection that hangs no longer gets, though its socket is open. */
export type Stall = "trades" | "everything";

export type CloseReason = NonNullable<LedgerConnection["closeReason"]>;

export type Connection = {
  readonly number: number;
  readonly token: string;
  readonly symbols: Set<string>;
  socket: ServerWebSocket<Connection> | null;
  /** It counts as audience of a tape. */
  attentive: boolean;
  hasGrace: boolean;
  /** Its buffer is full until `drain`. */
  full: boolean;
  stall: Stall | null;
  /** It displaced another one, and both end. */
  isDoomed: boolean;
  framesSent: number;
  framesRead: number;
};

type Deps = Readonly<{
  clock: Clock;
  logger: Logger;
  ledger: LedgerBook;
  planner: FaultPlanner;
  later: Later;
  /** As fast as the clients take it: they are asked how far they have read. */
  isMax: boolean;
  /** A tape at "max" plays for its audience; at a factor it is a market, and plays for everybody. */
  isForAudience: boolean;
}>;

export type Connections = ReturnType<typeof createConnections>;

/** Unread frames of a tape at "max": small, so that "sent" is soon "read" even for a slow client. */
const FRAMES_UNREAD_MAX = 256;
/** Several questions per window, so that the window moves on while the client still reads. */
const FRAMES_PER_QUESTION = 64;

export function createConnections(deps: Deps) {
  const { clock, logger, ledger, planner, later, isMax, isForAudience } = deps;
  const byToken = new Map<string, Connection>();
  let count = 0;

  const isOpen = (one: Connection) => one.socket?.readyState === WebSocket.OPEN;
  const open = () => [...byToken.values()].filter(isOpen);

  /** Before the upgrade, so that two handshakes in one tick cannot both pass. */
  function admit(token: string): Connection {
    count += 1;
    const connection: Connection = {
      number: count,
      token,
      symbols: new Set(),
      socket: null,
      attentive: false,
      hasGrace: false,
      full: false,
      stall: null,
      isDoomed: false,
      framesSent: 0,
      framesRead: 0,
    };
    byToken.set(token, connection);
    return connection;
  }

  /** The upgrade failed after all: it never was a connection. */
  function dismiss(one: Connection): void {
    byToken.delete(one.token);
    count -= 1;
  }

  function opened(one: Connection, socket: ServerWebSocket<Connection>): void {
    one.socket = socket;
    ledger.opened(one.number, clock.now());
    logger.debug("simulator: connection opened", { connection: one.number });
  }

  function drop(one: Connection, reason: CloseReason): void {
    if (byToken.get(one.token) !== one) return;
    byToken.delete(one.token);
    ledger.closed(one.number, clock.now(), reason);
    logger.debug("simulator: connection closed", { connection: one.number, reason });
    one.socket?.terminate();
    one.socket = null;
  }

  function unsent(
    reason: UnsentReason,
    connection: number | null,
    frame: Readonly<{ text: string; tradeCount: number }>,
  ): void {
    const kind = frame.tradeCount > 0 ? "trade" : "other";
    const { text, tradeCount } = frame;
    const atMs = clock.now();
    ledger.add({ atMs, kind, text, tradeCount, sent: false, reason, connection, fault: null });
  }

  /** Hands one text to one socket and writes it down; whether it was taken. */
  function post(
    to: Connection,
    kind: FrameKind,
    text: string,
    tradeCount: number,
    fault: SentFault | null = null,
  ): boolean {
    if (to.socket === null || !isOpen(to)) {
      unsent("no client", null, { text, tradeCount });
      return false;
    }
    if (to.stall === "everything" || (to.stall === "trades" && kind === "trade")) {
      unsent("stalled", to.number, { text, tradeCount });
      return false;
    }
    const status = to.socket.send(text);
    if (status === 0) {
      unsent("client too slow", to.number, { text, tradeCount });
      drop(to, "client too slow");
      return false;
    }
    if (status === -1) to.full = true;
    to.framesSent += 1;
    const atMs = clock.now();
    const connection = to.number;
    const index = ledger.add({ atMs, kind, text, tradeCount, sent: true, reason: null, connection, fault });
    if (isMax && to.framesSent % FRAMES_PER_QUESTION === 0) ask(to, index);
    return true;
  }

  /** A protocol ping: its pong says that the client has read everything before it. Invisible to onmessage. */
  function ask(to: Connection, index: number): void {
    to.socket?.ping(`${to.framesSent} ${index}`);
  }

  function answered(from: Connection, data: string): void {
    const [framesRead = Number.NaN, index = Number.NaN] = data.split(" ").map(Number);
    // A pong that we did not ask for says nothing.
    if (!(framesRead > from.framesRead && framesRead <= from.framesSent)) return;
    from.framesRead = framesRead;
    ledger.taken(from.number, index);
  }

  /** One trade frame, already of subscribed symbols only, with whatever fault befalls it. */
  function postTrades(to: Connection, text: string, tradeCount: number): void {
    const plan = planner.nextFrame();
    for (const extra of plan.extras) post(to, extra, EXTRA_TEXT[extra], 0, "injected");
    const repeat = (fault: SentFault | null) => {
      for (const part of repeated(text, tradeCount, plan.copies)) {
        post(to, "trade", part.text, part.tradeCount, plan.copies > 1 ? "duplicate" : fault);
      }
    };
    if (plan.holdBackMs > 0) later(plan.holdBackMs, () => repeat("held back"));
    else repeat(null);
    for (const delayMs of plan.againAfterMs) {
      later(delayMs, () => {
        // A second copy that meets no client is no trade missed: the first one was sent.
        if (isOpen(to)) post(to, "trade", text, tradeCount, "duplicate");
      });
    }
    if (plan.reset) drop(to, "reset");
  }

  function deliverTo(to: Connection, frame: OutFrame): void {
    if (frame.symbols.length === 0) {
      post(to, isPing(frame.text) ? "ping" : "other", frame.text, 0);
    } else if (frame.symbols.every((symbol) => to.symbols.has(symbol))) {
      postTrades(to, frame.text, frame.tradeCount);
    } else {
      const { taken, left } = split(frame.text, (symbol) => to.symbols.has(symbol));
      if (left !== null) unsent("not subscribed", to.number, left);
      if (taken !== null) postTrades(to, taken.text, taken.tradeCount);
    }
  }

  const stage: Stage = {
    clock,
    later,
    deliver(frame) {
      let audienceCount = 0;
      for (const one of byToken.values()) {
        if (!isOpen(one) || (isForAudience && !one.attentive)) continue;
        audienceCount += 1;
        deliverTo(one, frame);
      }
      if (audienceCount === 0) unsent("no client", null, frame);
    },
    audience() {
      let audience: "nobody" | "ready" = "nobody";
      for (const one of byToken.values()) {
        if (!one.attentive || !isOpen(one)) continue;
        const isBehind = one.full || one.framesSent - one.framesRead >= FRAMES_UNREAD_MAX;
        // A tape at "max" loses nothing, so it waits for a connection that hangs too.
        if (isBehind || (isForAudience && one.stall !== null)) return "busy";
        audience = "ready";
      }
      return audience;
    },
    flush() {
      if (!isMax) return;
      for (const one of open()) ask(one, ledger.nextIndex() - 1);
    },
  };

  return {
    stage,
    open,
    admit,
    dismiss,
    opened,
    drop,
    post,
    answered,
    of: (token: string): Connection | undefined => byToken.get(token),
    stopAll() {
      for (const one of [...byToken.values()]) drop(one, "stopped");
    },
  };
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
