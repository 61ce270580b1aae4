// CONTRIBUTING.md and grafana/README.md, in the checkout: what a newcomer types in the first hour. Watchers and
// debuggers are started, seen to do their part, and ended by Control-C.

import { Database } from "bun:sqlite";
import { describe, expect } from "bun:test";
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../../support/builders.ts";
import { blockOf } from "./read.ts";
import { look, newWalk, type Reader, runIn, SEEN_MS_MAX, step } from "./steps.ts";

/** What the command with FILE is tried on: the test of the processor that has such a trade. */
const PROCESSOR_TEST = "tests/unit/processing/processor.test.ts";
const GREEN = /^ \d+ pass\n(?:[^\n]*\n)* 0 fail$/m;

export function contributing({ clone, checkout }: Reader): void {
  const walk = newWalk();
  describe("CONTRIBUTING.md and grafana/README.md, in the checkout", () => {
    step(walk, "npm run dev", async (text) => {
      const job = await checkout().start(text, /^page: http/m);
      const entrypoint = join(clone, "local.ts");
      const before = readFileSync(entrypoint, "utf8");
      appendFileSync(entrypoint, "// A change.\n");
      await eventually(SEEN_MS_MAX, "a second start", async () => job.said().split("\npage: ").length > 2);
      await job.interrupt();
      writeFileSync(entrypoint, before);
      expect(job.said()).toContain("stopped");
      expect(job.said()).not.toContain("asked twice");
      return job.said().slice(job.said().lastIndexOf("page: "));
    });
    look(walk, "what the outbox holds can be asked after a stop", async () => {
      using outbox = new Database(join(clone, "data/simulated/outbox.sqlite"), { readonly: true });
      outbox.query(blockOf("CONTRIBUTING.md", "sql")).all();
    });
    step(newWalk(), "npm run debug", async (text) => {
      const job = await checkout().start(text, /^\s*ws:\/\/\S+$/m);
      await job.interrupt();
      expect(job.said()).not.toContain("page: ");
      return /ws:\S+/.exec(job.said())![0];
    });
    step(
      newWalk(),
      'npx bun --inspect-brk test FILE -t "an hour late"',
      async (text) => {
        const job = await checkout().start(text, /^\s*ws:\/\/\S+$/m);
        await job.interrupt();
        return /ws:\S+/.exec(job.said())![0];
      },
      { changes: () => [["FILE", PROCESSOR_TEST]] },
    );
    look(walk, "and there is a test of that name", async () => {
      const { err } = await runIn(checkout(), `npm run test:one -- ${PROCESSOR_TEST} -t "an hour late"`);
      expect(err).toMatch(/^ 1 pass$/m);
    });

    for (const command of ["npm run test:unit", "npm run test:one -- tests/tidy.test.ts"])
      step(newWalk(), command, async (text) => {
        const { err } = await runIn(checkout(), text);
        expect(err).toMatch(GREEN);
        return /^Ran .*$/m.exec(err)![0];
      });
    step(newWalk(), "npm run test:watch", async (text) => {
      const job = await checkout().start(text, /^Ran \d+ tests? /m);
      await job.interrupt();
      expect(job.said()).toMatch(GREEN);
      return /^Ran .*$/m.exec(job.said())![0];
    });
    for (const command of ["npm run check", "npm run format"])
      step(newWalk(), command, async (text) => {
        const { out, err } = await runIn(checkout(), text);
        expect(out + err).toMatch(/^Checked \d+ files in .*\. No fixes applied\.$/m);
        return /^Checked \d+ files.*$/m.exec(out + err)![0];
      });
    step(newWalk(), "npm run grafana", async (text) => {
      const written = () =>
        ["market", "pipeline"].map((name) =>
          readFileSync(join(clone, `grafana/dashboards/${name}.json`), "utf8"),
        );
      const before = written();
      await runIn(checkout(), text);
      expect(written()).toEqual(before);
      return "(nothing)";
    });
  });
}
