// The one connection of the feed, kept for ever whatever the other side does: opened, watched for silence, lost, waited
// for and opened again. It reads no frame, answers no ping, opens no second connection beside the first, and tells
// nobody the token: not a log line, an event, an error or its health.

import { backoffMs, type Clock } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import { FEED_SILENT_MS_MAX, type FeedEventType, type FeedHealth } from "../contracts/feed.ts";

export const CONNECTION_LIMITS = {
  /** An upgrade was once answered after 65 s (#38); trying again is faster. */
  connectMsMax: 10_000,
  silentMsMax: FEED_SILENT_MS_MAX,
  /** A refused second session is dropped some seconds after it was opened: that is no success. */
  stableMsMin: 60_000,
  retryFirstMs: 500,
  retryMsMax: 60_000,
  /** A wrong token does not mend itself; an operator who mends it upstream waits no longer than this. */
  unauthorizedFirstMs: 120_000,
  unauthorizedMsMax: 900_000,
  /** How long Finnhub holds a session that was lost (429 until then), as one author measured it. */
  tooManyMsMin: 75_000,
} as const;

export type ConnectionOptions = Readonly<{
  /** ws: or wss:, without the token. */
  url: string;
  token: string | undefined;
  /** Takes the token out of a text of the other side. */
  hide: (text: string) => string;
  limits: Readonly<Record<keyof typeof CONNECTION_LIMITS, number>>;
  openSocket: (address: string) => WebSocket;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  /** A socket is open, nothing was said of it yet: how many symbols were subscribed on it. */
  opened: () => number;
  /** What was subscribed is no more. */
  lost: () => void;
  /** Whatever came in one frame, and when, by both of the clock's times. */
  received: (data: unknown, atMs: number, monotonicMs: number) => void;
  emitEvent: (type: FeedEventType, detail: Readonly<Record<string, unknown>>) => void;
}>;

/** Why there is no connection. A closed list: it is a metric's label. */
export type DisconnectReason =
  | "connect_timeout"
  | "refused_401" // Wrong token.
  | "refused_429" // An older session is still held, or another client has the token.
  | "refused_status" // Any other answer to the upgrade.
  | "unreachable" // No answer, or none that is HTTP.
  | "closed" // By the other side or the net, after it was open.
  | "silent" // The watchdog's word.
  | "stopped"; // By ourselves.

/** Waits that must not be cut short are stretched by up to a quarter, so that two clients do not keep step. */
const STRETCH_MAX = 0.25;
/** A long outage is one event, and another one when its reason changes, at most this often. */
const OUTAGE_EVENT_MS_MIN = 60_000;
/** For the answer to our close frame; Finnhub frees the session sooner when it is closed in good order. */
const CLOSE_MS_MAX = 1_000;
const DETAIL_LENGTH_MAX = 200;

type LinkState = Readonly<{ sinceMs: number }> &
  (
    | Readonly<{ state: "connecting"; socket: WebSocket }>
    | Readonly<{ state: "connected"; socket: WebSocket; openedMonotonicMs: number }>
    | Readonly<{ state: "waiting" }>
    | Readonly<{ state: "closed" }>
  );

/** From the last frame of one connection until the next is open. */
type Outage = {
  fromMs: number;
  fromMonotonicMs: number;
  said: DisconnectReason | null;
  saidMonotonicMs: number;
};

