// What one partition waits for, by itself: which records of a page it takes, how much goes into a batch, and what an
// outcome does to the next one.

import { expect, test } from "bun:test";
import type { OutboxRecord } from "../../../lib/contracts/log.ts";
import { PartitionQueue, RECORD_OVERHEAD_BYTES } from "../../../lib/ingest/partition-queue.ts";

/** Each costs 100 bytes. */
const record = (offset: number): OutboxRecord => ({
  kind: "trades",
  key: "S",
  value: Buffer.alloc(100 - RECORD_OVERHEAD_BYTES - 1),
  offset,
  timestampMs: offset,
});

/** A queue that has read the offsets 0 to `count - 1`. */
function queueOf(count: number, batchBytesMax = 400): PartitionQueue {
  const queue = new PartitionQueue("market/0", 0, batchBytesMax);
  queue.beginPage(0);
  for (let offset = 0; offset < count; offset++) queue.offer(record(offset));
  queue.endPage(count);
  return queue;
}

const offsetsOf = (batch: readonly OutboxRecord[]) => batch.map(({ offset }) => offset);

test("a page is taken whole or not at all: a full queue reads on later from its own offset", () => {
  const queue = queueOf(5);
  expect([queue.isFull, queue.from, queue.heldBytes()]).toEqual([true, 5, 500]);
  queue.beginPage(5);
  queue.offer(record(5));
  queue.endPage(6);
  expect([queue.from, queue.heldBytes()]).toEqual([5, 500]);
  queue.takeBatch();
  queue.acknowledge();
  // A page further on passes it; one from its own offset does not, and what it has is not taken twice.
  queue.beginPage(6);
  queue.offer(record(6));
  queue.endPage(7);
  expect(queue.from).toBe(5);
  queue.beginPage(3);
  for (const offset of [3, 4, 5]) queue.offer(record(offset));
  queue.endPage(6);
  expect([queue.from, offsetsOf(queue.takeBatch())]).toEqual([6, [4, 5]]);
});

test("a batch has as many records as its bytes allow, and one at least", () => {
  expect(offsetsOf(queueOf(5).takeBatch())).toEqual([0, 1, 2, 3]);
  expect(offsetsOf(queueOf(5, 50).takeBatch())).toEqual([0]);
});

test("never two batches of one partition are in flight", () => {
  const queue = queueOf(5);
  queue.takeBatch();
  expect(queue.isInFlight).toBe(true);
  expect(() => queue.takeBatch()).toThrow("never two sends");
});

test("what was acknowledged leaves, and its offsets are told; what was not goes again, in order", () => {
  const queue = queueOf(5);
  queue.takeBatch();
  expect(queue.returnFlight()).toEqual({ count: 4, bytes: 400 });
  expect(offsetsOf(queue.takeBatch())).toEqual([0, 1, 2, 3]);
  expect(queue.flightSummary()).toEqual({ bytes: 400 - 4 * RECORD_OVERHEAD_BYTES, oldestAtMs: 0 });
  const offsets = [9];
  queue.addFlightOffsets(offsets);
  expect(offsets).toEqual([9, 0, 1, 2, 3]);
  queue.acknowledge();
  expect([queue.isInFlight, queue.isEmpty, offsetsOf(queue.takeBatch())]).toEqual([false, false, [4]]);
});

test("after a refusal a batch has half its records, and twice as many after each acknowledgement", () => {
  const queue = queueOf(40, 10_000);
  const sizes: number[] = [];
  queue.takeBatch();
  queue.halveRecords(queue.returnFlight().count);
  expect(queue.isHealthy).toBe(false);
  queue.takeBatch();
  queue.halveRecords(queue.returnFlight().count);
  queue.halveRecords(5);
  while (!queue.isEmpty) {
    sizes.push(queue.takeBatch().length);
    queue.acknowledge();
  }
  expect(sizes).toEqual([3, 6, 12, 19]);
});

test("after a batch that was too large the bytes are halved, and grow back slowly", () => {
  const queue = queueOf(100, 1_000);
  queue.takeBatch();
  queue.halveBytes(queue.returnFlight().bytes);
  const sizes: number[] = [];
  while (!queue.isEmpty) {
    sizes.push(queue.takeBatch().length);
    queue.acknowledge();
  }
  expect(sizes).toEqual([5, 5, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 8]);
  expect(queue.isHealthy).toBe(true);
});

test("a dead-lettered record leaves alone, is counted, and lifts the bound on records", () => {
  const queue = queueOf(4);
  queue.takeBatch();
  queue.halveRecords(1);
  queue.returnFlight();
  expect(offsetsOf(queue.takeBatch())).toEqual([0]);
  queue.returnFlight();
  expect(queue.first.offset).toBe(0);
  queue.dropDeadLetter();
  expect([queue.deadLettersInARow, queue.heldBytes(), queue.isHealthy]).toEqual([1, 300, true]);
  expect(offsetsOf(queue.takeBatch())).toEqual([1, 2, 3]);
  queue.acknowledge();
  expect([queue.deadLettersInARow, queue.isEmpty]).toEqual([0, true]);
});
