// The outbox relay over the real outbox file and a log in virtual time: what was appended arrives, in order,
// whatever fails on the way, and nothing leaves the file before its own partition has it.

import { Database } from "bun:sqlite";
import { expect, spyOn, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LogUnavailableError, RestartError, SetupError } from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type {
  LogEntry,
  Outbox,
  PartitionId,
  PartitionSender,
  RecordKind,
  SendBatch,
  SendOutcome,
} from "../../../lib/contracts/log.ts";
import { createRelay, type Relay, type RelayLimits } from "../../../lib/ingest/relay.ts";
import { openSqliteLog, type SqliteLog } from "../../../lib/outbox/log.ts";
import { FakeLog } from "../../simulation/fake-log.ts";
import { FakeBrokers } from "../../simulation/fake-sender.ts";
import { FAULT_KINDS, type Machine, World } from "../../simulation/world.ts";
import { NOON_MS } from "../../support/builders.ts";

const HISTORIES = 250;
const USUAL: RelayLimits = { batchBytesMax: 256 * 1024, pageRecordsMax: 256 };
/** In memory where the machine has such a place: what a process leaves is meant, not what a disk does. */
const SHARED_MEMORY = "/dev/shm";

type Life = {
  readonly machine: Machine;
  readonly log: SqliteLog;
  readonly outbox: Outbox;
  readonly relay: Relay;
  readonly stop: () => void;
  state: "running" | "ended" | "failed" | "killed";
  error: unknown;
};

/** One outbox file, one log of several partitions, and producers one after the other. */
class RelayHarness implements Disposable {
  readonly world: World;
  readonly far: FakeLog;
  readonly brokers: FakeBrokers;
  readonly metrics = createMetrics();
  readonly directory = mkdtempSync(join(existsSync(SHARED_MEMORY) ? SHARED_MEMORY : tmpdir(), "relay-"));
  readonly limits: RelayLimits;
  readonly problems: string[];
  /** By partition, in the order of the appends. */
  readonly appended = new Map<PartitionId, number[]>();
  /** By partition, how many of `appended` have arrived, or never will. */
  readonly #due = new Map<PartitionId, number>();
  readonly arrivals = new Set<number>();
  readonly acknowledged = new Set<number>();
  readonly refused = new Set<number>();
  /** They were refused, and were tried again. */
  readonly requeued = new Set<number>();
  life: Life | null = null;
  count = 0;
  bytesMax = 2 ** 30;
  sync: "normal" | "full" = "normal";

  constructor(seed: number, partitionCount = 1, limits = USUAL) {
    this.world = new World(seed, NOON_MS);
    this.limits = limits;
    this.far = new FakeLog(this.world, { partitionCount });
    this.brokers = new FakeBrokers(this.far);
    this.problems = this.brokers.problems;
    this.brokers.refuses = ({ value }) => {
      const number = numberOf(value);
      return this.refused.has(number) && !this.requeued.has(number);
    };
    this.far.onAppend = (id, { value }) => {
      const number = numberOf(value);
      if (this.arrivals.has(number)) return;
      this.arrivals.add(number);
      this.#checkOrder(id, number);
    };
    this.brokers.onOutcomes = (batches, outcomes) => {
      for (const [index, { entries }] of batches.entries()) {
        if (outcomes[index]!.kind !== "acknowledged") continue;
        for (const { value } of entries) this.acknowledged.add(numberOf(value));
      }
    };
  }

  start(sender?: (machine: Machine) => PartitionSender): Life {
    const machine = this.world.machine();
    const { clock } = machine;
    const log = openSqliteLog({
      directory: this.directory,
      topic: "market",
      sync: this.sync,
      bytesMax: this.bytesMax,
      clock,
      metrics: this.metrics,
    });
    const outbox = log.openOutbox();
    const controller = new AbortController();
    const relay = createRelay({
      outbox,
      sender: (sender ?? ((of) => this.brokers.sender(of)))(machine),
      clock,
      logger: silentLogger,
      metrics: this.metrics,
      limits: this.limits,
    });
    const life: Life = {
      machine,
      log,
      outbox,
      relay,
      stop: () => controller.abort(),
      state: "running",
      error: null,
    };
    relay.run(controller.signal).then(
      () => {
        if (life.state === "running") life.state = "ended";
      },
      (error: unknown) => {
        life.state = "failed";
        life.error = error;
      },
    );
    this.life = life;
    return life;
  }

