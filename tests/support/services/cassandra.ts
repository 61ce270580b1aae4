// A real Apache Cassandra for tests: one node on loopback, in a directory that is gone afterwards. Open, or with TLS
// and a password as a user's node has it.

import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import cassandra from "cassandra-driver";
import type { Certificates } from "./certificates.ts";
import { startGuard } from "./guard.ts";
import { classArchive, QUICK_COMPILER, requireJava, resolveJars } from "./java.ts";
import { freePort, HOST, type Server, serverDirectory, startServer } from "./server.ts";

export type CassandraOptions = Readonly<{
  /** Its clients must speak TLS. */
  tls?: Certificates;
  /** "password": its clients must log in, as the user below. */
  authenticator?: "password";
  /** Not a node's default: recorded tapes are years old, and their rows must not count as expired. */
  rowsBeyond2038?: boolean;
  /** Both of Java's compilers, for a node that is measured or lives long: the quick one alone starts on half the CPU. */
  isOptimized?: boolean;
  /** More flags of its Java machine. */
  jvm?: readonly string[];
}>;

/** The user that a new node with passwords has. */
export const FIRST_USER = { username: "cassandra", password: "cassandra" } as const;
export const DATACENTER = "datacenter1";

const HEAP = "1g";
/** Of one question whether it is ready. */
const ASK_MS_MAX = 5_000;
/** What its own start script opens of Java's modules, for Java 17. */
const EXPORTS = [
  "java.base/java.lang.ref",
  "java.base/jdk.internal.misc",
  "java.base/jdk.internal.ref",
  "java.base/jdk.internal.util",
  "java.base/sun.nio.ch",
  "java.management.rmi/com.sun.jmx.remote.internal.rmi",
  "java.rmi/sun.rmi.registry",
  "java.rmi/sun.rmi.server",
  "java.sql/java.sql",
  "jdk.unsupported/sun.misc",
];
const OPENS = [
  "java.base/java.io",
  "java.base/java.lang",
  "java.base/java.lang.module",
  "java.base/java.lang.reflect",
  "java.base/java.math",
  "java.base/java.net",
  "java.base/java.nio",
  "java.base/java.time",
  "java.base/java.util",
  "java.base/java.util.concurrent",
  "java.base/java.util.concurrent.atomic",
  "java.base/jdk.internal.loader",
  "java.base/jdk.internal.math",
  "java.base/jdk.internal.module",
  "java.base/jdk.internal.ref",
  "java.base/jdk.internal.reflect",
  "java.base/jdk.internal.util.jar",
  "java.base/sun.nio.ch",
  "java.rmi/sun.rmi.transport.tcp",
  "jdk.management/com.sun.management.internal",
];
/** One node has nobody to wait for: no gossip to settle, no ring to join. */
const ALONE = [
  "-Dcassandra-foreground=yes",
  "-Dcassandra.skip_wait_for_gossip_to_settle=0",
  "-Dcassandra.ring_delay_ms=0",
  "-Dcassandra.shutdown_announce_in_ms=0",
  "-Dcassandra.load_ring_state=false",
  "-Dcassandra.auto_bootstrap=false",
  "-Dcassandra.superuser_setup_delay_ms=0",
  "-Dcassandra.disable_tcactive_openssl=true",
];

/** Resolves when a client's query is answered. */
export async function startCassandra(options: CassandraOptions = {}): Promise<Server> {
  const java = requireJava();
  const jars = await resolveJars("cassandra");
  const agent = readdirSync(jars).find((name) => /^jamm-.*\.jar$/.test(name));
  if (agent === undefined) throw new Error(`jamm is not among the jars in ${jars}`);
  const directory = serverDirectory("cassandra");
  const guard = await startGuard(directory);
  const archive = classArchive("cassandra", java, directory);
  const port = await freePort();

  // JSON is YAML.
  const yaml = join(directory, "cassandra.yaml");
  writeFileSync(yaml, JSON.stringify(await settings(port, directory, options), null, 2));
  const logback = join(directory, "logback.xml");
  writeFileSync(logback, LOGBACK);
  mkdirSync(join(directory, "tmp"));

  return startServer({
    name: "Cassandra",
    guard,
    directory,
    port,
    command: [
      java.executable,
      `-Xms${HEAP}`,
      `-Xmx${HEAP}`,
      "-Xss512k",
      ...(options.isOptimized ? [] : QUICK_COMPILER),
      "-XX:+UseParallelGC", // Half the slowest answers of the serial one, and a fifth more throughput.
      "-XX:-UsePerfData",
      "-XX:MaxDirectMemorySize=512m",
      "-XX:+UnlockDiagnosticVMOptions",
      "-XX:+AllowArchivingWithJavaAgent",
      ...archive.flags,
      `-javaagent:${join(jars, agent)}`,
      "-Djdk.attach.allowAttachSelf=true",
      "-Djava.security.manager=allow", // Asked for from Java 18 on.
      "-Djava.net.preferIPv4Stack=true",
      ...EXPORTS.flatMap((name) => ["--add-exports", `${name}=ALL-UNNAMED`]),
      ...OPENS.flatMap((name) => ["--add-opens", `${name}=ALL-UNNAMED`]),
      ...ALONE,
      ...(options.jvm ?? []),
      `-Dcassandra.config=file://${yaml}`,
      `-Dlogback.configurationFile=${logback}`,
      `-Dcassandra.storagedir=${directory}`,
      `-Dcassandra.logdir=${join(directory, "logs")}`,
      `-Djava.io.tmpdir=${join(directory, "tmp")}`,
      "-cp",
      `${jars}/*`,
      "org.apache.cassandra.service.CassandraDaemon",
    ],
    archive,
    isReady: () => isReady(clientOptions(port, options)),
  });
}

