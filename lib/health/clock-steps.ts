// Notices when the machine's clock is set while the process runs: the wall clock moves against the monotonic one. A
// machine that slept looks the same.

import type { Clock } from "../base/clock.ts";
import { MINUTE_MS } from "../model/trade.ts";

/** `byMs`: below 0 = back. `atMs`: by the clock after the step. */
export type ClockStep = Readonly<{ byMs: number; atMs: number }>;

/** NTP slews below a second; what is smaller than this spoils no figure for longer than it lasts. */
export const CLOCK_STEP_MS_MIN = MINUTE_MS;

/** The function is to be called at each look at health; it returns the last step, null = there was none. */
export function createStepWatch(clock: Pick<Clock, "now" | "monotonic">): () => ClockStep | null {
  let offsetMs = clock.now() - clock.monotonic();
  let last: ClockStep | null = null;
  return () => {
    const nowMs = clock.now();
    const byMs = nowMs - clock.monotonic() - offsetMs;
    if (Math.abs(byMs) < CLOCK_STEP_MS_MIN) return last;
    offsetMs += byMs;
    last = { byMs, atMs: nowMs };
    return last;
  };
}
