// A set of offsets kept as runs, in the order in which they were added. With every partition healthy, what a send
// acknowledges is one run, so a deletion is one statement and not one for each record. Pure.

/** From and to, both inclusive. */
export type Run = Readonly<{ from: number; to: number }>;

export class OffsetRuns {
  #runs: { from: number; to: number }[] = [];

  get isEmpty(): boolean {
    return this.#runs.length === 0;
  }

  /** Offsets in ascending order; they may continue the last run. */
  add(offsets: Iterable<number>): void {
    let last = this.#runs.at(-1);
    for (const offset of offsets) {
      if (last?.to === offset - 1) last.to = offset;
      else {
        last = { from: offset, to: offset };
        this.#runs.push(last);
      }
    }
  }

  /** The first `countMax` offsets. They stay in the set until they are dropped. */
  front(countMax: number): readonly Run[] {
    const front: Run[] = [];
    let left = countMax;
    for (const { from, to } of this.#runs) {
      if (left === 0) break;
      const upTo = Math.min(to, from + left - 1);
      front.push({ from, to: upTo });
      left -= upTo - from + 1;
    }
    return front;
  }

  /** Drops what `front` answered; nothing may be added between the two. */
  drop(front: readonly Run[]): void {
    const last = front.at(-1);
    if (last === undefined) return;
    const partial = this.#runs[front.length - 1]!;
    const isWhole = partial.to === last.to;
    if (!isWhole) partial.from = last.to + 1;
    this.#runs = this.#runs.slice(isWhole ? front.length : front.length - 1);
  }
}
