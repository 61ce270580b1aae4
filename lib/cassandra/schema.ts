// The tables on Cassandra: the numbered files of cql/, applied in order and recorded, and how long rows are kept.
// Applying them again changes nothing. It drops nothing, alters no column and touches no table that is not ours.

import keyspaceFile from "../../cql/001-keyspace.cql" with { type: "text" };
import tradesFile from "../../cql/002-trades.cql" with { type: "text" };
import aggregatesFile from "../../cql/003-aggregates.cql" with { type: "text" };
import eventsFile from "../../cql/004-feed-events.cql" with { type: "text" };
import type { Clock } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";
import { AGGREGATES, SHAPES } from "../model/aggregates.ts";
import type { Cassandra, DriverRow } from "./client.ts";

type SchemaDeps = Readonly<{
  cassandra: Cassandra;
  keyspace: string;
  datacenter: string;
  replicationFactor: number;
  retentionDays: number;
  clock: Clock;
}>;

/** What a writer must know of the tables. A TTL of 0 keeps rows for ever. */
type SchemaState = Readonly<{ tradesTtlS: number }>;

type Table = Readonly<{ name: string; partitionKey: string; clusteringKey: string; ttlS: number }>;
type File = Readonly<{ name: string; text: string; tables: readonly Table[] }>;

const HOUR_S = 3_600;
const DAY_S = 86_400;
/** Cassandra's longest, 20 years. */
const TTL_S_MAX = 630_720_000;
/**
 * A TTL that is divided by this gives 24 to 30 compaction windows; advised are 20 to 50. (Rounded up to hours.)
 */
const COMPACTION_WINDOWS_MAX = 30;
/**
 * How long a tombstone is kept. Rows expire by their TTL, on each replica alone, so it need only outlast the hints (3 h)
 * for a replica that was away.
 */
const GC_GRACE_S = DAY_S;
const RUN_INIT = "run `admin init`";

function filesOf(retentionDays: number): readonly File[] {
  const ttlS = Math.min(retentionDays * DAY_S, TTL_S_MAX);
  // A window is written after its trades, or with them again. A day more, and no trade outlives its aggregates,
  // although a fresh row may be written up to an hour after its receipt.
  const aggregatesTtlS = Math.min(ttlS + DAY_S, TTL_S_MAX);
  const table = (name: string, partitionKey: string, clusteringKey: string, keptS: number): Table => ({
    name,
    partitionKey,
    clusteringKey,
    ttlS: keptS,
  });
  return [
    {
      name: "001-keyspace.cql",
      text: keyspaceFile,
      tables: [table("schema_versions", "file", "", 0)],
    },
    {
      name: "002-trades.cql",
      text: tradesFile,
      tables: [table("trades", "symbol, hour", "trade_timestamp, uuid", ttlS)],
    },
    {
      name: "003-aggregates.cql",
      text: aggregatesFile,
      tables: AGGREGATES.map((aggregate) => {
        const { bucket, time } = SHAPES[aggregate.shape];
        return table(aggregate.table, `symbol, ${bucket}`, time, aggregatesTtlS);
      }),
    },
    {
      name: "004-feed-events.cql",
      text: eventsFile,
      tables: [table("feed_events", "day", "event_timestamp, session, sequence", ttlS)],
    },
  ];
}

/**
 * Brings the keyspace to the state that this version needs. Resolves with a sentence for each thing that it did or that the
 * operator should know. Rejects with SetupError when a table of ours has another key, the user may not change it, or the
 * datacenter does not exist.
 */
