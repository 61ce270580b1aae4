// The life of a process, on real processes: tests/support/fixtures/service.ts is the smallest service there can be.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { createStop } from "../../lib/app/lifecycle.ts";
import type { Clock } from "../../lib/base/clock.ts";
import { silentLogger } from "../../lib/base/logger.ts";
import { eventually, temporaryDirectory } from "../support/builders.ts";

const FIXTURE = join(import.meta.dir, "../support/fixtures/service.ts");
const TOKEN = "tok-4711-XYZ";

type Environment = Record<string, string>;
type Ended = { code: number; out: string; err: string };

/** From a directory of its own, so that no .env of a developer is read, and with no setting but these. */
function start(does: string, args: string[] = [], environment: Environment = {}) {
  const directory = temporaryDirectory();
  const child = Bun.spawn([process.execPath, FIXTURE, ...args], {
    cwd: directory.path,
    env: { FIXTURE: does, ADMIN_PORT: "0", ...environment },
    stdout: "pipe",
    stderr: "pipe",
    timeout: 20_000,
  });
  const reader = child.stdout.getReader();
  const decoder = new TextDecoder();
  let out = "";
  const read = async (): Promise<boolean> => {
    const { done, value } = await reader.read();
    if (value !== undefined) out += decoder.decode(value, { stream: true });
    return !done;
  };
  const err = child.stderr.text();
  /** Standard output without the line that begins that of every service, its address. */
  const said = () => out.replace(/^page: .*\n/m, "");
  return {
    child,
    /** Where it answers, as its first line says, without a slash at the end. */
    async url(): Promise<string> {
      while (!/^page: .*\n/m.test(out) && (await read())) {}
      return /^page: (.*)\/$/m.exec(out)?.[1] ?? "";
    },
    /** What standard output holds once this line is there. */
    async until(line: RegExp): Promise<string> {
      while (!line.test(said()) && (await read())) {}
      return said().trim();
    },
    closeOutput: () => reader.cancel(),
    async ended(): Promise<Ended> {
      while (await read().catch(() => false)) {}
      const code = await child.exited;
      directory[Symbol.dispose]();
      return { code, out: said(), err: await err };
    },
  };
}

const ended = (does: string, args?: string[], environment?: Environment) =>
  start(does, args, environment).ended();

test("--help and --version answer on standard output and end well", async () => {
  const [help, version] = await Promise.all([ended("", ["--help"]), ended("", ["--version"])]);
  expect(help).toMatchObject({ code: 0, err: "" });
  for (const word of ["A service for tests.", "healthcheck", "--check-config", "--version", "sample.env"]) {
    expect(help.out).toContain(word);
  }
  expect(version).toMatchObject({ code: 0, err: "" });
  expect(version.out).toMatch(/^\d+\.\d+\.\d+/);
});

test("--check-config shows every setting without its secrets, and the names in use", async () => {
  const real = await ended("", ["--check-config"], { FINNHUB_API_TOKEN: TOKEN, KAFKA_PORT: "1234" });
  expect(real).toMatchObject({ code: 0, err: "" });
  expect(real.out).toContain("FINNHUB_API_TOKEN=set\n");
  expect(real.out).toContain("KAFKA_PORT=1234\n");
  expect(real.out).toContain("source: Finnhub\n");
  expect(real.out).not.toContain(TOKEN);
  const simulated = await ended("", ["--check-config"]);
  expect(simulated.out).toContain("source: the built-in simulator\n");
  expect(simulated.out).toContain("directory ./data/simulated, topic market_simulated");
});

test("an unknown command or option is refused in one line that names --help", async () => {
  const answers = await Promise.all(
    [["helthcheck"], ["--chek-config"], ["healthcheck", "now"]].map((a) => ended("", a)),
  );
  for (const { code, out, err } of answers) {
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toMatch(/^local: .*; see local --help\n$/);
  }
  expect(answers[0]?.err).toContain("unknown command 'helthcheck' (there is healthcheck, count)");
  expect(answers[1]?.err).toContain("Did you mean --check-config?");
});

