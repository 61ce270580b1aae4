// What an operator reads of an outage, counted: an hour of it in virtual time, with the loops that suffer from it.

import { describe, expect, test } from "bun:test";
import { LogUnavailableError, StoreUnavailableError } from "../../../lib/base/errors.ts";
import { openLogger } from "../../../lib/base/logger.ts";
import { outageLoop } from "../../../lib/base/outages.ts";
import { retry } from "../../../lib/base/retry.ts";
import { NOON_MS } from "../../support/builders.ts";
import { handClock, turns } from "../../support/feed.ts";

const HOUR_MS = 3_600_000;
const LINE_LENGTH_MAX = 300;

function recording(format: "json" | "pretty") {
  const lines: string[] = [];
  const options = { name: "processor", level: "info", format, secrets: ["pass-4711-word"] } as const;
  const logger = openLogger(options, (text) => lines.push(...text.trimEnd().split("\n")));
  return { logger, lines };
}

/** As long as a real one: kafkajs names brokers, topics and the errors within. */
function longError(): Error {
  const inner = new Error("connect ECONNREFUSED 127.0.0.1:9092");
  return new LogUnavailableError(
    `Kafka cannot be reached: ${"the broker 127.0.0.1:9092 does not answer\n\u001b[31m, ".repeat(20)}`,
    "check that the brokers of KAFKA_SERVER are running",
    new Error("Connection error: pass-4711-word", { cause: inner }),
  );
}

describe.each(["json", "pretty"] as const)("an hour without Kafka, in %s lines", (format) => {
  test("is told once when it begins, once a minute and once when it ends, by all loops together", async () => {
    const { logger, lines } = recording(format);
    const clock = handClock(NOON_MS);
    clock.chance = 0.5;
    let isAway = true;
    const loops = ["relay", "heartbeats", "market.tickers", "market/0", "market/1"];
    const running = loops.map((loop) =>
      retry(
        { clock, firstMs: 100, maxMs: 3_000, outage: outageLoop({ clock, logger }, "the log", loop) },
        async () => {
          if (isAway) throw longError();
        },
      ),
    );
    for (let ms = 0; ms < HOUR_MS; ms += 500) {
      clock.advance(500);
      await turns(1);
    }
    isAway = false;
    for (let step = 0; step < 10; step++) {
      clock.advance(3_000);
      await turns(2);
    }
    await Promise.all(running);
    expect(lines.length).toBe(61);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(LINE_LENGTH_MAX);
    expect(lines[0]).toContain("the log cannot be used (relay");
    expect(lines[1]).toContain("the log cannot be used for 60 s");
    expect(lines[1]).toContain("3 more");
    expect(lines.at(-1)).toContain("the log can be used again after 60 min");
    for (const line of lines) expect(line).not.toContain("    at ");
  });
});

test("two subjects are two outages; a loop that is over neither keeps one alive nor ends it", () => {
  const { logger, lines } = recording("json");
  const clock = handClock(NOON_MS);
  const deps = { clock, logger };
  const [read, write, put] = [
    outageLoop(deps, "the log", "read"),
    outageLoop(deps, "the log", "write"),
    outageLoop(deps, "the store", "put"),
  ];
  read.failed(longError());
  write.failed(longError());
  put.failed(new StoreUnavailableError("Cassandra is not available"));
  expect(lines.length).toBe(2);
  clock.advance(30_000);
  read.over();
  put.worked();
  expect(lines.at(-1)).toContain("the store can be used again after 30 s, failed attempts: 1");
  write.worked();
  expect(lines.at(-1)).toContain("the log can be used again");
  expect(lines.length).toBe(4);
  write.worked();
  expect(lines.length).toBe(4);
});

test("an outage that comes and goes within the minute is told once", () => {
  const { logger, lines } = recording("json");
  const clock = handClock(NOON_MS);
  const loop = outageLoop({ clock, logger }, "the log", "heartbeats");
  for (let second = 0; second < 59; second += 2) {
    loop.failed(longError());
    clock.advance(1_000);
    loop.worked();
    clock.advance(1_000);
  }
  expect(lines.length).toBe(2);
  expect(lines[1]).toContain("again after 1 s");
});

test("a secret in the error's text is replaced before the text is cut", () => {
  const { logger, lines } = recording("json");
  const loop = outageLoop({ clock: handClock(NOON_MS), logger }, "the log", "relay");
  for (let pad = 80; pad < 160; pad++) {
    const clock = handClock(NOON_MS + pad);
    outageLoop({ clock, logger: { ...logger } }, "the log", "relay").failed(
      new LogUnavailableError(`${"x".repeat(pad)}pass-4711-word`),
    );
  }
  loop.over();
  expect(lines.length).toBe(80);
  expect(lines.join("\n")).not.toContain("4711");
});
