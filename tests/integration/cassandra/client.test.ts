// The connection to Cassandra: what each error of the driver means to us, what is said about a wrong setting at once,
// and that a node which is down, starting or standing still costs waiting and nothing else.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { errors, types } from "cassandra-driver";
import { systemClock } from "../../../lib/base/clock.ts";
import {
  type PipelineError,
  RowRefusedError,
  SetupError,
  StoreOverloadedError,
  StoreUnavailableError,
} from "../../../lib/base/errors.ts";
import { type Fields, silentLogger } from "../../../lib/base/logger.ts";
import { connectCassandra } from "../../../lib/cassandra/client.ts";
import { storeError } from "../../../lib/cassandra/errors.ts";
import { connectTo, settingsFor } from "../../support/cassandra.ts";
import { FIRST_USER, startCassandra } from "../../support/services/cassandra.ts";
import { type Certificates, createCertificates } from "../../support/services/certificates.ts";
import { freePort, type Server } from "../../support/services/server.ts";
import { services, sharedCassandra } from "../../support/services/shared.ts";

const { responseErrorCodes: codes } = types;

function answer(code: number, message: string): Error {
  return new errors.ResponseError(code, message);
}

function noHost(inner: Readonly<Record<string, Error>>): Error {
  return new errors.NoHostAvailableError(inner);
}

function coded(code: string, message = code): Error {
  return Object.assign(new Error(message), { code });
}

const late = new errors.OperationTimedOutError("The host did not reply before timeout", "10.0.0.1:9042");
const busy = new errors.BusyConnectionError("10.0.0.1:9042", 2_048, 1);
const wrongPassword = new errors.AuthenticationError("Provided username x and/or password are incorrect");

// --- Errors ----------------------------------------------------------------------------------------------------

test("what asking less may help is overloaded, alone or from every node", () => {
  const overloaded = [
    late,
    busy,
    answer(codes.overloaded, "Too many requests"),
    answer(codes.writeTimeout, "Server timeout during write query"),
    answer(codes.readTimeout, "Server timeout during read query"),
  ];
  for (const error of overloaded) {
    expect(storeError(error)).toBeInstanceOf(StoreOverloadedError);
    expect(storeError(noHost({ a: error, b: coded("ECONNREFUSED") }))).toBeInstanceOf(StoreOverloadedError);
  }
});

test("what waiting may help is unavailable", () => {
  const down = [
    noHost({}),
    noHost({ a: coded("ECONNREFUSED"), b: coded("EHOSTUNREACH") }),
    noHost({ a: wrongPassword, b: coded("ECONNREFUSED") }),
    coded("ECONNRESET"),
    coded("ENOTFOUND"),
    answer(codes.unavailableException, "Not enough replicas available"),
    answer(codes.isBootstrapping, "Bootstrapping"),
    answer(codes.serverError, "java.lang.RuntimeException"),
    answer(codes.writeFailure, "Operation failed"),
  ];
  for (const error of down) {
    expect(storeError(error)).toBeInstanceOf(StoreUnavailableError);
    expect(storeError(error)).not.toBeInstanceOf(StoreOverloadedError);
  }
});

test("what only the operator can mend says which setting to look at", () => {
  const mends: [Error, RegExp][] = [
    [noHost({ a: wrongPassword, b: wrongPassword }), /CASSANDRA_PASSWORD/],
    [answer(codes.badCredentials, "no"), /CASSANDRA_PASSWORD/],
    [noHost({ a: coded("SELF_SIGNED_CERT_IN_CHAIN") }), /CASSANDRA_SSL_CA/],
    [coded("ERR_TLS_CERT_ALTNAME_INVALID"), /CASSANDRA_SSL_CA/],
    [coded("CERT_HAS_EXPIRED"), /CASSANDRA_SSL_CA/],
    [coded("ERR_SSL_WRONG_VERSION_NUMBER"), /CASSANDRA_SSL/],
    [answer(codes.invalid, "Keyspace 'market' does not exist"), /admin init/],
    [answer(codes.invalid, "keyspace market does not exist"), /admin init/],
    [answer(codes.invalid, "table trades does not exist"), /admin init/],
    [answer(codes.invalid, "unconfigured table trades"), /admin init/],
    [answer(codes.unauthorized, "User x has no CREATE permission"), /GRANT/],
    [answer(codes.invalid, "... exceeds maximum supported expiration date of 2038-01-19"), /RETENTION_DAYS/],
  ];
  for (const [error, hint] of mends) {
    const ours = storeError(error) as PipelineError;
    expect(ours).toBeInstanceOf(SetupError);
    expect(ours.hint).toMatch(hint);
    expect(ours.message).not.toContain("\n");
  }
});

