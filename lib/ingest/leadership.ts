// The life of a producer on its topic, from the first wait for Kafka to the release of the lease: when its feed may
// open, when the relay and the heartbeats end, and what becomes of it when another producer has the lease. It is a
// state machine over parts that it is handed; it opens no feed, no file and no connection, and touches no trade.

import assert from "node:assert/strict";
import type { Clock } from "../base/clock.ts";
import { LogUnavailableError, mayPass } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { LeaseFields } from "../contracts/lease.ts";
import { watchedSymbols } from "../contracts/watchlist.ts";
import type { ControlTopic } from "../kafka/control-topic.ts";
import { newSession } from "../model/identity.ts";
import type { SqliteLog } from "../outbox/log.ts";
import type { Ingest } from "./ingest.ts";
import { acquireLease, type Lease, LeaseLostError } from "./lease.ts";
import type { Relay } from "./relay.ts";
import { stepDown } from "./step-down.ts";
import { seedWatchlist, type WatchlistSync } from "./watchlist-sync.ts";

/**
 * - `starting`: the lease is not acquired yet. After an own earlier lease the feed runs already, unconfirmed.
 * - `leading`: the lease is acquired, and the watchlist is seeded and followed.
 * - `draining`: the feed has ended. The relay sends what it can, then the heartbeats end.
 * - `stopping`: a stop came before the lease. What was received is sent; the lease is not waited for any more.
 * - `stepping down`: another producer has the lease. Confirmed records are sent, the others are quarantined.
 * - `released`: everything has ended in good order.
 * - `failed`: an error that ends the process.
 */
export type LeadershipState =
  | "starting"
  | "leading"
  | "draining"
  | "stopping"
  | "stepping down"
  | "released"
  | "failed";

/** `drained`: everything is sent, or the time for it is over. `stopped`: the stop ended a wait for Kafka. */
export type LeadershipEvent = "acquired" | "feed ended" | "drained" | "stopped" | "lease lost" | "failed";

const TRANSITIONS: Readonly<
  Record<LeadershipState, Readonly<Partial<Record<LeadershipEvent, LeadershipState>>>>
> = {
  starting: {
    acquired: "leading",
    "feed ended": "draining",
    stopped: "stopping",
    "lease lost": "stepping down",
    failed: "failed",
  },
  leading: {
    "feed ended": "draining",
    stopped: "stopping",
    "lease lost": "stepping down",
    failed: "failed",
  },
  draining: { drained: "released", stopped: "stopping", "lease lost": "stepping down", failed: "failed" },
  // Nobody hears of the lease any more.
  stopping: { drained: "released", failed: "failed" },
  "stepping down": {},
  released: {},
  failed: {},
};

/** Exported for its test. Null: the event cannot happen in this state. */
export function nextState(state: LeadershipState, event: LeadershipEvent): LeadershipState | null {
  return TRANSITIONS[state][event] ?? null;
}

/** A release that does not arrive costs the next producer LEASE_MS_MAX; a stop waits no longer than this for it. */
export const RELEASE_MS_MAX = 3_000;

export type LeadershipDeps = Readonly<{
  /** What the outbox remembers of its leases, and how much of it is not sent yet. */
  log: Pick<SqliteLog, "lease" | "health">;
  relay: Pick<Relay, "run">;
  /** The lease and the watchlist, as Kafka has them. */
  control: Pick<ControlTopic, "run" | "ready" | "lease" | "watchlist">;
  /** Resolves when Kafka knows the topics of the trades; may be repeated. */
  ready: () => Promise<void>;
  /** This process, for people. */
  self: Pick<LeaseFields, "host" | "pid">;
  /** FINNHUB_STOCKS_TICKERS. */
  setting: readonly string[];
  /** Repeats the work until it succeeds, and says meanwhile what is waited for. Rejects at once at a stop. */
  waitFor: <T>(what: string, work: () => Promise<T>) => Promise<T>;
  clock: Clock;
  logger: Logger;
  /** Asks for a stop. */
  signal: AbortSignal;
}>;

/** What runs for as long as the producer receives. `feedSignal` ends the ingest, a stop the sync. */
export type LeadershipWork = Readonly<{
  ingest: Pick<Ingest, "run">;
  watchlistSync: Pick<WatchlistSync, "run">;
}>;

type Work = Readonly<{
  ingested: Promise<void>;
  /** The feed has ended and the relay has sent what it could. */
  emptied: Promise<void>;
  /** After the lease was acquired: rejects when it is lost, resolves when the heartbeats have ended. */
  led: Promise<unknown>;
}>;

type Happened = Readonly<{ event: LeadershipEvent; error?: unknown }>;

