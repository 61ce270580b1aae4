// Acquiring, keeping and losing the lease on the feed, over the one key of the control topic that contracts/lease.ts
// folds. It decides by its own monotonic clock and by the order of the topic alone, never by a time that another machine
// wrote. It opens no feed and stops no process: its owner is told when the lease is lost.

import type { Clock } from "../base/clock.ts";
import { LogUnavailableError, mayPass, SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import { outageLoop } from "../base/outages.ts";
import { retry } from "../base/retry.ts";
import {
  encodeLeaseRecord,
  isFree,
  type LeaseFields,
  type LeaseJournal,
  type LeaseState,
  type LeaseTopic,
} from "../contracts/lease.ts";

/** Three heartbeats may go missing before a lease is unconfirmed. */
export const HEARTBEAT_EVERY_MS = 3_000;
/** The silence after which another producer may take over. */
export const LEASE_MS_MAX = 15_000;
/** How long a heartbeat that was read back confirms the lease: well below the silence that lets another take over. */
export const CONFIRMED_MS_MAX = 10_000;
const POLL_EVERY_MS = 1_000;
/** So many heartbeats prove that their owner lives. */
const HEARTBEATS_SEEN_MIN = 2;
/** The claims of one start: each may lose to another producer, and what a dead one has sent comes to an end. */
const CLAIMS_MAX = 10;
/** What one poll may count as silence: if it takes longer, the brokers are away, for the owner too. */
const POLL_MS_MAX = 2_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 3_000;
/** Heartbeats that were sent and are not read back yet. */
const HEARTBEATS_IN_FLIGHT_MAX = 16;

export type LeaseDeps = Readonly<{
  topic: LeaseTopic;
  self: Pick<LeaseFields, "session" | "host" | "pid">;
  journal: LeaseJournal;
  clock: Clock;
  logger: Logger;
  signal: AbortSignal;
}>;

export interface Lease {
  /** Sends heartbeats until the signal aborts. Rejects with LeaseLostError when the lease is lost. */
  run(signal: AbortSignal): Promise<void>;
  /** Asked at every append. False: another producer may have the lease by now, and receive the same trades. */
  isConfirmed(): boolean;
  /** After the last send: the next producer need not wait. Rejects with LogUnavailableError. */
  release(): Promise<void>;
}

/** Another producer has the lease. */
export class LeaseLostError extends SetupError {}

type Moment = Readonly<{ monotonicMs: number; wallMs: number }>;

/**
 * Resolves when this process has the lease. Rejects with LeaseLostError when another one has it, and with the signal's
 * reason when it aborts. Brokers that are away are waited for.
 */
export async function acquireLease(deps: LeaseDeps): Promise<Lease> {
  const { topic, self, journal, clock } = deps;
  await retryKafka(deps, () => topic.readToEnd());
  for (let attempt = 1; ; attempt++) {
    const previous = await waitUntilFree(deps);
    // Before the claim, which would hide the other one's lease from the next start.
    const isForeign = previous !== null && journal.ownerOf(previous.session) === null;
    if (isForeign) await retryKafka(deps, async () => void (await journal.quarantineUnconfirmed()));
    await retryKafka(deps, async () => journal.claim(self.session));
    const sentAt = readClocks(clock);
    const fields = { ...self, holder: journal.holder, sinceMs: clock.now(), atMs: clock.now() };
    const place = { after: previous?.term ?? 0, seen: previous?.offset ?? 0 };
    const claim = encodeLeaseRecord({ ...fields, type: "claim", ...place });
    // A repeat is the same claim: it wins once or not at all.
    await retryKafka(deps, () => topic.put(claim));
    await retryKafka(deps, () => topic.readToEnd());
    const state = topic.state();
    if (state?.session === self.session) return openLease(deps, state, sentAt);
    // Another claim was first, or a heartbeat came last; perhaps of a process of this same outbox, killed since.
    if (attempt < CLAIMS_MAX) continue;
    if (state !== null) throw refusalError(state);
    throw new LogUnavailableError(
      "Kafka did not return this producer's claim to the lease",
      "check the brokers, then start the producer again",
    );
  }
}

/**
 * The lease that a claim may follow: if it changes before the claim arrives, the claim is void. Null: nobody ever had
 * it.
 */
async function waitUntilFree(deps: LeaseDeps): Promise<LeaseState | null> {
  for (;;) {
    const state = deps.topic.state();
    if (state === null || isFree(state, deps.journal)) return state;
    const silent = await waitWhileSilent(deps, state);
    if (silent !== null) return silent;
  }
}

/** That lease as it is after the silence; null: it is another one by now. Rejects when its owner shows life. */
async function waitWhileSilent(deps: LeaseDeps, lease: LeaseState): Promise<LeaseState | null> {
  const { topic, clock, logger, signal } = deps;
  const { host, pid, session } = lease;
  logger.info("another producer had the lease: waiting to see whether it is alive", {
    host,
    pid,
    waitMsMax: LEASE_MS_MAX,
  });
  let last = lease;
  let heartbeatCount = 0;
  let silentMs = 0;
  let polledAtMs = clock.monotonic();
  while (silentMs < LEASE_MS_MAX) {
    await clock.sleep(POLL_EVERY_MS, signal);
    signal.throwIfAborted();
    const isRead = await tryToRead(deps);
    const nowMs = clock.monotonic();
    const state = topic.state();
    if (state === null || state.session !== session || state.isReleased) return null;
    silentMs = isRead ? silentMs + Math.min(nowMs - polledAtMs, POLL_MS_MAX) : 0;
    polledAtMs = nowMs;
    if (state.offset === last.offset) continue;
    // One may have been in flight when its process died.
    heartbeatCount += 1;
    if (heartbeatCount >= HEARTBEATS_SEEN_MIN) throw refusalError(state);
    last = state;
    silentMs = 0;
  }
  logger.warn("the producer that had the lease is silent; this one takes over", { host, pid, silentMs });
  return last;
}

async function tryToRead({ topic, clock, logger }: LeaseDeps): Promise<boolean> {
  const outage = outageLoop({ clock, logger }, "the log", "lease");
  try {
    await topic.readToEnd();
    outage.worked();
    return true;
  } catch (error) {
    if (!(error instanceof LogUnavailableError)) throw error;
    outage.failed(error);
    return false;
  }
}

/** Repeats while Kafka, or the outbox's file, is unavailable. Rejects with the signal's reason when it aborts. */
function retryKafka({ clock, logger, signal }: LeaseDeps, work: () => Promise<void>): Promise<void> {
  const outage = outageLoop({ clock, logger }, "the log", "lease");
  const isRetryable = (error: unknown) => error instanceof LogUnavailableError;
  return retry({ clock, firstMs: RETRY_FIRST_MS, maxMs: RETRY_MAX_MS, isRetryable, outage, signal }, work);
}

/** `claimedAt`: when the claim was sent, which counts as the first heartbeat. */
function openLease(deps: LeaseDeps, acquired: LeaseState, claimedAt: Moment): Lease {
  const { topic, journal, clock, logger } = deps;
  const self = { ...deps.self, holder: journal.holder };
  const { term, sinceMs } = acquired;
  const { promise: lost, resolve: lose } = Promise.withResolvers<LeaseState>();
  /** When each heartbeat that is not read back yet was sent, by its number. */
  const inFlight = new Map<number, Moment>();
  /** When the newest heartbeat that was read back was sent; null: the lease is lost or released. */
  let confirmedAt: Moment | null = claimedAt;
  let lastNumber = 0;
  let isOver = false;
  const unlisten = topic.onRecord((record, state) => {
    if (isOver || state === null) return;
    if (state.session !== self.session) {
      isOver = true;
      confirmedAt = null;
      lose(state);
    } else if (record.type === "alive" && record.session === self.session) {
      const sentAt = inFlight.get(record.number);
      if (sentAt === undefined) return;
      for (const older of inFlight.keys()) if (older <= record.number) inFlight.delete(older);
      confirmedAt = sentAt;
      confirmReceived();
    }
  });

  /** No other owner came in between and none can now, so only this outbox has what was received so far. */
  function confirmReceived(): void {
    if (isConfirmed()) journal.confirm();
  }

  /** By both clocks: the monotonic one stands still while a machine is suspended, and the other may be set. */
  function isConfirmed(): boolean {
    if (confirmedAt === null) return false;
    const { monotonicMs, wallMs } = readClocks(clock);
    const ageMs = Math.max(monotonicMs - confirmedAt.monotonicMs, Math.abs(wallMs - confirmedAt.wallMs));
    return ageMs < CONFIRMED_MS_MAX;
  }

  async function sendHeartbeat(): Promise<void> {
    // Sent after a long silence too: in an older term it changes nothing, and in the current one it is expected.
    const sentAt = readClocks(clock);
    lastNumber += 1;
    inFlight.set(lastNumber, sentAt);
    for (const oldest of inFlight.keys()) {
      if (inFlight.size <= HEARTBEATS_IN_FLIGHT_MAX) break;
      inFlight.delete(oldest);
    }
    const [number, atMs] = [lastNumber, clock.now()];
    await topic.put(encodeLeaseRecord({ ...self, type: "alive", term, number, sinceMs, atMs }));
  }

  async function sendHeartbeats(signal: AbortSignal): Promise<void> {
    const outage = outageLoop({ clock, logger }, "the log", "heartbeats");
    try {
      while (!signal.aborted && !isOver) {
        try {
          await sendHeartbeat();
          outage.worked();
        } catch (error) {
          if (!mayPass(error)) throw error;
          outage.failed(error);
        }
        await clock.sleep(HEARTBEAT_EVERY_MS, signal);
      }
    } finally {
      outage.over();
    }
  }

  confirmReceived();
  return {
    async run(signal) {
      const stopping = new AbortController();
      const beating = sendHeartbeats(AbortSignal.any([signal, stopping.signal]));
      try {
        const other = await Promise.race([lost, beating.then(() => null)]);
        if (other !== null) throw lossError(other);
      } finally {
        stopping.abort();
      }
      if (isOver) throw lossError(await lost);
    },
    isConfirmed,
    async release() {
      unlisten();
      if (isOver) return;
      isOver = true;
      confirmedAt = null;
      journal.release();
      await topic.put(encodeLeaseRecord({ ...self, type: "released", term, sinceMs, atMs: clock.now() }));
    },
  };
}

function readClocks(clock: Clock): Moment {
  return { monotonicMs: clock.monotonic(), wallMs: clock.now() };
}

function refusalError(state: LeaseState): LeaseLostError {
  return new LeaseLostError(
    `another producer holds the feed: ${describeOwner(state)}`,
    "two would store every trade twice: stop that one, or give this one a KAFKA_TOPIC_NAME of its own",
  );
}

function lossError(state: LeaseState): LeaseLostError {
  return new LeaseLostError(
    `another producer has taken over the feed: ${describeOwner(state)}`,
    "this one was silent for too long (paused, suspended, or cut off from Kafka), so it stops sending; run only one " +
      "of them",
  );
}

function describeOwner({ host, pid, sinceMs }: LeaseState): string {
  return `process ${pid} on ${host}, since ${new Date(sinceMs).toISOString()}`;
}
