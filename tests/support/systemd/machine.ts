// A machine with a systemd of its own, in namespaces of this one: a Debian root, made once by debootstrap and kept in
// node_modules/.cache, is copied, and its systemd is process 1. It shares the network, so tests ask its ports as they
// ask any. It needs root and debootstrap, and nothing of what it does is seen outside of its directory.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { eventually } from "../builders.ts";
import { type Guarded, startGuard } from "../services/guard.ts";
import { uniqueName } from "../services/shared.ts";

const CACHE = join(import.meta.dir, "../../../node_modules/.cache/systemd/bookworm");
const CGROUPS = "/sys/fs/cgroup";
/** Half a minute where the mirror is near. */
const MAKE_MS_MAX = 400_000;
const COPY_MS_MAX = 60_000;
/** It takes a second alone, and more among twenty others. */
const BOOT_MS_MAX = 90_000;
const COMMAND_MS_MAX = 120_000;

export type Done = Readonly<{ code: number; out: string }>;

export type Machine = AsyncDisposable &
  Readonly<{
    /** Its `/`, seen from here. */
    root: string;
    /** Resolves when systemd says that all is well. */
    boot(): Promise<void>;
    /** `systemctl poweroff`: every unit is stopped first. */
    powerOff(): Promise<void>;
    /** As if somebody pulled the plug: everything in it is gone at once. */
    cutPower(): Promise<void>;
    /** A line of shell, as root. */
    run(line: string): Promise<Done>;
    /** The same, which has to end with 0. Resolves with what it printed. */
    must(line: string): Promise<string>;
  }>;

/** What this machine lacks to start another one in it; null = nothing. */
export function whatIsMissing(): string | null {
  if (process.platform !== "linux") return "Linux";
  if (process.getuid?.() !== 0) return "root";
  const programs = ["unshare", "nsenter", ...(existsSync(CACHE) ? [] : ["debootstrap"])];
  return programs.find((name) => which(name) === null) ?? null;
}

/**
 * Whether the kernel lets root make a machine at all; in a container it may not. That is a property of a machine which
 * nothing could install.
 */
export function isRefused(): boolean {
  const apart = ["unshare", "--fork", "--pid", "--mount", "--ipc", "--uts", "--cgroup"];
  const may = "mount --make-rprivate / && mount -t tmpfs none /mnt && test -w /sys/fs/cgroup";
  return !Bun.spawnSync([...apart, "sh", "-c", may], { stderr: "ignore", stdout: "ignore" }).success;
}

const which = (name: string) => Bun.which(name, { PATH: `${process.env.PATH}:/usr/sbin:/sbin` });

/** Made in a directory beside it, so that half a root is never taken for one. */
function makeRoot(): void {
  if (existsSync(CACHE)) return;
  mkdirSync(dirname(CACHE), { recursive: true });
  const half = `${CACHE}-${uniqueName("half")}`;
  const packages = "--include=systemd,systemd-sysv,dbus";
  call([which("debootstrap")!, "--variant=minbase", packages, "bookworm", half], MAKE_MS_MAX);
  rmSync(join(half, "var/cache/apt/archives"), { recursive: true });
  renameSync(half, CACHE);
}

function call(command: readonly string[], timeout: number): void {
  const done = Bun.spawnSync([...command], { timeout, stderr: "pipe" });
  if (!done.success) throw new Error(`${command[0]} failed: ${done.stdout}${done.stderr}`.slice(-2_000));
}

/** A fresh one, running. */
export async function startMachine(): Promise<Machine> {
  makeRoot();
  const name = uniqueName("systemd");
  const directory = join(tmpdir(), name);
  const guard = await startGuard(directory);
  const root = join(directory, "root");
  const log = join(directory, "console");
  let running: Guarded | null = null;

  const inside = async (line: string): Promise<Done> => {
    const first = firstProcess(running);
    if (first === null) return { code: 255, out: "the machine does not run" };
    const command = ["nsenter", "-t", first, "--all", "env", "-i", PATH, "TERM=dumb", "sh", "-c", line];
    const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe", timeout: COMMAND_MS_MAX });
    const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { code, out: out + err };
  };
  const off = async () => {
    await running?.ended;
    running = null;
    await eventually(BOOT_MS_MAX, "no process in the machine's groups", () => removeGroups(name));
  };
  const machine: Machine = {
    root,
    async boot() {
      const apart = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--ipc", "--uts"];
      running = await guard.run([...apart, join(import.meta.dir, "boot.sh"), root, name], log);
      let said = "";
      const isUp = async () => {
        if (running?.endedHow() !== null) throw new Error(`it did not start: ${readFileSync(log, "utf8")}`);
        said = (await inside("systemctl is-system-running")).out.trim();
        return said === "running" || said === "degraded";
      };
      await eventually(BOOT_MS_MAX, "a running systemd", isUp);
      if (said !== "running")
        throw new Error(`systemd is ${said}: ${(await inside("systemctl --failed")).out}`);
    },
    async powerOff() {
      await inside("systemctl poweroff");
      await off();
    },
    async cutPower() {
      await running?.signal("SIGKILL");
      await off();
    },
    run: inside,
    async must(line) {
      const { code, out } = await inside(line);
      if (code !== 0) throw new Error(`${line} ended with ${code}: ${out}`);
      return out;
    },
    async [Symbol.asyncDispose]() {
      if (running !== null) await machine.cutPower();
      await guard[Symbol.asyncDispose]();
    },
  };
  try {
    call(["cp", "-a", CACHE, root], COPY_MS_MAX);
    await machine.boot();
  } catch (error) {
    await machine[Symbol.asyncDispose]();
    throw error;
  }
  return machine;
}

const PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/** The pid of its systemd as it is here: the only child of unshare. */
function firstProcess(running: Guarded | null): string | null {
  if (running === null || running.endedHow() !== null) return null;
  const { pid } = running;
  const [first] = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ");
  return first || null;
}

/** False while somebody is left in one of them. */
function removeGroups(name: string): boolean {
  const places = [CGROUPS, ...readdirSync(CGROUPS).map((one) => join(CGROUPS, one))];
  try {
    for (const place of places) if (existsSync(join(place, name))) removeTree(join(place, name));
    return true;
  } catch {
    return false;
  }
}

/** Of control groups: their files go with them. */
function removeTree(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true }))
    if (entry.isDirectory()) removeTree(join(directory, entry.name));
  rmdirSync(directory);
}
