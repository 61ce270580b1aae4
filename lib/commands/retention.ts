// What RETENTION_DAYS means to a command: from when on anything is kept.

import { isPlaceholder } from "../model/dead-letter.ts";
import { DAY_MS, keptFromMs, type Message } from "../model/trade.ts";

/** `<=`: a time to live of 0 would be for ever. */
export function isExpired(keptFromMs: number, retentionDays: number, nowMs: number): boolean {
  return keptFromMs + retentionDays * DAY_MS <= nowMs;
}

/** Whether no trade of the message is to be kept any longer. */
export function isMessageExpired(
  { receivedAtMs, trades }: Message,
  retentionDays: number,
  nowMs: number,
): boolean {
  if (!isExpired(receivedAtMs, retentionDays, nowMs)) return false;
  return trades.every(
    (trade) =>
      isPlaceholder(trade) || isExpired(keptFromMs(trade.tradedAtMs, receivedAtMs), retentionDays, nowMs),
  );
}
