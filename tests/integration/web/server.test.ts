// The web on a real socket: the port, the end of a server, and what only a socket shows of the live stream.

import { expect, test } from "bun:test";
import { type Clock, systemClock } from "../../../lib/base/clock.ts";
import { SetupError } from "../../../lib/base/errors.ts";
import { CLIENT_SLOW_MS_MAX, CLIENTS_MAX, TICK_MS } from "../../../lib/web/live/stream.ts";
import { serveWeb } from "../../../lib/web/server.ts";
import { eventually, NOON_MS } from "../../support/builders.ts";
import { openLiveWeb, openWeb, readEvents, row } from "../../support/web.ts";

test("on any free port: the page, JSON, HEAD, and a stop that frees the port", async () => {
  using web = openWeb();
  const server = serveWeb({ app: web.app, hostname: "127.0.0.1", port: 0, clock: systemClock });
  expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
  expect(await (await fetch(server.url)).text()).toStartWith("<!doctype html>");
  expect(await (await fetch(`${server.url}/tickers`)).json()).toEqual({ items: [] });
  const head = await fetch(`${server.url}/trades?symbol=AAPL`, { method: "HEAD" });
  expect([head.status, await head.text()]).toEqual([200, ""]);
  await server.stop();
  await using again = serveWeb({
    app: web.app,
    hostname: "127.0.0.1",
    port: server.port,
    clock: systemClock,
  });
  expect(again.port).toBe(server.port);
});

test("a port in use is refused in a sentence that names the setting", async () => {
  using web = openWeb();
  const options = { app: web.app, hostname: "127.0.0.1", clock: systemClock };
  await using server = serveWeb({ ...options, port: 0 });
  const again = () => serveWeb({ ...options, port: server.port, portSetting: "PROCESSOR_PORT" });
  expect(again).toThrow(SetupError);
  expect(again).toThrow(
    `the web server cannot listen on 127.0.0.1:${server.port}: another process uses the port`,
  );
  expect(again).toThrow(expect.objectContaining({ hint: expect.stringContaining("set PROCESSOR_PORT to") }));
});

test("a stop lets an answer that is on its way be finished", async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<Response>();
  const app = {
    fetch: () => {
      asked.resolve();
      return answer.promise;
    },
  };
  const server = serveWeb({ app, hostname: "127.0.0.1", port: 0, clock: systemClock });
  const response = fetch(server.url);
  await asked.promise;
  const stopped = server.stop();
  answer.resolve(new Response("in time"));
  expect(await (await response).text()).toBe("in time");
  await stopped;
});

test("a stop does not wait for an answer that never ends", async () => {
  const after: Clock["after"] = (_, callback) => {
    callback();
    return () => {};
  };
  const clock: Clock = { ...systemClock, after };
  const endless = () => new Response(new ReadableStream({ start: (controller) => controller.enqueue("x") }));
  const server = serveWeb({ app: { fetch: endless }, hostname: "127.0.0.1", port: 0, clock });
  const reader = (await fetch(server.url)).body!.getReader();
  await reader.read();
  await server.stop();
  await expect(reader.read()).rejects.toThrow();
});

// --- The live stream -------------------------------------------------------------------------------------------

test("a client that reads nothing is dropped, and few events were made for it", async () => {
  const wanted = Array.from({ length: 500 }, (_, number) => `S${number}`);
  using web = openLiveWeb({ tickers: () => ({ wanted, subscribed: [], unsubscribed: [] }) });
  await using server = serveWeb({ app: web.app, hostname: "127.0.0.1", port: 0, clock: systemClock });
  let isClosed = false;
  let receivedBytes = 0;
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: server.port,
    socket: {
      data(_, chunk) {
        receivedBytes += chunk.byteLength;
      },
      close() {
        isClosed = true;
      },
      error() {
        isClosed = true;
      },
    },
  });
  socket.write("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
  await eventually(5_000, "the stream", async () => {
    await web.advance(TICK_MS);
    return receivedBytes > 0;
  });
  socket.pause();
  // Two minutes at full speed would be 1,200 events of 12 KB.
  for (let tick = 0; tick < 1_200; tick++) {
    web.live.note(
      wanted.map((symbol) => row(tick, NOON_MS, { symbol, price: 1 + tick })),
      NOON_MS,
    );
    await web.advance(TICK_MS);
  }
  expect(web.timerCount()).toBe(0);
  socket.resume();
  await eventually(5_000, "the end of the connection", async () => isClosed);
  expect(receivedBytes).toBeLessThan(8_000_000);
}, 30_000);

test("clients that read nothing at all free their places within 15 s", async () => {
  using web = openLiveWeb();
  await using server = serveWeb({ app: web.app, hostname: "127.0.0.1", port: 0, clock: systemClock });
  await using sockets = new AsyncDisposableStack();
  for (let count = 0; count < CLIENTS_MAX; count++) {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port: server.port, socket: { data() {} } });
    sockets.defer(() => socket.terminate());
    socket.pause();
    socket.write("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  const ask = async () => {
    const stop = new AbortController();
    const { status } = await fetch(`${server.url}/events`, { signal: stop.signal });
    stop.abort();
    return status;
  };
  await eventually(5_000, "all places taken", async () => (await ask()) === 503);
  await web.advance(CLIENT_SLOW_MS_MAX - 1_000);
  expect(await ask()).toBe(503);
  await web.advance(1_000);
  expect(await ask()).toBe(200);
}, 30_000);

test("the stream is exempt from the server's idle limit, and a stop does not wait for it", async () => {
  using web = openLiveWeb();
  const asked: number[] = [];
  const app = {
    fetch(request: Request, env: { server: Bun.Server<undefined> }) {
      const { server } = env;
      const timeout = (own: Request, seconds: number) => {
        asked.push(seconds);
        server.timeout(own, seconds);
      };
      return web.app.fetch(request, { server: { timeout } });
    },
  };
  const server = serveWeb({ app, hostname: "127.0.0.1", port: 0, clock: systemClock });
  const stream = readEvents(await fetch(`${server.url}/events`));
  await eventually(5_000, "the first view", async () => {
    await web.advance(TICK_MS);
    return stream.events.length > 0;
  });
  expect(asked).toEqual([0]);
  const startedAtMs = performance.now();
  web.stop.abort();
  await server.stop();
  expect(performance.now() - startedAtMs).toBeLessThan(1_500);
});
