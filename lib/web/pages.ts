// Pages of what is stored: the range that a query means, and from one row more than a page holds the URL of the next.
// No row stands on two pages and none is missed between them. It reads and writes nothing.

import type { TimeRange } from "../contracts/store.ts";
import { DAY_MS, HOUR_MS } from "../model/trade.ts";
import { QueryError, RANGE_HOURS_DEFAULT } from "./query.ts";

export type Page<Item> = Readonly<{ items: readonly Item[]; next: string | null }>;

/** Without `to` everything that can be true lies before a day from now; without `from` a page is a day's. */
export function rangeOf(
  query: Readonly<{ from?: number | undefined; to?: number | undefined }>,
  nowMs: number,
): TimeRange {
  const toMs = query.to ?? nowMs + DAY_MS;
  const fromMs = query.from ?? Math.max(0, Math.min(toMs, nowMs) - RANGE_HOURS_DEFAULT * HOUR_MS);
  if (fromMs < toMs) return { fromMs, toMs };
  const isDefault = query.to === undefined ? ", which is a day ahead of now when it is not given" : "";
  throw new QueryError(
    `from must be earlier than to${isDefault}: from is ${iso(fromMs)}, to is ${iso(toMs)}`,
  );
}

function iso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

/** Without `to` as above; without `from` no start at all: the newest there are. */
export function endOf(query: Readonly<{ to?: number | undefined }>, nowMs: number): number {
  return query.to ?? nowMs + DAY_MS;
}

/**
 * `path`: relative to the route itself, and to the page, so that `next` leads there below a proxy's prefix too.
 * `rows`: up to `limit` + 1 of them. The one too many is not shown: it tells that there is a next page. `rest`: where the
 * search goes on that did not find as many.
 */
export function pageOf<Row>(
  path: string,
  rows: readonly Row[],
  limit: number,
  nextQuery: (last: Row) => Readonly<Record<string, string | number>>,
  rest: Readonly<Record<string, string | number>> | null = null,
): Page<Row> {
  const query = rows.length <= limit ? rest : nextQuery(rows[limit - 1]!);
  if (query === null) return { items: rows, next: null };
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) parameters.set(name, String(value));
  return { items: rows.slice(0, limit), next: `${path}?${parameters}` };
}
