// Every command of the documents, typed by a reader who has a fresh copy of the tree, Node.js and nothing of ours: in
// the order of README.md, each as it is printed, its promise looked at afterwards (tests/e2e/documents/). Changed are ports
// (this machine may use 8080 itself), what a reader fills in, and the numbers of what takes hours. What is not run
// stands in the table of README.md's section "What no test runs", and nothing else is missing.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageFile from "../../package.json" with { type: "json" };
import { freePort } from "../support/services/server.ts";
import { uniqueName } from "../support/services/shared.ts";
import { bareMachine } from "./documents/bare-machine.ts";
import { contributing } from "./documents/contributing.ts";
import { inTheCheckout } from "./documents/in-the-checkout.ts";
import { quickStart } from "./documents/quick-start.ts";
import {
  commandsNotRun,
  commandsOf,
  documentFiles,
  documentText,
  filesNamedIn,
  isCoveredBy,
  ROOT,
} from "./documents/read.ts";
import { ports, STEP_MS_MAX, steps } from "./documents/steps.ts";
import { copyTree, openTerminal, type Terminal } from "./documents/terminal.ts";

const README = documentText("README.md");

// --- That nothing is missing -----------------------------------------------------------------------------------

const NONE_LEFT = { promised: "every command of a document is run, or named as one that is not", none: [] };

const printed = documentFiles().flatMap((file) => commandsOf(file, documentText(file)));
const named = commandsNotRun(README);

/** What is wrong with the list of steps, the table and the documents as a whole, each with what to do. */
function gaps(found: readonly { text: string; file: string; line: number }[], table: readonly string[]) {
  const isInTable = (command: string) => table.some((one) => isCoveredBy(one, command));
  const texts = new Set(found.map(({ text }) => text));
  const unrun = found.filter(({ text }) => !steps.has(text) && !isInTable(text));
  return [
    ...unrun.map(
      ({ text, file, line }) =>
        `${file}:${line} \`${text}\` is run by nobody: add a step to tests/e2e/documents.test.ts, or a row to ` +
        `README.md's table with the reason`,
    ),
    ...[...steps.keys()]
      .filter((command) => !texts.has(command))
      .map(
        (command) => `the step \`${command}\` stands in no document any more: take it out, or mend its text`,
      ),
    ...table
      .filter((one) => ![...texts].some((command) => isCoveredBy(one, command)))
      .map((one) => `README.md's table names \`${one}\`, which stands in no document: take it out`),
    ...[...steps]
      .filter(([command, { smaller }]) => isInTable(command) !== (smaller !== undefined))
      .map(([command, { smaller }]) =>
        smaller
          ? `\`${command}\` is run with other numbers than it is printed with: README.md's table must name it`
          : `\`${command}\` is run as it is printed: take it out of README.md's table`,
      ),
  ];
}

test("every command of the documents has a step here or a row in README.md's table, and nothing else has", () => {
  expect(printed.length).toBeGreaterThan(50);
  expect({ ...NONE_LEFT, none: gaps(printed, named) }).toEqual(NONE_LEFT);
});

test("a new command, one that is gone, and a row for nothing are found, with what to do", () => {
  const withNew = [...printed, ...commandsOf("README.md", "Then `./admin polish --all`.\n")];
  expect(gaps(withNew, named)).toEqual([expect.stringMatching(/^README\.md:1 .*polish.* add a step to/)]);
  const withTypo = commandsOf("README.md", README.replaceAll("npm start", "npm strat"));
  expect(
    gaps([...printed.filter(({ file }) => file !== "README.md"), ...withTypo], named).join("\n"),
  ).toMatch(/README\.md:\d+ `npm strat` is run by nobody/);
  const without = printed.filter(({ text }) => text !== "./admin init");
  expect(gaps(without, named)).toEqual([expect.stringContaining("`./admin init` stands in no document")]);
  expect(gaps(printed, [...named, "docker compose pull"])).toEqual([expect.stringContaining("pull")]);
  expect(gaps(printed, [...named, "npm start"])).toEqual([expect.stringContaining("as it is printed")]);
  expect(
    gaps(
      printed,
      named.filter((one) => one !== "npm run soak"),
    ).join(),
  ).toContain("other numbers");
});

test("what stands in the shapes that documents have is read as a reader reads it", () => {
  const text = [
    "```sh\ncurl 'x' \\\n     -H 'y'   # why\nnpm run one    # also: npm run two, npm run three\n```",
    "```ini\n# `openssl rand 1` makes one.\nA=1\n```",
    "```\nnpm run zero\nno command\n```",
    "Say `npm run\nfour`, `./admin verify --x`, `A=1 npx five` or `admin init`; not `npm`, `./data` or `local`.",
  ].join("\n");
  expect(commandsOf("x.md", text).map(({ text, line }) => `${line} ${text}`)).toEqual([
    "2 curl 'x' -H 'y'",
    "4 npm run one",
    "4 npm run two",
    "4 npm run three",
    "7 openssl rand 1",
    "11 npm run zero",
    "14 npm run four",
    "15 ./admin verify --x",
    "15 A=1 npx five",
    "15 admin init",
  ]);
  const comments =
    "# The stack:\n#\n#   cp a b      then more\n#   docker compose up\nkey: 1 # by `admin init`\n  # `npm x`\n";
  expect(commandsOf("x.yaml", comments).map(({ text }) => text)).toEqual([
    "cp a b",
    "docker compose up",
    "npm x",
  ]);
});

test("every file, section and test that a document names is there", () => {
  const slug = (heading: string) =>
    heading
      .toLowerCase()
      .replace(/[^\w -]/g, "")
      .replaceAll(" ", "-");
  const missing = documentFiles().flatMap((file) =>
    filesNamedIn(file).filter((target) => {
      const [path, anchor] = target.split("#");
      if (!existsSync(join(ROOT, path!))) return true;
      const headings = anchor
        ? [...documentText(path!).matchAll(/^#+ (.*)$/gm)].map(([, text]) => slug(text!))
        : [];
      return anchor !== undefined && !headings.includes(anchor);
    }),
  );
  expect(missing).toEqual([]);
});

test("every npm command of the documents, typed first in a fresh clone, installs what it needs", () => {
  const scripts: Record<string, string> = packageFile.scripts;
  const names = printed.flatMap(({ text }) => /\bnpm (?:run )?([a-z:]+)/.exec(text)?.[1] ?? []);
  for (const name of new Set(names)) {
    expect({ name, script: scripts[name] }).toEqual({ name, script: expect.any(String) });
    if (scripts[name]!.startsWith("docker ")) continue;
    expect({ name, script: scripts[name] }).toEqual({
      name,
      script: expect.stringMatching(/^node scripts\/install\.mjs && /),
    });
  }
});

// --- The walks -------------------------------------------------------------------------------------------------

const home = join(tmpdir(), uniqueName("reader"));
const clone = join(home, "clone");
let checkout: Terminal;

beforeAll(async () => {
  copyTree(clone);
  for (const port of ["8080", "8081", "8082", "8083", "3003"]) ports[port] = String(await freePort());
  checkout = openTerminal(clone, { ADMIN_PORT: ports["8080"]! });
});
afterAll(async () => {
  await checkout?.[Symbol.asyncDispose]();
  rmSync(home, { recursive: true, force: true });
}, STEP_MS_MAX);

for (const walk of [quickStart, contributing, inTheCheckout, bareMachine])
  walk({ clone, machine: join(home, "machine"), checkout: () => checkout });
