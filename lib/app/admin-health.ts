// What admin knows of the rest of the pipeline: the health of each other process, how far the processors are behind,
// whether the store answers a read and the topic's records arrive. Each is asked again and again and remembered. It
// judges nothing; health/pipeline.ts does.

import type { Clock } from "../base/clock.ts";
import type { Metrics } from "../base/metrics.ts";
import { type HealthDocument, healthDocument } from "../health/health.ts";
import { brokerPart, type ProbeSnapshot, remotePart, storePart, tailPart } from "../health/pipeline.ts";
import type { LagMonitor } from "../kafka/lag-monitor.ts";
import { placeOf } from "../kafka/topics.ts";
import type { RemoteHealth } from "../web/remote-health.ts";
import { EVERY_2_SECONDS, type Job } from "./jobs.ts";

export type AdminHealthDeps = Readonly<{
  remotes: RemoteHealth;
  lags: LagMonitor;
  /** One read of the store; rejects when it is not answered. */
  probeStore: () => Promise<void>;
  /** The topic of the trades, whose records the live view is fed with. */
  topic: string;
  clock: Clock;
  metrics: Metrics;
  simulated: boolean;
}>;

export class AdminHealth {
  readonly #deps: AdminHealthDeps;
  readonly #startedAtMs: number;
  #probe: ProbeSnapshot = { okAtMs: null, problem: null };
  #lastRecordAtMs: number | null = null;
  /** Since when the topic grows and no record of it arrives; null = records arrive, or it does not grow. */
  #deafSinceMs: number | null = null;

  constructor(deps: AdminHealthDeps) {
    this.#deps = deps;
    this.#startedAtMs = deps.clock.now();
    deps.metrics.consumerLag.readFrom(() => {
      const { askedAtMs, problem, lags } = deps.lags.snapshot();
      return askedAtMs === null || problem !== null
        ? Number.NaN
        : lags.reduce((sum, { lag }) => sum + lag, 0);
    });
  }

  jobs(): Job[] {
    return [
      { name: "health of the others", schedule: EVERY_2_SECONDS, run: this.#deps.remotes.poll },
      { name: "lag", schedule: EVERY_2_SECONDS, run: () => this.#pollLags() },
      { name: "store probe", schedule: EVERY_2_SECONDS, run: () => this.#probeStore() },
    ];
  }

  /** One round of everything, so that the first document is knowledge and not hope. Never rejects. */
  async poll(): Promise<void> {
    await Promise.all([this.#deps.remotes.poll(), this.#pollLags(), this.#probeStore()]);
  }

  /** Records of the topic arrived at that time. */
  noteRecords(atMs: number): void {
    this.#lastRecordAtMs = atMs;
  }

  document(): HealthDocument {
    const { remotes, lags, clock, simulated } = this.#deps;
    const startedAtMs = this.#startedAtMs;
    const nowMs = clock.now();
    const remoteParts = remotes
      .snapshots()
      .map((remote) => [remote.name, remotePart(remote, startedAtMs, nowMs)] as const);
    const tail = { lastRecordAtMs: this.#lastRecordAtMs, deafSinceMs: this.#deafSinceMs };
    return healthDocument(simulated, {
      ...Object.fromEntries(remoteParts),
      kafka: brokerPart(lags.snapshot(), startedAtMs, nowMs),
      cassandra: storePart(this.#probe, startedAtMs, nowMs),
      live: tailPart(tail, nowMs),
    });
  }

  async #pollLags(): Promise<void> {
    const { lags, clock } = this.#deps;
    const [pollAtMs, endBefore] = [lags.snapshot().askedAtMs, this.#endOfTopic()];
    await lags.poll();
    const lastRecordAtMs = this.#lastRecordAtMs;
    const isHeard = pollAtMs === null || (lastRecordAtMs !== null && lastRecordAtMs >= pollAtMs);
    const isDeaf = !isHeard && this.#endOfTopic() !== endBefore;
    this.#deafSinceMs = isDeaf ? (this.#deafSinceMs ?? clock.now()) : null;
  }

  /** The sum of its partitions' ends: it rises with every record. */
  #endOfTopic(): number {
    const { lags, topic } = this.#deps;
    return lags.snapshot().lags.reduce((sum, { partition, end }) => {
      return placeOf(partition).topic === topic ? sum + end : sum;
    }, 0);
  }

  async #probeStore(): Promise<void> {
    try {
      await this.#deps.probeStore();
      this.#probe = { okAtMs: this.#deps.clock.now(), problem: null };
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      this.#probe = { ...this.#probe, problem };
    }
  }
}
