// The feed on Finnhub's websocket: keeps one connection for ever, whatever the other side does, and turns what
// comes into items. It drops no trade, not even a suspected copy; it answers no ping, opens no second
// connection beside the first, and tells nobody the token: not a log line, an event, an error or its health.

import { createBoundedQueue } from "./bounded-queue.ts";
import { backoffMs, type Clock } from "./clock.ts";
import { SetupError } from "./errors.ts";
import type { Feed, FeedEventType, FeedHealth, FeedItem } from "./feed.ts";
import { createDuplicateHint, type Frame, parseFrame } from "./frame.ts";
import type { Metrics } from "./metrics.ts";
import type { Report } from "./report.ts";
import { createSubscriptions } from "./subscriptions.ts";
import { TRADE_AHEAD_MS, type Trade } from "./trade.ts";

export const FINNHUB_LIMITS = {
  /** An upgrade was once answered after 65 s (#38); trying again is faster. */
  connectMsMax: 10_000,
  /** 2.5 of Finnhub's pings, which come each minute, also while trades flow. */
  silentMsMax: 150_000,
  /** A refused second session is dropped some seconds after it was opened: that is no success. */
  stableMsMin: 60_000,
  retryFirstMs: 500,
  retryMsMax: 60_000,
  /** A wrong token does not mend itself; an operator who mends it upstream waits no longer than this. */
  unauthorizedFirstMs: 120_000,
  unauthorizedMsMax: 900_000,
  /** How long Finnhub holds a session that was lost (429 until then), as one author measured it. */
  tooManyMsMin: 75_000,
  /** Trades: seconds of a wild market, 3 MB. Larger ones took a flood no faster. */
  queueWeightMax: 16_384,
} as const;

export type FinnhubLimits = Readonly<Record<keyof typeof FINNHUB_LIMITS, number>>;

export type FinnhubOptions = Readonly<{
  /** ws: or wss:, without the token. */
  url: string;
  token?: string | undefined;
  symbols: readonly string[];
  /** Subscriptions at a time: 50 on the free plan. */
  symbolsMax: number;
  clock: Clock;
  report: Report;
  metrics: Metrics;
  signal: AbortSignal;
  /** Bun's websocket client, unless a simulation plays the other side. */
  openSocket?: (address: string) => WebSocket;
}> &
  Partial<FinnhubLimits>;

/** Why there is no connection. A closed list: it is a metric's label. */
export type DisconnectReason =
  | "connect_timeout"
  | "refused_401" // Wrong token.
  | "refused_429" // An older session is still held, or another client has the token.
  | "refused_status" // Any other answer to the upgrade.
  | "unreachable" // No answer, or none that is HTTP.
  | "closed" // By the other side or the net, after it was open.
  | "silent" // The watchdog's word.
  | "stopped"; // By ourselves.

/** Waits that must not be cut short are stretched by up to a quarter, so that two clients do not keep step. */
const STRETCH_MAX = 0.25;
/** A long outage is one event, and another one when its reason changes, at most this often. */
const OUTAGE_EVENT_MS_MIN = 60_000;
const UPSTREAM_ERRORS_PER_MINUTE_MAX = 10;
/** Unknown types that are named in the log, each once. */
const UNKNOWN_TYPES_SAID_MAX = 20;
const SYMBOLS_SAID_MAX = 500;
/** For the answer to our close frame; Finnhub frees the session sooner when it is closed in good order. */
const CLOSE_MS_MAX = 1_000;
/** Shorter ones are words of a test or a simulator; hiding them would spoil honest texts. */
const TOKEN_LENGTH_MIN = 6;
const DETAIL_LENGTH_MAX = 200;
/** A refused text fills the queue as this many characters a trade would. */
const CHARACTERS_PER_TRADE = 128;

type Link = Readonly<{ sinceMs: number }> &
  (
    | Readonly<{ state: "connecting"; socket: WebSocket }>
    | Readonly<{ state: "connected"; socket: WebSocket; openedMonotonicMs: number }>
    | Readonly<{ state: "waiting" }>
    | Readonly<{ state: "closed" }>
  );

