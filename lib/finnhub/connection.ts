// The one connection of the feed, kept for ever whatever the other side does: opened, watched for silence, lost, waited
// for and opened again. It reads no frame, answers no ping, opens no second connection beside the first, and tells
// nobody the token: it stands in no log line, event, error or health.

import type { Clock } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import { type Metrics, startAtZero } from "../base/metrics.ts";
import { byWayOf, type HttpProxy, refusalOfProxy } from "../base/proxy.ts";
import { FEED_SILENT_MS_MAX, type FeedHealth } from "../contracts/feed.ts";
import { type EmitEvent, Outage } from "./outage.ts";
import { DISCONNECT_REASONS, type DisconnectReason, RECONNECT_LIMITS, ReconnectDelay } from "./reconnect.ts";

export const CONNECTION_LIMITS = {
  ...RECONNECT_LIMITS,
  /** An upgrade was once answered after 65 s (#38); another attempt is faster. */
  connectMsMax: 10_000,
  silentMsMax: FEED_SILENT_MS_MAX,
  /** A refused second session is dropped some seconds after it was opened: that is no success. */
  stableMsMin: 60_000,
} as const;

type ConnectionOptions = Readonly<{
  /** ws: or wss:, without the token. */
  url: string;
  token: string | undefined;
  /** Takes the token out of a text of the other side. */
  hide: (text: string) => string;
  limits: Readonly<Record<keyof typeof CONNECTION_LIMITS, number>>;
  /** Null: the connection goes directly. */
  proxy: HttpProxy | null;
  openSocket: (address: string, proxy: HttpProxy | null) => WebSocket;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  /** A socket is open, and nothing was told of it yet. Returns how many symbols were subscribed on it. */
  onOpen: () => number;
  /** The subscriptions are gone. */
  onLost: () => void;
  /** What came in one frame, and when, by both of the clock's times. */
  onFrame: (data: unknown, atMs: number, monotonicMs: number) => void;
  emitEvent: EmitEvent;
}>;

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

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #address: string;
  readonly #delay: ReconnectDelay;
  /** The current one, or the last one. */
  readonly #outage: Outage;
  #link: LinkState;
  /** The one timer of a state: the connect time-out, the watchdog, or the wait before the next attempt. */
  #cancelTimer = () => {};
  /** Of the newest socket. Events of an older one are ignored. */
  #generation = 0;
  #isPaused = false;
  /** Since the last connection, the current one included. */
  #attempt = 0;
  /** Whatever the attempts in between; null = a socket is open. */
  #disconnectedSinceMs: number | null;
  /** The opening or the last frame, by both of the clock's times: one to tell, one to wait by. */
  #aliveAtMs = 0;
  #aliveMonotonicMs = 0;
  #resumedMonotonicMs = 0;
  #lastProblem: string | null = null;

  /** Nothing is opened before `connect`. Throws a SetupError when the URL is not that of a websocket. */
  constructor(options: ConnectionOptions) {
    this.#options = options;
    startAtZero(options.metrics.disconnectsTotal, "reason", DISCONNECT_REASONS);
    this.#address = socketAddress(options.url, options.token);
    this.#delay = new ReconnectDelay(options.limits, options.clock.random);
    this.#outage = new Outage(options);
    this.#link = { state: "closed", sinceMs: options.clock.now() };
    this.#disconnectedSinceMs = options.clock.now();
  }

  /** Called once. */
  connect(): void {
    const { openSocket, proxy, clock, limits } = this.#options;
    this.#attempt++;
    const mine = ++this.#generation;
    const socket = openSocket(this.#address, proxy);
    this.#link = { state: "connecting", sinceMs: clock.now(), socket };
    socket.onopen = () => mine === this.#generation && this.#opened(socket);
    socket.onmessage = ({ data }) => mine === this.#generation && this.#received(data);
    socket.onerror = (event) => mine === this.#generation && this.#failed(event);
    socket.onclose = ({ code, reason }) =>
      mine === this.#generation && this.#lose(this.#closedReason(), `close code ${code} ${reason}`);
    this.#cancelTimer = clock.after(limits.connectMsMax, () => {
      const seconds = limits.connectMsMax / 1_000;
      this.#lose("connect_timeout", proxy === null ? "" : `no connection in ${seconds} s${byWayOf(proxy)}`);
    });
  }

  /** False: there was nothing left to stop. */
  stop(): boolean {
    const { clock, metrics, emitEvent } = this.#options;
    if (this.#link.state === "closed") return false;
    const isOpen = this.#link.state === "connected";
    if (isOpen) {
      metrics.disconnectsTotal.inc({ reason: "stopped" });
      emitEvent("disconnected", { reason: "stopped", fromMs: this.#aliveAtMs, detail: "" });
    }
    const socket = this.#release();
    this.#link = { state: "closed", sinceMs: clock.now() };
    if (socket !== null && isOpen) closeInGoodOrder(socket, clock);
    else socket?.terminate();
    return true;
  }

  /** While paused Bun notices a reset at once, but an orderly end only when it reads on. */
  pause(): void {
    this.#isPaused = true;
    this.#options.metrics.pausesTotal.inc();
    if (this.#link.state === "connected") this.#link.socket.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.#resumedMonotonicMs = this.#options.clock.monotonic(); // The silence was ours.
    if (this.#link.state === "connected") this.#link.socket.resume();
  }

  send(type: "subscribe" | "unsubscribe", symbol: string): void {
    if (this.#link.state === "connected") this.#link.socket.send(JSON.stringify({ type, symbol }));
  }

  health(): Pick<FeedHealth, "state" | "stateSinceMs" | "disconnectedSinceMs" | "lastProblem"> {
    return {
      state: this.#link.state,
      stateSinceMs: this.#link.sinceMs,
      disconnectedSinceMs: this.#disconnectedSinceMs,
      lastProblem: this.#lastProblem,
    };
  }

  #opened(socket: WebSocket): void {
    const { clock, logger, metrics, limits, onOpen, emitEvent } = this.#options;
    this.#cancelTimer();
    const nowMs = clock.now();
    const monotonicMs = clock.monotonic();
    this.#link = { state: "connected", sinceMs: nowMs, socket, openedMonotonicMs: monotonicMs };
    this.#disconnectedSinceMs = null;
    this.#aliveAtMs = nowMs;
    this.#aliveMonotonicMs = monotonicMs;
    if (this.#isPaused) socket.pause();
    metrics.connectsTotal.inc();
    const symbolCount = onOpen();
    const attempt = this.#attempt;
    const { fromMs, durationMs: outMs } = this.#outage;
    emitEvent("connected", { attempt, symbolCount, fromMs, outMs });
    logger.info("connected", { attempt, symbolCount, outMs });
    this.#attempt = 0;
    this.#delay.onOpen();
    this.#watch(limits.silentMsMax);
  }

  /** Any frame proves that the connection lives, and only their absence is a fault: a closed market pings all the same. */
  #watch(afterMs: number): void {
    const { clock, limits } = this.#options;
    this.#cancelTimer = clock.after(afterMs, () => {
      const lastMs = Math.max(this.#aliveMonotonicMs, this.#resumedMonotonicMs);
      const silentMs = this.#isPaused ? 0 : clock.monotonic() - lastMs;
      if (silentMs >= limits.silentMsMax) this.#lose("silent", `no frame for ${Math.round(silentMs)} ms`);
      else this.#watch(limits.silentMsMax - silentMs);
    });
  }

  #received(data: unknown): void {
    const { clock, onFrame } = this.#options;
    this.#aliveAtMs = clock.now();
    this.#aliveMonotonicMs = clock.monotonic();
    onFrame(data, this.#aliveAtMs, this.#aliveMonotonicMs);
  }

  /**
   * Bun tells the status of a refused upgrade in the text of the error event only. A second request to learn it would
   * take the token's one session, so that text is read; tests/integration/finnhub/feed.test.ts fails when a new Bun
   * writes it otherwise. The rest of it holds the address with the token in it and is dropped.
   */
  #failed(event: Event): void {
    const { message = "", error } = event as Partial<ErrorEvent>;
    const { proxy } = this.#options;
    const status = /Expected 101 status code: (\d{3})\b/.exec(message)?.[1];
    if (status === "401" || status === "429") this.#lose(`refused_${status}`, "");
    else if (status !== undefined) this.#lose("refused_status", `HTTP ${status}`);
    else {
      const refusal = proxy === null ? null : refusalOfProxy(proxy, message);
      this.#lose(this.#closedReason(), refusal ?? `${failureText(error, message)}${byWayOf(proxy)}`);
    }
  }

  #closedReason(): DisconnectReason {
    return this.#link.state === "connected" ? "closed" : "unreachable";
  }

  #lose(reason: DisconnectReason, detailText: string): void {
    const { clock, metrics, limits, hide } = this.#options;
    if (this.#link.state === "connected") {
      const openMs = clock.monotonic() - this.#link.openedMonotonicMs;
      this.#outage.begin(this.#aliveAtMs, this.#aliveMonotonicMs);
      if (openMs >= limits.stableMsMin) this.#delay.onStable();
    }
    this.#disconnectedSinceMs ??= clock.now();
    this.#release()?.terminate();
    const detail = hide(detailText).slice(0, DETAIL_LENGTH_MAX).trim();
    this.#lastProblem = detail === "" ? reason : `${reason}: ${detail}`;
    metrics.disconnectsTotal.inc({ reason });
    const waitMs = Math.round(this.#delay.next(reason));
    this.#outage.report({ reason, detail, attempt: this.#attempt, waitMs });
    this.#link = { state: "waiting", sinceMs: clock.now() };
    this.#cancelTimer = clock.after(waitMs, () => this.connect());
  }

  /** Lets go of the current socket, if there is one: its events are ignored from here on. */
  #release(): WebSocket | null {
    this.#cancelTimer();
    this.#generation++;
    this.#options.onLost();
    if (this.#link.state !== "connecting" && this.#link.state !== "connected") return null;
    const { socket } = this.#link;
    socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
    return socket;
  }
}

/** The error quotes no address: it can hold a token that was put there by mistake. */
function socketAddress(url: string, token: string | undefined): string {
  const target = URL.canParse(url) ? new URL(url) : null;
  if (target === null || (target.protocol !== "ws:" && target.protocol !== "wss:")) {
    throw new SetupError(
      "the address of Finnhub's websocket is not valid",
      "set FINNHUB_WS_URL to a URL that begins with wss:// or ws://",
    );
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
