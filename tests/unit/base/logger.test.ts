// Log lines: what they look like, and that no secret stands in one, whatever way it came.

import { expect, test } from "bun:test";
import { LogUnavailableError, SetupError } from "../../../lib/base/errors.ts";
import { type Logger, openLogger } from "../../../lib/base/logger.ts";

type Line = { level: string; message: string; logger: string; properties: Record<string, unknown> };

/** Quotes, slashes, blanks and a letter beyond ASCII: every encoding changes it. */
const SECRET = 'tok/4711+x "y" ü';
const SHORT_SECRET = "INFO";

function recording(
  format: "json" | "pretty" = "json",
  secrets: readonly string[] = [SECRET],
  level: "info" | "debug" = "info",
) {
  let written = "";
  const logger = openLogger({ name: "processor", level, format, secrets }, (text) => {
    written += text;
  });
  return {
    logger,
    text: () => written,
    lines: () =>
      written
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Line),
  };
}

test("a line is JSON with time, level, message, logger and the fields as they are", () => {
  const { logger, lines } = recording();
  logger.info("stored {rows}", {
    rows: 3,
    symbol: "AAPL",
    key: "AAPL",
    at: new Date(0),
    none: null,
    big: 2n ** 60n,
  });
  expect(lines()).toEqual([
    {
      "@timestamp": expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      level: "INFO",
      message: "stored {rows}",
      logger: "processor",
      properties: {
        rows: 3,
        symbol: "AAPL",
        key: "AAPL",
        at: expect.stringContaining("1970"),
        none: null,
        big: "1152921504606846976",
      },
    } as never,
  ]);
});

test("levels below the chosen one are not written", () => {
  const { logger, lines } = recording();
  for (const level of ["debug", "info", "warn", "error"] as const) logger[level](level);
  expect(lines().map(({ level }) => level)).toEqual(["INFO", "WARN", "ERROR"]);
});

test("an error that was foreseen shows what happened, why and what to do, and no stack, except at debug", () => {
  const cause = Object.assign(new Error("in use"), { code: "EADDRINUSE" });
  const error = new SetupError("port 80 is taken", "Set ADMIN_PORT.", cause);
  const { logger, lines } = recording();
  logger.error("could not start", { error });
  expect(lines()[0]?.properties).toEqual({
    error: { name: "SetupError", message: "port 80 is taken", hint: "Set ADMIN_PORT.", cause: "in use" },
  });
  const debugging = recording("json", [], "debug");
  debugging.logger.error("could not start", { error });
  expect(debugging.lines()[0]?.properties).toMatchObject({
    error: {
      cause: { message: "in use", code: "EADDRINUSE", stack: expect.stringContaining("logger.test.ts") },
      stack: expect.stringMatching(/logger\.test\.ts:\d+/),
    },
  });
});

test("an error that nobody foresaw shows code, causes and stacks", () => {
  const { logger, lines } = recording();
  const cause = Object.assign(new Error("in use"), { code: "EADDRINUSE" });
  logger.error("ended", { error: new TypeError("no such thing", { cause }) });
  expect(lines()[0]?.properties).toEqual({
    error: {
      name: "TypeError",
      message: "no such thing",
      cause: {
        name: "Error",
        message: "in use",
        code: "EADDRINUSE",
        stack: expect.stringContaining("logger.test.ts"),
      },
      stack: expect.stringMatching(/logger\.test\.ts:\d+/),
    },
  });
});

test.each(["json", "pretty"] as const)("a %s line is one line, and does nothing to a terminal", (format) => {
  const { logger, text } = recording(format);
  const hostile = "one\ntwo\u001b[2Jthree\r\u0007\u202efour\u2028five\u009b";
  logger.warn(hostile, { [hostile]: hostile, error: new LogUnavailableError(hostile, hostile) });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  expect(text().trimEnd()).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u202e]/);
  expect(text()).toContain(
    "one\\\\ntwo\\\\u001b[2Jthree".replaceAll("\\\\", format === "json" ? "\\\\" : "\\"),
  );
  if (format === "json") expect(text().trimEnd().split("\n").length).toBe(1);
});

test.each(["json", "pretty"] as const)("a %s line without fields has at most 300 characters", (format) => {
  const { logger, text } = recording(format);
  logger.warn(`"${"x".repeat(1_000)}"`);
  logger.warn('"'.repeat(1_000));
  for (const line of text().trimEnd().split("\n")) expect(line.length).toBeLessThanOrEqual(300);
});

