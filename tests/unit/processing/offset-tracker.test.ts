// The watermark of a partition against a naive model that looks at every record each time.

import { expect, test } from "bun:test";
import { systemClock } from "../../../lib/base/clock.ts";
import { type InFlight, OffsetTracker } from "../../../lib/processing/offset-tracker.ts";
import { seeded } from "../../support/builders.ts";

/** What the tracker promises, computed from scratch. */
class Model {
  readonly records: { nextOffset: number; receivedSinceMs: number; left: number }[] = [];
  readonly offset: number;
  constructor(offset: number) {
    this.offset = offset;
  }
  get #passed() {
    const firstOpen = this.records.findIndex(({ left }) => left > 0);
    return firstOpen === -1 ? this.records : this.records.slice(0, firstOpen);
  }
  get state() {
    const last = this.#passed.at(-1);
    return {
      watermark: last?.nextOffset ?? this.offset,
      passedSinceMs: last?.receivedSinceMs ?? null,
      openCount: this.records.length - this.#passed.length,
    };
  }
}

function stateOf({ watermark, passedSinceMs, openCount }: OffsetTracker) {
  return { watermark, passedSinceMs, openCount };
}

test.each(Array.from({ length: 30 }, (_, index) => index + 1))(
  "in any order of acknowledgements the watermark is that of the naive model (seed %d)",
  (seed) => {
    const random = seeded(seed);
    const start = random(1_000);
    const tracker = new OffsetTracker(start);
    const model = new Model(start);
    /** One entry an acknowledgement that is still due. */
    const due: { inFlight: InFlight; index: number }[] = [];
    // Seeds differ in how far acknowledgements lag behind.
    const lag = [1, 10, 300][seed % 3]!;
    let nextOffset = start;
    for (let step = 0; step < 800; step++) {
      if (due.length === 0 || random(lag + due.length) < lag) {
        nextOffset += random(4);
        const pending = random(5);
        const inFlight = tracker.open(nextOffset, step, pending);
        model.records.push({ nextOffset, receivedSinceMs: step, left: pending });
        for (let row = 0; row < pending; row++) due.push({ inFlight, index: model.records.length - 1 });
      } else {
        const [{ inFlight, index }] = due.splice(random(due.length), 1) as [(typeof due)[number]];
        tracker.acknowledge(inFlight);
        model.records[index]!.left -= 1;
      }
      expect(stateOf(tracker)).toEqual(model.state);
    }
    for (const { inFlight } of due) tracker.acknowledge(inFlight);
    expect(stateOf(tracker)).toMatchObject({ watermark: nextOffset, openCount: 0 });
  },
);

test("newest first: nothing passes until the oldest is in, then everything does", () => {
  const tracker = new OffsetTracker(10);
  const inFlights = Array.from({ length: 500 }, (_, index) => tracker.open(11 + index, index, 1));
  for (const inFlight of inFlights.slice(1).reverse()) {
    tracker.acknowledge(inFlight);
    expect(tracker.watermark).toBe(10);
    expect(tracker.passedSinceMs).toBeNull();
  }
  tracker.acknowledge(inFlights[0]!);
  expect(stateOf(tracker)).toEqual({ watermark: 510, passedSinceMs: 499, openCount: 0 });
});

test("a record is passed when all its rows are in, and not before", () => {
  const tracker = new OffsetTracker(0);
  const inFlight = tracker.open(1, 7, 3);
  for (const watermark of [0, 0, 1]) {
    tracker.acknowledge(inFlight);
    expect(tracker.watermark).toBe(watermark);
  }
});

test("a record without rows is passed at once, but never before its elders", () => {
  const tracker = new OffsetTracker(5);
  tracker.open(6, 1, 0);
  expect(tracker.watermark).toBe(6);
  const elder = tracker.open(7, 2, 1);
  tracker.open(9, 3, 0);
  expect(stateOf(tracker)).toEqual({ watermark: 6, passedSinceMs: 1, openCount: 2 });
  tracker.acknowledge(elder);
  expect(stateOf(tracker)).toEqual({ watermark: 9, passedSinceMs: 3, openCount: 0 });
});

test("one acknowledgement too many, or a record out of order, is our bug and says so", () => {
  const tracker = new OffsetTracker(5);
  expect(() => tracker.open(4, 0, 1)).toThrow("offset order");
  const inFlight = tracker.open(8, 0, 1);
  expect(() => tracker.open(7, 0, 1)).toThrow("offset order");
  tracker.acknowledge(inFlight);
  expect(() => tracker.acknowledge(inFlight)).toThrow("acknowledged once");
  expect(tracker.watermark).toBe(8);
});

test("a tracker that has passed a million records keeps none of them", async () => {
  const tracker = new OffsetTracker(0);
  const oldest: WeakRef<InFlight>[] = [];
  const begunAt = performance.now();
  for (let offset = 1; offset <= 1_000_000; offset++) {
    const inFlight = tracker.open(offset, offset, 1);
    if (offset <= 1_000) oldest.push(new WeakRef(inFlight));
    tracker.acknowledge(inFlight);
  }
  expect(tracker.watermark).toBe(1_000_000);
  // O(1) per record: a copy of the list each time would take minutes.
  expect(performance.now() - begunAt).toBeLessThan(5_000);
  // A WeakRef keeps what was looked at in this turn of the event loop.
  await new Promise<void>((resolve) => systemClock.atEndOfTick(resolve));
  Bun.gc(true);
  // The stack may happen to hold one.
  expect(oldest.filter((reference) => reference.deref() !== undefined).length).toBeLessThan(10);
  tracker.open(1_000_001, 0, 1);
});
