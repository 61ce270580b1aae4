// The lease and the outbox together, in virtual time on real files: producers on directories of their own, copied ones
// too, start, sleep, die and stop while the topic is slow and away. No trade may reach the log under two identities,
// and none is lost that only this producer can have received. Then what is quarantined, moment by moment.

import { Database } from "bun:sqlite";
import { afterAll, expect, test } from "bun:test";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LogUnavailableError } from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { retry } from "../../../lib/base/retry.ts";
import type { PartitionSender, SendOutcome } from "../../../lib/contracts/log.ts";
import { Leadership } from "../../../lib/ingest/leadership.ts";
import { LEASE_MS_MAX, LeaseLostError } from "../../../lib/ingest/lease.ts";
import { createRelay } from "../../../lib/ingest/relay.ts";
import { openSqliteLog, type SqliteLog } from "../../../lib/outbox/log.ts";
import { PAGE_BYTES } from "../../../lib/outbox/recovery/wal.ts";
import { connectControl, untilAborted, VirtualTopic } from "../../simulation/fake-topic.ts";
import { type Machine, World } from "../../simulation/world.ts";
import { NOON_MS } from "../../support/builders.ts";

const SHARED_MEMORY = "/dev/shm";
const root = mkdtempSync(join(existsSync(SHARED_MEMORY) ? SHARED_MEMORY : tmpdir(), "lease-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let directoryCount = 0;
const newDirectory = () => join(root, String(directoryCount++));

const metrics = createMetrics();
const BYTES_MAX = 1e8;

function openLog(directory: string, machine: Machine, bytesMax = BYTES_MAX): SqliteLog {
  const { clock } = machine;
  return openSqliteLog({ directory, topic: "market", sync: "normal", bytesMax, clock, metrics });
}

type Process = {
  machine: Machine;
  directory: string;
  log: SqliteLog;
  leadership: Leadership;
  isFeedOpen: boolean;
  result: "living" | "killed" | "refused" | "stopped";
  stop: AbortController;
  end: Error | null;
};

/** A trade: its number, and who received it. */
type Receipt = Readonly<{ trade: number; identity: string; isConfirmed: boolean; directory: string }>;

class LeaseHarness {
  readonly world: World;
  readonly topic: VirtualTopic;
  readonly processes: Process[] = [];
  readonly receipts: Receipt[] = [];
  /** Identities in the log, by trade. */
  readonly arrived = new Map<number, Set<string>>();
  readonly mistakes: string[] = [];
  /** The trades' topic alone. */
  isUnwritable = false;
  #tradeCount = 0;

  constructor(seed: number, faultRate: number) {
    this.world = new World(seed, NOON_MS);
    this.topic = new VirtualTopic(this.world, faultRate);
  }

  alive(): Process[] {
    return this.processes.filter(({ result }) => result === "living");
  }

  /** lib's leadership over a real outbox; the feed is this stage's. */
  start(directory: string): Process {
    const machine = this.world.machine();
    const log = openLog(directory, machine);
    const { clock } = machine;
    const stop = new AbortController();
    const { signal } = stop;
    const number = this.processes.length;
    const sender = this.#sender(machine);
    const logger = silentLogger;
    const { run } = createRelay({ outbox: log.openOutbox(), sender, clock, logger, metrics });
    const relay = {
      run: (relayStop: AbortSignal) => {
        const relaying = run(relayStop);
        relaying.catch((error: unknown) => self.result === "living" && this.mistakes.push(String(error)));
        return relaying;
      },
    };
    const control = connectControl(this.topic, machine);
    const { ready } = sender;
    const leadership = new Leadership({
      log,
      relay,
      control,
      ready,
      self: { host: "host", pid: number },
      setting: ["S"],
      waitFor: (_, work) => retry({ clock, firstMs: 100, maxMs: 2_000, signal }, work),
      clock,
      logger,
      signal,
    });
    const self: Process = {
      machine,
      directory,
      log,
      leadership,
      isFeedOpen: false,
      result: "living",
      stop,
      end: null,
    };
    this.processes.push(self);
    const receive = async () => {
      self.isFeedOpen = true;
      await untilAborted(leadership.feedSignal);
      self.isFeedOpen = false;
    };
    const live = async () => {
      await using _ = leadership;
      await leadership.mayOpenFeed();
      await leadership.run({ ingest: { run: receive }, watchlistSync: { run: untilAborted } });
    };
    live()
      .then(() => this.#end(self, "stopped"))
      .catch((error: unknown) => {
        if (error instanceof LeaseLostError) {
          self.end = error;
          this.#end(self, "refused");
        } else if (error === signal.reason || error instanceof LogUnavailableError) {
          this.#end(self, "stopped");
        } else if (self.result === "living") this.mistakes.push(String(error));
      });
    return self;
  }

  /** Started, with all that needs no time done. */
  startNow(directory: string): Process {
    const process = this.start(directory);
    this.world.run(0);
    return process;
  }

  #end(process: Process, result: Process["result"]): void {
    if (process.result !== "living") return;
    process.result = result;
    process.isFeedOpen = false;
    process.machine.kill();
    process.log[Symbol.dispose]();
  }

  kill(process: Process): void {
    this.#end(process, "killed");
  }

  #sender(machine: Machine): PartitionSender {
    const { world, topic } = this;
    return {
      partitionOf: () => "market/0",
      async ready() {
        if (topic.isAway) throw new LogUnavailableError("away");
      },
      send: (batches) =>
        new Promise<SendOutcome[]>((resolve) => {
          const lost = { kind: "unavailable", error: new Error("away") } as const;
          world.after(world.between(1, 100), () => {
            if (topic.isAway || this.isUnwritable)
              return machine.after(1_000, () => resolve(batches.map(() => lost)));
            for (const { value } of batches.flatMap(({ entries }) => entries)) this.#arrive(value);
            const isHeard = !world.chance(topic.faultRate);
            return machine.after(world.between(1, 100), () =>
              resolve(batches.map(() => (isHeard ? { kind: "acknowledged" } : lost))),
            );
          });
        }),
    };
  }

  #arrive(value: Uint8Array): void {
    const word = Buffer.from(value).toString();
    if (!/^t\d+ /.test(word)) return; // An event.
    const trade = Number(word.slice(1, word.indexOf(" ")));
    this.arrived.set(trade, (this.arrived.get(trade) ?? new Set()).add(word));
  }

  /** One trade happens: whoever has a connection will receive it, a sleeping one when it wakes. */
  trade(): void {
    const trade = ++this.#tradeCount;
    for (const process of this.alive()) {
      if (!process.isFeedOpen) continue;
      process.machine.after(this.world.between(0, 20), () => {
        if (process.result !== "living" || !process.isFeedOpen) return;
        const identity = `t${trade} p${this.processes.indexOf(process)}`;
        const { directory, leadership, log } = process;
        const isConfirmed = leadership.isConfirmed();
        this.receipts.push({ trade, identity, isConfirmed, directory });
        void log.append([{ kind: "trades", key: "S", value: Buffer.from(identity) }]);
      });
    }
  }

  /** Trades come for so long. */
  play(lastsMs: number, everyMs = 400): void {
    const untilMs = this.world.elapsedMs + lastsMs;
    while (this.world.elapsedMs < untilMs) {
      this.trade();
      this.world.run(everyMs);
    }
  }

  doubled(): string[] {
    return [...this.arrived.values()].filter(({ size }) => size > 1).map((words) => [...words].join(" and "));
  }

  hasArrived({ trade, identity }: Receipt): boolean {
    return this.arrived.get(trade)?.has(identity) ?? false;
  }
}

