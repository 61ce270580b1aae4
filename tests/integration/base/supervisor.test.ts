// What a supervisor receives of us, on a real datagram socket: the words of sd_notify(3), each in a datagram of its own.

import { dlopen, FFIType, ptr } from "bun:ffi";
import { expect, test } from "bun:test";
import { join } from "node:path";
import { startSupervised } from "../../../lib/app/supervised.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { openSupervisor } from "../../../lib/base/supervisor.ts";
import { healthDocument, judged } from "../../../lib/health/health.ts";
import { NOON_MS, temporaryDirectory } from "../../support/builders.ts";
import { uniqueName } from "../../support/services/shared.ts";
import { handClock } from "../../support/simulator.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;

/** A socket as systemd has one. `@` stands for the zero byte of an abstract name. */
function listen(path: string) {
  const { i32, u64, ptr: pointer } = FFIType;
  const libc = dlopen("libc.so.6", {
    socket: { args: [i32, i32, i32], returns: i32 },
    bind: { args: [i32, pointer, i32], returns: i32 },
    recv: { args: [i32, pointer, u64, i32], returns: FFIType.i64 },
    close: { args: [i32], returns: i32 },
  });
  const name = Buffer.from(path.replace(/^@/, "\0"));
  const address = Buffer.concat([
    Buffer.from([AF_UNIX, 0]),
    name,
    Buffer.alloc(path.startsWith("@") ? 0 : 1),
  ]);
  const descriptor = libc.symbols.socket(AF_UNIX, SOCK_DGRAM, 0);
  expect(libc.symbols.bind(descriptor, ptr(address), address.length)).toBe(0);
  return {
    /** All datagrams that wait. */
    received(): string[] {
      const found: string[] = [];
      const buffer = Buffer.alloc(4_096);
      for (;;) {
        const length = Number(libc.symbols.recv(descriptor, ptr(buffer), buffer.length, MSG_DONTWAIT));
        if (length < 0) return found;
        found.push(buffer.toString("utf8", 0, length));
      }
    },
    [Symbol.dispose]() {
      libc.symbols.close(descriptor);
      libc.close();
    },
  };
}

test("a socket in the file system and one with an abstract name are both told", () => {
  using directory = temporaryDirectory();
  for (const path of [join(directory.path, "notify"), `@${uniqueName("notify")}`]) {
    using socket = listen(path);
    using supervisor = openSupervisor(path);
    expect(supervisor.tell("READY=1")).toBe(true);
    expect(supervisor.tell("STATUS=ä")).toBe(true);
    expect(socket.received()).toEqual(["READY=1", "STATUS=ä"]);
  }
});

test("a supervisor that is gone, or whose queue is full, holds nobody up", () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, "notify");
  using supervisor = openSupervisor(path);
  expect(supervisor.tell("READY=1")).toBe(false);
  using _socket = listen(path);
  let taken = 0;
  while (taken < 100_000 && supervisor.tell("WATCHDOG=1")) taken++;
  expect(taken).toBeGreaterThan(0);
  expect(taken).toBeLessThan(100_000);
});

test("what is no path of a socket is refused", () => {
  for (const path of ["notify", "@".repeat(200), ""])
    expect(() => openSupervisor(path)).toThrow("NOTIFY_SOCKET");
});

test("a process is watched from the moment it works, for as long as there is progress", () => {
  using directory = temporaryDirectory();
  const socketPath = join(directory.path, "notify");
  using socket = listen(socketPath);
  const clock = handClock(NOON_MS);
  const stop = new AbortController();
  const deps = { socketPath, clock, logger: silentLogger, signal: stop.signal };
  const starting = healthDocument(false, { start: judged(["waiting for Kafka\nthere"], null, NOON_MS) });
  {
    using supervised = startSupervised(deps, () => starting);
    clock.advance(1_000);
    const waits = "STATUS=start: waiting for Kafka\\nthere";
    expect(socket.received()).toEqual([waits, waits]);

    let lastTriggerAt = NOON_MS;
    const working = () =>
      healthDocument(false, { processor: { ...judged([], null, 0), problem: null, lastTriggerAt } });
    supervised.ready(working);
    clock.advance(5_000);
    const fine = "STATUS=ok\nWATCHDOG=1";
    expect(socket.received()).toEqual(["READY=1", fine, fine]);

    clock.advance(3_600_000);
    socket.received();
    clock.advance(5_000);
    expect(socket.received()).toEqual(["STATUS=ok"]);
    lastTriggerAt = clock.now();
    clock.advance(5_000);
    expect(socket.received()).toEqual([fine]);

    stop.abort();
    expect(socket.received()).toEqual(["STOPPING=1"]);
  }
  clock.advance(60_000);
  expect(socket.received()).toEqual([]);
});
