// What lies between a producer and the log of a run: lib's outbox on a real file that outlives every process, and
// lib's outbox relay to brokers that misbehave a partition at a time. One process has it at a time.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LogFullError } from "../../lib/base/errors.ts";
import type { LogEntry, LogWriter, PartitionId } from "../../lib/contracts/log.ts";
import { createRelay, type RelayLimits } from "../../lib/ingest/relay.ts";
import { openSqliteLog, type SqliteLog } from "../../lib/outbox/log.ts";
import type { FakeLog } from "./fake-log.ts";
import { FakeBrokers } from "./fake-sender.ts";
import type { Chronicle, Kind } from "./faults.ts";
import { type Host, logger, metrics } from "./hosts.ts";
import type { World } from "./world.ts";

/** In memory where the machine has such a place: a run is about crashes of processes, not of disks. */
const SHARED_MEMORY = "/dev/shm";
/** One message in so many. */
const REFUSED_ONE_IN = 40;

export class Outbox {
  readonly brokers: FakeBrokers;
  /** Bugs that a relay met. */
  readonly failures: string[] = [];
  readonly #world: World;
  readonly #chronicle: Chronicle;
  readonly #log: FakeLog;
  readonly #limits: RelayLimits;
  readonly #directory = mkdtempSync(
    join(existsSync(SHARED_MEMORY) ? SHARED_MEMORY : tmpdir(), "simulation-"),
  );
  readonly #downUntilMs = new Map<PartitionId, number>();
  #isCalm = false;
  #open: { host: Host; log: SqliteLog } | null = null;

  constructor(log: FakeLog, world: World, chronicle: Chronicle, kinds: ReadonlySet<Kind>, isTiny: boolean) {
    this.#world = world;
    this.#chronicle = chronicle;
    this.#log = log;
    this.#limits = isTiny
      ? { batchBytesMax: 200 + world.pick(2_000), pageRecordsMax: 1 + world.pick(8) }
      : { batchBytesMax: 256 * 1024, pageRecordsMax: 256 };
    this.brokers = new FakeBrokers(log);
    if (kinds.has("send_too_large")) this.brokers.batchBytesMax = 100 + world.pick(500);
    if (kinds.has("send_refused")) this.brokers.refuses = ({ value }) => this.#isRefused(value);
    this.brokers.isDown = (id) => {
      if ((this.#downUntilMs.get(id) ?? 0) <= world.elapsedMs) return false;
      chronicle.fire("partition_down", id);
      return true;
    };
    this.brokers.onOutcomes = (_batches, outcomes) => {
      const outcomesSeen = new Set(outcomes.map(({ kind }) => kind));
      if (outcomesSeen.has("too_large")) chronicle.fire("send_too_large");
      if (outcomesSeen.has("refused")) chronicle.fire("send_refused");
      if (outcomesSeen.size > 1) chronicle.fire("send_partial", [...outcomesSeen].join());
    };
  }

  #isRefused(value: Uint8Array): boolean {
    return Number(BigInt(Bun.hash(value)) % BigInt(REFUSED_ONE_IN)) === 0;
  }

  /** A process opens the file. `drain` stops the relay, and closes. */
  start(host: Host): { writer: LogWriter; drain: () => Promise<void> } {
    const { clock, machine } = host;
    const log = openSqliteLog({
      directory: this.#directory,
      topic: "market",
      sync: "normal",
      bytesMax: 1e9,
      clock,
      metrics,
    });
    this.#open = { host, log };
    const inner = this.brokers.sender(machine);
    const controller = new AbortController();
    const running = createRelay({
      outbox: log.openOutbox(),
      sender: {
        ...inner,
        async send(batches) {
          host.flightCount += 1;
          const outcomes = await inner.send(batches);
          host.flightCount -= 1;
          return outcomes;
        },
      },
      clock,
      logger,
      metrics,
      limits: this.#limits,
    })
      .run(controller.signal)
      .catch((error: unknown) => {
        if (machine.state === "dead") return;
        this.failures.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
      });
    const append = async (entries: readonly LogEntry[]) => {
      // A dead process has no more steps.
      if (machine.state === "dead") return new Promise<void>(() => {});
      if (this.#log.isFull && entries.some(({ kind }) => kind !== "event")) {
        throw new LogFullError("the outbox of this run is full");
      }
      this.#chronicle.note(`outbox takes ${entries.length}`);
      return log.append(entries);
    };
    return {
      writer: { append },
      drain: async () => {
        controller.abort();
        await running;
        this.kill();
      },
    };
  }

  /** kill -9 as far as SQLite can tell: what was committed stays, and nothing else happens. */
  kill(): void {
    this.#open?.log[Symbol.dispose]();
    this.#open = null;
  }

  /** For so long one partition cannot be written; the others can. */
  takeDown(id: PartitionId, durationMs: number): void {
    this.#downUntilMs.set(id, this.#world.elapsedMs + durationMs);
  }

  calm(): void {
    this.#isCalm = true;
    this.#downUntilMs.clear();
    this.brokers.batchBytesMax = Number.POSITIVE_INFINITY;
    this.brokers.refuses = () => false;
  }

  /** Whether everything has left it. In calm, as an operator would, it tries again what was put aside. */
  isEmpty(): boolean {
    if (this.#open === null) return true;
    const { log } = this.#open;
    if (this.#isCalm && log.dead.count > 0) {
      this.#chronicle.note(`requeued ${log.dead.requeue()}`);
      return false;
    }
    return log.health().recordCount === 0;
  }

  end(): void {
    this.kill();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
