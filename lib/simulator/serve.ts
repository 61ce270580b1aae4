// The simulator's one server on loopback: REST and the websocket on one port. It decides nothing.

import type { Server, ServerWebSocket } from "bun";
import { SetupError } from "../base/errors.ts";
import type { Connection } from "./connections.ts";

type Answer = Response | undefined;

type Handlers = Readonly<{
  fetch(request: Request, server: Server<Connection>): Answer | Promise<Answer>;
  open(socket: ServerWebSocket<Connection>): void;
  message(socket: ServerWebSocket<Connection>, message: string | Buffer): void;
  drain(socket: ServerWebSocket<Connection>): void;
  pong(socket: ServerWebSocket<Connection>, data: Buffer): void;
  close(socket: ServerWebSocket<Connection>): void;
}>;

/** A client that is this far behind is cut off. */
const UNSENT_BYTES_MAX = 16 * 2 ** 20;
/** A client only says subscribe and unsubscribe. */
const CLIENT_MESSAGE_BYTES_MAX = 64 * 2 ** 10;

export function serveSimulator(portWanted: number, handlers: Handlers) {
  const { fetch, ...websocket } = handlers;
  try {
    const server = Bun.serve<Connection>({
      hostname: "127.0.0.1",
      port: portWanted,
      fetch,
      // 0 = never: an upgrade may be answered after 65 s (#38).
      idleTimeout: 0,
      websocket: {
        ...websocket,
        // Finnhub closes nobody for being quiet, and sends no protocol pings.
        idleTimeout: 0,
        sendPings: false,
        maxPayloadLength: CLIENT_MESSAGE_BYTES_MAX,
        backpressureLimit: UNSENT_BYTES_MAX,
      },
    });
    if (server.port === undefined) throw new Error("a server on loopback has a port");
    return { port: server.port, stop: (force: boolean) => server.stop(force) };
  } catch (error) {
    throw new SetupError(
      `the simulator cannot listen on 127.0.0.1:${portWanted}`,
      "another process may have the port; 0 takes any free one",
      error,
    );
  }
}
