// The life of a producer on its topic, state by state in virtual time: the lease is lib's over a topic of the
// simulation; the feed, the relay and the outbox do what a test says, and when.

import { expect, test } from "bun:test";
import { LogUnavailableError, RestartError, SetupError } from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { retry } from "../../../lib/base/retry.ts";
import { encodeLeaseRecord } from "../../../lib/contracts/lease.ts";
import {
  Leadership,
  type LeadershipEvent,
  type LeadershipState,
  nextState,
  RELEASE_MS_MAX,
} from "../../../lib/ingest/leadership.ts";
import { LEASE_MS_MAX, LeaseLostError } from "../../../lib/ingest/lease.ts";
import { connectControl, journalOf, untilAborted, VirtualTopic } from "../../simulation/fake-topic.ts";
import { World } from "../../simulation/world.ts";
import { NOON_MS } from "../../support/builders.ts";

// --- The table -------------------------------------------------------------------------------------------------

test("each event leads to one state, or cannot happen", () => {
  const events: LeadershipEvent[] = ["acquired", "feed ended", "drained", "stopped", "lease lost", "failed"];
  const rows: [LeadershipState, (LeadershipState | null)[]][] = [
    ["starting", ["leading", "draining", null, "stopping", "stepping down", "failed"]],
    ["leading", [null, "draining", null, "stopping", "stepping down", "failed"]],
    ["draining", [null, null, "released", "stopping", "stepping down", "failed"]],
    ["stopping", [null, null, "released", null, null, "failed"]],
    ["stepping down", [null, null, null, null, null, null]],
    ["released", [null, null, null, null, null, null]],
    ["failed", [null, null, null, null, null, null]],
  ];
  for (const [state, expected] of rows)
    expect([state, ...events.map((event) => nextState(state, event))]).toEqual([state, ...expected]);
});

// --- The states ------------------------------------------------------------------------------------------------

type Options = Readonly<{
  /** The outbox had the lease last, and its records of then were not released. */
  isOwn?: boolean;
  isAway?: boolean;
  /** Before the sender knows its topics. */
  ready?: () => Promise<void>;
  /** How long the feed and the relay go on after they were told to end. */
  feedMs?: number;
  drainMs?: number;
}>;

/** One producer; what it did, in order, is `did`. */
class LeadershipHarness {
  readonly world = new World(1, NOON_MS);
  readonly topic = new VirtualTopic(this.world, 0);
  readonly machine = this.world.machine();
  readonly stop = new AbortController();
  readonly did: string[] = [];
  readonly warnings: string[] = [];
  readonly remembered: (readonly string[])[] = [];
  readonly leadership: Leadership;
  /** Records that wait in the outbox. */
  waiting = 0;
  isHanging = false;
  isFileWritable = true;
  outcome: "running" | "ended" | Error = "running";
  readonly #feedMs: number;
  failRelay = (_error: Error) => {};
  failFeed = (_error: Error) => {};
  failTopic = (_error: Error) => {};
  failSync = (_error: Error) => {};

  constructor({
    isOwn = false,
    isAway = false,
    ready = async () => {},
    feedMs = 0,
    drainMs = 0,
  }: Options = {}) {
    this.#feedMs = feedMs;
    const { world, topic, machine, stop, did } = this;
    const { clock } = machine;
    const { signal } = stop;
    topic.isAway = isAway;
    const journal = journalOf("outbox");
    const lease = topic.connect(machine);
    const { put } = lease;
    lease.put = (value) => (this.isHanging ? new Promise(() => {}) : put(value));
    const control = connectControl(topic, machine, lease);
    this.leadership = new Leadership({
      log: {
        lease: {
          ...journal,
          isOwn,
          unconfirmedFrom: null,
          unconfirmedSinceMs: () => null,
          symbols: isOwn ? ["REMEMBERED"] : null,
          guard: () => did.push("guard"),
          keepSymbols: (symbols) => {
            if (!this.isFileWritable) throw new LogUnavailableError("a test's file is read-only");
            this.remembered.push(symbols);
          },
          quarantineUnconfirmed: async () => {
            did.push("quarantine");
            return 7;
          },
          release: () => void did.push("release"),
        },
        health: () => ({ recordCount: this.waiting }) as never,
      },
      relay: {
        run: (relayStop) =>
          new Promise((resolve, reject) => {
            this.failRelay = reject;
            void untilAborted(relayStop).then(() =>
              machine.after(drainMs, () => {
                did.push("relay ended");
                resolve();
              }),
            );
          }),
      },
      control: {
        ...control,
        run: (topicStop) =>
          new Promise((resolve, reject) => {
            this.failTopic = reject;
            void untilAborted(topicStop).then(() => {
              did.push("topic ended");
              resolve();
            });
          }),
      },
      ready,
      self: { host: "host", pid: 1 },
      setting: ["AAPL", "MSFT"],
      waitFor: (what, work) => {
        did.push(`wait for ${what}`);
        return retry({ clock, firstMs: 100, maxMs: 2_000, signal }, work);
      },
      clock,
      logger: { ...silentLogger, warn: (message) => this.warnings.push(message) },
      signal,
    });
    void this.#live();
    world.run(0);
  }

