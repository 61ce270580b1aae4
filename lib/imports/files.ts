// A file of another recorder as streams of bytes: plain, gzip, zstd, or a zip of several files. It reads forward, holds
// some chunks at a time, and knows nothing of what the bytes mean.

import { createReadStream, statSync } from "node:fs";
import { basename } from "node:path";
import { pipeline, type Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { Unzip, UnzipInflate } from "fflate";
import { SetupError } from "../base/errors.ts";

/** One file: itself, or one of those in a zip. */
export type Entry = Readonly<{ name: string; chunks: AsyncIterable<Uint8Array> }>;

export type OpenFile = Readonly<{
  path: string;
  sizeBytes: number;
  /** How much of the file, as it lies on the disk, has been read. */
  readBytes(): number;
  /** One after the other: the next begins where the one before has been read or left. */
  entries: AsyncIterable<Entry>;
}>;

type Piece = Readonly<{ name: string; bytes: Uint8Array }>;

const CHUNK_BYTES = 256 * 1_024;
const COMPRESSED = /\.(gz|gzip|zst|zstd)$/i;

/** Throws a SetupError for what is no file, or cannot be read. */
export function openFile(path: string): OpenFile {
  const sizeBytes = sizeOf(path);
  const stream = createReadStream(path, { highWaterMark: CHUNK_BYTES });
  const name = basename(path).replace(COMPRESSED, "");
  const pieces = /\.zip$/i.test(path) ? unzipped(stream) : named(name, plain(path, stream));
  return { path, sizeBytes, readBytes: () => stream.bytesRead, entries: entriesOf(pieces) };
}

export function sizeOf(path: string): number {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined)
    throw new SetupError(
      `there is no file ${path}`,
      "check its name; several files are given one after the other",
    );
  if (!found.isFile())
    throw new SetupError(`${path} is not a file`, "give the files in it, for example with a * of the shell");
  return found.size;
}

function plain(path: string, stream: Readable): AsyncIterable<Uint8Array> {
  if (/\.(gz|gzip)$/i.test(path)) return pipeline(stream, createGunzip(), () => {});
  // A failure is thrown where the stream is read; the callback has nothing to add.
  if (/\.(zst|zstd)$/i.test(path)) return pipeline(stream, createZstdDecompress(), () => {});
  return stream;
}

async function* named(name: string, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Piece> {
  yield { name, bytes: new Uint8Array(0) }; // An empty file is a file.
  for await (const bytes of chunks) yield { name, bytes };
}

async function* unzipped(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Piece> {
  let ready: Piece[] = [];
  let isAny = false;
  /** The files that have begun and not ended. */
  const open = new Set<string>();
  const unzip = new Unzip((file) => {
    isAny = true;
    if (file.name.endsWith("/")) return;
    open.add(file.name);
    file.ondata = (error, bytes, isLast) => {
      if (error) throw error;
      if (isLast) open.delete(file.name);
      ready.push({ name: file.name, bytes });
    };
    file.start();
  });
  unzip.register(UnzipInflate);
  for await (const chunk of chunks) {
    unzip.push(chunk);
    yield* ready;
    ready = [];
  }
  if (!isAny) throw new Error("no zip archive");
  const [cut] = open;
  if (cut !== undefined) throw new Error(`it ends in the middle of ${cut}`);
}

/** Pieces that follow each other under one name are one entry. */
async function* entriesOf(pieces: AsyncGenerator<Piece>): AsyncGenerator<Entry> {
  let next = await pieces.next();
  async function* chunksOf(name: string): AsyncGenerator<Uint8Array> {
    for (; !next.done && next.value.name === name; next = await pieces.next()) {
      if (next.value.bytes.length > 0) yield next.value.bytes;
    }
  }
  try {
    while (!next.done) {
      const { name } = next.value;
      const chunks = chunksOf(name);
      yield { name, chunks };
      for await (const _rest of chunksOf(name)); // Whoever left it early does not leave it to the next one.
    }
  } finally {
    await pieces.return(undefined);
  }
}
