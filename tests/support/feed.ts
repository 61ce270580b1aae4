// What the tests of a websocket feed stand on: a clock that is advanced by hand, a websocket server that does
// what a test says and nothing else, a raw one for what is no websocket, and lists one can wait on. No timers.

import { createHash } from "node:crypto";
import { type AddressInfo, createServer, type Socket } from "node:net";
import type { Clock } from "../../lib/base/clock.ts";
import type { Logger } from "../../lib/base/logger.ts";
import type { Feed, FeedEventType, FeedItem } from "../../lib/contracts/feed.ts";

/** A list that grows, and promises for what it will hold. */
export function watched<Value>() {
  const all: Value[] = [];
  const checks = new Set<() => void>();
  return {
    all,
    push(value: Value): void {
      all.push(value);
      for (const check of [...checks]) check();
    },
    /** The nth (from 1) of those that pass. */
    nth(n: number, passes: (value: Value) => boolean = () => true): Promise<Value> {
      return new Promise((resolve) => {
        const check = () => {
          const found = all.filter(passes)[n - 1];
          if (found === undefined) return;
          checks.delete(check);
          resolve(found);
        };
        checks.add(check);
        check();
      });
    },
  };
}

/** Time stands still until `advance`; the end of a tick and the sockets are real. */
export function handClock(startMs: number) {
  let elapsedMs = 0;
  let timers: { dueMs: number; callback: () => void }[] = [];
  const clock = {
    /** What random() says. */
    chance: 0,
    now: () => startMs + elapsedMs,
    monotonic: () => elapsedMs,
    random: () => clock.chance,
    sleep: (durationMs: number) =>
      new Promise<void>((resolve) => {
        clock.after(durationMs, resolve);
      }),
    after(durationMs: number, callback: () => void) {
      const timer = { dueMs: elapsedMs + durationMs, callback };
      timers.push(timer);
      return () => {
        timers = timers.filter((other) => other !== timer);
      };
    },
    atEndOfTick: (callback: () => void) => void setImmediate(callback),
    /** Runs what falls due, in order. */
    advance(durationMs: number): void {
      const untilMs = elapsedMs + durationMs;
      while (true) {
        const next = timers.toSorted((a, b) => a.dueMs - b.dueMs)[0];
        if (next === undefined || next.dueMs > untilMs) break;
        timers = timers.filter((timer) => timer !== next);
        elapsedMs = Math.max(elapsedMs, next.dueMs);
        next.callback();
      }
      elapsedMs = untilMs;
    },
  };
  return clock satisfies Clock;
}

export type Line = { level: keyof Logger; message: string; fields: Readonly<Record<string, unknown>> };

export function recordingLogger() {
  const lines = watched<Line>();
  const at =
    (level: keyof Logger) =>
    (message: string, fields = {}) =>
      lines.push({ level, message, fields });
  const logger: Logger = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  return { logger, lines };
}

/** Pulls all there is, as the publish loop does. */
export function readAll(feed: Feed) {
  const items = watched<FeedItem>();
  const batches: (readonly FeedItem[])[] = [];
  const ended = (async () => {
    for await (const batch of feed.batches()) {
      batches.push(batch);
      for (const item of batch) items.push(item);
    }
  })();
  const events = (type: FeedEventType) => items.all.filter((item) => isEvent(item, type)).map(detailOf);
  const event = async (type: FeedEventType, n = 1) =>
    detailOf(await items.nth(n, (item) => isEvent(item, type)));
  return { items, batches, ended, event, events };
}

function isEvent(item: FeedItem, type: FeedEventType): boolean {
  return item.kind === "event" && item.type === type;
}

function detailOf(item: FeedItem): Readonly<Record<string, unknown>> {
  return item.kind === "event" ? item.detail : {};
}

/** A websocket server without a will of its own. */
export function serveSockets() {
  const connections = watched<ReturnType<typeof connection>>();
  const server = Bun.serve<{ url: string; headers: Headers }, never>({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request, self) {
      const data = { url: request.url, headers: request.headers };
      return self.upgrade(request, { data }) ? undefined : new Response("no upgrade", { status: 400 });
    },
    websocket: {
      idleTimeout: 0,
      perMessageDeflate: false,
      backpressureLimit: 256 * 1024 * 1024,
      open(socket) {
        const made = connection(socket);
        bySocket.set(socket.data, made);
        connections.push(made);
      },
      message: (socket, text) => bySocket.get(socket.data)?.messages.push(String(text)),
      close: (socket, code) => bySocket.get(socket.data)?.closed.resolve(code),
    },
  });
  return {
    url: `ws://127.0.0.1:${server.port}/`,
    connections,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

const bySocket = new WeakMap<object, ReturnType<typeof connection>>();

function connection(socket: Bun.ServerWebSocket<{ url: string; headers: Headers }>) {
  const messages = watched<string>();
  return {
    ...socket.data,
    messages,
    closed: Promise.withResolvers<number>(),
    send: (frame: unknown) => socket.send(typeof frame === "string" ? frame : JSON.stringify(frame)),
    sendBytes: (bytes: Uint8Array) => socket.send(bytes),
    close: (code = 1000, reason = "") => socket.close(code, reason),
    /** Without a close frame. */
    drop: () => socket.terminate(),
    /** The symbols of the messages of this type, in order. */
    asked: (type: "subscribe" | "unsubscribe") =>
      messages.all
        .map((text) => JSON.parse(text) as { type: string; symbol: string })
        .filter((message) => message.type === type)
        .map((message) => message.symbol),
  };
}

/** Calls back with the socket and the text of each request that came whole. */
export async function serveRaw(answer: (socket: Socket, request: string, nth: number) => void) {
  const sockets = new Set<Socket>();
  const requests = watched<string>();
  const closes = watched<number>();
  const server = createServer((socket) => {
    sockets.add(socket);
    let text = "";
    socket.on("error", () => {});
    socket.on("close", () => {
      sockets.delete(socket);
      closes.push(closes.all.length + 1);
    });
    socket.on("data", (bytes) => {
      if (text.endsWith("\r\n\r\n")) return;
      text += bytes.toString("latin1");
      if (!text.endsWith("\r\n\r\n")) return;
      requests.push(text);
      answer(socket, text, requests.all.length);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    requests,
    closes,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export function refusal(status: number): string {
  return `HTTP/1.1 ${status} Refused\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno`;
}

/** The answer that makes a websocket of this request. */
export function acceptance(request: string): string {
  const key = /^Sec-WebSocket-Key: (.*)\r$/im.exec(request)?.[1] ?? "";
  const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  return `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`;
}

/** One unmasked text frame below 64 KiB, as a server writes it. */
export function textFrame(text: string): Buffer {
  const body = Buffer.from(text);
  const head =
    body.length < 126
      ? Buffer.from([0x81, body.length])
      : Buffer.from([0x81, 126, body.length >> 8, body.length & 0xff]);
  return Buffer.concat([head, body]);
}

/** So many turns of the event loop: time for what is ready to be read, without a clock. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

type Readable = {
  get(): Promise<{
    values: { value: number; labels: Readonly<Record<string, string | number | undefined>> }[];
  }>;
};

/** A counter's value: of one label, or of all together. */
export async function counted(counter: Readable, label?: string): Promise<number> {
  const { values } = await counter.get();
  return values
    .filter(({ labels }) => label === undefined || Object.values(labels).includes(label))
    .reduce((sum, { value }) => sum + value, 0);
}
