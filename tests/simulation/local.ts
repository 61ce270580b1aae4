// One seed of the embedded shape: feed, ingest, processor, lib's SQLite log and lib's SQLite store in ONE
// process that is killed between any two steps and opens its files again. Requests to both take virtual time and
// fail as in the other shape; the files are real, so what they keep is what SQLite kept.

import { Database } from "bun:sqlite";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LogUnavailableError, StoreUnavailableError } from "../../lib/base/errors.ts";
import type { LogReader, LogWriter } from "../../lib/contracts/log.ts";
import type { StoreWriter } from "../../lib/contracts/store.ts";
import { AGGREGATES, type WindowRow } from "../../lib/model/aggregates.ts";
import type { TradeRow } from "../../lib/model/trade.ts";
import { openSqliteLog, type SqliteLog } from "../../lib/outbox/log.ts";
import { createProcessor, type Processor } from "../../lib/processing/processor.ts";
import { openSqliteStore, type SqliteStore } from "../../lib/sqlite/store.ts";
import { NOON_MS } from "../support/builders.ts";
import type { LogOperation } from "./fake-log.ts";
import type { StoreOperation } from "./fake-store.ts";
import { Chronicle, KINDS, type Kind, rule, type Weather } from "./faults.ts";
import { type Host, logger, metrics, newHost } from "./hosts.ts";
import { Received } from "./ledger.ts";
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
import { Faults, request, World } from "./world.ts";

const SYMBOLS = ["AAPL", "BINANCE:BTCUSDT", "OANDA:EUR_USD"];
const PARTITION = "market/0";
const FIRST_OFFSET = 1;
const TRIGGER_MS = 5_000;
/** In memory where the machine has such a place: a run is about crashes of processes, not of disks. */
const SHARED_MEMORY = "/dev/shm";
const LATE_MS_MAX = 20_000;

type Process = {
  readonly host: Host;
  readonly store: SqliteStore;
  readonly log: SqliteLog;
  readonly producer: Producer;
  readonly processor: Processor;
  readonly stop: () => void;
  isEnded: boolean;
};

export class LocalRun {
  readonly #seed: number;
  readonly #world: World;
  readonly #chronicle: Chronicle;
  readonly #kinds: ReadonlySet<Kind>;
  readonly #weather: Weather;
  readonly #logFaults: Faults<LogOperation>;
  readonly #storeFaults: Faults<StoreOperation>;
  readonly #received: Received;
  readonly #upstream: Upstream;
  readonly #directory: string;
  readonly #producers: Producer[] = [];
  readonly #failures: string[] = [];
  /** What a put was acknowledged for, in time for the check of a commit. */
  readonly #uuids = new Set<string>();
  readonly #deadLetters = new Map<string, string>();
  readonly #events = new Set<string>();
  #process: Process | null = null;
  #tables: Database | null = null;
  #nextOffset = FIRST_OFFSET;
  #isCalm = false;

  constructor(seed: number, lines: string[] | null) {
    this.#seed = seed;
    const world = new World(seed, NOON_MS);
    this.#world = world;
    this.#chronicle = new Chronicle(world, lines);
    const isCalm = world.chance(0.1);
    this.#kinds = new Set(KINDS.filter(() => !isCalm && world.chance(0.5)));
    this.#weather = { rate: 0.04, kinds: this.#kinds, downAs: null, isOverloaded: false, isCalm: false };
    this.#logFaults = new Faults(world);
    this.#storeFaults = new Faults(world);
    rule(this.#logFaults, world, this.#chronicle, this.#weather);
    rule(this.#storeFaults, world, this.#chronicle, this.#weather);
    this.#received = new Received(
      {
        hasRow: (uuid) => this.#uuids.has(uuid),
        hasLetter: (deadLetter) => this.#deadLetters.has(deadLetter),
        hasPayload: (payload) => [...this.#deadLetters.values()].includes(payload),
        hasEvent: (event) => this.#events.has(event),
        countOf: (key) => this.#countOf(key),
      },
      FIRST_OFFSET,
    );
    this.#upstream = new Upstream(world, this.#chronicle, this.#weather, {
      symbols: SYMBOLS,
      framesPerSecond: world.between(1, 3),
    });
    this.#upstream.onHanded = (machine, text) => {
      this.#chronicle.note(`frame ${text}`);
      const producer = producerOf(this.#producers, machine);
      if (producer !== undefined) countFrame(producer, text);
    };
    this.#directory = mkdtempSync(join(existsSync(SHARED_MEMORY) ? SHARED_MEMORY : tmpdir(), "simulation-"));
  }

