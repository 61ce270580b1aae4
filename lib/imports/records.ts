// The records of a file: lines of CSV or JSON, rows of Parquet. Each is fields by name with its place in the file; a
// line that is none is told with its place and ends nothing. What the fields mean is the business of formats.ts.

import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { type CsvError, parse } from "csv-parse";
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { SetupError } from "../base/errors.ts";
import { parseObject } from "../base/json.ts";

export type Fields = Readonly<Record<string, unknown>>;

/** `place`: of a line or a row, from 1. `fields`: null = it is no record, and `problem` says why. */
export type FileRecord = Readonly<
  { place: number; fields: Fields; problem: null } | { place: number; fields: null; problem: string }
>;

/** A longer one is no line of trades; it would take the memory of the machine. */
const LINE_BYTES_MAX = 16 * 1_024 * 1_024;
const PARQUET_ROWS = 50_000;
const PARQUET_MAGIC = "PAR1";

/** The first bytes, and then all of them again. */
export async function peek(
  chunks: AsyncIterable<Uint8Array>,
  bytesMin: number,
): Promise<readonly [head: Uint8Array, chunks: AsyncIterable<Uint8Array>]> {
  const iterator = chunks[Symbol.asyncIterator]();
  const taken: Uint8Array[] = [];
  let size = 0;
  while (size < bytesMin) {
    const next = await iterator.next();
    if (next.done) break;
    taken.push(next.value);
    size += next.value.length;
  }
  async function* all(): AsyncGenerator<Uint8Array> {
    yield* taken;
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value;
  }
  return [Buffer.concat(taken), all()];
}

export function isParquet(head: Uint8Array): boolean {
  return new TextDecoder().decode(head.subarray(0, PARQUET_MAGIC.length)) === PARQUET_MAGIC;
}

/** Rows of a CSV file. `columns`: their names in order; the first line is skipped where it holds them. */
export async function* csvRecords(
  chunks: AsyncIterable<Uint8Array>,
  delimiter: string,
  columns: readonly string[],
  hasHeader: boolean,
): AsyncGenerator<FileRecord> {
  const problems: FileRecord[] = [];
  const parser = parse({
    bom: true,
    delimiter,
    columns: [...columns],
    relax_column_count: true,
    relax_quotes: true,
    skip_empty_lines: true,
    max_record_size: LINE_BYTES_MAX,
    from: hasHeader ? 2 : 1,
    info: true,
    skip_records_with_error: true,
    on_skip: (error: CsvError | undefined) => {
      problems.push({
        place: Number(error?.lines ?? 0),
        fields: null,
        problem: error?.message ?? "not a line of CSV",
      });
      return undefined;
    },
  });
  const feeding = feed(chunks, parser);
  for await (const one of parser as AsyncIterable<{ record: Fields; info: { lines: number } }>) {
    yield* problems.splice(0);
    yield { place: one.info.lines, fields: one.record, problem: null };
  }
  yield* problems.splice(0);
  await feeding;
}

async function feed(chunks: AsyncIterable<Uint8Array>, parser: ReturnType<typeof parse>): Promise<void> {
  try {
    for await (const chunk of chunks) {
      if (!parser.write(chunk)) await new Promise((resolve) => parser.once("drain", resolve));
    }
    parser.end();
  } catch (error) {
    parser.destroy(error instanceof Error ? error : new Error(String(error)));
  }
}

/** One JSON object a line. */
export async function* jsonRecords(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<FileRecord> {
  let place = 0;
  for await (const line of linesOf(chunks)) {
    place += 1;
    const text = line.trim();
    if (text === "") continue;
    const fields = parseObject(text);
    yield fields === null
      ? { place, fields: null, problem: "not a JSON object" }
      : { place, fields, problem: null };
  }
}

async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > LINE_BYTES_MAX) {
      throw new SetupError(
        `a line is longer than ${LINE_BYTES_MAX} characters`,
        "a file of trades has one JSON object a line",
      );
    }
    yield* lines;
  }
  if (rest !== "") yield rest;
}

/** Rows of a Parquet file, which must lie on the disk as it is: its directory stands at its end. */
export async function* parquetRecords(
  path: string,
  onRead: (share: number) => void,
): AsyncGenerator<FileRecord> {
  const file = await asyncBufferFromFile(path);
  const metadata = await parquetMetadataAsync(file);
  const rowCount = Number(metadata.num_rows);
  for (let rowStart = 0; rowStart < rowCount; rowStart += PARQUET_ROWS) {
    const rowEnd = Math.min(rowCount, rowStart + PARQUET_ROWS);
    const rows = await parquetReadObjects({ file, metadata, rowStart, rowEnd, compressors: COMPRESSORS });
    onRead(rowEnd / rowCount);
    for (const [index, fields] of rows.entries()) {
      yield { place: rowStart + index + 1, fields, problem: null };
    }
  }
}

export async function parquetColumns(path: string): Promise<readonly string[]> {
  const { schema } = await parquetMetadataAsync(await asyncBufferFromFile(path));
  return schema.slice(1).map(({ name }) => name);
}

/** Beside those that hyparquet brings. */
const COMPRESSORS = {
  GZIP: (bytes: Uint8Array) => new Uint8Array(gunzipSync(bytes)),
  BROTLI: (bytes: Uint8Array) => new Uint8Array(brotliDecompressSync(bytes)),
  ZSTD: (bytes: Uint8Array) => new Uint8Array(Bun.zstdDecompressSync(bytes)),
};
