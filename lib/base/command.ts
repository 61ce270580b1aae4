// What every binary gives to its parts and to its commands. Types alone: app/lifecycle.ts reads the settings and ends the
// process.

import type { Clock } from "./clock.ts";
import type { Config } from "./config.ts";
import type { Logger } from "./logger.ts";
import type { Metrics } from "./metrics.ts";

export type Context = Readonly<{
  config: Config;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  /** Aborts when a stop is requested: finish what is in flight, release, return. */
  signal: AbortSignal;
}>;

/** What a binary does besides running as a service: one word on its command line. */
export type Command = Readonly<{
  name: string;
  usage: string;
  /** What stands on the command line behind the options, in the notation of commander: `<files...>`. Absent: nothing may. */
  operands?: string;
  /** In the notation of commander, `--from <time>`, with a description. */
  options: readonly (readonly [flags: string, description: string])[];
  /** `options`: texts by name, true for a flag, absent when not given. Resolves with the exit code. */
  main(context: Context, options: CommandOptions, operands: readonly string[]): Promise<number>;
}>;

export type CommandOptions = Readonly<Record<string, string | true | undefined>>;
