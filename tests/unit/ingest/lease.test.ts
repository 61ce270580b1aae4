// The lease on the feed: its fold record by record, and whole histories by seed, in which producers start, sleep, die
// and stop while the topic is slow, away and compacted. Two must never send in turns, and a producer that lives does not
// lose its lease.

import { expect, test } from "bun:test";
import type { Clock } from "../../../lib/base/clock.ts";
import { LogUnavailableError, SetupError } from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import {
  applyLeaseRecord,
  encodeLeaseRecord,
  isFree,
  type LeaseFields,
  type LeaseJournal,
  type LeaseRecord,
  type LeaseState,
  type LeaseTopic,
  parseLeaseRecord,
} from "../../../lib/contracts/lease.ts";
import {
  acquireLease,
  CONFIRMED_MS_MAX,
  HEARTBEAT_EVERY_MS,
  LEASE_MS_MAX,
  type Lease,
} from "../../../lib/ingest/lease.ts";
import { journalOf, VirtualTopic } from "../../simulation/fake-topic.ts";
import { type Machine, World } from "../../simulation/world.ts";
import { NOON_MS } from "../../support/builders.ts";

// --- The fold --------------------------------------------------------------------------------------------------

function fieldsOf(session: string, fields: Partial<LeaseFields> = {}): LeaseFields {
  return {
    holder: `outbox-${session}`,
    session,
    host: "host",
    pid: 7,
    sinceMs: NOON_MS,
    atMs: NOON_MS,
    ...fields,
  };
}
/** By default the term that is followed ended with its claim. */
const claim = (session: string, after: number, seen = after): LeaseRecord => ({
  ...fieldsOf(session),
  type: "claim",
  after,
  seen,
});
const alive = (session: string, term: number): LeaseRecord => ({
  ...fieldsOf(session),
  type: "alive",
  term,
  number: 1,
});
const released = (session: string, term: number): LeaseRecord => ({
  ...fieldsOf(session),
  type: "released",
  term,
});

/** Folds [offset, record] pairs and says who has the lease, in which term. */
function folded(...records: readonly (readonly [number, LeaseRecord])[]) {
  const state = records.reduce<LeaseState | null>(
    (before, [offset, one]) => applyLeaseRecord(before, offset, one),
    null,
  );
  return state === null ? null : `${state.session} ${state.term}${state.isReleased ? " released" : ""}`;
}

test("of two claims after one term the first has the lease, and its term is its offset", () => {
  expect(folded([0, claim("a", 0)], [1, claim("b", 0)])).toBe("a 1");
  expect(folded([4, claim("a", 0)], [5, claim("b", 0)], [6, claim("c", 4)])).toBe("c 6");
  expect(folded([4, claim("a", 0)], [6, claim("c", 4)], [7, claim("b", 4)])).toBe("c 6");
});

test("heartbeats of an older term change nothing; one of a later term is definitive", () => {
  expect(folded([4, claim("a", 0)], [6, claim("b", 4)], [7, alive("a", 4)])).toBe("b 6");
  expect(folded([4, claim("a", 0)], [7, alive("b", 6)])).toBe("b 6");
  expect(folded([7, alive("b", 6)])).toBe("b 6");
});

test("a release frees the term that it names and no later one, and the term is kept", () => {
  expect(folded([4, claim("a", 0)], [5, released("a", 4)])).toBe("a 4 released");
  expect(folded([4, claim("a", 0)], [5, claim("b", 4)], [6, released("a", 4)])).toBe("b 5");
  expect(folded([4, claim("a", 0)], [5, released("a", 4)], [6, claim("b", 4, 5)])).toBe("b 6");
  expect(folded([4, claim("a", 0)], [5, released("a", 4)], [6, claim("b", 0)])).toBe("a 4 released");
});