export async function applySchema(deps: SchemaDeps): Promise<readonly string[]> {
  const { cassandra, keyspace, replicationFactor, retentionDays, clock } = deps;
  const files = filesOf(retentionDays);
  const replication = await inspectReplication(deps);
  const before = await readTables(cassandra, keyspace);
  refuseForeignTables(keyspace, files, before);
  const applied = before.has("schema_versions") ? await readVersions(cassandra, keyspace) : new Set<string>();
  const isKeyspaceThere = replication.keyspaceExists;
  const sentences: string[] = [...replication.sentences];

  for (const { name, text, tables } of files) {
    // A table that was dropped comes back: every statement of a file may be repeated.
    if (applied.has(name) && tables.every((table) => before.has(table.name))) continue;
    for (const statement of statementsOf(text)) {
      // A user who may only use a keyspace is refused even the statement that would change nothing.
      if (isKeyspaceThere && statement.startsWith("CREATE KEYSPACE")) continue;
      await cassandra.define(filled(statement, deps, tables[0]?.ttlS ?? 0));
    }
    await cassandra.execute(`INSERT INTO ${keyspace}.schema_versions (file, applied_at) VALUES (?, ?)`, [
      name,
      clock.now(),
    ]);
    sentences.push(`applied ${name}`);
  }

  const hasApplied = sentences.length > replication.sentences.length;
  sentences.push(...(await alterRetention(cassandra, keyspace, files, retentionDays, hasApplied)));
  const nodeCount = cassandra.nodeCount();
  if (nodeCount < replicationFactor) {
    sentences.push(
      `CASSANDRA_REPLICATION_FACTOR is ${replicationFactor}, but the datacenter has ${nodeCount} node(s): ` +
        "most consistency levels will find too few replicas",
    );
  }
  return sentences.length > 0 ? sentences : [`the keyspace ${keyspace} is as it should be`];
}

/** Rejects with SetupError ("run `admin init`") when tables are missing or are those of an older version. */
export async function checkSchema(cassandra: Cassandra, keyspace: string): Promise<SchemaState> {
  const files = filesOf(1);
  const tables = await readTables(cassandra, keyspace);
  refuseForeignTables(keyspace, files, tables);
  const missing = files.flatMap((file) => file.tables).find(({ name }) => !tables.has(name));
  if (missing) throw new SetupError(`the keyspace ${keyspace} has no table ${missing.name}`, RUN_INIT);
  const applied = await readVersions(cassandra, keyspace);
  const older = files.find(({ name }) => !applied.has(name));
  if (older) throw new SetupError(`${older.name} was not applied to the keyspace ${keyspace}`, RUN_INIT);
  return { tradesTtlS: tables.get("trades")?.ttlS ?? 0 };
}

// --- What is there ---------------------------------------------------------------------------------------------

type FoundTable = Readonly<{
  partitionKey: string;
  clusteringKey: string;
  ttlS: number;
  compactionClass: string;
}>;

async function inspectReplication({ cassandra, keyspace, datacenter, replicationFactor }: SchemaDeps) {
  const query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
  const { rows } = await cassandra.execute(query, [keyspace]);
  if (rows.length === 0) {
    return { keyspaceExists: false, sentences: [`created the keyspace ${keyspace}`] };
  }
  const replication = rows[0]?.replication as Readonly<Record<string, string>>;
  const found = replication[datacenter] ?? replication.replication_factor ?? "0";
  if (Number(found) === replicationFactor) return { keyspaceExists: true, sentences: [] };
  const sentence =
    `the keyspace ${keyspace} has a replication factor of ${found} in ${datacenter}, ` +
    `CASSANDRA_REPLICATION_FACTOR is ${replicationFactor}; init does not change it: run ALTER KEYSPACE, then nodetool repair, or correct the setting`;
  return { keyspaceExists: true, sentences: [sentence] };
}

async function readTables(cassandra: Cassandra, keyspace: string): Promise<Map<string, FoundTable>> {
  const tables = await readAll(
    cassandra,
    "SELECT table_name, default_time_to_live, compaction FROM system_schema.tables WHERE keyspace_name = ?",
    keyspace,
  );
  const columns = await readAll(
    cassandra,
    "SELECT table_name, column_name, kind, position FROM system_schema.columns WHERE keyspace_name = ?",
    keyspace,
  );
  const keyOf = (table: unknown, kind: string) =>
    columns
      .filter((column) => column.table_name === table && column.kind === kind)
      .sort((a, b) => Number(a.position) - Number(b.position))
      .map((column) => String(column.column_name))
      .join(", ");
  return new Map(
    tables.map((table) => [
      String(table.table_name),
      {
        partitionKey: keyOf(table.table_name, "partition_key"),
        clusteringKey: keyOf(table.table_name, "clustering"),
        ttlS: Number(table.default_time_to_live),
        compactionClass: String((table.compaction as Readonly<Record<string, string>>).class),
      },
    ]),
  );
}

async function readAll(cassandra: Cassandra, query: string, keyspace: string): Promise<DriverRow[]> {
  const found: DriverRow[] = [];
  let pageState: string | undefined;
  do {
    const page = await cassandra.execute(query, [keyspace], { pageState });
    found.push(...page.rows);
    pageState = page.pageState;
  } while (pageState !== undefined);
  return found;
}

