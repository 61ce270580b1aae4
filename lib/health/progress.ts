// Whether a process still makes progress, for the supervisor that restarts one that does not. Waiting is progress: a
// broker, a node or a feed that is away is the business of /health, because a new start could do no better.

import { MINUTE_MS } from "../model/trade.ts";
import type { HealthDocument } from "./health.ts";

/** Sixty of the processor's triggers. One that is late because the machine is slow comes long before. */
export const STUCK_MS_MAX = 5 * MINUTE_MS;

/**
 * False when the processor's own clock has stopped and nothing outside explains it. Everything else that can stand still
 * here waits for somebody; and an event loop that hangs does not get as far as asking.
 */
export function makesProgress(health: HealthDocument, startedAtMs: number, nowMs: number): boolean {
  const { processor } = health.parts;
  if (processor === undefined || !("lastTriggerAt" in processor) || processor.problem !== null) return true;
  const { lastTriggerAt } = processor;
  const lastAtMs = typeof lastTriggerAt === "number" ? Math.max(lastTriggerAt, startedAtMs) : startedAtMs;
  return nowMs - lastAtMs <= STUCK_MS_MAX;
}
