// A small world in virtual time. Everything that takes time is an event of ONE queue; after each event every
// promise that can move moves, so a seed decides all that happens. Synchronous for the test:
// `world.run(5_000)` returns when five virtual seconds are over. No timer, no real waiting.
//
// A Machine is what a process runs on. Whatever the world answers to it (a timer, a reply of the log or of
// the store) passes through `Machine.after`, so a machine that sleeps hears nothing until it wakes, and a
// killed one never again: its memory is gone, while what it has sent is still on its way.

import { drainMicrotasks } from "bun:jsc";
import type { Clock } from "../../lib/base/clock.ts";
import { seeded } from "../support/builders.ts";

type Event = { dueMs: number; order: number; callback: (() => void) | null };

/** A run that does not come to rest is a bug; a settled world needs far fewer. */
const EVENTS_MAX = 5_000_000;

export class World {
  /** A whole number below the bound, from the seed. */
  readonly pick: (below: number) => number;
  #nowMs: number;
  #order = 0;
  #eventCount = 0;
  readonly #startMs: number;
  /** A binary heap: by time, then by the order of asking. */
  readonly #heap: Event[] = [];

  constructor(seed: number, startMs: number) {
    this.pick = seeded(seed);
    this.#nowMs = startMs;
    this.#startMs = startMs;
  }

