// What RETENTION_DAYS means to a command: from when on anything is kept.

import { DAY_MS } from "../model/trade.ts";

export function retentionStartMs(nowMs: number, retentionDays: number): number {
  return Math.max(0, nowMs - retentionDays * DAY_MS);
}

/** `<=`: a time to live of 0 would be for ever. */
export function isExpired(receivedAtMs: number, retentionDays: number, nowMs: number): boolean {
  return receivedAtMs + retentionDays * DAY_MS <= nowMs;
}