function live(seed: number, directories: number, faultRate: number): LeaseHarness {
  const stage = new LeaseHarness(seed, faultRate);
  const { world, topic } = stage;
  const homes = Array.from({ length: directories }, newDirectory);
  const anyOne = () => stage.alive()[world.pick(Math.max(1, stage.alive().length))];
  const isTaken = (directory: string) => stage.alive().some((one) => one.directory === directory);
  const start = () => {
    const home = homes[world.pick(homes.length)]!;
    if (!isTaken(home)) stage.start(home);
  };
  const actions: (() => void)[] = [
    start,
    start,
    start,
    () => {
      const one = anyOne();
      if (one === undefined) return;
      stage.kill(one);
      if (world.chance(0.7))
        world.after(world.between(10, 2_000), () => isTaken(one.directory) || stage.start(one.directory));
    },
    () => {
      const one = anyOne();
      if (one?.machine.state !== "awake") return;
      one.machine.sleep();
      world.after(world.between(100, 45_000), () => one.machine.wake());
    },
    () => world.chance(0.3) && anyOne()?.stop.abort(),
    () => {
      if (topic.isAway) return;
      topic.setAway(true);
      world.after(world.between(100, 60_000), () => topic.setAway(false));
    },
    () => {
      if (directories === 1 || homes.length > directories + 2 || world.chance(0.7)) return;
      const copy = newDirectory();
      const from = homes[world.pick(homes.length)]!;
      if (existsSync(from)) cpSync(from, copy, { recursive: true });
      homes.push(copy);
    },
  ];
  let isChaos = true;
  const stir = () => {
    if (!isChaos) return;
    actions[world.pick(actions.length)]!();
    world.after(world.between(10, 8_000), stir);
  };
  start();
  stir();
  stage.play(300_000);

  // Calm. Every directory is started once more, so that what is left in it can go.
  isChaos = false;
  topic.faultRate = 0;
  world.run(120_000);
  for (const home of homes) {
    for (const one of stage.alive()) one.stop.abort();
    world.run(30_000);
    for (const one of stage.alive()) stage.kill(one);
    stage.start(home);
    world.run(60_000);
  }
  for (const one of stage.alive()) {
    const { recordCount } = one.log.health();
    if (recordCount > 0) stage.mistakes.push(`${recordCount} records wait for ever`);
    stage.kill(one);
  }
  return stage;
}

