// `bun run torture [--kills 1000] [--seed 1] [--only kind,kind] [--json]`: does the outbox keep what it acknowledged?
// A process that appends and forwards is killed (-9) at moments from the seed: anywhere, in checkpoints, in deletion,
// at the size limit, on a full disk, in its start; its file is damaged between two lives, and two processes start at
// once. Prints a table by kind and what became of every acknowledged message. It repairs and repeats nothing: a problem
// is printed with its seed and round, and then the exit code is 1.

import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { seeded } from "../tests/support/builders.ts";
import { type ChildOptions, MARK, MARK_BYTES } from "../tests/support/fixtures/torture-child.ts";

/** What happens at the moment of a kill, or is done to the file after it; each has its share of the kills. */
const KINDS = {
  anywhere: 5,
  start: 3,
  checkpoint: 4,
  deletion: 4,
  "size limit": 4,
  "disk full": 4,
  "last page damaged": 3,
  "a page damaged": 2,
  "first page damaged": 1,
  "-wal damaged": 3,
  "second process": 1,
  "two starts": 2,
  "restart at once": 3,
  "power cut": 2,
} as const;
export type Kind = keyof typeof KINDS;

export type TortureOptions = Readonly<{
  kills: number;
  seed: number;
  /** Absent: all kinds. In a run without damage every quarantined file is a false alarm. */
  only?: readonly Kind[];
  onProgress?: (line: string) => void;
}>;

export type TortureResult = Readonly<{
  kills: number;
  byKind: Readonly<Record<string, number>>;
  /** In messages. */
  acknowledged: number;
  forwarded: number;
  /** Acknowledged, never forwarded, and on no page that was damaged. */
  lost: number;
  /** First copies that came after a later one. */
  outOfOrder: number;
  /** Acknowledged, never forwarded, on a page that was damaged. */
  damaged: number;
  /** Acknowledged and not yet forwarded on the pages that were damaged: the upper limit of `damaged`. */
  atRisk: number;
  /** Acknowledged, not forwarded, and in no file that a power cut left: what sync = normal allows to be lost. */
  cutOff: number;
  damages: number;
  damagedFiles: number;
  salvaged: number;
  /** Starts that were refused because another process was the owner. */
  refused: number;
  diskFull: "tmpfs" | "file-size limit";
  problems: readonly string[];
}>;

const CHILD = join(import.meta.dir, "../tests/support/fixtures/torture-child.ts");
const PAGE_BYTES = 4_096;
const WAL_HEADER_BYTES = 32;
const FRAME_BYTES = PAGE_BYTES + 24;
/** After this many kills all that one file holds is forwarded and accounted for. */
const KILLS_PER_LIFE = 20;
/** A -wal file of 4 MB, a copy of it while salvaging, and the file twice, with room to spare. */
const DISK_BYTES = 24 << 20;
/** Without a tmpfs: of one file, in the 512 bytes that `ulimit -f` counts in under POSIX, 1,024 in bash. */
const FILE_BLOCKS_MAX = 900;
/** A child is killed after at most so many of its lines. */
const LINES_MAX = 60;
const START_MS_MAX = 90;
const CHILD_MS_MAX = 20_000;
const PROBLEMS_MAX = 20;

type Id = readonly [round: number, append: number, index: number];
type Printed = {
  killed: boolean;
  opened: boolean;
  refused: string | null;
  fault: string | null;
  drained: boolean;
};

export async function runTorture({ kills, seed, only, onProgress }: TortureOptions): Promise<TortureResult> {
  const random = seeded(seed);
  const byKind: Record<string, number> = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, 0]));
  const total = {
    kills: 0,
    acknowledged: 0,
    forwarded: 0,
    lost: 0,
    outOfOrder: 0,
    damaged: 0,
    atRisk: 0,
    cutOff: 0,
    damages: 0,
    damagedFiles: 0,
    salvaged: 0,
    refused: 0,
  };
  const problems: string[] = [];
  const isTmpfs = canMount();
  let round = 0;
  while (total.kills < kills && problems.length < PROBLEMS_MAX) {
    using place = openPlace(isTmpfs);
    const life = new Life(place, seed, random, only, total, byKind, problems);
    round = await life.run(round, Math.min(KILLS_PER_LIFE, kills - total.kills));
    onProgress?.([`${total.kills} kills, ${total.acknowledged} acknowledged`, ...problems].join("\n  "));
  }
  return { ...total, byKind, problems, diskFull: isTmpfs ? "tmpfs" : "file-size limit" };
}

