// The operator's redrive: turns dead letters back into the messages that can be accepted now, and appends these to the log,
// so that they go the way of every trade. The same dead letter gives the same identities every time, whatever is good in
// it today, so a redrive can be repeated and brings nothing in twice.
//
// Every element of a message has an index, good or not; a placeholder keeps the place of one that is not sent
// (model/dead-letter.ts). So a trade has the UUID that it would have had if nothing had been wrong with its message.

import type { Clock } from "../base/clock.ts";
import type { LogEntry, LogWriter, PartitionId } from "../contracts/log.ts";
import { parseFrame } from "../finnhub/frame.ts";
import { messagesIn } from "../finnhub/frame-split.ts";
import { decodeMessage, encodeMessage, readForeign } from "../model/codec.ts";
import {
  type DeadLetter,
  type DeadReason,
  isPlaceholder,
  placeholderFor,
  WHOLE_MESSAGE,
} from "../model/dead-letter.ts";
import { derivedSession, isIdentity } from "../model/identity.ts";
import type { Message, Trade } from "../model/trade.ts";
import { badTrade, knownAtMs, TRADES_PER_MESSAGE_MAX } from "../model/validate.ts";
import { isMessageExpired } from "./retention.ts";
import { retryForOperator } from "./retry.ts";

type RedriveDeps = Readonly<{
  log: LogWriter;
  /** All partitions that the topic ever had: the place of a message without an identity is found among them. */
  partitions: readonly PartitionId[];
  clock: Clock;
  retentionDays: number;
  signal: AbortSignal;
}>;

/** The keys are those of --json. */
export type RedriveCounts = {
  letters: number;
  /** Dead letters of which something was sent. */
  taken: number;
  messages: number;
  trades: number;
  /** Trades of dead letters older than the retention. */
  expired: number;
  /** What cannot be accepted even now, by reason: trades, or dead letters in which no trade can be read. */
  unfit: Record<string, number>;
};

/** One append: some hundred KB. */
const ENTRIES_BUFFERED_MAX = 256;
const ENTRY_BYTES_BUFFERED_MAX = 512 * 1_024;

/** Appends what can be accepted now. Dead letters stay where they are: sent again, they write the same rows. */
export async function redriveAll(
  deps: RedriveDeps,
  deadLetters: AsyncIterable<DeadLetter>,
): Promise<RedriveCounts> {
  const counts: RedriveCounts = { letters: 0, taken: 0, messages: 0, trades: 0, expired: 0, unfit: {} };
  const places = new Map(deps.partitions.map((partition) => [derivedSession(partition, ""), partition]));
  const writer = new RedriveWriter(deps, counts);
  for await (const deadLetter of deadLetters) {
    deps.signal.throwIfAborted();
    counts.letters += 1;
    const { messages, rejected } = redriveDeadLetter(deadLetter, places, deps.clock.now());
    for (const reason of rejected) counts.unfit[reason] = (counts.unfit[reason] ?? 0) + 1;
    const messagesBefore = counts.messages;
    for (const message of messages) await writer.write(message);
    if (counts.messages > messagesBefore) counts.taken += 1;
  }
  await writer.flush();
  return counts;
}

/** Appends messages in groups, and counts them. */
class RedriveWriter {
  readonly #deps: RedriveDeps;
  readonly #counts: RedriveCounts;
  #entries: LogEntry[] = [];
  #bytes = 0;

  constructor(deps: RedriveDeps, counts: RedriveCounts) {
    this.#deps = deps;
    this.#counts = counts;
  }