/** From the last frame of one connection until the next is open. */
type Outage = {
  fromMs: number;
  fromMonotonicMs: number;
  said: DisconnectReason | null;
  saidMonotonicMs: number;
};

export function openFinnhubFeed(options: FinnhubOptions): Feed {
  const { clock, report, metrics, signal, symbolsMax } = options;
  const { openSocket = (address) => new WebSocket(address, { perMessageDeflate: false }) } = options;
  const limits: FinnhubLimits = { ...FINNHUB_LIMITS, ...options };
  const target = socketUrl(options.url, options.token);
  const hide = tokenHider(options.token);

  const queue = createBoundedQueue<FeedItem>({
    clock,
    weightMax: limits.queueWeightMax,
    onFull: pause,
    onTaken: resume,
    onTickEnd: sumUpTick,
  });
  const tickers = createSubscriptions(options.symbols, symbolsMax, send);
  const isCopy = createDuplicateHint();
  const tally = createTally(metrics);
  const unknownTypes = new Set<string>();

  let link: Link = { state: "closed", sinceMs: clock.now() };
  /** The one timer of a state: the connect time-out, the watchdog, or the wait before the next attempt. */
  let cancelTimer = () => {};
  /** Of the newest socket. What an older one still has to say is not heard. */
  let generation = 0;
  let paused = false;
  let attempt = 0; // Since the last connection, this one included.
  let failures = 0; // Since the last stable connection: the exponent of the back-off.
  let unauthorized = 0; // In a row.
  /** The one that lasts, or the last one. */
  let outage = outageFrom(clock.now(), clock.monotonic());
  /** Whatever the attempts in between; null = a socket is open. */
  let disconnectedSinceMs: number | null = clock.now();
  /** When the link last showed life: its opening or a frame. Of two clocks, as everywhere: one to say, one to wait. */
  let aliveAtMs = 0;
  let aliveMonotonicMs = 0;
  let resumedMonotonicMs = 0;
  let lastFrameAtMs: number | null = null;
  let lastTradeAtMs: number | null = null;
  let lastProblem: string | null = null;
  let overCapSaid = "";
  let errorsFromMonotonicMs = 0;
  let errorsSaid = 0;
  let errorsUnsaid = 0;
  let iterated = false;

  // --- connecting, losing, waiting ---

  function connect(): void {
    attempt++;
    const mine = ++generation;
    const socket = openSocket(target);
    link = { state: "connecting", sinceMs: clock.now(), socket };
    socket.onopen = () => mine === generation && opened(socket);
    socket.onmessage = ({ data }) => mine === generation && received(data);
    socket.onerror = (event) => mine === generation && failed(event);
    socket.onclose = ({ code, reason }) =>
      mine === generation && lose(closedReason(), `close code ${code} ${reason}`);
    cancelTimer = clock.after(limits.connectMsMax, () => lose("connect_timeout", ""));
  }

  function opened(socket: WebSocket): void {
    cancelTimer();
    const nowMs = clock.now();
    const monotonicMs = clock.monotonic();
    link = { state: "connected", sinceMs: nowMs, socket, openedMonotonicMs: monotonicMs };
    disconnectedSinceMs = null;
    aliveAtMs = nowMs;
    aliveMonotonicMs = monotonicMs;
    if (paused) socket.pause();
    metrics.connectsTotal.inc();
    tickers.connected();
    const { fromMs } = outage;
    const outMs = Math.round(monotonicMs - outage.fromMonotonicMs);
    const symbolCount = tickers.subscribed().length;
    say("connected", { attempt, symbolCount, fromMs, outMs });
    report.info("connected", { attempt, symbolCount, outMs });
    attempt = 0;
    unauthorized = 0;
    watch(limits.silentMsMax);
  }

  /** Any frame is a sign of life and its absence the only fault: a market that is closed pings all the same. */
  function watch(afterMs: number): void {
    cancelTimer = clock.after(afterMs, () => {
      const silentMs = paused ? 0 : clock.monotonic() - Math.max(aliveMonotonicMs, resumedMonotonicMs);
      if (silentMs >= limits.silentMsMax) lose("silent", `no frame for ${Math.round(silentMs)} ms`);
      else watch(limits.silentMsMax - silentMs);
    });
  }

  /**
   * Bun tells the status of a refused upgrade in the text of the error event only. A second request to learn it
   * would take the token's one session, so that text is read; tests/feed-finnhub.test.ts fails when a new Bun
   * writes it otherwise. The rest of it holds the address with the token in it and is dropped.
   */
  function failed(event: Event): void {
    const { message = "", error } = event as Partial<ErrorEvent>;
    const status = /Expected 101 status code: (\d{3})\b/.exec(message)?.[1];
    if (status === "401" || status === "429") lose(`refused_${status}`, "");
    else if (status !== undefined) lose("refused_status", `HTTP ${status}`);
    else lose(closedReason(), failureText(error, message));
  }

  function closedReason(): DisconnectReason {
    return link.state === "connected" ? "closed" : "unreachable";
  }

  function lose(reason: DisconnectReason, detailText: string): void {
    const monotonicMs = clock.monotonic();
    if (link.state === "connected") {
      outage = outageFrom(aliveAtMs, aliveMonotonicMs);
      if (monotonicMs - link.openedMonotonicMs >= limits.stableMsMin) failures = 0;
    }
    disconnectedSinceMs ??= clock.now();
    release()?.terminate();
    const detail = hide(detailText).slice(0, DETAIL_LENGTH_MAX).trim();
    lastProblem = detail === "" ? reason : `${reason}: ${detail}`;
    metrics.disconnectsTotal.inc({ reason });
    const waitMs = Math.round(waitFor(reason));
    sayOutage(reason, detail, waitMs);
    link = { state: "waiting", sinceMs: clock.now() };
    cancelTimer = clock.after(waitMs, connect);
  }

  function waitFor(reason: DisconnectReason): number {
    const stretch = 1 + STRETCH_MAX * clock.random();
    const exponent = failures++;
    if (reason === "refused_401") {
      const longMs = limits.unauthorizedFirstMs * 2 ** Math.min(unauthorized++, 30);
      return Math.min(longMs, limits.unauthorizedMsMax) * stretch;
    }
    unauthorized = 0;
    if (reason === "refused_429") return limits.tooManyMsMin * stretch;
    return backoffMs(exponent, limits.retryFirstMs, limits.retryMsMax, clock.random);
  }

  function sayOutage(reason: DisconnectReason, detail: string, waitMs: number): void {
    const monotonicMs = clock.monotonic();
    const isFirst = outage.said === null;
    const isNews = outage.said !== reason && monotonicMs - outage.saidMonotonicMs >= OUTAGE_EVENT_MS_MIN;
    const fields = { reason, detail, attempt, waitMs };
    if (reason === "refused_401") {
      report.error("Finnhub refuses the token (401); is FINNHUB_API_TOKEN right?", fields);
    } else if (isFirst || isNews || reason === "refused_429") {
      report.warn("no connection to Finnhub", fields);
    } else {
      report.debug("no connection to Finnhub", fields);
    }
    if (!isFirst && !isNews) return;
    outage.said = reason;
    outage.saidMonotonicMs = monotonicMs;
    say("disconnected", { reason, fromMs: outage.fromMs, detail });
  }

  /** Leaves the socket of this link, if it has one: nothing of it is heard from here on. */
  function release(): WebSocket | null {
    cancelTimer();
    generation++;
    tickers.disconnected();
    if (link.state !== "connecting" && link.state !== "connected") return null;
    const { socket } = link;
    socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
    return socket;
  }

  function stop(): void {
    if (link.state === "closed") return;
    signal.removeEventListener("abort", stop);
    if (link.state === "connected") {
      metrics.disconnectsTotal.inc({ reason: "stopped" });
      say("disconnected", { reason: "stopped", fromMs: aliveAtMs, detail: "" });
    }
    const isOpen = link.state === "connected";
    const socket = release();
    link = { state: "closed", sinceMs: clock.now() };
    if (socket !== null && isOpen) closeInGoodOrder(socket, clock);
    else socket?.terminate();
    queue.end();
  }

  // --- receiving ---

  function received(data: unknown): void {
    const receivedAtMs = clock.now();
    lastFrameAtMs = aliveAtMs = receivedAtMs;
    aliveMonotonicMs = clock.monotonic();
    const frame = parseFrame(typeof data === "string" ? data : textOfBytes(data), receivedAtMs);
    tally.frames[typeof data === "string" ? frame.type : "binary"]++;
    queue.touch();
    switch (frame.type) {
      case "trade":
        for (const { reason, payload } of frame.refused) refuse(reason, payload, receivedAtMs);
        if (frame.trades.length > 0) takeTrades(frame.trades, receivedAtMs);
        return;
      case "ping":
        tickers.proven();
        return;
      case "refused":
        refuse(frame.reason, frame.payload, receivedAtMs);
        return;
      case "error":
        takeError(hide(frame.message));
        return;
      case "other":
        if (unknownTypes.size >= UNKNOWN_TYPES_SAID_MAX || unknownTypes.has(frame.name)) return;
        unknownTypes.add(frame.name);
        report.warn("Finnhub sent a frame of a type that is not known", { type: hide(frame.name) });
        return;
    }
  }

  function takeTrades(trades: readonly Trade[], receivedAtMs: number): void {
    lastTradeAtMs = receivedAtMs;
    let newestMs = 0;
    for (const trade of trades) {
      if (trade.tradedAtMs > newestMs) newestMs = trade.tradedAtMs;
      if (trade.tradedAtMs > receivedAtMs + TRADE_AHEAD_MS) tally.ahead++;
      if (isCopy(trade, aliveMonotonicMs)) tally.copies++;
    }
    tally.trades += trades.length;
    // Once a frame, of its newest trade: a late print says nothing of how far behind the feed is.
    metrics.tradeToReceiptMs.observe(Math.max(0, receivedAtMs - newestMs));
    queue.push({ kind: "trades", receivedAtMs, trades }, trades.length);
  }

  function refuse(reason: (FeedItem & { kind: "dead" })["reason"], payload: string, receivedAtMs: number) {
    metrics.itemsRefusedTotal.inc({ reason });
    queue.push(
      { kind: "dead", receivedAtMs, reason, payload: hide(payload) },
      1 + payload.length / CHARACTERS_PER_TRADE,
    );
  }

  function takeError(message: string): void {
    if (/too many symbols/i.test(message) && tickers.tooMany()) return;
    const symbol = /^Invalid symbol (.+)$/i.exec(message)?.[1];
    const verdict = symbol === undefined ? "not_subscribed" : tickers.reject(symbol);
    if (verdict === "known") return;
    if (verdict === "rejected") {
      report.warn("Finnhub does not know a ticker", { symbol });
      say("ticker_rejected", { symbol, message });
      return;
    }
    const monotonicMs = clock.monotonic();
    if (monotonicMs - errorsFromMonotonicMs >= 60_000) {
      errorsFromMonotonicMs = monotonicMs;
      errorsSaid = 0;
    }
    if (errorsSaid >= UPSTREAM_ERRORS_PER_MINUTE_MAX) {
      errorsUnsaid++;
      return;
    }
    errorsSaid++;
    report.warn("Finnhub sent an error", { message, unsaidCount: errorsUnsaid });
    say("upstream_error", { message, unsaidCount: errorsUnsaid });
    errorsUnsaid = 0;
  }

  function say(type: FeedEventType, detail: Readonly<Record<string, unknown>>): void {
    queue.push({ kind: "event", receivedAtMs: clock.now(), type, detail }, 1);
  }

  /** Several "too many" come in a row after one burst of subscriptions: said once, when they are through. */
  function sumUpTick(): void {
    tally.flush();
    const overCap = tickers.overCapTold();
    const words = overCap.join("\n");
    if (words === overCapSaid) return;
    overCapSaid = words;
    const detail = { symbols: overCap.slice(0, SYMBOLS_SAID_MAX), symbolCount: overCap.length };
    report.warn("the tickers over Finnhub's cap, which are not streamed, have changed", detail);
    say("tickers_over_cap", detail);
  }

  /** While paused Bun notices a reset at once, but an orderly end only when it reads on. */
  function pause(): void {
    paused = true;
    metrics.pausesTotal.inc();
    if (link.state === "connected") link.socket.pause();
  }

  function resume(): void {
    paused = false;
    resumedMonotonicMs = clock.monotonic(); // The silence was ours.
    if (link.state === "connected") link.socket.resume();
  }

  function send(type: "subscribe" | "unsubscribe", symbol: string): void {
    if (link.state === "connected") link.socket.send(JSON.stringify({ type, symbol }));
  }

  if (!signal.aborted) {
    signal.addEventListener("abort", stop);
    queue.touch();
    connect();
  } else {
    queue.end();
  }

  return {
    async *batches() {
      if (iterated) throw new Error("a feed is iterated once");
      iterated = true;
      try {
        yield* queue.batches();
      } finally {
        stop(); // Whoever walks away in the middle does not leave a connection behind.
      }
    },
    want(symbols) {
      tickers.want(symbols);
      queue.touch();
    },
    health(): FeedHealth {
      return {
        state: link.state,
        stateSinceMs: link.sinceMs,
        disconnectedSinceMs,
        lastFrameAtMs,
        lastTradeAtMs,
        lastProblem,
        subscribed: tickers.subscribed(),
        unsubscribed: tickers.unsubscribed(),
      };
    },
  };
}

