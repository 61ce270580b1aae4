// How long the feed waits before the next attempt, by the reason of the last failure.

import { expect, test } from "bun:test";
import { RECONNECT_LIMITS, ReconnectDelay } from "../../../lib/finnhub/reconnect.ts";

const delays = (random = 1) => new ReconnectDelay(RECONNECT_LIMITS, () => random);

test("the wait doubles with each failure up to a minute, and begins again after a connection that lasted", () => {
  const delay = delays();
  const waits = Array.from({ length: 9 }, () => delay.next("closed"));
  expect(waits).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
  delay.onStable();
  expect(delay.next("unreachable")).toBe(500);
});

test("a connection that did not last is no success for the back-off", () => {
  const delay = delays();
  delay.next("closed");
  delay.onOpen();
  expect(delay.next("closed")).toBe(1_000);
});

test("a refused token is tried again after 2 minutes and more, up to 15, each stretched by a quarter at most", () => {
  for (const [random, stretch] of [
    [0, 1],
    [1, 1.25],
  ] as const) {
    const delay = delays(random);
    const waits = Array.from({ length: 5 }, () => delay.next("refused_401"));
    expect(waits).toEqual([120_000, 240_000, 480_000, 900_000, 900_000].map((ms) => ms * stretch));
    delay.onOpen();
    expect(delay.next("refused_401")).toBe(120_000 * stretch);
  }
});

test("a session that Finnhub still keeps is waited for: never less than 75 s", () => {
  expect(delays(0).next("refused_429")).toBe(75_000);
  expect(delays(1).next("refused_429")).toBe(93_750);
});
