// Taking, keeping and losing the hold on the feed, over the one key of the tickers' topic that contracts/lease.ts folds. It
// decides by its own monotonic clock and by the order of the topic alone, never by a time that another machine
// wrote. It opens no feed and stops no process: whoever holds is told when he no longer does.

import { backoffMs, type Clock } from "../base/clock.ts";
import { LogUnavailableError, SetupError } from "../base/errors.ts";
import type { Report } from "../base/logger.ts";
import {
  encodeHold,
  type HoldMemory,
  type HoldState,
  type HoldTopic,
  type HoldWords,
  isFree,
} from "../contracts/lease.ts";

/** A sign of life, three of which may go missing before a hold is in doubt. */
export const ALIVE_EVERY_MS = 3_000;
/** Silence after which another may take over. */
export const HOLD_MS_MAX = 15_000;
/** Without a confirmed sign of life for so long nothing is sent: well before another may take over. */
export const CONFIRMED_MS_MAX = 10_000;
const LOOK_EVERY_MS = 1_000;
/** Signs of life that prove somebody alive. */
const SIGNS_MIN = 2;
/** Of one start: each is lost to somebody, and a dead one's records come to an end. */
const CLAIMS_MAX = 10;
/** What one look may count as silence: had it taken longer, the brokers were away, for the holder too. */
const LOOK_MS_MAX = 2_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 3_000;
/** Signs of life on their way to being read back. */
const ON_THEIR_WAY_MAX = 16;

export type HoldParts = Readonly<{
  topic: HoldTopic;
  self: Pick<HoldWords, "session" | "host" | "pid">;
  memory: HoldMemory;
  clock: Clock;
  report: Report;
  signal: AbortSignal;
}>;

export interface Hold {
  /** Signs of life, until the signal aborts or the hold is lost: then it rejects with HeldElsewhereError. */
  run(signal: AbortSignal): Promise<void>;
  /** Asked at every receipt: false = another may hold the feed by now, and receive the same. */
  isConfirmed(): boolean;
  /** After the last send, in good order: the next one need not wait. */
  release(): Promise<void>;
}

/** Another producer holds the feed. */
export class HeldElsewhereError extends SetupError {}

type Moment = Readonly<{ monotonicMs: number; wallMs: number }>;

/**
 * Resolves when this process holds the feed. Rejects with HeldElsewhereError when another does; the signal's abort
 * rejects with its reason. Brokers that are away are waited for.
 */
export async function takeHold(parts: HoldParts): Promise<Hold> {
  const { topic, self, memory, clock } = parts;
  await insist(parts, () => topic.look());
  for (let attempt = 1; ; attempt++) {
    const passed = await waitUntilFree(parts);
    // Before the claim, which would make the other one's hold unseen for the next start.
    const isForeign = passed !== null && memory.whose(passed.session) === null;
    if (isForeign) await insist(parts, async () => void (await memory.disown()));
    await insist(parts, async () => memory.claim(self.session));
    const sent = momentOf(clock);
    const words = { ...self, holder: memory.holder, sinceMs: clock.now(), atMs: clock.now() };
    const place = { after: passed?.term ?? 0, seen: passed?.offset ?? 0 };
    const claim = encodeHold({ ...words, type: "claim", ...place });
    // Repeated it is the same claim: it wins once or not at all.
    await insist(parts, () => topic.put(claim));
    await insist(parts, () => topic.look());
    const state = topic.state();
    if (state?.session === self.session) return openHold(parts, state, sent);
    // Somebody was first, or showed life in the last moment; perhaps a process of this same outbox, killed since.
    if (attempt < CLAIMS_MAX) continue;
    if (state !== null) throw refusal(state);
    throw new LogUnavailableError("the hold on the feed was not read back", "start again");
  }
}

/** What may be passed over: should it change before the claim arrives, the claim is void. Null: nobody ever held. */
async function waitUntilFree(parts: HoldParts): Promise<HoldState | null> {
  for (;;) {
    const state = parts.topic.state();
    if (state === null || isFree(state, parts.memory)) return state;
    const silent = await silentOne(parts, state);
    if (silent !== null) return silent;
  }
}

