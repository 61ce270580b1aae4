// The connection to Cassandra: how the driver is set up and asked. It knows no table, and repeats nothing but the first
// connection: the caller owns the retry.

import { checkServerIdentity, type PeerCertificate } from "node:tls";
import { Client, type ClientOptions, policies, types } from "cassandra-driver";
import { backoffMs, type Clock } from "../base/clock.ts";
import type { Config } from "../base/config.ts";
import { StoreUnavailableError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import { outageLoop } from "../base/outages.ts";
import { HOST_HINT, storeError } from "./errors.ts";

export type CassandraSettings = Config["cassandra"];

/** A row as the driver gives it. */
export type DriverRow = Readonly<Record<string, unknown>>;
export type Page = Readonly<{ rows: readonly DriverRow[]; pageState: string | undefined }>;
export type Statement = Readonly<{ query: string; params: readonly unknown[] }>;
type PageOptions = Readonly<{ pageRows?: number; pageState?: string | undefined; timeoutMs?: number }>;

/**
 * Every statement is prepared and idempotent. In values undefined is unset, null is written. Rejects with
 * StoreUnavailableError (StoreOverloadedError where asking less would help) when trying again may help, with
 * RowRefusedError when a value is proved invalid, with SetupError when the operator must change something.
 */
export interface Cassandra extends AsyncDisposable {
  execute(query: string, params: readonly unknown[], options?: PageOptions): Promise<Page>;
  /** Unlogged: all statements must be of one partition. */
  batch(statements: readonly Statement[]): Promise<void>;
  /** A change of the schema, not prepared; resolves when all nodes agree on it. */
  define(statement: string): Promise<void>;
  /** Nodes of our datacenter that the driver knows, up or down. */
  nodeCount(): number;
}

type ConnectDeps = Readonly<{
  settings: CassandraSettings;
  clock: Clock;
  logger: Logger;
  /** Ends the waiting for a node that does not answer yet. */
  signal: AbortSignal;
  /** Told after each failed attempt why it is still waiting. */
  onFault?: (error: Error) => void;
}>;

const CONNECT_RETRY_FIRST_MS = 500;
const CONNECT_RETRY_MAX_MS = 5_000;
/** A node may stand still for 10 s (a long pause, a full disk queue); with 2 s the driver took it for dead. */
const READ_TIMEOUT_MS = 12_000;
/** By default the driver waits up to ten minutes before it tries a node again that was down. */
const RECONNECT_FIRST_MS = 500;
const RECONNECT_MAX_MS = 5_000;

/**
 * Connects, waiting for a node that is still starting. Rejects with SetupError at once where waiting cannot help
 * (password, certificate, datacenter), with StoreUnavailableError when the signal aborts first.
 */
export async function connectCassandra({
  settings,
  clock,
  logger,
  signal,
  onFault,
}: ConnectDeps): Promise<Cassandra> {
  const aborted = new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
  const outage = outageLoop({ clock, logger }, "the store", "connection");
  let said = "";
  for (let attempt = 0; ; attempt++) {
    const client = new Client(clientOptions(settings));
    client.on("log", (level, className, message) => {
      // Verbose is two lines a request.
      if (level !== "verbose")
        logger.debug("cassandra-driver", { level, className, message: String(message) });
    });
    const connecting = client.connect().then(
      () => null,
      (error: unknown) => storeError(error),
    );
    const fault = await Promise.race([connecting, aborted.then(() => "aborted" as const)]);
    if (fault === null) {
      outage.worked();
      return cassandraOf(client, settings);
    }
    // An attempt that is still under way is closed in the background when it ends.
    void connecting.then(() => client.shutdown());
    if (fault === "aborted") {
      throw new StoreUnavailableError(`stopped while waiting for Cassandra${said}`, HOST_HINT);
    }
    if (!(fault instanceof StoreUnavailableError)) throw fault;
    said = `: ${fault.message}`;
    onFault?.(fault);
    outage.failed(fault);
    await clock.sleep(backoffMs(attempt, CONNECT_RETRY_FIRST_MS, CONNECT_RETRY_MAX_MS, clock.random), signal);
  }
}

function clientOptions(settings: CassandraSettings): ClientOptions {
  const { contactPoints, datacenter, credentials, tls, consistency } = settings;
  return {
    contactPoints: [...contactPoints],
    localDataCenter: datacenter,
    ...(credentials && { credentials }),
    ...(tls && { sslOptions: tlsOptions(tls.ca, contactPoints) }),
    // The newest that the driver speaks: without it every connection negotiates.
    protocolOptions: { maxVersion: types.protocolVersion.v4 },
    // A second connection to a node bought nothing.
    pooling: { coreConnectionsPerHost: { [types.distance.local]: 1 }, warmup: true },
    queryOptions: { prepare: true, isIdempotent: true, consistency: CONSISTENCIES[consistency] },
    socketOptions: { readTimeout: READ_TIMEOUT_MS, tcpNoDelay: true, keepAlive: true },
    policies: {
      reconnection: new policies.reconnection.ExponentialReconnectionPolicy(
        RECONNECT_FIRST_MS,
        RECONNECT_MAX_MS,
      ),
    },
    encoding: { useUndefinedAsUnset: true },
    ...NO_MONITOR,
  };
}

/** The driver would report on itself to its maker's server; its types do not know the option. */
const NO_MONITOR = { monitorReporting: { enabled: false } };

const CONSISTENCIES: Readonly<Record<CassandraSettings["consistency"], number>> = {
  ONE: types.consistencies.one,
  TWO: types.consistencies.two,
  THREE: types.consistencies.three,
  QUORUM: types.consistencies.quorum,
  ALL: types.consistencies.all,
  LOCAL_QUORUM: types.consistencies.localQuorum,
  LOCAL_ONE: types.consistencies.localOne,
};

/**
 * By default the driver trusts every certificate. It connects to addresses only, so a certificate is accepted when it names
 * the address, or a host of CASSANDRA_HOST.
 */
function tlsOptions(ca: string | undefined, contactPoints: readonly string[]) {
  const names = contactPoints.map((point) => point.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1"));
  return {
    rejectUnauthorized: true,
    ...(ca !== undefined && { ca: [ca] }),
    checkServerIdentity(host: string, certificate: PeerCertificate): Error | undefined {
      const found = [host, ...names].map((name) => checkServerIdentity(name, certificate));
      return found.includes(undefined) ? undefined : found[0];
    },
  };
}

function cassandraOf(client: Client, { datacenter }: CassandraSettings): Cassandra {
  return {
    async execute(query, params, { pageRows, pageState, timeoutMs } = {}) {
      const options = {
        prepare: true,
        ...(pageRows !== undefined && { fetchSize: pageRows }),
        ...(pageState !== undefined && { pageState }),
        ...(timeoutMs !== undefined && { readTimeout: timeoutMs }),
      };
      const result = await client.execute(query, [...params], options).catch(rethrow);
      // The driver says null after the last page.
      return { rows: result.rows ?? [], pageState: result.pageState ?? undefined };
    },
    async batch(statements) {
      await client.batch([...statements], { prepare: true, logged: false }).catch(rethrow);
    },
    async define(statement) {
      const { info } = await client.execute(statement, [], { prepare: false }).catch(rethrow);
      // The driver waits some seconds for agreement; its types do not know that it tells how that ended.
      if (!("isSchemaInAgreement" in info) || info.isSchemaInAgreement !== false) return;
      throw new StoreUnavailableError(
        "the nodes do not agree on the schema yet",
        "run `admin init` again when all of them are up",
      );
    },
    nodeCount: () => client.hosts.values().filter((host) => host.datacenter === datacenter).length,
    [Symbol.asyncDispose]: () => client.shutdown(),
  };
}

function rethrow(error: unknown): never {
  throw storeError(error);
}
