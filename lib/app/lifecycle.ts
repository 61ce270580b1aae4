// From the command line to the exit code: what every binary does alike. It reads the settings, opens the logger, runs the
// service or a command and ends the process; it does not know what the process is for. The only file that ends a
// process or listens to its signals.
//
// Exit codes, for a supervisor:
//    0  done: the service or the command ended, or a stop was requested and everything in flight was finished
//    1  the operator must change something (settings, command line, an unreachable set-up); a restart does not help.
//       Also: healthcheck found the service failing or silent, and what else a command defines
//   70  a fault that nothing handled: restart
//   75  stopped before everything in flight was finished: a second signal, or a stop that took too long

import { CommanderError, Command as Program } from "commander";
import packageFile from "../../package.json" with { type: "json" };
import { reachableHost } from "../base/address.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import type { Command, CommandOptions, Context } from "../base/command.ts";
import {
  type Config,
  ConfigError,
  describeConfig,
  namesOf,
  portOf,
  readConfig,
  type ServiceName,
  sourceFor,
  sourceWords,
  supervisorSocket,
} from "../base/config.ts";
import { PipelineError, SetupError } from "../base/errors.ts";
import { httpRequest, NO_ANSWER } from "../base/http-client.ts";
import { parseObject } from "../base/json.ts";
import { type Logger, openLogger, printError, printLine } from "../base/logger.ts";
import { createMetrics, type Metrics } from "../base/metrics.ts";
import { startJobs } from "./jobs.ts";
import { type App, openStartup, type Startup } from "./startup.ts";
import { startSupervised } from "./supervised.ts";

declare const BUILD_VERSION: string | undefined;
/** scripts/build.ts puts the version in; run from source it is that of package.json. */
const version = typeof BUILD_VERSION === "string" ? BUILD_VERSION : `${packageFile.version}-source`;

const EXIT_OK = 0;
const EXIT_SETUP = 1;
const EXIT_FAULT = 70;
const EXIT_UNFINISHED = 75;

/** Supervisors are told to wait 40 s (compose.yaml, deploy/systemd): before that we say why. */
const STOP_MS_MAX = 30_000;
const HEALTHCHECK_MS_MAX = 3_000;
const LOOP_LAG_EVERY_MS = 1_000;

export type Service = Readonly<{
  name: ServiceName;
  /** For --help. */
  usage: string;
  open(context: Context, start: Startup): Promise<App>;
  commands?: readonly Command[];
}>;

/** Never returns: the process ends here. */
export async function run(service: Service): Promise<never> {
  // Whoever read our output may have gone; that is no reason to stop working.
  process.stdout.on("error", () => {});
  const program = createProgram(service);
  try {
    await program.parseAsync();
    return process.exit(EXIT_OK);
  } catch (error) {
    return process.exit(
      error instanceof CommanderError ? explainUsage(program, error) : explain(service.name, error, []),
    );
  }
}

/** The commands of the command line; without one the service runs. */
function createProgram(service: Service): Program {
  const { commands = [] } = service;
  const program = new Program(service.name)
    .description(service.usage)
    .version(version, "--version", "print the version")
    .option("--check-config", "print the settings as they are understood, without secrets, and exit")
    .helpOption("--help", "print this")
    .helpCommand(false)
    .allowExcessArguments(false)
    .addHelpText(
      "after",
      "\nSettings come from the environment; sample.env lists all of them with their defaults.",
    )
    .configureOutput({ writeOut: (text) => printLine(text.trimEnd()), writeErr: () => {} })
    .exitOverride()
    .action(async (options: { checkConfig?: true }) => {
      if (options.checkConfig) return printLine(describeService(service.name, readConfig()));
      process.exit(await runProcess(service, null));
    });
  program
    .command("healthcheck")
    .description("ask the running service for its health; exit 0 when it is well")
    .helpOption("--help", "print this")
    .allowExcessArguments(false)
    .action(async () => process.exit(await askHealth(service.name, readConfig())));
  for (const command of commands) {
    const subcommand = program
      .command(command.name)
      .description(command.usage)
      .helpOption("--help", "print this")
      .allowExcessArguments(false)
      .action(async (...given: unknown[]) => {
        // commander gives the operands, if the command takes any, then the options.
        const operands = command.operands === undefined ? [] : (given.shift() as string[]);
        process.exit(await runProcess(service, command, given[0] as CommandOptions, operands));
      });
    if (command.operands !== undefined) subcommand.argument(command.operands);
    for (const [flags, description] of command.options) subcommand.option(flags, description);
  }
  return program;
}