async function readVersions(cassandra: Cassandra, keyspace: string): Promise<Set<string>> {
  const { rows } = await cassandra.execute(`SELECT file FROM ${keyspace}.schema_versions`, []);
  return new Set(rows.map(({ file }) => String(file)));
}

/** The origin's tables have our names: rows of two trades in one millisecond would lose each other there. */
function refuseForeignTables(
  keyspace: string,
  files: readonly File[],
  found: ReadonlyMap<string, FoundTable>,
): void {
  for (const { name, partitionKey, clusteringKey } of files.flatMap(({ tables }) => tables)) {
    const there = found.get(name);
    if (there === undefined) continue;
    if (there.partitionKey === partitionKey && there.clusteringKey === clusteringKey) continue;
    throw new SetupError(
      `the keyspace ${keyspace} has a table ${name} that is not ours: its key is ` +
        `((${there.partitionKey}), ${there.clusteringKey}), ours is ((${partitionKey}), ${clusteringKey})`,
      `set CASSANDRA_KEYSPACE to a name that is free, or drop ${keyspace}.${name} if its rows are not needed`,
    );
  }
}

// --- What is changed -------------------------------------------------------------------------------------------

/** Tables with the longest TTL change first when TTLs grow, and last when they shrink: see filesOf. */
async function alterRetention(
  cassandra: Cassandra,
  keyspace: string,
  files: readonly File[],
  retentionDays: number,
  hasApplied: boolean,
): Promise<string[]> {
  const found = await readTables(cassandra, keyspace);
  const changed = files
    .flatMap(({ tables }) => tables)
    .filter(({ name, ttlS }) => found.get(name)?.ttlS !== ttlS);
  if (hasApplied || changed.length > 0) await proveTtl(cassandra, keyspace, files);
  const isLonger = changed.some(({ name, ttlS }) => ttlS > (found.get(name)?.ttlS ?? 0));
  changed.sort((a, b) => (isLonger ? b.ttlS - a.ttlS : a.ttlS - b.ttlS));
  for (const { name, ttlS } of changed) {
    const isOurs = found.get(name)?.compactionClass.endsWith("TimeWindowCompactionStrategy") ?? false;
    // The operator chose another strategy: it stays.
    const options = isOurs ? tableOptions(ttlS) : `default_time_to_live = ${ttlS}`;
    await cassandra.define(`ALTER TABLE ${keyspace}.${name} WITH ${options}`);
  }
  if (changed.length === 0) return [];
  const names = changed.map(({ name }) => name).join(", ");
  return [
    `rows of ${names} are kept for ${retentionDays} day(s) from now on; rows written before keep their time`,
  ];
}

/** Cassandra accepts any TTL of a table, and then refuses every row that would live beyond 2038: so a row is tried. */
async function proveTtl(cassandra: Cassandra, keyspace: string, files: readonly File[]): Promise<void> {
  const ttlS = Math.max(...files.flatMap(({ tables }) => tables).map((table) => table.ttlS));
  const trial = "a trial of RETENTION_DAYS";
  const query = `INSERT INTO ${keyspace}.schema_versions (file) VALUES (?) USING TTL ?`;
  await cassandra.execute(query, [trial, ttlS]);
  await cassandra.execute(`DELETE FROM ${keyspace}.schema_versions WHERE file = ?`, [trial]);
}

function tableOptions(ttlS: number): string {
  const windowHours = Math.max(1, Math.ceil(ttlS / HOUR_S / COMPACTION_WINDOWS_MAX));
  return (
    `default_time_to_live = ${ttlS} AND gc_grace_seconds = ${GC_GRACE_S} AND compaction = ` +
    "{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'HOURS', " +
    `'compaction_window_size': ${windowHours}}`
  );
}

/** Comments out, then cut where a line ends with a semicolon. */
function statementsOf(text: string): string[] {
  return text
    .replace(/^--.*$/gm, "")
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter((statement) => statement !== "");
}

/** The settings have checked the keyspace's name. A datacenter may be any text, so it is quoted. */
function filled(
  statement: string,
  { keyspace, datacenter, replicationFactor }: SchemaDeps,
  ttlS: number,
): string {
  const values: Readonly<Record<string, string>> = {
    keyspace,
    datacenter: `'${datacenter.replaceAll("'", "''")}'`,
    replication_factor: String(replicationFactor),
    options: tableOptions(ttlS),
  };
  return statement.replace(/\{([a-z_]+)\}/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`cql/ names {${name}}, which has no value`);
    return value;
  });
}
