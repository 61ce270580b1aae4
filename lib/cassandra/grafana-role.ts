// A user of Cassandra that may read our tables and nothing else: a viewer of Grafana can send any statement, and Grafana
// itself restricts nothing. `admin init` creates it; no right is taken away from anybody.

import type { Clock } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";
import type { Cassandra } from "./client.ts";

type GrafanaRoleDeps = Readonly<{
  cassandra: Cassandra;
  keyspace: string;
  /** The settings have checked the name: letters, digits and _. */
  reader: Readonly<{ username: string; password: string }>;
  clock: Clock;
}>;

/** Cassandra 5 lets a password be changed every 5 s. */
const CHANGE_RETRY_MS = 1_500;
const CHANGE_ATTEMPTS_MAX = 5;

/**
 * Resolves with a sentence. The user gets the given password, even if it existed. Rejects with SetupError
 * when passwords are off, CASSANDRA_USERNAME may not create users, or the user is a superuser.
 */
export async function applyGrafanaRole({
  cassandra,
  keyspace,
  reader,
  clock,
}: GrafanaRoleDeps): Promise<string> {
  const { username } = reader;
  const before = await found(cassandra, username);
  // A superuser may do everything, whatever is granted; and it is most likely our own user, whose password this is not.
  if (before?.is_superuser === true) {
    throw new SetupError(
      `the user ${username} is a superuser, which may write whatever is granted`,
      "set CASSANDRA_GRAFANA_USERNAME to a name of its own",
    );
  }
  const password = `'${reader.password.replaceAll("'", "''")}'`;
  try {
    const change = before === null ? "CREATE ROLE IF NOT EXISTS" : "ALTER ROLE";
    const statement = `${change} ${username} WITH PASSWORD = ${password} AND LOGIN = true`;
    for (let attempt = 1; ; attempt++) {
      const fault = await cassandra.define(statement).then(
        () => null,
        (error: unknown) => error,
      );
      if (fault === null) break;
      if (attempt === CHANGE_ATTEMPTS_MAX || !/can only be changed every/.test(String(fault))) throw fault;
      await clock.sleep(CHANGE_RETRY_MS);
    }
    await cassandra.define(`GRANT SELECT ON KEYSPACE ${keyspace} TO ${username}`);
  } catch (error) {
    throw refused(error);
  }
  return before === null
    ? `created the user ${username}, who may read ${keyspace}`
    : `the user ${username} may read ${keyspace}`;
}

async function found(cassandra: Cassandra, username: string) {
  const query = "SELECT role, is_superuser FROM system_auth.roles WHERE role = ?";
  try {
    // Cassandra keeps unquoted names in lower case.
    const { rows } = await cassandra.execute(query, [username.toLowerCase()]);
    return rows[0] ?? null;
  } catch (error) {
    throw refused(error);
  }
}

/** A SetupError where the operator can do something; any other error comes back as it is, without the statement. */
function refused(error: unknown): unknown {
  // The driver puts the statement, and with it the password, into its errors.
  for (let one = error; one instanceof Error; one = one.cause) if ("query" in one) one.query = "[withheld]";
  const text = error instanceof Error ? error.message : String(error);
  if (/doesn't support PASSWORD|not supported by AllowAllAuthorizer|have to be logged in/i.test(text)) {
    return new SetupError(
      "this Cassandra asks for no passwords, so it cannot have a user for Grafana",
      "unset CASSANDRA_GRAFANA_USERNAME, or set authenticator and authorizer in cassandra.yaml",
      error,
    );
  }
  if (error instanceof SetupError) {
    return new SetupError(
      `the user for Grafana cannot be created: ${error.message}`,
      "let CASSANDRA_USERNAME create roles and grant rights, or create the user by hand and unset CASSANDRA_GRAFANA_USERNAME",
      error,
    );
  }
  return error;
}
