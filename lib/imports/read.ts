// The trades of a file of another recorder, one after the other, each with the identity that it will always have; and
// what is no trade, with its place and the reason. It holds some chunks of the file at a time.

import { PipelineError, SetupError } from "../base/errors.ts";
import type { Trade } from "../model/trade.ts";
import { type Entry, openFile } from "./files.ts";
import { FORMATS, type Format, type Given } from "./formats.ts";
import { identifier } from "./identity.ts";
import type { Reading } from "./reading.ts";
import {
  csvRecords,
  type FileRecord,
  isParquet,
  jsonRecords,
  parquetColumns,
  parquetRecords,
  peek,
} from "./records.ts";
import { numberOf } from "./values.ts";

export type ImportItem = Readonly<
  | { kind: "trade"; place: number; trade: Trade; uuid: string; note: string | null }
  | { kind: "skipped" | "refused"; place: number; why: string }
>;

export type ImportFile = Readonly<{
  path: string;
  sizeBytes: number;
  readBytes(): number;
  /** One in a zip is named `archive.zip/name`. */
  entries: AsyncIterable<ImportEntry>;
}>;

export type ImportEntry = Readonly<{ name: string; format: Format; items: AsyncIterable<ImportItem> }>;

export type ReadOptions = Readonly<{
  /** Null: found by the file. */
  format: string | null;
  symbol: string | null;
  map: Readonly<Record<string, string>>;
}>;

/** The beginning of a file, in which its first line is looked for. */
const HEAD_BYTES = 64 * 1_024;
const DELIMITERS = [",", "|", "\t", ";"];

/** Throws a SetupError for a file that is not there and a format that nobody knows. */
export function readImport(path: string, options: ReadOptions): ImportFile {
  const forced = options.format === null ? null : formatNamed(options.format);
  const file = openFile(path);
  let parquetShare = 0;
  async function* entries(): AsyncGenerator<ImportEntry> {
    for await (const entry of readable(path, file.entries)) {
      const [head, chunks] = await peek(readable(path, entry.chunks), HEAD_BYTES);
      if (head.length === 0) continue;
      const name = entry.name;
      const onRead = (share: number) => {
        parquetShare = share;
      };
      const opened = isParquet(head)
        ? await openParquet(path, entry, forced, onRead)
        : openText(name, head, chunks, forced);
      yield { name, format: opened.format, items: itemsOf(opened, { ...options, name }) };
    }
  }
  return {
    path,
    sizeBytes: file.sizeBytes,
    readBytes: () => (parquetShare === 0 ? file.readBytes() : Math.floor(parquetShare * file.sizeBytes)),
    entries: entries(),
  };
}

type Opened = Readonly<{ format: Format; records: AsyncIterable<FileRecord> }>;

async function openParquet(
  path: string,
  entry: Entry,
  forced: Format | null,
  onRead: (share: number) => void,
): Promise<Opened> {
  if (!path.endsWith(entry.name)) {
    throw new SetupError(
      `${entry.name} in ${path} is Parquet inside of another file`,
      "unpack it first: a Parquet file is read from its end",
    );
  }
  const format = forced ?? formatOf(entry.name, await parquetColumns(path));
  return { format, records: parquetRecords(path, onRead) };
}

function openText(
  name: string,
  head: Uint8Array,
  chunks: AsyncIterable<Uint8Array>,
  forced: Format | null,
): Opened {
  const [line = ""] = new TextDecoder()
    .decode(head)
    .replace(/^\uFEFF/, "")
    .trimStart()
    .split(/\r?\n/);
  if (line.startsWith("{")) {
    const first = columnsOfJson(line);
    return { format: forced ?? formatOf(name, first), records: jsonRecords(chunks) };
  }
  const delimiter = DELIMITERS.find((one) => line.includes(one)) ?? ",";
  const columns = line.split(delimiter).map((column) => column.trim().replace(/^"(.*)"$/, "$1"));
  const format = forced ?? formatOf(name, columns);
  // A first line with a number in it is a trade already.
  const hasHeader = !columns.some((column) => numberOf(column) !== null);
  if (!hasHeader && format.headless === undefined) {
    throw new SetupError(
      `${name} has no line with the names of its columns, and is of no format that has none`,
      "write such a line first, for example: time,price,size,symbol",
    );
  }
  const names = hasHeader ? columns : format.headless!;
  return { format, records: csvRecords(chunks, delimiter, names, hasHeader) };
}

function columnsOfJson(line: string): string[] {
  try {
    return Object.keys(JSON.parse(line) as object);
  } catch {
    return [];
  }
}

function formatOf(name: string, columns: readonly string[]): Format {
  return FORMATS.find(({ isIt }) => isIt({ name, columns }))!;
}

function formatNamed(name: string): Format {
  const found = FORMATS.find((format) => format.name === name);
  if (found !== undefined) return found;
  const names = FORMATS.map((format) => format.name).join(", ");
  throw new SetupError(
    `--format ${name} is unknown`,
    `one of: ${names}; without --format it is found by the file`,
  );
}

/** What a library says of a broken archive or file, as a sentence for whoever gave it. */
async function* readable<T>(name: string, source: AsyncIterable<T>): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await iterator.next().catch((error: unknown) => {
        if (error instanceof PipelineError) throw error;
        const words = error instanceof Error ? error.message : String(error);
        throw new SetupError(
          `${name} is damaged or not what its name says (${words})`,
          "what came before it is stored; get the file again, and run this again: nothing will be there twice",
          error,
        );
      });
      if (next.done) return;
      yield next.value;
    }
  } finally {
    await iterator.return?.();
  }
}

async function* itemsOf({ format, records }: Opened, given: Given): AsyncGenerator<ImportItem> {
  const uuidOf = identifier(format.name, given.name);
  const itemOf = (reading: Reading, place: number): ImportItem => {
    if (reading.kind !== "trade") return { kind: reading.kind, place, why: reading.why };
    const { trade, id, note = null } = reading;
    return { kind: "trade", place, trade, uuid: uuidOf(trade, id, place), note };
  };
  for await (const { place, fields, problem } of readable(given.name, records)) {
    if (fields === null) {
      yield { kind: "refused", place, why: problem };
      continue;
    }
    const readings = format.read(fields, given);
    if ("kind" in readings) yield itemOf(readings, place);
    else for (const one of readings) yield itemOf(one, place);
  }
}
