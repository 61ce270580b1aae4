// Finnhub on a loopback port: its websocket and the REST calls that validation needs, behaving as observed (see
// the facts in finnhub.md), with a market or a tape behind it and with faults on demand. A server like any other
// to its client: nothing of the pipeline is imported here, nothing is stored, and no token is ever reported.

import { systemClock } from "../base/clock.ts";
import { silentLogger } from "../base/logger.ts";
import { dropDaily, startChaos } from "./chaos.ts";
import { createConnections, type Stall } from "./connections.ts";
import { createDelayLine } from "./delay.ts";
import {
  EXTRA_TEXT,
  type ExtraFrame,
  FaultPlanner,
  type FramePlan,
  type HandshakeFault,
  SLOW_HANDSHAKE_MS,
} from "./faults.ts";
import { LEDGER_ENTRIES_MAX, type Ledger, LedgerBook } from "./ledger.ts";
import { createListener } from "./listener.ts";
import { type Instrument, instrumentOf } from "./listings.ts";
import { createMarket } from "./market.ts";
import { checkOptions, parseSpeed, type SimulatorOptions, SPEED_FACTOR_MAX } from "./options.ts";
import { playMarket, playTape } from "./player.ts";
import { API_PATH, createRest, type SearchOutage } from "./rest.ts";
import { withScenario } from "./scenarios.ts";
import { serveSimulator } from "./serve.ts";
import { createSessions } from "./session.ts";
import { isPing, readTape, type Tape, tradesOf } from "./tape.ts";
import { createTimers } from "./timers.ts";
import { createUpgrade, KICKED } from "./upgrade.ts";

export { parseSpeed, type SimulatorOptions, SPEED_FACTOR_MAX };