test("wrong settings end it with code 1, all mistakes in sentences, no stack", async () => {
  const { code, out, err } = await ended("log", [], { KAFKA_PORT: "x", FINHUB_API_TOKEN: TOKEN });
  expect({ code, out }).toEqual({ code: 1, out: "" });
  expect(err).toBe(
    "local: 2 settings need your attention\n" +
      "  FINHUB_API_TOKEN: did you mean FINNHUB_API_TOKEN? Rename it, or unset it if it belongs to another program\n" +
      '  KAFKA_PORT: give a whole number from 1 to 65535; found "x"\n',
  );
});

test("what the operator must change is told with its cause and hint, without a stack, code 1", async () => {
  const { code, err } = await ended("refuse", [], { LOG_LEVEL: "error" });
  expect(code).toBe(1);
  expect(err).toMatch(/^local: port 1 is taken.*\n {2}because: in use.*\n {2}Try another.*\n$/);
});

test.each(["throw", "throw in passing", "reject in passing"])(
  "a fault (%s) is logged with its stack, code 70",
  async (does) => {
    const { code, err } = await ended(does);
    expect(code).toBe(70);
    const line = JSON.parse(err.trimEnd().split("\n").at(-1) ?? "") as {
      properties: { error: { stack: string } };
    };
    expect(line.properties.error.stack).toMatch(/service\.ts:\d+/);
  },
);

test.each(["SIGTERM", "SIGINT"] as const)("%s lets main finish what is in flight, code 0", async (signal) => {
  const service = start("wait for a signal");
  expect(await service.until(/\n/)).toBe("ready");
  service.child.kill(signal);
  const { code, out, err } = await service.ended();
  expect({ code, out }).toEqual({ code: 0, out: "ready\nfinished\n" });
  expect(err).toContain('"message":"stopped"');
});

test("stopping by throwing the signal's reason is a stop, not a fault", async () => {
  const service = start("stop by throwing");
  await service.until(/\n/);
  service.child.kill("SIGTERM");
  expect((await service.ended()).code).toBe(0);
});

test("a service says where it answers, and ends at a stop with its port closed", async () => {
  const service = start("wait for a signal");
  const url = await service.url();
  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
  const health = await fetch(`${url}/health`);
  expect(health.status).toBe(200);
  service.child.kill("SIGTERM");
  expect((await service.ended()).code).toBe(0);
  expect(await fetch(`${url}/health`).catch(() => null)).toBeNull();
});

test("while its parts are opened the port answers that the service waits for them", async () => {
  // A port that was free a moment ago.
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
  const port = String(server.port);
  await server.stop(true);
  const service = start("never open", [], { ADMIN_PORT: port });
  let answer = "";
  await eventually(10_000, "an answer", async () => {
    const response = await fetch(`http://127.0.0.1:${port}/health`).catch(() => null);
    if (response !== null) answer = `${response.status} ${await response.text()}`;
    return response !== null;
  });
  expect(answer).toMatch(/^503 .*"reason":"start: waiting for [^"]* for its parts"/);
  service.child.kill("SIGKILL");
  await service.ended();
});

test("a second signal stops waiting, code 75", async () => {
  const service = start("never stop");
  await service.until(/\n/);
  service.child.kill("SIGINT");
  await service.until(/asked/); // Two signals at once may arrive as one.
  service.child.kill("SIGINT");
  expect(await service.ended()).toMatchObject({ code: 75, out: "ready\nasked\n" });
});

test("a stop that takes longer than its limit ends the process with code 75", () => {
  const codes: number[] = [];
  let timer: { durationMs: number; callback: () => void } | undefined;
  const clock = {
    after: (durationMs: number, callback: () => void) => {
      timer = { durationMs, callback };
      return () => {};
    },
  } as Clock;
  const stop = createStop(clock, silentLogger, (code) => codes.push(code));
  expect(timer).toBeUndefined();
  stop.request("SIGTERM");
  expect(stop.signal.aborted).toBeTrue();
  expect(timer?.durationMs).toBe(30_000);
  expect(codes).toEqual([]);
  timer?.callback();
  expect(codes).toEqual([75]);
});

