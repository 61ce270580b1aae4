// Time and chance as arguments. The only file that takes the time, a timer or a random number from the machine; everything
// else gets a Clock, so that a simulation can drive it.

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

/** The result of withTimeout when the time is over first. */
export const TIMED_OUT = Symbol("timed out");

/**
 * Runs the work for at most `limitMs`. At the end of that time its signal aborts, and the result is TIMED_OUT without
 * waiting for the work; what the work does afterwards is ignored, its rejection included. The caller's signal, when it
 * aborts, ends it early in the same way.
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

/** Work on an embedded store never waits by itself; it must not block the event loop for longer than this. */
const TURN_MS_MAX = 5;

/** Awaited between pieces of such work, it yields to sockets and timers when that is due. */
export function createYielder(clock: Clock): () => Promise<void> {
  let sinceMs = clock.monotonic();
  return async () => {
    if (clock.monotonic() - sinceMs < TURN_MS_MAX) return;
    await new Promise<void>((resolve) => clock.atEndOfTick(resolve));
    sinceMs = clock.monotonic();
  };
}