test("a row is refused for what proves it invalid, and for nothing else", () => {
  const proofs = [
    "Rejected an oversized mutation (9000173/8388608) for keyspace: market. Top keys are: ...",
    "Request is too big: length 20000137 exceeds maximum allowed length 16777216.",
    "Key length of 70000 is longer than maximum of 65535",
    "Key may not be empty",
  ];
  for (const text of proofs) expect(storeError(answer(codes.invalid, text))).toBeInstanceOf(RowRefusedError);
  const others = [
    answer(codes.invalid, "Invalid amount of bind variables"),
    answer(codes.syntaxError, "line 1:0 no viable alternative"),
    answer(codes.invalid, "ttl is too large. requested (630720001) maximum (630720000)"),
    new TypeError("not ours"),
  ];
  for (const error of others) expect(storeError(error)).toBe(error);
});

test("the driver's stacks stand in no message of ours", () => {
  const inner = Object.assign(new Error("broken\n    at secret/place.js:1"), { code: "ECONNREFUSED" });
  const { message } = storeError(noHost({ "10.0.0.1:9042": inner })) as Error;
  expect(message).toBe("Cassandra is not available (10.0.0.1:9042: broken)");
});

// --- Connecting ------------------------------------------------------------------------------------------------

/** How it ends, what was said meanwhile, and how often it was tried. */
async function attempt(
  settings: ReturnType<typeof settingsFor>,
  signal = AbortSignal.timeout(30_000),
): Promise<{ error: PipelineError | null; warnings: string[]; tries: number; lines: string }> {
  const warnings: string[] = [];
  const lines: string[] = [];
  const keep = (message: string, fields?: Fields) => {
    lines.push(`${message} ${JSON.stringify(fields)} ${String(fields?.error)}`);
  };
  const logger = {
    ...silentLogger,
    debug: keep,
    warn(message: string, fields?: Fields) {
      warnings.push(message);
      keep(message, fields);
    },
  };
  const outcome = await connectCassandra({ settings, clock: systemClock, logger, signal }).then(
    async (cassandra) => {
      await cassandra[Symbol.asyncDispose]();
      return null;
    },
    (error: PipelineError) => error,
  );
  const tries = lines.filter((line) => line.includes("Connecting to cluster")).length;
  return { error: outcome, warnings, tries, lines: lines.join("\n") };
}

test("where nothing listens it waits, says so once, and ends with the signal", async () => {
  const settings = settingsFor({ host: "127.0.0.1", port: await freePort() });
  const { error, warnings, tries } = await attempt(settings, AbortSignal.timeout(1_500));
  expect(error).toBeInstanceOf(StoreUnavailableError);
  expect(error?.message).toContain("ECONNREFUSED");
  expect(warnings.length).toBe(1);
  expect(tries).toBeGreaterThan(1);
  expect(tries).toBeLessThan(20);
});

test("a host without an address is waited for too: its name may come with it", async () => {
  const settings = { ...settingsFor({ host: "", port: 9 }), contactPoints: ["no-such-host.invalid:9042"] };
  const { error } = await attempt(settings, AbortSignal.timeout(300));
  expect(error).toBeInstanceOf(StoreUnavailableError);
  expect(error?.hint).toContain("CASSANDRA_HOST");
});