export class Leadership implements AsyncDisposable {
  readonly #deps: LeadershipDeps;
  /** Whether this outbox had the lease last and did not release it: then it receives without waiting for Kafka. */
  readonly #isOwn: boolean;
  #state: LeadershipState = "starting";
  #lease: Lease | null = null;

  // What ends each part. The feed ends at a stop too.
  readonly #feedStop = new AbortController();
  readonly #relayStop = new AbortController();
  readonly #heartbeatStop = new AbortController();
  readonly #topicStop = new AbortController();

  // The parts as they run.
  readonly #relaying: Promise<void>;
  readonly #following: Promise<void>;
  readonly #acquiring: Promise<void>;
  #heartbeats: Promise<void> = Promise.resolve();
  #ingesting: Promise<void> = Promise.resolve();

  /** Rejects at a stop. */
  readonly #stopped: Promise<never>;
  /** Rejects when waiting for Kafka cannot help. */
  readonly #hopeless: Promise<never>;
  /** Rejects when the relay or the control topic fails: nothing would send what is received. */
  readonly #partFailed: Promise<never>;

  /** Starts the relay, follows the control topic, and begins to acquire the lease. */
  constructor(deps: LeadershipDeps) {
    this.#deps = deps;
    const { log, relay, control, signal } = deps;
    this.#isOwn = log.lease.isOwn;
    // A lease that is not acquired yet counts as unconfirmed.
    log.lease.guard(() => this.isConfirmed());
    // What an earlier run left is sent without a lease: no other producer has it, and the outbox does not show the
    // relay what is unconfirmed.
    this.#relaying = relay.run(this.#relayStop.signal);
    // The topic is followed for longer than the feed runs: the lease is released at the very end.
    this.#following = control.run(this.#topicStop.signal);
    this.#stopped = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
    });
    this.#hopeless = Promise.race([this.#following, this.#relaying]).then(() => this.#stopped);
    this.#partFailed = Promise.race([failureOf(this.#relaying), failureOf(this.#following)]);
    this.#acquiring = this.#acquire();
    // Each is awaited in mayOpenFeed, in run or at the disposal; until then nobody listens.
    const races = [this.#stopped, this.#hopeless, this.#partFailed];
    for (const promise of [this.#relaying, this.#following, this.#acquiring, ...races])
      promise.catch(() => {});
  }

  get state(): LeadershipState {
    return this.#state;
  }

  /** Asked at every append: whether no other producer can have the lease at this moment. */
  isConfirmed(): boolean {
    return this.#lease?.isConfirmed() ?? false;
  }

  /** The feed ends when it aborts: at a stop, or when another producer has the lease. */
  get feedSignal(): AbortSignal {
    return AbortSignal.any([this.#deps.signal, this.#feedStop.signal]);
  }

  /** What the feed subscribes to first: the watchlist as far as it is known, otherwise the setting. */
  get firstSymbols(): readonly string[] {
    const { log, control, setting } = this.#deps;
    return this.#isOwn ? (log.lease.symbols ?? setting) : watchedSymbols(control.watchlist);
  }

  /**
   * Resolves when the feed may open: at once after an own earlier lease, otherwise when the lease is acquired. Rejects
   * with LeaseLostError when another producer has it, with what waiting cannot mend, and with the reason of a stop.
   */
  async mayOpenFeed(): Promise<void> {
    if (this.#isOwn) return;
    const { error } = await this.#enter(this.#acquiring.then(() => "acquired"));
    if (error instanceof LeaseLostError) throw await this.#stepDown(error);
    if (error !== undefined) throw error;
  }

  /**
   * Receives until a stop is asked for and what was received is sent, as far as that takes some seconds; then the
   * lease is released. Rejects with LeaseLostError when another producer has it, and with what else ends the process.
   */
  async run({ ingest, watchlistSync }: LeadershipWork): Promise<void> {
    const { signal } = this.#deps;
    this.#ingesting = ingest.run();
    const work: Work = {
      ingested: this.#ingesting,
      emptied: this.#ingesting.then(() => this.#sendRest()),
      led: this.#acquiring.then(() => Promise.all([this.#heartbeats, watchlistSync.run(signal)])),
    };
    for (const promise of [work.emptied, work.led]) promise.catch(() => {});
    for (;;) {
      const { error } = await this.#enter(this.#nextEvent(work));
      if (this.#state === "released") return this.#release();
      if (this.#state === "failed") {
        this.#feedStop.abort();
        await Promise.allSettled([this.#ingesting]);
        throw error;
      }
      if (error instanceof LeaseLostError) throw await this.#stepDown(error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#topicStop.abort();
    this.#relayStop.abort();
    await Promise.allSettled([this.#relaying]);
  }

  // ---- Transitions ------------------------------------------------------------------------------------------

  /** What ends the present state. */
  #nextEvent({ ingested, emptied, led }: Work): Promise<LeadershipEvent> {
    const feedEnded = (): LeadershipEvent => "feed ended";
    const drained = (): LeadershipEvent => "drained";
    switch (this.#state) {
      case "starting": {
        const acquired = this.#acquiring.then((): LeadershipEvent => "acquired");
        return Promise.race([acquired, ingested.then(feedEnded), this.#partFailed]);
      }
      case "leading":
        return Promise.race([ingested.then(feedEnded), failureOf(led), this.#partFailed]);
      case "draining": {
        // A broker that hangs is not waited for: what was received is safe on disk.
        const late = emptied.then(() => this.#deps.clock.sleep(RELEASE_MS_MAX));
        return Promise.race([
          Promise.all([emptied, led]).then(drained),
          late.then(drained),
          failureOf(this.#following),
        ]);
      }
      default:
        return emptied.then(drained);
    }
  }

  /** Waits for the event, and moves to the state that it leads to. The error of `stopped` is the stop's reason. */
  async #enter(awaited: Promise<LeadershipEvent>): Promise<Happened> {
    const happened = await awaited.then(
      (event): Happened => ({ event }),
      (error: unknown): Happened => ({ event: this.#eventOf(error), error }),
    );
    const next = nextState(this.#state, happened.event);
    assert.ok(next !== null, `${happened.event} while ${this.#state}`);
    this.#state = next;
    return happened;
  }

  #eventOf(error: unknown): LeadershipEvent {
    const { signal } = this.#deps;
    if (this.#state === "stopping") return "failed";
    if (error instanceof LeaseLostError) return "lease lost";
    return signal.aborted && error === signal.reason ? "stopped" : "failed";
  }

  // ---- What the states do -----------------------------------------------------------------------------------

  /** What can fail for good comes before the claim, which would make another producer wait for nothing. */
  async #acquire(): Promise<void> {
    const { log, control, ready, setting, waitFor, clock, logger, signal } = this.#deps;
    const { watchlist } = control;
    await waitFor("Kafka", () => this.#whileHopeful(ready()));
    await waitFor("the tickers' topic", () => this.#whileHopeful(control.ready(signal)));
    const session = newSession(clock.random) + newSession(clock.random);
    const self = { session, ...this.#deps.self };
    const acquire = async () => {
      // Kept at once: a stop in this moment ends the wait, and the lease is released all the same.
      this.#lease = await acquireLease({
        topic: control.lease,
        self,
        journal: log.lease,
        clock,
        logger,
        signal,
      });
      return this.#lease;
    };
    const lease = await waitFor("the lease on the feed", () => this.#whileHopeful(acquire()));
    this.#heartbeats = lease.run(this.#heartbeatStop.signal);
    this.#heartbeats.catch(() => {});
    await waitFor("the tickers' topic", () =>
      this.#whileHopeful(Promise.race([seedWatchlist(watchlist, setting, clock), this.#heartbeats])),
    );
    this.#rememberWatchlist();
    watchlist.onChange(() => this.#rememberWatchlist());
  }

  /** Rejects as soon as waiting cannot help, or a stop is requested. */
  #whileHopeful<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#hopeless, this.#stopped]);
  }

  /** For a start during which Kafka is away. */
  #rememberWatchlist(): void {
    const { log, control, logger } = this.#deps;
    try {
      log.lease.keepSymbols(watchedSymbols(control.watchlist));
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      logger.warn("the watchlist could not be saved for a start without Kafka", { error });
    }
  }

  /** With the feed ended. Who steps down lets the relay go on until stepDown has seen the outbox. */
  async #sendRest(): Promise<void> {
    if (!this.#feedStop.signal.aborted) this.#relayStop.abort();
    await this.#relaying;
    this.#heartbeatStop.abort();
  }

  /** Resolves with the error that ends the process. */
  async #stepDown(error: LeaseLostError): Promise<LeaseLostError> {
    const { log, clock, signal } = this.#deps;
    this.#feedStop.abort();
    await this.#ingesting;
    return stepDown({ log, relaying: this.#relaying, relayStop: this.#relayStop, clock, signal }, error);
  }

  async #release(): Promise<void> {
    const { clock, logger } = this.#deps;
    const lease = this.#lease;
    try {
      if (lease !== null) await Promise.race([lease.release(), clock.sleep(RELEASE_MS_MAX)]);
    } catch (error) {
      if (!mayPass(error)) throw error;
      logger.warn("the lease on the feed could not be released: another producer will wait for it", {
        error,
      });
    }
    this.#topicStop.abort();
    await Promise.race([this.#following, clock.sleep(RELEASE_MS_MAX)]);
  }
}

/** Rejects as the promise does; never resolves. */
function failureOf(promise: Promise<unknown>): Promise<never> {
  return promise.then(() => new Promise<never>(() => {}));
}
