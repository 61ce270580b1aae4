// The sum of many seeds.

import { KINDS, type Kind } from "./faults.ts";
import { isGreen, type Outcome } from "./outcome.ts";

export type Total = {
  seeds: number;
  red: number;
  faults: Record<Kind, number>;
  faultCount: number;
  trades: number;
  lost: number;
  doubled: number;
  wrongWindows: number;
  commits: number;
  commitsUnlawful: number;
  failures: number;
  slowestRecoveryMs: number;
};

export function newTotal(): Total {
  return {
    seeds: 0,
    red: 0,
    faults: Object.fromEntries(KINDS.map((kind) => [kind, 0])) as Record<Kind, number>,
    faultCount: 0,
    trades: 0,
    lost: 0,
    doubled: 0,
    wrongWindows: 0,
    commits: 0,
    commitsUnlawful: 0,
    failures: 0,
    slowestRecoveryMs: 0,
  };
}

export function addOutcome(total: Total, outcome: Outcome): void {
  total.seeds += 1;
  if (!isGreen(outcome)) total.red += 1;
  for (const kind of KINDS) {
    total.faults[kind] += outcome.faults[kind];
    total.faultCount += outcome.faults[kind];
  }
  total.trades += outcome.trades;
  total.lost += outcome.lost;
  total.doubled += outcome.doubled;
  total.wrongWindows += outcome.wrongWindows;
  total.commits += outcome.commits;
  total.commitsUnlawful += outcome.commitsUnlawful;
  total.failures += outcome.failures.length;
  total.slowestRecoveryMs = Math.max(total.slowestRecoveryMs, outcome.recoveryMs ?? 0);
}
