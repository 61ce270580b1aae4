// The driver's errors in the words of the contract: what may pass, what proves a row invalid, and what the operator must
// change. The only place that reads the driver's messages; it sends nothing.

import { errors, types } from "cassandra-driver";
import { RowRefusedError, SetupError, StoreOverloadedError, StoreUnavailableError } from "../base/errors.ts";

const RUN_INIT = "run `admin init`";
export const HOST_HINT = "check that Cassandra is running, and check CASSANDRA_HOST and CASSANDRA_PORT";
const TLS_HINT = "check CASSANDRA_SSL and CASSANDRA_SSL_CA";

/** The contract's error for what the driver rejected with. An error that is not known here is a bug, and comes back as it is. */
export function storeError(error: unknown): unknown {
  if (error instanceof errors.NoHostAvailableError) return noHostError(error);
  const text = messageOf(error);
  if (error instanceof errors.AuthenticationError) return passwordError(error);
  if (error instanceof errors.OperationTimedOutError || error instanceof errors.BusyConnectionError) {
    return new StoreOverloadedError(`Cassandra answers too late: ${text}`, undefined, error);
  }
  if (error instanceof errors.ResponseError) return responseError(error, text);
  if (error instanceof errors.ArgumentError && text.startsWith("localDataCenter")) {
    return new SetupError(
      `Cassandra has no datacenter of that name: ${text}`,
      "set CASSANDRA_DATACENTER to a name that `nodetool status` shows",
      error,
    );
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

/** All nodes failed. Waiting helps, unless every one of them says that it cannot. */
function noHostError(error: errors.NoHostAvailableError): Error {
  const inner = Object.entries<unknown>(error.innerErrors ?? {});
  const faults = inner.map(([, cause]) => storeError(cause));
  const said = inner.map(([host, cause]) => `${host}: ${messageOf(cause)}`).join("; ");
  const [first] = faults;
  if (first instanceof SetupError && faults.every((fault) => fault instanceof SetupError)) return first;
  if (faults.some((fault) => fault instanceof StoreOverloadedError)) {
    return new StoreOverloadedError(`Cassandra answers too late (${said})`, undefined, error);
  }
  // Docker's proxy resets connections too while its container starts: it may be either.
  const hint = /ECONNRESET/.test(said)
    ? `${HOST_HINT} (a node that expects TLS does this: CASSANDRA_SSL=1)`
    : HOST_HINT;
  // When every node is known to be down, none is tried and none says why.
  const problem = said || messageOf(error).replace(/^All host.*/, "no node is up");
  return new StoreUnavailableError(`Cassandra is not available (${problem})`, hint, error);
}

function responseError(error: errors.ResponseError, text: string): unknown {
  const codes = types.responseErrorCodes;
  // The size alone proves it, whatever code this version of the server gives. The rows of a batch are then tried one by one.
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
      return new SetupError(
        `the user may not do this in Cassandra: ${text}`,
        "GRANT that permission to CASSANDRA_USERNAME",
        error,
      );
    case codes.configError:
      return new SetupError(`Cassandra refuses the schema: ${text}`, "see CASSANDRA_DATACENTER", error);
    case codes.invalid:
      return invalidError(error, text);
    default:
      return error;
  }
}

/** Only what proves a row invalid refuses the row: anything else would throw good rows away. */
function invalidError(error: errors.ResponseError, text: string): unknown {
  if (/^(?:keyspace|table) .* does not exist|unconfigured table|undefined column name/i.test(text)) {
    return new SetupError(
      `the tables are not there, or are those of another version: ${text}`,
      RUN_INIT,
      error,
    );
  }
  if (/maximum supported expiration date/i.test(text)) {
    const hint = "set a smaller RETENTION_DAYS, and run `admin init`";
    return new SetupError(
      "this Cassandra cannot keep rows for RETENTION_DAYS: its dates end in 2038",
      hint,
      error,
    );
  }
  if (/^Key (?:may not be empty|length of \d+ is longer than)/i.test(text)) {
    return new RowRefusedError(`Cassandra refuses the key of a row: ${text}`, undefined, error);
  }
  return error;
}

function passwordError(error: Error): SetupError {
  return new SetupError(
    "Cassandra does not accept the user or the password",
    "see CASSANDRA_USERNAME and CASSANDRA_PASSWORD (a new node needs some seconds until it knows its users)",
    error,
  );
}

/** Node's names for certificates that were not accepted. */
function isCertificateFault(code: string): boolean {
  return /^(?:CERT_|ERR_TLS_CERT|UNABLE_TO_|DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE)/.test(
    code,
  );
}

/** The other side does not speak TLS. */
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
