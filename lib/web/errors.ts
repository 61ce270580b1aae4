// Answers to what no route answers: mistakes in a query, an unknown path, a method that a path does not accept, a store
// that is away, and faults of ours. A fault is told to the log; no answer holds a stack trace or a secret.

import type { Hook, OpenAPIHono } from "@hono/zod-openapi";
import type { Env } from "hono";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import { StoreUnavailableError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import { RETRY_AFTER } from "./headers.ts";
import { problemsOf, QueryError } from "./query.ts";
import { nearest, quoted } from "./sentences.ts";

/** 400 where a parameter is not acceptable: a sentence for each mistake. */
export const answerMistakes: Hook<unknown, Env, string, unknown> = (result, context) => {
  if (result.success) return;
  const problems = problemsOf(result.error);
  return context.json({ error: problems[0] ?? "the query cannot be read", problems }, 400);
};

export function answerFaults(app: OpenAPIHono, logger: Logger): void {
  app.onError((error, context) => {
    const { method, path } = context.req;
    if (error instanceof HTTPException) return error.getResponse(); // A middleware's answer, complete as it is.
    if (error instanceof QueryError) {
      return context.json({ error: error.message, problems: [error.message] }, 400);
    }
    if (error instanceof StoreUnavailableError) {
      logger.warn("a request was not answered: the store cannot be read right now", { method, path, error });
      const sentence = "the store cannot be read right now: try again in a moment";
      return context.json({ error: sentence }, 503, RETRY_AFTER);
    }
    logger.error("a request failed because of an unexpected error; this is a bug, please report this line", {
      method,
      path,
      error,
    });
    return context.json({ error: "internal error: see the log of this service" }, 500);
  });
}

/**
 * After the routes were added: 405 for a known path, with the methods that it accepts, and 404 for an unknown one, with
 * the paths that there are.
 */
export function answerMisses(app: OpenAPIHono): void {
  const routes = app.routes.filter(({ method }) => method !== "ALL");
  const paths = [...new Set(routes.map((route) => route.path))];
  app.use(
    methodNotAllowed({
      app,
      onMethodNotAllowed(context, methods) {
        const { method, path } = context.req;
        const allow = methods.join(", ");
        const error = `${path} does not accept ${method}: it accepts ${allow}`;
        return context.json({ error }, 405, { allow });
      },
    }),
  );
  app.notFound((context) => {
    const { path } = context.req;
    const meant = nearest(path, paths);
    const guess = meant === undefined ? "" : ` Did you mean ${meant}?`;
    const error = `there is nothing at ${quoted(path)}.${guess} The paths are ${paths.join(", ")}`;
    return context.json({ error }, 404);
  });
}
