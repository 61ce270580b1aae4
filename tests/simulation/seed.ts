// One seed, whatever its shape: 0 replays thirty days, one in twenty runs the embedded shape on real files, the
// others run several processors over a played log and store.

import { GroupRun } from "./group.ts";
import { LocalRun } from "./local.ts";
import type { Outcome } from "./outcome.ts";
import { replayThirtyDays } from "./replay.ts";

const LOCAL_EVERY = 20;

/** `lines` takes every step of the run, when somebody wants to read it. */
export function simulateSeed(seed: number, lines: string[] | null = null): Outcome {
  if (seed === 0) return replayThirtyDays(lines);
  return seed % LOCAL_EVERY === 0 ? new LocalRun(seed, lines).run() : new GroupRun(seed, lines).run();
}
