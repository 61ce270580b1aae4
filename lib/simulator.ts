// Finnhub on a loopback port: its websocket and the REST calls that validation needs, behaving as observed (see
// the facts in finnhub.md), with a market or a tape behind it and with faults on demand. A server like any other
// to its client: nothing of the pipeline is imported here, nothing is stored, and no token is ever reported.

import type { Server, ServerWebSocket } from "bun";
import { type Clock, systemClock } from "./clock.ts";
import { SetupError } from "./errors.ts";
import { type Report, silentReport } from "./report.ts";
import {
  EXTRA_TEXT,
  type ExtraFrame,
  FaultPlanner,
  type FaultRates,
  type FramePlan,
  type HandshakeFault,
} from "./simulator-faults.ts";
import {
  type FrameKind,
  LEDGER_ENTRIES_MAX,
  type Ledger,
  LedgerBook,
  type LedgerConnection,
  type SentFault,
  type UnsentReason,
} from "./simulator-ledger.ts";
import { type Instrument, treatmentOf } from "./simulator-listings.ts";
import { createMarket, FRAME_TRADES_MAX, frameText } from "./simulator-market.ts";
import { type OutFrame, playMarket, playTape, type Stage, type TapeTimes } from "./simulator-player.ts";
import { API_PATH, BAD_KEY_BODY, createRest, LIMIT_BODY, NO_KEY_BODY } from "./simulator-rest.ts";
import { isPing, readTape, split, type Tape, tradesOf } from "./simulator-tape.ts";
import { SYMBOL_LENGTH_MAX } from "./trade.ts";

export type SimulatorOptions = Readonly<{
  /** 0 = any free port. */
  port?: number | undefined;
  /** Accepted tokens; without it any token that is not empty. */
  token?: string | readonly string[] | undefined;
  clock?: Clock | undefined;
  report?: Report | undefined;
  /** Of the market and of the faults. */
  seed?: number | undefined;
  /** Instruments that extend or replace the listings, for the market and for REST alike. */
  instruments?: readonly Instrument[] | undefined;
  /** All streamed symbols together; without it each symbol keeps its natural rate. */
  tradesPerSecond?: number | undefined;
  /** A recorded tape, or the path of one, instead of the market. */
  tape?: string | Tape | undefined;
  /** A tape at "max" waits until all of these are subscribed; by default every symbol in it. */
  tapeSymbols?: readonly string[] | undefined;
  /** A factor, or as fast as the client takes it. Without a tape "max" is MARKET_TRADES_PER_SECOND_AT_MAX. */
  speed?: number | "max" | undefined;
  times?: TapeTimes | undefined;
  symbolsMax?: number | undefined;
  /** Subscriptions accepted above the cap; measured at Finnhub: 1, so that the 52nd gets the error. */
  symbolsOverMax?: 0 | 1 | undefined;
  /** What a second connection on a token meets: HTTP 429. */
  secondConnection?: "reject" | undefined;
  pingIntervalMs?: number | undefined;
  faults?: FaultRates | undefined;
  /** false: count only. A number: so many entries, the newest. */
  ledger?: boolean | number | undefined;
  restCallsPerMinuteMax?: number | undefined;
  searchKnowsCrypto?: boolean | undefined;
  searchKnowsForex?: boolean | undefined;
}>;

export interface SimulatorFaults {
  /** Cuts every connection without a close frame; how many there were. */
  resetConnections(): number;
  refuseHandshakes(status: HandshakeFault, count: number): void;
  /** The next `count` trade frames meet this, whatever the rates say. */
  planFrames(plan: Partial<FramePlan>, count?: number): void;
  /** A text frame to every client, now, whatever it holds; how many clients got it. */
  send(text: string): number;
  sendExtra(kind: ExtraFrame): number;
}

export interface Simulator extends AsyncDisposable {
  readonly port: number;
  /** To which the client adds `?token=`. */
  readonly wsUrl: string;
  readonly apiUrl: string;
  readonly ledger: Ledger;
  readonly faults: SimulatorFaults;
  /** Resolves when the tape's last frame was handed over; never without a tape. */
  readonly tapeEnded: Promise<void>;
  clients(): readonly Readonly<{ connection: number; symbols: readonly string[] }>[];
  stop(): Promise<void>;
}