  run(): Outcome {
    const world = this.#world;
    try {
      this.#start();
      this.#tables = new Database(join(this.#directory, "market.sqlite"), { readonly: true });
      this.#misfortune();
      world.run(world.between(30_000, 60_000));
      const recoveryMs = this.#settle();
      return this.#outcome(recoveryMs);
    } finally {
      this.#end();
      // What still moves in a dead process moves now, and not in the next run.
      world.run(0);
      this.#tables?.close();
      rmSync(this.#directory, { recursive: true, force: true });
    }
  }

  // ---- The process ------------------------------------------------------------------------------------------

  #start(): void {
    const host = newHost(this.#world);
    const { clock } = host;
    const directory = this.#directory;
    const store = openSqliteStore({ directory, sync: "normal" });
    const log = openSqliteLog({ directory, topic: "market", sync: "normal", bytesMax: 1e9, clock, metrics });
    const reader = log.openReader(store.commits);
    const controller = new AbortController();
    const processor = createProcessor({
      log: this.#reader(host, reader),
      store: this.#writer(host, store),
      clock,
      logger,
      metrics,
    });
    const options = { symbols: SYMBOLS, queueWeightMax: 16_384 };
    const producer = startProducer(host, this.#appender(host, log), this.#upstream, options);
    this.#producers.push(producer);
    const process: Process = {
      host,
      store,
      log,
      producer,
      processor,
      stop: () => controller.abort(),
      isEnded: false,
    };
    this.#process = process;
    host.machine.every(TRIGGER_MS, () => void processor.trigger());
    processor.run(controller.signal).then(
      () => {
        process.isEnded = true;
      },
      (error: unknown) => {
        if (host.machine.state === "dead") return;
        this.#failures.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
        this.#end();
        this.#startLater();
      },
    );
  }

  /** kill -9 as far as SQLite can tell: what was committed stays, and nothing else happens. */
  #end(): void {
    const process = this.#process;
    if (process === null) return;
    this.#process = null;
    process.host.machine.kill();
    if (process.producer.state === "running") process.producer.state = "killed";
    process.log[Symbol.dispose]();
    process.store[Symbol.dispose]();
  }

  #startLater(): void {
    this.#world.after(this.#world.between(1, 4_000), () => {
      if (this.#process === null) this.#start();
    });
  }

  #appender(host: Host, log: SqliteLog): LogWriter {
    const append: LogWriter["append"] = async (entries) => {
      await log.append(entries);
      for (const { kind, value } of entries) {
        const offset = this.#nextOffset++;
        this.#chronicle.note(`log ${offset} ${kind} ${value.length}`);
        this.#received.note(PARTITION, { kind, offset, timestampMs: this.#world.nowMs, value });
      }
    };
    const lost = () => new LogUnavailableError("no answer");
    return { append: (entries) => this.#ask(host, this.#logFaults, "append", () => append(entries), lost) };
  }

  #reader(host: Host, inner: LogReader): LogReader {
    const ask = <T>(operation: LogOperation, work: () => Promise<T>) =>
      this.#ask(host, this.#logFaults, operation, work, () => new LogUnavailableError("no answer"));
    return {
      deliveries: (signal) => inner.deliveries(signal),
      position: (epoch, id) => ask("position", () => inner.position(epoch, id)),
      seek: (epoch, id, offset) => inner.seek(epoch, id, offset),
      commit: (epoch, id, position) =>
        ask("commit", () => {
          this.#chronicle.note(`commit ${position.offset} ${position.metadata}`);
          this.#received.checkCommit(id, position.offset);
          return inner.commit(epoch, id, position);
        }),
    };
  }

  /** What a dead process asked for and its own files had not yet heard never happens. */
  #ask<Operation extends string, T>(
    host: Host,
    faults: Faults<Operation>,
    operation: Operation,
    work: () => Promise<T>,
    lost: () => Error,
  ): Promise<T> {
    host.flightCount += 1;
    const never = new Promise<T>(() => {});
    return request<Operation, Promise<T>>(host.machine, faults, operation, {
      work: () => (host.machine.state === "dead" ? never : work()),
      lost,
    })
      .then((result) => result)
      .finally(() => {
        host.flightCount -= 1;
      });
  }

  #writer(host: Host, store: SqliteStore): StoreWriter {
    const lost = () => new StoreUnavailableError("no answer");
    const ask = <T>(operation: StoreOperation, work: () => Promise<T>) =>
      this.#ask(host, this.#storeFaults, operation, work, lost);
    return {
      rowsPerPutMax: 16,
      putsInFlightMax: store.putsInFlightMax,
      groupOf: (row) => store.groupOf(row),
      putTrades: (rows) =>
        ask("putTrades", async () => {
          await store.putTrades(rows);
          for (const { uuid } of rows) this.#uuids.add(uuid);
        }),
      putWindows: (windows) => ask("putWindows", () => store.putWindows(windows)),
      putWindowAt: (stored) => ask("putWindows", () => store.putWindowAt(stored)),
      async *scanWindows(kind, symbol, range) {
        await ask("scanTrades", async () => {});
        yield* store.scanWindows(kind, symbol, range);
      },
      putEvents: (rows) =>
        ask("putEvents", async () => {
          await store.putEvents(rows);
          for (const { event_timestamp, session, sequence } of rows) {
            this.#events.add(`${event_timestamp} ${session} ${sequence}`);
          }
        }),
      putDead: (deadLetters) =>
        ask("putDead", async () => {
          await store.putDead(deadLetters);
          for (const { session, sequence, item, payload } of deadLetters) {
            this.#deadLetters.set(`${session} ${sequence} ${item}`, Buffer.from(payload).toString("hex"));
          }
        }),
      isEmpty: () => ask("isEmpty", () => store.isEmpty()),
      async *scanTrades(symbol, range) {
        await ask("scanTrades", async () => {});
        yield* store.scanTrades(symbol, range);
      },
      async *scanReceived(sinceMs) {
        await ask("scanReceived", async () => {});
        yield* store.scanReceived?.(sinceMs) ?? [];
      },
    };
  }

  // ---- What happens -----------------------------------------------------------------------------------------

  #misfortune(): void {
    const world = this.#world;
    if (this.#kinds.size === 0) return;
    world.after(world.between(200, 9_000), () => {
      if (this.#isCalm) return;
      const process = this.#process;
      if (process !== null && process.producer.state === "running") {
        const { host, producer } = process;
        const what = world.pick(4);
        if (what < 2) {
          if (host.flightCount > 0) this.#chronicle.fire("local_killed");
          this.#end();
          this.#startLater();
        } else if (what === 2) {
          if (host.flightCount > 0) this.#chronicle.fire("local_stopped");
          this.#stop(process);
        } else if (this.#kinds.has("clock_jump_back")) {
          if (host.flightCount > 0) this.#chronicle.fire("clock_jump_back");
          host.skewMs -= world.pick(5_000);
        } else if (producer.host === host) this.#upstream.reset();
      }
      this.#misfortune();
    });
  }

  /** As local.ts does it: first the feed, then what it handed over, then the processor, then the files. */
  #stop(process: Process): void {
    process.producer.stop();
    let isAborted = false;
    const again = () => {
      if (this.#process !== process) return;
      if (process.producer.state === "ended" && !isAborted) {
        isAborted = true;
        process.stop();
      }
      if (process.isEnded) {
        this.#end();
        this.#startLater();
      } else this.#world.after(20, again);
    };
    again();
  }

  // ---- The end ----------------------------------------------------------------------------------------------

  #settle(): number | null {
    const world = this.#world;
    this.#isCalm = true;
    this.#weather.isCalm = true;
    this.#upstream.isTrading = false;
    this.#chronicle.note("calm");
    const startedMs = world.elapsedMs;
    const isSettled = () =>
      this.#process !== null &&
      this.#process.producer.state === "running" &&
      this.#producers.every(isDrained) &&
      this.#received.checkedOffset(PARTITION) >= this.#nextOffset &&
      this.#process.processor.health().windowsUnwritten === 0;
    while (world.elapsedMs - startedMs < SETTLED_MS_MAX) {
      world.run(500);
      if (!isSettled()) continue;
      const recoveryMs = world.elapsedMs - startedMs;
      world.run(LATE_MS_MAX);
      return isSettled() ? recoveryMs : null;
    }
    return null;
  }

  #countOf(key: string): number {
    const [kind, symbol, atMs] = key.split(" ");
    const { table, shape } = AGGREGATES.find((aggregate) => aggregate.kind === kind)!;
    const query =
      shape === "average"
        ? `SELECT trade_count AS n FROM ${table} WHERE symbol = ?1 AND window_end = ?2 AND hour = ?3`
        : `SELECT trade_count AS n FROM ${table} WHERE symbol = ?1 AND window_start = ?2 AND day = ?3`;
    const at = Number(atMs);
    const third = shape === "average" ? at - (at % 3_600_000) : new Date(at).toISOString().slice(0, 10);
    return (
      this.#tables!.query<{ n: number }, [string, number, number | string]>(query).get(symbol!, at, third)
        ?.n ?? 0
    );
  }

  *#windows(): Generator<WindowRow> {
    for (const { kind, table } of AGGREGATES) {
      const rows = this.#tables!.query<WindowRow["row"] & { version: number }, []>(`SELECT * FROM ${table}`);
      for (const { version: _, ...row } of rows.all()) yield { kind, row } as WindowRow;
    }
  }

  #outcome(recoveryMs: number | null): Outcome {
    const rows = this.#tables!.query<TradeRow, []>("SELECT * FROM trades").all();
    const verdict = this.#received.verdict(rows, this.#windows());
    const between = betweenFeedAndLog(this.#producers, this.#received);
    for (const { error } of this.#producers) if (error !== null) this.#failures.push(String(error));
    return {
      seed: this.#seed,
      faults: this.#chronicle.counts,
      trades: verdict.trades,
      lost: verdict.lost + between.lost,
      doubled: verdict.doubled + between.doubled,
      wrongWindows: verdict.wrongWindows,
      commits: this.#received.commitCount,
      commitsUnlawful: this.#received.commitsUnlawful,
      failures: this.#failures,
      recoveryMs,
      problems: this.#received.problems,
      hash: this.#chronicle.hash.toString(16),
    };
  }
}
