// What the documents tell a reader to type: commands, queries, and the table of those that no test runs.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

export const ROOT = join(import.meta.dir, "../../..");

export type Command = Readonly<{ text: string; file: string; line: number }>;
export type Query = Readonly<{ title: string; text: string; columns: readonly string[] }>;

/** The section of README.md that says what is not run; what stands in its table is named there, not told to be typed. */
const TABLE_SECTION = "## What no test runs";

const PROGRAMS =
  "npm|npx|bun|node|docker|curl|sudo|systemctl|journalctl|openssl|cp|export|" +
  "git|kill|sh|bash|pip|python3?|java|mvn|apt-get|wget|sqlite3|cqlsh|kubectl";
const BINARIES = "admin|local|producer|processor";
/** Whole code spans that are commands: a program, a file that is run with arguments, or a binary with a verb. */
const COMMAND = new RegExp(
  `^(?:\\w+=\\S+ )*(?:(?:${PROGRAMS}) \\S|(?:dist/|\\./)\\w+ \\S|(?:${BINARIES}) (?:--)?[a-z])`,
);

/** Everything that is read: the documents, and the comments of the files an operator copies. */
export function documentFiles(): string[] {
  const inside = (directory: string) =>
    readdirSync(join(ROOT, directory), { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => `${directory}/${entry.name}`);
  const copied = ["sample.env", "compose.yaml", ...inside("deploy/systemd")];
  const beside = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "grafana/README.md"];
  return ["README.md", ...inside("docs"), ...beside, ...copied];
}

export function documentText(file: string): string {
  return readFileSync(join(ROOT, file), "utf8");
}

/** Every command of a document, in its order. */
export function commandsOf(file: string, whole: string): Command[] {
  if (!file.endsWith(".md")) return commandsOfComments(file, whole);
  const text = withoutTable(whole);
  const found: Command[] = [];
  let prose = text;
  for (const { language, body, at, block } of fencesOf(text)) {
    prose = prose.replace(block, (lines) => lines.replace(/[^\n]/g, " "));
    const line = lineOf(text, at) + 1;
    if (language === "sh") found.push(...commandsOfShell(file, body, line));
    else if (language === "ini") found.push(...commandsOfComments(file, body, line - 1));
    // Whatever it is called: a line that is a command will be typed.
    else found.push(...commandsOfShell(file, body, line).filter((one) => COMMAND.test(one.text)));
  }
  return [...found, ...spansOf(prose, file)].sort((one, other) => one.line - other.line);
}