/** A random walk has no end: unthrottled it would only fill the disk. */
export const MARKET_TRADES_PER_SECOND_AT_MAX = 20_000;
/** An hour in a few milliseconds; more is "max". */
export const SPEED_FACTOR_MAX = 1_000_000;
const TRADES_PER_SECOND_MAX = 100_000;
const PING_INTERVAL_MS = 60_000;
const SYMBOLS_MAX = 50;
const REST_CALLS_PER_MINUTE_MAX = 60;
/** Who has not subscribed to everything this long after its first subscription will not. */
const SUBSCRIBE_GRACE_MS = 2_000;
/** Unread frames of a tape at "max": small, so that "sent" is soon "read" even for a slow client. */
const FRAMES_UNREAD_MAX = 256;
/** Several questions per window, so that the window moves on while the client still reads. */
const FRAMES_PER_QUESTION = 64;
/** A client that is this far behind is cut off. */
const UNSENT_BYTES_MAX = 16 * 2 ** 20;
/** A client only says subscribe and unsubscribe. */
const CLIENT_MESSAGE_BYTES_MAX = 64 * 2 ** 10;
const TOO_MANY_TEXT = '{"msg":"Subscribing to too many symbols","type":"error"}';
const PING_TEXT = '{"type":"ping"}';

type Connection = {
  readonly number: number;
  readonly token: string;
  readonly symbols: Set<string>;
  socket: ServerWebSocket<Connection> | null;
  /** It counts as audience of a tape. */
  attentive: boolean;
  hasGrace: boolean;
  /** Its buffer is full until `drain`. */
  full: boolean;
  framesSent: number;
  framesRead: number;
};

export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  checkRates(options);
  const tape = typeof options.tape === "string" ? await readTape(options.tape) : options.tape;
  return openSimulator(options, tape);
}

/** SIMULATOR_SPEED as it is written: a factor above 0, or `max`. Null: neither. */
export function parseSpeed(text: string): number | "max" | null {
  if (text.trim().toLowerCase() === "max") return "max";
  const factor = text.trim() === "" ? Number.NaN : Number(text);
  return factor > 0 && factor <= SPEED_FACTOR_MAX ? factor : null;
}

function checkRates({ speed, tradesPerSecond }: SimulatorOptions) {
  if (typeof speed === "number" && !(speed > 0 && speed <= SPEED_FACTOR_MAX)) {
    throw new SetupError(
      `A simulator speed of ${speed} is not possible.`,
      `SIMULATOR_SPEED is a number above 0 and up to ${SPEED_FACTOR_MAX}, or max.`,
    );
  }
  if (tradesPerSecond !== undefined && !(tradesPerSecond > 0 && tradesPerSecond <= TRADES_PER_SECOND_MAX)) {
    throw new SetupError(
      `The simulator cannot make ${tradesPerSecond} trades per second.`,
      `The rate is a number above 0 and up to ${TRADES_PER_SECOND_MAX}.`,
    );
  }
}

