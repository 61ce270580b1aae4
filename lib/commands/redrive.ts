// A dead letter as the messages it can be taken as now. Pure: the same letter gives the same identities every time,
// whatever is good in it today, so that a replay can be run again and brings nothing in twice.
//
// An index is given to every element, good or not; where one is not sent, a hole keeps its place (model/dead-letter.ts). So a
// trade has the UUID that it would have had if nothing had been wrong with its message.

import { parseFrame } from "../finnhub/frame.ts";
import { decodeMessage, readForeign } from "../model/codec.ts";
import {
  type DeadLetter,
  type DeadReason,
  isPlaceholder,
  placeholderFor,
  WHOLE_MESSAGE,
} from "../model/dead-letter.ts";
import { derivedSession, isIdentity } from "../model/identity.ts";
import type { Message, Trade } from "../model/trade.ts";
import { badTrade, TRADES_PER_MESSAGE_MAX } from "../model/validate.ts";

/** `unfit`: why a trade, or a letter in which no trade can be read, cannot be taken even now. */
export type Redriven = Readonly<{ messages: readonly Message[]; unfit: readonly DeadReason[] }>;

/** What of a letter belongs to one symbol, in order. A string: why this one is no trade. */
type Part = Readonly<{
  session: string;
  sequence: number;
  receivedAtMs: number;
  symbol: string;
  elements: readonly (Trade | DeadReason)[];
}>;

/**
 * `places`: the session that a record without an identity gets in each partition (derivedSession of it and ""), and
 * the partition: from which the identity of its parts is derived.
 */
export function redriveDeadLetter(deadLetter: DeadLetter, places: ReadonlyMap<string, string>): Redriven {
  const messages: Message[] = [];
  const unfit: DeadReason[] = [];
  const deps = partsOf(deadLetter, places);
  if (deps === null) return { messages, unfit: [deadLetter.reason] };
  for (const part of deps) {
    for (const { session, sequence, receivedAtMs, symbol, elements } of inMessages(part)) {
      if (!isIdentity(session, sequence, receivedAtMs)) {
        unfit.push("bad_identity");
        continue;
      }
      const trades: Trade[] = [];
      let length = 0;
      for (const element of elements) {
        const reason = typeof element === "string" ? element : badTrade(element, receivedAtMs);
        if (typeof element !== "string" && reason === null) length = trades.push(element);
        else {
          if (reason !== null && (typeof element === "string" || !isPlaceholder(element))) unfit.push(reason);
          trades.push(placeholderFor(symbol));
        }
      }
      trades.length = length;
      if (length > 0) messages.push({ session, sequence, receivedAtMs, trades });
    }
  }
  return { messages, unfit };
}

function partsOf(deadLetter: DeadLetter, places: ReadonlyMap<string, string>): readonly Part[] | null {
  const { session, sequence, receivedAtMs, item, source, payload } = deadLetter;
  if (item === WHOLE_MESSAGE && source === "feed") {
    const elements = frameElements(Buffer.from(payload).toString("utf8"), receivedAtMs);
    return elements && partsBySymbol(deadLetter, session, elements);
  }
  const decoded = decodeMessage(payload);
  if (decoded.ok && item === WHOLE_MESSAGE) {
    const { trades: elements, ...identity } = decoded.message;
    return [{ ...identity, symbol: decoded.symbol, elements }];
  }
  if (decoded.ok) {
    // One trade of a message whose others were taken: those before it are the holes.
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
  return partsBySymbol(deadLetter, places.get(session) ?? session, elements, "always derived");
}

type FrameElement = { symbol: string | null; element: Trade | DeadReason };

/** Every element of a trade frame that the feed refused, as it is understood now; null = still no trade frame. */
function frameElements(text: string, receivedAtMs: number): FrameElement[] | null {
  const frame = parseFrame(text, receivedAtMs);
  if (frame.type !== "trade") return null;
  if (frame.refused.length === 0)
    return frame.trades.map((trade) => ({ symbol: trade.symbol, element: trade }));
  // Which of them are good may change with what this program knows; where each stands does not.
  const { data } = JSON.parse(text) as { data: unknown[] };
  return data.map((value) => {
    const alone = parseFrame(JSON.stringify({ data: [value], type: "trade" }), receivedAtMs);
    const { trades, refused } = alone.type === "trade" ? alone : { trades: [], refused: [] };
    const symbol = typeof value === "object" && value !== null && "s" in value ? value.s : null;
    return {
      symbol: typeof symbol === "string" ? symbol : null,
      element: trades[0] ?? refused[0]?.reason ?? "not_a_trade",
    };
  });
}

/** What is of one symbol alone keeps the letter's own identity, unless that stands for its place only. */
function partsBySymbol(
  { session, sequence, receivedAtMs }: DeadLetter,
  base: string,
  elements: readonly FrameElement[],
  identity?: "always derived",
): Part[] {
  const bySymbol = Map.groupBy(elements, ({ symbol }) => symbol);
  const keepsOwn =
    identity === undefined && [...bySymbol.keys()].filter((symbol) => symbol !== null).length === 1;
  return [...bySymbol].map(([symbol, own]) => ({
    session: keepsOwn ? session : derivedSession(base, symbol ?? ""),
    sequence,
    receivedAtMs,
    symbol: symbol ?? "",
    elements: own.map(({ element }) => element),
  }));
}

/** Beyond what a message takes, the rest has sessions of its own: no symbol that can be traded holds a zero. */
function inMessages(part: Part): Part[] {
  const { session, symbol, elements } = part;
  const deps: Part[] = [];
  for (let from = 0, number = 0; from < elements.length; from += TRADES_PER_MESSAGE_MAX, number++) {
    deps.push({
      ...part,
      session: number === 0 ? session : derivedSession(session, `${symbol}\u0000${number}`),
      elements: elements.slice(from, from + TRADES_PER_MESSAGE_MAX),
    });
  }
  return deps;
}
