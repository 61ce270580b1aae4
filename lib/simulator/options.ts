// The options of the simulator, and the errors for those that are not possible. Nothing is started here.

import type { Clock } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { ScenarioName } from "../base/settings.ts";
import type { FaultRates } from "./faults.ts";
import type { Instrument } from "./listings.ts";
import type { Batching, TapeTimes } from "./player.ts";
import type { SearchOutage } from "./rest-answers.ts";
import type { Tape } from "./tape.ts";

export type SimulatorOptions = Readonly<{
  /** 0 = any free port. */
  port?: number | undefined;
  /** Accepted tokens; without it any token that is not empty. */
  token?: string | readonly string[] | undefined;
  clock?: Clock | undefined;
  logger?: Logger | undefined;
  /** For the market and the faults. */
  seed?: number | undefined;
  /** A whole day as a person would describe it; options beside it win over its own. */
  scenario?: ScenarioName | undefined;
  /** Instruments that extend or replace the listings, for the market and for REST alike. */
  instruments?: readonly Instrument[] | undefined;
  /** All streamed symbols together; without it each symbol keeps its natural rate. */
  tradesPerSecond?: number | undefined;
  /** Multiplies the market's rate so long after its start. */
  pace?: ((elapsedMs: number) => number) | undefined;
  /** Stocks trade in New York's hours only; otherwise at any time, which is what a person at night wants. */
  sessionHours?: boolean | undefined;
  /** How trades of the market become frames. A tape keeps those it was recorded with. */
  batching?: Batching | undefined;
  /** A recorded tape, or the path of one, instead of the market. At "max" it waits until all its symbols are subscribed. */
  tape?: string | Tape | undefined;
  /** A factor, or as fast as the client takes it. Without a tape "max" is MARKET_TRADES_PER_SECOND_AT_MAX. */
  speed?: number | "max" | undefined;
  times?: TapeTimes | undefined;
  symbolsMax?: number | undefined;
  /** Subscriptions accepted above the cap; measured at Finnhub: 1, so that the 52nd gets the error. */
  symbolsOverMax?: 0 | 1 | undefined;
  /** What a second connection on a token does: it meets HTTP 429, ends the first one, or ends both. */
  secondConnection?: "reject" | "kick-old" | "kick-both" | undefined;
  pingIntervalMs?: number | undefined;
  faults?: FaultRates | undefined;
  /** Each trade frame leaves so much later than it is due; not a tape at "max", which has no due times. */
  delayMs?: number | undefined;
  /** At 08:59:03 UTC every connection is cut without a close frame, or goes silent. */
  dailyDrop?: "reset" | "stall" | undefined;
  /** Mean time between disturbances of all kinds, one at a time, by the seed. */
  chaosGapMs?: number | undefined;
  /** false: count only. A number: so many entries, the newest. */
  ledger?: boolean | number | undefined;
  restCallsPerMinuteMax?: number | undefined;
  restCallsPerSecondMax?: number | undefined;
  searchKnowsCrypto?: boolean | undefined;
  searchKnowsForex?: boolean | undefined;
  searchOutage?: SearchOutage | undefined;
}>;

/** An hour in a few milliseconds; what is faster is "max". */
const SPEED_FACTOR_MAX = 1_000_000;
const TRADES_PER_SECOND_MAX = 100_000;
/** Nobody reported a longer delay than 40 minutes. */
const DELAY_MS_MAX = 3_600_000;

/** Throws a SetupError for an option that is not possible. */
export function checkOptions({ speed, tradesPerSecond, delayMs }: SimulatorOptions): void {
  if (typeof speed === "number" && !(speed > 0 && speed <= SPEED_FACTOR_MAX)) {
    throw new SetupError(
      `a simulator speed of ${speed} is not possible`,
      `set SIMULATOR_SPEED to a number above 0 and up to ${SPEED_FACTOR_MAX}, or to max`,
    );
  }
  if (tradesPerSecond !== undefined && !(tradesPerSecond > 0 && tradesPerSecond <= TRADES_PER_SECOND_MAX)) {
    throw new SetupError(
      `the simulator cannot make ${tradesPerSecond} trades per second`,
      `give a rate above 0 and up to ${TRADES_PER_SECOND_MAX}`,
    );
  }
  if (delayMs !== undefined && !(delayMs >= 0 && delayMs <= DELAY_MS_MAX)) {
    throw new SetupError(
      `the simulator cannot delay trades by ${delayMs} ms`,
      `give a delay from 0 to ${DELAY_MS_MAX}`,
    );
  }
}
