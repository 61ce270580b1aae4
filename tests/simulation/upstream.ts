// The other side of the feed's socket, in virtual time: a websocket as openFinnhubFeed sees it, and an upstream
// that trades, pings, refuses, resets, repeats, and sends what nobody can read. It remembers what was handed
// over: a frame counts from the moment at which it entered `onmessage` of a producer that lives and is awake.

import type { Chronicle, Kind, Weather } from "./faults.ts";
import type { Machine, World } from "./world.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const PING_MS = 10_000;

export type WireTrade = { s: string; p: number; t: number; v: number; c: string[] | null };

export class VirtualSocket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onerror: ((event: { message: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  state: "connecting" | "open" | "closed" = "connecting";
  /** The net between has died, and neither side knows. */
  isSilent = false;
  readonly subscribed = new Set<string>();
  readonly machine: Machine;
  readonly #upstream: Upstream;
  #isPaused = false;
  #held: string[] = [];
  #lastDueMs = 0;

  constructor(upstream: Upstream, machine: Machine) {
    this.#upstream = upstream;
    this.machine = machine;
  }

  send(text: string): void {
    if (this.state === "open") this.#upstream.hear(this, text);
  }

  close(): void {
    if (this.state !== "open") return;
    this.state = "closed";
    this.machine.after(5, () => this.onclose?.({ code: 1000, reason: "" }));
  }

  terminate(): void {
    this.state = "closed";
    this.#held = [];
  }

  pause(): void {
    this.#isPaused = true;
    this.#upstream.paused();
  }

  resume(): void {
    this.#isPaused = false;
    const held = this.#held;
    this.#held = [];
    for (const text of held) this.machine.after(0, () => this.#arrive(text));
  }

  /** In the order of sending, as one connection does. */
  deliver(text: string): void {
    if (this.state !== "open" || this.isSilent) return;
    const { world } = this.machine;
    this.#lastDueMs = Math.max(this.#lastDueMs, world.elapsedMs + world.between(0.2, 30));
    this.machine.after(this.#lastDueMs - world.elapsedMs, () => this.#arrive(text));
  }

  #arrive(text: string): void {
    if (this.state !== "open") return;
    if (this.#isPaused) {
      this.#held.push(text);
      return;
    }
    if (this.onmessage === null) return;
    this.#upstream.onHanded(this.machine, text);
    this.onmessage({ data: text });
  }
}

export type UpstreamOptions = Readonly<{ symbols: readonly string[]; framesPerSecond: number }>;

export class Upstream {
  onHanded: (machine: Machine, text: string) => void = () => {};
  /** Whether it trades. It pings for ever. */
  /** Where an operator was at work, late trades come too; null: nowhere. */
  lateAtMs: number | null = null;
  isTrading = true;
  readonly #world: World;
  readonly #record: Chronicle;
  readonly #weather: Weather;
  readonly #options: UpstreamOptions;
  readonly #sockets = new Set<VirtualSocket>();
  #lastFrame: string | null = null;

  constructor(world: World, record: Chronicle, weather: Weather, options: UpstreamOptions) {
    this.#world = world;
    this.#record = record;
    this.#weather = weather;
    this.#options = options;
    this.#trade();
    this.#ping();
  }

  #has(kind: Kind, probability: number): boolean {
    return !this.#weather.isCalm && this.#weather.kinds.has(kind) && this.#world.chance(probability);
  }

  open(machine: Machine): VirtualSocket {
    const socket = new VirtualSocket(this, machine);
    const latencyMs = this.#world.between(5, 200);
    if (this.#has("upgrade_unanswered", 0.3)) {
      this.#record.fire("upgrade_unanswered");
    } else if (this.#has("upgrade_refused", 0.4)) {
      const how = ["101 status code: 429", "101 status code: 401", "101 status code: 502", ""];
      const status = how[this.#world.pick(how.length)]!;
      this.#record.fire("upgrade_refused", status);
      const message = `WebSocket connection to 'wss://x/' failed: ${status === "" ? "no answer" : `Expected ${status}`}`;
      machine.after(latencyMs, () => {
        if (socket.state !== "connecting") return;
        socket.state = "closed";
        socket.onerror?.({ message });
      });
    } else {
      machine.after(latencyMs, () => {
        if (socket.state !== "connecting") return;
        socket.state = "open";
        this.#sockets.add(socket);
        socket.onopen?.();
      });
    }
    return socket;
  }

  hear(socket: VirtualSocket, text: string): void {
    this.#world.after(this.#world.between(0.2, 20), () => {
      const { type, symbol } = JSON.parse(text) as { type: string; symbol: string };
      if (type === "unsubscribe") socket.subscribed.delete(symbol);
      else if (
        this.#has("symbols_over_cap", 1) &&
        socket.subscribed.size >= this.#options.symbols.length - 1
      ) {
        this.#record.fire("symbols_over_cap", symbol);
        socket.deliver('{"msg":"Subscribing to too many symbols","type":"error"}');
      } else socket.subscribed.add(symbol);
    });
  }

  paused(): void {
    this.#record.fire("socket_paused");
  }

  #open(): VirtualSocket[] {
    for (const socket of this.#sockets) {
      if (socket.state !== "open" || socket.machine.state === "dead") this.#sockets.delete(socket);
    }
    return [...this.#sockets];
  }

  /** A reset: what was on its way is gone. */
  reset(): void {
    for (const socket of this.#open()) {
      this.#record.fire("socket_reset");
      this.#sockets.delete(socket);
      socket.machine.after(this.#world.between(0, 10), () => {
        if (socket.state !== "open") return;
        socket.state = "closed";
        socket.onclose?.({ code: 1006, reason: "" });
      });
    }
  }

  silence(): void {
    for (const socket of this.#open()) {
      this.#record.fire("socket_silent");
      socket.isSilent = true;
    }
  }

  #ping(): void {
    this.#world.after(PING_MS, () => {
      for (const socket of this.#open()) socket.deliver('{"type":"ping"}');
      this.#ping();
    });
  }

  #trade(): void {
    const world = this.#world;
    world.after((-Math.log(1 - world.random()) * 1_000) / this.#options.framesPerSecond, () => {
      if (this.isTrading) this.#send();
      this.#trade();
    });
  }

  #send(): void {
    const sockets = this.#open().filter((socket) => socket.subscribed.size > 0 && !socket.isSilent);
    for (const socket of sockets) {
      const frames = [this.#frame(socket)];
      if (this.#has("frame_duplicated", 0.1)) {
        this.#record.fire("frame_duplicated");
        frames.push(frames[0]!);
      }
      if (this.#lastFrame !== null && this.#has("frame_reordered", 0.1)) {
        this.#record.fire("frame_reordered");
        frames.push(this.#lastFrame);
      }
      if (this.#has("frame_garbage", 0.05)) {
        this.#record.fire("frame_garbage");
        const kinds = ["<html>", '{"type":7}', '{"type":"trade","data":7}', '["trade"]', ""];
        frames.push(kinds[this.#world.pick(kinds.length)]!);
      }
      for (const frame of frames) socket.deliver(frame);
    }
  }

  #frame(socket: VirtualSocket): string {
    const world = this.#world;
    const symbols = [...socket.subscribed];
    const data: unknown[] = [];
    let count = 1 + world.pick(3);
    if (this.#has("trade_burst", 0.05)) {
      this.#record.fire("trade_burst");
      count = 30;
    }
    for (let index = 0; index < count; index++) {
      const trade = this.#one(symbols[world.pick(symbols.length)]!);
      data.push(trade);
      // Equal prints are two real trades.
      if (world.chance(0.1)) data.push(trade);
      if (this.#has("element_garbage", 0.02)) {
        this.#record.fire("element_garbage");
        data.push([{ ...trade, p: null }, 7, { ...trade, v: -1 }, { ...trade, t: 1.5 }][world.pick(4)]);
      }
    }
    const text = JSON.stringify({ data, type: "trade" });
    this.#lastFrame = this.#has("frame_reordered", 1)
      ? JSON.stringify({ data: [this.#one(symbols[0]!)], type: "trade" })
      : null;
    return text;
  }

  #one(symbol: string): WireTrade {
    const world = this.#world;
    let t = world.nowMs - world.pick(3) * world.pick(1_500);
    if (world.chance(0.3)) t -= t % 1_000;
    if (this.lateAtMs !== null && world.chance(0.1)) {
      t = this.lateAtMs - (this.lateAtMs % 15_000) + world.pick(15_000);
    } else if (this.#has("trade_hour_late", 0.03)) {
      this.#record.fire("trade_hour_late");
      t -= HOUR_MS + world.pick(120_000);
    }
    if (this.#has("trade_future", 0.02)) {
      this.#record.fire("trade_future");
      t += world.pick(2) === 0 ? world.pick(90_000) : world.pick(20 * HOUR_MS);
    }
    if (this.#has("trade_impossible", 0.01)) {
      this.#record.fire("trade_impossible");
      t = world.pick(2) === 0 ? 5_000 : world.nowMs + 3 * DAY_MS;
    }
    const conditions = [null, [], ["1"], ["1", "12"]];
    const v = symbol.startsWith("OANDA") ? 0 : world.pick(30) / 10;
    return { s: symbol, p: 10 + world.pick(5) + world.pick(3) / 10, t, v, c: conditions[world.pick(4)]! };
  }
}
