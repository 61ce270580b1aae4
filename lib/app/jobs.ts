// Jobs by the wall clock: each has a name and never overlaps itself. The only file that names cron. A job that fails is
// logged and runs again at its next time.

import { CronJob } from "cron";
import type { Logger } from "../base/logger.ts";

export type Job = Readonly<{
  name: string;
  /** Six fields, seconds first, UTC. */
  schedule: string;
  run(): Promise<void>;
}>;

/** A busy event loop delays a tick; a tick this late still runs, a later one waits for the next. */
const LATE_MS_MAX = 4_000;

export const EVERY_2_SECONDS = "*/2 * * * * *";
export const EVERY_5_SECONDS = "*/5 * * * * *";
export const EVERY_HOUR = "0 7 * * * *";
/** Before the trading day of New York and of Europe begins. */
export const EVERY_DAY = "0 23 4 * * *";

/** Starts all jobs; disposing stops them and resolves when none is running any more. */
export function startJobs(jobs: readonly Job[], logger: Logger): AsyncDisposable {
  const running = new Set<Promise<void>>();
  const started = jobs.map(({ name, schedule, run }) =>
    CronJob.from({
      name,
      cronTime: schedule,
      timeZone: "UTC",
      threshold: LATE_MS_MAX,
      waitForCompletion: true,
      start: true,
      onTick: () => {
        const tick: Promise<void> = run()
          .catch((error: unknown) =>
            logger.error("a job failed; it runs again at its next time", { name, error }),
          )
          .finally(() => running.delete(tick));
        running.add(tick);
        return tick;
      },
    }),
  );
  return {
    async [Symbol.asyncDispose]() {
      for (const job of started) await job.stop();
      await Promise.all(running);
    },
  };
}