/** What one tick counted. prom-client works out a label's hash at each call, so it is called once a tick. */
function createTally(metrics: Metrics) {
  const frames: Record<Frame["type"] | "binary", number> = {
    trade: 0,
    ping: 0,
    error: 0,
    news: 0,
    pr: 0,
    other: 0,
    refused: 0,
    binary: 0,
  };
  const types = Object.keys(frames) as (keyof typeof frames)[];
  const tally = { frames, trades: 0, ahead: 0, copies: 0, flush };
  function flush(): void {
    for (const type of types) {
      if (frames[type] > 0) metrics.framesTotal.inc({ type }, frames[type]);
      frames[type] = 0;
    }
    if (tally.trades > 0) metrics.tradesReceivedTotal.inc(tally.trades);
    if (tally.ahead > 0) metrics.tradesAheadTotal.inc(tally.ahead);
    if (tally.copies > 0) metrics.duplicatesSuspectedTotal.inc(tally.copies);
    tally.trades = tally.ahead = tally.copies = 0;
  }
  return tally;
}

function outageFrom(fromMs: number, fromMonotonicMs: number): Outage {
  return { fromMs, fromMonotonicMs, said: null, saidMonotonicMs: 0 };
}

/** Neither message may quote the address: it can hold a token that was put there by mistake. */
function socketUrl(url: string, token: string | undefined): string {
  const target = URL.canParse(url) ? new URL(url) : null;
  if (target === null || (target.protocol !== "ws:" && target.protocol !== "wss:")) {
    throw new SetupError("the address of Finnhub's websocket is none", "it begins with wss:// or ws://");
  }
  target.hash = "";
  if (token !== undefined) target.searchParams.set("token", token);
  return target.href;
}