export interface SimulatorFaults {
  /** Cuts every connection without a close frame; how many there were. */
  resetConnections(): number;
  refuseHandshakes(status: HandshakeFault, count: number): void;
  /** The next upgrades are answered so much later. */
  slowHandshakes(delayMs: number, count: number): void;
  /** The next `count` trade frames meet this, whatever the rates say. */
  planFrames(plan: Partial<FramePlan>, count?: number): void;
  /** The open connections hang, with pings or without, for the time or until they end; how many there are. */
  stall(pings: boolean, durationMs?: number | null): number;
  /** The market's symbol does not trade for so long; a tape knows no halts. */
  halt(symbol: string, durationMs: number): void;
  /** Trade frames leave so much later from now on, those that are held back already too. */
  delay(delayMs: number): void;
  breakSearch(outage: SearchOutage | null): void;
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
const PING_INTERVAL_MS = 60_000;
const SYMBOLS_MAX = 50;
const REST_CALLS_PER_MINUTE_MAX = 60;
const REST_CALLS_PER_SECOND_MAX = 30;
const PING_TEXT = '{"type":"ping"}';

export async function startSimulator(given: SimulatorOptions = {}): Promise<Simulator> {
  const options = withScenario(given);
  checkOptions(options);
  const tape = typeof options.tape === "string" ? await readTape(options.tape) : options.tape;
  return openSimulator(options, tape);
}

function openSimulator(options: SimulatorOptions, tape: Tape | undefined): Simulator {
  const { clock = systemClock, logger = silentLogger, seed = 1, speed = 1 } = options;
  const isMax = speed === "max";
  const isForAudience = tape !== undefined && isMax;
  const tokens = typeof options.token === "string" ? [options.token] : options.token;
  const accepts = (token: string) => token !== "" && (tokens === undefined || tokens.includes(token));

  const timers = createTimers(clock);
  const { later } = timers;
  const ledger = new LedgerBook(ledgerEntriesMax(options.ledger));
  const planner = new FaultPlanner(options.faults ?? {}, seed);
  const connections = createConnections({ clock, logger, ledger, planner, later, isMax, isForAudience });
  const delayLine = createDelayLine(connections.stage, options.delayMs ?? 0);

  const market = createMarket({
    seed,
    instruments: options.instruments,
    tradesPerSecond: options.tradesPerSecond ?? (isMax ? MARKET_TRADES_PER_SECOND_AT_MAX : undefined),
    speed: isMax ? 1 : speed,
    pace: options.pace,
    sessionHours: options.sessionHours,
  });
  const { promise: tapeEnded, resolve: endTape } = Promise.withResolvers<void>();
  const player =
    tape === undefined
      ? playMarket(market, delayLine.stage, options.batching)
      : // A tape at "max" counts on what it delivers being sent.
        playTape(
          tape,
          speed,
          options.times ?? "present",
          isMax ? connections.stage : delayLine.stage,
          endTape,
        );

  const listener = createListener({
    clock,
    connections,
    later,
    market: tape === undefined ? market : null,
    player,
    tapeSymbols: options.tapeSymbols ?? [...(tape?.symbols ?? [])],
    symbolsAccepted: (options.symbolsMax ?? SYMBOLS_MAX) + (options.symbolsOverMax ?? 1),
  });

  let searchOutage = options.searchOutage ?? null;
  const sessionOf = createSessions();
  const answerRest = createRest({
    accepts,
    price: (symbol) => market.price(symbol),
    instruments: [...listedByTape(tape), ...(options.instruments ?? [])],
    callsPerMinuteMax: options.restCallsPerMinuteMax ?? REST_CALLS_PER_MINUTE_MAX,
    callsPerSecondMax: options.restCallsPerSecondMax ?? REST_CALLS_PER_SECOND_MAX,
    searchKnowsCrypto: options.searchKnowsCrypto ?? true,
    searchKnowsForex: options.searchKnowsForex ?? false,
    searchOutage: () => searchOutage,
    session: (nowMs) => (options.sessionHours ? sessionOf(nowMs) : "regular"),
  });
  const secondConnection = options.secondConnection ?? "reject";
  const upgrade = createUpgrade({ connections, planner, later, accepts, secondConnection });

  const server = serveSimulator(options.port ?? 0, {
    fetch(request, via) {
      const url = new URL(request.url);
      if (url.pathname.startsWith(`${API_PATH}/`)) return answerRest(url, request.headers, clock.now());
      if (url.pathname !== "/" || request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
        return Response.json({ error: "Not found." }, { status: 404 });
      }
      return upgrade(request, url.searchParams.get("token") ?? "", via);
    },
    open(socket) {
      connections.opened(socket.data, socket);
      if (socket.data.isDoomed) connections.drop(socket.data, KICKED);
      listener.greet();
    },
    message: (socket, message) => {
      if (typeof message === "string") listener.listen(socket.data, message);
    },
    drain(socket) {
      socket.data.full = false;
      player.wake();
    },
    pong(socket, data) {
      connections.answered(socket.data, data.toString());
      player.wake();
    },
    close: (socket) => connections.drop(socket.data, "client"),
  });
  const { port } = server;

  // The ping timer runs free: it knows of no connection, and trades do not delay it.
  function ping() {
    for (const one of connections.open()) connections.post(one, "ping", PING_TEXT, 0);
    later(options.pingIntervalMs ?? PING_INTERVAL_MS, ping);
  }
  later(options.pingIntervalMs ?? PING_INTERVAL_MS, ping);

  const faults: SimulatorFaults = {
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
    delay: (delayMs) => {
      checkOptions({ delayMs });
      delayLine.set(delayMs);
    },
    breakSearch(outage) {
      searchOutage = outage;
    },
    send(text) {
      const tradeCount = tradesOf(text).length;
      const kind = tradeCount > 0 ? "trade" : isPing(text) ? "ping" : "other";
      return connections.open().filter((one) => connections.post(one, kind, text, tradeCount, "injected"))
        .length;
    },
    sendExtra: (kind) =>
      connections.open().filter((one) => connections.post(one, kind, EXTRA_TEXT[kind], 0, "injected")).length,
  };

  if (options.dailyDrop !== undefined) {
    const isReset = options.dailyDrop === "reset";
    dropDaily({ clock, later }, () => (isReset ? faults.resetConnections() : faults.stall(false)));
  }
  if (options.mishapGapMs !== undefined) {
    const chaos = {
      reset(next: HandshakeFault | "slow" | null) {
        if (next === "slow") faults.slowHandshakes(SLOW_HANDSHAKE_MS, 1);
        else if (next !== null) faults.refuseHandshakes(next, 1);
        faults.resetConnections();
      },
      stall: (pings: boolean, durationMs: number | null) => void faults.stall(pings, durationMs),
      halt(share: number, durationMs: number) {
        const symbol = market.active()[Math.floor(share * market.active().length)];
        if (symbol !== undefined) faults.halt(symbol, durationMs);
      },
      delay: faults.delay,
      breakSearch: (isBroken: boolean) => faults.breakSearch(isBroken ? "empty" : null),
    };
    startChaos({ clock, later, chaos }, seed, options.mishapGapMs);
  }

  let stopped = false;
  async function stop() {
    if (stopped) return;
    stopped = true;
    timers.stop();
    connections.stopAll();
    await server.stop(true);
  }

  return {
    port,
    wsUrl: `ws://127.0.0.1:${port}`,
    apiUrl: `http://127.0.0.1:${port}${API_PATH}`,
    ledger,
    faults,
    tapeEnded,
    clients: () => connections.open().map((one) => ({ connection: one.number, symbols: [...one.symbols] })),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Whatever a tape plays exists, also for whoever asks the lists. */
function listedByTape(tape: Tape | undefined): Instrument[] {
  return [...(tape?.symbols ?? [])].flatMap((symbol) => instrumentOf(symbol) ?? []);
}

function ledgerEntriesMax(ledger: boolean | number | undefined): number {
  if (ledger === false) return 0;
  return typeof ledger === "number" ? ledger : LEDGER_ENTRIES_MAX;
}