const SEEDS = 25;

test("by seed: no trade reaches the log under two identities, and none is lost that one alone received", () => {
  let quarantinedCount = 0;
  let arrivedCount = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const stage = live(seed, 3, seed % 2 === 0 ? 0.1 : 0);
    const lost = stage.receipts.filter((receipt) => receipt.isConfirmed && !stage.hasArrived(receipt));
    expect([seed, stage.mistakes, stage.doubled(), lost]).toEqual([seed, [], [], []]);
    quarantinedCount += stage.receipts.filter((receipt) => !stage.hasArrived(receipt)).length;
    arrivedCount += stage.arrived.size;
  }
  expect(quarantinedCount).toBeGreaterThan(SEEDS);
  expect(arrivedCount).toBeGreaterThan(SEEDS * 200);
}, 120_000);

test("by seed: one producer alone, whatever happens to it and to Kafka, sends every trade that it received", () => {
  let unconfirmedCount = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const stage = live(seed, 1, seed % 2 === 0 ? 0.1 : 0);
    const lost = stage.receipts.filter((receipt) => !stage.hasArrived(receipt));
    expect([seed, stage.mistakes, stage.doubled(), lost]).toEqual([seed, [], [], []]);
    unconfirmedCount += stage.receipts.filter(({ isConfirmed }) => !isConfirmed).length;
  }
  expect(unconfirmedCount).toBeGreaterThan(SEEDS * 10);
}, 120_000);

/** A calm world, in which the first producer has the feed. */
function openStage() {
  const stage = new LeaseHarness(1, 0);
  const home = newDirectory();
  const first = stage.start(home);
  stage.world.run(2_000);
  expect(first.leadership.isConfirmed()).toBe(true);
  return { stage, world: stage.world, topic: stage.topic, home, first };
}

