// The house rules that a machine can check, over the tree as it is: who may import whom, which file alone may
// name a client, the environment, the clock, the console or the exit, and what stands nowhere. Every failure
// names file, line and remedy. The checkers are functions of sources, so that they are tested too (at the end).

import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";

type Source = Readonly<{ path: string; text: string }>;

// --- The rules as tables ---------------------------------------------------------------------------------------

/**
 * From top to bottom. A file imports its own folder and the folders of lower rows; folders of one row never import each
 * other. There is no list of exceptions. The table in docs/ARCHITECTURE.md is compared with it.
 */
const ROWS: readonly (readonly string[])[] = [
  ["app", "commands"],
  ["web"],
  ["ingest", "processing"],
  ["finnhub", "imports", "simulator", "outbox", "kafka", "sqlite", "cassandra"],
  ["health"],
  ["contracts"],
  ["model"],
  ["base"],
];

/** What an entrypoint may import. */
const FROM_ENTRYPOINTS: readonly string[] = ["app", "commands"];

/** The browser's part: of lib it imports the words of the live stream, and nothing else. */
const PAGE = { folder: "web/page/", mayImport: ["web/live/protocol.ts"] };

/** Each client is named in its own folder or file, so that it can be replaced there. */
const CLIENTS: Readonly<Record<string, readonly string[]>> = {
  kafkajs: ["kafka/"],
  "cassandra-driver": ["cassandra/"],
  "bun:ffi": ["base/supervisor.ts"],
  "bun:sqlite": ["base/sqlite.ts", "outbox/", "sqlite/"],
  avsc: ["model/codec.ts"],
  cron: ["app/jobs.ts"],
  "prom-client": ["base/metrics.ts"],
  commander: ["app/lifecycle.ts"],
  "csv-parse": ["imports/"],
  fflate: ["imports/"],
  hyparquet: ["imports/"],
  zod: ["base/settings.ts", "web/"],
  hono: ["web/"],
  "@hono": ["web/"],
  "@logtape": ["base/logger.ts"],
};

/** What only one file of lib may name; entrypoints may name only what says so. */
const OWNED: readonly { pattern: RegExp; files: readonly string[]; remedy: string }[] = [
  {
    pattern: /\b(?:process|Bun|import\.meta)\.env\b/,
    files: ["base/config.ts"],
    remedy: "settings are read by lib/base/config.ts alone: add it there",
  },
  {
    pattern: /\b(?:Date\.now|performance\.now|set(?:Timeout|Interval|Immediate)|Math\.random|Bun\.sleep)\b/,
    files: ["base/clock.ts"],
    remedy: "time and chance are arguments: take a Clock",
  },
  { pattern: /\bnew Date\(\s*\)/, files: ["base/clock.ts"], remedy: "time is an argument: take a Clock" },
  {
    pattern: /\bconsole\.|\bprocess\.stderr\b/,
    files: ["base/logger.ts"],
    remedy: "use a Logger, printLine or printError",
  },
  {
    pattern: /\bprocess\.exit(?:Code)?\b/,
    files: ["app/lifecycle.ts"],
    remedy: "return, or throw a SetupError",
  },
  {
    pattern: /\bprocess\.(?:on|once)\b/,
    files: ["app/lifecycle.ts"],
    remedy: "take the AbortSignal of the Context",
  },
];