/** The table's commands, as its first column names them; there a program's name may stand for all of it. */
export function commandsNotRun(readme: string): string[] {
  const isNamed = new RegExp(`^(?:${PROGRAMS})$`);
  return tableLines(readme).flatMap((line) =>
    [...(line.split("|")[1] ?? "").matchAll(/`([^`]+)`/g)]
      .map((match) => match[1]!)
      .filter((text) => COMMAND.test(text) || isNamed.test(text)),
  );
}

/** What is not ours is named by its first words, ours word by word. */
export function isCoveredBy(named: string, command: string): boolean {
  const isForeign = /^(?:docker|sudo|systemctl|journalctl)\b/.test(named);
  return command === named || (isForeign && command.startsWith(`${named} `));
}

/** Statement by statement, with the comment before it and the names of its columns. */
export function queriesOf(file: string, language: "sql" | "cql"): Query[] {
  const bodies = fencesOf(documentText(file)).filter((fence) => fence.language === language);
  return bodies
    .flatMap(({ body }) => body.split(";"))
    .filter((text) => text.trim() !== "")
    .map((text) => {
      const title = /^-- (.*)$/m.exec(text)?.[1] ?? text.trim();
      const statement = text.replace(/^\s*--.*$/gm, "").trim();
      return { title, text: statement, columns: columnsOf(statement) };
    });
}

/** The one block of that language, as it is printed. */
export function blockOf(file: string, language: string): string {
  const blocks = fencesOf(documentText(file)).filter((fence) => fence.language === language);
  if (blocks.length !== 1) throw new Error(`${file} has ${blocks.length} blocks of ${language}, not one`);
  return blocks[0]!.body;
}

/** `SELECT a, max(b) AS c FROM` -> a, c. */
function columnsOf(statement: string): string[] {
  const list = /^SELECT\s+(?:DISTINCT\s+)?(.*?)\sFROM\s/is.exec(statement)?.[1];
  if (list === undefined) throw new Error(`not a query: ${statement}`);
  const parts: string[] = [""];
  let depth = 0;
  for (const character of list) {
    depth += character === "(" ? 1 : character === ")" ? -1 : 0;
    if (character === "," && depth === 0) parts.push("");
    else parts[parts.length - 1] += character;
  }
  return parts.map((part) => part.trim().split(/\s+/).at(-1)!);
}

function fencesOf(text: string) {
  return [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map((match) => ({
    block: match[0],
    language: match[1]!,
    body: match[2]!,
    at: match.index,
  }));
}

/** Continued lines are one command; behind ` # ` stands what it does, and perhaps what else does: `also: a, b`. */
function commandsOfShell(file: string, body: string, firstLine: number): Command[] {
  const joined = body.replace(/\\\n\s*/g, "\0");
  return joined.split("\n").flatMap((whole, index, all) => {
    const line = firstLine + index + all.slice(0, index).join("").split("\0").length - 1;
    const [text, comment = ""] = whole.replaceAll("\0", "").split(/(?:^|\s+)# /, 2);
    const also = /^also: (.*)$/.exec(comment.trim())?.[1]?.split(/,\s*/) ?? [];
    return [text!.trim(), ...also]
      .filter((command) => command !== "")
      .map((command) => ({ text: command, file, line }));
  });
}

/** Comments name commands in backticks, or on indented lines of their own. */
function commandsOfComments(file: string, text: string, linesBefore = 0): Command[] {
  return text.split("\n").flatMap((whole, index) => {
    const line = linesBefore + index + 1;
    const [, indent, comment] = /^\s*#( *)(.*)$/.exec(whole) ?? [];
    if (indent === undefined || comment === undefined) return [];
    const own = indent.length > 2 ? comment.split(/ {2,}/)[0]! : "";
    const alone = COMMAND.test(own) ? [{ text: own, file, line }] : [];
    return [...alone, ...spansOf(comment, file).map((span) => ({ ...span, line }))];
  });
}

/** A span may go on in the next line. */
function spansOf(text: string, file = ""): Command[] {
  return [...text.matchAll(/`([^`\n]+(?:\n[^`\n]+)?)`/g)]
    .map((match) => ({ text: match[1]!.replace(/\s+/g, " "), file, line: lineOf(text, match.index) }))
    .filter((span) => COMMAND.test(span.text));
}

function lineOf(text: string, at: number): number {
  return text.slice(0, at).split("\n").length;
}

function tableLines(text: string): string[] {
  const [, section = ""] = text.split(`${TABLE_SECTION}\n`);
  return section
    .split(/^## /m)[0]!
    .split("\n")
    .filter((line) => line.startsWith("|"));
}

/** Lines stay in place. */
function withoutTable(text: string): string {
  const lines = new Set(tableLines(text));
  return text
    .split("\n")
    .map((line) => (lines.has(line) ? "" : line))
    .join("\n");
}

/** Files of ours that a document links to, shows or names as a test. */
export function filesNamedIn(file: string): string[] {
  const text = documentText(file);
  const links = [...text.matchAll(/(?:\]\(|src=")([^)"\s]+)[)"]/g)]
    .map((match) => match[1]!)
    .filter((link) => !/^[a-z]+:/.test(link))
    .map((link) => (link.startsWith("#") ? `${file}${link}` : join(dirname(file), link)));
  const tests = [...text.matchAll(/`(tests\/[\w/.-]+)`/g)].map((match) => match[1]!);
  return [...links, ...tests];
}
