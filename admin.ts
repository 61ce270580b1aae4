// admin: the pipeline on a screen, and the operator's verbs. It chooses the parts, answers until it is told to stop,
// and lets go of everything in reverse order.

import { openAdmin } from "./lib/app/admin.ts";
import { startJobs } from "./lib/app/jobs.ts";
import { run } from "./lib/app/lifecycle.ts";
import { openStart } from "./lib/app/startup.ts";
import { print } from "./lib/base/logger.ts";
import { adminVerbs } from "./lib/commands/admin.ts";
import { grafanaVerb } from "./lib/commands/grafana-check.ts";
import { initVerb } from "./lib/commands/init.ts";

const usage = `Shows the pipeline: its health, its tickers, its prices. Its verbs set it up and check it.`;

await run(
  { name: "admin", usage },
  async (context) => {
    await using start = openStart(context, "admin", context.config.source?.kind === "simulator");
    print(`page: ${start.url}/`);
    await using parts = await openAdmin(context, start);
    start.done(parts.health, parts.web);
    await using _jobs = startJobs(parts.jobs, context.report);
    await parts.run();
  },
  [initVerb, ...adminVerbs, grafanaVerb],
);
