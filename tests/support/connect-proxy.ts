// An HTTP proxy on loopback for tests: tunnels by CONNECT, and requests by their absolute address. It knows where the
// names lead that nobody else can resolve, so whatever arrives there came through it.

import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";

type ProxyOptions = Readonly<{
  /** The port on loopback that an address leads to; others are answered with 502. */
  ports?: Readonly<Record<string, number>>;
  /** `user:password`; who does not send it is answered with 407. */
  login?: string;
  /** The status line of every answer; null: it answers nothing at all. */
  answer?: string | null;
}>;

export async function startProxy({ ports = {}, login, answer }: ProxyOptions) {
  const requests: string[] = [];
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => sockets.delete(socket));
  };
  const server = createServer((client) => {
    keep(client);
    client.once("data", (first) => {
      const head = first.toString("latin1");
      const [line = ""] = head.split("\r\n");
      requests.push(line.replace(/ HTTP\/1\.1$/, ""));
      const refuse = (status: string) =>
        client.end(`HTTP/1.1 ${status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
      if (answer === null) return;
      if (answer !== undefined) return refuse(answer);
      const sent = /^Proxy-Authorization: Basic (\S+)\r?$/im.exec(head)?.[1] ?? "";
      if (login !== undefined && atob(sent) !== login) return refuse("407 Proxy Authentication Required");
      const [, tunnel, plain] = /^(?:CONNECT (\S+)|\w+ http:\/\/([^/\s]+)\S*) /.exec(line) ?? [];
      const port = ports[tunnel ?? plain ?? ""];
      if (port === undefined) return refuse("502 Bad Gateway");
      const upstream = connect(port, "127.0.0.1", () => {
        if (tunnel === undefined) upstream.write(first);
        else client.write("HTTP/1.1 200 Connection established\r\n\r\n");
        client.pipe(upstream).pipe(client);
      });
      keep(upstream);
      client.on("close", () => upstream.destroy());
    });
  });
  const port = await listening(server);
  return {
    url: `http://${login === undefined ? "" : `${login}@`}127.0.0.1:${port}`,
    port,
    /** The first line of each connection's first request. */
    requests: requests as readonly string[],
    [Symbol.dispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** TLS before a server that speaks none. */
export async function startTls(targetPort: number, pfx: Uint8Array, passphrase: string) {
  const sockets = new Set<{ destroy(): void }>();
  const server = createTlsServer({ pfx: Buffer.from(pfx), passphrase }, (client) => {
    const upstream = connect(targetPort, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => socket.destroy());
    }
    client.on("close", () => upstream.destroy());
    client.pipe(upstream).pipe(client);
  });
  const port = await listening(server);
  return {
    port,
    [Symbol.dispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

async function listening(server: {
  listen(port: number, host: string, done: () => void): unknown;
  address(): unknown;
}) {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}