/** Nothing is opened before `connect`, which is called once. */
export function createConnection(options: ConnectionOptions) {
  const { hide, limits, openSocket, clock, logger, metrics, opened, lost, received, emitEvent } = options;
  const target = socketUrl(options.url, options.token);

  let link: LinkState = { state: "closed", sinceMs: clock.now() };
  /** The one timer of a state: the connect time-out, the watchdog, or the wait before the next attempt. */
  let cancelTimer = () => {};
  /** Of the newest socket. What an older one still has to say is not heard. */
  let generation = 0;
  let paused = false;
  let attempt = 0; // Since the last connection, this one included.
  let failures = 0; // Since the last stable connection: the exponent of the back-off.
  let unauthorized = 0; // In a row.
  /** The one that lasts, or the last one. */
  let outage = outageFrom(clock.now(), clock.monotonic());
  /** Whatever the attempts in between; null = a socket is open. */
  let disconnectedSinceMs: number | null = clock.now();
  /** When the link last showed life: its opening or a frame. Of two clocks, as everywhere: one to say, one to wait. */
  let aliveAtMs = 0;
  let aliveMonotonicMs = 0;
  let resumedMonotonicMs = 0;
  let lastProblem: string | null = null;

  function connect(): void {
    attempt++;
    const mine = ++generation;
    const socket = openSocket(target);
    link = { state: "connecting", sinceMs: clock.now(), socket };
    socket.onopen = () => mine === generation && cameUp(socket);
    socket.onmessage = ({ data }) => mine === generation && frameCame(data);
    socket.onerror = (event) => mine === generation && failed(event);
    socket.onclose = ({ code, reason }) =>
      mine === generation && lose(closedReason(), `close code ${code} ${reason}`);
    cancelTimer = clock.after(limits.connectMsMax, () => lose("connect_timeout", ""));
  }

  function cameUp(socket: WebSocket): void {
    cancelTimer();
    const nowMs = clock.now();
    const monotonicMs = clock.monotonic();
    link = { state: "connected", sinceMs: nowMs, socket, openedMonotonicMs: monotonicMs };
    disconnectedSinceMs = null;
    aliveAtMs = nowMs;
    aliveMonotonicMs = monotonicMs;
    if (paused) socket.pause();
    metrics.connectsTotal.inc();
    const symbolCount = opened();
    const { fromMs } = outage;
    const outMs = Math.round(monotonicMs - outage.fromMonotonicMs);
    emitEvent("connected", { attempt, symbolCount, fromMs, outMs });
    logger.info("connected", { attempt, symbolCount, outMs });
    attempt = 0;
    unauthorized = 0;
    watch(limits.silentMsMax);
  }

  /** Any frame is a sign of life and its absence the only fault: a market that is closed pings all the same. */
  function watch(afterMs: number): void {
    cancelTimer = clock.after(afterMs, () => {
      const silentMs = paused ? 0 : clock.monotonic() - Math.max(aliveMonotonicMs, resumedMonotonicMs);
      if (silentMs >= limits.silentMsMax) lose("silent", `no frame for ${Math.round(silentMs)} ms`);
      else watch(limits.silentMsMax - silentMs);
    });
  }

  /**
   * Bun tells the status of a refused upgrade in the text of the error event only. A second request to learn it
   * would take the token's one session, so that text is read; tests/integration/finnhub/feed.test.ts fails when a new Bun
   * writes it otherwise. The rest of it holds the address with the token in it and is dropped.
   */
  function failed(event: Event): void {
    const { message = "", error } = event as Partial<ErrorEvent>;
    const status = /Expected 101 status code: (\d{3})\b/.exec(message)?.[1];
    if (status === "401" || status === "429") lose(`refused_${status}`, "");
    else if (status !== undefined) lose("refused_status", `HTTP ${status}`);
    else lose(closedReason(), failureText(error, message));
  }

  function closedReason(): DisconnectReason {
    return link.state === "connected" ? "closed" : "unreachable";
  }

  function lose(reason: DisconnectReason, detailText: string): void {
    const monotonicMs = clock.monotonic();
    if (link.state === "connected") {
      outage = outageFrom(aliveAtMs, aliveMonotonicMs);
      if (monotonicMs - link.openedMonotonicMs >= limits.stableMsMin) failures = 0;
    }
    disconnectedSinceMs ??= clock.now();
    release()?.terminate();
    const detail = hide(detailText).slice(0, DETAIL_LENGTH_MAX).trim();
    lastProblem = detail === "" ? reason : `${reason}: ${detail}`;
    metrics.disconnectsTotal.inc({ reason });
    const waitMs = Math.round(waitFor(reason));
    sayOutage(reason, detail, waitMs);
    link = { state: "waiting", sinceMs: clock.now() };
    cancelTimer = clock.after(waitMs, connect);
  }

  function waitFor(reason: DisconnectReason): number {
    const stretch = 1 + STRETCH_MAX * clock.random();
    const exponent = failures++;
    if (reason === "refused_401") {
      const longMs = limits.unauthorizedFirstMs * 2 ** Math.min(unauthorized++, 30);
      return Math.min(longMs, limits.unauthorizedMsMax) * stretch;
    }
    unauthorized = 0;
    if (reason === "refused_429") return limits.tooManyMsMin * stretch;
    return backoffMs(exponent, limits.retryFirstMs, limits.retryMsMax, clock.random);
  }

  function sayOutage(reason: DisconnectReason, detail: string, waitMs: number): void {
    const monotonicMs = clock.monotonic();
    const isFirst = outage.said === null;
    const isNews = outage.said !== reason && monotonicMs - outage.saidMonotonicMs >= OUTAGE_EVENT_MS_MIN;
    const fields = { reason, detail, attempt, waitMs };
    if (reason === "refused_401") {
      logger.error("Finnhub refuses the token (401); is FINNHUB_API_TOKEN right?", fields);
    } else if (isFirst || isNews || reason === "refused_429") {
      logger.warn("no connection to Finnhub", fields);
    } else {
      logger.debug("no connection to Finnhub", fields);
    }
    if (!isFirst && !isNews) return;
    outage.said = reason;
    outage.saidMonotonicMs = monotonicMs;
    emitEvent("disconnected", { reason, fromMs: outage.fromMs, detail });
  }

  /** Leaves the socket of this link, if it has one: nothing of it is heard from here on. */
  function release(): WebSocket | null {
    cancelTimer();
    generation++;
    lost();
    if (link.state !== "connecting" && link.state !== "connected") return null;
    const { socket } = link;
    socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
    return socket;
  }

  /** False: there was nothing left to stop. */
  function stop(): boolean {
    if (link.state === "closed") return false;
    if (link.state === "connected") {
      metrics.disconnectsTotal.inc({ reason: "stopped" });
      emitEvent("disconnected", { reason: "stopped", fromMs: aliveAtMs, detail: "" });
    }
    const isOpen = link.state === "connected";
    const socket = release();
    link = { state: "closed", sinceMs: clock.now() };
    if (socket !== null && isOpen) closeInGoodOrder(socket, clock);
    else socket?.terminate();
    return true;
  }

  function frameCame(data: unknown): void {
    aliveAtMs = clock.now();
    aliveMonotonicMs = clock.monotonic();
    received(data, aliveAtMs, aliveMonotonicMs);
  }

  /** While paused Bun notices a reset at once, but an orderly end only when it reads on. */
  function pause(): void {
    paused = true;
    metrics.pausesTotal.inc();
    if (link.state === "connected") link.socket.pause();
  }

  function resume(): void {
    paused = false;
    resumedMonotonicMs = clock.monotonic(); // The silence was ours.
    if (link.state === "connected") link.socket.resume();
  }

  function send(type: "subscribe" | "unsubscribe", symbol: string): void {
    if (link.state === "connected") link.socket.send(JSON.stringify({ type, symbol }));
  }

  return {
    connect,
    stop,
    pause,
    resume,
    send,
    health: (): Pick<FeedHealth, "state" | "stateSinceMs" | "disconnectedSinceMs" | "lastProblem"> => ({
      state: link.state,
      stateSinceMs: link.sinceMs,
      disconnectedSinceMs,
      lastProblem,
    }),
  };
}

