// `bun run grafana`: writes grafana/dashboards/*.json, which compose.yaml mounts into Grafana. They are generated, so
// that no panel can be edited apart from the queries that the tests ask; a test writes them again and compares.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { market } from "./grafana/market.ts";
import { pipeline } from "./grafana/pipeline.ts";

/** By file name: the text of each dashboard. */
export function dashboards(): Readonly<Record<string, string>> {
  const text = (dashboard: unknown) => `${JSON.stringify(dashboard, null, 2)}\n`;
  return { "market.json": text(market()), "pipeline.json": text(pipeline()) };
}

if (import.meta.main) {
  const directory = join(import.meta.dir, "../grafana/dashboards");
  for (const [name, text] of Object.entries(dashboards())) writeFileSync(join(directory, name), text);
}