  append(keys: readonly string[], bytes = 100, kind: RecordKind = "trades"): number[] {
    const numbers = keys.map(() => ++this.count);
    const entries = keys.map((key, index): LogEntry => {
      const value = Buffer.alloc(Math.max(4, bytes));
      value.writeUInt32LE(numbers[index]!);
      listOf(this.appended, this.far.partitionOf(key)).push(numbers[index]!);
      return { kind, key, value };
    });
    void this.life!.log.append(entries);
    return numbers;
  }

  /** kill -9, or the end of a process that has ended. */
  kill(): void {
    const { life } = this;
    if (life === null) return;
    life.machine.kill();
    if (life.state === "running") life.state = "killed";
    life.log[Symbol.dispose]();
    this.life = null;
  }

  /** The file as the next process finds it: what is not there any more was acknowledged. */
  checkFile(): void {
    const { outbox, log } = this.life!;
    const kept = new Set<number>();
    for (let from = 0; ; ) {
      const page = outbox.read(from, 1_000);
      for (const { value } of page) kept.add(numberOf(value));
      if (page.length === 0) break;
      from = page.at(-1)!.offset + 1;
    }
    for (const number of [...this.appended.values()].flat()) {
      if (kept.has(number) || this.acknowledged.has(number) || this.refused.has(number)) continue;
      this.problems.push(`${number} has left the outbox and was not acknowledged`);
    }
    if (log.dead.count > this.refused.size) this.problems.push("more is put aside than was refused");
  }

