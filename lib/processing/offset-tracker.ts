// How far one partition is stored. The watermark (of offsets, not of event time) is the highest offset below which
// everything is acknowledged. Acknowledgements come in any order; the watermark passes a record when all rows of that
// record and of all earlier records are acknowledged.

import assert from "node:assert/strict";

/** One record of the log on its way into the store. */
export type InFlight = {
  readonly nextOffset: number;
  /** Not after the receipt of what the record holds, ms since 1970. */
  readonly receivedSinceMs: number;
  /** Acknowledgements that are still due. */
  pending: number;
};

export class OffsetTracker {
  #watermark: number;
  #passedSinceMs: number | null = null;
  /** Records that the watermark has not passed, in offset order, from #head on. */
  #open: InFlight[] = [];
  #head = 0;

  constructor(offset: number) {
    this.#watermark = offset;
  }

  /** Where reading goes on after a restart that loses everything in flight. */
  get watermark(): number {
    return this.#watermark;
  }

  /** `receivedSinceMs` of the last record below the watermark; null = none has been passed yet. */
  get passedSinceMs(): number | null {
    return this.#passedSinceMs;
  }

  get openCount(): number {
    return this.#open.length - this.#head;
  }

  /** A record that waits for `pending` acknowledgements. Records are opened in offset order. */
  open(nextOffset: number, receivedSinceMs: number, pending: number): InFlight {
    const last = this.#open.at(-1);
    assert(nextOffset >= (last ? last.nextOffset : this.#watermark), "records are opened in offset order");
    const inFlight = { nextOffset, receivedSinceMs, pending };
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
      this.#passedSinceMs = passed.receivedSinceMs;
    }
    // Dropping passed records only when they are half of the list costs O(1) per record.
    if (this.#head > 64 && this.#head * 2 > this.#open.length) {
      this.#open = this.#open.slice(this.#head);
      this.#head = 0;
    }
  }
}
