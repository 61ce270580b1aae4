// A recorded tape: gzip NDJSON of {"at": <receive time, ms>, "frame": "<raw text frame>"}. Reads and checks it;
// plays nothing, knows no timer and no client.

import { gunzipSync } from "node:zlib";
import { SetupError } from "../base/errors.ts";
import { asObject } from "../base/json.ts";
import { frameText, type WireTrade } from "./frames.ts";

export type TapeFrame = Readonly<{
  /** When it was received; never earlier than the frame before it. */
  atMs: number;
  /** As recorded, byte for byte. */
  text: string;
  /** The symbols in it; empty when it is no trade frame. */
  symbols: readonly string[];
  tradeCount: number;
}>;

export type Tape = Readonly<{ frames: readonly TapeFrame[]; symbols: ReadonlySet<string> }>;

/** Tapes are held in memory whole; these are some hundred times the recorded ones. */
const PACKED_BYTES_MAX = 64 * 2 ** 20;
const UNPACKED_BYTES_MAX = 512 * 2 ** 20;
const FORMAT_HINT = 'each line must be {"at": <ms since 1970>, "frame": "<text of the frame>"}';

export async function readTape(path: string): Promise<Tape> {
  const file = Bun.file(path);
  if (!(await file.exists())) {
    throw new SetupError(`the tape ${path} does not exist`, "set SIMULATOR_TAPE to a gzip NDJSON file");
  }
  if (file.size > PACKED_BYTES_MAX) {
    throw new SetupError(`the tape ${path} is larger than ${PACKED_BYTES_MAX} bytes`, "cut it into parts");
  }
  let text: string;
  try {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const unpacked = isGzip(bytes) ? gunzipSync(bytes, { maxOutputLength: UNPACKED_BYTES_MAX }) : bytes;
    text = new TextDecoder("utf-8", { fatal: true }).decode(unpacked);
  } catch (error) {
    throw new SetupError(
      `the tape ${path} cannot be unpacked`,
      "it must be a gzip file of UTF-8 lines",
      error,
    );
  }
  return parseTape(text, path);
}

/** `name`: for error messages. Throws a SetupError. */
export function parseTape(text: string, name: string): Tape {
  const frames: TapeFrame[] = [];
  const symbols = new Set<string>();
  // Frames of one symbol share one list: a tape has many frames and few symbols.
  const lists = new Map<string, readonly string[]>();
  let lineNumber = 0;
  let atMsLast = Number.NEGATIVE_INFINITY;
  for (const line of text.split("\n")) {
    lineNumber += 1;
    if (line.trim() === "") continue;
    const entry = asObject(parsed(line));
    if (entry === null) throw malformed(name, lineNumber, "is not a JSON object");
    const { at, frame } = entry;
    if (typeof at !== "number" || !Number.isFinite(at))
      throw malformed(name, lineNumber, 'has no number "at"');
    if (typeof frame !== "string") throw malformed(name, lineNumber, 'has no text "frame"');
    const trades = tradesOf(frame);
    const key = [...new Set(trades.map((trade) => trade.s))].sort();
    const list = lists.get(key.join("\n")) ?? key;
    lists.set(key.join("\n"), list);
    for (const symbol of list) symbols.add(symbol);
    // A recorder's clock may have stepped back; the order of the lines is the order of the frames.
    atMsLast = Math.max(atMsLast, at);
    frames.push({ atMs: atMsLast, text: frame, symbols: list, tradeCount: trades.length });
  }
  if (symbols.size === 0) throw new SetupError(`the tape ${name} holds no trade`, FORMAT_HINT);
  return { frames, symbols };
}

/** The trades of a frame; empty for a ping, for news, and for what is not JSON. */
export function tradesOf(text: string): readonly WireTrade[] {
  const frame = asObject(parsed(text));
  if (frame?.type !== "trade" || !Array.isArray(frame.data)) return [];
  const elements: readonly unknown[] = frame.data;
  return elements.every(isWireTrade) ? elements : [];
}

export function isPing(text: string): boolean {
  return asObject(parsed(text))?.type === "ping";
}

/** The same frame with every trade time changed and everything else left as its bytes are. */
export function retimed(text: string, timeMs: (recordedMs: number) => number): string {
  return text.replace(/"t":\s*(\d+)/g, (_, digits: string) => `"t":${timeMs(Number(digits))}`);
}

/** The frame's trades of the wanted symbols, and the rest; null where there are none. */
export function split(text: string, wanted: (symbol: string) => boolean) {
  const taken: WireTrade[] = [];
  const left: WireTrade[] = [];
  for (const trade of tradesOf(text)) (wanted(trade.s) ? taken : left).push(trade);
  const part = (trades: readonly WireTrade[]) =>
    trades.length === 0 ? null : { text: frameText(trades), tradeCount: trades.length };
  return { taken: part(taken), left: part(left) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Only what the simulator itself needs; a recorded oddity in the other fields is the client's to judge. */
function isWireTrade(value: unknown): value is WireTrade {
  return typeof asObject(value)?.s === "string";
}

function isGzip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

function malformed(name: string, lineNumber: number, what: string): SetupError {
  return new SetupError(`the tape ${name} is malformed: line ${lineNumber} ${what}`, FORMAT_HINT);
}