test("a claim whose rivals were compacted away yields to an owner that shows life", () => {
  // b lost to a, whose claim and earlier heartbeats are gone; c had the lease before both.
  expect(folded([9, claim("b", 5)])).toBe("b 9");
  expect(folded([9, claim("b", 5)], [10, alive("a", 8)])).toBe("a 8");
  expect(folded([9, claim("b", 5)], [10, alive("c", 5)])).toBe("c 5");
  expect(folded([9, claim("b", 5)], [10, alive("c", 4)])).toBe("b 9");
  expect(folded([9, claim("b", 0)], [10, alive("c", 5)])).toBe("b 9");
});

test("a claim is void when a heartbeat came before it, however late it arrives", () => {
  expect(folded([4, claim("a", 0)], [6, alive("a", 4)], [7, claim("b", 4)])).toBe("a 4");
  expect(folded([4, claim("a", 0)], [6, alive("a", 4)], [7, claim("b", 4, 6)])).toBe("b 7");
  expect(folded([4, claim("a", 0)], [6, alive("a", 4)], [7, claim("b", 4, 6)], [8, claim("c", 4, 6)])).toBe(
    "b 7",
  );
});

test("of two sessions in one term one is right for everybody, and a release is not undone by an earlier heartbeat", () => {
  expect(folded([7, alive("a", 6)], [8, alive("b", 6)])).toBe("b 6");
  expect(folded([7, alive("b", 6)], [8, alive("a", 6)])).toBe("b 6");
  expect(folded([7, alive("b", 6)], [8, released("b", 6)], [9, alive("b", 6)])).toBe("b 6 released");
});

test("in a topic that was recreated the terms go on rising", () => {
  expect(folded([0, alive("a", 500)], [1, claim("b", 500, 0)])).toBe("b 501");
});

test("the lease is free without an owner, after a release, and for the same outbox in its own place", () => {
  const state = applyLeaseRecord(null, 4, claim("a", 0));
  const journal = (of: Record<string, "here" | "elsewhere">) => ({
    ownerOf: (session: string) => of[session] ?? null,
  });
  expect(isFree(null, journal({}))).toBe(true);
  expect(isFree(applyLeaseRecord(state, 5, released("a", 4)), journal({}))).toBe(true);
  expect(isFree(state, journal({ a: "here" }))).toBe(true);
  expect(isFree(state, journal({ a: "elsewhere" }))).toBe(false);
  expect(isFree(state, journal({ x: "here" }))).toBe(false);
});

test("what is not a lease record is none, whatever it contains", () => {
  for (const record of [claim("a", 0), alive("a", 4), released("a", 4)]) {
    expect(parseLeaseRecord(encodeLeaseRecord(record))).toEqual(record);
    for (const name of Object.keys(record)) {
      for (const value of [undefined, null, -1, 0.5, {}, "", "x".repeat(300)]) {
        const bytes = new TextEncoder().encode(JSON.stringify({ ...record, [name]: value }));
        expect([name, value, parseLeaseRecord(bytes)]).toEqual([name, value, null]);
      }
    }
  }
  for (const text of ["", "{", "null", "7", "[]", '"claim"', "{}"]) {
    expect(parseLeaseRecord(new TextEncoder().encode(text))).toBeNull();
  }
  expect(parseLeaseRecord(null)).toBeNull();
});

// --- Whole histories -------------------------------------------------------------------------------------------

type Process = {
  machine: Machine;
  session: string;
  holder: string;
  result: "starting" | "leading" | "refused" | "lost" | "released" | "killed";
  isConfirmed: () => boolean;
  stop: AbortController;
  /** When its machine last did not run. */
  lastAsleepMs: number;
};

type Chaos = Readonly<{ compactAgeMs: number; faultRate: number; lastsMs: number }>;