  async write(message: Message): Promise<void> {
    const { retentionDays, clock } = this.#deps;
    const tradeCount = message.trades.filter((trade) => !isPlaceholder(trade)).length;
    if (isMessageExpired(message, retentionDays, clock.now())) {
      this.#counts.expired += tradeCount;
      return;
    }
    const key = message.trades[0]?.symbol ?? "";
    const entry: LogEntry = { kind: "trades", key, value: encodeMessage(message) };
    this.#entries.push(entry);
    this.#bytes += entry.value.length;
    this.#counts.messages += 1;
    this.#counts.trades += tradeCount;
    if (this.#entries.length >= ENTRIES_BUFFERED_MAX || this.#bytes >= ENTRY_BYTES_BUFFERED_MAX) {
      await this.flush();
    }
  }

  async flush(): Promise<void> {
    const { log, clock, signal } = this.#deps;
    const entries = this.#entries;
    this.#entries = [];
    this.#bytes = 0;
    if (entries.length > 0) await retryForOperator(clock, signal, () => log.append(entries));
  }
}

// --- One dead letter: pure --------------------------------------------------------------------------------------

/** `rejected`: why a trade, or a dead letter in which no trade can be read, cannot be accepted even now. */
type Redriven = Readonly<{ messages: readonly Message[]; rejected: readonly DeadReason[] }>;

/** The elements of a dead letter that belong to one symbol, in order; a string is the reason why one is not a trade. */
type Part = Readonly<{
  session: string;
  sequence: number;
  receivedAtMs: number;
  symbol: string;
  elements: readonly (Trade | DeadReason)[];
}>;

/**
 * `places`: partitions by the session that a record without an identity gets in them, derivedSession(partition, ""). The
 * identity of the record's parts is derived from its partition. `nowMs`: a trade is judged by it, because the clock that
 * gave the receipt may have been slow. What comes in is then judged by its append, which is no earlier.
 */
export function redriveDeadLetter(
  deadLetter: DeadLetter,
  places: ReadonlyMap<string, string>,
  nowMs: number,
): Redriven {
  const messages: Message[] = [];
  const rejected: DeadReason[] = [];
  const judgedAtMs = knownAtMs(deadLetter.receivedAtMs, nowMs);
  const parts = partsIn(deadLetter, places, judgedAtMs);
  if (parts === null) return { messages, rejected: [deadLetter.reason] };
  for (const part of parts) {
    for (const { session, sequence, receivedAtMs, symbol, elements } of inMessages(part)) {
      if (!isIdentity(session, sequence, receivedAtMs)) {
        rejected.push("bad_identity");
        continue;
      }
      const trades: Trade[] = [];
      let length = 0;
      for (const element of elements) {
        const reason = typeof element === "string" ? element : badTrade(element, judgedAtMs);
        if (typeof element !== "string" && reason === null) length = trades.push(element);
        else {
          if (reason !== null && (typeof element === "string" || !isPlaceholder(element)))
            rejected.push(reason);
          trades.push(placeholderFor(symbol));
        }
      }
      trades.length = length;
      if (length > 0) messages.push({ session, sequence, receivedAtMs, trades });
    }
  }
  return { messages, rejected };
}

/** Null: no trade can be read in it. */
function partsIn(
  deadLetter: DeadLetter,
  places: ReadonlyMap<string, string>,
  judgedAtMs: number,
): readonly Part[] | null {
  const { session, sequence, receivedAtMs, item, source, payload } = deadLetter;
  if (item === WHOLE_MESSAGE && source === "feed") {
    return frameParts(deadLetter, Buffer.from(payload).toString("utf8"), judgedAtMs);
  }
  const decoded = decodeMessage(payload);
  if (decoded.ok && item === WHOLE_MESSAGE) {
    const { trades: elements, ...identity } = decoded.message;
    return [{ ...identity, symbol: decoded.symbol, elements }];
  }
  if (decoded.ok) {
    // One trade of a message whose others were accepted: placeholders stand for those before it.
    if (item < 0 || item >= TRADES_PER_MESSAGE_MAX) return null;
    const { symbol } = decoded;
    const elements = [
      ...Array<Trade>(item).fill(placeholderFor(symbol)),
      ...decoded.message.trades.slice(0, 1),
    ];
    return [{ session, sequence, receivedAtMs, symbol, elements }];
  }
  const foreign = item === WHOLE_MESSAGE ? readForeign(payload) : null;
  if (foreign === null) return null;
  const elements = foreign.trades.map((trade) => ({ symbol: trade.symbol, element: trade }));
  return partsBySymbol(deadLetter, places.get(session) ?? session, elements, { isDerived: true });
}

