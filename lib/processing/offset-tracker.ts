// How far one partition is stored: the highest offset below which everything is acknowledged. Acknowledgements
// come in any order; the watermark passes a record when all its rows, and all records before it, are in.

import assert from "node:assert/strict";

/** One record of the log on its way into the store. */
export type InFlight = { readonly nextOffset: number; readonly heldSinceMs: number; pending: number };

export class OffsetTracker {
  #watermark: number;
  #passedAtMs: number | null = null;
  /** Records not yet passed, in offset order, from #head on. */
  #open: InFlight[] = [];
  #head = 0;

  constructor(offset: number) {
    this.#watermark = offset;
  }

  /** The next offset to read after a restart from here. */
  get watermark(): number {
    return this.#watermark;
  }

  /** Since when we hold the last record below the watermark, ms since 1970; null = none was passed yet. */
  get passedAtMs(): number | null {
    return this.#passedAtMs;
  }

  get openCount(): number {
    return this.#open.length - this.#head;
  }

  /** Opens a record that waits for `pending` acknowledgements; to be called in offset order. */
  open(nextOffset: number, heldSinceMs: number, pending: number): InFlight {
    const last = this.#open.at(-1);
    assert(nextOffset >= (last ? last.nextOffset : this.#watermark), "records are opened in offset order");
    const inFlight = { nextOffset, heldSinceMs, pending };
    this.#open.push(inFlight);
    this.#advance();
    return inFlight;
  }

  acknowledge(inFlight: InFlight): void {
    assert(inFlight.pending > 0, "a row is acknowledged once");
    inFlight.pending -= 1;
    if (inFlight.pending === 0) this.#advance();
  }

  #advance(): void {
    while (this.#head < this.#open.length && this.#open[this.#head]!.pending === 0) {
      const passed = this.#open[this.#head++]!;
      this.#watermark = passed.nextOffset;
      this.#passedAtMs = passed.heldSinceMs;
    }
    // Dropping the passed half at a time keeps this O(1) a record.
    if (this.#head > 64 && this.#head * 2 > this.#open.length) {
      this.#open = this.#open.slice(this.#head);
      this.#head = 0;
    }
  }
}
