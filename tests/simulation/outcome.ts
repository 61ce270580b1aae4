// What one seed came to. A seed is green when nothing is lost, doubled or wrong, no commit was unlawful, no
// process failed, and everything settled in the time that is promised here.

import type { Kind } from "./faults.ts";

/** Virtual: once faults and trading stop, everything is stored, written and committed within this. */
export const SETTLED_MS_MAX = 60_000;

export type Outcome = Readonly<{
  seed: number;
  faults: Readonly<Record<Kind, number>>;
  trades: number;
  lost: number;
  doubled: number;
  wrongWindows: number;
  commits: number;
  commitsUnlawful: number;
  /** Bugs that a process met, and bounds that were not kept. */
  failures: readonly string[];
  /** Null: not within SETTLED_MS_MAX. */
  recoveryMs: number | null;
  /** The first of what is lost, doubled or wrong, in words. */
  problems: readonly string[];
  /** Of everything that happened, in order. */
  hash: string;
}>;

export function isGreen({
  lost,
  doubled,
  wrongWindows,
  commitsUnlawful,
  failures,
  recoveryMs,
}: Outcome): boolean {
  return lost + doubled + wrongWindows + commitsUnlawful + failures.length === 0 && recoveryMs !== null;
}
