// One seed of the distributed form: an upstream, one producer, two or three processors that share the partitions of a
// log, and a store. All loops are those of lib; only what is behind its contracts is simulated. Each seed has its own
// mix of faults (none, one kind, some, all) and tiny or usual limits, and ends in calm: then everything that was
// received must be stored exactly once, and every window must be the function of the rows.

import type { LogReader } from "../../lib/contracts/log.ts";
import type { StoreWriter } from "../../lib/contracts/store.ts";
import { createProcessor, type Processor } from "../../lib/processing/processor.ts";
import type { ProcessorLimits } from "../../lib/processing/processor-state.ts";
import { NOON_MS } from "../support/builders.ts";
import { FakeLog, type FakeReader } from "./fake-log.ts";
import { FakeStore } from "./fake-store.ts";
import { Chronicle, KINDS, type Kind, rule, type Weather } from "./faults.ts";
import { type Host, logger, metrics, newHost } from "./hosts.ts";
import { Received } from "./ledger.ts";
import { type Peak, watchMemory } from "./memory.ts";
import { Operator } from "./operator.ts";
import { Outbox } from "./outbox.ts";
import { type Outcome, SETTLED_MS_MAX } from "./outcome.ts";
import {
  betweenFeedAndLog,
  countFrame,
  isDrained,
  type Producer,
  producerOf,
  startProducer,
} from "./producers.ts";
import { Upstream } from "./upstream.ts";
import { World } from "./world.ts";

const SYMBOLS = ["AAPL", "BINANCE:BTCUSDT", "OANDA:EUR_USD", "MSFT"];
const STARTS_MS = [NOON_MS, NOON_MS + 3_595_000, Date.UTC(2026, 0, 6) - 40_000];
const TRIGGER_MS = 5_000;
const HOUR_MS = 3_600_000;
/** Longer than the latest answer of a request that was sent before the calm. */
const LATE_MS_MAX = 20_000;
const FAILURES_MAX = 10;

type Member = {
  readonly host: Host;
  readonly processor: Processor;
  readonly reader: FakeReader;
  readonly stop: () => void;
  /** The current epoch as this member knows it. */
  epoch: number;
  isGone: boolean;
};

export class GroupRun {
  readonly world: World;
  readonly chronicle: Chronicle;
  readonly #seed: number;
  readonly #kinds: ReadonlySet<Kind>;
  readonly #log: FakeLog;
  readonly #store: FakeStore;
  readonly #outbox: Outbox;
  readonly #logWeather: Weather;
  readonly #storeWeather: Weather;
  readonly #received: Received;
  readonly #upstream: Upstream;
  readonly #operator: Operator;
  readonly #symbols: readonly string[];
  readonly #limits: ProcessorLimits;
  readonly #queueWeightMax: number;
  readonly #hasScanReceived: boolean;
  readonly #activeMs: number;
  readonly #restMs: number;
  readonly #producers: Producer[] = [];
  readonly #failures: string[] = [];
  readonly #peak: Readonly<Peak>;
  #members: Member[] = [];
  #isCalm = false;
  #isPowerOff = false;