function live(seed: number, { compactAgeMs, faultRate, lastsMs }: Chaos) {
  const world = new World(seed, NOON_MS);
  const topic = new VirtualTopic(world, faultRate);
  const processes: Process[] = [];
  const memories = new Map<string, LeaseJournal>();
  /** Who sent, one entry a change. */
  const sends: { session: string; atMs: number }[] = [];
  const mistakes: string[] = [];

  function start(holder: string): Process {
    const machine = world.machine();
    const session = `s${processes.length}`;
    const stop = new AbortController();
    const self: Process = {
      machine,
      session,
      holder,
      result: "starting",
      isConfirmed: () => false,
      stop,
      lastAsleepMs: Number.NEGATIVE_INFINITY,
    };
    processes.push(self);
    const own = { session, host: "host", pid: processes.length };
    const journal = memories.get(holder) ?? journalOf(holder);
    memories.set(holder, journal);
    const view = topic.connect(machine);
    const { signal } = stop;
    const end = (result: Process["result"]) => {
      if (self.result !== "killed") self.result = result;
      self.isConfirmed = () => false;
      machine.kill();
    };
    const life = async () => {
      const before = processes.find(({ result }) => result === "leading");
      const lease = await acquireLease({
        topic: view,
        self: own,
        journal,
        clock: machine.clock,
        logger: silentLogger,
        signal,
      });
      const holder = before ?? processes.find(({ result }) => result === "leading");
      if (holder !== undefined && holder !== self && holder.result === "leading") judge(holder, self);
      self.result = "leading";
      self.isConfirmed = lease.isConfirmed;
      machine.every(100, () => {
        if (!lease.isConfirmed() || self.result !== "leading") return;
        if (sends.at(-1)?.session !== session) sends.push({ session, atMs: world.nowMs });
      });
      await lease.run(signal);
      self.result = "released";
      await lease.release();
      end("released");
    };
    life().catch((error: unknown) => {
      if (error instanceof SetupError) end(self.result === "leading" ? "lost" : "refused");
      else if (signal.aborted || error instanceof LogUnavailableError) end("released");
      else mistakes.push(String(error));
    });
    return self;
  }

  /** Nobody takes over from a process that lived, was awake and could reach the topic all the time. */
  function judge(holder: Process, taker: Process): void {
    const excusedMs = LEASE_MS_MAX + 15_000;
    const lastTroubleMs = Math.max(holder.lastAsleepMs, topic.lastAwayMs);
    if (holder.machine.state !== "awake" || topic.isAway || world.nowMs - lastTroubleMs < excusedMs) return;
    if (faultRate === 0) mistakes.push(`${taker.session} passed over ${holder.session}, which lived`);
  }

  const chaosEndMs = world.elapsedMs + lastsMs;
  const isChaos = () => world.elapsedMs < chaosEndMs;
  const alive = () => processes.filter(({ machine }) => machine.state !== "dead");
  const actions = [
    () => {
      if (alive().length < 5) {
        const holder = `outbox-${world.pick(3)}`;
        // The outbox's lock: two processes of one outbox do not live at the same time.
        if (!alive().some((one) => one.holder === holder)) start(holder);
      }
    },
    () => {
      const one = alive()[world.pick(Math.max(1, alive().length))];
      if (one === undefined) return;
      one.result = "killed";
      one.isConfirmed = () => false;
      one.machine.kill();
    },
    () => {
      const one = alive()[world.pick(Math.max(1, alive().length))];
      if (one === undefined || one.machine.state !== "awake") return;
      one.machine.sleep();
      world.after(world.between(100, 45_000), () => {
        one.lastAsleepMs = world.nowMs;
        one.machine.wake();
      });
    },
    () => alive()[world.pick(Math.max(1, alive().length))]?.stop.abort(),
    () => {
      if (topic.isAway) return;
      topic.setAway(true);
      world.after(world.between(100, 40_000), () => topic.setAway(false));
    },
    () => {
      const old = topic.entries.findLast(({ atMs }) => atMs <= world.nowMs - compactAgeMs);
      if (old !== undefined) topic.compact(world.pick(old.offset + 2));
    },
  ];
  const stir = () => {
    if (!isChaos()) return;
    const weights = [0, 0, 0, 1, 2, 2, 3, 4, 5, 5];
    actions[weights[world.pick(weights.length)]!]!();
    world.after(world.between(10, 8_000), stir);
  };
  stir();
  world.run(lastsMs);

  // Calm: everybody wakes, the topic is there, and somebody new wants the feed.
  topic.faultRate = 0;
  world.run(60_000);
  const settled = alive().filter((one) => one.result === "leading");
  if (settled.length > 1) mistakes.push(`${settled.length} hold after the chaos`);
  const late = start("outbox-late");
  world.run(60_000);
  const leading = alive().filter((one) => one.isConfirmed());
  if (leading.length !== 1) mistakes.push(`${leading.length} are confirmed at the end`);
  // One that was still waiting may have been first.
  const isRight = late.result === "refused" || (settled.length === 0 && late.result === "leading");
  if (!isRight) mistakes.push(`beside ${settled.length} holders the last one is ${late.result}`);
  const turns = sends.map(({ session }) => session);
  const isTurned = new Set(turns).size !== turns.length;
  return { mistakes, isTurned, turnCount: turns.length, processes };
}

