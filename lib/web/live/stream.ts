// GET /events: the live view as server-sent events. A client gets the whole view, then what changed, at most every
// TICK_MS. One timer serves all clients, and none runs without a client. Nothing is queued for anybody: an event is
// made when the client's socket takes one, from the newest state, so a slow client gets fewer and larger events,
// and one that takes none for CLIENT_SLOW_MS_MAX is let go. It reads, and writes no row.

import type { Clock } from "../../base/clock.ts";
import type { HealthDocument } from "../../health/health.ts";
import {
  type Delta,
  type LastTuple,
  type OpenTuple,
  type SeenAt,
  type Snapshot,
  STATUS_EVERY_MS,
  type Status,
} from "./protocol.ts";
import { type LiveView, openTuple } from "./view.ts";

export type LiveTickers = Readonly<{
  wanted: readonly string[];
  subscribed: readonly string[];
  unsubscribed: readonly string[];
}>;

export type LiveStreamDeps = Readonly<{
  live: LiveView;
  clock: Clock;
  health: () => HealthDocument;
  tickers: () => LiveTickers;
  /** Brings what an earlier run stored into the view; called with each status. It reports its faults itself. */
  refresh: (symbols: readonly string[]) => Promise<void>;
  simulated: boolean;
  /** Without it: the store. */
  seenAt?: SeenAt | undefined;
  /** Ends all streams: the server is about to stop. */
  signal?: AbortSignal | undefined;
}>;

export type LiveStreams = Readonly<{
  /** Null: there are CLIENTS_MAX already. */
  open(
    options: Readonly<{ symbol: string | null; lastEventId: string | null }>,
  ): ReadableStream<Uint8Array> | null;
  clientCount(): number;
}>;

/** Ten a second look continuous to the eye, and a page draws them without effort. */
export const TICK_MS = 100;
/** 100 pages of 50 busy symbols are 2 MB/s; each costs 20 us a tick. */
export const CLIENTS_MAX = 100;
/** Longer than a phone is without a network between two cells; then it starts again. */
export const CLIENT_SLOW_MS_MAX = 15_000;
/** The browser's own pause before it connects again. */
const RETRY_MS = 1_000;

type Client = {
  readonly symbol: string | null;
  readonly controller: ReadableStreamDefaultController<Uint8Array>;
  /** The version it holds; null = none, it needs the whole view. */
  version: number | null;
  statusNumber: number;
  /** Set while the socket takes another event. */
  taken: (() => void) | null;
  waitingSinceMs: number;
};

