// The one Kafka and the one Cassandra of a test run. `npm test` starts them and says where they are; a file run by
// hand (`bun test tests/x.test.ts`) starts its own, which end with its process. Tests keep apart by names of their
// own: uniqueName() for every topic, group and keyspace.

import { startCassandra } from "./cassandra.ts";
import { whatIsMissing } from "./java.ts";
import { startKafka } from "./kafka.ts";
import type { Address } from "./server.ts";

/** What `npm test` hands on: `host:port`. */
export const KAFKA_VARIABLE = "TEST_KAFKA";
export const CASSANDRA_VARIABLE = "TEST_CASSANDRA";
/** `none`: do without; `required`: it is a failure when they cannot run here; else they are used where they can. */
export const SERVICES_VARIABLE = "TEST_SERVICES";

const given = { kafka: addressIn(KAFKA_VARIABLE), cassandra: addressIn(CASSANDRA_VARIABLE) };

/** Whether real servers can be used here: `describe.skipIf(!services.available)`. */
export const services: Readonly<{ available: boolean }> = {
  get available() {
    available ??= areAvailable();
    return available;
  },
};

let available: boolean | null = null;
let kafka: Promise<Address> | null = null;
let cassandra: Promise<Address> | null = null;

/** A plain broker; resolves when it answers. Do not stop or pause it: others use it. */
export function sharedKafka(): Promise<Address> {
  kafka ??= given.kafka ? Promise.resolve(given.kafka) : startKafka();
  return kafka;
}

/** An open node; resolves when it answers. Do not stop or pause it: others use it. */
export function sharedCassandra(): Promise<Address> {
  cassandra ??= given.cassandra ? Promise.resolve(given.cassandra) : startCassandra({ rowsBeyond2038: true });
  return cassandra;
}

/** Good for a topic, a group and a keyspace: `prefix_` and ten random hex digits. */
export function uniqueName(prefix: string): string {
  // A keyspace has 48 letters at most.
  if (!/^[a-z][a-z0-9_]{0,36}$/.test(prefix)) throw new Error(`not the beginning of a name: ${prefix}`);
  return `${prefix}_${Buffer.from(crypto.getRandomValues(new Uint8Array(5))).toString("hex")}`;
}

/** One sentence for a person: what is missing and what that means. */
export function missingSentence(missing: string): string {
  return `SKIPPED: ${missing} is not here, so nothing is proven on real Kafka and Cassandra`;
}

function areAvailable(): boolean {
  if (process.env[SERVICES_VARIABLE] === "none") return false;
  if (given.kafka && given.cassandra) return true;
  const missing = whatIsMissing();
  if (missing !== null) console.error(missingSentence(missing));
  return missing === null;
}

function addressIn(variable: string): Address | null {
  const [host, port] = (process.env[variable] ?? "").split(":");
  return host && port ? { host, port: Number(port) } : null;
}
