// Taking, keeping and losing the hold on the feed, over the one key of the tickers' topic that contracts/lease.ts folds. It
// decides by its own monotonic clock and by the order of the topic alone, never by a time that another machine
// wrote. It opens no feed and stops no process: whoever holds is told when he no longer does.

import { backoffMs, type Clock } from "../base/clock.ts";
import { LogUnavailableError, SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import {
  encodeLeaseRecord,
  isFree,
  type LeaseFields,
  type LeaseJournal,
  type LeaseState,
  type LeaseTopic,
} from "../contracts/lease.ts";

/** A sign of life, three of which may go missing before a hold is in doubt. */
export const HEARTBEAT_EVERY_MS = 3_000;
/** Silence after which another may take over. */
export const LEASE_MS_MAX = 15_000;
/** Without a confirmed sign of life for so long nothing is sent: well before another may take over. */
export const CONFIRMED_MS_MAX = 10_000;
const LOOK_EVERY_MS = 1_000;
/** Signs of life that prove somebody alive. */
const HEARTBEATS_SEEN_MIN = 2;
/** Of one start: each is lost to somebody, and a dead one's records come to an end. */
const CLAIMS_MAX = 10;
/** What one look may count as silence: had it taken longer, the brokers were away, for the holder too. */
const LOOK_MS_MAX = 2_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 3_000;
/** Signs of life on their way to being read back. */
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
  /** Signs of life, until the signal aborts or the hold is lost: then it rejects with HeldElsewhereError. */
  run(signal: AbortSignal): Promise<void>;
  /** Asked at every receipt: false = another may hold the feed by now, and receive the same. */
  isConfirmed(): boolean;
  /** After the last send, in good order: the next one need not wait. */
  release(): Promise<void>;
}

/** Another producer holds the feed. */
export class LeaseLostError extends SetupError {}

type Moment = Readonly<{ monotonicMs: number; wallMs: number }>;

/**
 * Resolves when this process holds the feed. Rejects with HeldElsewhereError when another does; the signal's abort
 * rejects with its reason. Brokers that are away are waited for.
 */
export async function acquireLease(deps: LeaseDeps): Promise<Lease> {
  const { topic, self, journal, clock } = deps;
  await insist(deps, () => topic.readToEnd());
  for (let attempt = 1; ; attempt++) {
    const passed = await waitUntilFree(deps);
    // Before the claim, which would make the other one's hold unseen for the next start.
    const isForeign = passed !== null && journal.ownerOf(passed.session) === null;
    if (isForeign) await insist(deps, async () => void (await journal.quarantineUnconfirmed()));
    await insist(deps, async () => journal.claim(self.session));
    const sent = readClocks(clock);
    const words = { ...self, holder: journal.holder, sinceMs: clock.now(), atMs: clock.now() };
    const place = { after: passed?.term ?? 0, seen: passed?.offset ?? 0 };
    const claim = encodeLeaseRecord({ ...words, type: "claim", ...place });
    // Repeated it is the same claim: it wins once or not at all.
    await insist(deps, () => topic.put(claim));
    await insist(deps, () => topic.readToEnd());
    const state = topic.state();
    if (state?.session === self.session) return openLease(deps, state, sent);
    // Somebody was first, or showed life in the last moment; perhaps a process of this same outbox, killed since.
    if (attempt < CLAIMS_MAX) continue;
    if (state !== null) throw refusalError(state);
    throw new LogUnavailableError("the hold on the feed was not read back", "start again");
  }
}

/** What may be passed over: should it change before the claim arrives, the claim is void. Null: nobody ever held. */
async function waitUntilFree(deps: LeaseDeps): Promise<LeaseState | null> {
  for (;;) {
    const state = deps.topic.state();
    if (state === null || isFree(state, deps.journal)) return state;
    const silent = await waitWhileSilent(deps, state);
    if (silent !== null) return silent;
  }
}

