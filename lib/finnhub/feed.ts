// The feed on Finnhub's websocket: turns what comes over the one connection (finnhub/connection.ts) into items. It drops
// no trade, not even a suspected copy, and tells nobody the token: it stands in no log line, event, error or health.

import { type BoundedQueue, createBoundedQueue } from "../base/bounded-queue.ts";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import { type Metrics, startAtZero } from "../base/metrics.ts";
import { type HttpProxy, NO_PROXIES, type Proxies, proxyFor } from "../base/proxy.ts";
import type { Feed, FeedEventType, FeedHealth, FeedItem } from "../contracts/feed.ts";
import { FEED_REASONS } from "../model/dead-letter.ts";
import { Intake } from "../model/intake.ts";
import type { Trade } from "../model/trade.ts";
import { TRADE_AHEAD_MS } from "../model/validate.ts";
import { CONNECTION_LIMITS, Connection } from "./connection.ts";
import { createDuplicateHint } from "./duplicates.ts";
import { FeedCounters } from "./feed-counters.ts";
import { type Frame, parseFrames, type Refused, refusedSymbol } from "./frame.ts";
import { MarketClock } from "./market-clock.ts";
import { REFUSAL_LIMITS } from "./refused-symbols.ts";
import { Subscriptions } from "./subscriptions.ts";
import { UpstreamErrors } from "./upstream-errors.ts";

export const FINNHUB_LIMITS = {
  ...CONNECTION_LIMITS,
  ...REFUSAL_LIMITS,
  /** Trades: seconds of a wild market, 3 MB. Larger queues took a flood no faster. */
  queueWeightMax: 16_384,
} as const;

type FinnhubLimits = Readonly<Record<keyof typeof FINNHUB_LIMITS, number>>;

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
  /** When it aborts, the feed ends. */
  signal: AbortSignal;
  /** Bun's websocket client, unless a simulation plays the other side. */
  openSocket?: (address: string, proxy: HttpProxy | null) => WebSocket;
  /** The rule to follow; without it the connection goes directly. */
  proxies?: Proxies | undefined;
  /** Those that differ from FINNHUB_LIMITS. */
  limits?: Partial<FinnhubLimits>;
}>;

/** Unknown types that are named in the log, each once. */
const UNKNOWN_TYPES_LOGGED_MAX = 20;
const SYMBOLS_IN_EVENT_MAX = 500;
/** Shorter ones are words of a test or a simulator; hiding them would spoil honest texts. */
const TOKEN_LENGTH_MIN = 6;
/** A refused text fills the queue as this many characters a trade would. */
const CHARACTERS_PER_TRADE = 128;

/** Connects at once. Throws a SetupError when the URL is not that of a websocket. */
export function openFinnhubFeed(options: FinnhubOptions): Feed {
  return new FinnhubFeed(options);
}

class FinnhubFeed implements Feed {
  readonly #options: FinnhubOptions;
  readonly #hide: (text: string) => string;
  readonly #queue: BoundedQueue<FeedItem>;
  readonly #subscriptions: Subscriptions;
  readonly #connection: Connection;
  readonly #errors: UpstreamErrors;
  readonly #counters: FeedCounters;
  readonly #isCopy = createDuplicateHint();
  readonly #marketClock = new MarketClock();
  readonly #intake = new Intake();
  readonly #unknownTypes = new Set<string>();
  #lastFrameAtMs: number | null = null;
  #lastTradeAtMs: number | null = null;
  /** The symbols over the cap that were emitted last, one a line. */
  #emittedOverCap = "";
  #isIterated = false;