/** What stands in no source at all. Looked for in code: texts and comments may name it. */
const FORBIDDEN_CODE: readonly { pattern: RegExp; remedy: string }[] = [
  {
    pattern: /(?<![.\w$])an[y]\b(?!\s*[(:=])/,
    remedy: "`any` switches the check off: say `unknown` and look",
  },
  {
    pattern: /\b(?:test|it|describe)\.(?:skip|only|todo)\b/,
    remedy: "a test that does not run is no test (skipIf is for a service that is not there)",
  },
];

/** What stands in no file at all, comments included. */
const FORBIDDEN_TEXT: readonly { pattern: RegExp; remedy: string }[] = [
  { pattern: /@ts-(?:ignor[e]|expect-erro[r]|nochec[k])/, remedy: "mend the type instead" },
  { pattern: /\b(?:TO[D]O|FIX[M]E|XX[X])\b/, remedy: "do it, or write an issue" },
  { pattern: /(?<![\w./~-])\/(?:work|root|home)\//, remedy: "a path of one machine: make it relative" },
  {
    pattern: /\bregistry\.[\w-]+\.(?:org|com|net|io|dev|local|internal)\b|:_authToke[n]/,
    remedy: "which registry is used is the machine's business: leave it out",
  },
];

/** Beyond it a file has two subjects. (Functions have 80 lines of code at most: biome.json.) */
const FILE_LINES_MAX = 350;
const ENTRYPOINT_LINES_MAX = 25;

// --- The checkers ----------------------------------------------------------------------------------------------

function importProblems(sources: readonly Source[]): string[] {
  return ownSources(sources).flatMap((source) => {
    const from = placeOf(source.path);
    if (from === null) return [noRow(source.path, 1)];
    return importsOf(source).flatMap(({ specifier, line }) => {
      if (!specifier.startsWith(".") || !specifier.endsWith(".ts")) return [];
      const target = posix.join(posix.dirname(source.path), specifier);
      const to = placeOf(target);
      if (to === null) return [noRow(target, line)];
      if (mayImport(source.path, target)) return [];
      return [
        `${source.path}:${line} imports ${target}: ${from} may not import ${to}; move what both need further down`,
      ];
    });
  });
}

function mayImport(path: string, target: string): boolean {
  const name = nameOf(target);
  if (nameOf(path).startsWith(PAGE.folder)) {
    return name.startsWith(PAGE.folder) || PAGE.mayImport.includes(name);
  }
  if (name.startsWith(PAGE.folder)) return false; // It is bundled, never imported.
  const from = placeOf(path);
  const to = placeOf(target);
  if (from === null || to === null) return false;
  if (from === ENTRYPOINT) return FROM_ENTRYPOINTS.includes(to);
  return from === to || rankOf(to) > rankOf(from);
}

function clientProblems(sources: readonly Source[]): string[] {
  return ownSources(sources).flatMap((source) =>
    importsOf(source).flatMap(({ specifier, line }) =>
      Object.entries(CLIENTS)
        .filter(([client]) => specifier === client || specifier.startsWith(`${client}/`))
        .filter(([, files]) => !isAmong(files, source.path))
        .map(
          ([client, files]) => `${source.path}:${line} names ${client}: only ${files.join(", ")} in lib may`,
        ),
    ),
  );
}

function ownedProblems(sources: readonly Source[]): string[] {
  const inProcess = ownSources(sources).filter(({ path }) => !path.startsWith("lib/web/page/"));
  return inProcess.flatMap((source) =>
    OWNED.filter(({ files }) => !isAmong(files, source.path)).flatMap(({ pattern, remedy }) =>
      linesWith(source.path, codeOf(source.text), pattern, remedy),
    ),
  );
}

function forbiddenProblems(sources: readonly Source[]): string[] {
  return sources.flatMap(({ path, text }) => [
    ...(path.endsWith(".ts") ? FORBIDDEN_CODE : []).flatMap(({ pattern, remedy }) =>
      linesWith(path, codeOf(text), pattern, remedy),
    ),
    ...FORBIDDEN_TEXT.flatMap(({ pattern, remedy }) => linesWith(path, text, pattern, remedy)),
  ]);
}

function shapeProblems(sources: readonly Source[]): string[] {
  return sources.flatMap(({ path, text }) => {
    const found: string[] = [];
    const isSource = path.endsWith(".ts") && (path.startsWith("lib/") || isEntrypoint(path));
    if (isSource && !/^\/[/*]/.test(text)) {
      found.push(`${path}:1 begins without a comment: say what the file is and what it promises not to do`);
    }
    const lineCount = text.trimEnd().split("\n").length;
    if (isSource && lineCount > FILE_LINES_MAX) {
      found.push(`${path}:${lineCount} has over ${FILE_LINES_MAX} lines: give each of its subjects a file`);
    }
    if (isEntrypoint(path) && lineCount > ENTRYPOINT_LINES_MAX) {
      found.push(
        `${path}:${lineCount} has over ${ENTRYPOINT_LINES_MAX} lines: entrypoints connect, lib decides`,
      );
    }
    return found;
  });
}

/** Code of the product: the entrypoints and lib. Tests, scripts and benchmarks live by looser rules. */
function ownSources(sources: readonly Source[]): Source[] {
  return sources.filter(
    ({ path }) => isEntrypoint(path) || (/^lib\/.*\.ts$/.test(path) && !path.endsWith(".d.ts")),
  );
}

function isEntrypoint(path: string): boolean {
  return /^[^/]+\.ts$/.test(path);
}

/** `lib/web/page/chart.ts` -> `web/page/chart.ts`; an entrypoint's path is its name. */
function nameOf(path: string): string {
  return path.replace(/^lib\//, "");
}

const ENTRYPOINT = "an entrypoint";

/** The folder of lib whose rule holds for a file; null = it stands in none of ROWS. */
function placeOf(path: string): string | null {
  if (isEntrypoint(path)) return ENTRYPOINT;
  const folder = /^lib\/([^/]+)\//.exec(path)?.[1];
  return folder !== undefined && rankOf(folder) !== -1 ? folder : null;
}

/** The folders that the first column of a Markdown table names, a list for each of its rows. */
function foldersShown(text: string, header: string): string[][] {
  const [, table = ""] = text.split(`\n| ${header} | `);
  const rows = table.split("\n\n")[0]!.split("\n").slice(2);
  return rows.map((row) => [...(row.split("|")[1] ?? "").matchAll(/`([a-z]+)`/g)].map((match) => match[1]!));
}

/** What a document's list of folders has too much or too little. */
function folderProblems(shown: readonly string[], folders: readonly string[]): string[] {
  const missing = folders.filter((folder) => !shown.includes(folder)).map((folder) => `no row for ${folder}`);
  const unknown = shown.filter((folder) => !folders.includes(folder)).map((folder) => `no folder ${folder}`);
  const twice = shown.filter((folder, index) => shown.indexOf(folder) !== index);
  return [...missing, ...unknown, ...twice.map((folder) => `two rows for ${folder}`)];
}

/** The higher, the further down. */
function rankOf(folder: string): number {
  return ROWS.findIndex((folders) => folders.includes(folder));
}

function noRow(path: string, line: number): string {
  return `${path}:${line} stands in no folder of ROWS in tests/tidy.test.ts: move it to the folder whose imports it needs`;
}

/** A place that ends with a slash is a folder. */
function isAmong(places: readonly string[], path: string): boolean {
  const name = nameOf(path);
  return places.some((place) => (place.endsWith("/") ? name.startsWith(place) : name === place));
}

function importsOf({ text }: Source): { specifier: string; line: number }[] {
  const code = codeOf(text, "keep texts");
  const pattern =
    /(?:^(?:import|export)\b[^;"']*?(?:\bfrom\s*)?|\b(?:import|require)\(\s*)["']([^"'\n]+)["']/gm;
  return [...code.matchAll(pattern)].map((match) => ({
    specifier: match[1] ?? "",
    line: code.slice(0, match.index).split("\n").length,
  }));
}

/** Comments out, and usually the content of texts too (of templates only the code stays); lines stay in place. */
function codeOf(text: string, texts: "drop texts" | "keep texts" = "drop texts"): string {
  const tokens = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/g;
  return text.replace(tokens, (token) => {
    const isText = token.startsWith('"') || token.startsWith("'");
    if (isText) return texts === "keep texts" ? token : '""';
    if (token.startsWith("`"))
      return token.replace(/\$\{([^}]*)\}|[^\n]/g, (_, code?: string) => code ?? " ");
    return token.replace(/[^\n]/g, " ");
  });
}

function linesWith(path: string, text: string, pattern: RegExp, remedy: string): string[] {
  return text.split("\n").flatMap((line, index) => {
    const found = pattern.exec(line);
    return found === null ? [] : [`${path}:${index + 1} has \`${found[0].trim()}\`: ${remedy}`];
  });
}

// --- The tree --------------------------------------------------------------------------------------------------

/** What .gitignore leaves out, git itself, and the lock file, which names where packages came from. */
const NOT_OURS = /^(?:node_modules|dist|data|\.git|\.env|bun\.lock)$|\.log$/;

function readTree(directory: string, prefix = ""): Source[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (NOT_OURS.test(entry.name)) return [];
    if (entry.isDirectory()) return readTree(path, `${prefix}${entry.name}/`);
    if (!entry.isFile()) return [];
    const text = readFileSync(path, "utf8");
    return text.includes("\0") ? [] : [{ path: `${prefix}${entry.name}`, text }];
  });
}

const tree = readTree(join(import.meta.dir, ".."));

test("a file imports its own folder and lower rows, and every file of lib lies in a folder of ROWS", () => {
  expect(ownSources(tree).length).toBeGreaterThan(5);
  expect(importProblems(tree)).toEqual([]);
});

test("each client library is named only in its own files", () => {
  expect(clientProblems(tree)).toEqual([]);
});

test("environment, clock, console, exit and signals are named in one file each", () => {
  expect(ownedProblems(tree)).toEqual([]);
});

test("no unchecked types, unfinished work, tests that do not run, or traces of one machine", () => {
  expect(forbiddenProblems(tree)).toEqual([]);
});

test("every file begins by saying what it is, and entrypoints are short", () => {
  expect(shapeProblems(tree)).toEqual([]);
});

test("the table of folders in docs/ARCHITECTURE.md is ROWS, row by row", () => {
  const architecture = tree.find(({ path }) => path === "docs/ARCHITECTURE.md")!.text;
  expect(foldersShown(architecture, "folders, from the top")).toEqual(ROWS.map((row) => [...row]));
});

/** Types without code (*.d.ts) are in no row. */
const TYPES_FOLDER = "types";

test("CONTRIBUTING.md has one row for each folder of lib, and ROWS has each folder too", () => {
  const folders = readdirSync(join(import.meta.dir, "../lib")).filter((name) => name !== TYPES_FOLDER);
  const contributing = tree.find(({ path }) => path === "CONTRIBUTING.md")!.text;
  const shown = foldersShown(contributing, "folder of lib");
  expect(shown.filter((row) => row.length !== 1)).toEqual([]);
  expect(folderProblems(shown.flat(), folders)).toEqual([]);
  expect(folderProblems(ROWS.flat(), folders)).toEqual([]);
});

// --- That the checkers can fail --------------------------------------------------------------------------------

test("an import upwards, sideways or from a file without a folder is found, with its line", () => {
  const problems = (path: string, text: string) => importProblems([{ path, text }]);
  expect(
    problems("lib/model/panes.ts", '// Panes.\nimport type { Log } from "../contracts/log.ts";\n'),
  ).toEqual([
    "lib/model/panes.ts:2 imports lib/contracts/log.ts: model may not import contracts; move what both need further down",
  ]);
  const refused: [string, string][] = [
    ["lib/kafka/consumer.ts", 'import {\n  a,\n} from "../outbox/log.ts";'],
    ["lib/commands/verify.ts", 'import { run } from "../app/lifecycle.ts";'],
    ["lib/base/logger.ts", 'export * from "../model/trade.ts";'],
    ["lib/processing/processor.ts", 'const later = await import("../app/lifecycle.ts");'],
    ["lib/web/page/chart.ts", 'import "../live/stream.ts";'],
    ["lib/web/app.ts", 'import "./page/main.ts";'],
    ["local.ts", 'import { openLog } from "./lib/outbox/log.ts";'],
  ];
  for (const [path, text] of refused) expect(problems(path, text)).toHaveLength(1);
  expect(problems("lib/surprise.ts", "")[0]).toContain("stands in no folder");
  expect(problems("lib/surprise/a.ts", "")[0]).toContain("stands in no folder");
  expect(problems("lib/model/panes.ts", '\nimport "../surprise.ts";')[0]).toContain("lib/surprise.ts:2");
});

test("a folder that a table forgets, invents or repeats is found", () => {
  const text =
    "# Title\n\n| folder | what |\n| --- | --- |\n| `app` `web` | `base` |\n| `kafka` | - |\n\n`health`\n";
  expect(foldersShown(text, "folder")).toEqual([["app", "web"], ["kafka"]]);
  expect(foldersShown(text, "another")).toEqual([]);
  expect(folderProblems(["app", "web", "web"], ["app", "base"])).toEqual([
    "no row for base",
    "no folder web",
    "no folder web",
    "two rows for web",
  ]);
});

test("an import downwards or inside a folder is fine", () => {
  const fine: [string, string][] = [
    ["local.ts", 'import { run } from "./lib/app/lifecycle.ts";'],
    ["lib/sqlite/store.ts", 'import { open } from "../base/sqlite.ts";\nimport sql from "../../sql/x.sql";'],
    ["lib/simulator/simulator.ts", 'import { market } from "./market.ts";'],
    ["lib/outbox/log.ts", 'import { salvage } from "./recovery/salvage.ts";'],
    ["lib/web/page/stream.ts", 'import type { Frame } from "../live/protocol.ts";'],
    ["lib/web/routes/trades.ts", 'import { query } from "../query.ts";'],
    [
      "lib/model/trade.ts",
      '// import { run } from "../app/lifecycle.ts";\n/* import "../contracts/log.ts"; */',
    ],
  ];
  for (const [path, text] of fine) expect(importProblems([{ path, text }])).toEqual([]);
});

test("a client outside its files is found, in its own files it is not", () => {
  const text = 'import { z } from "zod";\nimport sub from "@logtape/pretty";';
  expect(clientProblems([{ path: "lib/model/trade.ts", text }])).toEqual([
    "lib/model/trade.ts:1 names zod: only base/settings.ts, web/ in lib may",
    "lib/model/trade.ts:2 names @logtape: only base/logger.ts in lib may",
  ]);
  expect(clientProblems([{ path: "lib/web/live/stream.ts", text: 'import { z } from "zod";' }])).toEqual([]);
  expect(clientProblems([{ path: "tests/x.test.ts", text }])).toEqual([]);
});

test("the environment, the clock, the console and the exit are found wherever they do not belong", () => {
  const lines = [
    "process.env.X",
    "Date.now()",
    "new Date()",
    "setTimeout(f)",
    "console.log(1)",
    "process.exit(1)",
  ];
  for (const text of lines) {
    expect(ownedProblems([{ path: "lib/model/panes.ts", text }])).toHaveLength(1);
    expect(ownedProblems([{ path: "local.ts", text }])).toHaveLength(1);
    expect(ownedProblems([{ path: "lib/simulator/market.ts", text }])).toHaveLength(1);
    expect(
      ownedProblems([{ path: "lib/model/panes.ts", text: `// ${text}\nconst words = "${text}";` }]),
    ).toEqual([]);
    expect(ownedProblems([{ path: "scripts/build.ts", text }])).toEqual([]);
    expect(ownedProblems([{ path: "lib/web/page/main.ts", text }])).toEqual([]);
  }
  expect(ownedProblems([{ path: "lib/base/clock.ts", text: "Date.now()" }])).toEqual([]);
  expect(ownedProblems([{ path: "lib/base/clock.ts", text: "process.env" }])).toHaveLength(1);
});

test("unchecked types, unfinished work, tests that do not run and machine paths are found", () => {
  const problems = (path: string, text: string) => forbiddenProblems([{ path, text }]);
  for (const text of [
    "let x: any;",
    "f(x as any)",
    "const a: any[] = [];",
    "test.skip(() => {});",
    "it.only();",
  ]) {
    expect(problems("tests/x.test.ts", `\n${text}`)[0]).toStartWith("tests/x.test.ts:2 ");
  }
  const split = [
    ["// @ts-", "ignore"],
    ["// TO", "DO: later"],
    ["see /ho", "me/me/x"],
    ["https://registry.", "npmjs.org/x"],
  ];
  for (const parts of split) expect(problems("README.md", parts.join(""))).toHaveLength(1);
  const fine = [
    "AbortSignal.any([])",
    "Promise.any(list)",
    "// any of them",
    "test.skipIf(true)",
    "lib/work/x",
    "x.io/home/",
  ];
  for (const text of fine) expect(problems("lib/model/trade.ts", text)).toEqual([]);
});

test("a file without a first comment, a long file and a long entrypoint are found", () => {
  expect(
    shapeProblems([{ path: "lib/model/panes.ts", text: `// Panes.${"\n//".repeat(350)}` }])[0],
  ).toContain("give each of its subjects a file");
  expect(shapeProblems([{ path: "lib/model/panes.ts", text: `// Panes.${"\n//".repeat(349)}` }])).toEqual([]);
  expect(shapeProblems([{ path: "lib/model/panes.ts", text: "export {};" }])[0]).toStartWith(
    "lib/model/panes.ts:1 begins",
  );
  expect(shapeProblems([{ path: "local.ts", text: `// Local.${"\n//".repeat(25)}` }])[0]).toContain(
    "lib decides",
  );
  expect(shapeProblems([{ path: "local.ts", text: `// Local.${"\n//".repeat(24)}\n` }])).toEqual([]);
});