type Total = {
  -readonly [Key in keyof TortureResult as TortureResult[Key] extends number ? Key : never]: number;
};

/** One outbox from its first start to its last record. */
class Life {
  readonly #place: Place;
  readonly #seed: number;
  readonly #random: (below: number) => number;
  readonly #only: readonly Kind[] | undefined;
  readonly #total: Total;
  readonly #byKind: Record<string, number>;
  readonly #problems: string[];
  readonly #bytesMax: number;
  /** id -> entries of its append. */
  readonly #acknowledged = new Map<string, number>();
  readonly #forwarded = new Set<string>();
  readonly #atRisk = new Set<string>();
  readonly #cutOff = new Set<string>();
  /** Names of quarantined files, as the log lines gave them, and as the events did. */
  readonly #reported = new Set<string>();
  readonly #evented = new Set<string>();
  readonly #damages: string[] = [];
  #eventsAtRisk = false;
  #last: Id = [0, 0, 0];
  #round = 0;
  #killed = 0;
  #kind: Kind | "drain" = "anywhere";

  constructor(
    place: Place,
    seed: number,
    random: (below: number) => number,
    only: readonly Kind[] | undefined,
    total: Total,
    byKind: Record<string, number>,
    problems: string[],
  ) {
    this.#place = place;
    this.#seed = seed;
    this.#random = random;
    this.#only = only;
    this.#total = total;
    this.#byKind = byKind;
    this.#problems = problems;
    this.#bytesMax = 100_000 + random(400_000);
  }

