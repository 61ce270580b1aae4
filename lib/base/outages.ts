// What an operator reads of an outage: one line when it begins, one a minute while it lasts, one when it ends, however
// many loops suffer from it. The loops say what failed and what worked; nothing here waits, retries or ends anything.

import type { Clock } from "./clock.ts";
import type { Logger } from "./logger.ts";
import { spell } from "./text.ts";

/** What is away, as the begin of a sentence: an operator looks there first. */
export type OutageSubject = "the log" | "the store" | "the outbox";

/** One loop that needs the subject. */
export type OutageLoop = Readonly<{
  /** An attempt failed, and another one follows. */
  failed(error: unknown): void;
  /** An attempt succeeded. Cheap while nothing fails. */
  worked(): void;
  /** The loop is over, whatever came of it: nobody waits for it any more. */
  over(): void;
}>;

export type OutageDeps = Readonly<{ clock: Clock; logger: Logger }>;

/** An hour is then some sixty lines, which a person can still read and a disk does not notice. */
const LINE_MS_MIN = 60_000;
const LOOPS_NAMED_MAX = 2;

/** By logger: a process has one, and so one outage of a subject at a time. */
const outages = new WeakMap<Logger, Map<OutageSubject, Outage>>();

export function outageLoop({ clock, logger }: OutageDeps, subject: OutageSubject, loop: string): OutageLoop {
  const bySubject = outages.get(logger) ?? new Map<OutageSubject, Outage>();
  outages.set(logger, bySubject);
  const outage = bySubject.get(subject) ?? new Outage(subject, clock, logger);
  bySubject.set(subject, outage);
  return {
    failed: (error) => outage.failed(loop, error),
    worked: () => outage.worked(loop),
    over: () => outage.over(loop),
  };
}

class Outage {
  readonly #subject: OutageSubject;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** Those whose last attempt failed. */
  readonly #failing = new Set<string>();
  /** Monotonic; null = there is no outage. */
  #sinceMs: number | null = null;
  #isTold = false;
  #failureCount = 0;
  #lastLineMs = Number.NEGATIVE_INFINITY;

  constructor(subject: OutageSubject, clock: Clock, logger: Logger) {
    this.#subject = subject;
    this.#clock = clock;
    this.#logger = logger;
  }

  failed(loop: string, error: unknown): void {
    const nowMs = this.#clock.monotonic();
    this.#failing.add(loop);
    this.#failureCount += 1;
    const isNew = this.#sinceMs === null;
    this.#sinceMs ??= nowMs;
    this.#logger.debug("an attempt failed", { subject: this.#subject, loop, error });
    // One that comes back within the minute is told with that minute's line.
    if (nowMs - this.#lastLineMs < LINE_MS_MIN) return;
    this.#lastLineMs = nowMs;
    this.#isTold = true;
    const lasting = isNew
      ? ""
      : ` for ${spell(nowMs - this.#sinceMs)}, failed attempts: ${this.#failureCount}`;
    // Whole: it is cut where the line is written, after the secrets in it were replaced.
    const cause = error instanceof Error ? error.message : String(error);
    this.#logger.warn(`${this.#subject} cannot be used${lasting} (${this.#loops()}); trying again: ${cause}`);
  }

  worked(loop: string): void {
    if (this.#sinceMs === null) return;
    this.#failing.delete(loop);
    if (this.#failing.size > 0) return;
    const nowMs = this.#clock.monotonic();
    const lasted = `${spell(nowMs - this.#sinceMs)}, failed attempts: ${this.#failureCount}`;
    if (this.#isTold) this.#logger.info(`${this.#subject} can be used again after ${lasted}`);
    this.#sinceMs = null;
    this.#isTold = false;
    this.#failureCount = 0;
  }

  /** That a loop is over proves nothing: the outage ends when another one works. */
  over(loop: string): void {
    this.#failing.delete(loop);
  }

  #loops(): string {
    const named = [...this.#failing].slice(0, LOOPS_NAMED_MAX).join(", ");
    const unnamedCount = this.#failing.size - LOOPS_NAMED_MAX;
    return unnamedCount > 0 ? `${named}, ${unnamedCount} more` : named;
  }
}
