// deploy/systemd, as far as it can be proven without a systemd that runs (systemd-machine.test.ts has one): that the units
// mean what our processes do (exit codes, the time of a stop, places that deploy/install.sh installs to), and that the
// settings arrive as from an .env.

import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { commandsOf, documentText, ROOT } from "./documents/read.ts";

const UNITS = join(ROOT, "deploy/systemd");
const CHECK_MS_MAX = 60_000;
const INSTANCE = "8083";

/** Section -> key -> its values, in their order. */
type Unit = Record<string, Record<string, string[]>>;

function readUnit(text: string): Unit {
  const unit: Unit = {};
  let section: Record<string, string[]> | null = null;
  for (const line of text.split("\n")) {
    if (/^\s*(?:[#;].*)?$/.test(line)) continue;
    const [, name] = /^\[(\w+)\]$/.exec(line) ?? [];
    const [, key, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
    if (name !== undefined) {
      section = {};
      unit[name] = section;
    } else if (section !== null && key !== undefined && value !== undefined && !value.endsWith("\\")) {
      section[key] ??= [];
      section[key].push(value);
    } else throw new Error(`not a line of a unit: ${line}`);
  }
  return unit;
}

const files = readdirSync(UNITS).sort();
const units = files.map((file) => ({ file, unit: readUnit(readFileSync(join(UNITS, file), "utf8")) }));
const serviceOf = ({ unit }: { unit: Unit }) => unit.Service!;
/** Of ours: `/usr/bin/env NAME=value` may stand before it. */
const programOf = (one: { unit: Unit }) => serviceOf(one).ExecStart![0]!.split(" ").at(-1)!;
const install = commandsOf("README.md", documentText("README.md"))
  .map(({ text }) => text)
  .filter((text) => text.startsWith("sudo "));
const installer = documentText("deploy/install.sh");
const lifecycle = documentText("lib/app/lifecycle.ts");

/** A constant of lib/app/lifecycle.ts, which exports none. */
function constant(name: string): number {
  const [, value] = new RegExp(`^const ${name} = ([\\d_]+);$`, "m").exec(lifecycle) ?? [];
  if (value === undefined) throw new Error(`lib/app/lifecycle.ts has no ${name} any more`);
  return Number(value.replaceAll("_", ""));
}

test("each binary that runs on and on has a unit, and the installer and README.md place and enable them where they look", () => {
  const started = units.map((one) => basename(programOf(one)));
  expect(started).toEqual(["admin", "local", "processor", "producer"]);
  const [, programs] = /^PROGRAMS="(.*)"$/m.exec(installer)!;
  expect(programs!.split(" ").sort()).toEqual(started);
  const [, directory] = /^BINARIES=(.*)$/m.exec(installer)!;
  const [, settings] = /^SETTINGS=(.*)$/m.exec(installer)!;
  for (const one of units) {
    const program = programOf(one);
    expect(program).toBe(`${directory}/${basename(program)}`);
    expect(serviceOf(one).EnvironmentFile).toEqual([settings!]);
    expect(one.unit.Install).toEqual({ WantedBy: ["multi-user.target"] });
  }
  const enabled = install.flatMap((line) => /^sudo systemctl enable --now (.*)$/.exec(line)?.[1] ?? [])[0];
  const enabledFiles = enabled!.split(" ").map((name) => `${name.replace(/@\d+$/, "@")}.service`);
  // `local` is everything in one: never beside the others.
  expect([...new Set(enabledFiles)].sort()).toEqual(files.filter((file) => file !== "finnhub-local.service"));

  // The verbs beside the units: their settings, and the producer's own directory and user.
  const commands = install.filter((line) => line.startsWith("sudo systemd-run "));
  expect(commands.map((line) => / (\S+) (?:verify|replay --dead)$/.exec(line)?.[1])).toEqual(
    ["admin", "producer"].map((name) => `${directory}/${name}`),
  );
  for (const line of commands) expect(line).toContain(` -p DynamicUser=yes -p EnvironmentFile=${settings} `);
  const { StateDirectory } = serviceOf(units.find((one) => basename(programOf(one)) === "producer")!);
  expect(commands[1]).toContain(
    ` -p User=${StateDirectory} -p StateDirectory=${StateDirectory} -p WorkingDirectory=/var/lib/${StateDirectory} `,
  );
});

test("an exit code means to systemd what it means to us, and a stop has the time it may take", () => {
  for (const one of units) {
    const service = serviceOf(one);
    expect({ file: one.file, ...service }).toMatchObject({
      // 70 and 75, a kill and a lack of memory: again. 0 is a stop that was asked for.
      Restart: ["on-failure"],
      RestartPreventExitStatus: [String(constant("EXIT_SETUP"))],
    });
    for (const name of ["EXIT_FAULT", "EXIT_UNFINISHED"])
      expect(service.RestartPreventExitStatus).not.toContain(String(constant(name)));
    expect(Number(service.TimeoutStopSec![0]) * 1_000).toBeGreaterThan(constant("STOP_MS_MAX"));
    // However often: no limit of starts.
    expect(one.unit.Unit!.StartLimitIntervalSec).toEqual(["0"]);
    // SIGTERM is what asks a process of ours to stop, and systemd's default.
    expect(service.KillSignal).toBeUndefined();
  }
});

test("a process is ready when it says so, and one that says nothing any more is killed in every state", () => {
  for (const one of units) {
    expect({ file: one.file, ...serviceOf(one) }).toMatchObject({
      Type: ["notify"],
      // It waits for engines, however long.
      TimeoutStartSec: ["infinity"],
      // A stopped process takes no other signal.
      WatchdogSignal: ["SIGKILL"],
    });
    const [, beatMs] = /^const BEAT_MS = ([\d_]+);$/m.exec(documentText("lib/app/supervised.ts"))!;
    const watchdogMs = Number(serviceOf(one).WatchdogSec![0]) * 1_000;
    expect(watchdogMs).toBeGreaterThanOrEqual(10 * Number(beatMs!.replaceAll("_", "")));
  }
});

test("no unit has a right that another one does without", () => {
  const rights = units.map((one) => {
    const { ExecStart, StateDirectory, WorkingDirectory, MemoryMax, ...rest } = serviceOf(one);
    return rest;
  });
  for (const one of rights) expect(one).toEqual(rights[0]!);
  expect(rights[0]).toMatchObject({
    DynamicUser: ["yes"],
    CapabilityBoundingSet: [""],
    NoNewPrivileges: ["yes"],
    ProtectSystem: ["strict"],
  });
});

// --- What systemd says -----------------------------------------------------------------------------------------

const analyze = Bun.which("systemd-analyze");
if (analyze === null) console.error("systemd-analyze is not here: the units are read by this test alone");
let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "units-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Of a unit whose binary is there, as `systemctl` would load it. */
function analyzed(name: string, change: (text: string) => string = (text) => text): string {
  const place = mkdtempSync(join(directory, "verify-"));
  for (const file of files) {
    const text = readFileSync(join(UNITS, file), "utf8").replaceAll("/opt/finnhub/", `${place}/bin/`);
    writeFileSync(join(place, file), change(text));
  }
  mkdirSync(join(place, "bin"));
  for (const binary of ["admin", "local", "processor", "producer"])
    copyFileSync("/bin/true", join(place, "bin", binary));
  const done = Bun.spawnSync([analyze!, "verify", join(place, name)], { timeout: CHECK_MS_MAX });
  const text = done.stdout.toString() + done.stderr.toString();
  return `${done.exitCode === 0 ? "" : `code ${done.exitCode}: `}${text}`;
}

test(
  "systemd-analyze verify finds nothing, and would find a key that there is not",
  () => {
    if (analyze === null) return;
    for (const file of files)
      expect({ file, said: analyzed(file.replace("@.", `@${INSTANCE}.`)) }).toEqual({ file, said: "" });
    const misspelt = analyzed("finnhub-admin.service", (text) =>
      text.replace("TimeoutStopSec", "TimoutStopSec"),
    );
    expect(misspelt).toContain("TimoutStopSec");
  },
  CHECK_MS_MAX,
);

// --- The settings ----------------------------------------------------------------------------------------------

/**
 * As systemd reads an EnvironmentFile (src/basic/env-file.c): comments are lines of their own; single quotes keep all,
 * double ones and none know a backslash; what stands behind a closing quote belongs to the value; a value may be empty.
 */
function readEnvironmentFile(text: string): Record<string, string> {
  const found: Record<string, string> = {};
  const line = /^[ \t]*([A-Za-z_]\w*)=((?:'[^']*'|"(?:\\[\s\S]|[^"\\])*"|\\[\s\S]|[^'"\\\n])*)$/gm;
  const rest = text.replace(line, (_, name: string, raw: string) => {
    found[name] = raw
      .replace(
        /'([^']*)'|"((?:\\[\s\S]|[^"\\])*)"|\\([\s\S])|([ \t]+$)/g,
        (_part, single, double, escaped, blanks) => {
          if (blanks !== undefined) return "";
          if (single !== undefined) return single;
          if (double !== undefined)
            return (double as string).replace(/\\(["\\`$]|\n)/g, (_all, it) => (it === "\n" ? "" : it));
          return escaped === "\n" ? "" : escaped;
        },
      )
      .trimStart();
    return "";
  });
  const strange = rest.split("\n").find((one) => !/^\s*(?:[#;].*)?$/.test(one));
  if (strange !== undefined) throw new Error(`systemd would ignore: ${strange}`);
  return found;
}

test("the reader of this test reads as systemd does", () => {
  const text =
    '# A\n; B\nONE=\'["a b","c\\d"]\'\nTWO=\nTHREE= x # y  \nFOUR="a \\"b\\" \\n"\'c\'\n FIVE=a\\ b\n';
  expect(readEnvironmentFile(text)).toEqual({
    ONE: '["a b","c\\d"]',
    TWO: "",
    THREE: "x # y",
    FOUR: 'a "b" \\nc',
    FIVE: "a b",
  });
  expect(() => readEnvironmentFile("export A=1\n")).toThrow("systemd would ignore");
});

/** What a process of ours understood; from source, in an empty directory but for what is put there. */
function understood(
  name: string,
  before: readonly string[],
  environment: Record<string, string>,
  file?: string,
) {
  const cwd = mkdtempSync(join(directory, "settings-"));
  if (file !== undefined) writeFileSync(join(cwd, ".env"), file);
  const command = [...before, process.execPath, join(ROOT, `${name}.ts`), "--check-config"];
  const done = Bun.spawnSync(command, { cwd, env: environment, timeout: CHECK_MS_MAX });
  return { code: done.exitCode, said: done.stdout.toString(), err: done.stderr.toString() };
}

/** The settings that README.md has one write, and sample.env with some of its values set. */
const SETTINGS = [
  documentText("sample.env"),
  documentText("sample.env")
    .replace("FINNHUB_API_TOKEN=\n", "FINNHUB_API_TOKEN=abc123\n")
    .replace("ADMIN_TOKEN=\n", "ADMIN_TOKEN=0123456789abcdef\n")
    .replace("KAFKA_SERVER=127.0.0.1", "KAFKA_SERVER=one:1,two")
    .replace("OUTBOX_MAX_BYTES=1GiB", "OUTBOX_MAX_BYTES=512 MiB"),
];

test.each([0, 1])(
  "sample.env is an EnvironmentFile as it is: each unit's process understands what it does of an .env (%p)",
  (index) => {
    const text = SETTINGS[index]!;
    const settings = readEnvironmentFile(text);
    for (const one of units) {
      const name = basename(programOf(one));
      const source = index === 0 && name === "producer" ? { FINNHUB_SIMULATE: "1" } : {};
      const fromFile = understood(name, [], { ...settings, ...source });
      const fromDotEnv = understood(name, [], source, text);
      expect(fromDotEnv).toMatchObject({ code: 0, err: "" });
      expect(fromDotEnv.said).toContain('FINNHUB_STOCKS_TICKERS=["BINANCE:BTCUSDT",');
      expect(fromFile).toEqual(fromDotEnv);
    }
  },
  CHECK_MS_MAX,
);

test(
  "the port of a processor's instance goes before the file's",
  () => {
    const settings = readEnvironmentFile(documentText("sample.env"));
    expect(settings.PROCESSOR_PORT).toBe("8082");
    const processor = units.find(({ file }) => file.includes("@"))!;
    const words = serviceOf(processor).ExecStart![0]!.replaceAll("%i", INSTANCE).split(" ");
    const { said } = understood("processor", words.slice(0, -1), settings);
    expect(said).toContain(`\nPROCESSOR_PORT=${INSTANCE}\n`);
  },
  CHECK_MS_MAX,
);