  get nowMs(): number {
    return Math.floor(this.#nowMs);
  }

  get elapsedMs(): number {
    return this.#nowMs - this.#startMs;
  }

  /** [0, 1) */
  random(): number {
    return this.pick(2 ** 32) / 2 ** 32;
  }

  chance(probability: number): boolean {
    return probability > 0 && this.random() < probability;
  }

  /** A fraction of a millisecond is left on purpose: it decides who comes first. */
  between(fromMs: number, toMs: number): number {
    return fromMs + this.random() * (toMs - fromMs);
  }

  /** Calls back once after the time. The returned function cancels. */
  after(durationMs: number, callback: () => void): () => void {
    const event: Event = { dueMs: this.#nowMs + Math.max(0, durationMs), order: this.#order++, callback };
    this.#push(event);
    return () => {
      event.callback = null;
    };
  }

  machine(): Machine {
    return new Machine(this);
  }

  /** Lets this much time pass. */
  run(durationMs: number): void {
    const untilMs = this.#nowMs + durationMs;
    drainMicrotasks();
    while (this.#heap.length > 0 && this.#heap[0]!.dueMs <= untilMs) this.#step();
    this.#nowMs = untilMs;
  }

  /** Lets time pass until it is so; throws when it is not within the limit. */
  runUntil(isSo: () => boolean, limitMs: number, what = "what was waited for"): void {
    const untilMs = this.#nowMs + limitMs;
    drainMicrotasks();
    while (!isSo()) {
      if (this.#heap.length === 0 || this.#heap[0]!.dueMs > untilMs) {
        throw new Error(`${what} did not happen within ${limitMs} virtual ms`);
      }
      this.#step();
    }
  }

  #step(): void {
    const { dueMs, callback } = this.#pop();
    if (callback === null) return;
    this.#nowMs = Math.max(this.#nowMs, dueMs);
    if (++this.#eventCount > EVENTS_MAX) throw new Error("the world does not come to rest");
    callback();
    drainMicrotasks();
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (isBefore(heap[parent]!, event)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): Event {
    const heap = this.#heap;
    const first = heap[0]!;
    const moved = heap.pop()!;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (isBefore(moved, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = moved;
    return first;
  }
}

function isBefore(one: Event, other: Event): boolean {
  return one.dueMs === other.dueMs ? one.order < other.order : one.dueMs < other.dueMs;
}

export type MachineState = "awake" | "asleep" | "dead";

export class Machine {
  readonly world: World;
  readonly clock: Clock;
  state: MachineState = "awake";
  /** What was to be said to a sleeping machine, in order. */
  #unheard: (() => void)[] = [];

  constructor(world: World) {
    this.world = world;
    this.clock = virtualClock(this);
  }

  /** Says something to this machine after the time, if it lives and as soon as it is awake. */
  after(durationMs: number, callback: () => void): () => void {
    let isCancelled = false;
    const say = () => {
      if (isCancelled || this.state === "dead") return;
      if (this.state === "asleep") this.#unheard.push(say);
      else callback();
    };
    const cancel = this.world.after(durationMs, say);
    return () => {
      isCancelled = true;
      cancel();
    };
  }

  /** Calls back every so often, as cron does: whether or not the last call is done. Ends with the machine. */
  every(periodMs: number, callback: () => void): () => void {
    let cancel = () => {};
    const again = () => {
      cancel = this.after(periodMs, () => {
        again();
        callback();
      });
    };
    again();
    return () => cancel();
  }

  /** A stop of the whole process: a paused container, a long garbage collection, a laptop's lid. */
  sleep(): void {
    if (this.state === "awake") this.state = "asleep";
  }

  wake(): void {
    if (this.state !== "asleep") return;
    this.state = "awake";
    const unheard = this.#unheard;
    this.#unheard = [];
    for (const say of unheard) this.world.after(0, say);
  }

  /** kill -9: it hears nothing any more. */
  kill(): void {
    this.state = "dead";
    this.#unheard = [];
  }
}

/**
 * lib/base/clock.ts's Clock as one machine sees it. Its methods are handed on alone, so none of them needs `this`.
 */
export function virtualClock(machine: Machine): Clock {
  const { world } = machine;
  return {
    now: () => world.nowMs,
    monotonic: () => world.elapsedMs,
    sleep(durationMs, signal) {
      return new Promise((resolve) => {
        if (signal?.aborted) return resolve();
        const done = () => {
          cancel();
          signal?.removeEventListener("abort", done);
          resolve();
        };
        const cancel = machine.after(durationMs, done);
        signal?.addEventListener("abort", done);
      });
    },
    after: (durationMs, callback) => machine.after(durationMs, callback),
    atEndOfTick(callback) {
      machine.after(0, callback);
    },
    random: () => world.random(),
  };
}

// ---- Faults -----------------------------------------------------------------------------------------------

/**
 * What can happen to one request. `before`: refused, nothing was done. `after`: all was done, and the answer
 * is lost. `partly`: some of it was done. `late`: the answer is a time-out, and then it is done all the same.
 * `slow`: done and answered, much later.
 */
export type FaultKind = "before" | "after" | "partly" | "late" | "slow";

export const FAULT_KINDS: readonly FaultKind[] = ["before", "after", "partly", "late", "slow"];

/**
 * What the next request of an operation meets, decided by a test; without `fault` it goes well. `latencyMs`
 * is its way to the service, `backMs` that of the answer.
 */
export type Plan = Readonly<{ fault?: FaultKind; latencyMs?: number; backMs?: number }>;

/** Probability of each kind, per request. */
export type FaultRates = Partial<Record<FaultKind, number>>;

/** Decides what happens to each request of one service, and counts it. */
export class Faults<Operation extends string> {
  /** Of every request that no plan speaks for; set to {} it is a service without faults. */
  rates: FaultRates = {};
  /** Each way; a request that is `slow` takes slowMs instead. */
  latencyMs: readonly [number, number] = [0.2, 4];
  slowMs: readonly [number, number] = [200, 8_000];
  readonly counts: Record<string, number> = {};
  readonly #world: World;
  readonly #plans = new Map<Operation, Plan[]>();
  #isDown: (operation: Operation) => boolean = () => false;

  constructor(world: World) {
    this.#world = world;
  }

  /** The next requests of this operation, one plan each. */
  plan(operation: Operation, ...plans: readonly Plan[]): void {
    this.#plans.set(operation, [...(this.#plans.get(operation) ?? []), ...plans]);
  }

  /** For so long every request of these operations (none named: of all) fails. */
  down(durationMs: number, ...operations: readonly Operation[]): void {
    const endMs = this.#world.elapsedMs + durationMs;
    this.#isDown = (operation) =>
      this.#world.elapsedMs < endMs && (operations.length === 0 || operations.includes(operation));
  }

  /** From now on nothing fails. */
  stop(): void {
    this.rates = {};
    this.#plans.clear();
    this.#isDown = () => false;
  }

  draw(operation: Operation): Plan & { latencyMs: number; backMs: number } {
    const world = this.#world;
    const planned = this.#plans.get(operation)?.shift();
    let fault = planned?.fault;
    if (planned === undefined) {
      if (this.#isDown(operation)) fault = world.chance(0.9) ? "before" : "after";
      else fault = FAULT_KINDS.find((kind) => world.chance(this.rates[kind] ?? 0));
    }
    if (fault !== undefined) {
      const name = `${operation} ${fault}`;
      this.counts[name] = (this.counts[name] ?? 0) + 1;
    }
    const [fromMs, toMs] = fault === "slow" ? this.slowMs : this.latencyMs;
    const latencyMs = planned?.latencyMs ?? world.between(fromMs, toMs);
    const backMs = planned?.backMs ?? world.between(...this.latencyMs);
    return fault === undefined ? { latencyMs, backMs } : { fault, latencyMs, backMs };
  }
}

export type Call<Result> = Readonly<{
  /** At the service, in one step; throws what the service answers with. */
  work: () => Result;
  /** A part of it, where there are parts. */
  part?: () => void;
  /** What a lost request or a lost answer looks like. */
  lost: () => Error;
}>;

/**
 * A request from a machine to a service and back. It is done at the service whatever becomes of the machine
 * meanwhile; the answer is heard only by one that lives.
 */
export function request<Operation extends string, Result>(
  machine: Machine,
  faults: Faults<Operation>,
  operation: Operation,
  { work, part, lost }: Call<Result>,
): Promise<Result> {
  const { promise, resolve, reject } = Promise.withResolvers<Result>();
  const { fault, latencyMs, backMs } = faults.draw(operation);
  const answer = (say: () => void) => machine.after(backMs, say);
  const workAndAnswer = () => {
    try {
      const result = work();
      answer(() => (fault === "after" ? reject(lost()) : resolve(result)));
    } catch (error) {
      answer(() => reject(fault === "after" ? lost() : error));
    }
  };
  const workUnheard = () => {
    try {
      work();
    } catch {
      // Nobody waits for this answer any more.
    }
  };
  machine.world.after(latencyMs, () => {
    if (fault === undefined || fault === "after" || fault === "slow") return workAndAnswer();
    if (fault === "partly") part?.();
    if (fault === "late") machine.world.after(machine.world.between(...faults.slowMs), workUnheard);
    answer(() => reject(lost()));
  });
  return promise;
}
