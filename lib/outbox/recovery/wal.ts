// The write-ahead log of a SQLite file, read as bytes. SQLite stops at the first frame that does not verify and is
// silent about the commits behind it. This module tells them from the torn end that any kill leaves, and writes a log
// that SQLite reads to its end. It never changes the file it reads, and it judges no page.

import { closeSync, existsSync, fstatSync, openSync, readSync, statSync, writeSync } from "node:fs";

export const PAGE_BYTES = 4_096;
const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES;
/** The last bit says which byte order the checksums use. */
const MAGIC = 0x377f0682;
const VERSION = 3_007_000;
/** Older generations of one process, a few MB each, have been overwritten. */
const GENERATIONS_MAX = 4_096;

type Sums = readonly [number, number];

type Frame = Readonly<{
  number: number;
  page: number;
  /** In the last frame of a transaction: the pages of the database after it. 0 = the transaction goes on. */
  pageCount: number;
  /** Whether it follows from the checksum that its predecessor states: a flaw before it does not count. */
  isSound: boolean;
  /** It belongs neither to this generation nor to an older one, so nobody wrote it. */
  isForeign: boolean;
  /** Whether frames of an older generation follow those of this one. */
  hasOlderBehind: boolean;
  /** Reused for the next frame. */
  data: Uint8Array;
}>;

/**
 * What is wrong with the file, as a sentence for the operator; null = SQLite will read every commit.
 *
 * A kill between the writes of a commit's last frame can leave a frame of full length with wrong content only where an
 * older generation's frame was in its place. With `journal_size_limit = 0` (base/sqlite.ts) the older frames are cut off
 * before the first transaction of a generation is acknowledged, and every later frame makes the file longer. So where
 * older frames are still there, nothing of this generation was acknowledged. Where none are, a frame of full length
 * was written whole, and wrong content is damage.
 */
export function walProblem(path: string): string | null {
  let firstBad: number | null = null;
  let isLost = false;
  let isAcknowledged = false;
  for (const { number, pageCount, isSound, isForeign, hasOlderBehind } of framesOf(path)) {
    if (!isSound) firstBad ??= number;
    isLost ||= isForeign || (firstBad !== null && pageCount > 0);
    // A whole commit before older frames: the kill came before they were cut off, or another program wrote the file.
    isAcknowledged ||= !hasOlderBehind || (isSound && pageCount > 0);
  }
  return isLost && isAcknowledged ? `frame ${firstBad} of the -wal file is damaged` : null;
}

type MendOptions = Readonly<{
  /** The file to read; it need not exist. */
  from: string;
  /** The file to write. */
  to: string;
  /** Whether to take the frames from the first flaw on too, as they are. */
  isForgiving: boolean;
  /** Replaces page 1 of the database; null = it is read from the files. */
  firstPage: Uint8Array | null;
  /** The pages of the main file. */
  pageCount: number;
}>;

/** Writes a log of one transaction: the committed frames of the old log, and with `isForgiving` all of its frames. */
export function mendWal({ from, to, isForgiving, firstPage, pageCount }: MendOptions): void {
  let end = 0;
  let databasePages = pageCount;
  let isIntact = true;
  for (const frame of framesOf(from)) {
    isIntact &&= frame.isSound;
    if (!(isIntact || isForgiving)) break;
    if (frame.pageCount === 0 && !isForgiving) continue;
    end = frame.number;
    if (isForgiving && frame.page <= databasePages + end) databasePages = Math.max(databasePages, frame.page);
    // An impossible count is itself the damage.
    if (frame.pageCount > 0 && frame.pageCount <= databasePages + end) databasePages = frame.pageCount;
  }
  const pageMax = Math.max(pageCount, databasePages) + end;
  const fd = openSync(to, "w");
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    for (const [place, word] of [MAGIC, VERSION, PAGE_BYTES, 0, 1, 1].entries())
      header.writeUInt32BE(word, place * 4);
    let sums = sumOver(header.subarray(0, HEADER_BYTES - 8), [0, 0], true);
    header.writeUInt32BE(sums[0], HEADER_BYTES - 8);
    header.writeUInt32BE(sums[1], HEADER_BYTES - 4);
    writeSync(fd, header);
    const bytes = Buffer.alloc(FRAME_BYTES);
    const write = (page: number, data: Uint8Array, commitPages: number) => {
      bytes.fill(0, 0, FRAME_HEADER_BYTES);
      bytes.writeUInt32BE(page, 0);
      bytes.writeUInt32BE(commitPages, 4);
      bytes.writeUInt32BE(1, 8);
      bytes.writeUInt32BE(1, 12);
      bytes.set(data, FRAME_HEADER_BYTES);
      sums = sumOver(bytes.subarray(FRAME_HEADER_BYTES), sumOver(bytes.subarray(0, 8), sums, true), true);
      bytes.writeUInt32BE(sums[0], 16);
      bytes.writeUInt32BE(sums[1], 20);
      writeSync(fd, bytes);
    };
    const last = { page: 0, data: new Uint8Array(PAGE_BYTES) };
    for (const { number, page, data } of framesOf(from)) {
      if (number > end) break;
      // An impossible page number is itself the damage.
      if (page < 1 || page > pageMax || (page === 1 && firstPage !== null)) continue;
      if (last.page > 0) write(last.page, last.data, 0);
      last.page = page;
      last.data.set(data);
    }
    if (last.page > 0) write(last.page, last.data, firstPage === null ? databasePages : 0);
    if (firstPage !== null) write(1, firstWith(firstPage, pageMax), pageMax);
  } finally {
    closeSync(fd);
  }
}