/** Runs one command, or without one the service. Resolves with the exit code. */
async function runProcess(
  service: Service,
  command: Command | null,
  options: CommandOptions = {},
  operands: readonly string[] = [],
): Promise<number> {
  const { name } = service;
  const config = readConfig();
  const logger = openLogger({ name, ...config.log, secrets: config.secrets });
  const clock = systemClock;
  const stop = createStop(clock, logger, (code) => process.exit(code));
  handleProcessEvents(stop, logger);
  const metrics = createMetrics();
  keepLoopLag(metrics, clock);
  const context = { config, clock, logger, metrics, signal: stop.signal };
  try {
    if (command !== null) return await command.main(context, options, operands);
    logger.info("starting", { version, pid: process.pid });
    await serve(service, context);
  } catch (error) {
    // `signal.throwIfAborted()` is one way to stop when asked.
    const isStop = stop.signal.aborted && error === stop.signal.reason;
    // A service retries what may succeed later; whoever waits for a command is told.
    const isSaid = isForOperator(error) || (command !== null && error instanceof PipelineError);
    if (!isStop && isSaid) return explain(name, error, config.secrets);
    if (isStop && command !== null) return EXIT_UNFINISHED;
    if (!isStop) {
      logger.error(
        "the process ends because of an unexpected error; this is a bug, please report this line",
        { error },
      );
      return EXIT_FAULT;
    }
  }
  logger.info("stopped");
  return EXIT_OK;
}

/** Opens the service's parts, runs them until a stop is requested, and releases everything in reverse order. */
async function serve({ name, open }: Service, context: Context): Promise<void> {
  await using start = openStartup(context, name);
  using supervised = startSupervised({ ...context, socketPath: supervisorSocket() }, start.health);
  const hasPage = name === "local" || name === "admin";
  const printAddress = () => printLine(hasPage ? `page: ${start.url}/` : `health: ${start.url}/health`);
  // local waits for no server: its address is printed when the page is there. The others may wait for a long time.
  if (name !== "local") printAddress();
  await using app = await open(context, start);
  start.done(app);
  // Answers on their way need the app's store, so with a page the port is closed before the app.
  await using _port = app.web === undefined ? null : start;
  await using _jobs = startJobs(app.jobs, context.logger);
  supervised.ready(() => app.health());
  if (name === "local") printAddress();
  await app.run(context.signal);
}

function handleProcessEvents(stop: ReturnType<typeof createStop>, logger: Logger): void {
  for (const event of ["SIGTERM", "SIGINT"] as const) process.on(event, () => stop.request(event));
  for (const event of ["uncaughtException", "unhandledRejection"] as const) {
    process.on(event, (error) => {
      logger.error(
        "the process ends because of an unexpected error; this is a bug, please report this line",
        { event, error },
      );
      process.exit(EXIT_FAULT);
    });
  }
}

function isForOperator(error: unknown): boolean {
  return error instanceof SetupError || error instanceof ConfigError;
}

function explainUsage(program: Program, error: CommanderError): number {
  if (error.exitCode === 0) return EXIT_OK; // --help and --version end this way.
  const command = program.args[0];
  const commands = program.commands.map((command) => command.name());
  const isUnknownCommand = error.code === "commander.excessArguments" && !commands.includes(command ?? "");
  const fault = isUnknownCommand
    ? `unknown command '${command}' (there is ${commands.join(", ")})`
    : error.message
        .replace(/^error: /, "")
        .replace(/\n/g, " ")
        .replace(/\.$/, "");
  printError(`${program.name()}: ${fault}; see ${program.name()} --help`);
  return EXIT_SETUP;
}

