// Plays the market or a tape in time: decides WHICH frame is due WHEN, and hands it to the stage. It knows no socket; the
// stage tells who is connected, and whether they have room for more.

import type { Clock } from "../base/clock.ts";
import { frameText, type WireTrade } from "./frames.ts";
import type { Market } from "./market.ts";
import { isPing, retimed, type Tape, type TapeFrame } from "./tape.ts";

export type OutFrame = Readonly<{ text: string; symbols: readonly string[]; tradeCount: number }>;

export interface Stage {
  readonly clock: Clock;
  /** Calls back after the time unless the simulator stopped; the returned function cancels. */
  later(durationMs: number, callback: () => void): () => void;
  /** To every client; to the ledger alone where there is none. */
  deliver(frame: OutFrame): void;
  /** `nobody`: no client has subscribed to what is played. `busy`: one of them has enough to read for now. */
  audience(): "nobody" | "busy" | "ready";
  /** Asks the audience to say how far it has read. */
  flush(): void;
}

export interface Player {
  /** Something changed: a subscription, a client, the room in its buffer. */
  wake(): void;
}

/**
 * How trades become frames. `2026`: at once, 1 to 30 in each. `2023`: what a second brought leaves together, at
 * most 10 in a frame and as many frames as that takes.
 */
export type Batching = "2023" | "2026";

/** How the trade times of a tape are treated; see `playTape`. */
export type TapeTimes = "recorded" | "present";

/** Frames played in one go before the event loop gets its turn. */
const SLICE_FRAMES_MAX = 512;
/** The longest sleep: a stepped clock is noticed after it, and no timer overflows. */
const SLEEP_MS_MAX = 1_000;

const FLUSH_MS = 1_000;
const FLUSHED_TRADES_MAX = 10;

/** Plays for ever what is due on the market, with or without a client. */
export function playMarket(market: Market, stage: Stage, batching: Batching = "2026"): Player {
  return batching === "2026" ? playAtOnce(market, stage) : playInFlushes(market, stage);
}

function deliverTrades(stage: Stage, trades: readonly WireTrade[]): void {
  const symbols = [...new Set(trades.map((trade) => trade.s))];
  stage.deliver({ text: frameText(trades), symbols, tradeCount: trades.length });
}

/** Flushes on a timer of its own, whoever comes or goes in between. */
function playInFlushes(market: Market, stage: Stage): Player {
  function flush() {
    const trades = market.framesUntil(stage.clock.now()).flatMap((frame) => frame.trades);
    for (let from = 0; from < trades.length; from += FLUSHED_TRADES_MAX) {
      deliverTrades(stage, trades.slice(from, from + FLUSHED_TRADES_MAX));
    }
    stage.later(FLUSH_MS, flush);
  }
  stage.later(FLUSH_MS, flush);
  return { wake() {} };
}

function playAtOnce(market: Market, stage: Stage): Player {
  let cancel: () => void = () => {};

  function wake() {
    cancel();
    const nowMs = stage.clock.now();
    for (const { trades } of market.framesUntil(nowMs)) deliverTrades(stage, trades);
    const dueMs = market.nextAtMs();
    if (dueMs === null) return;
    cancel = stage.later(Math.min(SLEEP_MS_MAX, Math.max(0, dueMs - stage.clock.now())), wake);
  }

  return { wake };
}

/**
 * Plays a tape once. It begins with the first audience.
 *
 * With a factor k the tape is a market: frame i is due (at_i - at_0) / k after the begin B, client or not. With
 * `present` the same line maps the trade times, t' = B + (t - at_0) / k: order and ties stay, gaps and lags shrink
 * k times, and because no trade was recorded before it happened none lies ahead of the moment it is sent (where a
 * tape's clocks disagree it is cut to that moment).
 *
 * At "max" a frame leaves when the audience has room for it, and waits while there is none: nothing of the tape is
 * ever lost for want of a client. With `present` each trade keeps its recorded lag, t' = now - (at - t), so that
 * the tape's hours are squeezed into the seconds it takes.
 *
 * `recorded` plays every frame byte for byte, pings too; `present` leaves the tape's pings to the simulator's timer.
 */
export function playTape(
  tape: Tape,
  speed: number | "max",
  times: TapeTimes,
  stage: Stage,
  onEnd: () => void,
): Player {
  const { frames } = tape;
  const firstAtMs = frames[0]?.atMs ?? 0;
  let next = 0;
  let ended = false;
  let cancel: () => void = () => {};

  function present(frame: TapeFrame, timeMs: (recordedMs: number) => number): OutFrame | null {
    if (times === "recorded") return frame;
    if (frame.symbols.length === 0) return isPing(frame.text) ? null : frame;
    return { ...frame, text: retimed(frame.text, timeMs) };
  }

  function play(frame: TapeFrame, timeMs: (recordedMs: number) => number) {
    next += 1;
    const out = present(frame, timeMs);
    if (out !== null) stage.deliver(out);
  }

  /** Frames until the condition, at most a slice of them; whether there may be more at once. */
  function slice(
    isNext: (frame: TapeFrame) => boolean,
    timeMs: (frame: TapeFrame) => (ms: number) => number,
  ) {
    for (let count = 0; count < SLICE_FRAMES_MAX; count += 1) {
      const frame = frames[next];
      if (frame === undefined || !isNext(frame)) break;
      play(frame, timeMs(frame));
      if (count === SLICE_FRAMES_MAX - 1) return true;
    }
    if (next === frames.length && !ended) {
      ended = true;
      stage.flush();
      onEnd();
    }
    return false;
  }

  function wakeAtMax() {
    cancel();
    const hasMore = slice(
      () => stage.audience() === "ready",
      (frame) => {
        const nowMs = stage.clock.now();
        return (recordedMs) => Math.min(nowMs, nowMs - (frame.atMs - recordedMs));
      },
    );
    if (hasMore) cancel = stage.later(0, wakeAtMax);
  }

  let beginsAtMs: number | null = null;
  let beganAt = 0;
  function wakeAtFactor(factor: number) {
    const wake = () => wakeAtFactor(factor);
    if (beginsAtMs === null) {
      if (stage.audience() === "nobody") return;
      beginsAtMs = stage.clock.now();
      beganAt = stage.clock.monotonic();
    }
    cancel();
    const begunMs = beginsAtMs;
    const elapsedMs = stage.clock.monotonic() - beganAt;
    const nowMs = stage.clock.now();
    const hasMore = slice(
      (frame) => (frame.atMs - firstAtMs) / factor <= elapsedMs,
      () => (recordedMs) => Math.min(nowMs, Math.floor(begunMs + (recordedMs - firstAtMs) / factor)),
    );
    const upcoming = frames[next];
    if (upcoming === undefined) return;
    const waitMs = hasMore ? 0 : (upcoming.atMs - firstAtMs) / factor - elapsedMs;
    cancel = stage.later(Math.min(SLEEP_MS_MAX, Math.max(0, waitMs)), wake);
  }

  return { wake: speed === "max" ? wakeAtMax : () => wakeAtFactor(speed) };
}
