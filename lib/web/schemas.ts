// What several routes say of themselves in /doc: parts of an answer's shape, and how a route that lists is described.
// Rows have the column names of the tables, times are in ms. No answer is checked against these at run time: what is
// answered comes from our own store.

import { createRoute, type RouteConfig, z } from "@hono/zod-openapi";

export const timeMs = z.int().openapi({ description: "ms since 1970", example: 1_767_614_400_000 });
export const amount = z.number();
export const vwap = z
  .number()
  .nullable()
  .openapi({ description: "sum(p*v)/sum(v); null: no volume was traded" });

const failure = z.object({ error: z.string(), problems: z.array(z.string()).optional() }).openapi("Failure");

export function json<Schema extends z.ZodType>(description: string, schema: Schema) {
  return { description, content: { "application/json": { schema } } };
}

/** An answer that is an error: a sentence, and where there are several mistakes one for each. */
export function failed(description: string) {
  return json(description, failure);
}

export const badQuery = failed("A mistake in the query: a sentence each");

export function page<Item extends z.ZodType>(item: Item) {
  return z.object({
    items: z.array(item).readonly(),
    next: z.string().nullable().openapi({ description: "The URL of the next page; null: this is the last" }),
  });
}

/** A GET route that reads the store. */
export function listing<Path extends string, Query extends z.ZodObject, Answer extends z.ZodType>(
  path: Path,
  summary: string,
  query: Query,
  answer: Answer,
) {
  return createRoute({
    method: "get",
    path,
    summary,
    request: { query },
    responses: {
      200: json("The page", answer),
      400: badQuery,
      503: failed("The store cannot be read right now"),
    },
  } satisfies RouteConfig);
}