  async #live(): Promise<void> {
    const { leadership } = this;
    try {
      await using _ = leadership;
      await leadership.mayOpenFeed();
      this.did.push(`feed of ${leadership.firstSymbols}`);
      const { feedSignal } = leadership;
      await leadership.run({
        ingest: {
          run: () =>
            new Promise((resolve, reject) => {
              this.failFeed = reject;
              void untilAborted(feedSignal).then(async () => {
                if (this.#feedMs > 0) await this.machine.clock.sleep(this.#feedMs);
                this.did.push("feed ended");
                resolve();
              });
            }),
        },
        watchlistSync: {
          run: (signal) =>
            new Promise((resolve, reject) => {
              this.failSync = reject;
              void untilAborted(signal).then(resolve);
            }),
        },
      });
      this.outcome = "ended";
    } catch (error) {
      this.outcome = error as Error;
    }
  }

  /** Another producer shows life in a later term. */
  loseLease(): void {
    const other = { holder: "other", session: "other", host: "elsewhere", pid: 2, sinceMs: 0, atMs: 0 };
    this.topic.append(encodeLeaseRecord({ ...other, type: "alive", term: 1_000, number: 1 }));
  }

  /** What was done since the last call, without the guard and the waits. */
  doneSince(): string[] {
    return this.did.splice(0).filter((word) => word !== "guard" && !word.startsWith("wait for "));
  }
}

const LEAD_MS = 10_000;

function openLeading(options: Options = {}): LeadershipHarness {
  const one = new LeadershipHarness(options);
  one.world.run(LEAD_MS);
  expect(one.leadership.state).toBe("leading");
  expect(one.leadership.isConfirmed()).toBe(true);
  return one;
}

test("a first start waits for Kafka, its topic and the lease, and then opens the feed of its setting", () => {
  const one = new LeadershipHarness();
  expect([one.leadership.state, one.leadership.isConfirmed()]).toEqual(["starting", false]);
  expect(one.did).toEqual(["guard", "wait for Kafka", "wait for the tickers' topic"]);
  one.world.run(LEAD_MS);
  expect(one.leadership.state).toBe("leading");
  expect(one.did.slice(3)).toEqual([
    "wait for the lease on the feed",
    "wait for the tickers' topic",
    "feed of AAPL,MSFT",
  ]);
  expect(one.topic.watchlist.get("AAPL")).toMatchObject({ wanted: true, by: "setting" });
  expect(one.outcome).toBe("running");
});

test("with an own earlier lease the feed opens at once, of the watchlist of then, although Kafka is away", () => {
  const one = new LeadershipHarness({ isOwn: true, isAway: true });
  expect(one.doneSince()).toEqual(["feed of REMEMBERED"]);
  one.world.run(60_000);
  expect([one.leadership.state, one.leadership.isConfirmed(), one.outcome]).toEqual([
    "starting",
    false,
    "running",
  ]);
  one.topic.setAway(false);
  one.world.run(LEAD_MS);
  expect([one.leadership.state, one.leadership.isConfirmed()]).toEqual(["leading", true]);
  expect(one.remembered).toEqual([["AAPL", "MSFT"]]);
});

test("a stop ends the feed, then the relay, then the heartbeats; the lease is released, then the topic is left", () => {
  const one = openLeading({ drainMs: 4_000 });
  one.doneSince();
  one.stop.abort();
  one.world.run(3_900);
  expect(one.leadership.state).toBe("draining");
  expect(one.doneSince()).toEqual(["feed ended"]);
  expect(one.leadership.isConfirmed()).toBe(true);
  one.world.run(2_000);
  expect([one.leadership.state, one.outcome]).toEqual(["released", "ended"]);
  expect(one.doneSince()).toEqual(["relay ended", "release", "topic ended"]);
  expect(one.leadership.isConfirmed()).toBe(false);
});