  async run(round: number, kills: number): Promise<number> {
    this.#round = round;
    for (let done = 0; done < kills && this.#problems.length < PROBLEMS_MAX; ) {
      this.#kind = choose(this.#random, this.#only);
      const before = this.#killed;
      await this.#kill(this.#kind);
      // Without a kill it ended by itself, for want of room, or was over before its moment came. Two are one.
      if (this.#killed === before) continue;
      done += 1;
      this.#total.kills += 1;
      this.#byKind[this.#kind] = (this.#byKind[this.#kind] ?? 0) + 1;
    }
    this.#kind = "drain";
    this.#place.makeRoom();
    const printed = await this.#follow(this.#start("drain"), Number.POSITIVE_INFINITY);
    if (!printed.drained) this.#problem(`the last start: ${printed.refused ?? printed.fault ?? "no word"}`);
    this.#account();
    return this.#round;
  }

  async #kill(kind: Kind): Promise<void> {
    const lines = 1 + this.#random(LINES_MAX);
    switch (kind) {
      case "start": {
        // Half of these starts have a file to salvage.
        if (this.#random(2) === 0)
          await this.#damage(this.#random(2) === 0 ? "-wal damaged" : "a page damaged");
        const child = this.#start("run");
        // It may or may not have opened the file by then; what it has printed is noted.
        const timer = setTimeout(() => child.kill("SIGKILL"), this.#random(START_MS_MAX));
        await this.#follow(child, LINES_MAX);
        clearTimeout(timer);
        return;
      }
      case "size limit":
        await this.#live(this.#start("fill", { bytesMax: this.#bytesMax / 2 }), lines, "l");
        return;
      case "checkpoint":
        await this.#live(this.#start("run", { checkpointEvery: 1 + this.#random(4) }), lines, "p");
        return;
      case "deletion":
        await this.#live(this.#start("run"), lines, "k");
        return;
      case "disk full": {
        if (this.#only === undefined && this.#random(3) === 0) await this.#damage("a page damaged");
        this.#place.fill(this.#random(200_000));
        await this.#live(this.#start(this.#random(2) === 0 ? "fill" : "run", {}, true), lines, "l");
        // The next start may find it full still.
        if (this.#random(2) === 0) this.#place.makeRoom();
        return;
      }
      case "second process": {
        // The first one must live until the second has given up.
        this.#place.makeRoom();
        const child = this.#start("run", { checkpointEvery: 1 });
        const contender = this.#random(2) === 0 ? "run" : "fill";
        let refusing: Promise<void> | undefined;
        const printed = await this.#follow(child, Number.POSITIVE_INFINITY, "", () => {
          refusing ??= this.#refuse(this.#start(contender)).finally(() => child.kill("SIGKILL"));
        });
        if (!printed.killed) this.#problem(`the owner: ${printed.refused ?? printed.fault ?? "ended"}`);
        await refusing;
        return;
      }
      case "two starts": {
        if (this.#only === undefined && this.#random(2) === 0) await this.#damage("a page damaged");
        const children = [this.#start("run"), this.#start("run")];
        await this.#race(children);
        return;
      }
      case "restart at once": {
        let next: Child | undefined;
        // Both processes have ended before the next kind begins; the second starts before the first is dead.
        await this.#live(this.#start("run"), lines, "", () => {
          next = this.#start("run");
        });
        if (next !== undefined) await this.#live(next, 1 + this.#random(LINES_MAX), "");
        return;
      }
      case "power cut": {
        // The file is put back as it was before this process; the commits, which are synced, are not.
        const names = ["outbox.sqlite", "outbox.sqlite-wal"];
        const isThere = existsSync(join(this.#place.directory, "outbox.sqlite"));
        const restore = isThere ? names.map((name) => this.#place.keep(name)) : [];
        await this.#live(this.#start("run"), lines, "k");
        for (const name of this.#acknowledgedNames()) {
          if (name.startsWith(`${this.#round}.`) && !this.#forwarded.has(name)) this.#cutOff.add(name);
        }
        this.#place.makeRoom();
        for (const put of restore) put();
        return;
      }
      case "anywhere":
        await this.#live(this.#start("run"), lines, "");
        return;
      default:
        await this.#live(
          this.#start("run", { checkpointEvery: kind === "-wal damaged" ? 0 : 1 + this.#random(8) }),
          lines,
          "",
        );
        await this.#damage(kind);
    }
  }

  // ---- Processes ----------------------------------------------------------------------------------------------

  #start(mode: ChildOptions["mode"], options: Partial<ChildOptions> = {}, isFull = false): Child {
    this.#round += 1;
    const all: ChildOptions = {
      directory: this.#place.directory,
      commitsPath: this.#place.commitsPath,
      round: this.#round,
      seed: this.#seed,
      bytesMax: this.#bytesMax,
      mode,
      checkpointEvery: 0,
      ...options,
    };
    const command = [process.execPath, CHILD, JSON.stringify(all)];
    const isLimited = isFull && !this.#place.isTmpfs;
    return Bun.spawn(
      isLimited ? ["bash", "-c", `ulimit -f ${FILE_BLOCKS_MAX}; exec "$@"`, "bash", ...command] : command,
      { stdout: "pipe", stderr: "inherit", timeout: CHILD_MS_MAX, killSignal: "SIGKILL" },
    );
  }

  /** A process that must open the file, and that we kill. */
  async #live(child: Child, lines: number, word: string, onKill?: () => void): Promise<void> {
    const printed = await this.#follow(child, lines, word, undefined, onKill);
    const isFull = this.#place.isFull;
    // A full disk may refuse a salvage, and a file-size limit is no full disk: SQLite calls it an I/O error.
    const isNoRoom =
      isFull && /no room|disk is full|disk I\/O|not enough space/.test(`${printed.refused} ${printed.fault}`);
    if (isNoRoom) this.#place.makeRoom();
    else if (printed.refused !== null) this.#problem(`refused to start: ${printed.refused}`);
    else if (printed.fault !== null) this.#problem(printed.fault);
  }

  async #refuse(child: Child): Promise<void> {
    const printed = await this.#follow(child, 1);
    if (printed.opened) this.#problem("a second process opened the file");
    else if (!/outbox\.sqlite is in use by another process$/.test(printed.refused ?? ""))
      this.#problem(`a second process printed: ${printed.refused ?? printed.fault}`);
    else this.#total.refused += 1;
  }

  /** Two starts at the same moment: one lives, the other is refused. */
  async #race(children: readonly Child[]): Promise<void> {
    // The winner lives until the other has given up.
    const all = await Promise.all(
      children.map(async (child, index) => {
        const printed = await this.#follow(child, Number.POSITIVE_INFINITY);
        if (printed.refused !== null) children[1 - index]!.kill("SIGKILL");
        return printed;
      }),
    );
    // A winner that is still salvaging when the other gives up is killed in that.
    const openCount = all.filter(({ opened }) => opened).length;
    const refusedCount = all.filter(({ refused }) => refused !== null).length;
    if ((openCount > 1 || refusedCount > 1) && !this.#place.isFull)
      this.#problem(`of two starts at once ${openCount} took the file: ${JSON.stringify(all)}`);
    for (const { refused, fault } of all) {
      if (fault !== null && !this.#place.isFull) this.#problem(fault);
      if (refused === null) continue;
      if (/is in use by another process$/.test(refused)) this.#total.refused += 1;
      else if (!this.#place.isFull) this.#problem(`a second start printed: ${refused}`);
    }
  }

  /** Notes what the child prints until its end; after `lineCount` lines the next that begins with `word` kills it. */
  async #follow(
    child: Child,
    lineCount: number,
    word = "",
    onLine?: () => void,
    onKill?: () => void,
  ): Promise<Printed> {
    const printed: Printed = { killed: false, opened: false, refused: null, fault: null, drained: false };
    const delayUs = this.#random(4) * this.#random(700);
    let lines = 0;
    let isKilled = false;
    let rest = "";
    const decoder = new TextDecoder();
    for await (const chunk of child.stdout) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      for (const line of parts) {
        this.#note(line, printed);
        onLine?.();
        lines += 1;
        const isDue = lines >= lineCount && (line.startsWith(word) || lines >= lineCount + LINES_MAX);
        if (!isDue || isKilled) continue;
        isKilled = true;
        spin(delayUs);
        child.kill("SIGKILL");
        onKill?.();
      }
    }
    await child.exited;
    printed.killed = child.signalCode === "SIGKILL";
    if (printed.killed) this.#killed += 1;
    return printed;
  }

  #note(line: string, printed: Printed): void {
    const [word, first = "", second = ""] = line.split(" ", 3);
    const text = line.slice(2);
    if (word === "o") printed.opened = true;
    else if (word === "a") this.#acknowledged.set(first, Number(second));
    else if (word === "f") for (const name of text.split(" ")) this.#noteForwarded(name);
    else if (word === "x") this.#noteDamage(JSON.parse(text) as DamageFields);
    else if (word === "g") this.#problem(`records above the commit were deleted: ${text}`);
    else if (word === "d") printed.drained = true;
    else if (word === "s") printed.refused = text;
    else if (word === "E") printed.fault = text;
    else if (!["l", "k", "p"].includes(word ?? "")) this.#problem(`unexpected line of the child: ${line}`);
  }

  #noteForwarded(name: string): void {
    if (name === "") return;
    if (name.startsWith("e")) {
      this.#evented.add(name.slice(1));
      return;
    }
    if (name === "!") {
      this.#problem("a record was forwarded that nobody wrote");
      return;
    }
    if (this.#forwarded.has(name)) return;
    this.#forwarded.add(name);
    this.#total.forwarded += 1;
    const id = name.split(".").map(Number) as unknown as Id;
    if (compare(id, this.#last) <= 0) {
      this.#total.outOfOrder += 1;
      this.#problem(`${name} came after ${this.#last.join(".")}`);
    }
    this.#last = id;
  }

  #noteDamage({ file, salvagedCount, unreadableCount }: DamageFields): void {
    // Looked for in this order, because it is renamed when the salvage is complete.
    if (!existsSync(file.replace(".damaged-", ".salvaging-")) && !existsSync(file))
      this.#problem(`${file} was reported and is not there`);
    const name = file.split("/").at(-1) ?? "";
    if (this.#reported.has(name)) return;
    this.#reported.add(name);
    this.#total.damagedFiles += 1;
    this.#total.salvaged += salvagedCount;
    if (this.#damages.length === 0)
      this.#problem(`${name} was quarantined although nothing damaged it (${unreadableCount} unreadable)`);
  }

  // ---- Damage -------------------------------------------------------------------------------------------------

  /** Changes bytes of one page. From now on what is on that page may be lost, and nothing else. */
  async #damage(kind: Kind): Promise<void> {
    const isWal = kind === "-wal damaged";
    const path = join(this.#place.directory, isWal ? "outbox.sqlite-wal" : "outbox.sqlite");
    const size = existsSync(path) ? statSync(path).size : 0;
    const [head, unit] = isWal ? [WAL_HEADER_BYTES, FRAME_BYTES] : [0, PAGE_BYTES];
    const count = Math.floor((size - head) / unit);
    if (count < 1) return;
    // Three times in four the last frame, where the newest commits are.
    const isLast = kind === "last page damaged" || (isWal && this.#random(4) > 0);
    const number = kind === "first page damaged" ? 0 : isLast ? count - 1 : this.#random(count);
    const place = head + number * unit;
    const bytes = Buffer.alloc(unit);
    const fd = openSync(path, "r+");
    readSync(fd, bytes, 0, unit, place);
    const page = isWal ? bytes.subarray(FRAME_BYTES - PAGE_BYTES) : bytes;
    this.#noteAtRisk(page);
    // Without an inner page nothing below it can be found.
    const isInner = page[0] === 0x05;
    if (isInner) this.#noteAllAtRisk();
    const type = page[0];
    const flips = this.#random(3) === 0 ? unit : 1 + this.#random(8);
    for (let flip = 0; flip < flips; flip++) {
      const at = flips === unit ? flip : this.#random(unit);
      bytes[at] = (bytes[at] ?? 0) ^ (1 + this.#random(255));
    }
    writeSync(fd, bytes, 0, unit, place);
    closeSync(fd);
    this.#total.damages += 1;
    const where = `${isWal ? "frame" : "page"} ${number + 1} of ${count} (type ${type})`;
    this.#damages.push(`round ${this.#round}: ${flips} bytes of ${where}`);
  }

  #noteAtRisk(page: Buffer): void {
    if (page.includes("log_damaged")) this.#eventsAtRisk = true;
    for (let at = page.indexOf(MARK); at !== -1; at = page.indexOf(MARK, at + 1)) {
      if (at + MARK_BYTES > page.length) break;
      const name = [4, 8, 12].map((place) => page.readUInt32LE(at + place)).join(".");
      if (!this.#forwarded.has(name)) this.#atRisk.add(name);
    }
  }

  #noteAllAtRisk(): void {
    this.#eventsAtRisk = true;
    for (const name of this.#acknowledgedNames()) if (!this.#forwarded.has(name)) this.#atRisk.add(name);
  }

  *#acknowledgedNames(): Generator<string> {
    for (const [append, count] of this.#acknowledged)
      for (let index = 0; index < count; index++) yield `${append}.${index}`;
  }

  // ---- The account --------------------------------------------------------------------------------------------

  #account(): void {
    this.#total.atRisk += this.#atRisk.size;
    const lost: string[] = [];
    for (const name of this.#acknowledgedNames()) {
      this.#total.acknowledged += 1;
      if (this.#forwarded.has(name)) continue;
      if (this.#cutOff.has(name)) {
        this.#total.cutOff += 1;
        continue;
      }
      if (this.#atRisk.has(name)) {
        this.#total.damaged += 1;
        continue;
      }
      this.#total.lost += 1;
      if (!lost.includes(name.replace(/\.\d+$/, ""))) lost.push(name.replace(/\.\d+$/, ""));
    }
    for (const append of lost)
      this.#problem(
        `acknowledged messages of append ${append} never came; damaged before: ${this.#damages.join("; ")}`,
      );
    for (const name of this.#reported)
      if (!this.#evented.has(name) && !this.#eventsAtRisk) this.#problem(`no event tells of ${name}`);
  }

  #problem(text: string): void {
    if (this.#problems.length < PROBLEMS_MAX)
      this.#problems.push(`seed ${this.#seed}, round ${this.#round}, ${this.#kind}: ${text}`);
  }
}

type Child = Bun.Subprocess<"ignore", "pipe", "inherit">;
type DamageFields = Readonly<{ file: string; salvagedCount: number; unreadableCount: number }>;

function choose(random: (below: number) => number, only?: readonly Kind[]): Kind {
  const all = Object.entries(KINDS) as [Kind, number][];
  const entries = only === undefined ? all : all.filter(([kind]) => only.includes(kind));
  let rest = random(entries.reduce((sum, [, weight]) => sum + weight, 0));
  for (const [kind, weight] of entries) {
    rest -= weight;
    if (rest < 0) return kind;
  }
  return "anywhere";
}

function compare(one: Id, other: Id): number {
  return one[0] - other[0] || one[1] - other[1] || one[2] - other[2];
}

function spin(us: number): void {
  const end = performance.now() + us / 1_000;
  while (performance.now() < end);
}

// ---- A disk of its own ----------------------------------------------------------------------------------------

/** A directory for the outbox on a disk that can be filled, and a file for the commits on another one. */
type Place = Disposable &
  Readonly<{
    directory: string;
    commitsPath: string;
    isTmpfs: boolean;
    isFull: boolean;
    /** Fills the disk but for this many bytes. */
    fill(bytesFree: number): void;
    makeRoom(): void;
    /** Remembers a file of the directory as it is now, or that there is none; the result restores that. */
    keep(name: string): () => void;
  }>;

function openPlace(isTmpfs: boolean): Place {
  const root = mkdtempSync(join(tmpdir(), "torture-"));
  const directory = join(root, "disk");
  mkdirSync(directory);
  if (isTmpfs) mount(directory);
  const filler = join(directory, "filler");
  let isFull = false;
  // A mount outlives its process.
  process.on("exit", dispose);
  return {
    directory,
    commitsPath: join(root, "commits.json"),
    isTmpfs,
    get isFull() {
      return isFull;
    },
    fill(bytesFree) {
      isFull = true;
      if (!isTmpfs) return;
      const { bavail, bsize } = statfsSync(directory);
      const bytes = Math.max(0, bavail * bsize - bytesFree);
      if (!existsSync(filler) && bytes > 0) writeFileSync(filler, Buffer.alloc(bytes));
    },
    makeRoom() {
      isFull = false;
      rmSync(filler, { force: true });
    },
    keep(name) {
      const path = join(directory, name);
      const bytes = existsSync(path) ? readFileSync(path) : null;
      return () => (bytes === null ? rmSync(path, { force: true }) : writeFileSync(path, bytes));
    },
    [Symbol.dispose]() {
      process.off("exit", dispose);
      dispose();
    },
  };
  function dispose() {
    if (process.env.TORTURE_KEEP) {
      spawnSync("cp", ["-r", directory, `${process.env.TORTURE_KEEP}-${root.split("/").at(-1)}`]);
    }
    if (isTmpfs) spawnSync("umount", ["-l", directory]);
    rmSync(root, { recursive: true, force: true });
  }
}

function mount(directory: string): boolean {
  const options = ["-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "torture", directory];
  return spawnSync("mount", options).status === 0;
}

function canMount(): boolean {
  if (process.platform !== "linux" || process.getuid?.() !== 0 || process.env.TORTURE_NO_MOUNT) return false;
  const directory = mkdtempSync(join(tmpdir(), "torture-"));
  const isMounted = mount(directory);
  if (isMounted) spawnSync("umount", ["-l", directory]);
  rmSync(directory, { recursive: true, force: true });
  return isMounted;
}

// ---- The command ----------------------------------------------------------------------------------------------

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      kills: { type: "string", default: "1000" },
      seed: { type: "string", default: "1" },
      only: { type: "string" },
      json: { type: "boolean", default: false },
    },
  });
  const kills = Number(values.kills);
  const seed = Number(values.seed);
  if (!(Number.isInteger(kills) && kills > 0 && Number.isInteger(seed)))
    throw new Error("--kills must be a whole number above 0 and --seed a whole number");
  const only = values.only?.split(",") as Kind[] | undefined;
  const unknown = only?.filter((kind) => !(kind in KINDS)) ?? [];
  if (unknown.length > 0) throw new Error(`--only knows ${Object.keys(KINDS).join(", ")}; not ${unknown}`);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));
  const startedAtMs = performance.now();
  const result = await runTorture({
    kills,
    seed,
    ...(only && { only }),
    onProgress: (line) => console.error(line),
  });
  printResult(result, seed, (performance.now() - startedAtMs) / 1_000);
  if (values.json) {
    const { byKind, acknowledged, lost, outOfOrder, damaged, damagedFiles, salvaged, refused } = result;
    const counts = { acknowledged, lost, outOfOrder, damaged, damagedFiles, salvaged, refused };
    console.log(JSON.stringify({ kills: result.kills, byKind, ...counts }));
  }
  process.exitCode = result.problems.length > 0 ? 1 : 0;
}

function printResult(result: TortureResult, seed: number, seconds: number): void {
  for (const problem of result.problems) console.log(problem);
  console.log(`${"kind".padEnd(20)}${"kills".padStart(7)}`);
  for (const [kind, count] of Object.entries(result.byKind)) {
    const means = kind === "disk full" ? `  (${result.diskFull})` : "";
    console.log(`${kind.padEnd(20)}${String(count).padStart(7)}${means}`);
  }
  console.log(
    `${result.kills} kills (seed ${seed}, ${Math.round(seconds)} s): ${result.acknowledged} messages acknowledged, ` +
      `${result.lost} lost, ${result.outOfOrder} out of order; ${result.damages} pages damaged, ` +
      `${result.damagedFiles} files set aside, ${result.salvaged} messages salvaged, ` +
      `${result.damaged} of ${result.atRisk} on damaged pages gone, ` +
      `${result.cutOff} taken by power cuts; ${result.refused} second starts refused`,
  );
}
