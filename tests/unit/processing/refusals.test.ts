// What the store and the log refuse while a processor runs is asked again, although the same refusal at a start would be
// the operator's to mend: a grant, a password or a table comes back without a restart.

import { expect, test } from "bun:test";
import {
  mayPass,
  RestartError,
  RowRefusedError,
  SetupError,
  StoreUnavailableError,
} from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { LeaseLostError } from "../../../lib/ingest/lease.ts";
import { ProcessorState } from "../../../lib/processing/processor-state.ts";
import { NOON_MS } from "../../support/builders.ts";
import { handClock, recordingLogger, turns } from "../../support/feed.ts";

const refusal = new SetupError(
  "Cassandra does not accept the user or the password",
  "see CASSANDRA_PASSWORD",
);

function openState(logger = silentLogger) {
  const clock = handClock(NOON_MS);
  clock.chance = 0.5;
  const unused = {} as never;
  return {
    clock,
    state: new ProcessorState({ log: unused, store: unused, clock, logger, metrics: createMetrics() }),
  };
}

test("a password that is refused for an hour is a problem that /health tells, and no end", async () => {
  const { logger, lines } = recordingLogger();
  const { clock, state } = openState(logger);
  let count = 0;
  let isRefused = true;
  const work = state.retryWhile(
    "put_trades",
    () => true,
    async () => {
      count += 1;
      if (isRefused) throw refusal;
      return "stored";
    },
  );
  await turns(1);
  for (let ms = 0; ms < 3_600_000; ms += 2_500) {
    clock.advance(2_500);
    await turns(1);
  }
  expect(state.problem).toMatchObject({ message: refusal.message, sinceMs: NOON_MS });
  isRefused = false;
  clock.advance(5_000);
  expect(await work).toBe("stored");
  expect(state.problem).toBeNull();
  expect(count).toBeGreaterThan(600);
  expect(lines.all.filter(({ level }) => level === "warn").length).toBe(61);
  expect(lines.all.filter(({ level }) => level === "info").length).toBe(1);
});

test("only what an outside party may take back is asked again", () => {
  const cases: [Error, boolean][] = [
    [refusal, true],
    [new StoreUnavailableError("away"), true],
    [new RowRefusedError("proved"), false],
    [new LeaseLostError("another has it"), false],
    [new RestartError("the topic shrank"), false],
    [new TypeError("a bug"), false],
  ];
  for (const [error, isExpected] of cases) expect(mayPass(error)).toBe(isExpected);
});
