// What happens by the clock on the wall: named jobs, each never overlapping itself. The only file that names cron.
// A job that fails is reported and runs again at its next time; what must not fail in silence says so itself.

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
/** Before the day of New York begins, and of Europe. */
export const EVERY_DAY = "0 23 4 * * *";

/** Starts them all; disposing stops them and resolves when none is running any more. */
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
