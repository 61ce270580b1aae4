// What the feed hands over as the records of the log: each gets its identity here, (session, sequence), and its bytes.
// It appends nothing, and drops nothing.

import type { Clock } from "../base/clock.ts";
import type { FeedEventType, FeedItem } from "../contracts/feed.ts";
import type { LogEntry } from "../contracts/log.ts";
import { encodeDeadLetter, encodeEvent, encodeMessage } from "../model/codec.ts";
import { WHOLE_MESSAGE } from "../model/dead-letter.ts";
import { newSession, SEQUENCE_MAX } from "../model/identity.ts";
import { dayOf, type Trade } from "../model/trade.ts";
import { TRADES_PER_MESSAGE_MAX } from "../model/validate.ts";

export type EntryDeps = Readonly<{
  clock: Pick<Clock, "random">;
  /** Is called with each message before it is appended. `receivedAtMs` is ms since 1970. It must not throw. */
  onMessage?: (symbol: string, receivedAtMs: number, trades: readonly Trade[]) => void;
}>;

type DeadItem = Extract<FeedItem, { kind: "dead" }>;

export class EntryEncoder {
  readonly #random: () => number;
  readonly #onMessage: EntryDeps["onMessage"];
  /** The identity of the last record. */
  #session: string;
  #sequence = 0;

  constructor({ clock, onMessage }: EntryDeps) {
    this.#random = clock.random;
    this.#onMessage = onMessage;
    this.#session = newSession(clock.random);
  }

  get session(): string {
    return this.#session;
  }

  event(type: FeedEventType, atMs: number, detail: Readonly<Record<string, unknown>>): LogEntry {
    this.#nextIdentity();
    const row = {
      day: dayOf(atMs),
      event_timestamp: atMs,
      session: this.#session,
      sequence: this.#sequence,
      type,
      detail: JSON.stringify(detail),
    };
    return { kind: "event", key: this.#session, value: encodeEvent(row) };
  }

  /** One message a symbol (more only beyond TRADES_PER_MESSAGE_MAX), after what is no trade. */
  entriesOf(items: readonly FeedItem[]): { entries: LogEntry[]; tradeCount: number } {
    const entries: LogEntry[] = [];
    const bySymbol = new Map<string, { receivedAtMs: number; trades: Trade[] }>();
    let tradeCount = 0;
    for (const item of items) {
      if (item.kind === "trades") {
        tradeCount += item.trades.length;
        for (const trade of item.trades) {
          let open = bySymbol.get(trade.symbol);
          if (open === undefined) {
            open = { receivedAtMs: item.receivedAtMs, trades: [] };
            bySymbol.set(trade.symbol, open);
          }
          open.trades.push(trade);
          if (open.trades.length < TRADES_PER_MESSAGE_MAX) continue;
          entries.push(this.#message(trade.symbol, open.receivedAtMs, open.trades));
          bySymbol.delete(trade.symbol);
        }
      } else if (item.kind === "event") {
        entries.push(this.event(item.type, item.receivedAtMs, item.detail));
      } else {
        entries.push(this.#deadLetter(item));
      }
    }
    for (const [symbol, { receivedAtMs, trades }] of bySymbol)
      entries.push(this.#message(symbol, receivedAtMs, trades));
    return { entries, tradeCount };
  }

  #message(symbol: string, receivedAtMs: number, trades: readonly Trade[]): LogEntry {
    this.#onMessage?.(symbol, receivedAtMs, trades);
    this.#nextIdentity();
    const message = { session: this.#session, sequence: this.#sequence, receivedAtMs, trades };
    return { kind: "trades", key: symbol, value: encodeMessage(message) };
  }

  #deadLetter({ reason, receivedAtMs, payload }: DeadItem): LogEntry {
    this.#nextIdentity();
    const value = encodeDeadLetter({
      session: this.#session,
      sequence: this.#sequence,
      item: WHOLE_MESSAGE,
      receivedAtMs,
      reason,
      source: "feed",
      payload: Buffer.from(payload),
    });
    return { kind: "dead", key: this.#session, value };
  }

  /** A new session begins before the sequence leaves its 32 bits. */
  #nextIdentity(): void {
    if (this.#sequence >= SEQUENCE_MAX) {
      this.#session = newSession(this.#random);
      this.#sequence = 0;
    }
    this.#sequence += 1;
  }
}
