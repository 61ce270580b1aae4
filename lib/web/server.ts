// The web app on a socket. It knows nothing of what the app answers; it opens the port, says in a sentence when it
// cannot, and lets answers on their way be finished before it closes.

import type { Clock } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";

export type ServeOptions = Readonly<{
  app: Readonly<{
    fetch(request: Request, env: Readonly<{ server: Bun.Server<undefined> }>): Response | Promise<Response>;
  }>;
  hostname: string;
  /** 0 = any free one. */
  port: number;
  clock: Clock;
  /** The setting that chooses the port, for the sentence when it cannot be had. */
  portSetting?: string;
}>;

export type WebServer = AsyncDisposable &
  Readonly<{
    port: number;
    /** Where a browser on this machine finds it. */
    url: string;
    /** Takes no new connections; resolves when the answers on their way are sent, or cut off after a while. */
    stop(): Promise<void>;
  }>;

/** A browser that polls each second keeps its connection; one that went away frees it soon. */
const IDLE_SECONDS_MAX = 30;
/** Nobody sends us more than a symbol. */
const REQUEST_BYTES_MAX = 64 * 1_024;
/** For answers on their way; a stream that never ends is cut off here. */
const STOP_MS_MAX = 2_000;

export function serveWeb(options: ServeOptions): WebServer {
  const { app, hostname, clock } = options;
  const server = listen(options);
  const { port } = server;
  if (port === undefined) throw new Error("a server on a TCP port has a port");

  let stopping: Promise<void> | null = null;
  const stop = () => {
    stopping ??= (async () => {
      const patience = new AbortController();
      const ended = server.stop(false);
      const isLate = await Promise.race([
        ended.then(() => false),
        clock.sleep(STOP_MS_MAX, patience.signal).then(() => true),
      ]);
      patience.abort();
      if (isLate) await server.stop(true);
    })();
    return stopping;
  };
  return { port, url: `http://${reachable(hostname)}:${port}`, stop, [Symbol.asyncDispose]: stop };

  function listen({ port: wantedPort, portSetting = "ADMIN_PORT" }: ServeOptions) {
    try {
      return Bun.serve({
        hostname,
        port: wantedPort,
        idleTimeout: IDLE_SECONDS_MAX,
        maxRequestBodySize: REQUEST_BYTES_MAX,
        development: false, // Its error page shows sources.
        // Without development Bun shares the port by default, and a second process would get half the requests.
        reusePort: false,
        fetch: (request, bunServer) => app.fetch(request, { server: bunServer }),
      });
    } catch (error) {
      throw setupError(error, hostname, wantedPort, portSetting);
    }
  }
}

function setupError(error: unknown, hostname: string, port: number, portSetting: string): SetupError {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  const where = `the web cannot listen on ${hostname}:${port}`;
  switch (code) {
    case "EADDRINUSE":
      return new SetupError(
        `${where}: another process has the port`,
        `set ${portSetting} to another port (0 takes any free one), or stop that process`,
        error,
      );
    case "EACCES":
      return new SetupError(
        `${where}: this user may not take the port`,
        `set ${portSetting} to a port above 1023`,
        error,
      );
    default:
      return new SetupError(
        where,
        `see whether BIND_ADDRESS is an address of this machine, and ${portSetting} a free port`,
        error,
      );
  }
}

function reachable(hostname: string): string {
  if (hostname === "0.0.0.0") return "127.0.0.1";
  if (hostname === "::") return "[::1]";
  return hostname.includes(":") ? `[${hostname}]` : hostname;
}