const endOf = (stage: LeaseHarness) => {
  for (const one of stage.alive()) stage.kill(one);
  expect(stage.mistakes).toEqual([]);
};

test("a producer whose lease was taken over sends its confirmed backlog, and quarantines the rest", () => {
  const { stage, world, topic, home, first } = openStage();
  topic.setAway(true);
  stage.play(40_000);
  stage.kill(first);
  topic.setAway(false);
  const heir = stage.start(newDirectory());
  world.run(LEASE_MS_MAX + 10_000);
  expect(heir.leadership.isConfirmed()).toBe(true);
  stage.isUnwritable = true;
  const back = stage.startNow(home);
  expect(back.isFeedOpen).toBe(true);
  world.run(15_000);
  expect([back.isFeedOpen, back.result, stage.arrived.size]).toEqual([false, "living", 0]);
  stage.isUnwritable = false;
  world.run(5_000);
  expect(back.result).toBe("refused");
  expect(back.end?.message).toMatch(
    /^another producer holds the feed: .*; \d+ messages that it .* are quarantined$/,
  );
  const confirmedCount = stage.receipts.filter(({ isConfirmed }) => isConfirmed).length;
  expect(confirmedCount).toBeGreaterThan(10);
  expect(stage.receipts.filter((one) => stage.hasArrived(one)).length).toBe(confirmedCount);

  const log = openLog(home, world.machine());
  const quarantinedCount = stage.receipts.length - confirmedCount;
  expect(log.dead.count).toBe(quarantinedCount);
  expect(log.dead.list(1)[0]!.reason).toBe("another producer held the feed");
  expect(log.dead.requeue()).toBe(0);
  expect(log.lease).toMatchObject({ isOwn: false, unconfirmedFrom: null });
  expect(log.dead.dropUnconfirmed()).toBe(quarantinedCount);
  expect(log.dead.count).toBe(0);
  log[Symbol.dispose]();
  endOf(stage);
});

test("a start after a kill has its feed at once, also while the topic is away; nothing is lost or quarantined", () => {
  const { stage, world, topic, home, first } = openStage();
  stage.play(5_000);
  topic.setAway(true);
  stage.play(5_000);
  stage.kill(first);
  const second = stage.startNow(home);
  expect(second.isFeedOpen).toBe(true);
  stage.play(60_000);
  stage.kill(second);
  const third = stage.start(home);
  stage.play(5_000);
  expect(third.log.health().recordCount).toBeGreaterThan(150);
  topic.setAway(false);
  world.run(20_000);
  expect(third.log.lease.unconfirmedFrom).toBeNull();
  expect(third.log.health().recordCount).toBe(0);
  expect(stage.arrived.size).toBe(stage.receipts.length);
  expect(stage.doubled()).toEqual([]);
  endOf(stage);
});

test("after a release, and after another's lease, a start waits for the lease before its feed is opened", () => {
  const { stage, world, home, first } = openStage();
  first.stop.abort();
  world.run(2_000);
  expect(first.result).toBe("stopped");
  const second = stage.startNow(home);
  expect(second.isFeedOpen).toBe(false);
  world.run(2_000);
  expect(second.isFeedOpen).toBe(true);
  second.machine.sleep();
  const heir = stage.start(newDirectory());
  world.run(LEASE_MS_MAX + 10_000);
  expect(heir.leadership.isConfirmed()).toBe(true);
  second.machine.wake();
  world.run(3_000);
  expect(second.result).toBe("refused");
  expect(stage.startNow(home).isFeedOpen).toBe(false);
  endOf(stage);
});