test("a stop before the lease sends what was received and releases nothing", () => {
  const one = new LeadershipHarness({ isOwn: true, isAway: true, drainMs: 4_000 });
  one.world.run(5_000);
  one.doneSince();
  one.stop.abort();
  one.world.run(3_900);
  expect(one.leadership.state).toBe("stopping");
  expect(one.doneSince()).toEqual(["feed ended"]);
  one.world.run(200);
  expect([one.leadership.state, one.outcome]).toEqual(["released", "ended"]);
  expect(one.doneSince()).toEqual(["relay ended", "topic ended"]);
});

test("a stop before the feed may open rejects with its reason, and the disposal ends the relay", () => {
  const one = new LeadershipHarness({ isAway: true });
  one.world.run(5_000);
  one.stop.abort();
  one.world.run(100);
  expect(one.outcome).toBe(one.stop.signal.reason);
  expect(one.doneSince()).toEqual(["topic ended", "relay ended"]);
});

test("a stop in the middle of the seeding releases the lease that is there", () => {
  const one = new LeadershipHarness({ isOwn: true });
  while (!one.leadership.isConfirmed()) one.world.run(10);
  expect(one.leadership.state).toBe("starting");
  one.doneSince();
  one.stop.abort();
  one.world.run(1_000);
  expect([one.leadership.state, one.outcome]).toEqual(["released", "ended"]);
  expect(one.doneSince()).toEqual(["feed ended", "relay ended", "release", "topic ended"]);
});

test("a lease that is lost ends the feed; the confirmed records are sent before the relay ends", () => {
  const one = openLeading();
  one.waiting = 3;
  one.doneSince();
  one.loseLease();
  one.world.run(15_000);
  expect(one.leadership.state).toBe("stepping down");
  expect(one.doneSince()).toEqual(["feed ended", "quarantine"]);
  expect(one.outcome).toBe("running");
  one.waiting = 0;
  one.world.run(100);
  expect(one.doneSince()).toEqual(["relay ended", "topic ended"]);
  expect(one.outcome).toBeInstanceOf(LeaseLostError);
  expect((one.outcome as unknown as Error).message).toMatch(
    /^another producer has taken over the feed: process 2 on elsewhere, .*; 7 messages that it may have received too are quarantined$/,
  );
});

test("who steps down waits 20 s for the relay, and says what is left", () => {
  const one = openLeading();
  one.waiting = 3;
  one.loseLease();
  one.world.run(19_500);
  expect(one.outcome).toBe("running");
  one.world.run(1_500);
  expect(String(one.outcome)).toEndWith("; 3 earlier ones wait for the next start");
});

test("a lease that is lost while the rest is sent quarantines too, and is not released", () => {
  const one = openLeading({ drainMs: 5_000 });
  one.doneSince();
  one.stop.abort();
  one.world.run(1_000);
  expect(one.leadership.state).toBe("draining");
  one.loseLease();
  one.world.run(6_000);
  expect(one.leadership.state).toBe("stepping down");
  expect(one.doneSince()).toEqual(["feed ended", "quarantine", "relay ended", "topic ended"]);
  expect(one.outcome).toBeInstanceOf(LeaseLostError);
});

test("a start while another producer lives steps down before any feed", () => {
  const one = new LeadershipHarness();
  const other = one.world.machine();
  one.loseLease();
  const beat = () => one.loseLease();
  other.every(3_000, beat);
  one.world.run(LEASE_MS_MAX);
  expect(one.doneSince()).toEqual(["quarantine", "relay ended", "topic ended"]);
  expect(String(one.outcome)).toContain("another producer holds the feed: process 2 on elsewhere");
});

test("a feed of an own earlier lease ends when another producer has it by now", () => {
  const one = new LeadershipHarness({ isOwn: true });
  const other = one.world.machine();
  one.loseLease();
  other.every(3_000, () => one.loseLease());
  one.world.run(LEASE_MS_MAX);
  expect(one.leadership.state).toBe("stepping down");
  expect(one.doneSince()).toEqual([
    "feed of REMEMBERED",
    "feed ended",
    "quarantine",
    "relay ended",
    "topic ended",
  ]);
  expect(one.outcome).toBeInstanceOf(LeaseLostError);
});

