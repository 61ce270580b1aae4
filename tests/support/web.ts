// The web for tests: the app as a value on a real store in a directory of its own, its rows, and a reader of its live
// stream. No server is started here.

import { expect } from "bun:test";
import { type Clock, systemClock } from "../../lib/base/clock.ts";
import { silentLogger } from "../../lib/base/logger.ts";
import { createMetrics } from "../../lib/base/metrics.ts";
import type { StoreReader } from "../../lib/contracts/store.ts";
import { healthDocument } from "../../lib/health/health.ts";
import { type TradeRow, tradeRow } from "../../lib/model/trade.ts";
import { openSqliteStore } from "../../lib/sqlite/store.ts";
import { createWeb, type WebDeps } from "../../lib/web/app.ts";
import type { Delta, Snapshot } from "../../lib/web/live/protocol.ts";
import { createLiveView } from "../../lib/web/live/view.ts";
import { NOON_MS, temporaryDirectory, trade } from "./builders.ts";

const PAGES_MAX = 500;

type Answer = Readonly<{ status: number; headers: Headers; body: Record<string, unknown>; text: string }>;

/** An app on an empty store, at noon. */
export function openWeb(fields: Partial<WebDeps> = {}) {
  const directory = temporaryDirectory();
  const store = openSqliteStore({ directory: directory.path, sync: "normal" });
  const time = { nowMs: NOON_MS };
  const clock: Clock = { ...systemClock, now: () => time.nowMs };
  const live = createLiveView();
  const app = createWeb({
    store,
    live,
    clock,
    logger: silentLogger,
    metrics: createMetrics(),
    health: () => healthDocument(false, {}),
    tickers: () => ({ wanted: [], subscribed: [], unsubscribed: [] }),
    simulated: false,
    ...fields,
  });
  return {
    app,
    store,
    live,
    clock,
    time,
    async get(path: string, init?: RequestInit): Promise<Answer> {
      const response = await app.request(path, init);
      const text = await response.text();
      const isJson = response.headers.get("content-type")?.startsWith("application/json") && text !== "";
      return {
        status: response.status,
        headers: response.headers,
        body: isJson ? JSON.parse(text) : {},
        text,
      };
    },
    /** Every item of every page, by following `next`. */
    async all<Item>(path: string): Promise<Item[]> {
      const items: Item[] = [];
      let next: string | null = path;
      for (let page = 0; next !== null; page++) {
        if (page > PAGES_MAX) throw new Error("the pages do not end");
        const { status, body } = await this.get(next);
        expect(status).toBe(200);
        items.push(...(body.items as Item[]));
        next = body.next as string | null;
      }
      return items;
    },
    [Symbol.dispose]() {
      store[Symbol.dispose]();
      directory[Symbol.dispose]();
    },
  };
}

/** A store that answers with a fault. */
export function brokenStore(error: Error): StoreReader {
  const fail = () => Promise.reject(error);
  return { listTrades: fail, listAverages: fail, listCandles: fail, listEvents: fail };
}

export function uuidOf(number: number): string {
  return `019b8d4e-0000-7000-8000-${number.toString(16).padStart(12, "0")}`;
}

export function row(number: number, tradedAtMs: number, fields: Parameters<typeof trade>[0] = {}): TradeRow {
  return tradeRow(trade({ tradedAtMs, ...fields }), uuidOf(number), tradedAtMs);
}

// --- The live stream -------------------------------------------------------------------------------------------

type Event = Readonly<{ name: string; id: string; data: Snapshot & Delta }>;

/** Timers fire only in `advance`, in their order. */
function virtualClock() {
  let elapsedMs = 0;
  const timers = new Set<{ atMs: number; callback: () => void }>();
  const clock: Clock = {
    ...systemClock,
    now: () => NOON_MS + elapsedMs,
    monotonic: () => elapsedMs,
    after(durationMs, callback) {
      const timer = { atMs: elapsedMs + durationMs, callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
  };
  return {
    clock,
    timerCount: () => timers.size,
    /** Between two timers everything that waits for an event gets its turn. */
    async advance(durationMs: number): Promise<void> {
      const endMs = elapsedMs + durationMs;
      for (;;) {
        await turn();
        const next = [...timers].toSorted((a, b) => a.atMs - b.atMs)[0];
        if (next === undefined || next.atMs > endMs) break;
        timers.delete(next);
        elapsedMs = next.atMs;
        next.callback();
      }
      elapsedMs = endMs;
      await turn();
    },
  };
}

export const turn = () => new Promise((resolve) => setImmediate(resolve));

/** An app whose time stands still, with AAPL and MSFT on the watchlist. */
export function openLiveWeb(fields: Partial<WebDeps> = {}) {
  const directory = temporaryDirectory();
  const store = openSqliteStore({ directory: directory.path, sync: "normal" });
  const time = virtualClock();
  const live = createLiveView();
  const wanted = ["AAPL", "MSFT"];
  const stop = new AbortController();
  const app = createWeb({
    store,
    live,
    clock: time.clock,
    logger: silentLogger,
    metrics: createMetrics(),
    health: () => healthDocument(true, {}),
    tickers: () => ({ wanted, subscribed: wanted.slice(), unsubscribed: [] }),
    simulated: true,
    signal: stop.signal,
    ...fields,
  });
  return {
    app,
    store,
    live,
    wanted,
    stop,
    ...time,
    async open(path = "/events", headers: Record<string, string> = {}) {
      const response = await app.request(path, { headers });
      return { response, ...readEvents(response) };
    },
    [Symbol.dispose]() {
      stop.abort();
      store[Symbol.dispose]();
      directory[Symbol.dispose]();
    },
  };
}

/** `events` grows until `pause`; from then on nothing is read until `resume`. */
export function readEvents(response: Response) {
  const events: Event[] = [];
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  let isPaused = false;
  const state = { isEnded: false, isBroken: false };
  let text = "";
  async function read(): Promise<void> {
    while (!isPaused) {
      const { done, value } = await reader.read();
      if (done) {
        state.isEnded = true;
        return;
      }
      text += decoder.decode(value, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop()!;
      for (const block of blocks) {
        const lines = new Map(block.split("\n").map((line) => line.split(/: (.*)/s) as [string, string]));
        const data = lines.get("data");
        if (data === undefined) continue;
        events.push({ name: lines.get("event")!, id: lines.get("id")!, data: JSON.parse(data) });
      }
    }
  }
  const start = () => {
    isPaused = false;
    read().catch(() => {
      state.isBroken = true;
    });
  };
  start();
  return {
    events,
    state,
    /** After the next event, which is already asked for. */
    pause: () => {
      isPaused = true;
    },
    resume: start,
    close: () => reader.cancel(),
  };
}
