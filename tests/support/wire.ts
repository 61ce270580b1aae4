// A wire between a browser and a server that a test can cut: bytes stop, and no end is told, as with a cable that is
// pulled. It counts the live streams that go over it.

import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export async function startWire(targetUrl: string) {
  const target = new URL(targetUrl);
  const pairs = new Set<{ near: Socket; far: Socket; isStream: boolean }>();
  let isCut = false;
  let readingCount = 0;
  let spoil: ((bytes: Buffer) => Buffer | null) | null = null;

  const server = createServer((near) => {
    const far = connect(Number(target.port), target.hostname);
    const pair = { near, far, isStream: false };
    pairs.add(pair);
    const end = () => {
      pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      socket.on("error", end);
      socket.on("close", () => !isCut && end());
    }
    near.on("data", (bytes) => {
      if (isCut) return; // Lost, and so this connection is dead for ever.
      if (bytes.includes("POST /events/")) readingCount += 1;
      if (bytes.includes("GET /events")) pair.isStream = true;
      far.write(bytes);
    });
    far.on("data", (bytes) => {
      if (isCut) return;
      const spoilt = spoil?.(Buffer.from(bytes)) ?? null;
      if (spoilt !== null) spoil = null;
      near.write(spoilt ?? bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut() {
      isCut = true;
    },
    /** What was connected before stays dead, and says nothing of it. */
    mend() {
      isCut = false;
    },
    /** Ends every connection, as a proxy that is started again does. */
    reset() {
      for (const { near, far } of pairs) for (const socket of [near, far]) socket.destroy();
      pairs.clear();
    },
    streamCount: () => [...pairs].filter(({ isStream, near }) => isStream && !near.destroyed).length,
    /** How often somebody said that he reads his stream. */
    readingCount: () => readingCount,
    /** The next bytes to the browser for which it answers something are replaced by that. */
    spoilOnce(replace: (bytes: Buffer) => Buffer | null) {
      spoil = replace;
    },
    async [Symbol.asyncDispose]() {
      for (const { near, far } of pairs) for (const socket of [near, far]) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
