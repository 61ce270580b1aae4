// admin: the pipeline on a screen, and the operator's commands.

import { openAdminApp } from "./lib/app/admin.ts";
import { run } from "./lib/app/lifecycle.ts";
import { adminCommands } from "./lib/commands/admin.ts";
import { grafanaCheckCommand } from "./lib/commands/grafana-check.ts";
import { initCommand } from "./lib/commands/init.ts";

await run({
  name: "admin",
  usage: `Shows the pipeline: its health, its tickers, its prices. Its commands set it up and check it.`,
  open: openAdminApp,
  commands: [initCommand, ...adminCommands, grafanaCheckCommand],
});
