// What every binary hands to its parts and to its commands. Types alone: who reads the settings and ends the process
// is app/lifecycle.ts.

import type { Clock } from "./clock.ts";
import type { Config } from "./config.ts";
import type { Logger } from "./logger.ts";
import type { Metrics } from "./metrics.ts";

export type Context = Readonly<{
  config: Config;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  /** Aborts when the process shall stop: finish what is in flight, release, return. */
  signal: AbortSignal;
}>;

/** What a binary does beside being a service: one word on its command line. */
export type Command = Readonly<{
  name: string;
  usage: string;
  /** As commander writes them, `--from <time>`, with a description. */
  options: readonly (readonly [flags: string, description: string])[];
  /** `options`: texts by name, true of a flag; what was not given is not there. Answers with the exit code. */
  main(context: Context, options: CommandOptions): Promise<number>;
}>;

export type CommandOptions = Readonly<Record<string, string | true | undefined>>;
