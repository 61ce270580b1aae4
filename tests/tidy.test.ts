// The house rules that a machine can check, over the tree as it is: who may import whom, which file alone may
// name a client, the environment, the clock, the console or the exit, and what stands nowhere. Every failure
// names file, line and remedy. The checkers are functions of sources, so that they are tested too (at the end).

import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";

type Source = Readonly<{ path: string; text: string }>;

// --- The rules as tables ---------------------------------------------------------------------------------------

/**
 * From top to bottom: a file imports only rows below its own, and in its own row what `shared` names. A name is
 * that of a file in lib without .ts; `*` stands for any letters.
 */
const ROWS: readonly { row: string; files: readonly string[]; shared: readonly string[] }[] = [
  {
    row: "assembly",
    files: ["*-parts", "verbs-*"],
    shared: ["*-parts", "verbs-*"],
  },
  { row: "wiring", files: ["lifecycle", "jobs"], shared: [] },
  {
    row: "loops and web",
    files: ["pipeline", "publish", "forward", "tickers*", "verify", "replay", "web", "web-*"],
    shared: ["web-*", "tickers*"],
  },
  {
    row: "adapters",
    files: [
      "feed-*",
      "simulator",
      "simulator/*",
      "log-*",
      "store-*",
      "sqlite",
      "kafka",
      "kafka-*",
      "cassandra",
      "cassandra-*",
      "finnhub-*",
    ],
    shared: [
      "sqlite",
      "store-sqlite-*",
      "feed-finnhub-link",
      "log-salvage",
      "log-wal",
      "log-faults",
      "log-sqlite-forward",
      "log-sqlite-hold",
      "simulator/*",
      "kafka",
      "kafka-*",
      "cassandra",
      "cassandra-*",
      "finnhub-*",
    ],
  },
  { row: "steps of the loops", files: ["aggregate", "intake", "patience", "recompute"], shared: [] },
  { row: "contracts", files: ["feed", "log", "store", "wanted"], shared: [] },
  { row: "page (runs in the browser)", files: ["page/*"], shared: ["page/*"] },
  {
    row: "pure",
    files: [
      "codec",
      "identity",
      "letters",
      "panes",
      "windows",
      "tracker",
      "frame",
      "partition",
      "bounded-queue",
      "adaptive-gate",
      "subscriptions",
      "hold",
      "health",
      "health-pipeline",
      "last-trades",
      "live",
      "live-wire",
    ],
    shared: ["*"],
  },
  {
    row: "words",
    files: ["trade", "clock", "command", "config", "config-settings", "report", "metrics", "errors"],
    shared: ["config-settings", "clock", "config", "metrics", "report"],
  },
];

/** Each client is named in its own files, so that it can be replaced there. */
const CLIENTS: Readonly<Record<string, readonly string[]>> = {
  kafkajs: ["kafka", "kafka-*", "log-kafka"],
  "cassandra-driver": ["cassandra", "cassandra-*", "store-cassandra"],
  "bun:sqlite": ["sqlite", "log-sqlite", "store-sqlite"],
  avsc: ["codec"],
  cron: ["jobs"],
  "prom-client": ["metrics"],
  commander: ["lifecycle"],
  zod: ["config-settings", "web", "web-*"],
  hono: ["web", "web-*"],
  "@hono": ["web", "web-*"],
  "@logtape": ["report"],
};

