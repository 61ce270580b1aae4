// The simulator's handshakes: a request for a websocket becomes a connection, or is refused with Finnhub's status. No token
// is reported.

import type { Server } from "bun";
import type { CloseReason, Connection, Connections } from "./connections.ts";
import type { FaultPlanner, HandshakeFault } from "./faults.ts";
import type { SimulatorOptions } from "./options.ts";
import { BAD_KEY_BODY, LIMIT_BODY, NO_KEY_BODY } from "./rest.ts";
import type { Later } from "./timers.ts";

type UpgradeDeps = Readonly<{
  connections: Connections;
  planner: FaultPlanner;
  later: Later;
  accepts: (token: string) => boolean;
  secondConnection: NonNullable<SimulatorOptions["secondConnection"]>;
}>;

/** Undefined: it is a websocket now. */
type Answer = Response | undefined;

export function createUpgrade({ connections, planner, later, accepts, secondConnection }: UpgradeDeps) {
  function answer(request: Request, token: string, via: Server<Connection>): Answer {
    const fault = planner.nextHandshake();
    if (token === "") return Response.json(NO_KEY_BODY, { status: 401 });
    if (!accepts(token)) return refusal(401);
    if (fault !== null) return refusal(fault);
    const older = connections.of(token);
    if (older !== undefined && secondConnection === "reject") return refusal(429);
    if (older !== undefined) connections.drop(older, KICKED);
    const connection = connections.admit(token);
    connection.isDoomed = older !== undefined && secondConnection === "kick-both";
    if (via.upgrade(request, { data: connection })) return undefined;
    connections.dismiss(connection);
    return new Response("Upgrade failed", { status: 400 });
  }

  return (request: Request, token: string, via: Server<Connection>): Answer | Promise<Answer> => {
    const delayMs = planner.nextHandshakeDelayMs();
    if (delayMs === 0) return answer(request, token, via);
    return new Promise((resolve) => {
      later(delayMs, () => {
        // A client that no longer waits must not take the token's one session.
        resolve(request.signal.aborted ? undefined : answer(request, token, via));
      });
    });
  };
}

export const KICKED: CloseReason = "kicked";

function refusal(status: HandshakeFault): Response {
  switch (status) {
    case 401:
      return Response.json(BAD_KEY_BODY, { status });
    case 429:
      return Response.json(LIMIT_BODY, { status });
    // Seen for two hours in 2020 (#346), and Cloudflare's word for an origin that does not answer (#255).
    case 200:
      return new Response("OK", { status });
    case 524:
      return new Response("error code: 524", { status });
  }
}
