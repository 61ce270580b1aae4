// The time without a connection, from the last frame of one until the next is open, and what is told of it: a log line
// a minute, and few events however long it lasts.

import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import type { FeedEventType } from "../contracts/feed.ts";
import type { DisconnectReason } from "./reconnect.ts";

export type EmitEvent = (type: FeedEventType, detail: Readonly<Record<string, unknown>>) => void;

/** A failed attempt: `detail` holds no secret, `attempt` counts from 1, `waitMs` is the wait before the next one. */
export type Failure = Readonly<{ reason: DisconnectReason; detail: string; attempt: number; waitMs: number }>;

/** A long outage is one event, and another one when its reason changes, at most this often. */
const EVENT_MS_MIN = 60_000;
/** A line a minute, whatever the attempts; `connected` is the last one. */
const LINE_MS_MIN = 60_000;

export class Outage {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #emitEvent: EmitEvent;
  #fromMs: number;
  #fromMonotonicMs: number;
  /** The reason of its last event; null = it has none yet. */
  #emittedReason: DisconnectReason | null = null;
  #emittedMonotonicMs = 0;
  #loggedMonotonicMs = Number.NEGATIVE_INFINITY;

  /** The first one begins now. */
  constructor({
    clock,
    logger,
    emitEvent,
  }: Readonly<{ clock: Clock; logger: Logger; emitEvent: EmitEvent }>) {
    this.#clock = clock;
    this.#logger = logger;
    this.#emitEvent = emitEvent;
    this.#fromMs = clock.now();
    this.#fromMonotonicMs = clock.monotonic();
  }

  /** ms since 1970. */
  get fromMs(): number {
    return this.#fromMs;
  }

  /** How long it has lasted, in ms. */
  get durationMs(): number {
    return Math.round(this.#clock.monotonic() - this.#fromMonotonicMs);
  }

  /** A new one, from the last frame: its time by both of the clock's times. */
  begin(fromMs: number, fromMonotonicMs: number): void {
    this.#fromMs = fromMs;
    this.#fromMonotonicMs = fromMonotonicMs;
    this.#emittedReason = null;
    this.#emittedMonotonicMs = 0;
  }

  report(failure: Failure): void {
    const { reason, detail } = failure;
    const monotonicMs = this.#clock.monotonic();
    const isFirst = this.#emittedReason === null;
    const isNews = this.#emittedReason !== reason && monotonicMs - this.#emittedMonotonicMs >= EVENT_MS_MIN;
    if (reason === "refused_401") {
      this.#logger.error("Finnhub refuses the token (401); is FINNHUB_API_TOKEN right?", failure);
    } else if (isFirst || monotonicMs - this.#loggedMonotonicMs >= LINE_MS_MIN) {
      this.#loggedMonotonicMs = monotonicMs;
      this.#logger.warn("no connection to Finnhub", failure);
    } else {
      this.#logger.debug("no connection to Finnhub", failure);
    }
    if (!isFirst && !isNews) return;
    this.#emittedReason = reason;
    this.#emittedMonotonicMs = monotonicMs;
    this.#emitEvent("disconnected", { reason, fromMs: this.#fromMs, detail });
  }
}
