// How many REST calls Finnhub allows: ours per second and minute, and whatever its answers say of their own limit. It
// makes no call.

import type { Clock } from "../base/clock.ts";
import { MINUTE_MS } from "../model/trade.ts";

/** Finnhub allows 60 a minute and 30 a second; ours stay below, since the windows of two clocks do not agree. */
export const CALLS_PER_MINUTE_MAX = 55;
export const CALLS_PER_SECOND_MAX = 25;
/** A longer wait for a free call is an answer by itself: a request of ours cannot wait for it. */
const WAIT_MS_MAX = 1_100;
/** The shortest and the longest pause that a server may ask for. */
const BLOCKED_MS_MIN = 1_000;
const RESET_MS_MAX = MINUTE_MS;
const RETRY_AFTER_MS_MAX = 900_000;

export class CallLimit {
  readonly #clock: Clock;
  /** Monotonic times of the calls of the last minute, the oldest first. */
  readonly #calledAtMs: number[] = [];
  #blockedUntilMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Waits for a free call and takes it: 0. When none is free soon, how long until one is, in ms. */
  async acquire(): Promise<number> {
    for (;;) {
      const leftMs = this.#waitMs();
      if (leftMs > WAIT_MS_MAX) return leftMs;
      if (leftMs <= 0) break;
      await this.#clock.sleep(leftMs);
    }
    this.#calledAtMs.push(this.#clock.monotonic());
    return 0;
  }

  /** What an answer says of the server's limit holds for every call that follows. */
  observe(status: number, headers: Headers): void {
    const blockedMs = blockedMsOf(status, headers, this.#clock.now());
    if (blockedMs === 0) return;
    this.#blockedUntilMs = Math.max(this.#blockedUntilMs, this.#clock.monotonic() + blockedMs);
  }

  #waitMs(): number {
    const called = this.#calledAtMs;
    const nowMs = this.#clock.monotonic();
    while (called.length > 0 && called[0]! <= nowMs - MINUTE_MS) called.shift();
    const until = (count: number, spanMs: number) => {
      const atMs = called.at(-count);
      return atMs === undefined ? 0 : atMs + spanMs - nowMs;
    };
    return Math.max(
      this.#blockedUntilMs - nowMs,
      until(CALLS_PER_MINUTE_MAX, MINUTE_MS),
      until(CALLS_PER_SECOND_MAX, 1_000),
    );
  }
}

/** How long an answer forbids further calls; 0 = it does not. */
function blockedMsOf(status: number, headers: Headers, nowMs: number): number {
  const isSpent = status === 429;
  const retryMs = retryAfterMs(headers.get("retry-after"), nowMs);
  const resetSeconds = Number(headers.get("x-ratelimit-reset") ?? Number.NaN);
  const resetMs = Number.isFinite(resetSeconds) ? resetSeconds * 1_000 - nowMs : null;
  const isLast = headers.get("x-ratelimit-remaining")?.trim() === "0";
  if (retryMs !== null && (isSpent || status === 503)) {
    return clamp(retryMs, BLOCKED_MS_MIN, RETRY_AFTER_MS_MAX);
  }
  if (isSpent) return clamp(resetMs ?? RESET_MS_MAX, BLOCKED_MS_MIN, RESET_MS_MAX);
  return isLast && resetMs !== null ? clamp(resetMs, 0, RESET_MS_MAX) : 0;
}

/** Seconds or a date; null where there is none or it is neither. */
function retryAfterMs(header: string | null, nowMs: number): number | null {
  if (header === null) return null;
  const ms = /^\d{1,9}$/.test(header.trim()) ? Number(header) * 1_000 : Date.parse(header) - nowMs;
  return Number.isNaN(ms) ? null : ms;
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value));
}