test("a copied directory neither opens the feed nor takes the lease of one that lives, however often it starts", () => {
  const { stage, world, home, first } = openStage();
  const copy = newDirectory();
  cpSync(home, copy, { recursive: true });
  for (let round = 0; round < 3; round++) {
    const other = stage.startNow(copy);
    expect(other.isFeedOpen).toBe(false);
    world.run(10_000);
    expect(other.result).toBe("refused");
    expect(first.leadership.isConfirmed()).toBe(true);
  }
  stage.kill(first);
  const other = stage.start(copy);
  world.run(LEASE_MS_MAX + 10_000);
  expect(other.leadership.isConfirmed()).toBe(true);
  // The one it was copied from is not the last owner any more.
  const back = stage.start(home);
  world.run(10_000);
  expect(back.result).toBe("refused");
  expect(other.leadership.isConfirmed()).toBe(true);
  endOf(stage);
});

test("a claim that was written down and never sent takes nothing from the lease before it", () => {
  const { stage, world, topic, home, first } = openStage();
  topic.setAway(true);
  stage.play(20_000);
  stage.kill(first);
  const log = openLog(home, world.machine());
  log.lease.claim("never sent");
  log[Symbol.dispose]();
  topic.setAway(false);
  const second = stage.start(home);
  world.run(3_000);
  expect(second.leadership.isConfirmed()).toBe(true);
  world.run(3_000);
  expect(stage.arrived.size).toBe(stage.receipts.length);
  endOf(stage);
});

test("quarantined messages have a quarter of the outbox: the oldest are kept, and the event says how many", async () => {
  const world = new World(1, NOON_MS);
  const log = openLog(newDirectory(), world.machine(), 40_000);
  const outbox = log.openOutbox();
  log.lease.claim("a");
  log.lease.guard(() => false);
  const value = Buffer.alloc(1_000, 1);
  const entry = { kind: "trades", key: "S", value } as const;
  for (let count = 0; count < 20; count++) void log.append([entry]);
  // No other producer has an event of this one.
  void log.append([{ kind: "event", key: "S", value: Buffer.from("{}") }]);
  expect(outbox.read(0, 10)).toEqual([]);
  expect(outbox.endOffset).toBe(1);
  let quarantinedCount = 0;
  void log.lease.quarantineUnconfirmed().then((count) => {
    quarantinedCount = count;
  });
  world.run(100);
  expect(quarantinedCount).toBe(20);
  expect(log.dead.list(99).map(({ offset }) => offset)).toEqual(
    Array.from({ length: 10 }, (_, at) => at + 1),
  );
  const [own, event, ...more] = outbox.read(0, 10);
  expect([own?.offset, more]).toEqual([21, []]);
  const { type, detail } = JSON.parse(Buffer.from(event!.value).toString());
  const expected = { messageCount: 20, droppedCount: 10, fromMs: NOON_MS, toMs: NOON_MS };
  expect([type, JSON.parse(detail)]).toEqual(["trades_in_doubt", expected]);
  // Refused messages have the same quarter.
  expect(() => outbox.deadLetter({ ...event!, kind: "trades", key: "S", value }, "refused: x")).toThrow(
    "the dead letters fill their share of the outbox",
  );
  log[Symbol.dispose]();
});

test("a file whose records one role left is refused to the other, and an empty one is not", () => {
  const machine = new World(1, NOON_MS).machine();
  const directory = newDirectory();
  const commits = { load: () => null, save() {} };
  const first = openLog(directory, machine);
  first.openOutbox();
  void first.append([{ kind: "trades", key: "S", value: Buffer.from("x") }]);
  first[Symbol.dispose]();
  const second = openLog(directory, machine);
  expect(() => second.openReader(commits)).toThrow(
    "belongs to `producer` and is not empty (records waiting: 1, dead letters: 0)",
  );
  second.openOutbox().remove([1]);
  machine.world.run(10);
  second[Symbol.dispose]();
  const third = openLog(directory, machine);
  third.openReader(commits);
  void third.append([{ kind: "trades", key: "S", value: Buffer.from("x") }]);
  third[Symbol.dispose]();
  const fourth = openLog(directory, machine);
  expect(() => fourth.openOutbox()).toThrow("belongs to `local`");
  fourth[Symbol.dispose]();
});

