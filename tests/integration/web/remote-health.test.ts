// Requesting the health of other processes: what counts as an answer, and what is said where there is none.

import { expect, test } from "bun:test";
import { systemClock } from "../../../lib/base/clock.ts";
import { httpRequest } from "../../../lib/base/http-client.ts";
import { createRemoteHealth } from "../../../lib/web/remote-health.ts";

function serve(respond: () => Response | Promise<Response>) {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: respond });
  return { url: `http://127.0.0.1:${server.port}`, [Symbol.asyncDispose]: () => server.stop(true) };
}

const document = {
  status: "failing",
  reason: "feed: silent",
  simulated: false,
  parts: { feed: { ok: false } },
};

test("the last document is kept, whatever its status; several of a kind are numbered", async () => {
  await using one = serve(() => Response.json(document, { status: 503 }));
  const watch = createRemoteHealth({ producer: [one.url], processor: [`${one.url}/`, one.url] }, systemClock);
  expect(watch.snapshots().map(({ name }) => name)).toEqual(["producer", "processor-1", "processor-2"]);
  expect(watch.snapshots()[0]).toMatchObject({ answeredAtMs: null, document: null, problem: null });
  await watch.poll();
  for (const snapshot of watch.snapshots()) {
    expect(snapshot).toMatchObject({ document: { reason: "feed: silent" }, problem: null });
    expect(snapshot.answeredAtMs).toBeGreaterThan(0);
  }
});

test("nobody there, and an answer that is not a health document, are problems; the last document stays", async () => {
  let answer: () => Response = () => Response.json(document);
  await using server = serve(() => answer());
  const watch = createRemoteHealth({ producer: [server.url] }, systemClock);
  await watch.poll();
  answer = () => new Response("<html>", { status: 502 });
  await watch.poll();
  expect(watch.snapshots()[0]).toMatchObject({
    document: { status: "failing" },
    problem: "answered 502 without a health document",
  });
  await server[Symbol.asyncDispose]();
  await watch.poll();
  expect(watch.snapshots()[0]?.problem).toBe("connection refused");
});

test("an answer is bounded in time and in size", async () => {
  const never = Promise.withResolvers<Response>();
  await using silent = serve(() => never.promise);
  expect(httpRequest(silent.url, 50)).rejects.toThrow("no answer within 50 ms");
  await using endless = serve(() => new Response("x".repeat(2_000_000)));
  expect(httpRequest(endless.url, 5_000)).rejects.toThrow("over 1048576 bytes");
});
