#!/usr/bin/env bash
# Which proxy Bun's fetch and WebSocket use, where the `proxy` option and the environment disagree.
#
# The guess: an option of one call goes before the environment of the process, so `proxy: "http://..."` is used whatever
# NO_PROXY says, and `proxy: ""` or `proxy: null` means no proxy. WebSocket heeds the environment as fetch does.
#
# What happens (Bun 1.4.5):
# - NO_PROXY goes before an explicit `proxy`, in fetch and in WebSocket: the call goes directly.
# - `proxy: ""` and `proxy: null` leave HTTP_PROXY of the environment in force; only `proxy: false` turns it off.
# - Loopback is no exception: HTTP_PROXY holds for http://127.0.0.1 as well, where NO_PROXY does not name it.
# - WebSocket ignores HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; with an explicit `proxy` it uses CONNECT for ws: too, where
#   fetch sends http: requests by their absolute address.
set -euo pipefail

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
echo '{"private": true}' >package.json
npm install --silent --no-audit --no-fund bun@1.4.5

cat >call.ts <<'FILE'
const [kind, port, option] = process.argv.slice(2);
const proxy = option === "absent" ? {} : { proxy: JSON.parse(option!) };
if (kind === "fetch") console.log(await (await fetch(`http://127.0.0.1:${port}/`, proxy as RequestInit)).text());
else {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/`, proxy as never);
  socket.onmessage = ({ data }) => {
    console.log(data);
    process.exit();
  };
}
setTimeout(() => process.exit(1), 5_000);
FILE
cat >finding.ts <<'FILE'
import { connect, createServer } from "node:net";

let used = "";
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("answer")),
  websocket: { open: (socket) => void socket.send("answer"), message() {} },
});
const proxy = createServer((client) => {
  client.once("data", (head) => {
    used = head.toString().split(" ")[0]!;
    const target = connect(server.port!, "127.0.0.1", () => {
      if (used === "CONNECT") client.write("HTTP/1.1 200 OK\r\n\r\n");
      else target.write(head);
      client.pipe(target).pipe(client);
    });
    for (const socket of [client, target]) socket.on("error", () => socket.destroy());
  });
});
await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${(proxy.address() as { port: number }).port}`;
const set = { HTTP_PROXY: url };
const no = { NO_PROXY: "127.0.0.1" };
for (const [name, kind, option, environment] of [
  ["fetch, HTTP_PROXY", "fetch", "absent", set],
  ['fetch, HTTP_PROXY, proxy: ""', "fetch", '""', set],
  ["fetch, HTTP_PROXY, proxy: null", "fetch", "null", set],
  ["fetch, HTTP_PROXY, proxy: false", "fetch", "false", set],
  ["fetch, proxy: its URL", "fetch", JSON.stringify(url), {}],
  ["fetch, NO_PROXY, proxy: its URL", "fetch", JSON.stringify(url), no],
  ["WebSocket, HTTP_PROXY", "ws", "absent", { ...set, ALL_PROXY: url }],
  ["WebSocket, proxy: its URL", "ws", JSON.stringify(url), {}],
  ["WebSocket, NO_PROXY, proxy: its URL", "ws", JSON.stringify(url), no],
] as const) {
  used = "";
  const command = [process.execPath, "call.ts", kind, String(server.port), option];
  const child = Bun.spawn(command, { env: { HOME: process.cwd(), ...environment }, stdout: "pipe", timeout: 10_000 });
  const answer = (await child.stdout.text()).trim();
  console.log(`${name}: ${answer === "answer" ? used || "directly" : "no answer"}`);
}
process.exit();
FILE

env -i "PATH=$PATH" "HOME=$directory" node_modules/.bin/bun finding.ts | tee seen
cat >expected <<'FILE'
fetch, HTTP_PROXY: GET
fetch, HTTP_PROXY, proxy: "": GET
fetch, HTTP_PROXY, proxy: null: GET
fetch, HTTP_PROXY, proxy: false: directly
fetch, proxy: its URL: GET
fetch, NO_PROXY, proxy: its URL: directly
WebSocket, HTTP_PROXY: directly
WebSocket, proxy: its URL: CONNECT
WebSocket, NO_PROXY, proxy: its URL: directly
FILE
diff expected seen || { echo "the behaviour has changed" >&2; exit 1; }