function openSimulator(options: SimulatorOptions, tape: Tape | undefined): Simulator {
  const clock = options.clock ?? systemClock;
  const report = options.report ?? silentReport;
  const seed = options.seed ?? 1;
  const speed = options.speed ?? 1;
  const symbolsAccepted = (options.symbolsMax ?? SYMBOLS_MAX) + (options.symbolsOverMax ?? 1);
  const tapeSymbols = options.tapeSymbols ?? [...(tape?.symbols ?? [])];
  const tokens = typeof options.token === "string" ? [options.token] : options.token;
  const accepts = (token: string) => token !== "" && (tokens === undefined || tokens.includes(token));

  const ledger = new LedgerBook(ledgerEntriesMax(options.ledger));
  const planner = new FaultPlanner(options.faults ?? {}, seed);
  const connections = new Map<string, Connection>();
  const timers = new Set<() => void>();
  let connectionCount = 0;
  let stopped = false;

  // ---- time

  function later(durationMs: number, callback: () => void): () => void {
    if (stopped) return () => {};
    const forget = () => {
      cancelTimer();
      timers.delete(forget);
    };
    const cancelTimer = clock.after(durationMs, () => {
      timers.delete(forget);
      callback();
    });
    timers.add(forget);
    return forget;
  }

  // ---- sending

  function unsent(
    reason: UnsentReason,
    connection: number | null,
    frame: Readonly<{ text: string; tradeCount: number }>,
  ) {
    const kind = frame.tradeCount > 0 ? "trade" : "other";
    const { text, tradeCount } = frame;
    ledger.add({
      atMs: clock.now(),
      kind,
      text,
      tradeCount,
      sent: false,
      reason,
      connection,
      fault: null,
    });
  }

  /** Hands one text to one socket and writes it down; whether it was taken. */
  function post(
    to: Connection,
    kind: FrameKind,
    text: string,
    tradeCount: number,
    fault: SentFault | null = null,
  ): boolean {
    if (to.socket === null || to.socket.readyState !== WebSocket.OPEN) {
      unsent("no client", null, { text, tradeCount });
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
    const index = ledger.add({
      atMs,
      kind,
      text,
      tradeCount,
      sent: true,
      reason: null,
      connection: to.number,
      fault,
    });
    if (speed === "max" && to.framesSent % FRAMES_PER_QUESTION === 0) ask(to, index);
    return true;
  }

  /** A protocol ping: its pong says that the client has read everything before it. Invisible to onmessage. */
  function ask(to: Connection, index: number) {
    to.socket?.ping(`${to.framesSent} ${index}`);
  }

  function answered(from: Connection, data: string) {
    const [framesRead = Number.NaN, index = Number.NaN] = data.split(" ").map(Number);
    // A pong that we did not ask for says nothing.
    if (!(framesRead > from.framesRead && framesRead <= from.framesSent)) return;
    from.framesRead = framesRead;
    ledger.taken(from.number, index);
  }

  /** One trade frame, already of subscribed symbols only, with whatever fault befalls it. */
  function postTrades(to: Connection, text: string, tradeCount: number) {
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

  function deliverTo(to: Connection, frame: OutFrame) {
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

  const isOpen = (one: Connection) => one.socket?.readyState === WebSocket.OPEN;
  const open = () => [...connections.values()].filter(isOpen);

  const stage: Stage = {
    clock,
    later,
    deliver(frame) {
      // At "max" a tape plays for its audience; at a factor it is a market, and plays for everybody.
      const waits = tape !== undefined && speed === "max";
      let count = 0;
      for (const one of connections.values()) {
        if (!isOpen(one) || (waits && !one.attentive)) continue;
        count += 1;
        deliverTo(one, frame);
      }
      if (count === 0) unsent("no client", null, frame);
    },
    audience() {
      let audience: "nobody" | "ready" = "nobody";
      for (const one of connections.values()) {
        if (!one.attentive || !isOpen(one)) continue;
        if (one.full || one.framesSent - one.framesRead >= FRAMES_UNREAD_MAX) return "busy";
        audience = "ready";
      }
      return audience;
    },
    flush() {
      if (speed !== "max") return;
      for (const one of open()) ask(one, ledger.nextIndex() - 1);
    },
  };

  // ---- market or tape

  const market = createMarket({
    seed,
    instruments: options.instruments,
    tradesPerSecond:
      options.tradesPerSecond ?? (speed === "max" ? MARKET_TRADES_PER_SECOND_AT_MAX : undefined),
    speed: speed === "max" ? 1 : speed,
  });
  const { promise: tapeEnded, resolve: endTape } = Promise.withResolvers<void>();
  const player =
    tape === undefined
      ? playMarket(market, stage)
      : playTape(tape, speed, options.times ?? "present", stage, endTape);

  /** Symbols of a client that is gone go on trading, until somebody connects and does not want them. */
  function stopUnwanted() {
    const clients = open();
    if (clients.length === 0) return;
    for (const symbol of market.active()) {
      if (!clients.some((one) => one.symbols.has(symbol))) market.stop(symbol);
    }
  }

  // ---- what a client says

  function subscribe(from: Connection, symbol: string) {
    const treatment = treatmentOf(symbol);
    if (treatment === "invalid") {
      post(from, "error", JSON.stringify({ msg: `Invalid symbol ${symbol}`, type: "error" }), 0);
      return;
    }
    if (from.symbols.has(symbol)) return;
    if (from.symbols.size >= symbolsAccepted) {
      post(from, "error", TOO_MANY_TEXT, 0);
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
    if (tape === undefined) market.start(symbol, clock.now());
    player.wake();
  }

  function unsubscribe(from: Connection, symbol: string) {
    from.symbols.delete(symbol);
    if (!open().some((one) => one.symbols.has(symbol))) market.stop(symbol);
    player.wake();
  }

  /** What Finnhub does with anything else is unknown; silence is the likeliest, and the hardest on a client. */
  function listen(from: Connection, text: string) {
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
  }

  // ---- connections

  function handshake(request: Request, token: string, via: Server<Connection>): Response | undefined {
    const fault = planner.nextHandshake();
    if (token === "") return Response.json(NO_KEY_BODY, { status: 401 });
    if (fault === 401 || !accepts(token)) return Response.json(BAD_KEY_BODY, { status: 401 });
    // The old session of this token is still held.
    if (fault === 429 || connections.has(token)) return Response.json(LIMIT_BODY, { status: 429 });
    const connection: Connection = {
      number: connectionCount + 1,
      token,
      symbols: new Set(),
      socket: null,
      attentive: false,
      hasGrace: false,
      full: false,
      framesSent: 0,
      framesRead: 0,
    };
    // Before the upgrade, so that two handshakes in one tick cannot both pass.
    connections.set(token, connection);
    connectionCount += 1;
    if (via.upgrade(request, { data: connection })) return undefined;
    connections.delete(token);
    return new Response("Upgrade failed", { status: 400 });
  }

  function drop(one: Connection, reason: NonNullable<LedgerConnection["closeReason"]>) {
    if (connections.get(one.token) !== one) return;
    connections.delete(one.token);
    ledger.closed(one.number, clock.now(), reason);
    report.debug("simulator: connection closed", { connection: one.number, reason });
    one.socket?.terminate();
    one.socket = null;
  }

  const answerRest = createRest({
    accepts,
    price: (symbol) => market.price(symbol),
    instruments: options.instruments ?? [],
    callsPerMinuteMax: options.restCallsPerMinuteMax ?? REST_CALLS_PER_MINUTE_MAX,
    searchKnowsCrypto: options.searchKnowsCrypto ?? true,
    searchKnowsForex: options.searchKnowsForex ?? false,
  });

  const server = serve(options.port ?? 0, {
    fetch(request, via) {
      const url = new URL(request.url);
      if (url.pathname.startsWith(`${API_PATH}/`)) return answerRest(url, request.headers, clock.now());
      if (url.pathname !== "/" || request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
        return Response.json({ error: "Not found." }, { status: 404 });
      }
      return handshake(request, url.searchParams.get("token") ?? "", via);
    },
    open(socket) {
      const connection = socket.data;
      connection.socket = socket;
      ledger.opened(connection.number, clock.now());
      report.debug("simulator: connection opened", { connection: connection.number });
      later(SUBSCRIBE_GRACE_MS, stopUnwanted);
    },
    message: (socket, message) => {
      if (typeof message === "string") listen(socket.data, message);
    },
    drain(socket) {
      socket.data.full = false;
      player.wake();
    },
    pong(socket, data) {
      answered(socket.data, data.toString());
      player.wake();
    },
    close: (socket) => drop(socket.data, "client"),
  });
  const { port } = server;

  // The ping timer runs free: it knows of no connection, and trades do not delay it.
  function ping() {
    for (const one of open()) post(one, "ping", PING_TEXT, 0);
    later(options.pingIntervalMs ?? PING_INTERVAL_MS, ping);
  }
  later(options.pingIntervalMs ?? PING_INTERVAL_MS, ping);

  const faults: SimulatorFaults = {
    resetConnections() {
      const clients = open();
      for (const one of clients) drop(one, "reset");
      return clients.length;
    },
    refuseHandshakes: (status, count) => planner.planHandshakes(status, count),
    planFrames: (plan, count = 1) => planner.planFrames(plan, count),
    send(text) {
      const tradeCount = tradesOf(text).length;
      const kind = tradeCount > 0 ? "trade" : isPing(text) ? "ping" : "other";
      return open().filter((one) => post(one, kind, text, tradeCount, "injected")).length;
    },
    sendExtra: (kind) => open().filter((one) => post(one, kind, EXTRA_TEXT[kind], 0, "injected")).length,
  };

  async function stop() {
    if (stopped) return;
    stopped = true;
    for (const cancel of timers) cancel();
    for (const one of [...connections.values()]) drop(one, "stopped");
    await server.stop(true);
  }

  return {
    port,
    wsUrl: `ws://127.0.0.1:${port}`,
    apiUrl: `http://127.0.0.1:${port}${API_PATH}`,
    ledger,
    faults,
    tapeEnded,
    clients: () => open().map((one) => ({ connection: one.number, symbols: [...one.symbols] })),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function ledgerEntriesMax(ledger: boolean | number | undefined): number {
  if (ledger === false) return 0;
  return typeof ledger === "number" ? ledger : LEDGER_ENTRIES_MAX;
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

type Handlers = Readonly<{
  fetch(request: Request, server: Server<Connection>): Response | undefined;
  open(socket: ServerWebSocket<Connection>): void;
  message(socket: ServerWebSocket<Connection>, message: string | Buffer): void;
  drain(socket: ServerWebSocket<Connection>): void;
  pong(socket: ServerWebSocket<Connection>, data: Buffer): void;
  close(socket: ServerWebSocket<Connection>): void;
}>;

function serve(portWanted: number, handlers: Handlers) {
  const { fetch, ...websocket } = handlers;
  try {
    const server = Bun.serve<Connection>({
      hostname: "127.0.0.1",
      port: portWanted,
      fetch,
      websocket: {
        ...websocket,
        // Finnhub closes nobody for being quiet, and sends no protocol pings.
        idleTimeout: 0,
        sendPings: false,
        maxPayloadLength: CLIENT_MESSAGE_BYTES_MAX,
        backpressureLimit: UNSENT_BYTES_MAX,
      },
    });
    if (server.port === undefined) throw new Error("a server on loopback has a port");
    return { port: server.port, stop: (force: boolean) => server.stop(force) };
  } catch (error) {
    throw new SetupError(
      `The simulator cannot listen on 127.0.0.1:${portWanted}.`,
      "Another process may have the port; 0 takes any free one.",
      error,
    );
  }
}
