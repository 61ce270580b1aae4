// The feed on Finnhub's websocket: turns what comes over the one connection (finnhub/connection.ts) into items. It drops
// no trade, not even a suspected copy, and tells nobody the token: not a log line, an event, an error or its health.

import { createBoundedQueue } from "../base/bounded-queue.ts";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Feed, FeedEventType, FeedHealth, FeedItem } from "../contracts/feed.ts";
import type { Trade } from "../model/trade.ts";
import { TRADE_AHEAD_MS } from "../model/validate.ts";
import { CONNECTION_LIMITS, createConnection } from "./connection.ts";
import { createDuplicateHint, type Frame, parseFrame } from "./frame.ts";
import { createSubscriptions } from "./subscriptions.ts";

export const FINNHUB_LIMITS = {
  ...CONNECTION_LIMITS,
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
  logger: Logger;
  metrics: Metrics;
  signal: AbortSignal;
  /** Bun's websocket client, unless a simulation plays the other side. */
  openSocket?: (address: string) => WebSocket;
}> &
  Partial<FinnhubLimits>;

const UPSTREAM_ERRORS_PER_MINUTE_MAX = 10;
/** Unknown types that are named in the log, each once. */
const UNKNOWN_TYPES_SAID_MAX = 20;
const SYMBOLS_SAID_MAX = 500;
/** Shorter ones are words of a test or a simulator; hiding them would spoil honest texts. */
const TOKEN_LENGTH_MIN = 6;
/** A refused text fills the queue as this many characters a trade would. */
const CHARACTERS_PER_TRADE = 128;

export function openFinnhubFeed(options: FinnhubOptions): Feed {
  const { url, token, clock, logger, metrics, signal, symbolsMax } = options;
  const { openSocket = (address) => new WebSocket(address, { perMessageDeflate: false }) } = options;
  const limits: FinnhubLimits = { ...FINNHUB_LIMITS, ...options };
  const hide = tokenHider(token);

  const queue = createBoundedQueue<FeedItem>({
    clock,
    weightMax: limits.queueWeightMax,
    onFull: () => link.pause(),
    onTaken: () => link.resume(),
    onTickEnd: sumUpTick,
  });
  const tickers = createSubscriptions(options.symbols, symbolsMax, (type, symbol) => link.send(type, symbol));
  const link = createConnection({
    url,
    token,
    hide,
    limits,
    openSocket,
    clock,
    logger,
    metrics,
    received,
    emitEvent,
    opened() {
      tickers.connected();
      return tickers.subscribed().length;
    },
    lost: () => tickers.disconnected(),
  });
  const isCopy = createDuplicateHint();
  const tally = createTally(metrics);
  const unknownTypes = new Set<string>();

  let lastFrameAtMs: number | null = null;
  let lastTradeAtMs: number | null = null;
  let overCapSaid = "";
  let errorsFromMonotonicMs = 0;
  let errorsSaid = 0;
  let errorsUnsaid = 0;
  let iterated = false;

  function received(data: unknown, receivedAtMs: number, monotonicMs: number): void {
    lastFrameAtMs = receivedAtMs;
    const frame = parseFrame(typeof data === "string" ? data : textOfBytes(data), receivedAtMs);
    tally.frames[typeof data === "string" ? frame.type : "binary"]++;
    queue.touch();
    switch (frame.type) {
      case "trade":
        for (const { reason, payload } of frame.refused) refuse(reason, payload, receivedAtMs);
        if (frame.trades.length > 0) decodeTrades(frame.trades, receivedAtMs, monotonicMs);
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
        logger.warn("Finnhub sent a frame of a type that is not known", { type: hide(frame.name) });
        return;
    }
  }

  function decodeTrades(trades: readonly Trade[], receivedAtMs: number, monotonicMs: number): void {
    lastTradeAtMs = receivedAtMs;
    let newestMs = 0;
    for (const trade of trades) {
      if (trade.tradedAtMs > newestMs) newestMs = trade.tradedAtMs;
      if (trade.tradedAtMs > receivedAtMs + TRADE_AHEAD_MS) tally.ahead++;
      if (isCopy(trade, monotonicMs)) tally.copies++;
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
    const result = symbol === undefined ? "not_subscribed" : tickers.reject(symbol);
    if (result === "known") return;
    if (result === "rejected") {
      logger.warn("Finnhub does not know a ticker", { symbol });
      emitEvent("ticker_rejected", { symbol, message });
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
    logger.warn("Finnhub sent an error", { message, unsaidCount: errorsUnsaid });
    emitEvent("upstream_error", { message, unsaidCount: errorsUnsaid });
    errorsUnsaid = 0;
  }

  function emitEvent(type: FeedEventType, detail: Readonly<Record<string, unknown>>): void {
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
    logger.warn("the tickers over Finnhub's cap, which are not streamed, have changed", detail);
    emitEvent("tickers_over_cap", detail);
  }

  function stop(): void {
    if (!link.stop()) return;
    signal.removeEventListener("abort", stop);
    queue.end();
  }

  if (!signal.aborted) {
    signal.addEventListener("abort", stop);
    queue.touch();
    link.connect();
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
        ...link.health(),
        lastFrameAtMs,
        lastTradeAtMs,
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

function tokenHider(token: string | undefined): (text: string) => string {
  if (token === undefined || token.length < TOKEN_LENGTH_MIN) return (text) => text;
  const encoded = encodeURIComponent(token);
  return (text) => text.replaceAll(token, "***").replaceAll(encoded, "***");
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
