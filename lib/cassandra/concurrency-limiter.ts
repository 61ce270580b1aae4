// How many requests may run at once: half as many when the far end says that it is overloaded, one when it is down,
// slowly more again while it answers. Work without a place waits in line. It never drops work, never repeats it and
// knows no time: only answers change the limit.

/** What a failed request says about the far end. Null: nothing, the failure is the request's own. */
export type Pressure = "overloaded" | "down" | null;

type LimiterOptions = Readonly<{
  limitMax: number;
  pressureOf(error: unknown): Pressure;
  onLimit(limit: number): void;
}>;

interface ConcurrencyLimiter {
  /** How many may run at once just now, from 1 to limitMax. */
  readonly limit: number;
  /** Runs the work when a place is free, in the order of the calls; its outcome is the work's. */
  run<T>(work: () => Promise<T>): Promise<T>;
}

/** Answers to each place before there is one more: from 1 to 16 places that is some thousand answers. */
const ANSWERS_PER_PLACE = 10;

export function createConcurrencyLimiter({
  limitMax,
  pressureOf,
  onLimit,
}: LimiterOptions): ConcurrencyLimiter {
  let limit = limitMax;
  let running = 0;
  let answers = 0;
  /** Grows with each cut. A failure of what began before the last cut says nothing about the limit since. */
  let cuts = 0;
  const waiting: (() => void)[] = [];

  function set(next: number): void {
    answers = 0;
    if (next === limit) return;
    limit = next;
    onLimit(limit);
  }

  function cut(pressure: "overloaded" | "down"): void {
    cuts += 1;
    set(pressure === "down" ? 1 : Math.max(1, Math.floor(limit / 2)));
  }

  function answered(): void {
    answers += 1;
    if (limit < limitMax && answers >= limit * ANSWERS_PER_PLACE) set(limit + 1);
  }

  async function enter(): Promise<void> {
    // A woken request was counted by the one that woke it, so that none slips in between.
    if (running < limit && waiting.length === 0) running += 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
  }

  function leave(): void {
    running -= 1;
    while (running < limit && waiting.length > 0) {
      running += 1;
      waiting.shift()?.();
    }
  }

  onLimit(limit);
  return {
    get limit() {
      return limit;
    },
    async run(work) {
      await enter();
      const begunAtCut = cuts;
      try {
        const result = await work();
        answered();
        return result;
      } catch (error) {
        const pressure = pressureOf(error);
        if (pressure === null) answered();
        else if (begunAtCut === cuts || (pressure === "down" && limit > 1)) cut(pressure);
        throw error;
      } finally {
        leave();
      }
    },
  };
}
