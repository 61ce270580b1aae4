// What the Cassandra plugin (hadesarchitect-cassandra-datasource 3.3.0) does with a target of a dashboard, as its
// source says: the front end puts variables in, the back end its macros, the answer becomes a frame for each value of
// the first column. Only what our targets use is here, and what it refuses is refused.

import cassandra from "cassandra-driver";

export type Target = Readonly<{
  refId: string;
  queryType?: string;
  rawQuery?: boolean;
  target?: string;
  alias?: string;
}>;
export type Field = { name: string; type: "string" | "number" | "time" | "boolean"; values: unknown[] };
export type Frame = { name: string; fields: Field[] };
export type Range = Readonly<{ fromMs: number; toMs: number }>;

const { dataTypes } = cassandra.types;
const FIELD_TYPES: Readonly<Record<number, Field["type"]>> = {
  [dataTypes.text]: "string",
  [dataTypes.varchar]: "string",
  [dataTypes.ascii]: "string",
  [dataTypes.uuid]: "string",
  [dataTypes.timeuuid]: "string",
  [dataTypes.inet]: "string",
  [dataTypes.blob]: "string",
  [dataTypes.varint]: "string",
  [dataTypes.int]: "number",
  [dataTypes.bigint]: "number",
  [dataTypes.smallint]: "number",
  [dataTypes.tinyint]: "number",
  [dataTypes.float]: "number",
  [dataTypes.double]: "number",
  [dataTypes.boolean]: "boolean",
  [dataTypes.timestamp]: "time",
  [dataTypes.date]: "time",
};
const NO_FIRST_COLUMN: readonly number[] = [
  dataTypes.smallint,
  dataTypes.varint,
  dataTypes.blob,
  dataTypes.inet,
];
/** gocql's. */
const PAGE_ROWS = 5_000;
/** What gocql leaves where a column is null. */
const ZEROES = { string: "", number: 0, time: -62_135_596_800_000, boolean: false } as const;

/** `${name}`, `${name:format}` and `$name`; anything that no variable is called stays. */
export function interpolate(text: string, variables: Readonly<Record<string, string>>): string {
  return text.replace(
    /\$\{(\w+)(?::(\w+))?\}|\$(\w+)/g,
    (whole, braced?: string, format?: string, bare?: string) => {
      const value = variables[braced ?? bare ?? ""];
      if (value === undefined) return whole;
      if (format === undefined || format === "csv") return value;
      if (format === "sqlstring") return `'${value.replaceAll("'", "''")}'`;
      throw new Error(`the model knows no format ${format}`);
    },
  );
}

function withMacros(text: string, { fromMs, toMs }: Range): string {
  return text
    .replaceAll("$__timeFrom", String(fromMs))
    .replaceAll("$__timeTo", String(toMs))
    .replaceAll("$__unixEpochFrom", String(Math.floor(fromMs / 1_000)))
    .replaceAll("$__unixEpochTo", String(Math.floor(toMs / 1_000)));
}

/** The text that reaches Cassandra. Throws as the plugin refuses. */
export function cqlOf(target: Target, variables: Readonly<Record<string, string>>, range: Range): string {
  if (target.queryType !== "query")
    throw new Error(`no handler found for query type '${target.queryType ?? ""}'`);
  if (target.rawQuery !== true || !target.target) throw new Error("Skipping query execution");
  const text = withMacros(interpolate(target.target, variables), range);
  if (!text.trim().toUpperCase().startsWith("SELECT ")) throw new Error("query is not a SELECT statement");
  return text;
}

/** The frames of an answer, in the order in which their first rows came (the plugin's is any). */
export async function ask(client: cassandra.Client, text: string): Promise<Frame[]> {
  const frames = new Map<string, Frame>();
  let pageState: string | undefined;
  do {
    const page = await client.execute(text, [], {
      prepare: true,
      fetchSize: PAGE_ROWS,
      ...(pageState && { pageState }),
    });
    const columns = page.columns.map(({ name, type }) => {
      const kind = FIELD_TYPES[type.code];
      if (kind === undefined) throw new Error(`field ${name} has unsupported type ${type.code}`);
      return { name, kind, code: type.code };
    });
    const first = columns[0];
    if (first === undefined || NO_FIRST_COLUMN.includes(first.code))
      throw new Error("unsupported type of the first column");
    for (const row of page.rows) {
      const values = columns.map(({ name, kind }) => plain(row[name], kind));
      const name = String(values[0]);
      let frame = frames.get(name);
      if (frame === undefined) {
        frame = {
          name,
          fields: columns.map((column) => ({ name: column.name, type: column.kind, values: [] })),
        };
        frames.set(name, frame);
      }
      for (const [index, value] of values.entries()) frame.fields[index]!.values.push(value);
    }
    pageState = page.pageState ?? undefined;
  } while (pageState !== undefined);
  return [...frames.values()];
}

function plain(value: unknown, kind: Field["type"]): unknown {
  if (value === null || value === undefined) return ZEROES[kind];
  if (value instanceof Date) return value.getTime();
  if (value instanceof cassandra.types.LocalDate) return Date.parse(value.toString());
  if (kind === "number") return Number(value);
  return kind === "boolean" ? value : String(value);
}

/** Rows as objects, of all frames. */
export function rowsOf(frames: readonly Frame[]): Record<string, unknown>[] {
  return frames.flatMap(({ fields }) =>
    (fields[0]?.values ?? []).map((_, row) =>
      Object.fromEntries(fields.map(({ name, values }) => [name, values[row]])),
    ),
  );
}
