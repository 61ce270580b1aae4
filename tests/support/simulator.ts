// What the tests of the simulator stand on: a client that keeps what it gets, a clock that moves when told to, and
// small tapes. No timers of its own.

import { expect } from "bun:test";
import { type Clock, systemClock } from "../../lib/base/clock.ts";
import { type Simulator, type SimulatorOptions, startSimulator } from "../../lib/simulator/simulator.ts";
import { parseTape, tradesOf } from "../../lib/simulator/tape.ts";
import { NOON_MS } from "./builders.ts";

export const WAIT_MS_MAX = 4_000;

/** Resolves when the condition holds, looking again at every turn of the event loop. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const endsAt = systemClock.monotonic() + WAIT_MS_MAX;
  while (!condition()) {
    if (systemClock.monotonic() > endsAt) throw new Error(`Waited in vain: ${what}`);
    await new Promise<void>((resolve) => systemClock.atEndOfTick(resolve));
  }
}

/** A clock whose time is the test's: it moves by `advance` only. */
export function handClock(
  startMs: number,
): Clock & { advance(durationMs: number): void; hasTimerIn(durationMs: number): boolean } {
  let elapsedMs = 0;
  const timers = new Map<number, { dueMs: number; callback: () => void }>();
  let timerCount = 0;
  return {
    ...systemClock,
    now: () => startMs + elapsedMs,
    monotonic: () => elapsedMs,
    after(durationMs, callback) {
      const id = timerCount++;
      timers.set(id, { dueMs: elapsedMs + durationMs, callback });
      return () => timers.delete(id);
    },
    /** Whether something is due in exactly that time. */
    hasTimerIn: (durationMs) => [...timers.values()].some(({ dueMs }) => dueMs === elapsedMs + durationMs),
    advance(durationMs) {
      const endMs = elapsedMs + durationMs;
      for (;;) {
        const [first] = [...timers].sort(([, a], [, b]) => a.dueMs - b.dueMs);
        if (first === undefined || first[1].dueMs > endMs) break;
        timers.delete(first[0]);
        elapsedMs = Math.max(elapsedMs, first[1].dueMs);
        first[1].callback();
      }
      elapsedMs = endMs;
    },
  };
}

export class Client {
  readonly frames: string[] = [];
  closeCode: number | null = null;
  readonly #socket: WebSocket;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = (event) => this.frames.push(String(event.data));
    socket.onclose = (event) => {
      this.closeCode = event.code;
    };
  }

  static async open(simulator: Simulator, token = "token"): Promise<Client> {
    const client = await Client.attempt(simulator, token);
    expect(client.isOpen).toBe(true);
    return client;
  }

  /** Open, or refused. `isHeld` is asked again and again while there is no answer. */
  static async attempt(simulator: Simulator, token: string, isHeld = () => {}): Promise<Client> {
    const socket = new WebSocket(`${simulator.wsUrl}/?token=${token}`);
    const client = new Client(socket);
    await until(() => {
      if (socket.readyState === WebSocket.CONNECTING) isHeld();
      return socket.readyState !== WebSocket.CONNECTING;
    }, "a connection");
    return client;
  }

  get isOpen(): boolean {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  say(text: string) {
    this.#socket.send(text);
  }

  subscribe(...symbols: string[]) {
    for (const symbol of symbols) this.say(JSON.stringify({ type: "subscribe", symbol }));
  }

  unsubscribe(symbol: string) {
    this.say(JSON.stringify({ type: "unsubscribe", symbol }));
  }

  /** Resolves when the server has dealt with all that was said before; the answer is not kept. */
  async fence() {
    this.subscribe("FX:FENCE");
    const text = '{"msg":"Invalid symbol FX:FENCE","type":"error"}';
    await until(() => this.frames.includes(text), "the answer to an invalid symbol");
    this.frames.splice(this.frames.indexOf(text), 1);
  }

  trades() {
    return this.frames.flatMap((text) => tradesOf(text));
  }

  async close(simulator: Simulator) {
    this.#socket.close();
    await until(() => simulator.clients().length === 0, "the server's notice of a close");
  }

  /** Whoever else is there. */
  async leave() {
    this.#socket.close();
    await this.closed();
  }

  closed(): Promise<void> {
    return until(() => this.closeCode !== null, "a close");
  }
}

export function simulate(options: SimulatorOptions = {}): Promise<Simulator> {
  return startSimulator({ seed: 7, ...options });
}

/** A frame every `gapMs`, alternately A and B, each trade 40 ms old; the price is the frame's number. */
export function tapeOf(count: number, gapMs = 10) {
  const lines = Array.from({ length: count }, (_, index) => {
    const at = NOON_MS - 86_400_000 + index * gapMs;
    const s = index % 2 === 0 ? "A" : "B";
    const frame = `{"data":[{"c":null,"p":${index + 1}.0,"s":"${s}","t":${at - 40},"v":1}],"type":"trade"}`;
    return JSON.stringify({ at, frame });
  });
  return parseTape(lines.join("\n"), "test tape");
}

export const numbersOf = (client: Client) => client.trades().map((trade) => trade.p);
export const numbersTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

/** The status of a websocket handshake, which a WebSocket object does not tell. */
export async function handshakeStatus(simulator: Simulator, query: string): Promise<number> {
  let answer = "";
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: simulator.port,
    socket: {
      data(_, bytes) {
        answer += bytes.toString();
      },
    },
  });
  socket.write(handshakeText(query));
  await until(() => answer.includes("\r\n\r\n"), "the answer to a handshake");
  socket.end();
  return Number(answer.split(" ")[1]);
}

export function handshakeText(query: string): string {
  return [
    `GET /${query} HTTP/1.1`,
    "Host: 127.0.0.1",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    "\r\n",
  ].join("\r\n");
}
