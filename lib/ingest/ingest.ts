// The first loop: feed -> log. What the feed hands over in one tick becomes messages with an identity and is
// appended before anything else happens to it. It never drops what the log would take, and counts what it would
// not.

import { backoffMs, type Clock } from "../base/clock.ts";
import { LogFullError, LogUnavailableError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Feed, FeedEventType, FeedItem } from "../contracts/feed.ts";
import type { LogEntry, LogWriter } from "../contracts/log.ts";
import { encodeDeadLetter, encodeEvent, encodeMessage } from "../model/codec.ts";
import { WHOLE_MESSAGE } from "../model/dead-letter.ts";
import { newSession, SEQUENCE_MAX } from "../model/identity.ts";
import { dayOf, type Trade } from "../model/trade.ts";
import { TRADES_PER_MESSAGE_MAX } from "../model/validate.ts";

export type IngestDeps = Readonly<{
  feed: Feed;
  log: LogWriter;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  /** Hears of each message before it is appended: for health. It must not throw. */
  onMessage?: (symbol: string, receivedAtMs: number, trades: readonly Trade[]) => void;
}>;

export type IngestHealth = Readonly<{
  session: string;
  lastAppendAtMs: number | null;
  /** Since when the log is full and trades are refused; null = they are taken. */
  refusingSinceMs: number | null;
  tradesLost: number;
  /** Why the log cannot be reached just now. */
  problem: string | null;
}>;

type Gap = { sinceMs: number; messageCount: number; tradeCount: number };

export type Ingest = Readonly<{
  /** Ends when the feed ends and everything it handed over is appended. */
  run(): Promise<void>;
  /** An event that is not the feed's: resolves when it is appended. */
  emitEvent(type: FeedEventType, detail: Readonly<Record<string, unknown>>): Promise<void>;
  health(): IngestHealth;
}>;

const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 2_000;

