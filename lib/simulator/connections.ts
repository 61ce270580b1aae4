// The simulator's open connections, at most one a token: hands texts to their sockets and records in the ledger what
// became of each. Others decide which frame is due and what a client may subscribe to.

import type { ServerWebSocket } from "bun";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import type { FrameKind, LedgerBook, LedgerConnection, SentFault, UnsentReason } from "./ledger.ts";

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

type ConnectionsDeps = Readonly<{
  clock: Clock;
  logger: Logger;
  ledger: LedgerBook;
  /** As fast as the clients read: they are asked how far they have read. */
  isMax: boolean;
}>;

/** Several times per window of unread frames, so that the window moves on while the client still reads. */
const FRAMES_PER_PING = 64;

export class Connections {
  readonly #deps: ConnectionsDeps;
  readonly #byToken = new Map<string, Connection>();
  #count = 0;

  constructor(deps: ConnectionsDeps) {
    this.#deps = deps;
  }

  /** Those whose socket is open, the oldest first. */
  open(): Connection[] {
    return [...this.#byToken.values()].filter(isOpen);
  }

  of(token: string): Connection | undefined {
    return this.#byToken.get(token);
  }

  /** Before the upgrade, so that two handshakes in one tick cannot both pass. */
  admit(token: string): Connection {
    this.#count += 1;
    const connection: Connection = {
      number: this.#count,
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
    this.#byToken.set(token, connection);
    return connection;
  }

  /** The upgrade failed after all: it never was a connection. */
  dismiss(one: Connection): void {
    this.#byToken.delete(one.token);
    this.#count -= 1;
  }

  opened(one: Connection, socket: ServerWebSocket<Connection>): void {
    const { clock, ledger, logger } = this.#deps;
    one.socket = socket;
    ledger.opened(one.number, clock.now());
    logger.debug("simulator: connection opened", { connection: one.number });
  }

  drop(one: Connection, reason: CloseReason): void {
    const { clock, ledger, logger } = this.#deps;
    if (this.#byToken.get(one.token) !== one) return;
    this.#byToken.delete(one.token);
    ledger.closed(one.number, clock.now(), reason);
    logger.debug("simulator: connection closed", { connection: one.number, reason });
    one.socket?.terminate();
    one.socket = null;
  }

  stopAll(): void {
    for (const one of [...this.#byToken.values()]) this.drop(one, "stopped");
  }

  /** Hands one text to one socket and records it; false: it was not sent. */
  post(
    to: Connection,
    kind: FrameKind,
    text: string,
    tradeCount: number,
    fault: SentFault | null = null,
  ): boolean {
    const { clock, ledger, isMax } = this.#deps;
    const frame = { text, tradeCount };
    if (to.socket === null || !isOpen(to)) return this.recordUnsent("no client", null, frame);
    if (to.stall === "everything" || (to.stall === "trades" && kind === "trade")) {
      return this.recordUnsent("stalled", to.number, frame);
    }
    const status = to.socket.send(text);
    if (status === 0) {
      this.recordUnsent("client too slow", to.number, frame);
      this.drop(to, "client too slow");
      return false;
    }
    if (status === -1) to.full = true;
    to.framesSent += 1;
    const atMs = clock.now();
    const connection = to.number;
    const index = ledger.add({ atMs, kind, text, tradeCount, sent: true, reason: null, connection, fault });
    if (isMax && to.framesSent % FRAMES_PER_PING === 0) this.#ping(to, index);
    return true;
  }

  /** Records a frame that no socket got. Always false. */
  recordUnsent(
    reason: UnsentReason,
    connection: number | null,
    { text, tradeCount }: Readonly<{ text: string; tradeCount: number }>,
  ): false {
    const { clock, ledger } = this.#deps;
    const kind = tradeCount > 0 ? "trade" : "other";
    const atMs = clock.now();
    ledger.add({ atMs, kind, text, tradeCount, sent: false, reason, connection, fault: null });
    return false;
  }

  /** Asks every client how far it has read. */
  pingAll(): void {
    for (const one of this.open()) this.#ping(one, this.#deps.ledger.nextIndex() - 1);
  }

  /** `data`: that of one of our pings; anything else proves nothing. */
  ponged(from: Connection, data: string): void {
    const [framesRead = Number.NaN, index = Number.NaN] = data.split(" ").map(Number);
    if (!(framesRead > from.framesRead && framesRead <= from.framesSent)) return;
    from.framesRead = framesRead;
    this.#deps.ledger.taken(from.number, index);
  }

  /** A protocol ping: its pong proves that the client has read everything before it. Invisible to onmessage. */
  #ping(to: Connection, index: number): void {
    to.socket?.ping(`${to.framesSent} ${index}`);
  }
}

export function isOpen({ socket }: Connection): boolean {
  return socket?.readyState === WebSocket.OPEN;
}
