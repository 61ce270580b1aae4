// The write-ahead log of a SQLite file, read as bytes. SQLite stops at the first frame that does not verify and
// says nothing of the commits behind it: here is who tells them from the torn end that any kill leaves, and who
// writes a log that SQLite will read to its end. It never touches the file it reads, and judges no page.

import { closeSync, existsSync, fstatSync, openSync, readSync, statSync, writeSync } from "node:fs";

export const PAGE_BYTES = 4_096;
const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES;
/** Its last bit says in which order of bytes the checksums were made. */
const MAGIC = 0x377f0682;
const VERSION = 3_007_000;
/** Of one process, a few MB each; older ones have been written over. */
const GENERATIONS_MAX = 4_096;

type Sums = readonly [number, number];

type Frame = Readonly<{
  number: number;
  page: number;
  /** Of a commit: the pages of the database after it. 0 = the transaction goes on. */
  pageCount: number;
  /** Whether it follows from the checksum that its predecessor claims: a flaw before it does not count. */
  isSound: boolean;
  /** Written by nobody: of this generation it is not, and of none before it. */
  isForeign: boolean;
  /** Whether frames of an older generation lie behind those of this one. */
  hasOlderBehind: boolean;
  /** Reused for the next frame. */
  data: Uint8Array;
}>;

/**
 * What is wrong with it, in words; null = SQLite will read all that was committed to it.
 *
 * A kill between the writes of a commit's last frame leaves one that is whole in length and wrong in content only
 * where an older generation's frame was in its place. With `journal_size_limit = 0` (base/sqlite.ts) those are cut off
 * before the first transaction of a generation is told to be complete, and every later frame makes the file longer.
 * So where older frames are still there, nothing of this generation was acknowledged; where none are, a frame of full
 * length was written whole, and is damage.
 */
export function walProblem(path: string): string | null {
  let firstBad: number | null = null;
  let isLost = false;
  let isAcknowledged = false;
  for (const { number, pageCount, isSound, isForeign, hasOlderBehind } of framesOf(path)) {
    if (!isSound) firstBad ??= number;
    isLost ||= isForeign || (firstBad !== null && pageCount > 0);
    // A whole commit before older frames: the kill came before they were cut off, or the file is not of our writing.
    isAcknowledged ||= !hasOlderBehind || (isSound && pageCount > 0);
  }
  return isLost && isAcknowledged ? `frame ${firstBad} of the -wal file is damaged` : null;
}

export type MendOptions = Readonly<{
  /** Absent: it may not exist. */
  from: string;
  to: string;
  /** Also the frames from the first flaw on, their flaws forgiven. */
  isForgiving: boolean;
  /** Becomes page 1 of a database that has no other one. */
  firstPage: Uint8Array | null;
  /** Pages of the main file. */
  pageCount: number;
}>;

/** Writes a log of one transaction: the committed frames of the old one, as far as is asked for. */
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
    // A count that cannot be is what was damaged.
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
      // A page that cannot be: its number is what was damaged.
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

/** Page 1 of another file with the same tables, for a file of so many pages with nothing known to be free. */
function firstWith(page: Uint8Array, pageCount: number): Uint8Array {
  const copy = Buffer.from(page);
  copy.writeUInt32BE(pageCount, 28);
  copy.fill(0, 32, 40);
  return copy;
}

/** The frames of the newest generation, in order. Without a header that verifies, that of the first frame. */
function* framesOf(path: string): Generator<Frame> {
  if (!existsSync(path) || statSync(path).size < HEADER_BYTES + FRAME_BYTES) return;
  const fd = openSync(path, "r");
  try {
    const count = Math.floor((fstatSync(fd).size - HEADER_BYTES) / FRAME_BYTES);
    const header = Buffer.alloc(HEADER_BYTES);
    readSync(fd, header, 0, HEADER_BYTES, 0);
    const isLittle = header.readUInt32BE(0) === MAGIC;
    const expected = sumOver(header.subarray(0, HEADER_BYTES - 8), [0, 0], isLittle);
    const isHeaderSound = sumsAt(header, HEADER_BYTES - 8, expected) && (isLittle || isBigMagic(header));
    let sums: Sums = expected;
    const salt = Buffer.from(header.subarray(16, 24));
    const bytes = Buffer.alloc(FRAME_BYTES);
    // Frames of an older generation may lie behind those of the newest, and a damaged one among these or after.
    let last = 0;
    let lastOlder = 0;
    for (let number = 1; number <= count; number++) {
      readSync(fd, bytes, 0, FRAME_HEADER_BYTES, HEADER_BYTES + (number - 1) * FRAME_BYTES);
      if (number === 1 && !isHeaderSound) bytes.copy(salt, 0, 8, 16);
      const isNext = number === last + 1 && isForeignTo(salt, bytes);
      if (isOf(salt, bytes) || isNext) last = number;
      else if (isOlderThan(salt, bytes)) lastOlder = number;
    }
    for (let number = 1; number <= last; number++) {
      readSync(fd, bytes, 0, FRAME_BYTES, HEADER_BYTES + (number - 1) * FRAME_BYTES);
      const sum = sumOver(
        bytes.subarray(FRAME_HEADER_BYTES),
        sumOver(bytes.subarray(0, 8), sums, isLittle),
        isLittle,
      );
      const isSound = sumsAt(bytes, 16, sum) && isOf(salt, bytes);
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

function isOf(salt: Buffer, frame: Buffer): boolean {
  return frame.compare(salt, 0, 8, 8, 16) === 0;
}

function isForeignTo(salt: Buffer, frame: Buffer): boolean {
  return !isOf(salt, frame) && !isOlderThan(salt, frame) && !isBlank(frame);
}

/** A generation counts its salt up by one. */
function isOlderThan(salt: Buffer, frame: Buffer): boolean {
  const age = (salt.readUInt32BE(0) - frame.readUInt32BE(8)) >>> 0;
  return age > 0 && age <= GENERATIONS_MAX && !isBlank(frame);
}

/** Nothing but zeros is a file that was made longer and not written. */
function isBlank(frame: Buffer): boolean {
  return frame.subarray(0, FRAME_HEADER_BYTES).every((byte) => byte === 0);
}

function isBigMagic(header: Buffer): boolean {
  return header.readUInt32BE(0) === MAGIC + 1;
}

function sumsAt(bytes: Buffer, place: number, [first, second]: Sums): boolean {
  return bytes.readUInt32BE(place) === first && bytes.readUInt32BE(place + 4) === second;
}

/** SQLite's own checksum of pairs of 32-bit words. */
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