export function createIngest(deps: IngestDeps): Ingest {
  const { feed, log, clock, logger, metrics, onMessage } = deps;
  const identity = { session: newSession(clock.random), sequence: 0 };
  let refused: Gap | null = null;
  let health: Omit<IngestHealth, "session" | "refusingSinceMs"> = {
    lastAppendAtMs: null,
    tradesLost: 0,
    problem: null,
  };

  /** The next identity of this run; a new session begins before the sequence leaves its 32 bits. */
  function next(): { session: string; sequence: number } {
    if (identity.sequence >= SEQUENCE_MAX) {
      identity.session = newSession(clock.random);
      identity.sequence = 0;
    }
    identity.sequence += 1;
    return identity;
  }

  function event(type: FeedEventType, atMs: number, detail: Readonly<Record<string, unknown>>): LogEntry {
    const { session, sequence } = next();
    const row = {
      day: dayOf(atMs),
      event_timestamp: atMs,
      session,
      sequence,
      type,
      detail: JSON.stringify(detail),
    };
    return { kind: "event", key: session, value: encodeEvent(row) };
  }

  function message(symbol: string, receivedAtMs: number, trades: readonly Trade[]): LogEntry {
    onMessage?.(symbol, receivedAtMs, trades);
    return { kind: "trades", key: symbol, value: encodeMessage({ ...next(), receivedAtMs, trades }) };
  }

  /** One message a symbol (more only beyond TRADES_PER_MESSAGE_MAX), in the order of their first trades. */
  function entriesOf(items: readonly FeedItem[]): { entries: LogEntry[]; tradeCount: number } {
    const entries: LogEntry[] = [];
    const bySymbol = new Map<string, { receivedAtMs: number; trades: Trade[] }>();
    let tradeCount = 0;
    for (const item of items) {
      if (item.kind === "trades") {
        tradeCount += item.trades.length;
        for (const trade of item.trades) {
          let open = bySymbol.get(trade.symbol);
          if (open === undefined) {
            open = { receivedAtMs: item.receivedAtMs, trades: [] };
            bySymbol.set(trade.symbol, open);
          }
          open.trades.push(trade);
          if (open.trades.length < TRADES_PER_MESSAGE_MAX) continue;
          entries.push(message(trade.symbol, open.receivedAtMs, open.trades));
          bySymbol.delete(trade.symbol);
        }
      } else if (item.kind === "event") {
        entries.push(event(item.type, item.receivedAtMs, item.detail));
      } else {
        const { session, sequence } = next();
        const { reason, receivedAtMs } = item;
        const payload = Buffer.from(item.payload);
        const deadLetter = {
          session,
          sequence,
          item: WHOLE_MESSAGE,
          receivedAtMs,
          reason,
          source: "feed",
          payload,
        } as const;
        entries.push({ kind: "dead", key: session, value: encodeDeadLetter(deadLetter) });
      }
    }
    for (const [symbol, { receivedAtMs, trades }] of bySymbol)
      entries.push(message(symbol, receivedAtMs, trades));
    return { entries, tradeCount };
  }

  /** Until it is durable; only LogFullError comes out. A repeat carries the same identities. */
  async function append(entries: readonly LogEntry[]): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        await log.append(entries);
        health = { ...health, lastAppendAtMs: clock.now(), problem: null };
        return;
      } catch (error) {
        if (!(error instanceof LogUnavailableError)) throw error;
        if (attempt === 0) logger.warn("the log cannot be reached; trying again until it can", { error });
        health = { ...health, problem: error.message };
        await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random));
      }
    }
  }

  async function appendItems(items: readonly FeedItem[]): Promise<void> {
    // What finds room as an event does not show that trades are taken again.
    const gapEnd = items.every(({ kind }) => kind === "event") ? null : refused;
    const told = gapEnd === null ? [] : entriesOf([gapItem(gapEnd)]).entries;
    const { entries, tradeCount } = entriesOf(items);
    try {
      await append([...told, ...entries]);
      if (gapEnd === null) return;
      logger.info("the log takes trades again", { tradesLost: gapEnd.tradeCount });
      refused = null;
    } catch (error) {
      if (!(error instanceof LogFullError)) throw error;
      await refuse(error, entries, tradeCount);
    }
  }

  /** What was refused so far. */
  function gapItem({ sinceMs: fromMs, messageCount, tradeCount }: Gap): FeedItem {
    const toMs = clock.now();
    const detail = { fromMs, toMs, messageCount, tradeCount };
    return { kind: "event", type: "trades_refused", receivedAtMs: toMs, detail };
  }

  /** The newest is refused, and said; the log keeps room for saying it. */
  async function refuse(
    error: LogFullError,
    entries: readonly LogEntry[],
    tradeCount: number,
  ): Promise<void> {
    const events = entries.filter(({ kind }) => kind === "event");
    const refusedCount = entries.length - events.length;
    if (refused === null) {
      refused = { sinceMs: clock.now(), messageCount: 0, tradeCount: 0 };
      logger.error("trades are refused: the log is full", { error });
      events.push(event("trades_refused", refused.sinceMs, { fromMs: refused.sinceMs, toMs: null }));
    }
    refused.messageCount += refusedCount;
    refused.tradeCount += tradeCount;
    metrics.tradesLostTotal.inc({ reason: "log_full" }, tradeCount);
    const deadCount = entries.filter(({ kind }) => kind === "dead").length;
    if (deadCount > 0) metrics.tradesLostTotal.inc({ reason: "log_full_dead_letter" }, deadCount);
    health = { ...health, tradesLost: health.tradesLost + tradeCount };
    try {
      if (events.length > 0) await append(events);
    } catch (eventError) {
      if (!(eventError instanceof LogFullError)) throw eventError;
      logger.error("feed events are refused too: the log has no room left for them", {
        eventCount: events.length,
      });
    }
  }

  return {
    async run() {
      await appendItems([{ kind: "event", type: "session_started", receivedAtMs: clock.now(), detail: {} }]);
      for await (const items of feed.batches()) await appendItems(items);
      const ended: FeedItem = { kind: "event", type: "session_ended", receivedAtMs: clock.now(), detail: {} };
      await appendItems(refused === null ? [ended] : [gapItem(refused), ended]);
    },
    emitEvent: (type, detail) => appendItems([{ kind: "event", type, receivedAtMs: clock.now(), detail }]),
    health: () => ({ ...health, session: identity.session, refusingSinceMs: refused?.sinceMs ?? null }),
  };
}
