// Holds frames back in order: the feed that is minutes behind. A change of the delay is for all that is held, so
// that a delay which ends releases everything at once, as Finnhub's did.

import type { OutFrame, Stage } from "./player.ts";

/** Half an hour of a busy market, some 50 MB; beyond it the oldest leave early. */
export const FRAMES_HELD_MAX = 100_000;

export type DelayLine = Readonly<{
  /** The stage as the player sees it. */
  stage: Stage;
  set(delayMs: number): void;
}>;

export function createDelayLine(stage: Stage, delayMsFirst: number, framesMax = FRAMES_HELD_MAX): DelayLine {
  let delayMs = delayMsFirst;
  let held: { atMs: number; frame: OutFrame }[] = [];
  let next = 0;
  let cancel = () => {};

  function pump(): void {
    cancel();
    const dueMs = stage.clock.monotonic() - delayMs;
    while (next < held.length && (held[next]!.atMs <= dueMs || held.length - next > framesMax)) {
      stage.deliver(held[next]!.frame);
      next += 1;
    }
    // Cut in large pieces: one frame at a time would cost the whole list each.
    if (next === held.length || next > framesMax) {
      held = held.slice(next);
      next = 0;
    }
    const first = held[next];
    if (first !== undefined) cancel = stage.later(Math.max(1, first.atMs - dueMs), pump);
  }

  return {
    stage: {
      ...stage,
      deliver(frame) {
        if (delayMs === 0) return stage.deliver(frame);
        held.push({ atMs: stage.clock.monotonic(), frame });
        if (held.length - next === 1 || held.length - next > framesMax) pump();
      },
    },
    set(changedMs) {
      delayMs = changedMs;
      pump();
    },
  };
}
