// What a member of a group has, driven by a client that does its worst: batches of older assignments, fetches from
// before a seek, positions that jump. Each of these was seen in kafkajs, or can be read in its source.

import { expect, test } from "bun:test";
import type { KafkaMessage } from "kafkajs";
import { systemClock } from "../../../lib/base/clock.ts";
import { StaleEpochError } from "../../../lib/base/errors.ts";
import type { Delivery } from "../../../lib/contracts/log.ts";
import { Assignment, type FetchedBatch } from "../../../lib/kafka/assignment.ts";

const ID = "market/0";

function message(offset: number, bytes: number): KafkaMessage {
  return {
    offset: String(offset),
    timestamp: "1767614400000",
    key: null,
    value: Buffer.alloc(bytes),
    attributes: 0,
    headers: {},
  };
}

function open() {
  const calls: string[] = [];
  const resolved: string[] = [];
  const control = {
    pause: () => calls.push("pause"),
    resume: () => calls.push("resume"),
    seek: ({ offset }: { offset: string }) => calls.push(`seek ${offset}`),
  };
  const assignment = new Assignment(new Map([["market", "trades"]]), systemClock);
  const begin = () => {
    assignment.begin(control as never, { market: [0] });
    return assignment.next()!.epoch;
  };
  /** As kafkajs would hand over what lies in [from, next). */
  const fetched = (from: number, next: number, fields: Partial<FetchedBatch> = {}, bytes = 10) => ({
    batch: {
      topic: "market",
      partition: 0,
      messages: Array.from({ length: next - from }, (_, index) => message(from + index, bytes)),
      lastOffset: () => String(next - 1),
      fetchedOffset: String(from),
    },
    resolveOffset: (offset: string) => resolved.push(offset),
    heartbeat: async () => {},
    isRunning: () => true,
    ...fields,
  });
  const take = (from: number, next: number) => assignment.accept(fetched(from, next) as FetchedBatch);
  return { assignment, calls, resolved, begin, fetched, take };
}

function rangeOf(delivery: Delivery | null): [number, number] | null {
  return delivery?.type === "batch" ? [delivery.fromOffset, delivery.nextOffset] : null;
}

test("a partition is paused until it is sought, and what comes before that is dropped unresolved", async () => {
  const { assignment, calls, resolved, begin, take } = open();
  const epoch = begin();
  expect(calls).toEqual(["pause"]);
  await take(0, 5);
  expect([assignment.next(), resolved]).toEqual([null, []]);
  assignment.seek(epoch, ID, 3);
  expect(calls).toEqual(["pause", "seek 3", "resume"]);
  await take(3, 5);
  expect([rangeOf(assignment.next()), resolved]).toEqual([[3, 5], ["4"]]);
});

test("a batch that does not begin where reading stands is sought back, whatever epoch it is of", async () => {
  const { assignment, calls, resolved, begin, take } = open();
  const epoch = begin();
  assignment.seek(epoch, ID, 10);
  calls.length = 0;
  // Resolved by an older assignment, into this one; and behind.
  await take(20, 30);
  await take(5, 10);
  expect([assignment.next(), resolved, calls]).toEqual([null, [], ["seek 10", "seek 10"]]);
  await take(10, 20);
  expect([rangeOf(assignment.next()), resolved]).toEqual([[10, 20], ["19"]]);
});

test("a batch that is ahead however often it is sought back follows a gap without records", async () => {
  const { assignment, begin, take } = open();
  assignment.seek(begin(), ID, 10);
  for (let turn = 0; turn < 3; turn++) {
    await take(20, 30);
    expect(assignment.next()).toBeNull();
  }
  await take(20, 30);
  expect(rangeOf(assignment.next())).toEqual([10, 30]);
  // From here on everything has to follow on again; one that is behind never does.
  await take(40, 50);
  expect(assignment.next()).toBeNull();
  for (let turn = 0; turn < 10; turn++) await take(5, 30);
  expect(assignment.next()).toBeNull();
});

