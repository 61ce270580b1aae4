// The web app on a socket. It knows nothing of what the app answers. It opens the port, or says in a sentence why it
// cannot, and lets answers on their way be finished before it closes.

import { reachableHost } from "../base/address.ts";
import { type Clock, TIMED_OUT, withTimeout } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";

export type ServeOptions = Readonly<{
  app: Readonly<{
    fetch(request: Request, env: Readonly<{ server: Bun.Server<undefined> }>): Response | Promise<Response>;
  }>;
  hostname: string;
  /** 0 = any free port. */
  port: number;
  clock: Clock;
  /** The setting that chooses the port, for the sentence when the port is not available. */
  portSetting?: string;
}>;

type WebServer = AsyncDisposable &
  Readonly<{
    port: number;
    /** `http://host:port`, as a browser on this machine reaches it. */
    url: string;
    /** Takes no new connections. Resolves when the answers on their way are sent, or cut off after STOP_MS_MAX. */
    stop(): Promise<void>;
  }>;

/**
 * Longer than a balancer keeps an idle connection to us (AWS and nginx: 60 s): the one that ends it first must be the
 * balancer, or a request meets a connection that we just closed, and the visitor sees a 502.
 */
const IDLE_SECONDS_MAX = 75;
/** No request needs more than a symbol. */
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
      const ended = await withTimeout(clock, STOP_MS_MAX, () => server.stop(false));
      if (ended === TIMED_OUT) await server.stop(true);
    })();
    return stopping;
  };
  return { port, url: `http://${reachableHost(hostname)}:${port}`, stop, [Symbol.asyncDispose]: stop };

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
        `${where}: another process uses the port`,
        `set ${portSetting} to another port (0 takes any free one), or stop that process`,
        error,
      );
    case "EACCES":
      return new SetupError(
        `${where}: this user may not use the port`,
        `set ${portSetting} to a port above 1023`,
        error,
      );
    default:
      return new SetupError(
        where,
        `check that BIND_ADDRESS is an address of this machine and ${portSetting} a free port`,
        error,
      );
  }
}