type FrameElement = { symbol: string | null; element: Trade | DeadReason };

/**
 * A text that the feed refused, as it is understood now; null = there is still no trade frame in it. Each message in it but
 * the first has a session of its own, so that one which cannot be read yet takes no index from the others.
 */
function frameParts(deadLetter: DeadLetter, text: string, judgedAtMs: number): Part[] | null {
  const isOne = parseFrame(text, judgedAtMs).type !== "refused";
  const parts: Part[] = [];
  let isTaken = false;
  for (const [number, message] of (isOne ? [text] : messagesIn(text)).entries()) {
    const session =
      number === 0 ? deadLetter.session : derivedSession(deadLetter.session, `\u0000\u0000${number}`);
    const elements = frameElements(message, judgedAtMs);
    isTaken ||= Array.isArray(elements);
    if (typeof elements === "string") {
      parts.push({ ...deadLetter, session, symbol: "", elements: [elements] });
    } else if (elements !== null) {
      parts.push(...partsBySymbol({ ...deadLetter, session }, session, elements, { isDerived: false }));
    }
  }
  return isTaken ? parts : null;
}

/** Every element of a trade frame. A string: why it is none; null: it is a frame of another type, without trades. */
function frameElements(text: string, judgedAtMs: number): FrameElement[] | DeadReason | null {
  const frame = parseFrame(text, judgedAtMs);
  if (frame.type === "refused") return frame.reason;
  if (frame.type !== "trade") return null;
  if (frame.refused.length === 0)
    return frame.trades.map((trade) => ({ symbol: trade.symbol, element: trade }));
  // Which of them are good may change with what this program knows; where each stands does not.
  const { data } = JSON.parse(text) as { data: unknown[] };
  return data.map((value) => {
    const alone = parseFrame(JSON.stringify({ data: [value], type: "trade" }), judgedAtMs);
    const { trades, refused } = alone.type === "trade" ? alone : { trades: [], refused: [] };
    const symbol = typeof value === "object" && value !== null && "s" in value ? value.s : null;
    return {
      symbol: typeof symbol === "string" ? symbol : null,
      element: trades[0] ?? refused[0]?.reason ?? "not_a_trade",
    };
  });
}

/** Elements of one symbol alone keep the dead letter's own identity, unless that only stands for its place. */
function partsBySymbol(
  { session, sequence, receivedAtMs }: DeadLetter,
  base: string,
  elements: readonly FrameElement[],
  { isDerived }: Readonly<{ isDerived: boolean }>,
): Part[] {
  const bySymbol = Map.groupBy(elements, ({ symbol }) => symbol);
  const keepsOwn = !isDerived && [...bySymbol.keys()].filter((symbol) => symbol !== null).length === 1;
  return [...bySymbol].map(([symbol, own]) => ({
    session: keepsOwn ? session : derivedSession(base, symbol ?? ""),
    sequence,
    receivedAtMs,
    symbol: symbol ?? "",
    elements: own.map(({ element }) => element),
  }));
}

/** What exceeds one message gets sessions of its own. They are unique, since no symbol contains a zero character. */
function inMessages(part: Part): Part[] {
  const { session, symbol, elements } = part;
  const parts: Part[] = [];
  for (let from = 0, number = 0; from < elements.length; from += TRADES_PER_MESSAGE_MAX, number++) {
    parts.push({
      ...part,
      session: number === 0 ? session : derivedSession(session, `${symbol}\u0000${number}`),
      elements: elements.slice(from, from + TRADES_PER_MESSAGE_MAX),
    });
  }
  return parts;
}
