// `npm test`: types, lint and format, then every test. Its last line counts what really ran, from bun's own
// summary; types, the page's types and lint count as one test each. Nothing that failed, crashed or did not run
// can look green. One real Kafka and one real Cassandra start meanwhile, for all tests, where Java and Maven are;
// where they are not, one line says so and their tests skip.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { startCassandra } from "../tests/support/services/cassandra.ts";
import { whatIsMissing } from "../tests/support/services/java.ts";
import { startKafka } from "../tests/support/services/kafka.ts";
import type { Server } from "../tests/support/services/server.ts";
import {
  CASSANDRA_VARIABLE,
  KAFKA_VARIABLE,
  missingSentence,
  SERVICES_VARIABLE,
} from "../tests/support/services/shared.ts";

const root = join(import.meta.dir, "..");
/** The continuous integration must have everything there: what skips here fails there. */
const isSkippingAllowed = process.env.CI !== "true";
/** Each file runs in a process of its own, so that files share no state; more processes than cores do not help. */
const PROCESSES_MAX = 2;
const TEST_MS_MAX = 30_000;
/** A loop that never yields outlives a test's own limit. */
const ALL_TESTS_MS_MAX = 1_800_000;

type Count = { passed: number; failed: number; skipped: number };
/** What the tests find in their environment, and whether that is how it should be. */
type Services = { variables: Record<string, string>; failed: number };

await using servers = new AsyncDisposableStack();
// Servers take seconds, and so do types and lint: neither waits for the other.
const [services, types, pageTypes, lint] = await Promise.all([
  startServices(),
  check("types", ["node_modules/typescript/bin/tsc", "--noEmit"]),
  check("page types", ["node_modules/typescript/bin/tsc", "--noEmit", "-p", "lib/web/page"]),
  check("lint and format", ["node_modules/@biomejs/biome/bin/biome", "check", "."]),
]);
const tests = existsSync(join(root, "tests"))
  ? await runTests(services.variables)
  : { passed: 0, failed: 0, skipped: 0 };

const passed = types.passed + pageTypes.passed + lint.passed + tests.passed;
const skipped = tests.skipped;
let failed = services.failed + types.failed + pageTypes.failed + lint.failed + tests.failed;
if (tests.passed + tests.failed === 0) {
  console.error("no test ran");
  failed += 1;
}
if (skipped > 0 && !isSkippingAllowed) console.error(`${skipped} skipped, and CI=true allows none`);
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed > 0 || (skipped > 0 && !isSkippingAllowed) ? 1 : 0;

async function check(name: string, command: string[]): Promise<Count> {
  const child = Bun.spawn([process.execPath, ...command], { cwd: root, stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  console.log(code === 0 ? `(pass) ${name}` : `${output}${errors}(fail) ${name}`);
  return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 };
}

async function startServices(): Promise<Services> {
  const without = { [SERVICES_VARIABLE]: "none" };
  if (process.env[SERVICES_VARIABLE] === "none") {
    console.error(missingSentence(`what ${SERVICES_VARIABLE}=none leaves out`));
    return { variables: without, failed: 0 };
  }
  const areGiven = process.env[KAFKA_VARIABLE] && process.env[CASSANDRA_VARIABLE];
  if (areGiven) return { variables: {}, failed: 0 }; // A developer's own pair, from `bun run services`.
  const missing = whatIsMissing();
  if (missing !== null) {
    console.error(missingSentence(missing));
    return { variables: without, failed: process.env[SERVICES_VARIABLE] === "required" ? 1 : 0 };
  }
  const addressOf = (server: Server) => `${server.host}:${server.port}`;
  const started = await Promise.allSettled([
    startKafka({ isOptimized: true }),
    startCassandra({ isOptimized: true, rowsBeyond2038: true }),
  ]);
  for (const one of started) {
    if (one.status === "fulfilled") servers.use(one.value);
    else console.error(`(fail) services\n${one.reason}`);
  }
  const [kafka, cassandra] = started;
  if (kafka.status === "rejected" || cassandra.status === "rejected")
    return { variables: without, failed: 1 };
  const variables = {
    [KAFKA_VARIABLE]: addressOf(kafka.value),
    [CASSANDRA_VARIABLE]: addressOf(cassandra.value),
  };
  return { variables, failed: 0 };
}

async function runTests(variables: Record<string, string>): Promise<Count> {
  const options = [`--parallel=${PROCESSES_MAX}`, `--timeout=${TEST_MS_MAX}`];
  // A developer's .env is for his services, not for the tests.
  const child = Bun.spawn([process.execPath, "--no-env-file", "test", ...options, "tests/"], {
    cwd: root,
    env: { ...process.env, ...variables },
    stdout: "inherit",
    stderr: "pipe",
    timeout: ALL_TESTS_MS_MAX,
  });
  let output = "";
  const decoder = new TextDecoder();
  for await (const chunk of child.stderr) {
    process.stderr.write(chunk);
    output += decoder.decode(chunk, { stream: true });
  }
  const code = await child.exited;
  const summary = output.slice(output.lastIndexOf("\n\n"));
  const count = (word: string) => Number(new RegExp(`^ (\\d+) ${word}$`, "m").exec(summary)?.[1] ?? 0);
  const tests = { passed: count("pass"), failed: count("fail"), skipped: count("skip") + count("todo") };
  // A crash before the summary, or a fault outside any test: bun knows, and so must the count.
  const isFaultUncounted = tests.failed === 0 && (code !== 0 || !/^Ran \d+ tests? /m.test(summary));
  return isFaultUncounted ? { ...tests, failed: 1 } : tests;
}
