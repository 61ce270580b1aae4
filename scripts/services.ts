// `bun run services`: a real Kafka and a real Cassandra on loopback, for trying things by hand. Prints where they are,
// ready to be pasted into .env, and runs until Control-C; what they hold is gone then.

import { startCassandra } from "../tests/support/services/cassandra.ts";
import { whatIsMissing } from "../tests/support/services/java.ts";
import { startKafka } from "../tests/support/services/kafka.ts";

const HOUR_MS = 3_600_000;

const missing = whatIsMissing();
if (missing !== null) {
  console.error(`${missing} is not here: install it (Cassandra 5 wants Java 17), then run this again`);
  process.exit(1);
}

const asked = Promise.withResolvers<void>();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => asked.resolve());

console.error("starting; the first time their files are fetched, about 110 MB");
await using servers = new AsyncDisposableStack();
const started = Promise.all([
  startKafka({ isOptimized: true }).then((kafka) => servers.use(kafka)),
  startCassandra({ isOptimized: true }).then((cassandra) => servers.use(cassandra)),
]);
const both = await Promise.race([started, asked.promise]);
if (both) {
  const [kafka, cassandra] = both;
  console.log(`KAFKA_SERVER=${kafka.host}\nKAFKA_PORT=${kafka.port}`);
  console.log(`CASSANDRA_HOST=${cassandra.host}\nCASSANDRA_PORT=${cassandra.port}`);
  console.error(`running (Kafka pid ${kafka.pid}, Cassandra pid ${cassandra.pid}); Control-C ends both`);
  // The servers' guards hold the event loop for nobody, and one that nothing holds spins while the module waits.
  const held = setInterval(() => {}, HOUR_MS);
  await asked.promise;
  clearInterval(held);
}