/** What a client of cassandra-driver needs for this node: as its first user, trusting its authority. */
export function clientOptions(
  port: number,
  { tls, authenticator }: CassandraOptions = {},
): cassandra.ClientOptions {
  return {
    contactPoints: [`${HOST}:${port}`],
    localDataCenter: DATACENTER,
    socketOptions: { connectTimeout: ASK_MS_MAX, readTimeout: ASK_MS_MAX },
    ...(authenticator && { credentials: FIRST_USER }),
    ...(tls && { sslOptions: { ca: [tls.ca], rejectUnauthorized: true } }),
  };
}

async function isReady(options: cassandra.ClientOptions): Promise<boolean> {
  const client = new cassandra.Client(options);
  try {
    await client.connect();
    const { rowLength } = await client.execute("SELECT release_version FROM system.local");
    return rowLength === 1;
  } finally {
    await client.shutdown();
  }
}

async function settings(port: number, directory: string, options: CassandraOptions) {
  const { tls, authenticator, rowsBeyond2038 } = options;
  const storagePort = await freePort();
  return {
    cluster_name: "tests",
    ...(rowsBeyond2038 && { storage_compatibility_mode: "NONE" }),
    num_tokens: 1,
    initial_token: "0",
    partitioner: "org.apache.cassandra.dht.Murmur3Partitioner",
    endpoint_snitch: "SimpleSnitch",
    authenticator: authenticator ? "PasswordAuthenticator" : "AllowAllAuthenticator",
    authorizer: authenticator ? "CassandraAuthorizer" : "AllowAllAuthorizer",
    role_manager: "CassandraRoleManager",
    data_file_directories: [join(directory, "data")],
    commitlog_directory: join(directory, "commitlog"),
    saved_caches_directory: join(directory, "saved_caches"),
    hints_directory: join(directory, "hints"),
    cdc_raw_directory: join(directory, "cdc_raw"),
    commitlog_sync: "periodic",
    commitlog_sync_period: "10000ms", // As a user's node has it: a power cut may take the last 10 s.
    commitlog_segment_size: "16MiB",
    listen_address: HOST,
    rpc_address: HOST,
    native_transport_port: port,
    storage_port: storagePort,
    ssl_storage_port: await freePort(),
    seed_provider: [
      {
        class_name: "org.apache.cassandra.locator.SimpleSeedProvider",
        parameters: [{ seeds: `${HOST}:${storagePort}` }],
      },
    ],
    hinted_handoff_enabled: false,
    auto_snapshot: false, // A dropped keyspace leaves nothing.
    disk_failure_policy: "stop",
    commit_failure_policy: "stop",
    concurrent_reads: 8,
    concurrent_writes: 16,
    concurrent_counter_writes: 2,
    concurrent_compactors: 1,
    memtable_heap_space: "256MiB",
    memtable_offheap_space: "128MiB",
    memtable_flush_writers: 1,
    key_cache_size: "4MiB",
    counter_cache_size: "0MiB",
    file_cache_enabled: false,
    ...(tls && {
      client_encryption_options: {
        enabled: true,
        optional: false,
        keystore: tls.keyStore,
        keystore_password: tls.keyStorePassword,
        store_type: "PKCS12",
        require_client_auth: false,
      },
    }),
  };
}

const LOGBACK = `<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
`;
