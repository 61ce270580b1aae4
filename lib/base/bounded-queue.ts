// Where push meets pull: a source that cannot wait pushes, and one consumer takes everything at once. It never drops and
// never refuses: it tells when it is full, and the source is expected to stop reading. It hands over at the end of a tick
// of the event loop only, so that a batch holds everything that one tick received.

import type { Clock } from "./clock.ts";

type QueueOptions = Readonly<{
  clock: Clock;
  /** Above this sum of weights the queue is full. What still comes is queued all the same. */
  weightMax: number;
  onFull(): void;
  /** The consumer took what was there. It takes all, so there is no lower mark but zero. */
  onTaken(): void;
  /** Before each hand-over: the last chance to push what sums up the tick. */
  onTickEnd(): void;
}>;

export type BoundedQueue<Item> = Readonly<{
  push(item: Item, weight: number): void;
  /** Schedules onTickEnd for the end of this tick, whether or not something is pushed. */
  touch(): void;
  /** What is there is handed over, then the iteration ends. */
  end(): void;
  batches(): AsyncGenerator<readonly Item[], void, undefined>;
}>;

export function createBoundedQueue<Item>(options: QueueOptions): BoundedQueue<Item> {
  const { clock, weightMax, onFull, onTaken, onTickEnd } = options;
  let items: Item[] = [];
  let weightSum = 0;
  let full = false;
  let tick: "idle" | "running" | "ended" = "idle";
  let wake = () => {};

  function touch(): void {
    if (tick !== "idle") return;
    tick = "running";
    clock.atEndOfTick(endTick);
  }

  function endTick(): void {
    if (tick !== "running") return;
    onTickEnd();
    tick = "idle";
    if (items.length > 0) wake();
  }

  return {
    push(item, weight) {
      if (tick === "ended") return;
      items.push(item);
      weightSum += weight;
      touch();
      if (full || weightSum <= weightMax) return;
      full = true;
      onFull();
    },
    touch,
    end() {
      if (tick === "ended") return;
      onTickEnd();
      tick = "ended";
      wake();
    },
    async *batches() {
      while (true) {
        // A consumer that comes back in the middle of a tick waits for its end too.
        while (tick === "running" || (tick === "idle" && items.length === 0)) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        if (items.length === 0) return;
        const batch = items;
        items = [];
        weightSum = 0;
        if (full) {
          full = false;
          onTaken();
        }
        yield batch;
      }
    },
  };
}