/** What only one file of lib may name; entrypoints may name only what says so. */
const OWNED: readonly { pattern: RegExp; files: readonly string[]; remedy: string }[] = [
  {
    pattern: /\b(?:process|Bun|import\.meta)\.env\b/,
    files: ["config"],
    remedy: "settings are read by lib/config.ts alone: add it there",
  },
  {
    pattern: /\b(?:Date\.now|performance\.now|set(?:Timeout|Interval|Immediate)|Math\.random|Bun\.sleep)\b/,
    files: ["clock"],
    remedy: "time and chance are arguments: take a Clock",
  },
  { pattern: /\bnew Date\(\s*\)/, files: ["clock"], remedy: "time is an argument: take a Clock" },
  {
    pattern: /\bconsole\.|\bprocess\.stderr\b/,
    files: ["report"],
    remedy: "use a Report, print or complain",
  },
  { pattern: /\bprocess\.exit(?:Code)?\b/, files: ["lifecycle"], remedy: "return, or throw a SetupError" },
  {
    pattern: /\bprocess\.(?:on|once)\b/,
    files: ["lifecycle"],
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

const ENTRYPOINT_LINES_MAX = 60;

// --- The checkers ----------------------------------------------------------------------------------------------

function importProblems(sources: readonly Source[]): string[] {
  return ownSources(sources).flatMap((source) => {
    const from = rankOf(source.path);
    if (from === null) return [noRow(source.path, 1)];
    return importsOf(source).flatMap(({ specifier, line }) => {
      if (!specifier.startsWith(".") || !specifier.endsWith(".ts")) return [];
      const target = posix.join(posix.dirname(source.path), specifier);
      const to = rankOf(target);
      if (to === null) return [noRow(target, 1)];
      if (to > from || (to === from && matches(ROWS[to]?.shared ?? [], nameOf(target)))) return [];
      const rows = `${rowName(from)} may not import ${rowName(to)}`;
      return [`${source.path}:${line} imports ${target}: ${rows}; move what both need further down`];
    });
  });
}

function clientProblems(sources: readonly Source[]): string[] {
  return ownSources(sources).flatMap((source) =>
    importsOf(source).flatMap(({ specifier, line }) =>
      Object.entries(CLIENTS)
        .filter(([client]) => specifier === client || specifier.startsWith(`${client}/`))
        .filter(([, files]) => !matches(files, nameOf(source.path)))
        .map(
          ([client, files]) => `${source.path}:${line} names ${client}: only ${files.join(", ")} in lib may`,
        ),
    ),
  );
}

function ownedProblems(sources: readonly Source[]): string[] {
  const inProcess = ownSources(sources).filter(({ path }) => !path.startsWith("lib/page/"));
  return inProcess.flatMap((source) =>
    OWNED.filter(({ files }) => !matches(files, nameOf(source.path))).flatMap(({ pattern, remedy }) =>
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

/** `lib/page/chart.ts` -> `page/chart`; of an entrypoint nothing that a table holds. */
function nameOf(path: string): string {
  return isEntrypoint(path) ? "" : path.replace(/^lib\//, "").replace(/\.ts$/, "");
}

/** The higher, the further down; null = in no row. */
function rankOf(path: string): number | null {
  if (isEntrypoint(path)) return -1;
  const rank = ROWS.findIndex(({ files }) => matches(files, nameOf(path)));
  return rank === -1 ? null : rank;
}

function rowName(rank: number): string {
  return `"${ROWS[rank]?.row ?? "entrypoints"}"`;
}

function noRow(path: string, line: number): string {
  return `${path}:${line} stands in no row: add it to ROWS in tests/tidy.test.ts, in the row whose files it may use`;
}

function matches(patterns: readonly string[], name: string): boolean {
  return patterns.some((pattern) => new RegExp(`^${pattern.replaceAll("*", ".*")}$`).test(name));
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

test("a file imports only what lies in a row below its own, and every file of lib has a row", () => {
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

// --- That the checkers can fail --------------------------------------------------------------------------------

test("an import upwards, sideways or from a file without a row is found, with its line", () => {
  const problems = (path: string, text: string) => importProblems([{ path, text }]);
  expect(problems("lib/panes.ts", '// Panes.\nimport type { Log } from "./log.ts";\n')).toEqual([
    'lib/panes.ts:2 imports lib/log.ts: "pure" may not import "contracts"; move what both need further down',
  ]);
  expect(problems("lib/log-kafka.ts", 'import {\n  a,\n} from "./log-sqlite.ts";')).toHaveLength(1);
  expect(problems("lib/report.ts", 'export * from "./errors.ts";')).toHaveLength(1);
  expect(problems("lib/pipeline.ts", 'const later = await import("./lifecycle.ts");')).toHaveLength(1);
  expect(problems("lib/page/chart.ts", 'import "../store.ts";')).toHaveLength(1);
  expect(problems("lib/simulator/market.ts", 'import "../simulator.ts";')).toHaveLength(1);
  expect(problems("lib/surprise.ts", "")[0]).toContain("add it to ROWS");
  expect(problems("lib/panes.ts", 'import "./surprise.ts";')[0]).toContain("add it to ROWS");
});

test("an import downwards, or sideways where a row shares, is fine", () => {
  const fine: [string, string][] = [
    ["local.ts", 'import { run } from "./lib/lifecycle.ts";'],
    ["lib/store-sqlite.ts", 'import { open } from "./sqlite.ts";\nimport sql from "../sql/x.sql";'],
    ["lib/simulator.ts", 'import { market } from "./simulator/market.ts";'],
    ["lib/windows.ts", 'import { pane } from "./panes.ts";'],
    ["lib/web.ts", 'import { live } from "./web-live.ts";'],
    ["lib/trade.ts", '// import { run } from "./lifecycle.ts";\n/* import "./log.ts"; */'],
  ];
  for (const [path, text] of fine) expect(importProblems([{ path, text }])).toEqual([]);
});

test("a client outside its files is found, in its own files it is not", () => {
  const text = 'import { z } from "zod";\nimport sub from "@logtape/pretty";';
  expect(clientProblems([{ path: "lib/trade.ts", text }])).toEqual([
    "lib/trade.ts:1 names zod: only config-settings, web, web-* in lib may",
    "lib/trade.ts:2 names @logtape: only report in lib may",
  ]);
  expect(clientProblems([{ path: "lib/web-live.ts", text: 'import { z } from "zod";' }])).toEqual([]);
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
    expect(ownedProblems([{ path: "lib/panes.ts", text }])).toHaveLength(1);
    expect(ownedProblems([{ path: "local.ts", text }])).toHaveLength(1);
    expect(ownedProblems([{ path: "lib/simulator/market.ts", text }])).toHaveLength(1);
    expect(ownedProblems([{ path: "lib/panes.ts", text: `// ${text}\nconst words = "${text}";` }])).toEqual(
      [],
    );
    expect(ownedProblems([{ path: "scripts/build.ts", text }])).toEqual([]);
    expect(ownedProblems([{ path: "lib/page/main.ts", text }])).toEqual([]);
  }
  expect(ownedProblems([{ path: "lib/clock.ts", text: "Date.now()" }])).toEqual([]);
  expect(ownedProblems([{ path: "lib/clock.ts", text: "process.env" }])).toHaveLength(1);
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
  for (const text of fine) expect(problems("lib/trade.ts", text)).toEqual([]);
});

test("a file without a first comment and a long entrypoint are found", () => {
  expect(shapeProblems([{ path: "lib/panes.ts", text: "export {};" }])[0]).toStartWith(
    "lib/panes.ts:1 begins",
  );
  expect(shapeProblems([{ path: "local.ts", text: `// Local.${"\n//".repeat(60)}` }])[0]).toContain(
    "lib decides",
  );
  expect(shapeProblems([{ path: "local.ts", text: `// Local.${"\n//".repeat(59)}\n` }])).toEqual([]);
});
