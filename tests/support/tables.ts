// What the processes left in their tables, read by plain clients: SQLite and Cassandra. Of lib they take which
// aggregates there are beside the averages of 15 seconds and the candles of a minute, and nothing else.

import { Database } from "bun:sqlite";
import { join } from "node:path";
import cassandra from "cassandra-driver";
import { AGGREGATES } from "../../lib/model/aggregates.ts";
import type { PlainAggregate, PlainAverage, PlainCandle } from "../reference.ts";

export type StoredTrade = {
  symbol: string;
  hour: number;
  trade_timestamp: number;
  uuid: string;
  price: number;
  volume: number;
  trade_conditions: string | null;
  ingest_timestamp: number;
};

export type Tables = {
  trades: StoredTrade[];
  averages: PlainAverage[];
  candles: PlainCandle[];
  /** Aggregates of other widths. */
  others?: OtherTable[];
};
type OtherTable = { aggregate: PlainAggregate; rows: (PlainAverage | PlainCandle)[] };

const OTHERS = AGGREGATES.filter(({ kind }) => !["average", "candle"].includes(kind));

/** All that market.sqlite holds, read by plain SQL. */
export function readTables(directory: string) {
  using db = new Database(join(directory, "market.sqlite"), { readonly: true });
  return {
    trades: db.query<StoredTrade, []>("SELECT * FROM trades ORDER BY symbol, trade_timestamp, uuid").all(),
    averages: db
      .query<PlainAverage & { version?: number }, []>(
        "SELECT * FROM running_averages_15_sec ORDER BY symbol, window_end",
      )
      .all()
      .map(({ version: _version, ...row }) => row),
    candles: db
      .query<PlainCandle & { version?: number }, []>(
        "SELECT * FROM candles_1_min ORDER BY symbol, window_start",
      )
      .all()
      .map(({ version: _version, ...row }) => row),
    others: OTHERS.map((aggregate) => ({
      aggregate,
      rows: db
        .query<OtherTable["rows"][number] & { version?: number }, []>(`SELECT * FROM ${aggregate.table}`)
        .all()
        .map(({ version: _version, ...row }) => row),
    })),
    events: db
      .query<{ type: string; detail: string }, []>(
        "SELECT type, detail FROM feed_events ORDER BY event_timestamp",
      )
      .all(),
    deadCount: db.query<{ n: number }, []>("SELECT count(*) AS n FROM dead").get()!.n,
  };
}

/** All that the tables of a keyspace hold, read by a plain client, in the order of readTables. */
export async function readCassandra(options: cassandra.ClientOptions, keyspace: string): Promise<Tables> {
  const client = new cassandra.Client({ ...options, keyspace });
  const all = async <Row>(table: string): Promise<Row[]> => {
    const rows: Row[] = [];
    const result = await client.execute(`SELECT * FROM ${table}`, [], { prepare: true, fetchSize: 5_000 });
    for await (const row of result) rows.push(plainRow({ ...row }) as Row);
    return rows;
  };
  try {
    const trades = await all<StoredTrade>("trades");
    const averages = await all<PlainAverage>("running_averages_15_sec");
    const candles = await all<PlainCandle>("candles_1_min");
    const others: OtherTable[] = [];
    for (const aggregate of OTHERS) others.push({ aggregate, rows: await all(aggregate.table) });
    return {
      trades: trades.sort(
        (a, b) => order(a.symbol, b.symbol) || a.trade_timestamp - b.trade_timestamp || order(a.uuid, b.uuid),
      ),
      averages: averages.sort((a, b) => order(a.symbol, b.symbol) || a.window_end - b.window_end),
      candles: candles.sort((a, b) => order(a.symbol, b.symbol) || a.window_start - b.window_start),
      others,
    };
  } finally {
    await client.shutdown();
  }
}

function order(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

/** The driver's own types as what the columns mean: times in ms, uuid and date as text. */
function plainRow(row: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(row).map(([name, value]) => {
      if (value instanceof Date) return [name, value.getTime()];
      if (value instanceof cassandra.types.Uuid || value instanceof cassandra.types.LocalDate)
        return [name, value.toString()];
      return [name, value];
    }),
  );
}
