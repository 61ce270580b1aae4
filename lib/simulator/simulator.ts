// Finnhub on a loopback port: its websocket and the REST calls that validation needs, behaving as observed (see
// the facts in finnhub.md), with a market or a tape behind it and with faults on demand. To its client it is a server like
// any other: nothing is stored, and no token is ever reported.

import { type Clock, systemClock } from "../base/clock.ts";
import { silentLogger } from "../base/logger.ts";
import { dropDaily, startChaos } from "./chaos.ts";
import { Connections } from "./connections.ts";
import { createDelayLine, type DelayLine } from "./delay.ts";
import { createStage } from "./delivery.ts";
import { chaosActions, createFaultControls, type SimulatorFaults } from "./fault-controls.ts";
import { FaultPlanner } from "./faults.ts";
import { LEDGER_ENTRIES_MAX, type Ledger, LedgerBook } from "./ledger.ts";
import { createListener } from "./listener.ts";
import { type Instrument, instrumentOf } from "./listings.ts";
import { createMarket, type Market } from "./market.ts";
import { checkOptions, type SimulatorOptions } from "./options.ts";
import { type Player, playMarket, playTape, type Stage } from "./player.ts";
import { API_PATH, createRest } from "./rest.ts";
import type { SearchOutage } from "./rest-answers.ts";
import { withScenario } from "./scenarios.ts";
import { serveSimulator } from "./serve.ts";
import { createSessions } from "./session.ts";
import { readTape, type Tape } from "./tape.ts";
import { createTimers, type Later } from "./timers.ts";
import { createUpgrade, KICKED } from "./upgrade.ts";

export type { SimulatorFaults, SimulatorOptions };

export interface Simulator extends AsyncDisposable {
  readonly port: number;
  /** Without the `?token=` that a client adds. */
  readonly wsUrl: string;
  readonly apiUrl: string;
  readonly ledger: Ledger;
  readonly faults: SimulatorFaults;
  /** Resolves when the tape's last frame was delivered; never without a tape. */
  readonly tapeEnded: Promise<void>;
  clients(): readonly Readonly<{ connection: number; symbols: readonly string[] }>[];
  stop(): Promise<void>;
}

/** A random walk has no end: unthrottled it would only fill the disk. */
const MARKET_TRADES_PER_SECOND_AT_MAX = 20_000;
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
  const accepts = acceptorOf(options.token);

  const timers = createTimers(clock);
  const { later } = timers;
  const ledger = new LedgerBook(ledgerEntriesMax(options.ledger));
  const planner = new FaultPlanner(options.faults ?? {}, seed);
  const connections = new Connections({ clock, logger, ledger, isMax });
  const stage = createStage({ clock, connections, planner, later, isMax, isForAudience });
  const delayLine = createDelayLine(stage, options.delayMs ?? 0);
  const market = marketOf(options);
  const { promise: tapeEnded, resolve: endTape } = Promise.withResolvers<void>();
  const player = playerOf(options, tape, market, stage, delayLine, endTape);
  const listener = createListener({
    clock,
    connections,
    later,
    market: tape === undefined ? market : null,
    player,
    tapeSymbols: [...(tape?.symbols ?? [])],
    symbolsAccepted: (options.symbolsMax ?? SYMBOLS_MAX) + (options.symbolsOverMax ?? 1),
  });

  let searchOutage = options.searchOutage ?? null;
  const answerRest = restOf(options, tape, market, accepts, () => searchOutage);
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
      connections.ponged(socket.data, data.toString());
      player.wake();
    },
    close: (socket) => connections.drop(socket.data, "client"),
  });

  startPings(connections, later, options.pingIntervalMs ?? PING_INTERVAL_MS);
  const breakSearch = (outage: SearchOutage | null) => {
    searchOutage = outage;
  };
  const { refuse: refuseSymbol } = listener;
  const parts = { clock, later, connections, planner, market, player, delayLine, breakSearch, refuseSymbol };
  const faults = createFaultControls(parts);
  startDisturbances(options, faults, market, clock, later);

  const { port } = server;
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

function acceptorOf(token: SimulatorOptions["token"]): (token: string) => boolean {
  const tokens = typeof token === "string" ? [token] : token;
  return (given) => given !== "" && (tokens === undefined || tokens.includes(given));
}

function marketOf(options: SimulatorOptions): Market {
  const { seed = 1, speed = 1, instruments, tradesPerSecond, pace, sessionHours } = options;
  const isMax = speed === "max";
  return createMarket({
    seed,
    instruments,
    tradesPerSecond: tradesPerSecond ?? (isMax ? MARKET_TRADES_PER_SECOND_AT_MAX : undefined),
    speed: isMax ? 1 : speed,
    pace,
    sessionHours,
  });
}

function playerOf(
  { speed = 1, times = "present", batching }: SimulatorOptions,
  tape: Tape | undefined,
  market: Market,
  stage: Stage,
  delayLine: DelayLine,
  onTapeEnd: () => void,
): Player {
  if (tape === undefined) return playMarket(market, delayLine.stage, batching);
  // A tape at "max" relies on it that what it delivers is sent.
  return playTape(tape, speed, times, speed === "max" ? stage : delayLine.stage, onTapeEnd);
}

function restOf(
  options: SimulatorOptions,
  tape: Tape | undefined,
  market: Market,
  accepts: (token: string) => boolean,
  searchOutage: () => SearchOutage | null,
) {
  const sessionOf = createSessions();
  return createRest({
    accepts,
    price: (symbol) => market.price(symbol),
    instruments: [...listedByTape(tape), ...(options.instruments ?? [])],
    callsPerMinuteMax: options.restCallsPerMinuteMax ?? REST_CALLS_PER_MINUTE_MAX,
    callsPerSecondMax: options.restCallsPerSecondMax ?? REST_CALLS_PER_SECOND_MAX,
    searchKnowsCrypto: options.searchKnowsCrypto ?? true,
    searchKnowsForex: options.searchKnowsForex ?? false,
    searchOutage,
    session: (nowMs) => (options.sessionHours ? sessionOf(nowMs) : "regular"),
  });
}

/** The ping timer runs free: connections do not start it, and trades do not delay it. */
function startPings(connections: Connections, later: Later, intervalMs: number): void {
  later(intervalMs, () => {
    for (const one of connections.open()) connections.post(one, "ping", PING_TEXT, 0);
    startPings(connections, later, intervalMs);
  });
}

function startDisturbances(
  { seed = 1, dailyDrop, chaosGapMs }: SimulatorOptions,
  faults: SimulatorFaults,
  market: Market,
  clock: Clock,
  later: Later,
): void {
  if (dailyDrop !== undefined) {
    const drop = () => (dailyDrop === "reset" ? faults.resetConnections() : faults.stall(false));
    dropDaily({ clock, later }, drop);
  }
  if (chaosGapMs !== undefined) {
    startChaos({ clock, later, actions: chaosActions(faults, market) }, seed, chaosGapMs);
  }
}

/** Whatever a tape plays is listed too. */
function listedByTape(tape: Tape | undefined): Instrument[] {
  return [...(tape?.symbols ?? [])].flatMap((symbol) => instrumentOf(symbol) ?? []);
}

function ledgerEntriesMax(ledger: boolean | number | undefined): number {
  if (ledger === false) return 0;
  return typeof ledger === "number" ? ledger : LEDGER_ENTRIES_MAX;
}