/** Page 1 of another file with the same tables, changed for a file of so many pages of which none is free. */
function firstWith(page: Uint8Array, pageCount: number): Uint8Array {
  const copy = Buffer.from(page);
  copy.writeUInt32BE(pageCount, 28);
  copy.fill(0, 32, 40);
  return copy;
}

/** The frames of the newest generation, in order. If the header does not verify, that of the first frame counts. */
function* framesOf(path: string): Generator<Frame> {
  if (!existsSync(path) || statSync(path).size < HEADER_BYTES + FRAME_BYTES) return;
  const fd = openSync(path, "r");
  try {
    const count = Math.floor((fstatSync(fd).size - HEADER_BYTES) / FRAME_BYTES);
    const header = Buffer.alloc(HEADER_BYTES);
    readSync(fd, header, 0, HEADER_BYTES, 0);
    const isLittle = header.readUInt32BE(0) === MAGIC;
    const expected = sumOver(header.subarray(0, HEADER_BYTES - 8), [0, 0], isLittle);
    const isHeaderSound = hasSums(header, HEADER_BYTES - 8, expected) && (isLittle || isBigMagic(header));
    let sums: Sums = expected;
    const salt = Buffer.from(header.subarray(16, 24));
    const bytes = Buffer.alloc(FRAME_BYTES);
    // Frames of an older generation may follow those of the newest, and a damaged frame may be among them or after.
    let last = 0;
    let lastOlder = 0;
    for (let number = 1; number <= count; number++) {
      readSync(fd, bytes, 0, FRAME_HEADER_BYTES, HEADER_BYTES + (number - 1) * FRAME_BYTES);
      if (number === 1 && !isHeaderSound) bytes.copy(salt, 0, 8, 16);
      const isNext = number === last + 1 && isForeignTo(salt, bytes);
      if (hasSalt(salt, bytes) || isNext) last = number;
      else if (isOlderThan(salt, bytes)) lastOlder = number;
    }
    for (let number = 1; number <= last; number++) {
      readSync(fd, bytes, 0, FRAME_BYTES, HEADER_BYTES + (number - 1) * FRAME_BYTES);
      const sum = sumOver(
        bytes.subarray(FRAME_HEADER_BYTES),
        sumOver(bytes.subarray(0, 8), sums, isLittle),
        isLittle,
      );
      const isSound = hasSums(bytes, 16, sum) && hasSalt(salt, bytes);
      sums = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
      yield {
        number,
        page: bytes.readUInt32BE(0),
        pageCount: bytes.readUInt32BE(4),
        isSound: isSound && (isHeaderSound || number > 1),
        isForeign: isForeignTo(salt, bytes),
        hasOlderBehind: lastOlder > last,
        data: bytes.subarray(FRAME_HEADER_BYTES),
      };
    }
  } finally {
    closeSync(fd);
  }
}

function hasSalt(salt: Buffer, frame: Buffer): boolean {
  return frame.compare(salt, 0, 8, 8, 16) === 0;
}

function isForeignTo(salt: Buffer, frame: Buffer): boolean {
  return !hasSalt(salt, frame) && !isOlderThan(salt, frame) && !isBlank(frame);
}

/** Each generation raises the salt by one. */
function isOlderThan(salt: Buffer, frame: Buffer): boolean {
  const age = (salt.readUInt32BE(0) - frame.readUInt32BE(8)) >>> 0;
  return age > 0 && age <= GENERATIONS_MAX && !isBlank(frame);
}

/** Nothing but zeros: the file was made longer and not yet written. */
function isBlank(frame: Buffer): boolean {
  return frame.subarray(0, FRAME_HEADER_BYTES).every((byte) => byte === 0);
}

function isBigMagic(header: Buffer): boolean {
  return header.readUInt32BE(0) === MAGIC + 1;
}

function hasSums(bytes: Buffer, place: number, [first, second]: Sums): boolean {
  return bytes.readUInt32BE(place) === first && bytes.readUInt32BE(place + 4) === second;
}

/** SQLite's checksum over pairs of 32-bit words, continued from the given sums. */
function sumOver(bytes: Uint8Array, [first, second]: Sums, isLittle: boolean): Sums {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let one = first;
  let other = second;
  for (let place = 0; place < bytes.length; place += 8) {
    one = (one + view.getUint32(place, isLittle) + other) >>> 0;
    other = (other + view.getUint32(place + 4, isLittle) + one) >>> 0;
  }
  return [one, other];
}
