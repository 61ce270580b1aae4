// local: the whole pipeline in one process on SQLite, with no server and no token.

import { run } from "./lib/app/lifecycle.ts";
import { openLocalApp } from "./lib/app/local.ts";
import { localCommands } from "./lib/commands/local.ts";

await run({
  name: "local",
  usage: `Stores every trade of Finnhub's websocket, aggregates it and shows it, in one process on SQLite.
Without a token it simulates a market.`,
  open: openLocalApp,
  commands: localCommands,
});
