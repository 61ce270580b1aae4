// admin: the pipeline on a screen, and the operator's verbs. It chooses the parts, answers until it is told to stop,
// and lets go of everything in reverse order.

import { openAdminApp } from "./lib/app/admin.ts";
import { startJobs } from "./lib/app/jobs.ts";
import { run } from "./lib/app/lifecycle.ts";
import { openStartup } from "./lib/app/startup.ts";
import { printLine } from "./lib/base/logger.ts";
import { adminCommands } from "./lib/commands/admin.ts";
import { grafanaCheckCommand } from "./lib/commands/grafana-check.ts";
import { initCommand } from "./lib/commands/init.ts";

const usage = `Shows the pipeline: its health, its tickers, its prices. Its verbs set it up and check it.`;

await run(
  { name: "admin", usage },
  async (context) => {
    await using start = openStartup(context, "admin", context.config.source?.kind === "simulator");
    printLine(`page: ${start.url}/`);
    await using parts = await openAdminApp(context, start);
    start.done(parts.health, parts.web);
    await using _jobs = startJobs(parts.jobs, context.logger);
    await parts.run();
  },
  [initCommand, ...adminCommands, grafanaCheckCommand],
);
