// Disturbances by the clock: the daily drop, and one after the other by the seed. It decides which and when; the simulator
// carries them out.

import type { Clock } from "../base/clock.ts";
import { seededRandom } from "../base/random.ts";
import { DAY_MS } from "../model/trade.ts";
import type { HandshakeFault } from "./faults.ts";
import type { Later } from "./timers.ts";

export type ChaosActions = Readonly<{
  /** Cuts every connection; the next upgrade goes well, is refused, or takes very long. */
  reset(next: HandshakeFault | "slow" | null): void;
  /** Lets every open connection hang: for so long, or until its client gives up. */
  stall(pings: boolean, durationMs: number | null): void;
  /** Halts one of the symbols that trade; `share`, from 0 to 1, picks it. */
  halt(share: number, durationMs: number): void;
  delay(delayMs: number): void;
  breakSearch(isBroken: boolean): void;
}>;

type ChaosDeps = Readonly<{ clock: Clock; later: Later; actions: ChaosActions }>;

/** UTC; two users met it there on successive days (#517). */
export const DAILY_DROP_MS = ((8 * 60 + 59) * 60 + 3) * 1_000;
/** A stepped clock is noticed after so long. */
const LOOK_MS_MAX = 60_000;

/** Never 401, which is the operator's fault; 429 costs a client over a minute, so one in six is enough. */
const NEXT_UPGRADES = [null, null, 200, 429, 524, "slow"] as const;
const STALL_MS = 30_000;
const HALT_MS = 60_000;
const DELAY_MS = 180_000;
const DELAY_LASTS_MS = 240_000;
const SEARCH_LASTS_MS = 60_000;

/** Calls back each day at that time. */
export function dropDaily({ clock, later }: Pick<ChaosDeps, "clock" | "later">, drop: () => void): void {
  const dayOfDrop = () => Math.floor((clock.now() - DAILY_DROP_MS) / DAY_MS);
  let lastDay = dayOfDrop();
  const look = () => {
    const day = dayOfDrop();
    if (day > lastDay) drop();
    lastDay = day;
    const leftMs = (day + 1) * DAY_MS + DAILY_DROP_MS - clock.now();
    later(Math.min(LOOK_MS_MAX, leftMs), look);
  };
  look();
}

/** One disturbance after the other; the gaps are exponential. */
export function startChaos({ later, actions }: ChaosDeps, seed: number, gapMsMean: number): void {
  const random = seededRandom(seed);
  const kinds: readonly (() => void)[] = [
    () => actions.reset(NEXT_UPGRADES[Math.floor(random() * NEXT_UPGRADES.length)] ?? null),
    () => actions.stall(true, STALL_MS),
    () => actions.stall(false, null),
    () => actions.halt(random(), HALT_MS),
    () => {
      actions.delay(DELAY_MS);
      later(DELAY_LASTS_MS, () => actions.delay(0));
    },
    () => {
      actions.breakSearch(true);
      later(SEARCH_LASTS_MS, () => actions.breakSearch(false));
    },
  ];
  const wait = () => {
    later(-Math.log(1 - random()) * gapMsMean, () => {
      kinds[Math.floor(random() * kinds.length)]?.();
      wait();
    });
  };
  wait();
}