test("owner, leases and the first unconfirmed record outlive a damaged file", () => {
  const machine = new World(1, NOON_MS).machine();
  const directory = newDirectory();
  const first = openLog(directory, machine);
  first.openOutbox();
  first.lease.claim("a");
  first.lease.keepSymbols(["AAPL"]);
  void first.append([{ kind: "trades", key: "S", value: Buffer.from("clean") }]);
  first.lease.guard(() => false);
  void first.append([{ kind: "trades", key: "S", value: Buffer.from("damaged-here") }]);
  const { holder } = first.lease;
  first[Symbol.dispose]();
  const path = join(directory, "outbox.sqlite");
  const bytes = readFileSync(path);
  bytes[bytes.indexOf("damaged-here")]! ^= 1;
  writeFileSync(path, bytes);
  const second = openLog(directory, machine);
  const outbox = second.openOutbox();
  expect(second.id).not.toBe(first.id);
  expect(second.lease).toMatchObject({ holder, isOwn: true, unconfirmedFrom: 2, symbols: ["AAPL"] });
  expect(outbox.read(0, 9).map(({ value }) => Buffer.from(value).toString())).toEqual(["clean"]);
  second[Symbol.dispose]();
});

test("what is received after a salvage that found no offset stays unconfirmed with what was before it", () => {
  const machine = new World(1, NOON_MS).machine();
  const directory = newDirectory();
  const path = join(directory, "outbox.sqlite");
  const entry = { kind: "trades", key: "S", value: Buffer.from("x") } as const;
  {
    using sent = openLog(directory, machine);
    const outbox = sent.openOutbox();
    void sent.append([entry]);
    outbox.remove([1]);
    outbox.flush();
  }
  let unconfirmedFrom: number | null;
  {
    using unconfirmed = openLog(directory, machine);
    unconfirmed.openOutbox();
    unconfirmed.lease.guard(() => false);
    void unconfirmed.append([entry]);
    ({ unconfirmedFrom } = unconfirmed.lease);
  }
  const bytes = readFileSync(path);
  {
    using file = new Database(path);
    const roots = "SELECT rootpage FROM sqlite_schema WHERE name IN ('records', 'sqlite_sequence')";
    for (const [page] of file.query(roots).values() as [number][]) {
      bytes.fill(0xff, (page - 1) * PAGE_BYTES, page * PAGE_BYTES);
    }
  }
  writeFileSync(path, bytes);
  using after = openLog(directory, machine);
  const outbox = after.openOutbox();
  after.lease.guard(() => false);
  void after.append([entry]);
  expect(after.lease.unconfirmedFrom).toBe(unconfirmedFrom);
  expect(after.health().recordCount).toBe(2);
  expect(outbox.read(0, 9)).toEqual([]);
}, 60_000);

test("where the owner row is damaged the records are kept, and the outbox does not know its own lease", () => {
  const machine = new World(1, NOON_MS).machine();
  const directory = newDirectory();
  const first = openLog(directory, machine);
  first.openOutbox();
  first.lease.claim("a");
  void first.append([{ kind: "trades", key: "S", value: Buffer.from("x") }]);
  const { holder } = first.lease;
  first[Symbol.dispose]();
  const path = join(directory, "outbox.sqlite");
  const bytes = readFileSync(path);
  bytes[bytes.indexOf(holder)]! ^= 1;
  writeFileSync(path, bytes);
  const second = openLog(directory, machine);
  const [record] = second.openOutbox().read(0, 9);
  expect(Buffer.from(record!.value).toString()).toBe("x");
  expect(second.lease).toMatchObject({ isOwn: false, unconfirmedFrom: null });
  expect(second.lease.ownerOf("a")).toBeNull();
  second[Symbol.dispose]();
});