test("healthcheck is 0 for 200 and 1 for anything else, in one line, past any proxy", async () => {
  const proxy = { http_proxy: "http://127.0.0.1:1", HTTP_PROXY: "http://127.0.0.1:1" };
  const check = async (status: string) => {
    const service = start("serve", [], { FIXTURE_STATUS: status });
    const ADMIN_PORT = await service.until(/\n/);
    const answer = await ended("", ["healthcheck"], { ADMIN_PORT, BIND_ADDRESS: "0.0.0.0", ...proxy });
    service.child.kill("SIGTERM");
    await service.ended();
    return { ...answer, out: answer.out.replace(ADMIN_PORT, "PORT") };
  };
  const [well, failing] = await Promise.all([check("200"), check("503")]);
  const url = "http://127.0.0.1:PORT/health";
  expect(well).toEqual({ code: 0, out: `ok: ${url} answered 200: the feed is silent\n`, err: "" });
  expect(failing).toEqual({ code: 1, out: `failing: ${url} answered 503: the feed is silent\n`, err: "" });
});

test("healthcheck without anybody there, or with a port nobody knows, is 1", async () => {
  // A port that was free a moment ago.
  using server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response() });
  const port = String(server.port);
  await server.stop(true);
  const [silent, unknown] = await Promise.all([
    ended("", ["healthcheck"], { ADMIN_PORT: port }),
    ended("", ["healthcheck"], { ADMIN_PORT: "0" }),
  ]);
  expect(silent).toMatchObject({ code: 1, err: "" });
  expect(silent.out).toMatch(/^failing: .*cannot be reached; is local running.*\n$/);
  expect(unknown).toMatchObject({ code: 1, err: "" });
  expect(unknown.out).toMatch(/^unknown: .*set a port\n$/);
});

test("healthcheck gives up on a service that does not answer", async () => {
  using server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Promise<Response>(() => {}) });
  const { code, out } = await ended("", ["healthcheck"], { ADMIN_PORT: String(server.port) });
  expect(code).toBe(1);
  expect(out).toContain("did not answer within 3000 ms");
});

test("a reader of standard output that goes away does not end the process", async () => {
  const service = start("write into a closed pipe");
  await service.until(/ready/);
  await service.closeOutput();
  service.child.kill("SIGTERM");
  const { code, err } = await service.ended();
  expect(code).toBe(0);
  expect(err).toContain("still here");
});

test("the gauges of the process are filled", async () => {
  const { out } = await ended("measure");
  const gauge = (name: string) => Number(new RegExp(`^pipeline_process_${name} (\\S+)$`, "m").exec(out)?.[1]);
  expect(gauge("resident_memory_bytes")).toBeGreaterThan(1e6);
  expect(gauge("cpu_seconds_total")).toBeGreaterThan(0);
  expect(gauge("event_loop_lag_seconds")).toBeGreaterThanOrEqual(0);
});

test("a token fed through every log and error path is found nowhere", async () => {
  const ways = ["log", "throw", "refuse", "throw in passing", "reject in passing"];
  const formats = ["json", "pretty"].map((LOG_FORMAT) => ({
    LOG_FORMAT,
    LOG_LEVEL: "debug",
    FINNHUB_API_TOKEN: TOKEN,
  }));
  const answers = await Promise.all(
    ways.flatMap((way) => formats.map((environment) => ended(way, [], environment))),
  );
  for (const { out, err } of answers) {
    expect(out + err).not.toContain(TOKEN);
    expect(err).toContain("[secret]");
  }
});

test("a command's answer is the exit code, its flags are its own, and it is listed", async () => {
  const [zero, one, away, unknown, stray, help] = await Promise.all([
    ended("", ["count", "--as", "0"]),
    ended("", ["count", "--as", "1"]),
    ended("", ["count", "--away"]),
    ended("", ["count", "--of"]),
    ended("", ["count", "twice"]),
    ended("", ["--help"]),
  ]);
  expect(zero).toEqual({ code: 0, out: "", err: "" });
  expect(one).toEqual({ code: 1, out: "", err: "" });
  expect(away).toEqual({ code: 1, out: "", err: "local: nobody answers\n  see whether it runs\n" });
  for (const { code, err } of [unknown, stray]) {
    expect(code).toBe(1);
    expect(err).toContain("see local --help");
  }
  expect(help.out).toContain("A command for tests.");
});

test("a command that is told to stop has not finished, and its exit code says so", async () => {
  const command = start("", ["count"]);
  await command.until(/^ready$/m);
  command.child.kill("SIGTERM");
  expect((await command.ended()).code).toBe(75);
});