  /** The first copy of a record: everything of its partition before it has arrived, or was refused. */
  #checkOrder(id: PartitionId, number: number): void {
    const owed = listOf(this.appended, id);
    let due = this.#due.get(id) ?? 0;
    while (this.refused.has(owed[due]!)) due += 1;
    if (owed[due] !== number && !this.requeued.has(number)) {
      this.problems.push(`${id}: ${number} arrived where ${owed[due]} was due`);
    }
    this.#due.set(id, this.requeued.has(number) ? due : due + 1);
  }

  isEmpty(): boolean {
    return this.life?.log.health().recordCount === 0;
  }

  [Symbol.dispose](): void {
    this.kill();
    this.world.run(0);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function listOf<T>(lists: Map<PartitionId, T[]>, id: PartitionId): T[] {
  const known = lists.get(id);
  if (known !== undefined) return known;
  const made: T[] = [];
  lists.set(id, made);
  return made;
}

function numberOf(value: Uint8Array): number {
  return value[0]! | (value[1]! << 8) | (value[2]! << 16);
}

async function totalOf(metric: { get(): Promise<{ values: { value: number }[] }> }): Promise<number> {
  return (await metric.get()).values.reduce((sum, { value }) => sum + value, 0);
}

/** Keys of so many different partitions, one each. */
function keysOf(far: FakeLog): string[] {
  return far.ids.map((id) => {
    for (let index = 0; ; index++) if (far.partitionOf(`K${index}`) === id) return `K${index}`;
  });
}

// ---- Histories ------------------------------------------------------------------------------------------------

function history(seed: number): readonly string[] {
  const shape = new World(seed, 0);
  const limits = { batchBytesMax: 200 + shape.pick(1_500), pageRecordsMax: 1 + shape.pick(12) };
  using stage = new RelayHarness(seed, 1 + shape.pick(4), limits);
  const { world, far, brokers } = stage;
  const isFaulty = world.chance(0.9);
  for (const kind of FAULT_KINDS)
    if (isFaulty && world.chance(0.5)) far.faults.rates[kind] = world.between(0, 0.25);
  const refusedRate = world.chance(0.3) ? 0.03 : 0;
  const restRate = world.between(50, 1_500);
  const downs = new Map<PartitionId, number>();
  brokers.isDown = (id) => (downs.get(id) ?? 0) > world.elapsedMs;
  if (world.chance(0.3)) brokers.batchBytesMax = 150 + world.pick(800);
  const keys = Array.from({ length: 1 + world.pick(9) }, (_, index) => `S${index}`);
  stage.start();
  const untilMs = (restRate / 2) * world.between(20, 120);
  while (world.elapsedMs < untilMs) {
    world.run(world.between(0, restRate));
    const what = world.pick(20);
    if (stage.life === null) {
      stage.start();
      stage.checkFile();
    } else if (what === 0) stage.kill();
    else if (what === 1) stage.life.stop();
    else if (what === 2)
      downs.set(far.ids[world.pick(far.ids.length)]!, world.elapsedMs + world.between(100, 20_000));
    else if (stage.life.state === "ended") stage.kill();
    else {
      const count = world.chance(0.1) ? world.pick(120) : 1 + world.pick(8);
      const chosen = Array.from({ length: count }, () => keys[world.pick(keys.length)]!);
      const numbers = stage.append(chosen, 4 + world.pick(140));
      for (const number of numbers) if (world.chance(refusedRate)) stage.refused.add(number);
    }
    if (stage.life?.state === "failed") throw stage.life.error;
    const heldMax = far.ids.length * (2 * limits.batchBytesMax + (limits.pageRecordsMax + 1) * 250);
    if ((stage.life?.relay.health().heldBytes ?? 0) > heldMax) stage.problems.push("too much in memory");
  }
  // Calm: everything arrives.
  far.faults.stop();
  downs.clear();
  brokers.batchBytesMax = Number.POSITIVE_INFINITY;
  stage.kill();
  world.run(20_000);
  const life = stage.start();
  stage.checkFile();
  world.runUntil(() => stage.isEmpty() || life.state === "failed", 60_000, `the end of history ${seed}`);
  if (life.error !== null) throw life.error;
  for (const number of [...stage.appended.values()].flat()) {
    if (!stage.arrivals.has(number) && !stage.refused.has(number))
      stage.problems.push(`${number} never arrived`);
  }
  expect(life.log.dead.count).toBe(stage.refused.size);
  return [...stage.problems];
}

test(`${HISTORIES} histories of faults, kills and stops: all arrives, in order, and nothing leaves the file before`, () => {
  for (let seed = 1; seed <= HISTORIES; seed++)
    expect({ seed, problems: history(seed) }).toEqual({ seed, problems: [] });
}, 120_000);

// ---- Single promises --------------------------------------------------------------------------------------------

const LIVE_MS = 50;

test("a partition that is down for ten minutes neither delays the others, nor floods, nor fills the memory", async () => {
  using stage = new RelayHarness(7, 3, { batchBytesMax: 8_192, pageRecordsMax: 64 });
  const { world, brokers, far } = stage;
  const [down, ...others] = keysOf(far);
  let isDown = true;
  let heldMax = 0;
  let tries = 0;
  brokers.isDown = (id) => {
    if (id !== far.partitionOf(down!)) return false;
    tries += 1;
    return isDown;
  };
  const { log, relay } = stage.start();
  let readCount = 0;
  const keys = [down!, ...others, down!];
  for (let second = 0; second < 600; second++) {
    const numbers = stage.append([...keys, ...keys], 1_000);
    world.run(LIVE_MS);
    for (const [index, number] of numbers.entries()) {
      if (keys[index % 4] === down) continue;
      expect(stage.acknowledged.has(number)).toBe(true);
    }
    world.run(1_000 - LIVE_MS);
    heldMax = Math.max(heldMax, relay.health().heldBytes);
    readCount = log.health().recordCount;
  }
  // Its own records wait on disk, and nothing else does.
  expect(readCount).toBe(2_400);
  // A batch out, a batch behind it and a page.
  expect(heldMax).toBeLessThan(2 * 8_192 + 64 * 1_100);
  expect(tries).toBeGreaterThan(200);
  expect(tries).toBeLessThan(1_500);
  const { failing, unacknowledgedSinceMs } = relay.health();
  expect(failing).toMatchObject([{ partition: far.partitionOf(down!), sinceMs: expect.any(Number) }]);
  expect(failing[0]!.reason).toContain("does not answer");
  expect(world.nowMs - unacknowledgedSinceMs!).toBeLessThan(2_000);
  expect(await totalOf(stage.metrics.partitionsFailing)).toBe(1);

  // What ten minutes piled up is sent in seconds, in order, while the others go on as before.
  isDown = false;
  const startedMs = world.elapsedMs;
  world.runUntil(() => log.health().recordCount === 0, 10_000, "the backlog");
  expect(world.elapsedMs - startedMs).toBeLessThan(6_000);
  expect(relay.health()).toMatchObject({ failing: [], unacknowledgedSinceMs: null, heldBytes: 0 });
  expect(await totalOf(stage.metrics.partitionsFailing)).toBe(0);
  expect(await totalOf(stage.metrics.messagesForwardedTotal)).toBe(stage.count);
  expect(await totalOf(stage.metrics.bytesForwardedTotal)).toBe(stage.count * (1_000 + 2));
  expect(await totalOf(stage.metrics.sendsFailedTotal)).toBeGreaterThan(200);
  expect(stage.problems).toEqual([]);
  expect(stage.arrivals.size).toBe(stage.count);
});

test("what waits goes together: a send holds everything up to the bound of each partition, one after the other", () => {
  using stage = new RelayHarness(8, 2, { batchBytesMax: 20_000, pageRecordsMax: 50 });
  const { world, far, brokers } = stage;
  far.faults.latencyMs = [20, 20];
  const sends: number[][] = [];
  const bytesOf = ({ entries }: SendBatch) =>
    entries.reduce((sum, { key, value }) => sum + key.length + value.length, 0);
  brokers.onOutcomes = (batches) => {
    sends.push(batches.map(({ entries }) => entries.length));
    for (const batch of batches) expect(bytesOf(batch)).toBeLessThanOrEqual(20_000);
  };
  const keys = keysOf(far);
  stage.start();
  world.run(1);
  stage.append([keys[0]!]);
  world.run(5);
  // These come while the first is out.
  for (let round = 0; round < 10; round++) stage.append([...keys, ...keys]);
  world.run(200);
  expect(sends).toEqual([[1], [20, 20]]);
  // Far more than a send holds: full ones, as few as can be.
  stage.append(
    Array.from({ length: 1_000 }, () => keys[0]!),
    120,
  );
  world.run(2_000);
  expect(stage.isEmpty()).toBe(true);
  expect(sends.length).toBeLessThan(2 + 1_000 / 90 + 3);
  expect(stage.problems).toEqual([]);
});

test("what one send carried leaves the file in slices, all of it", () => {
  using stage = new RelayHarness(20);
  const { world, far, brokers } = stage;
  const [key] = keysOf(far);
  stage.start();
  world.run(1);
  far.faults.latencyMs = [50, 50];
  stage.append([key!]);
  stage.append(
    Array.from({ length: 12_000 }, () => key!),
    4,
  );
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(stage.acknowledged.size).toBe(12_001);
  // More than a slice each.
  expect(brokers.sendCount).toBeLessThan(10);
  expect(stage.life!.outbox.read(0, 10)).toEqual([]);
});

test("a batch that is too large is halved until it fits, and no message is", () => {
  using stage = new RelayHarness(9);
  const { world, far, brokers } = stage;
  brokers.batchBytesMax = 1_000;
  const [key] = keysOf(far);
  stage.start();
  stage.append(
    Array.from({ length: 200 }, () => key!),
    300,
  );
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(stage.arrivals.size).toBe(200);
  expect(stage.life!.log.dead.count).toBe(0);
  expect(stage.problems).toEqual([]);
  // What it has learned it keeps for a while, so most sends fit at once; and it finds out when more fits again.
  const { sendCount } = brokers;
  expect(sendCount).toBeLessThan(150);
  brokers.batchBytesMax = Number.POSITIVE_INFINITY;
  stage.append(
    Array.from({ length: 3_000 }, () => key!),
    300,
  );
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(brokers.sendCount - sendCount).toBeLessThan(150);
});

test("a message that is refused alone is put aside and said, the others go on, and a later try sends it", async () => {
  using stage = new RelayHarness(10, 2);
  const { world, far, brokers, metrics } = stage;
  const keys = keysOf(far);
  brokers.batchBytesMax = 5_000;
  let life = stage.start();
  const [first] = stage.append([...Array.from({ length: 100 }, () => keys[0]!), keys[1]!], 60);
  const [large] = stage.append([keys[0]!], 6_000, "dead");
  stage.append([keys[0]!], 60);
  stage.refused.add(first! + 41).add(large!);
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(stage.arrivals.size).toBe(stage.count - 2);
  expect(life.relay.health()).toMatchObject({
    deadCount: 2,
    refusedCount: 2,
    recordCount: 0,
    failing: [],
  });
  expect(await totalOf(metrics.messagesRefusedTotal)).toBe(2);
  const dead = life.log.dead.list(10);
  expect(dead.map(({ kind, bytes, reason }) => ({ kind, bytes, reason }))).toEqual([
    { kind: "trades", bytes: 60, reason: "refused: one of them is invalid" },
    { kind: "dead", bytes: 6_000, reason: "too_large: 6000 bytes are too many" },
  ]);
  // They take room until they are sent after all.
  expect(life.log.health().bytes).toBeGreaterThan(6_060);

  stage.kill();
  life = stage.start();
  world.run(100);
  expect(life.log.dead.count).toBe(2);
  brokers.batchBytesMax = Number.POSITIVE_INFINITY;
  for (const number of stage.refused) stage.requeued.add(number);
  expect(life.log.dead.requeue()).toBe(2);
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(stage.arrivals.size).toBe(stage.count);
  expect(life.log.dead.count).toBe(0);
  expect(life.log.health().bytes).toBe(0);
  expect(stage.problems).toEqual([]);
});

test("a partition that refuses everything counts as failing: eight are put aside, the others wait and are sent in the end", () => {
  using stage = new RelayHarness(14, 2);
  const { world, far } = stage;
  const [key, other] = keysOf(far);
  const { log, relay } = stage.start();
  const numbers = stage.append(Array.from({ length: 30 }, () => key!));
  for (const number of numbers) stage.refused.add(number);
  world.run(30_000);
  expect(log.dead.count).toBe(8);
  expect(relay.health().failing).toHaveLength(1);
  stage.append([other!]);
  world.run(1_000);
  expect(stage.arrivals.size).toBe(1);
  stage.refused.clear();
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(stage.arrivals.size).toBe(1 + 30 - 8);
  expect(relay.health().failing).toEqual([]);
});

test("a partition that is gone for some seconds ends the relay, for a new start; for a moment it does not", () => {
  using stage = new RelayHarness(15);
  const { world, far, brokers } = stage;
  const [key] = keysOf(far);
  let isGone = true;
  const gone: SendOutcome = { kind: "unavailable", error: new RestartError("market has 2 partitions now") };
  const life = stage.start((machine) => {
    const inner = brokers.sender(machine);
    return { ...inner, send: async (batches) => (isGone ? batches.map(() => gone) : inner.send(batches)) };
  });
  stage.append([key!]);
  world.run(4_000);
  isGone = false;
  world.runUntil(() => stage.isEmpty(), 10_000);
  isGone = true;
  stage.append([key!]);
  world.run(4_900);
  expect(life.state).toBe("running");
  world.run(5_000);
  expect(life.error).toBe(gone.error);
});

test("a partition that fails and then refuses goes on with the rest", () => {
  using stage = new RelayHarness(11);
  const { world, far, brokers } = stage;
  const [key] = keysOf(far);
  far.faults.plan("append", { fault: "before" }, { fault: "before" });
  stage.start();
  const numbers = stage.append([key!, key!, key!, key!]);
  stage.refused.add(numbers[1]!);
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(stage.arrivals.size).toBe(3);
  expect(brokers.problems).toEqual([]);
});

test("before the first send: unavailable is tried again for ever, a wrong setting comes out, a stop ends it", async () => {
  const never = () => new Promise<never>(() => {});
  const senderWith = (ready: () => Promise<void>) => (): PartitionSender => ({
    partitionOf: () => "market/0",
    ready,
    send: never,
  });
  {
    using stage = new RelayHarness(12);
    let tries = 0;
    const life = stage.start((machine) => ({
      ...stage.brokers.sender(machine),
      async ready() {
        tries += 1;
        if (tries < 200) throw new LogUnavailableError("no broker answers");
      },
    }));
    stage.append(["A"]);
    stage.world.run(60_000);
    expect(life.relay.health()).toMatchObject({ problem: "no broker answers", recordCount: 1 });
    expect(stage.world.nowMs - life.relay.health().unacknowledgedSinceMs!).toBeGreaterThan(59_000);
    stage.world.runUntil(() => stage.isEmpty(), 600_000);
    expect(life.relay.health().problem).toBe(null);
    expect(tries).toBe(200);
  }
  {
    using stage = new RelayHarness(13);
    const life = stage.start(senderWith(() => Promise.reject(new SetupError("no such topic", "admin init"))));
    stage.world.run(10);
    expect(life).toMatchObject({ state: "failed", error: expect.any(SetupError) });
  }
  {
    using stage = new RelayHarness(14);
    const life = stage.start(senderWith(never));
    stage.append(["A"]);
    stage.world.run(1_000);
    life.stop();
    stage.world.run(1);
    expect(life.state).toBe("ended");
    expect(stage.isEmpty()).toBe(false);
  }
});

test("a stop sends what waits, waits for no partition that fails, and leaves the rest for the next start", () => {
  using stage = new RelayHarness(15, 2, { batchBytesMax: 2_000, pageRecordsMax: 16 });
  const { world, far, brokers } = stage;
  const keys = keysOf(far);
  far.faults.latencyMs = [2, 4];
  let tries = 0;
  brokers.isDown = (id) => {
    const isDown = id === far.partitionOf(keys[1]!);
    if (isDown) tries += 1;
    return isDown;
  };
  let life = stage.start();
  for (let round = 0; round < 400; round++) stage.append([keys[0]!, keys[1]!]);
  world.run(10);
  life.stop();
  const stoppedMs = world.elapsedMs;
  const triesBefore = tries;
  expect(triesBefore).toBe(1);
  world.runUntil(() => life.state === "ended", 6_000);
  expect(world.elapsedMs - stoppedMs).toBeGreaterThan(100);
  expect(world.elapsedMs - stoppedMs).toBeLessThan(1_000);
  expect(tries).toBe(triesBefore);
  expect(life.log.health().recordCount).toBe(400);
  stage.kill();

  // A far end that does not answer at all holds the stop up to its bound.
  far.faults.latencyMs = [60_000, 60_000];
  life = stage.start();
  world.run(10);
  life.stop();
  world.run(4_900);
  expect(life.state).toBe("running");
  world.run(200);
  expect(life.state).toBe("ended");
  stage.kill();

  far.faults.latencyMs = [2, 4];
  brokers.isDown = () => false;
  stage.start();
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(stage.arrivals.size).toBe(800);
  expect(stage.problems).toEqual([]);
});

test("a full outbox refuses trades while a partition is down, and its events still go out and leave", async () => {
  using stage = new RelayHarness(16, 2);
  const { world, far, brokers } = stage;
  const [down, other] = keysOf(far);
  stage.bytesMax = 50_000;
  let isDown = true;
  brokers.isDown = (id) => isDown && id === far.partitionOf(down!);
  const { log } = stage.start();
  const value = (number: number) => Buffer.from([number & 255, number >> 8, 0, 0]);
  const entry = (key: string, kind: RecordKind, number: number): LogEntry => ({
    kind,
    key,
    value: value(number),
  });
  stage.refused.clear();
  stage.append(
    Array.from({ length: 45 }, () => down!),
    1_000,
  );
  world.run(100);
  await expect(log.append([{ ...entry(other!, "trades", 500), value: Buffer.alloc(2_000) }])).rejects.toThrow(
    "its limit is 50000",
  );
  const before = log.health().bytes;
  for (let round = 0; round < 30; round++) {
    stage.append([other!], 1_000, "event");
    world.run(50);
    expect(log.health().bytes).toBe(before);
  }
  isDown = false;
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(stage.problems).toEqual([]);
});

test("a record that is not what was written ends the relay: nothing is skipped in silence", () => {
  using stage = new RelayHarness(17);
  const { world } = stage;
  const life = stage.start();
  world.run(10);
  const spy = spyOn(Bun.hash, "crc32");
  stage.append(["A", "A"]);
  // What is read back has another checksum than what was written.
  spy.mockImplementation(() => 7);
  world.run(10);
  spy.mockRestore();
  expect(life.state).toBe("failed");
  expect(String(life.error)).toContain(
    "is damaged: Error: the record at offset 1 does not match its checksum",
  );
  expect(life.log.health().recordCount).toBe(2);
});

test("a partition of which little fits into a batch is passed by the others", () => {
  using stage = new RelayHarness(22, 2, { batchBytesMax: 4_000, pageRecordsMax: 32 });
  const { world, far, brokers } = stage;
  const [slow, other] = keysOf(far);
  brokers.batchBytesMax = 700;
  stage.start();
  stage.append(
    Array.from({ length: 1_000 }, () => slow!),
    300,
  );
  world.run(500);
  expect(stage.arrivals.size).toBeLessThan(500);
  const [number] = stage.append([other!]);
  world.run(LIVE_MS);
  expect(stage.acknowledged.has(number!)).toBe(true);
  world.runUntil(() => stage.isEmpty(), 60_000);
  expect(stage.problems).toEqual([]);
});

test("one refused message among thousands costs some twenty sends", () => {
  using stage = new RelayHarness(23);
  const { world, far, brokers } = stage;
  const [key] = keysOf(far);
  stage.start();
  world.run(1);
  far.faults.latencyMs = [50, 50];
  stage.append([key!]);
  const [first] = stage.append(
    Array.from({ length: 4_000 }, () => key!),
    20,
  );
  stage.refused.add(first!);
  world.runUntil(() => stage.isEmpty(), 60_000);
  expect(stage.arrivals.size).toBe(4_000);
  expect(brokers.sendCount).toBeLessThan(20);
  expect(stage.problems).toEqual([]);
});

test("a deletion that cannot be just now is tried again, also when nothing more is sent", () => {
  using stage = new RelayHarness(24);
  const { world } = stage;
  stage.start();
  world.run(1);
  stage.append(["A", "A", "A"]);
  const { run } = Database.prototype;
  const spy = spyOn(Database.prototype, "run").mockImplementation(function (this: Database, text: string) {
    if (text.startsWith("BEGIN"))
      throw Object.assign(new Error("database is locked"), { code: "SQLITE_BUSY" });
    return run.call(this, text);
  });
  world.run(2_500);
  expect(stage.acknowledged.size).toBe(3);
  expect(stage.isEmpty()).toBe(false);
  spy.mockRestore();
  world.run(1_000);
  expect(stage.isEmpty()).toBe(true);
});

for (const where of ["a record that waits", "a record put aside", "the reason of one put aside"] as const) {
  test(`what was put aside outlives a damaged file, when the damage is in ${where}`, async () => {
    using stage = new RelayHarness(21);
    const { world, brokers } = stage;
    stage.start();
    const numbers = stage.append(
      Array.from({ length: 50 }, () => "A"),
      200,
    );
    for (const index of [7, 20, 33]) stage.refused.add(numbers[index]!);
    world.runUntil(() => stage.isEmpty(), 10_000);
    brokers.isDown = () => true;
    stage.append(
      Array.from({ length: 50 }, () => "A"),
      200,
    );
    world.run(1_000);
    stage.kill();
    const path = join(stage.directory, "outbox.sqlite");
    const bytes = readFileSync(path);
    const wounded = Buffer.alloc(200);
    wounded.writeUInt32LE(where === "a record that waits" ? 80 : numbers[20]!);
    const at = bytes.indexOf(where === "the reason of one put aside" ? "one of them is invalid" : wounded);
    expect(at).toBeGreaterThan(0);
    bytes[at + 5] = 65;
    writeFileSync(path, bytes);

    brokers.isDown = () => false;
    const { log } = stage.start();
    const keptCount = where === "a record that waits" ? 3 : 2;
    expect(log.dead.count).toBe(keptCount);
    expect(log.dead.list(9)).toHaveLength(keptCount);
    for (const { reason, key } of log.dead.list(9))
      expect(`${key} ${reason}`).toBe("A refused: one of them is invalid");
    // With the event that says what happened to the file.
    expect(log.health().recordCount).toBe(where === "a record that waits" ? 50 : 51);
    expect(readdirSync(stage.directory).some((name) => name.includes(".damaged-"))).toBe(true);
    for (const number of stage.refused) stage.requeued.add(number);
    expect(log.dead.requeue()).toBe(keptCount);
    world.runUntil(() => stage.isEmpty(), 10_000);
    const missing: number[] = [];
    for (const number of numbers) {
      if (!stage.arrivals.has(number)) missing.push(number);
    }
    expect(missing).toHaveLength(3 - keptCount);
    for (const number of missing) expect(stage.refused.has(number)).toBe(true);
  });
}

test("where each append is synced a deletion is not, and what is appended after it is synced again", () => {
  using stage = new RelayHarness(25);
  const { world } = stage;
  stage.sync = "full";
  stage.start();
  world.run(1);
  const said: string[] = [];
  const { run } = Database.prototype;
  const spy = spyOn(Database.prototype, "run").mockImplementation(function (this: Database, text: string) {
    said.push(text);
    return run.call(this, text);
  });
  stage.append(["A"]);
  world.runUntil(() => stage.isEmpty(), 1_000);
  stage.append(["A"]);
  world.runUntil(() => stage.isEmpty(), 1_000);
  spy.mockRestore();
  const modes = said.filter((text) => text.startsWith("PRAGMA synchronous"));
  expect(modes).toEqual([1, 2].flatMap(() => ["PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL"]));
});

test("a log has a reader or a relay, never both", () => {
  using stage = new RelayHarness(18);
  const { log } = stage.start();
  expect(() => log.openOutbox()).toThrow("a reader or a relay");
  expect(() => log.openReader({ load: () => null, save: () => {} })).toThrow("has a relay");
});

test("a million bytes of leftovers of two sessions go first, the older before the newer", () => {
  using stage = new RelayHarness(19, 3);
  const { world, far, brokers } = stage;
  const keys = keysOf(far);
  brokers.isDown = () => true;
  for (let session = 0; session < 2; session++) {
    stage.start();
    for (let round = 0; round < 50; round++) stage.append([...keys, ...keys, ...keys], 1_200);
    world.run(3_000);
    stage.kill();
  }
  brokers.isDown = () => false;
  stage.start();
  stage.append(keys);
  world.runUntil(() => stage.isEmpty(), 10_000);
  expect(stage.arrivals.size).toBe(stage.count);
  expect(stage.problems).toEqual([]);
});
