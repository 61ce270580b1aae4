// The first loop: feed -> log. What the feed hands over in one tick becomes messages with an identity and is appended
// before anything else happens to it. It never drops what the log would accept, and counts what it would not.

import type { Clock } from "../base/clock.ts";
import { LogFullError, LogUnavailableError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import { type Metrics, startAtZero } from "../base/metrics.ts";
import { outageLoop } from "../base/outages.ts";
import { retry } from "../base/retry.ts";
import type { Feed, FeedEventType, FeedItem } from "../contracts/feed.ts";
import type { LogEntry, LogWriter } from "../contracts/log.ts";
import { type EntryDeps, EntryEncoder } from "./entries.ts";

export type IngestDeps = EntryDeps &
  Readonly<{
    feed: Feed;
    log: LogWriter;
    clock: Clock;
    logger: Logger;
    metrics: Metrics;
  }>;

export type IngestHealth = Readonly<{
  session: string;
  /** ms since 1970; null = nothing was appended yet. */
  lastAppendAtMs: number | null;
  /** Since when the log is full and trades are refused; null = they are accepted. */
  refusingSinceMs: number | null;
  tradesLost: number;
  /** Why the log cannot be reached just now. */
  problem: string | null;
}>;

export type Ingest = Readonly<{
  /** Resolves when the feed ends and everything it handed over is appended. */
  run(): Promise<void>;
  /** An event that is not the feed's: resolves when it is appended. */
  emitEvent(type: FeedEventType, detail: Readonly<Record<string, unknown>>): Promise<void>;
  health(): IngestHealth;
}>;

/** What a full log has refused since `sinceMs`. */
type Gap = { sinceMs: number; messageCount: number; tradeCount: number };

const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 2_000;

/** It is to be run once. */
export function createIngest(deps: IngestDeps): Ingest {
  const loop = new IngestLoop(deps);
  return {
    run: () => loop.run(),
    emitEvent: (type, detail) => loop.emitEvent(type, detail),
    health: () => loop.health(),
  };
}

class IngestLoop {
  readonly #deps: IngestDeps;
  readonly #encoder: EntryEncoder;
  /** Null: trades are accepted. */
  #gap: Gap | null = null;
  #lastAppendAtMs: number | null = null;
  #tradesLost = 0;
  #problem: string | null = null;

  constructor(deps: IngestDeps) {
    this.#deps = deps;
    startAtZero(deps.metrics.tradesLostTotal, "reason", ["log_full", "log_full_dead_letter"]);
    this.#encoder = new EntryEncoder(deps);
  }

  async run(): Promise<void> {
    const { feed } = this.#deps;
    await this.emitEvent("session_started", {});
    for await (const items of feed.batches()) await this.#appendItems(items);
    const ended = this.#eventItem("session_ended", {});
    await this.#appendItems(this.#gap === null ? [ended] : [this.#gapItem(this.#gap), ended]);
  }

  emitEvent(type: FeedEventType, detail: Readonly<Record<string, unknown>>): Promise<void> {
    return this.#appendItems([this.#eventItem(type, detail)]);
  }

  health(): IngestHealth {
    return {
      session: this.#encoder.session,
      lastAppendAtMs: this.#lastAppendAtMs,
      refusingSinceMs: this.#gap?.sinceMs ?? null,
      tradesLost: this.#tradesLost,
      problem: this.#problem,
    };
  }

  #eventItem(type: FeedEventType, detail: Readonly<Record<string, unknown>>): FeedItem {
    return { kind: "event", type, receivedAtMs: this.#deps.clock.now(), detail };
  }

  /** The event that says what was refused so far. */
  #gapItem({ sinceMs: fromMs, messageCount, tradeCount }: Gap): FeedItem {
    const toMs = this.#deps.clock.now();
    const detail = { fromMs, toMs, messageCount, tradeCount };
    return { kind: "event", type: "trades_refused", receivedAtMs: toMs, detail };
  }

  async #appendItems(items: readonly FeedItem[]): Promise<void> {
    // That an event finds room does not show that trades are accepted again.
    const gapEnd = items.every(({ kind }) => kind === "event") ? null : this.#gap;
    const gapEntries = gapEnd === null ? [] : this.#encoder.entriesOf([this.#gapItem(gapEnd)]).entries;
    const { entries, tradeCount } = this.#encoder.entriesOf(items);
    try {
      await this.#append([...gapEntries, ...entries]);
      if (gapEnd === null) return;
      this.#deps.logger.info("the outbox accepts trades again", { tradesLost: gapEnd.tradeCount });
      this.#gap = null;
    } catch (error) {
      if (!(error instanceof LogFullError)) throw error;
      await this.#refuse(error, entries, tradeCount);
    }
  }

  /** Resolves when the entries are durable; rejects with LogFullError. A repeat carries the same identities. */
  async #append(entries: readonly LogEntry[]): Promise<void> {
    const { log, clock } = this.#deps;
    const outage = outageLoop(this.#deps, "the outbox", "ingest");
    const onFailure = (error: unknown) => {
      this.#problem = error instanceof Error ? error.message : String(error);
    };
    const isRetryable = (error: unknown) => error instanceof LogUnavailableError;
    const options = { clock, firstMs: RETRY_FIRST_MS, maxMs: RETRY_MAX_MS, isRetryable, onFailure, outage };
    await retry(options, () => log.append(entries));
    this.#lastAppendAtMs = clock.now();
    this.#problem = null;
  }

  /** The newest trades are refused, and an event says so: the log keeps room for events. */
  async #refuse(error: LogFullError, entries: readonly LogEntry[], tradeCount: number): Promise<void> {
    const { clock, logger, metrics } = this.#deps;
    const events = entries.filter(({ kind }) => kind === "event");
    const refusedCount = entries.length - events.length;
    if (this.#gap === null) {
      const sinceMs = clock.now();
      this.#gap = { sinceMs, messageCount: 0, tradeCount: 0 };
      logger.error("trades are refused: the outbox is full", { error });
      events.push(this.#encoder.event("trades_refused", sinceMs, { fromMs: sinceMs, toMs: null }));
    }
    this.#gap.messageCount += refusedCount;
    this.#gap.tradeCount += tradeCount;
    metrics.tradesLostTotal.inc({ reason: "log_full" }, tradeCount);
    const deadCount = entries.filter(({ kind }) => kind === "dead").length;
    if (deadCount > 0) metrics.tradesLostTotal.inc({ reason: "log_full_dead_letter" }, deadCount);
    this.#tradesLost += tradeCount;
    try {
      if (events.length > 0) await this.#append(events);
    } catch (eventError) {
      if (!(eventError instanceof LogFullError)) throw eventError;
      logger.error("feed events are refused too: the outbox has no room left for them", {
        eventCount: events.length,
      });
    }
  }
}