test("a seek drops what is buffered of its partition, and is valid for the very next batch", async () => {
  const { assignment, begin, take } = open();
  const epoch = begin();
  assignment.seek(epoch, ID, 0);
  await take(0, 5);
  await take(5, 10);
  expect(rangeOf(assignment.next())).toEqual([0, 5]);
  assignment.seek(epoch, ID, 2);
  expect([assignment.next(), assignment.bufferedBytes]).toEqual([null, 0]);
  await take(2, 10);
  expect(rangeOf(assignment.next())).toEqual([2, 10]);
});

/** Fills the buffer, so that the next batch has to wait; the waiting batch's promise is answered. */
async function bufferOne(opened: ReturnType<typeof open>, isRunning = () => true) {
  const { assignment, begin, fetched } = opened;
  const epoch = begin();
  assignment.seek(epoch, ID, 0);
  await assignment.accept(fetched(0, 30, {}, 100_000) as FetchedBatch);
  let beats = 0;
  let refuse: Error | null = null;
  const heartbeat = async () => {
    beats += 1;
    if (refuse !== null) throw refuse;
  };
  const waiting = assignment.accept(fetched(30, 40, { heartbeat, isRunning }) as FetchedBatch);
  return {
    epoch,
    waiting,
    beats: () => beats,
    rebalance: (error: Error) => {
      refuse = error;
    },
  };
}

test("with a full buffer a batch waits, with heartbeats, until something was handed over", async () => {
  const opened = open();
  const { waiting, beats } = await bufferOne(opened);
  const { assignment, resolved } = opened;
  while (beats() < 2) await assignment.changed(50);
  expect(resolved).toEqual(["29"]);
  expect(rangeOf(assignment.next())).toEqual([0, 30]);
  await waiting;
  expect(resolved).toEqual(["29", "39"]);
  expect(rangeOf(assignment.next())).toEqual([30, 40]);
});

test("a batch that waited through a seek, a new epoch or the end is not accepted and not resolved", async () => {
  for (const happen of ["seek", "epoch", "end"] as const) {
    const opened = open();
    const { assignment, resolved, begin } = opened;
    const { epoch, waiting } = await bufferOne(opened);
    if (happen === "seek") assignment.seek(epoch, ID, 30);
    if (happen === "epoch") assignment.seek(begin(), ID, 30);
    if (happen === "end") assignment.end();
    await waiting;
    expect([happen, assignment.next(), resolved]).toEqual([happen, null, ["29"]]);
  }
});

test("a rebalance that a waiting batch's heartbeat reports comes out, and the batch was not accepted", async () => {
  const opened = open();
  const { waiting, rebalance } = await bufferOne(opened);
  rebalance(new Error("rebalance in progress"));
  opened.assignment.wakeUp();
  await expect(waiting).rejects.toThrow("rebalance in progress");
  expect(opened.resolved).toEqual(["29"]);
});

test("between two epochs nothing is current, and an epoch's number is never used again", () => {
  const { assignment, begin } = open();
  const first = begin();
  assignment.end();
  expect(assignment.partitions).toEqual([]);
  expect(() => assignment.place(first, ID)).toThrow(StaleEpochError);
  expect(() => assignment.seek(first, ID, 0)).toThrow(StaleEpochError);
  const second = begin();
  expect(second).toBeGreaterThan(first);
  expect(() => assignment.seek(first, ID, 0)).toThrow(StaleEpochError);
  expect(open().begin()).toBeGreaterThan(second);
});

test("of two epochs that were not handed over yet only the later one is", () => {
  const { assignment, begin } = open();
  begin();
  const control = { pause() {}, resume() {}, seek() {} };
  assignment.begin(control as never, { market: [0, 1] });
  assignment.begin(control as never, { market: [1], others: [0] });
  expect(assignment.next()).toMatchObject({ type: "assigned", partitions: ["market/1"] });
  expect(assignment.next()).toBeNull();
});