/** Prints in plain sentences what the operator can do, and returns the exit code. */
function explain(name: ServiceName, error: unknown, secrets: readonly string[]): number {
  if (error instanceof ConfigError) {
    const count = error.mistakes.length;
    printError(`${name}: ${count} ${count === 1 ? "setting needs" : "settings need"} your attention`);
    for (const mistake of error.mistakes) printError(`  ${mistake}`, secrets);
    return EXIT_SETUP;
  }
  if (error instanceof PipelineError) {
    printError(`${name}: ${error.message}`, secrets);
    const because = error.cause instanceof Error ? error.cause.message : "";
    if (!error.message.includes(because)) printError(`  because: ${because}`, secrets);
    if (error.hint !== undefined) printError(`  ${error.hint}`, secrets);
    return EXIT_SETUP;
  }
  printError(`${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`, secrets);
  return EXIT_FAULT;
}

function describeService(name: ServiceName, config: Config): string {
  const source = sourceFor(config, name);
  const names = namesOf(config, source);
  return [
    describeConfig(config),
    "",
    `source: ${source === null ? "none is set, so this binary uses the names of real data" : sourceWords(source)}`,
    `data: directory ${names.dataDirectory}, topic ${names.topic}, keyspace ${names.keyspace}`,
  ].join("\n");
}

/** The two signals: the first requests a stop, the second stops waiting. It ends no process itself, so tests can use it. */
export function createStop(clock: Clock, logger: Logger, exit: (code: number) => void) {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    request(cause: string): void {
      if (controller.signal.aborted) {
        logger.warn("asked twice to stop: not waiting for what is in flight", { cause });
        exit(EXIT_UNFINISHED);
        return;
      }
      logger.info("stopping: finishing what is in flight", { cause });
      controller.abort();
      clock.after(STOP_MS_MAX, () => {
        logger.error("stopping took too long: what is in flight was left", { limitMs: STOP_MS_MAX });
        exit(EXIT_UNFINISHED);
      });
    },
  };
}

/** Requests /health of this machine's own service and prints the answer as one line. Resolves with the exit code. */
async function askHealth(name: ServiceName, config: Config): Promise<number> {
  const port = portOf(config, name);
  if (port === 0) {
    printLine("unknown: the port is 0 (any free one), so nobody can tell where to ask; set a port");
    return EXIT_SETUP;
  }
  const url = `http://${reachableHost(config.web.bindAddress)}:${port}/health`;
  try {
    const { status, body } = await httpRequest(url, HEALTHCHECK_MS_MAX);
    printLine(`${status === 200 ? "ok" : "failing"}: ${url} answered ${status}${reasonIn(body)}`);
    return status === 200 ? EXIT_OK : EXIT_SETUP;
  } catch (error) {
    const isLate = error instanceof Error && error.message.startsWith(NO_ANSWER);
    const fault = isLate ? `did not answer within ${HEALTHCHECK_MS_MAX} ms` : "cannot be reached";
    printLine(`failing: ${url} ${fault}; is ${name} running, and with these settings?`);
    return EXIT_SETUP;
  }
}

function reasonIn(body: string): string {
  const reason = parseObject(body)?.reason;
  return typeof reason === "string" && reason !== "" ? `: ${reason.replace(/\s+/g, " ").slice(0, 300)}` : "";
}

/** Sets the gauge of event loop lag once a second for as long as the process lives. */
function keepLoopLag(metrics: Metrics, clock: Clock): void {
  const measure = (lagMs: number) => {
    metrics.eventLoopLagSeconds.set(Math.max(0, lagMs) / 1_000);
    const dueAtMs = clock.monotonic() + LOOP_LAG_EVERY_MS;
    clock.after(LOOP_LAG_EVERY_MS, () => measure(clock.monotonic() - dueAtMs));
  };
  measure(0);
}