/** That hold as it is after the silence; null: it is another one by now. Rejects when it shows life. */
async function waitWhileSilent(
  { topic, clock, logger, signal }: LeaseDeps,
  held: LeaseState,
): Promise<LeaseState | null> {
  const { host, pid, session } = held;
  logger.info("another producer held the feed: waiting whether it is alive", {
    host,
    pid,
    waitMsMax: LEASE_MS_MAX,
  });
  let last = held;
  let signCount = 0;
  let silentMs = 0;
  let lookedAtMs = clock.monotonic();
  while (silentMs < LEASE_MS_MAX) {
    await clock.sleep(LOOK_EVERY_MS, signal);
    signal.throwIfAborted();
    const isSeen = await didRead(topic, logger);
    const nowMs = clock.monotonic();
    const state = topic.state();
    if (state === null || state.session !== session || state.isReleased) return null;
    silentMs = isSeen ? silentMs + Math.min(nowMs - lookedAtMs, LOOK_MS_MAX) : 0;
    lookedAtMs = nowMs;
    if (state.offset === last.offset) continue;
    // One may have been on its way when its process died.
    signCount += 1;
    if (signCount >= HEARTBEATS_SEEN_MIN) throw refusalError(state);
    last = state;
    silentMs = 0;
  }
  logger.warn("the producer that held the feed is silent; taking over", { host, pid, silentMs });
  return last;
}

async function didRead(topic: LeaseTopic, logger: Logger): Promise<boolean> {
  try {
    await topic.readToEnd();
    return true;
  } catch (error) {
    if (!(error instanceof LogUnavailableError)) throw error;
    logger.warn("Kafka cannot be read just now: the wait for the other producer begins anew", { error });
    return false;
  }
}

async function insist({ clock, logger, signal }: LeaseDeps, work: () => Promise<void>): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      if (attempt === 0) logger.warn("the hold on the feed waits for Kafka", { error });
      await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), signal);
    }
  }
}

function openLease(deps: LeaseDeps, taken: LeaseState, claimed: Moment): Lease {
  const { topic, journal, clock, logger } = deps;
  const self = { ...deps.self, holder: journal.holder };
  const { term, sinceMs } = taken;
  const { promise: lost, resolve: lose } = Promise.withResolvers<LeaseState>();
  const onTheirWay = new Map<number, Moment>();
  let confirmed: Moment | null = claimed;
  let number = 0;
  let isOver = false;
  const unlisten = topic.onRecord((record, state) => {
    if (isOver || state === null) return;
    if (state.session !== self.session) {
      isOver = true;
      confirmed = null;
      lose(state);
    } else if (record.type === "alive" && record.session === self.session) {
      const sent = onTheirWay.get(record.number);
      if (sent === undefined) return;
      for (const older of onTheirWay.keys()) if (older <= record.number) onTheirWay.delete(older);
      confirmed = sent;
      settle();
    }
  });

  /** Nobody came between, and for the moment nobody can: whatever was received so far has only this outbox. */
  function settle(): void {
    if (isConfirmed()) journal.confirm();
  }

  /** By both clocks: a suspended machine's monotonic one stands still, and the other may be set. */
  function isConfirmed(): boolean {
    if (confirmed === null) return false;
    const { monotonicMs, wallMs } = readClocks(clock);
    const age = Math.max(monotonicMs - confirmed.monotonicMs, Math.abs(wallMs - confirmed.wallMs));
    return age < CONFIRMED_MS_MAX;
  }

  async function sendHeartbeat(): Promise<void> {
    // Also after a long time without: of an older term it changes nothing, and of the current one it is awaited.
    const sent = readClocks(clock);
    number += 1;
    onTheirWay.set(number, sent);
    for (const oldest of onTheirWay.keys()) {
      if (onTheirWay.size <= HEARTBEATS_IN_FLIGHT_MAX) break;
      onTheirWay.delete(oldest);
    }
    await topic.put(encodeLeaseRecord({ ...self, type: "alive", term, number, sinceMs, atMs: clock.now() }));
  }

  async function sendHeartbeats(signal: AbortSignal): Promise<void> {
    let isAway = false;
    while (!signal.aborted && !isOver) {
      try {
        await sendHeartbeat();
        isAway = false;
      } catch (error) {
        if (!(error instanceof LogUnavailableError)) throw error;
        if (!isAway) logger.warn("no sign of life could be given: Kafka cannot be reached", { error });
        isAway = true;
      }
      await clock.sleep(HEARTBEAT_EVERY_MS, signal);
    }
  }

  settle();
  return {
    async run(signal) {
      const stopping = new AbortController();
      const stop = () => stopping.abort();
      signal.addEventListener("abort", stop);
      if (signal.aborted) stop();
      const living = sendHeartbeats(stopping.signal);
      try {
        const other = await Promise.race([lost, living.then(() => null)]);
        if (other !== null) throw lossError(other);
      } finally {
        stop();
        signal.removeEventListener("abort", stop);
      }
      await living;
      if (isOver) throw lossError(await lost);
    },
    isConfirmed,
    async release() {
      unlisten();
      if (isOver) return;
      isOver = true;
      confirmed = null;
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