test("a release that hangs is not waited for longer than RELEASE_MS_MAX", () => {
  const one = openLeading();
  one.doneSince();
  // A heartbeat that hangs and a release that hangs: once for each.
  one.isHanging = true;
  one.world.run(4_000);
  one.stop.abort();
  one.world.run(RELEASE_MS_MAX - 100);
  expect([one.leadership.state, one.doneSince()]).toEqual(["draining", ["feed ended", "relay ended"]]);
  one.world.run(200);
  expect([one.leadership.state, one.doneSince()]).toEqual(["released", ["release"]]);
  expect(one.outcome).toBe("running");
  one.world.run(RELEASE_MS_MAX);
  expect([one.outcome, one.doneSince()]).toEqual(["ended", ["topic ended"]]);
});

test("a release that Kafka does not take is said, and the process ends in good order", () => {
  const one = openLeading();
  one.topic.setAway(true);
  one.world.run(2_000);
  one.stop.abort();
  one.world.run(2 * RELEASE_MS_MAX);
  expect(one.outcome).toBe("ended");
  expect(one.warnings).toContain(
    "the lease on the feed could not be released: another producer will wait for it",
  );
});

test("a feed that fails ends the process with its error; the lease is not released", () => {
  const one = openLeading();
  one.doneSince();
  one.failFeed(new Error("a test's feed is broken"));
  one.world.run(100);
  expect([one.leadership.state, String(one.outcome)]).toEqual(["failed", "Error: a test's feed is broken"]);
  expect(one.doneSince()).toEqual(["feed ended", "topic ended", "relay ended"]);
});

test("a feed that fails during a stop before the lease ends the process with its error", () => {
  const one = new LeadershipHarness({ isOwn: true, isAway: true, feedMs: 1_000 });
  one.world.run(5_000);
  one.stop.abort();
  one.world.run(100);
  expect(one.leadership.state).toBe("stopping");
  one.failFeed(new Error("a test's feed is broken"));
  one.world.run(1_000);
  expect([one.leadership.state, String(one.outcome)]).toEqual(["failed", "Error: a test's feed is broken"]);
});

test("a sync or a control topic that fails ends the feed, and then the process", () => {
  for (const fail of ["failSync", "failTopic"] as const) {
    const one = openLeading();
    one.doneSince();
    one[fail](new SetupError("a test's topic is gone"));
    one.world.run(100);
    expect([one.leadership.state, String(one.outcome)]).toEqual([
      "failed",
      "SetupError: a test's topic is gone",
    ]);
    expect(one.doneSince()).toContain("feed ended");
  }
});

test("a relay or a topic that fails before the lease ends the wait for Kafka at once", () => {
  for (const fail of ["failRelay", "failTopic"] as const) {
    for (const isOwn of [false, true]) {
      const one = new LeadershipHarness({ isOwn, ready: () => new Promise(() => {}) });
      one.world.run(5_000);
      one[fail](new SetupError("a test's topic is missing"));
      one.world.run(100);
      expect([fail, isOwn, one.leadership.state]).toEqual([fail, isOwn, "failed"]);
      expect(String(one.outcome)).toBe("SetupError: a test's topic is missing");
    }
  }
});

test("a relay that fails while the producer leads ends the process at once: nothing would send what is received", () => {
  const one = openLeading();
  one.failRelay(new RestartError("a test's partition is gone"));
  one.world.run(100);
  expect([one.leadership.state, String(one.outcome)]).toEqual([
    "failed",
    "RestartError: a test's partition is gone",
  ]);
});

test("each change of the watchlist is kept for a start without Kafka; a file that cannot be written is said", () => {
  const one = openLeading();
  one.doneSince();
  const put = (symbol: string) => {
    one.topic.watchlist.set(symbol, { symbol, wanted: true, changedAtMs: NOON_MS, by: "operator" });
    for (const listener of one.topic.watchlistListeners) listener();
  };
  put("NEW");
  expect(one.remembered).toEqual([
    ["AAPL", "MSFT"],
    ["AAPL", "MSFT", "NEW"],
  ]);
  one.isFileWritable = false;
  put("NEWER");
  expect(one.warnings).toEqual(["the watchlist could not be saved for a start without Kafka"]);
  expect(one.outcome).toBe("running");
});