describe.skipIf(!services.available)("with an open node", () => {
  test("it is found, and statements are prepared, in pages, with unset values", async () => {
    await using cassandra = await connectTo(await sharedCassandra());
    expect(cassandra.nodeCount()).toBe(1);
    const query = "SELECT keyspace_name FROM system_schema.keyspaces";
    const { rows, pageState } = await cassandra.execute(query, [], { pageRows: 2 });
    expect(rows.length).toBe(2);
    const rest = await cassandra.execute(query, [], { pageRows: 1_000, pageState });
    expect(rest.rows.length).toBeGreaterThan(1);
    expect(rest.pageState).toBeUndefined();
  }, 120_000);

  test("TLS to it, or another datacenter, is said at once and tried once", async () => {
    const node = await sharedCassandra();
    const tls = await attempt(settingsFor(node, { tls: { ca: undefined } }));
    expect(tls.error).toBeInstanceOf(SetupError);
    expect(tls.error?.message).toContain("does not speak TLS");
    const datacenter = await attempt(settingsFor(node, { datacenter: "dc9" }));
    expect(datacenter.error).toBeInstanceOf(SetupError);
    expect(datacenter.error?.message).toContain("[datacenter1]");
    expect([tls.tries, datacenter.tries]).toEqual([1, 1]);
  }, 120_000);

  test("an unknown keyspace or table asks for `admin init`", async () => {
    await using cassandra = await connectTo(await sharedCassandra());
    for (const table of ["no_such_keyspace.trades", "system.no_such_table"]) {
      const error = await cassandra.execute(`SELECT * FROM ${table}`, []).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(SetupError);
      expect((error as SetupError).hint).toBe("run `admin init`");
    }
  }, 120_000);
});

describe.skipIf(!services.available)("with a node that wants TLS and a password", () => {
  const credentials = FIRST_USER;
  let certificates: Certificates;
  let node: Server;
  beforeAll(async () => {
    certificates = await createCertificates();
    node = await startCassandra({ tls: certificates, authenticator: "password" });
  }, 150_000);
  afterAll(async () => {
    await node?.[Symbol.asyncDispose]();
    certificates?.[Symbol.dispose]();
  }, 60_000);

  test("the right ones are taken, by its address and by a name of CASSANDRA_HOST", async () => {
    const tls = { ca: certificates.ca };
    expect((await attempt(settingsFor(node, { tls, credentials }))).error).toBeNull();
    const byName = settingsFor({ host: "localhost", port: node.port }, { tls, credentials });
    expect((await attempt(byName)).error).toBeNull();
  }, 60_000);

  test("a wrong password is said in one sentence, tried once, and stands in no line", async () => {
    const password = "open-sesame-42";
    const tls = { ca: certificates.ca };
    const wrong = { username: "cassandra", password };
    const { error, tries, lines } = await attempt(settingsFor(node, { tls, credentials: wrong }));
    expect(error).toBeInstanceOf(SetupError);
    expect(error?.message).toBe("Cassandra does not accept the user or the password");
    expect(tries).toBe(1);
    const everything = `${lines} ${error?.stack} ${error?.hint} ${Bun.inspect(error)}`;
    expect(everything).not.toContain(password);
    const none = await attempt(settingsFor(node, { tls }));
    expect(none.error?.message).toBe("Cassandra does not accept the user or the password");
  }, 60_000);

  test("an authority that did not sign it, the system's or a stranger's, is said and tried once", async () => {
    for (const ca of [certificates.strangerCa, undefined]) {
      const { error, tries } = await attempt(settingsFor(node, { tls: { ca }, credentials }));
      expect(error).toBeInstanceOf(SetupError);
      expect(error?.message).toContain("the certificate of Cassandra is not accepted");
      expect(error?.hint).toContain("CASSANDRA_SSL_CA");
      expect(tries).toBe(1);
    }
    const { error } = await attempt(settingsFor(node, { tls: { ca: "no certificate" }, credentials }));
    expect(error?.message).toBe("CASSANDRA_SSL_CA holds no certificate");
  }, 60_000);

  test("without TLS it is waited for, and the setting is named", async () => {
    const { error, lines } = await attempt(settingsFor(node, { credentials }), AbortSignal.timeout(1_000));
    expect(error).toBeInstanceOf(StoreUnavailableError);
    expect(lines).toContain("ECONNRESET");
  }, 60_000);
});
