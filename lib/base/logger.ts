// What the process tells its operator: structured log lines on standard error, and plain sentences. The only file that
// writes to either stream. Everything that is written passes the guard that knows the secrets; writing is synchronous, so
// the last line before an exit is not lost, and it never throws.

import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { isatty } from "node:tty";
import {
  configureSync,
  getLogger,
  jsonLinesFormatter,
  type LogRecord,
  type TextFormatter,
} from "@logtape/logtape";
import { getPrettyFormatter } from "@logtape/pretty";
import { redactByField, redactByPattern } from "@logtape/redaction";
import { PipelineError } from "./errors.ts";
import { printable } from "./text.ts";

export type Fields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
}

/** For tests and tools that log nothing. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

type LoggerOptions = Readonly<{
  /** The binary: stands in every line as `logger`. */
  name: string;
  level: "debug" | "info" | "warn" | "error";
  /** `auto`: pretty on a terminal, JSON lines everywhere else. */
  format: "auto" | "json" | "pretty";
  secrets: readonly string[];
}>;

const STDOUT = 1;
const STDERR = 2;

const SECRET = "[secret]";

/** Fields of these names hold secrets whatever their value. */
const SECRET_FIELDS = [/(?:password|passphrase|secret|token|authorization|api_?key)$/i];