  constructor(seed: number, lines: string[] | null) {
    this.#seed = seed;
    const world = new World(seed, STARTS_MS[seed % 3]!);
    this.world = world;
    this.chronicle = new Chronicle(world, lines);
    this.#kinds = this.#mix();
    const isTiny = world.chance(0.6);
    const rate = this.#kinds.size < 5 ? 0.15 : world.between(0.01, 0.06);
    this.#hasScanReceived = world.chance(0.4);
    this.#log = new FakeLog(world, { partitionCount: 1 + world.pick(3), batchMax: 1 + world.pick(8) });
    this.#store = new FakeStore(world, {
      rowsPerPutMax: 1 + world.pick(isTiny ? 4 : 40),
      putsInFlightMax: 1 + world.pick(4),
      pageRows: 1 + world.pick(isTiny ? 4 : 30),
      groupBy: world.chance(0.5) ? "symbol" : "all",
      hasScanReceived: this.#hasScanReceived,
    });
    this.#outbox = new Outbox(this.#log, world, this.chronicle, this.#kinds, isTiny);
    const weather = () => ({
      rate,
      kinds: this.#kinds,
      downAs: null,
      isOverloaded: false,
      isCalm: false,
    });
    this.#logWeather = weather();
    this.#storeWeather = weather();
    rule(this.#log.faults, world, this.chronicle, this.#logWeather);
    rule(this.#store.faults, world, this.chronicle, this.#storeWeather);
    if (this.#kinds.has("batch_from_wrong_offset")) this.#log.misplacedRate = 0.05;
    if (this.#kinds.has("row_refused")) {
      this.#store.refuses = ({ price }) => {
        const isRefused = price === 13;
        if (isRefused) this.chronicle.fire("row_refused");
        return isRefused;
      };
    }
    const store = this.#store;
    this.#received = new Received({
      hasRow: (uuid) => store.uuids.has(uuid),
      hasLetter: (deadLetter) => store.deadLetters.has(deadLetter),
      hasPayload: (payload) =>
        [...store.deadLetters.values()].some(
          (deadLetter) => Buffer.from(deadLetter.payload).toString("hex") === payload,
        ),
      hasEvent: (event) => store.events.has(event),
      countOf: (key) => store.windows.get(key)?.window.row.trade_count ?? 0,
    });
    this.#log.onAppend = (id, record) => {
      this.chronicle.note(`log ${id} ${record.offset} ${record.kind} ${record.value.length}`);
      this.#received.note(id, record);
    };
    this.#log.onCommit = (id, { offset, metadata }) => {
      this.chronicle.note(`commit ${id} ${offset} ${metadata}`);
      this.#received.checkCommit(id, offset);
    };
    this.#symbols = SYMBOLS.slice(0, 2 + world.pick(3));
    this.#limits = isTiny
      ? { panesMax: 1 + world.pick(6), windowsUnwrittenMax: 3 + world.pick(30) }
      : { panesMax: 1_000, windowsUnwrittenMax: 1_000 };
    this.#queueWeightMax = isTiny ? 4 + world.pick(20) : 16_384;
    this.#activeMs = world.between(30_000, 100_000);
    this.#restMs = this.#kinds.size < 5 ? 2_500 : world.between(1_500, 8_000);
    this.#peak = watchMemory();
    this.#upstream = new Upstream(world, this.chronicle, this.#storeWeather, {
      symbols: this.#symbols,
      framesPerSecond: world.between(0.5, 2),
    });
    this.#operator = new Operator({
      world,
      chronicle: this.chronicle,
      store: this.#store,
      received: this.#received,
      upstream: this.#upstream,
      fail: (error) => this.#failures.push(String(error)),
    });
    this.#upstream.onHanded = (machine, text) => {
      const producer = producerOf(this.#producers, machine);
      this.chronicle.note(`frame ${text}`);
      if (producer !== undefined) countFrame(producer, text);
    };
  }

  /** Swarm testing: faults that every seed had would hide what only a few faults together bring out. */
  #mix(): ReadonlySet<Kind> {
    const { world } = this;
    const character = world.pick(20);
    if (character === 0) return new Set();
    if (character < 6) {
      return new Set([KINDS[world.pick(KINDS.length)]!, KINDS[world.pick(KINDS.length)]!]);
    }
    const share = character < 14 ? 0.35 : 1;
    return new Set(KINDS.filter(() => world.chance(share)));
  }

  run(): Outcome {
    try {
      return this.#run();
    } finally {
      this.#outbox.end();
      // What still runs in a dead process runs now, and not in the next run.
      this.world.run(0);
    }
  }

  #run(): Outcome {
    const { world } = this;
    this.#startProducer(world.pick(3_000) - 1_500);
    const memberCount = 2 + world.pick(2);
    for (let index = 0; index < memberCount; index++) this.#startMember();
    this.#deal();
    this.#misfortune();
    world.run(this.#activeMs);
    const recoveryMs = this.#recover();
    return this.#outcome(recoveryMs);
  }

  // ---- Who runs ---------------------------------------------------------------------------------------------

  #startProducer(skewMs: number): void {
    const host = newHost(this.world, skewMs);
    const options = { symbols: this.#symbols, queueWeightMax: this.#queueWeightMax };
    const { writer, drain } = this.#outbox.start(host);
    // Known before it begins, because it may be handed a frame at once.
    const producer = startProducer(host, writer, this.#upstream, options, drain);
    this.#producers.push(producer);
  }

  get #producer(): Producer {
    return this.#producers.at(-1)!;
  }

  #startMember(): Member {
    const host = newHost(this.world, this.world.pick(2_000) - 1_000);
    const controller = new AbortController();
    const reader = this.#log.reader(host.machine);
    const deps = { clock: host.clock, logger, metrics, limits: this.#limits };
    const member: Member = {
      host,
      reader,
      stop: () => controller.abort(),
      epoch: -1,
      isGone: false,
      processor: createProcessor({
        ...deps,
        log: this.#watchReader(reader, () => member),
        store: this.#watchStore(this.#store.connect(host.machine), () => member),
      }),
    };
    const stopTrigger = host.machine.every(TRIGGER_MS, () => void member.processor.trigger());
    member.processor.run(controller.signal).then(
      () => {
        member.isGone = true;
        stopTrigger();
      },
      (error: unknown) => this.#fail(member, error),
    );
    this.#members.push(member);
    return member;
  }

  /** A bug was found: the process ends, another takes its place as in production, and the run is red. */
  #fail(member: Member, error: unknown): void {
    this.chronicle.note(`failure ${String(error)}`);
    if (this.#failures.length < FAILURES_MAX) {
      this.#failures.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
      this.#kill(member);
      this.#startMember();
      this.world.after(1, () => this.#deal());
    } else this.#kill(member);
  }

  #kill(member: Member): void {
    member.host.machine.kill();
    member.isGone = true;
    this.#log.forget(member.reader);
    this.#members = this.#members.filter((other) => other !== member);
  }

  #killProducer(): void {
    this.#producer.state = "killed";
    this.#producer.host.machine.kill();
    this.#outbox.kill();
  }

  #deal(members = this.#members): void {
    const { world } = this;
    const living = members.filter(({ isGone }) => !isGone);
    if (living.length === 0 || this.#isPowerOff) return;
    const shares = new Map(living.map(({ reader }) => [reader, [] as string[]]));
    const first = world.pick(living.length);
    for (const [index, id] of this.#log.ids.entries()) {
      shares.get(living[(first + index) % living.length]!.reader)?.push(id);
    }
    this.chronicle.note(`dealt to ${living.length}`);
    for (const { host } of this.#members) {
      if (host.machine.state === "asleep" && host.flightCount > 0 && !this.#isCalm) {
        this.chronicle.fire("rebalance_while_asleep");
      }
    }
    this.#log.assign(shares);
  }

  // ---- What is watched --------------------------------------------------------------------------------------

  #watch<T>(member: Member, work: () => Promise<T>): Promise<T> {
    const { epoch } = member;
    member.host.flightCount += 1;
    return work().finally(() => {
      member.host.flightCount -= 1;
      if (member.epoch !== epoch && epoch >= 0) this.chronicle.fire("late_completion_of_lost_partition");
    });
  }

  #watchReader(inner: FakeReader, memberOf: () => Member): LogReader {
    const expected = new Map<string, number>();
    const { chronicle } = this;
    const watch = <T>(work: () => Promise<T>) => this.#watch(memberOf(), work);
    return {
      async *deliveries(signal) {
        for await (const delivery of inner.deliveries(signal)) {
          if (delivery.type === "assigned") {
            memberOf().epoch = delivery.epoch;
            expected.clear();
          } else if (delivery.epoch === memberOf().epoch && expected.has(delivery.partition)) {
            if (expected.get(delivery.partition) === delivery.fromOffset) {
              expected.set(delivery.partition, delivery.nextOffset);
            } else chronicle.fire("batch_from_wrong_offset");
          }
          yield delivery;
        }
      },
      position: (epoch, id) => watch(() => inner.position(epoch, id)),
      seek(epoch, id, offset) {
        expected.set(id, offset);
        inner.seek(epoch, id, offset);
      },
      commit: (epoch, id, position) => watch(() => inner.commit(epoch, id, position)),
    };
  }

  #watchStore(inner: StoreWriter, memberOf: () => Member): StoreWriter {
    const { chronicle } = this;
    const watch = <T>(work: () => Promise<T>) => this.#watch(memberOf(), work);
    return {
      ...inner,
      putTrades: (rows) => watch(() => inner.putTrades(rows)),
      putWindows: (windows) => watch(() => inner.putWindows(windows)),
      putEvents: (rows) => watch(() => inner.putEvents(rows)),
      putDead: (deadLetters) => watch(() => inner.putDead(deadLetters)),
      isEmpty: () => watch(() => inner.isEmpty()),
      async *scanTrades(symbol, range) {
        let pageCount = 0;
        const { host } = memberOf();
        host.flightCount += 1;
        try {
          for await (const page of inner.scanTrades(symbol, range)) {
            pageCount += 1;
            yield page;
          }
        } catch (error) {
          chronicle.fire(pageCount > 0 ? "scan_fails_midway" : "scan_fails");
          throw error;
        } finally {
          host.flightCount -= 1;
        }
      },
    };
  }

  // ---- What happens -----------------------------------------------------------------------------------------

  #misfortune(): void {
    const { world } = this;
    const acts = Object.entries(this.#acts()).filter(([kind]) => this.#kinds.has(kind as Kind));
    if (acts.length === 0) return;
    const next = () => {
      world.after(-Math.log(1 - world.random()) * this.#restMs, () => {
        if (this.#isCalm) return;
        acts[world.pick(acts.length)]![1]();
        next();
      });
    };
    next();
  }

  #acts(): Partial<Record<Kind, () => void>> {
    const { world, chronicle } = this;
    const anyMember = () => {
      const awake = this.#members.filter(({ host, isGone }) => !isGone && host.machine.state === "awake");
      return awake[world.pick(Math.max(1, awake.length))];
    };
    const soon = () => (world.chance(0.5) ? world.between(0, 20) : world.between(0, 6_000));
    const fireIf = (isInFlight: boolean, kind: Kind) =>
      isInFlight ? chronicle.fire(kind) : chronicle.note(kind);
    const jump = (sign: 1 | -1, kind: Kind) => {
      const hosts = [this.#producer.host, ...this.#members.map(({ host }) => host)];
      const host = hosts[world.pick(hosts.length)]!;
      // Where the log may lose its end, receipts may be out of its order by a minute (RECEIPT_MARGIN_MS).
      const jumpMsMax = this.#hasScanReceived ? 10_000 : world.chance(0.5) ? 3_000 : 2 * HOUR_MS;
      host.skewMs += sign * Math.floor(world.between(1, jumpMsMax));
      if (this.#hasScanReceived) host.skewMs = Math.max(-15_000, Math.min(15_000, host.skewMs));
      fireIf(host.flightCount > 0, kind);
    };
    const replaceProducer = () => {
      world.after(soon(), () => {
        // A producer owns the outbox; the end of a power cut may have started one already.
        if (this.#isPowerOff || this.#producer.state === "running") return;
        this.#startProducer(this.#producer.host.skewMs);
      });
    };
    return {
      rebalance: () => {
        fireIf(
          this.#members.some(({ host }) => host.flightCount > 0),
          "rebalance",
        );
        this.#deal();
      },
      processor_killed: () => {
        const member = anyMember();
        if (member === undefined) return;
        fireIf(member.host.flightCount > 0, "processor_killed");
        this.#kill(member);
        world.after(soon(), () => {
          this.#startMember();
          this.#deal();
        });
      },
      processor_stopped: () => {
        const member = anyMember();
        if (member === undefined) return;
        fireIf(member.host.flightCount > 0, "processor_stopped");
        member.stop();
        this.#members = this.#members.filter((other) => other !== member);
        world.after(soon(), () => {
          this.#startMember();
          this.#deal();
        });
      },
      processor_asleep: () => {
        const member = anyMember();
        if (member === undefined) return;
        fireIf(member.host.flightCount > 0, "processor_asleep");
        member.host.machine.sleep();
        const others = () => this.#members.filter((other) => other !== member);
        if (world.chance(0.8)) world.after(soon(), () => !this.#isCalm && this.#deal(others()));
        world.after(world.between(100, 30_000), () => {
          member.host.machine.wake();
          world.after(soon(), () => this.#deal());
        });
      },
      extra_trigger: () => {
        const member = anyMember();
        if (member === undefined) return;
        fireIf(member.host.flightCount > 0, "extra_trigger");
        void member.processor.trigger();
      },
      producer_killed: () => {
        const producer = this.#producer;
        if (producer.state !== "running") return;
        fireIf(producer.host.flightCount > 0, "producer_killed");
        this.#killProducer();
        replaceProducer();
      },
      producer_stopped: () => {
        const producer = this.#producer;
        if (producer.state !== "running" || producer.host.machine.state !== "awake") return;
        fireIf(producer.host.flightCount > 0 || !isDrained(producer), "producer_stopped");
        producer.stop();
        // Two at a time would be handed every trade twice, so the next one waits until this one has ended.
        const again = () => {
          if (producer.state === "running") world.after(50, again);
          else replaceProducer();
        };
        again();
      },
      producer_asleep: () => {
        const { host, state } = this.#producer;
        if (state !== "running") return;
        fireIf(true, "producer_asleep");
        host.machine.sleep();
        world.after(world.between(100, 40_000), () => host.machine.wake());
      },
      trade_deleted: () => this.#operator.deleteTrade(),
      trade_imported: () => this.#operator.importTrade(),
      clock_jump_forward: () => jump(1, "clock_jump_forward"),
      clock_jump_back: () => jump(-1, "clock_jump_back"),
      log_full: () => {
        this.#log.isFull = true;
        fireIf(this.#producer.state === "running", "log_full");
        world.after(world.between(100, 8_000), () => {
          this.#log.isFull = false;
        });
      },
      log_resend: () => this.#resend(),
      log_poison: () => {
        const values = ["", "ff00ff00ff", "00", "0280ffffff0f", "7b7d"];
        const value = Buffer.from(values[world.pick(values.length)]!, "hex");
        this.#received.poison(value);
        const kinds = ["trades", "event", "dead"] as const;
        chronicle.fire("log_poison");
        this.#log.append([{ kind: kinds[world.pick(3)]!, key: this.#symbols[0]!, value }]);
      },
      partition_down: () => {
        const minutesMax = world.chance(0.3) ? 3 : 0.3;
        this.#outbox.takeDown(this.#anyPartition(), world.between(500, minutesMax * 60_000));
      },
      log_trimmed: () => {
        const id = this.#anyPartition();
        const { committed, beginOffset } = this.#log.partition(id);
        if (committed === null || committed.offset <= beginOffset) return;
        chronicle.fire("log_trimmed", id);
        this.#log.dropBelow(id, committed.offset);
      },
      log_end_lost: () => this.#hasScanReceived && this.#cutPower(),
      log_down: () => this.#down(this.#logWeather, "log_down"),
      store_down: () => this.#down(this.#storeWeather, "store_down"),
      store_overloaded: () => {
        this.#storeWeather.isOverloaded = true;
        world.after(world.between(1_000, 30_000), () => {
          this.#storeWeather.isOverloaded = false;
        });
      },
      socket_reset: () => this.#upstream.reset(),
      socket_silent: () => this.#upstream.silence(),
    };
  }

  #down(weather: Weather, kind: Kind): void {
    const { world } = this;
    weather.downAs = kind;
    world.after(world.chance(0.1) ? world.between(60_000, 180_000) : world.between(500, 20_000), () => {
      weather.downAs = null;
    });
  }

  #anyPartition(): string {
    return this.#log.ids[this.world.pick(this.#log.ids.length)]!;
  }

  /** Copies of up to four records in a row, as after an acknowledgement that was lost. */
  #resend(): void {
    const records = this.#received.records(this.#anyPartition());
    if (records.length === 0) return;
    const back = 1 + this.world.pick(Math.min(records.length, 12));
    const copies = records.slice(records.length - back).slice(0, 1 + this.world.pick(4));
    const entries = copies.flatMap(({ key, value }) =>
      key === null ? [] : [{ kind: "trades" as const, key, value }],
    );
    if (entries.length === 0) return;
    this.chronicle.fire("log_resend");
    this.#log.append(entries);
  }

  /** All share one power supply: every process dies, and the log loses what was not synced. */
  #cutPower(): void {
    const { world } = this;
    if (this.#isPowerOff) return;
    this.#isPowerOff = true;
    for (const member of [...this.#members]) this.#kill(member);
    const producer = this.#producer;
    if (producer.state === "running") this.#killProducer();
    this.#log.assign(new Map());
    for (const id of this.#log.ids) {
      const endOffset = this.#log.endOffset(id);
      const kept = Math.max(this.#received.checkedOffset(id), this.#log.partition(id).beginOffset);
      const offset = Math.max(kept, endOffset - this.world.pick(8));
      if (offset >= endOffset) continue;
      this.chronicle.fire("log_end_lost", id);
      this.#log.loseFrom(id, offset);
      this.#received.forgetFrom(id, offset);
    }
    // When the power is back, nothing that the killed processes sent is still on its way.
    world.after(world.between(LATE_MS_MAX, LATE_MS_MAX + 3_000), () => {
      this.#isPowerOff = false;
      if (this.#producer.state !== "running") this.#startProducer(producer.host.skewMs);
      while (this.#members.length < 2) this.#startMember();
      this.#deal();
    });
  }

  // ---- The end ----------------------------------------------------------------------------------------------

  /** Faults and trading stop. How long until everything is stored, written and committed, in ms; null: too long. */
  #recover(): number | null {
    const { world } = this;
    this.#isCalm = true;
    for (const weather of [this.#logWeather, this.#storeWeather]) {
      weather.isCalm = true;
      weather.downAs = null;
      weather.isOverloaded = false;
    }
    this.#log.misplacedRate = 0;
    this.#log.isFull = false;
    this.#outbox.calm();
    this.#upstream.isTrading = false;
    for (const { host } of this.#members) host.machine.wake();
    this.#producer.host.machine.wake();
    const startedMs = world.elapsedMs;
    this.chronicle.note("calm");
    // Processes that were to come back do so, and what was sent before arrives.
    const isSettled = () =>
      this.#members.length > 0 &&
      this.#producer.state === "running" &&
      this.#producers.every(isDrained) &&
      this.#outbox.isEmpty() &&
      this.#log.ids.every((id) => this.#received.checkedOffset(id) >= this.#log.endOffset(id)) &&
      this.#members.every(({ processor }) => processor.health().windowsUnwritten === 0);
    let recoveryMs: number | null = null;
    while (world.elapsedMs - startedMs < SETTLED_MS_MAX) {
      world.run(500);
      if (!isSettled()) continue;
      recoveryMs = world.elapsedMs - startedMs;
      break;
    }
    world.run(LATE_MS_MAX);
    if (recoveryMs !== null && !isSettled()) {
      // What arrived late caused work once more.
      world.run(SETTLED_MS_MAX - LATE_MS_MAX);
      if (!isSettled()) recoveryMs = null;
    }
    this.#operator.settle();
    return recoveryMs;
  }

  #outcome(recoveryMs: number | null): Outcome {
    const verdict = this.#received.verdict(
      this.#store.rows.values(),
      [...this.#store.windows.values()].map(({ window }) => window),
    );
    const between = betweenFeedAndLog(this.#producers, this.#received);
    if (this.#peak.panes > this.#limits.panesMax) {
      this.#failures.push(`${this.#peak.panes} panes in memory, the limit is ${this.#limits.panesMax}`);
    }
    for (const { error } of this.#producers) if (error !== null) this.#failures.push(String(error));
    return {
      seed: this.#seed,
      faults: this.chronicle.counts,
      trades: verdict.trades,
      lost: verdict.lost + between.lost,
      doubled: verdict.doubled + between.doubled,
      wrongWindows: verdict.wrongWindows,
      commits: this.#received.commitCount,
      commitsUnlawful: this.#received.commitsUnlawful,
      failures: [
        ...this.#failures,
        ...this.#store.problems,
        ...this.#store.mixed(),
        ...this.#outbox.failures,
        ...this.#outbox.brokers.problems,
      ],
      recoveryMs,
      problems: this.#received.problems,
      hash: this.chronicle.hash.toString(16),
    };
  }
}
