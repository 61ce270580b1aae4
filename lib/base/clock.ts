// Time and chance as arguments. The only file that asks the machine for the time, a timer or a random number;
// everything else is handed a Clock, so that a simulation can drive it.

export interface Clock {
  /** ms since 1970. It may step either way: use it for what is stored, never for waiting. */
  now(): number;
  /** ms from an arbitrary start, never stepping back: for ages and time-outs. */
  monotonic(): number;
  /** Resolves after the time, or at once when the signal aborts; never rejects. */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>;
  /** Calls back once after the time. The returned function cancels. */
  after(durationMs: number, callback: () => void): () => void;
  /** Calls back when the input that the event loop has already read is handed over: the end of the tick. */
  atEndOfTick(callback: () => void): void;
  /** [0, 1) */
  random(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep(durationMs, signal) {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, durationMs);
      signal?.addEventListener("abort", done);
    });
  },
  after(durationMs, callback) {
    const timer = setTimeout(callback, durationMs);
    return () => clearTimeout(timer);
  },
  atEndOfTick(callback) {
    setImmediate(callback);
  },
  random: () => Math.random(),
};

/** Capped exponential back-off with full jitter: [0, min(max, first * 2^attempt)). */
export function backoffMs(attempt: number, firstMs: number, maxMs: number, random: () => number): number {
  return random() * Math.min(maxMs, firstMs * 2 ** Math.min(attempt, 30));
}

/** What withTimeout resolves with when the time is over first. */
export const TIMED_OUT = Symbol("timed out");

/**
 * Runs the work for so long at most. Its signal aborts at the end of that time, and the answer is TIMED_OUT without
 * waiting for the work; what the work does afterwards is nobody's concern any more, its rejection included. A signal
 * of the caller's ends it in the same way, early.
 */
export async function withTimeout<T>(
  clock: Pick<Clock, "after">,
  limitMs: number,
  work: (signal: AbortSignal) => Promise<T>,
  callersSignal?: AbortSignal,
): Promise<T | typeof TIMED_OUT> {
  const controller = new AbortController();
  const { promise: over, resolve } = Promise.withResolvers<typeof TIMED_OUT>();
  const end = () => {
    controller.abort();
    resolve(TIMED_OUT);
  };
  const cancel = clock.after(limitMs, end);
  callersSignal?.addEventListener("abort", end);
  if (callersSignal?.aborted) end();
  try {
    const working = work(controller.signal);
    working.catch(() => {}); // Raced below; after the time nobody listens.
    return await Promise.race([working, over]);
  } finally {
    cancel();
    callersSignal?.removeEventListener("abort", end);
  }
}

/** Work on an embedded store never waits by itself; longer than this it must not hold the event loop. */
const TURN_MS_MAX = 5;

/** To be awaited between pieces of such work: lets sockets and timers have their turn when it is due. */
export function createYielder(clock: Clock): () => Promise<void> {
  let sinceMs = clock.monotonic();
  return async () => {
    if (clock.monotonic() - sinceMs < TURN_MS_MAX) return;
    await new Promise<void>((resolve) => clock.atEndOfTick(resolve));
    sinceMs = clock.monotonic();
  };
}