  constructor(options: FinnhubOptions) {
    const { url, token, symbols, symbolsMax, clock, logger, metrics, signal } = options;
    const { openSocket = openWebSocket, proxies = NO_PROXIES } = options;
    const limits: FinnhubLimits = { ...FINNHUB_LIMITS, ...options.limits };
    const emitEvent = this.#emitEvent.bind(this);
    this.#options = options;
    startAtZero(metrics.itemsRefusedTotal, "reason", FEED_REASONS);
    this.#hide = tokenHider(token);
    this.#queue = createBoundedQueue<FeedItem>({
      clock,
      weightMax: limits.queueWeightMax,
      onFull: () => this.#connection.pause(),
      onTaken: () => this.#connection.resume(),
      onTickEnd: () => this.#endTick(),
    });
    this.#subscriptions = new Subscriptions({
      symbols,
      symbolsMax,
      clock,
      limits,
      send: (type, symbol) => this.#connection.send(type, symbol),
      onTurn: () => this.#queue.touch(),
      onAccepted: (symbol, fromMs) => {
        logger.info("Finnhub takes a ticker that it had refused", { symbol, fromMs });
        emitEvent("ticker_accepted", { symbol, fromMs });
      },
    });
    this.#errors = new UpstreamErrors({ clock, logger, emitEvent });
    this.#counters = new FeedCounters(metrics);
    this.#connection = new Connection({
      url,
      token,
      hide: this.#hide,
      limits,
      proxy: proxyFor(proxies, url),
      openSocket,
      clock,
      logger,
      metrics,
      emitEvent,
      onOpen: () => {
        this.#subscriptions.connected();
        return this.#subscriptions.subscribed().length;
      },
      onLost: () => this.#subscriptions.disconnected(),
      onFrame: (data, atMs, monotonicMs) => this.#received(data, atMs, monotonicMs),
    });
    if (signal.aborted) {
      this.#queue.end();
      return;
    }
    signal.addEventListener("abort", this.#stop);
    this.#queue.touch();
    this.#connection.connect();
  }

  async *batches(): AsyncIterable<readonly FeedItem[]> {
    if (this.#isIterated) throw new Error("a feed is iterated once");
    this.#isIterated = true;
    try {
      yield* this.#queue.batches();
    } finally {
      this.#stop(); // Whoever walks away in the middle leaves no connection behind.
    }
  }

  subscribe(symbols: readonly string[]): void {
    this.#subscriptions.setSymbols(symbols);
    this.#queue.touch();
  }

  health(): FeedHealth {
    return {
      ...this.#connection.health(),
      lastFrameAtMs: this.#lastFrameAtMs,
      lastTradeAtMs: this.#lastTradeAtMs,
      subscribed: this.#subscriptions.subscribed(),
      unsubscribed: this.#subscriptions.unsubscribed(),
      unreceived: this.#subscriptions.unreceived(),
      clockDifference: this.#marketClock.difference(this.#options.clock.monotonic()),
      intake: this.#intake.snapshot(this.#options.clock.monotonic()),
    };
  }

  readonly #stop = (): void => {
    if (!this.#connection.stop()) return;
    this.#options.signal.removeEventListener("abort", this.#stop);
    this.#queue.end();
  };

  #received(data: unknown, receivedAtMs: number, monotonicMs: number): void {
    this.#lastFrameAtMs = receivedAtMs;
    const isText = typeof data === "string";
    if (!isText) this.#counters.frames.binary++;
    for (const frame of parseFrames(isText ? data : textOfBytes(data), receivedAtMs)) {
      if (isText) this.#counters.frames[frame.type]++;
      this.#take(frame, receivedAtMs, monotonicMs);
    }
    this.#queue.touch();
  }

  #take(frame: Frame, receivedAtMs: number, monotonicMs: number): void {
    switch (frame.type) {
      case "trade":
        for (const refused of frame.refused) {
          this.#refuse(refused, receivedAtMs, monotonicMs);
          if (refused.reason === "impossible_time") this.#noteImpossible(refused, receivedAtMs, monotonicMs);
        }
        if (frame.trades.length > 0) this.#pushTrades(frame.trades, receivedAtMs, monotonicMs);
        return;
      case "ping":
        this.#subscriptions.proven();
        return;
      case "refused":
        this.#refuse(frame, receivedAtMs, monotonicMs);
        return;
      case "error":
        this.#receivedError(this.#hide(frame.message));
        return;
      case "other":
        this.#receivedUnknown(frame.name);
        return;
    }
  }

  #pushTrades(trades: readonly Trade[], receivedAtMs: number, monotonicMs: number): void {
    const counters = this.#counters;
    this.#lastTradeAtMs = receivedAtMs;
    let newestMs = 0;
    for (const trade of trades) {
      if (trade.tradedAtMs > newestMs) newestMs = trade.tradedAtMs;
      if (trade.tradedAtMs > receivedAtMs + TRADE_AHEAD_MS) counters.ahead++;
      this.#marketClock.note(trade.symbol, trade.tradedAtMs - receivedAtMs, monotonicMs);
      if (this.#isCopy(trade, monotonicMs)) counters.copies++;
    }
    this.#intake.taken(trades.length, monotonicMs);
    if (this.#intake.isAnyRefused) {
      for (const { symbol } of trades) this.#intake.takenOf(symbol, monotonicMs);
    }
    if (this.#subscriptions.isAnyRefused) {
      for (const { symbol } of trades) this.#subscriptions.received(symbol);
    }
    counters.trades += trades.length;
    // Once a frame, of its newest trade: a late print says nothing of how far behind the feed is.
    this.#options.metrics.tradeToReceiptSeconds.observe(Math.max(0, receivedAtMs - newestMs) / 1_000);
    this.#queue.push({ kind: "trades", receivedAtMs, trades }, trades.length);
  }

  /** One that lies before 2000 says nothing of our clock; one that lies ahead may. */
  #noteImpossible({ payload }: Refused, receivedAtMs: number, monotonicMs: number): void {
    const { data } = JSON.parse(payload) as { data: [{ s: string; t: number }] };
    const [{ s: symbol, t: tradedAtMs }] = data;
    if (tradedAtMs > receivedAtMs) this.#marketClock.note(symbol, tradedAtMs - receivedAtMs, monotonicMs);
  }

  #refuse({ reason, payload }: Refused, receivedAtMs: number, monotonicMs: number): void {
    this.#options.metrics.itemsRefusedTotal.inc({ reason });
    this.#intake.refused(refusedSymbol(payload), reason, monotonicMs);
    const weight = 1 + payload.length / CHARACTERS_PER_TRADE;
    this.#queue.push({ kind: "dead", receivedAtMs, reason, payload: this.#hide(payload) }, weight);
  }

  #receivedError(message: string): void {
    if (/too many symbols/i.test(message) && this.#subscriptions.tooMany(message)) return;
    const symbol = /^Invalid symbol (.+)$/i.exec(message)?.[1];
    const result = symbol === undefined ? "not_subscribed" : this.#subscriptions.reject(symbol, message);
    if (result === "known") return;
    if (result === "rejected") {
      this.#options.logger.warn("Finnhub refuses a ticker; it is asked for again and again", {
        symbol,
        message,
      });
      this.#emitEvent("ticker_rejected", { symbol, message });
      return;
    }
    this.#errors.report(message);
  }

  #receivedUnknown(name: string): void {
    if (this.#unknownTypes.size >= UNKNOWN_TYPES_LOGGED_MAX || this.#unknownTypes.has(name)) return;
    this.#unknownTypes.add(name);
    const { logger } = this.#options;
    logger.warn("Finnhub sent a frame of a type that is not known", { type: this.#hide(name) });
  }

  #emitEvent(type: FeedEventType, detail: Readonly<Record<string, unknown>>): void {
    this.#queue.push({ kind: "event", receivedAtMs: this.#options.clock.now(), type, detail }, 1);
  }

  /** Several "too many" come in a row after one burst of subscriptions: they are told as one, when they are through. */
  #endTick(): void {
    this.#counters.flush();
    const overCap = this.#subscriptions.overCapTold();
    const lines = overCap.join("\n");
    if (lines === this.#emittedOverCap) return;
    this.#emittedOverCap = lines;
    const detail = { symbols: overCap.slice(0, SYMBOLS_IN_EVENT_MAX), symbolCount: overCap.length };
    this.#options.logger.warn(
      "the list of tickers that Finnhub does not stream has changed: Finnhub limits their number",
      detail,
    );
    this.#emitEvent("tickers_over_cap", detail);
  }
}

/** Through a proxy by CONNECT, for ws: as for wss:. Bun reads no proxy from the environment here. */
function openWebSocket(address: string, proxy: HttpProxy | null): WebSocket {
  return new WebSocket(address, { perMessageDeflate: false, ...(proxy !== null && { proxy: proxy.url }) });
}

function tokenHider(token: string | undefined): (text: string) => string {
  if (token === undefined || token.length < TOKEN_LENGTH_MIN) return (text) => text;
  const encoded = encodeURIComponent(token);
  return (text) => text.replaceAll(token, "***").replaceAll(encoded, "***");
}

/** Finnhub sends text. Bytes that are text are read as such; others are kept as JSON that is no frame. */
function textOfBytes(data: unknown): string {
  if (!(data instanceof Uint8Array)) return "";
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch {
    return JSON.stringify({ base64: Buffer.from(data).toString("base64") });
  }
}
