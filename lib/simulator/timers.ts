// The simulator's timers, so that all of them end with it. It knows no socket and no frame.

import type { Clock } from "../base/clock.ts";

/** Calls back after the time unless the simulator stopped; the returned function cancels. */
export type Later = (durationMs: number, callback: () => void) => () => void;

export type Timers = Readonly<{ later: Later; stop(): void }>;

export function createTimers(clock: Clock): Timers {
  const timers = new Set<() => void>();
  let isStopped = false;
  return {
    later(durationMs, callback) {
      if (isStopped) return () => {};
      const forget = () => {
        cancelTimer();
        timers.delete(forget);
      };
      const cancelTimer = clock.after(durationMs, () => {
        timers.delete(forget);
        callback();
      });
      timers.add(forget);
      return forget;
    },
    stop() {
      isStopped = true;
      for (const cancel of timers) cancel();
    },
  };
}