const SEEDS = 150;

test("by seed: two never send in turns, one that lives is not passed over, and one has the lease in the end", () => {
  const results = { held: 0, refused: 0, lost: 0, released: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { mistakes, isTurned, turnCount, processes } = live(seed, {
      compactAgeMs: 120_000,
      faultRate: seed % 2 === 0 ? 0.1 : 0,
      lastsMs: 300_000,
    });
    expect([seed, mistakes, isTurned]).toEqual([seed, [], false]);
    results.held += turnCount;
    results.refused += processes.filter(({ result }) => result === "refused").length;
    results.lost += processes.filter(({ result }) => result === "lost").length;
    results.released += processes.filter(({ result }) => result === "released").length;
  }
  // The histories are no idle ones.
  expect(results.held).toBeGreaterThan(SEEDS * 2);
  expect(results.refused).toBeGreaterThan(SEEDS);
  expect(results.lost).toBeGreaterThan(SEEDS / 10);
  expect(results.released).toBeGreaterThan(SEEDS);
}, 60_000);

test("by seed: compacted down to its last record at any moment, the topic heals: one has the lease in the end", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { mistakes } = live(seed, { compactAgeMs: 0, faultRate: 0.05, lastsMs: 300_000 });
    expect([seed, mistakes.filter((one) => !one.includes("passed over"))]).toEqual([seed, []]);
  }
}, 60_000);

function openWorld() {
  const world = new World(1, NOON_MS);
  const topic = new VirtualTopic(world, 0);
  const memories = new Map<string, LeaseJournal>();
  const begin = (session: string, fields: Partial<LeaseFields> = {}, clock: Partial<Clock> = {}) => {
    const machine = world.machine();
    const { holder, host, pid } = fieldsOf(session, fields);
    const journal = memories.get(holder) ?? journalOf(holder);
    memories.set(holder, journal);
    const stop = new AbortController();
    const outcome: { lease?: Awaited<ReturnType<typeof acquireLease>>; error?: unknown; tookMs?: number } =
      {};
    const atMs = world.nowMs;
    acquireLease({
      topic: topic.connect(machine),
      self: { session, host, pid },
      journal,
      clock: { ...machine.clock, ...clock },
      logger: silentLogger,
      signal: stop.signal,
    }).then(
      async (lease) => {
        outcome.tookMs = world.nowMs - atMs;
        outcome.lease = lease;
        await lease.run(stop.signal).catch((error: unknown) => {
          outcome.error = error;
        });
      },
      (error: unknown) => {
        outcome.tookMs = world.nowMs - atMs;
        outcome.error = error;
      },
    );
    return { machine, outcome, stop };
  };
  return { world, topic, begin };
}

test("a second producer is refused within seconds, and told who holds the feed, where and since when", () => {
  const { world, begin } = openWorld();
  const first = begin("a", { host: "first-host", pid: 123 });
  world.run(10_000);
  expect(first.outcome.lease?.isConfirmed()).toBe(true);
  const second = begin("b");
  world.run(20_000);
  expect(second.outcome.tookMs).toBeLessThan(HEARTBEAT_EVERY_MS + 3_000);
  expect(second.outcome.error).toBeInstanceOf(SetupError);
  expect(String(second.outcome.error)).toMatch(
    /another producer holds the feed: process 123 on first-host, since 2026-01-05T12:00:/,
  );
  expect(first.outcome.lease?.isConfirmed()).toBe(true);
});