export function createLiveStreams(deps: LiveStreamDeps): LiveStreams {
  const { live, clock, simulated, seenAt = "store", signal } = deps;
  /** An id of another run says nothing about this run's versions. */
  const run = Math.floor(clock.random() * 2 ** 32)
    .toString(16)
    .padStart(8, "0");
  const clients = new Set<Client>();
  const encoder = new TextEncoder();
  let cancelTick: (() => void) | null = null;
  let symbols: readonly string[] = [];
  let states: readonly Snapshot["symbols"][number]["state"][] = [];
  let status: Status | null = null;
  /** Rises when an index means another symbol: what was sent before says nothing any more. */
  let listNumber = 0;
  let statusNumber = 0;
  let statusAtMs = Number.NEGATIVE_INFINITY;

  // ---- Ticks ------------------------------------------------------------------------------------------------

  function start(): void {
    cancelTick ??= clock.after(TICK_MS, () => {
      cancelTick = null;
      tick();
      if (clients.size > 0) start();
    });
  }

  function tick(): void {
    const atMs = clock.monotonic();
    if (atMs - statusAtMs >= STATUS_EVERY_MS) refreshStatus(atMs);
    const events = new Map<string, Uint8Array | null>();
    for (const client of clients) {
      if (client.taken !== null) serve(client, events, atMs);
      else if (atMs - client.waitingSinceMs > CLIENT_SLOW_MS_MAX) leave(client, "too slow");
    }
  }

  /** Clients that hold the same version get the same bytes. */
  function serve(client: Client, events: Map<string, Uint8Array | null>, atMs: number): void {
    const key = `${client.version} ${client.statusNumber === statusNumber} ${client.symbol}`;
    let bytes = events.get(key);
    if (bytes === undefined) {
      const text = client.version === null ? snapshotEvent(client) : deltaEvent(client, client.version);
      bytes = text === null ? null : encoder.encode(text);
      events.set(key, bytes);
    }
    if (bytes === null) return;
    client.version = live.version();
    client.statusNumber = statusNumber;
    client.waitingSinceMs = atMs;
    const taken = client.taken;
    client.taken = null;
    client.controller.enqueue(bytes);
    taken?.();
  }

  function refreshStatus(atMs: number): void {
    statusAtMs = atMs;
    statusNumber += 1;
    const sets = deps.tickers();
    const names = [...new Set([...sets.wanted, ...sets.subscribed, ...sets.unsubscribed])];
    const nextStates = names.map((symbol) => {
      if (sets.subscribed.includes(symbol)) return "subscribed";
      return sets.unsubscribed.includes(symbol) ? "unsubscribed" : "wanted";
    });
    if (names.join("\n") !== symbols.join("\n") || nextStates.join() !== states.join()) {
      symbols = names;
      states = nextStates;
      listNumber += 1;
      for (const client of clients) client.version = null;
    }
    const nowMs = clock.now();
    // The second before this one is over; what was received in its last milliseconds is stored by now.
    const rateEndMs = nowMs - (nowMs % 1_000);
    const { status: word, reason, parts: healthParts } = deps.health();
    const warnings = Object.values(healthParts).flatMap(({ warning }) =>
      typeof warning === "string" ? [warning] : [],
    );
    status = {
      rates: symbols.map((symbol) => live.rateOf(symbol, rateEndMs)),
      rateEndMs,
      latency: live.latency(nowMs),
      health: { status: word, reason, warnings },
    };
    void deps.refresh(symbols);
  }

  // ---- Events -----------------------------------------------------------------------------------------------

  function snapshotEvent({ symbol: chosen }: Client): string {
    const nowMs = clock.now();
    const snapshot: Snapshot = {
      nowMs,
      simulated,
      seenAt,
      symbols: symbols.map((symbol, index) => {
        const last = live.of(symbol);
        return {
          symbol,
          state: states[index]!,
          last: last && [last.price, last.trade_timestamp],
          open: live.openOf(symbol),
          spark: live.sparkOf(symbol, nowMs),
        };
      }),
      chosen,
      seconds: chosen === null ? [] : live.secondsOf(chosen, nowMs),
      status: status!,
    };
    return eventText("snapshot", snapshot);
  }

  /** Null: there is nothing to say. */
  function deltaEvent({ symbol: chosen, statusNumber: known }: Client, since: number): string | null {
    const nowMs = clock.now();
    const last: LastTuple[] = [];
    const opens: OpenTuple[] = [];
    for (const [index, symbol] of symbols.entries()) {
      if (live.isLastNewer(symbol, since)) {
        const row = live.of(symbol)!;
        last.push([index, row.price, row.trade_timestamp]);
      }
      const open = live.openOf(symbol, since);
      if (open !== null) opens.push(openTuple(index, open));
    }
    const seconds = chosen === null ? [] : live.secondsOf(chosen, nowMs, since);
    const delta: Delta = {
      nowMs,
      ...(last.length > 0 && { last }),
      ...(opens.length > 0 && { opens }),
      ...(seconds.length > 0 && { seconds }),
      ...(known !== statusNumber && status !== null && { status }),
    };
    return Object.keys(delta).length === 1 ? null : eventText("delta", delta);
  }

  function eventText(name: string, data: Snapshot | Delta): string {
    return `event: ${name}\nid: ${run}.${listNumber}.${live.version()}\ndata: ${JSON.stringify(data)}\n\n`;
  }

  /** The version a client came back with; null = it is none of this run. */
  function versionOf(lastEventId: string | null): number | null {
    const [, ofRun, list, digits] = /^([0-9a-f]{8})\.(\d{1,9})\.(\d{1,15})$/.exec(lastEventId ?? "") ?? [];
    const version = Number(digits);
    return ofRun === run && Number(list) === listNumber && version <= live.version() ? version : null;
  }

  // ---- Clients ----------------------------------------------------------------------------------------------

  function leave(client: Client, why: "gone" | "too slow" | "stopping"): void {
    if (!clients.delete(client)) return;
    if (clients.size === 0) {
      cancelTick?.();
      cancelTick = null;
    }
    client.taken?.();
    if (why === "stopping") client.controller.close();
    if (why === "too slow") client.controller.error(new Error("the client took no event for too long"));
  }

  signal?.addEventListener("abort", () => {
    for (const client of [...clients]) leave(client, "stopping");
  });

  return {
    clientCount: () => clients.size,
    open({ symbol, lastEventId }) {
      if (clients.size >= CLIENTS_MAX) return null;
      let client: Client | undefined;
      return new ReadableStream<Uint8Array>(
        {
          start(controller) {
            client = {
              symbol,
              controller,
              version: versionOf(lastEventId),
              statusNumber: -1,
              taken: null,
              waitingSinceMs: clock.monotonic(),
            };
            clients.add(client);
            controller.enqueue(encoder.encode(`retry: ${RETRY_MS}\n\n`));
            if (signal?.aborted) leave(client, "stopping");
            else start();
          },
          /** Called when the socket takes more; resolves when it has got it. */
          pull() {
            const own = client;
            if (own === undefined || !clients.has(own)) return undefined;
            return new Promise<void>((resolve) => {
              own.taken = resolve;
            });
          },
          cancel() {
            if (client !== undefined) leave(client, "gone");
          },
        },
        { highWaterMark: 0 },
      );
    },
  };
}