function outageFrom(fromMs: number, fromMonotonicMs: number): Outage {
  return { fromMs, fromMonotonicMs, said: null, saidMonotonicMs: 0 };
}

/** Neither message may quote the address: it can hold a token that was put there by mistake. */
function socketUrl(url: string, token: string | undefined): string {
  const target = URL.canParse(url) ? new URL(url) : null;
  if (target === null || (target.protocol !== "ws:" && target.protocol !== "wss:")) {
    throw new SetupError("the address of Finnhub's websocket is none", "it begins with wss:// or ws://");
  }
  target.hash = "";
  if (token !== undefined) target.searchParams.set("token", token);
  return target.href;
}

/** The words after "WebSocket connection to '<address>' failed: ", or the error's code: never the address. */
function failureText(error: unknown, message: string): string {
  const code: unknown = typeof error === "object" && error !== null && "code" in error ? error.code : null;
  if (typeof code === "string" && /^\w{1,40}$/.test(code)) return code;
  const mark = "' failed: ";
  const at = message.lastIndexOf(mark);
  return at < 0 ? "" : message.slice(at + mark.length);
}

function closeInGoodOrder(socket: WebSocket, clock: Clock): void {
  const cancel = clock.after(CLOSE_MS_MAX, () => socket.terminate());
  socket.onclose = cancel;
  socket.close(1000);
  socket.resume(); // A paused socket would not read the answer.
}