/** Secrets that no setting names: in a query or in a header. */
const SECRET_PATTERNS = [
  { pattern: /([?&;](?:token|api_?key|key|secret|password)=)[^&\s"'\\#]+/gi, replacement: `$1${SECRET}` },
  { pattern: /(\b(?:Bearer|Basic) )[\w.~+/=-]{8,}/g, replacement: `$1${SECRET}` },
  { pattern: /(\/\/)[^/@\s"'\\]+@/g, replacement: `$1${SECRET}@` },
];

/** One logger a process: a second one replaces the first. */
export function openLogger(options: LoggerOptions, write: (text: string) => void = writeStderr): Logger {
  const { name, level, format, secrets } = options;
  const guard = createGuard(secrets);
  const isPretty = format === "pretty" || (format === "auto" && isatty(STDERR));
  const formatter = redactByPattern(isPretty ? formatPretty : jsonLinesFormatter, SECRET_PATTERNS);
  const redacted = redactByField((record) => write(guard.line(formatter(record))), {
    fieldPatterns: SECRET_FIELDS,
    action: () => SECRET,
  });
  const isDebug = level === "debug";
  const sink = (record: LogRecord) => {
    const properties = plainFields(record.properties, guard.text, isDebug);
    const message = record.message.map((part) => guard.text(String(part))).join("");
    redacted({ ...record, message: [cutMessage(printable(message))], properties });
  };
  configureSync({
    reset: true,
    sinks: { stderr: sink },
    loggers: [
      { category: name, sinks: ["stderr"], lowestLevel: level === "warn" ? "warning" : level },
      { category: ["logtape", "meta"], sinks: ["stderr"], lowestLevel: "warning" },
    ],
  });
  const logger = getLogger(name);
  return {
    debug: (message, fields) => logger.debug(verbatim(message), fields ?? {}),
    info: (message, fields) => logger.info(verbatim(message), fields ?? {}),
    warn: (message, fields) => logger.warn(verbatim(message), fields ?? {}),
    error: (message, fields) => logger.error(verbatim(message), fields ?? {}),
  };
}

/**
 * Of a message. With the frame of a JSON line, of some 110 characters, a line without fields has at most 300. An outage
 * needs no fields.
 */
const MESSAGE_LENGTH_MAX = 185;

/** Measured as JSON, which is the longer form. */
function cutMessage(message: string): string {
  if (JSON.stringify(message).length - 2 <= MESSAGE_LENGTH_MAX) return message;
  let kept = message.slice(0, MESSAGE_LENGTH_MAX - 1);
  while (JSON.stringify(kept).length - 2 > MESSAGE_LENGTH_MAX - 1) kept = kept.slice(0, -1);
  return `${kept.toWellFormed()}…`;
}

/** LogTape would fill in `{name}`; a message of ours is text. */
function verbatim(message: string): string {
  return message.replace(/[{}]/g, "$&$&");
}

const prettyLine = getPrettyFormatter({
  // A file or a journal has no colours: there they are control characters.
  colors: isatty(STDERR),
  timestamp: "time",
  categoryWidth: 10,
  align: false,
  icons: false,
  wordWrap: false,
  properties: true,
});

/** Stacks as lines of their own below the record: inside an inspected object they are unreadable. */
const formatPretty: TextFormatter = (record) => {
  const stacks: string[] = [];
  const withoutStack = (value: unknown): unknown => {
    if (!isErrorFields(value)) return value;
    const { stack, cause, ...rest } = value;
    stacks.push(stack);
    return cause === undefined ? rest : { ...rest, cause: withoutStack(cause) };
  };
  const entries = Object.entries(record.properties).map(
    ([name, value]) => [name, withoutStack(value)] as const,
  );
  const line = prettyLine({ ...record, properties: Object.fromEntries(entries) });
  return line + stacks.map((stack) => `${stack.replace(/^/gm, "    ")}\n`).join("");
};

function isErrorFields(value: unknown): value is { stack: string; cause?: unknown } {
  return typeof value === "object" && value !== null && "stack" in value && typeof value.stack === "string";
}

/** A shorter secret may be part of the line's own words: inside fields it is replaced, in the frame it is not. */
const SECRET_IN_LINE_LENGTH_MIN = 8;

type Guard = Readonly<{ text: (text: string) => string; line: (line: string) => string }>;

/** Replaces every secret, also as a URL, a form or JSON would write it. */
function createGuard(secrets: readonly string[]): Guard {
  const replacer = (values: readonly string[]) => {
    const forms = new Set(values.flatMap(formsOf));
    if (forms.size === 0) return (text: string) => text;
    // The longest first: one secret may begin with another.
    const ordered = [...forms].sort((one, other) => other.length - one.length);
    const pattern = new RegExp(ordered.map(RegExp.escape).join("|"), "g");
    return (text: string) => text.replace(pattern, SECRET);
  };
  const known = secrets.filter((secret) => secret !== "");
  return {
    text: replacer(known),
    line: replacer(known.filter((secret) => secret.length >= SECRET_IN_LINE_LENGTH_MIN)),
  };
}

function formsOf(secret: string): string[] {
  const wellFormed = secret.toWellFormed();
  const encoded = encodeURIComponent(wellFormed);
  return [
    secret,
    encoded,
    encoded.replace(/%../g, (code) => code.toLowerCase()),
    encodeURI(wellFormed),
    new URLSearchParams([["", wellFormed]]).toString().slice(1),
    JSON.stringify(secret).slice(1, -1),
  ];
}

/** A log line is no dump: what is larger or deeper is cut, which also ends cycles. */
const NODES_MAX = 500;
const ITEMS_MAX = 100;
const DEPTH_MAX = 8;
const TEXT_LENGTH_MAX = 8_192;

/** Plain data that any formatter can write, every text of it guarded; errors with what an operator needs. */
function plainFields(fields: Fields, guard: Guard["text"], isDebug: boolean): Record<string, unknown> {
  let nodesLeft = NODES_MAX;
  const plain = (value: unknown, depth: number): unknown => {
    if (value === null || value === undefined || typeof value === "boolean") return value;
    if (typeof value === "string") return cut(printable(guard(value)));
    if (typeof value === "number") {
      const text = String(value);
      return guard(text) === text ? value : SECRET;
    }
    if (typeof value !== "object") return cut(printable(guard(String(value))));
    nodesLeft -= 1;
    if (nodesLeft < 0 || depth > DEPTH_MAX) return "[cut]";
    if (value instanceof Error) {
      if (value instanceof PipelineError && !isDebug) return object(expectedEntries(value), depth);
      const plainError = object(errorEntries(value), depth);
      // The one text of several lines: where it came to pass is unreadable otherwise.
      if (value.stack !== undefined) plainError.stack = cut(stackLines(guard(value.stack)));
      return plainError;
    }
    if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
    if (value instanceof Date || value instanceof URL || value instanceof RegExp)
      return cut(printable(guard(String(value))));
    if (value instanceof Map) return object(value.entries(), depth);
    if (Array.isArray(value) || value instanceof Set) {
      const items = [...value].slice(0, ITEMS_MAX).map((item: unknown) => plain(item, depth + 1));
      const count = Array.isArray(value) ? value.length : value.size;
      return count > ITEMS_MAX ? [...items, `[${count - ITEMS_MAX} more]`] : items;
    }
    return object(Object.entries(value), depth);
  };
  const object = (entries: Iterable<readonly [unknown, unknown]>, depth: number) => {
    const result: Record<string, unknown> = {};
    for (const [name, value] of entries) result[printable(guard(String(name)))] = plain(value, depth + 1);
    return result;
  };
  return object(Object.entries(fields), 0);
}

/** Of what was foreseen: what happened and what to do. Where in the code nobody needs to know, except at debug. */
function expectedEntries({ name, message, hint, cause }: PipelineError): [string, unknown][] {
  const entries: [string, unknown][] = [
    ["name", name],
    ["message", message],
  ];
  if (hint !== undefined) entries.push(["hint", hint]);
  const because = cause instanceof Error ? cause.message : "";
  if (because !== "" && !message.includes(because)) entries.push(["cause", because]);
  return entries;
}

function stackLines(stack: string): string {
  return stack.split("\n").map(printable).join("\n");
}

function errorEntries(error: Error): [string, unknown][] {
  // The stack last: it is long. Own fields carry a client's codes, and the errors within an aggregate.
  const { name, message, stack, cause, ...own } = { ...error, ...inherited(error) };
  const entries: [string, unknown][] = [["name", name], ["message", message], ...Object.entries(own)];
  if (cause !== undefined) entries.push(["cause", cause]);
  entries.push(["stack", stack]);
  return entries;
}

/** What a spread leaves out because it is not enumerable. */
function inherited(error: Error): Record<string, unknown> {
  const names = ["name", "message", "stack", "cause", "errors", "error", "suppressed"] as const;
  const fields = error as unknown as Record<string, unknown>;
  return Object.fromEntries(
    names.filter((name) => fields[name] !== undefined).map((name) => [name, fields[name]]),
  );
}

function cut(text: string): string {
  if (text.length <= TEXT_LENGTH_MAX) return text;
  return `${text.slice(0, TEXT_LENGTH_MAX)} [${text.length - TEXT_LENGTH_MAX} characters cut]`;
}

/** Prints what was asked for on standard output: an address, a version, a result. */
export function printLine(text: string): void {
  writeAll(STDOUT, `${text}\n`);
}

/** Standard error as a terminal, for a line that is written over; null where nobody watches: a file, a pipe, a journal. */
export function terminal(): Readonly<{ columns: number; write(text: string): void }> | null {
  const { isTTY, columns = 80 } = process.stderr;
  return isTTY ? { columns, write: (text) => writeAll(STDERR, text) } : null;
}

/** Prints a plain sentence on standard error, for a person: a mistake in the settings, a refusal to start. */
export function printError(text: string, secrets: readonly string[] = []): void {
  const clean = createGuard(secrets).text(text);
  const line = SECRET_PATTERNS.reduce(
    (done, { pattern, replacement }) => done.replace(pattern, replacement),
    clean,
  );
  writeAll(STDERR, `${line}\n`);
}

/** The last line did not find room within STALLED_READER_MS_MAX. */
let isStderrStalled = false;
/** Where log lines go; null = nothing was logged yet. */
let logFile: number | null = null;

/** A reader that reads nothing holds up one line. The next ones wait for nothing, until one finds room again. */
function writeStderr(text: string): void {
  logFile ??= openStderr();
  isStderrStalled = !writeAll(logFile, text, isStderrStalled ? 0 : STALLED_READER_MS_MAX);
}

/**
 * A pipe that is full makes a write wait for its reader, and everything in this process with it. Opened anew it says
 * instead that it is full. Its other holders keep theirs as it is.
 */
function openStderr(): number {
  try {
    if (!fstatSync(STDERR).isFIFO()) return STDERR;
    return openSync(`/proc/self/fd/${STDERR}`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return STDERR; // No Linux, or a pipe of another user.
  }
}

/** How long a reader that does not read may hold up the process; then the rest of the text is lost. */
const STALLED_READER_MS_MAX = 100;

/** False: the reader reads nothing, and the rest of the text is lost. */
function writeAll(file: number, text: string, waitMsMax = STALLED_READER_MS_MAX): boolean {
  let rest: Uint8Array = Buffer.from(text);
  let waitedMs = 0;
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(file, rest));
    } catch (error) {
      // It can be told nowhere: a closed pipe or a full disk must not end the process.
      const isBusy = error instanceof Error && "code" in error && error.code === "EAGAIN";
      if (!isBusy) return true;
      if (waitedMs >= waitMsMax) return false;
      Bun.sleepSync(1);
      waitedMs += 1;
    }
  }
  return true;
}