function tokenHider(token: string | undefined): (text: string) => string {
  if (token === undefined || token.length < TOKEN_LENGTH_MIN) return (text) => text;
  const encoded = encodeURIComponent(token);
  return (text) => text.replaceAll(token, "***").replaceAll(encoded, "***");
}

/** The words after "WebSocket connection to '<address>' failed: ", or the error's code: never the address. */
function failureText(error: unknown, message: string): string {
  const code: unknown = typeof error === "object" && error !== null && "code" in error ? error.code : null;
  if (typeof code === "string" && /^\w{1,40}$/.test(code)) return code;
  const mark = "' failed: ";
  const at = message.lastIndexOf(mark);
  return at < 0 ? "" : message.slice(at + mark.length);
}

/** Finnhub sends text. Bytes that are text are read as such; others are kept, as JSON that is no frame. */
function textOfBytes(data: unknown): string {
  if (!(data instanceof Uint8Array)) return "";
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch {
    return JSON.stringify({ base64: Buffer.from(data).toString("base64") });
  }
}

function closeInGoodOrder(socket: WebSocket, clock: Clock): void {
  const cancel = clock.after(CLOSE_MS_MAX, () => socket.terminate());
  socket.onclose = cancel;
  socket.close(1000);
  socket.resume(); // A paused socket would not read the answer.
}
