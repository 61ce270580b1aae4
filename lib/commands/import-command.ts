// `import FILES`: the same command for the store of local and for that of admin, which differ in how it is opened and
// in how young a trade may be.

import type { CommandOptions, Context } from "../base/command.ts";
import { printLine, terminal } from "../base/logger.ts";
import type { StoreWriter } from "../contracts/store.ts";
import { sizeOf } from "../imports/files.ts";
import { readImportOptions } from "./arguments.ts";
import { dryRun, importFiles } from "./import.ts";
import { printExample, printImported, printTrade, progressBar } from "./import-output.ts";

export const IMPORT_USAGE =
  "store trades that somebody else recorded (CSV, NDJSON, Parquet; .gz, .zst, .zip; docs/IMPORT.md), and their windows.\n" +
  "It may be stopped and run again: what is stored already is passed, and nothing is there twice.";

/** `open`: the store, once the options and the names of the files are known to be good. */
export async function runImport(
  context: Context,
  options: CommandOptions,
  paths: readonly string[],
  beforeMs: number,
  open: () => Promise<StoreWriter>,
): Promise<number> {
  const { clock, logger, signal, config } = context;
  const { isDry, ...read } = readImportOptions(options);
  for (const path of paths) sizeOf(path); // All names are good before the first trade is stored.
  const bar = progressBar(clock, terminal());
  const deps = { clock, signal, beforeMs, onProgress: bar.show };
  const isJson = options.json === true;
  try {
    if (isDry) {
      const imported = await dryRun(deps, paths, read, {
        onEntry: (name, format) => printLine(`${name}: ${format}`),
        onTrade: (row) => printTrade(row.symbol, row.trade_timestamp, row.price, row.volume, row.uuid),
        onExample: printExample,
      });
      bar.end();
      return printImported(imported, true, isJson);
    }
    const store = await open();
    const { retentionDays } = config;
    const imported = await importFiles({ ...deps, store, logger, retentionDays }, paths, read, printExample);
    bar.end();
    return printImported(imported, false, isJson);
  } finally {
    bar.end();
  }
}