test("errors inside an aggregate, and one that another suppressed, are shown", () => {
  const { logger, text } = recording();
  logger.error("two", { error: new AggregateError([new Error("first")], "both") });
  logger.error("late", { error: new SuppressedError(new Error("at the end"), new Error("before")) });
  for (const message of ["both", "first", "at the end", "before"])
    expect(text()).toContain(`"message":"${message}"`);
});

test("a line is no dump: cycles end, long lists and texts are cut, bytes are counted", () => {
  const { logger, lines, text } = recording();
  const cycle: Record<string, unknown> = { list: Array.from({ length: 1_000 }, (_, index) => index) };
  cycle.self = cycle;
  logger.info("much", {
    cycle,
    text: "x".repeat(100_000),
    bytes: new Uint8Array(5),
    map: new Map([["a", 1]]),
  });
  expect(text().length).toBeLessThan(20_000);
  expect(lines()[0]?.properties).toMatchObject({ bytes: "[5 bytes]", map: { a: 1 } });
});

/** Every way into a line, with the secret plain, in URLs, in forms and in JSON. */
function feedThrough(logger: Logger, secret: string): void {
  const encoded = encodeURIComponent(secret);
  const url = new URL("wss://ws.finnhub.io");
  url.searchParams.set("token", secret);
  const error = new SetupError(`refused ${secret}`, `Try ${secret}.`, new Error(`401 at ${url.href}`));
  logger.info(`connecting to ${url.href} with ${secret}`);
  logger.warn("fields", {
    secret,
    url,
    href: url.href,
    nested: { list: [secret, { deep: `<${encoded}>` }] },
  });
  logger.warn("names", { [secret]: 1, map: new Map([[secret, secret]]), set: new Set([secret]) });
  logger.warn("encoded", {
    json: JSON.stringify({ secret }),
    lower: encoded.replace(/%../g, (c) => c.toLowerCase()),
  });
  logger.error("failed", { error, all: new AggregateError([error]), text: String(error.stack) });
}

test.each(["json", "pretty"] as const)("a secret stands in no %s line, however it came", (format) => {
  const { logger, text } = recording(format);
  feedThrough(logger, SECRET);
  expect(text()).toContain("[secret]");
  for (const part of [SECRET, encodeURIComponent(SECRET), "4711", '\\"y\\"', "%22y%22"]) {
    expect(text()).not.toContain(part);
  }
});

test("a short secret is replaced too, and the lines stay JSON", () => {
  const { logger, lines } = recording("json", [SHORT_SECRET, "1", '"']);
  feedThrough(logger, SHORT_SECRET);
  logger.info("numbers", { count: 41, port: 8080 });
  for (const { message, properties } of lines()) {
    expect(message + JSON.stringify(properties)).not.toContain(SHORT_SECRET);
  }
  expect(lines().at(-1)?.properties).toEqual({ count: "[secret]", port: 8080 });
});

test("secrets that no setting names are known by their place: a query, a header, a field's name", () => {
  const { logger, text } = recording("json", []);
  const hidden = "hidden-4711";
  logger.info(`GET https://h/x?symbol=A&token=${hidden}&x=1`, {
    url: `https://user:${hidden}@h/?apiKey=${hidden}`,
  });
  logger.info("fields", { token: hidden, apiKey: hidden, headers: { Authorization: `Bearer ${hidden}` } });
  logger.info("text", {
    request: `Authorization: Bearer ${hidden}`,
    error: { config: { password: hidden } },
  });
  expect(text()).not.toContain(hidden);
  expect(text()).toContain("symbol=A&token=[secret]&x=1");
});

test("pretty lines show fields, and stacks as lines of their own", () => {
  const { logger, text } = recording("pretty");
  logger.error("broke", { rows: 3, error: new Error("outer", { cause: new Error("inner") }) });
  const plain = Bun.stripANSI(text());
  expect(plain).toMatch(/error.*processor.*broke/);
  expect(plain).toContain("rows: 3");
  expect(plain).toMatch(/^ {4}Error: outer\n {8}at /m);
  expect(plain).toMatch(/^ {4}Error: inner\n {8}at /m);
});