/** That hold as it is after the silence; null: it is another one by now. Rejects when it shows life. */
async function silentOne(
  { topic, clock, report, signal }: HoldParts,
  held: HoldState,
): Promise<HoldState | null> {
  const { host, pid, session } = held;
  report.info("another producer held the feed: waiting whether it is alive", {
    host,
    pid,
    waitMsMax: HOLD_MS_MAX,
  });
  let last = held;
  let signCount = 0;
  let silentMs = 0;
  let lookedAtMs = clock.monotonic();
  while (silentMs < HOLD_MS_MAX) {
    await clock.sleep(LOOK_EVERY_MS, signal);
    signal.throwIfAborted();
    const isSeen = await didLook(topic, report);
    const nowMs = clock.monotonic();
    const state = topic.state();
    if (state === null || state.session !== session || state.isReleased) return null;
    silentMs = isSeen ? silentMs + Math.min(nowMs - lookedAtMs, LOOK_MS_MAX) : 0;
    lookedAtMs = nowMs;
    if (state.offset === last.offset) continue;
    // One may have been on its way when its process died.
    signCount += 1;
    if (signCount >= SIGNS_MIN) throw refusal(state);
    last = state;
    silentMs = 0;
  }
  report.warn("the producer that held the feed is silent; taking over", { host, pid, silentMs });
  return last;
}

async function didLook(topic: HoldTopic, report: Report): Promise<boolean> {
  try {
    await topic.look();
    return true;
  } catch (error) {
    if (!(error instanceof LogUnavailableError)) throw error;
    report.warn("Kafka cannot be read just now: the wait for the other producer begins anew", { error });
    return false;
  }
}

async function insist({ clock, report, signal }: HoldParts, work: () => Promise<void>): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      if (attempt === 0) report.warn("the hold on the feed waits for Kafka", { error });
      await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), signal);
    }
  }
}

function openHold(parts: HoldParts, taken: HoldState, claimed: Moment): Hold {
  const { topic, memory, clock, report } = parts;
  const self = { ...parts.self, holder: memory.holder };
  const { term, sinceMs } = taken;
  const { promise: lost, resolve: lose } = Promise.withResolvers<HoldState>();
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
    if (isConfirmed()) memory.confirm();
  }

  /** By both clocks: a suspended machine's monotonic one stands still, and the other may be set. */
  function isConfirmed(): boolean {
    if (confirmed === null) return false;
    const { monotonicMs, wallMs } = momentOf(clock);
    const age = Math.max(monotonicMs - confirmed.monotonicMs, Math.abs(wallMs - confirmed.wallMs));
    return age < CONFIRMED_MS_MAX;
  }

  async function showLife(): Promise<void> {
    // Also after a long time without: of an older term it changes nothing, and of the current one it is awaited.
    const sent = momentOf(clock);
    number += 1;
    onTheirWay.set(number, sent);
    for (const oldest of onTheirWay.keys()) {
      if (onTheirWay.size <= ON_THEIR_WAY_MAX) break;
      onTheirWay.delete(oldest);
    }
    await topic.put(encodeHold({ ...self, type: "alive", term, number, sinceMs, atMs: clock.now() }));
  }

  async function showLifeForEver(signal: AbortSignal): Promise<void> {
    let isAway = false;
    while (!signal.aborted && !isOver) {
      try {
        await showLife();
        isAway = false;
      } catch (error) {
        if (!(error instanceof LogUnavailableError)) throw error;
        if (!isAway) report.warn("no sign of life could be given: Kafka cannot be reached", { error });
        isAway = true;
      }
      await clock.sleep(ALIVE_EVERY_MS, signal);
    }
  }

  settle();
  return {
    async run(signal) {
      const stopping = new AbortController();
      const stop = () => stopping.abort();
      signal.addEventListener("abort", stop);
      if (signal.aborted) stop();
      const living = showLifeForEver(stopping.signal);
      try {
        const other = await Promise.race([lost, living.then(() => null)]);
        if (other !== null) throw lossOf(other);
      } finally {
        stop();
        signal.removeEventListener("abort", stop);
      }
      await living;
      if (isOver) throw lossOf(await lost);
    },
    isConfirmed,
    async release() {
      unlisten();
      if (isOver) return;
      isOver = true;
      confirmed = null;
      memory.release();
      await topic.put(encodeHold({ ...self, type: "released", term, sinceMs, atMs: clock.now() }));
    },
  };
}

function momentOf(clock: Clock): Moment {
  return { monotonicMs: clock.monotonic(), wallMs: clock.now() };
}

function refusal(state: HoldState): HeldElsewhereError {
  return new HeldElsewhereError(
    `another producer holds the feed: ${whoOf(state)}`,
    "two would store every trade twice: stop that one, or give this one a KAFKA_TOPIC_NAME of its own",
  );
}

function lossOf(state: HoldState): HeldElsewhereError {
  return new HeldElsewhereError(
    `another producer has taken over the feed: ${whoOf(state)}`,
    "this one was silent for too long (paused, suspended, or cut off from Kafka), so it stops sending; run only one " +
      "of them",
  );
}

function whoOf({ host, pid, sinceMs }: HoldState): string {
  return `process ${pid} on ${host}, since ${new Date(sinceMs).toISOString()}`;
}
