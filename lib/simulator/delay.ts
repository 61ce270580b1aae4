// Delays frames in order: the feed that is minutes behind. A change of the delay holds for all frames that wait, so that
// the end of a delay releases everything at once, as Finnhub's did.

import type { OutFrame, Stage } from "./player.ts";

/** Half an hour of a busy market, some 50 MB; beyond it the oldest leave early. */
const FRAMES_DELAYED_MAX = 100_000;

export type DelayLine = Readonly<{
  /** The stage as the player sees it. */
  stage: Stage;
  set(delayMs: number): void;
}>;

export function createDelayLine(
  stage: Stage,
  delayMsFirst: number,
  framesMax = FRAMES_DELAYED_MAX,
): DelayLine {
  let delayMs = delayMsFirst;
  let delayed: { atMs: number; frame: OutFrame }[] = [];
  let next = 0;
  let cancel = () => {};

  function pump(): void {
    cancel();
    const dueMs = stage.clock.monotonic() - delayMs;
    while (next < delayed.length && (delayed[next]!.atMs <= dueMs || delayed.length - next > framesMax)) {
      stage.deliver(delayed[next]!.frame);
      next += 1;
    }
    // Cut in large pieces: one frame at a time would cost the whole list each.
    if (next === delayed.length || next > framesMax) {
      delayed = delayed.slice(next);
      next = 0;
    }
    const first = delayed[next];
    if (first !== undefined) cancel = stage.later(Math.max(1, first.atMs - dueMs), pump);
  }

  return {
    stage: {
      ...stage,
      deliver(frame) {
        if (delayMs === 0) return stage.deliver(frame);
        delayed.push({ atMs: stage.clock.monotonic(), frame });
        if (delayed.length - next === 1 || delayed.length - next > framesMax) pump();
      },
    },
    set(changedMs) {
      delayMs = changedMs;
      pump();
    },
  };
}
