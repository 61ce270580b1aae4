// How long trades took from receipt to the view, over the last seconds: a histogram for each second, so that the oldest
// can be dropped. It reads no clock.

export type Latency = Readonly<{ p50Ms: number; p99Ms: number; tradeCount: number }>;

const WINDOW_SECONDS = 10;
/** Below this a bucket is a millisecond, above it a step of an octave. */
const EXACT_MS = 128;
const STEPS_PER_OCTAVE = 8;
/** Twelve octaves above 128 ms are nine minutes; the last bucket holds everything longer. */
const BUCKETS = EXACT_MS + 12 * STEPS_PER_OCTAVE;

/** Quantiles over the last WINDOW_SECONDS; exact to the millisecond below EXACT_MS, then to a twelfth. */
export class LatencyWindow {
  readonly #counts = Array.from({ length: WINDOW_SECONDS }, () => new Uint32Array(BUCKETS));
  readonly #seconds = new Float64Array(WINDOW_SECONDS);
  #current = this.#counts[0]!;

  /** Before each group of `observe`: the second that they belong to. */
  turnTo(nowMs: number): void {
    const second = Math.floor(nowMs / 1_000);
    const slot = second % WINDOW_SECONDS;
    this.#current = this.#counts[slot]!;
    if (this.#seconds[slot] === second) return;
    this.#seconds[slot] = second;
    this.#current.fill(0);
  }

  observe(latencyMs: number): void {
    this.#current[bucketOf(latencyMs)]! += 1;
  }

  /** Null: nothing was observed in the window. */
  over(nowMs: number): Latency | null {
    const sinceSecond = Math.floor(nowMs / 1_000) - WINDOW_SECONDS;
    const sums = new Float64Array(BUCKETS);
    let tradeCount = 0;
    for (const [slot, histogram] of this.#counts.entries()) {
      if (this.#seconds[slot]! <= sinceSecond) continue;
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        sums[bucket]! += histogram[bucket]!;
        tradeCount += histogram[bucket]!;
      }
    }
    if (tradeCount === 0) return null;
    return {
      p50Ms: quantile(sums, tradeCount * 0.5),
      p99Ms: quantile(sums, tradeCount * 0.99),
      tradeCount,
    };
  }
}

/** A clock that stepped back makes a latency negative: it counts as none. */
function bucketOf(latencyMs: number): number {
  if (latencyMs < EXACT_MS) return latencyMs > 0 ? latencyMs | 0 : 0;
  const step = Math.floor(Math.log2(latencyMs / EXACT_MS) * STEPS_PER_OCTAVE);
  return Math.min(BUCKETS - 1, EXACT_MS + step);
}

function quantile(sums: Float64Array, rank: number): number {
  let seen = 0;
  let bucket = 0;
  for (; bucket < sums.length - 1; bucket++) {
    seen += sums[bucket]!;
    if (seen >= rank) break;
  }
  if (bucket < EXACT_MS) return bucket;
  return Math.round(EXACT_MS * 2 ** ((bucket - EXACT_MS + 0.5) / STEPS_PER_OCTAVE));
}
