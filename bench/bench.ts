// `bun run bench [parse encode outbox panes store local page kafka cassandra pipeline grafana disk] [--json]`: each names a question,
// all are asked without a name. Every question has a process of its own, so that no figure stands on what another one left in memory.
// `--json`: one line a figure, nothing else on standard output. `--short`: the questions about Kafka and Cassandra with
// a fifth of the work, for whoever changes something; such figures are not to be quoted.

import { cpus, loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { cassandra } from "./cassandra.ts";
import { disk } from "./disk.ts";
import { encode } from "./encode.ts";
import { grafana } from "./grafana.ts";
import { kafka } from "./kafka.ts";
import { local } from "./local.ts";
import { type Figure, headLine, jsonLine, textLine } from "./measure.ts";
import { outbox } from "./outbox.ts";
import { page } from "./page.ts";
import { panes } from "./panes.ts";
import { parse } from "./parse.ts";
import { pipeline } from "./pipeline.ts";
import { store } from "./store.ts";

const QUESTIONS: Readonly<Record<string, (isShort: boolean) => Promise<Figure[]>>> = {
  parse,
  encode,
  outbox,
  panes,
  store,
  local,
  page,
  kafka,
  cassandra,
  pipeline,
  grafana,
  disk,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    short: { type: "boolean", default: false },
    here: { type: "boolean", default: false },
  },
});
const names = positionals.length > 0 ? positionals : Object.keys(QUESTIONS);
const unknown = names.filter((name) => !(name in QUESTIONS));
if (unknown.length > 0) {
  console.error(
    `There is no question ${unknown.join(", ")}; there are ${Object.keys(QUESTIONS).join(", ")}.`,
  );
  process.exit(2);
}

if (values.here) {
  // The child of one question: figures as JSON for the parent, which prints them.
  for (const name of names)
    for (const figure of await QUESTIONS[name]!(values.short)) console.log(JSON.stringify(figure));
} else {
  if (!values.json) {
    const load = loadavg()
      .map((one) => one.toFixed(2))
      .join(" ");
    const { model = "unknown" } = cpus()[0] ?? {};
    console.log(`${new Date().toISOString()}  Bun ${Bun.version}  ${cpus().length} x ${model}  load ${load}`);
    console.log(headLine());
  }
  for (const name of names) await ask(name);
}

async function ask(name: string): Promise<void> {
  const child = Bun.spawn(
    [
      process.execPath,
      join(import.meta.dir, "bench.ts"),
      "--here",
      ...(values.short ? ["--short"] : []),
      name,
    ],
    {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    },
  );
  const text = await child.stdout.text();
  if ((await child.exited) !== 0) process.exit(1);
  for (const line of text.trim().split("\n")) {
    const figure = JSON.parse(line) as Figure;
    console.log(values.json ? jsonLine(figure) : textLine(figure));
    if (!values.json && figure.note !== undefined) console.log(`  ${figure.note}`);
  }
}
