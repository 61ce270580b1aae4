// A real nginx on loopback, with a configuration of its own in a temporary directory; the system's is not touched.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "./builders.ts";
import { startGuard } from "./services/guard.ts";
import { uniqueName } from "./services/shared.ts";

/** Debian's place, which is not on everybody's path. */
export const NGINX = Bun.which("nginx") ?? "/usr/sbin/nginx";
const START_MS_MAX = 10_000;

/** `http`: what stands in `http { }`; `DIRECTORY` in it becomes the directory of `files`. */
export async function startNginx(
  http: string,
  port: number,
  files: Readonly<Record<string, string>> = {},
): Promise<AsyncDisposable> {
  const directory = join(tmpdir(), uniqueName("nginx"));
  const guard = await startGuard(directory);
  mkdirSync(join(directory, "temp"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${directory}/temp/${kind};`,
  );
  const config = `
    daemon off;
    master_process off; # One process, which ends with its guard.
    pid ${directory}/nginx.pid;
    error_log stderr warn;
    events { worker_connections 256; }
    http { access_log off; ${temporary.join(" ")} ${http.replaceAll("DIRECTORY", directory)} }`;
  writeFileSync(join(directory, "nginx.conf"), config);
  const log = join(directory, "log");
  const command = [NGINX, "-p", directory, "-e", log, "-c", join(directory, "nginx.conf")];
  const nginx = await guard.run(command, log);
  try {
    await eventually(START_MS_MAX, "nginx listens", async () => {
      if (nginx.endedHow() !== null) throw new Error(`nginx ended: ${readFileSync(log, "utf8")}`);
      return isListening(port);
    });
  } catch (error) {
    await guard[Symbol.asyncDispose]();
    throw error;
  }
  return guard;
}

/** Nobody else has it at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function isListening(port: number): Promise<boolean> {
  try {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
    socket.end();
    return true;
  } catch {
    return false;
  }
}
