// What every process of a run stands on: a machine with a clock of its own that can be wrong, and the count of
// its requests that are in flight. One registry of metrics serves all runs: nothing in lib reads it.

import type { Clock } from "../../lib/base/clock.ts";
import { silentLogger } from "../../lib/base/logger.ts";
import { createMetrics } from "../../lib/base/metrics.ts";
import type { Machine, World } from "./world.ts";

export const metrics = createMetrics();
export const logger = silentLogger;

export type Host = { readonly machine: Machine; readonly clock: Clock; skewMs: number; flightCount: number };

export function newHost(world: World, skewMs = 0): Host {
  const machine = world.machine();
  const host: Host = {
    machine,
    skewMs,
    flightCount: 0,
    clock: { ...machine.clock, now: () => world.nowMs + host.skewMs },
  };
  return host;
}