test("after a release, and after the death of the same outbox, nobody waits; after another's death 15 s", () => {
  const { world, begin } = openWorld();
  const first = begin("a");
  world.run(5_000);
  first.stop.abort();
  void first.outcome.lease?.release();
  world.run(1_000);
  const second = begin("b");
  world.run(5_000);
  expect(second.outcome.tookMs).toBeLessThan(2_000);
  second.machine.kill();
  const restarted = begin("c", { holder: "outbox-b" });
  world.run(5_000);
  expect(restarted.outcome.tookMs).toBeLessThan(2_000);
  restarted.machine.kill();
  const stranger = begin("d");
  world.run(30_000);
  expect(stranger.outcome.lease?.isConfirmed()).toBe(true);
  expect(stranger.outcome.tookMs).toBeGreaterThan(LEASE_MS_MAX);
  expect(stranger.outcome.tookMs).toBeLessThan(LEASE_MS_MAX + 5_000);
});

test("a producer that was paused sends nothing when it wakes, and ends with a sentence", () => {
  const { world, begin } = openWorld();
  const paused = begin("a");
  world.run(5_000);
  paused.machine.sleep();
  const next = begin("b");
  world.run(30_000);
  expect(next.outcome.lease?.isConfirmed()).toBe(true);
  paused.machine.wake();
  expect(paused.outcome.lease?.isConfirmed()).toBe(false);
  world.run(2_000);
  expect(paused.outcome.error).toBeInstanceOf(SetupError);
  expect(String(paused.outcome.error)).toContain("another producer has taken over the feed");
  expect(next.outcome.lease?.isConfirmed()).toBe(true);
});

test("a machine that was suspended, whose monotonic clock stood still, is not confirmed when it wakes", () => {
  const { world, begin } = openWorld();
  let wallMs = NOON_MS;
  const { outcome } = begin("a", {}, { now: () => wallMs });
  world.run(1_000);
  expect(outcome.lease?.isConfirmed()).toBe(true);
  wallMs += CONFIRMED_MS_MAX;
  expect(outcome.lease?.isConfirmed()).toBe(false);
  world.run(HEARTBEAT_EVERY_MS + 2_000);
  expect(outcome.lease?.isConfirmed()).toBe(true);
});

test("while the brokers are away nothing is confirmed and nobody is taken for dead; then all goes on as before", () => {
  const { world, topic, begin } = openWorld();
  const first = begin("a");
  world.run(5_000);
  topic.setAway(true);
  world.run(CONFIRMED_MS_MAX);
  expect(first.outcome.lease?.isConfirmed()).toBe(false);
  const second = begin("b");
  world.run(120_000);
  expect(second.outcome).toEqual({});
  topic.setAway(false);
  world.run(20_000);
  expect(first.outcome.lease?.isConfirmed()).toBe(true);
  expect(second.outcome.error).toBeInstanceOf(SetupError);
});

// --- By the call -----------------------------------------------------------------------------------------------

