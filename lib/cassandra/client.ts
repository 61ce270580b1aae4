// The connection to Cassandra: how the driver is set up, and the one place that says its errors in our words. It
// knows no table, and repeats nothing but the first connection: whoever asked owns the retry.

import { checkServerIdentity, type PeerCertificate } from "node:tls";
import { Client, type ClientOptions, errors, policies, types } from "cassandra-driver";
import { backoffMs, type Clock } from "../base/clock.ts";
import type { Config } from "../base/config.ts";
import { RowRefusedError, SetupError, StoreOverloadedError, StoreUnavailableError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";

export type CassandraSettings = Config["cassandra"];

export type Row = Readonly<Record<string, unknown>>;
export type Page = Readonly<{ rows: readonly Row[]; pageState: string | undefined }>;
export type Statement = Readonly<{ query: string; params: readonly unknown[] }>;
export type PageOptions = Readonly<{ pageRows?: number; pageState?: string | undefined; timeoutMs?: number }>;

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

export type ConnectDeps = Readonly<{
  settings: CassandraSettings;
  clock: Clock;
  logger: Logger;
  /** Ends the waiting for a node that does not answer yet. */
  signal: AbortSignal;
  /** Hears why it is still waiting, attempt after attempt. */
  onFault?: (error: Error) => void;
}>;

const CONNECT_RETRY_FIRST_MS = 500;
const CONNECT_RETRY_MAX_MS = 5_000;
/** A node that stands still for 10 s (a long pause, a full disk queue) costs nothing with this; 2 s took it for dead. */
const READ_TIMEOUT_MS = 12_000;
/** The driver's own waits up to ten minutes before it looks for a node that was down again. */
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
    if (fault === null) return cassandraOf(client, settings);
    // An attempt that is still under way is closed behind our back when it has ended.
    void connecting.then(() => client.shutdown());
    if (fault === "aborted") {
      throw new StoreUnavailableError(`stopped while waiting for Cassandra${said}`, HOST_HINT);
    }
    if (!(fault instanceof StoreUnavailableError)) throw fault;
    said = `: ${fault.message}`;
    onFault?.(fault);
    if (attempt === 0) logger.warn("Cassandra does not answer yet; trying until it does", { error: fault });
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
    // The driver speaks no newer one; said here, it is not found out with every connection.
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

/** The driver would report on itself to a server of its maker; its types do not know the option. */
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
 * The driver trusts every certificate unless told otherwise, and connects to addresses only: a certificate is good
 * that names the address, or a host of CASSANDRA_HOST.
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
      // The driver's null is no more pages.
      return { rows: result.rows ?? [], pageState: result.pageState ?? undefined };
    },
    async batch(statements) {
      await client.batch([...statements], { prepare: true, logged: false }).catch(rethrow);
    },
    async define(statement) {
      const { info } = await client.execute(statement, [], { prepare: false }).catch(rethrow);
      // The driver waits for it some seconds; its types do not know that it says how that ended.
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

// --- Errors ----------------------------------------------------------------------------------------------------

function rethrow(error: unknown): never {
  throw storeError(error);
}

const RUN_INIT = "run `admin init`";
const HOST_HINT = "see CASSANDRA_HOST";
const TLS_HINT = "see CASSANDRA_SSL and CASSANDRA_SSL_CA";

/** What the driver rejected with, as the contract's error; what it does not know is a bug and comes back as it is. */
export function storeError(error: unknown): unknown {
  if (error instanceof errors.NoHostAvailableError) return noHostError(error);
  const text = messageOf(error);
  if (error instanceof errors.AuthenticationError) return passwordError(error);
  if (error instanceof errors.OperationTimedOutError || error instanceof errors.BusyConnectionError) {
    return new StoreOverloadedError(`Cassandra answers too late: ${text}`, undefined, error);
  }
  if (error instanceof errors.ResponseError) return responseError(error, text);
  if (error instanceof errors.ArgumentError && text.startsWith("localDataCenter")) {
    return new SetupError(`no such datacenter: ${text}`, "see CASSANDRA_DATACENTER", error);
  }
  const code = codeOf(error);
  if (isCertificateFault(code)) {
    return new SetupError(`the certificate of Cassandra is not accepted (${text})`, TLS_HINT, error);
  }
  if (code === "ERR_BORINGSSL" && /invalid ca/i.test(text)) {
    return new SetupError("CASSANDRA_SSL_CA holds no certificate", "give the path of a PEM file", error);
  }
  if (isProtocolFault(code)) {
    return new SetupError(`Cassandra does not speak TLS on this port (${text})`, TLS_HINT, error);
  }
  if (code !== "" || isSocketFault(error)) {
    return new StoreUnavailableError(`Cassandra cannot be reached (${text})`, HOST_HINT, error);
  }
  return error;
}

/** All nodes failed. What each said decides: waiting helps unless every one of them says that it cannot. */
function noHostError(error: errors.NoHostAvailableError): Error {
  const inner = Object.entries<unknown>(error.innerErrors ?? {});
  const faults = inner.map(([, cause]) => storeError(cause));
  const said = inner.map(([host, cause]) => `${host}: ${messageOf(cause)}`).join("; ");
  const [first] = faults;
  if (first instanceof SetupError && faults.every((fault) => fault instanceof SetupError)) return first;
  if (faults.some((fault) => fault instanceof StoreOverloadedError)) {
    return new StoreOverloadedError(`Cassandra answers too late (${said})`, undefined, error);
  }
  // Docker's proxy resets too while its container starts, so this may be either.
  const hint = /ECONNRESET/.test(said)
    ? `${HOST_HINT} (a node that wants TLS does this: CASSANDRA_SSL=1)`
    : HOST_HINT;
  // Where every node is known to be down, none is tried and none says why.
  const problem = said || messageOf(error).replace(/^All host.*/, "no node is up");
  return new StoreUnavailableError(`Cassandra is not available (${problem})`, hint, error);
}

function responseError(error: errors.ResponseError, text: string): unknown {
  const codes = types.responseErrorCodes;
  // The size alone proves it, whatever code the version of the server gives it. Of a batch: tried alone, each tells.
  if (/oversized mutation|Mutation of \d+ bytes is too large|Request is too big/i.test(text)) {
    return new RowRefusedError(`Cassandra refuses a row of this size: ${text}`, undefined, error);
  }
  switch (error.code) {
    case codes.overloaded:
    case codes.writeTimeout:
    case codes.readTimeout:
      return new StoreOverloadedError(`Cassandra is overloaded: ${text}`, undefined, error);
    case codes.unavailableException:
    case codes.isBootstrapping:
    case codes.serverError:
    case codes.truncateError:
    case codes.readFailure:
    case codes.writeFailure:
      return new StoreUnavailableError(`Cassandra cannot answer: ${text}`, undefined, error);
    case codes.badCredentials:
      return passwordError(error);
    case codes.unauthorized:
      return new SetupError(`Cassandra forbids it: ${text}`, "GRANT it to CASSANDRA_USERNAME", error);
    case codes.configError:
      return new SetupError(`Cassandra refuses the schema: ${text}`, "see CASSANDRA_DATACENTER", error);
    case codes.invalid:
      return invalidError(error, text);
    default:
      return error;
  }
}

/** Only what proves a row invalid is refused: anything else here would throw good rows away. */
function invalidError(error: errors.ResponseError, text: string): unknown {
  if (/^(?:keyspace|table) .* does not exist|unconfigured table|undefined column name/i.test(text)) {
    return new SetupError(`Cassandra has not our tables: ${text}`, RUN_INIT, error);
  }
  if (/maximum supported expiration date/i.test(text)) {
    const hint = "set a smaller RETENTION_DAYS, and run `admin init`";
    return new SetupError("this Cassandra cannot keep rows for RETENTION_DAYS: it ends in 2038", hint, error);
  }
  if (/^Key (?:may not be empty|length of \d+ is longer than)/i.test(text)) {
    return new RowRefusedError(`Cassandra refuses the key of a row: ${text}`, undefined, error);
  }
  return error;
}

function passwordError(error: Error): SetupError {
  return new SetupError(
    "Cassandra does not accept the user or the password",
    "see CASSANDRA_USERNAME and CASSANDRA_PASSWORD (a node that was only just created needs some seconds to know its users)",
    error,
  );
}

/** Node's names for a certificate that was not accepted. */
function isCertificateFault(code: string): boolean {
  return /^(?:CERT_|ERR_TLS_CERT|UNABLE_TO_|DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE)/.test(
    code,
  );
}

/** The other side speaks something else than TLS. */
function isProtocolFault(code: string): boolean {
  return code === "EPROTO" || code.startsWith("ERR_SSL_");
}

function isSocketFault(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return (
    "isSocketError" in error ||
    /socket was closed|connection timeout|connection not opened/i.test(error.message)
  );
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

/** The first line: the driver puts stacks of other errors into messages. */
function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n", 1)[0] ?? "";
}