/** A topic that does what the test says: what is put comes back when the test lets it. */
function openScript(
  held: LeaseRecord | null,
  readToEnd: (number: number, world: World) => Promise<void>,
  beforeClaim: (readBack: (record: LeaseRecord) => void) => void = () => {},
  /** Sessions of this outbox. */
  own: readonly string[] = [],
) {
  const world = new World(1, NOON_MS);
  const machine = world.machine();
  const calls: string[] = [];
  const written: LeaseRecord[] = [];
  let offset = 4;
  let state = held === null ? null : applyLeaseRecord(null, offset++, held);
  const listeners = new Set<(record: LeaseRecord, now: LeaseState | null) => void>();
  const readBack = (record: LeaseRecord) => {
    state = applyLeaseRecord(state, offset++, record);
    for (const listener of listeners) listener(record, state);
  };
  const topic: LeaseTopic = {
    async put(value) {
      const record = parseLeaseRecord(value)!;
      calls.push(record.type);
      written.push(record);
      if (record.type !== "claim") return;
      beforeClaim(readBack);
      readBack(record);
    },
    readToEnd() {
      calls.push("look");
      return readToEnd(calls.filter((one) => one === "look").length, world);
    },
    state: () => state,
    onRecord(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const outcome: { lease?: Lease } = {};
  const { holder, session, host, pid } = fieldsOf("b");
  const self = { session, host, pid };
  const heard = { confirmations: 0 };
  const journal = { ...journalOf(holder), confirm: () => void heard.confirmations++ };
  for (const one of own) journal.claim(one);
  const { signal } = new AbortController();
  acquireLease({ topic, self, journal, clock: machine.clock, logger: silentLogger, signal }).then((lease) => {
    outcome.lease = lease;
    void lease.run(signal);
  });
  return { world, calls, written, readBack, outcome, heard };
}

test("one poll counts for 2 s of silence at most: brokers that hang prove nobody dead", () => {
  const slow = (_: number, world: World) => new Promise<void>((resolve) => void world.after(20_000, resolve));
  const { world, calls } = openScript(alive("a", 4), slow);
  world.run(20_000 + 7 * 21_000 + 500);
  expect(calls).not.toContain("claim");
  world.run(2 * 21_000);
  expect(calls.indexOf("claim")).toBe(9);
});

test("after a poll that fails the silence starts again", () => {
  const fail = () => Promise.reject(new LogUnavailableError("a test's topic is away"));
  const { world, calls } = openScript(alive("a", 4), (number) =>
    number === 12 ? fail() : Promise.resolve(),
  );
  world.run(12_000 + LEASE_MS_MAX - 1_500);
  expect(calls).not.toContain("claim");
  world.run(2_000);
  expect(calls).toContain("claim");
});

test("a heartbeat counts from when it was sent, however late it is read back", () => {
  const { world, calls, written, readBack, outcome } = openScript(null, () => Promise.resolve());
  world.run(100);
  expect(calls).toEqual(["look", "claim", "look", "alive"]);
  world.run(9_000);
  readBack(written[1]!);
  expect(outcome.lease?.isConfirmed()).toBe(true);
  world.run(1_500);
  expect(outcome.lease?.isConfirmed()).toBe(false);
  expect(calls.slice(4)).toEqual(["alive", "alive", "alive"]);
  world.run(HEARTBEAT_EVERY_MS);
  expect(calls.slice(7)).toEqual(["alive"]);
  readBack(written.at(-1)!);
  expect(outcome.lease?.isConfirmed()).toBe(true);
});

test("a claim that lost to the last heartbeat of a dead process of the same outbox is made again", () => {
  const dead = { ...alive("a", 4), holder: "outbox-b" };
  const inFlight = [dead];
  const { world, calls, outcome } = openScript(
    dead,
    () => Promise.resolve(),
    (readBack) => inFlight.splice(0).forEach(readBack),
    ["a"],
  );
  world.run(1_000);
  expect(calls).toEqual(["look", "claim", "look", "claim", "look", "alive"]);
  expect(outcome.lease?.isConfirmed()).toBe(true);
});

test("one heartbeat may have been in flight when its process died; two are proof", () => {
  const { world, calls, readBack } = openScript(alive("a", 4), () => Promise.resolve());
  world.run(3_000);
  readBack(alive("a", 4));
  world.run(LEASE_MS_MAX - 1_000);
  expect(calls).not.toContain("claim");
  world.run(3_000);
  expect(calls).toContain("claim");
});

test("only a heartbeat that is read back while it is fresh confirms what was received", () => {
  const { world, written, readBack, heard } = openScript(null, () => Promise.resolve());
  world.run(100);
  expect(heard.confirmations).toBe(1);
  readBack(written[1]!);
  expect(heard.confirmations).toBe(2);
  world.run(4_000);
  const stale = written.at(-1)!;
  world.run(CONFIRMED_MS_MAX);
  readBack(stale);
  expect(heard.confirmations).toBe(2);
  readBack(written.at(-1)!);
  expect(heard.confirmations).toBe(3);
});
