// What a supervisor such as systemd is told (sd_notify(3)): one datagram to the unix socket that it names. Bun has no
// unix datagram sockets, so libc sends it. Nobody waits for an answer, and no send blocks.

import { dlopen, FFIType, ptr } from "bun:ffi";

const AF_UNIX = 1;
/** SOCK_DGRAM | SOCK_CLOEXEC of Linux. */
const DATAGRAM = 0x80002;
/** MSG_DONTWAIT | MSG_NOSIGNAL of Linux: a supervisor that does not read must not hold the event loop. */
const NO_WAIT = 0x4040;
/** sockaddr_un has room for so many bytes of a path. */
const PATH_BYTES_MAX = 108;

export type Supervisor = Disposable &
  Readonly<{
    /** Lines of NAME=value. False when the supervisor could not be told. */
    tell(state: string): boolean;
  }>;

/** `socketPath` is NOTIFY_SOCKET: a path, or a name behind `@`. Throws where there is no such socket in this system. */
export function openSupervisor(socketPath: string): Supervisor {
  const path = Buffer.from(socketPath);
  if (path.length === 0 || path.length >= PATH_BYTES_MAX || !/^[/@]/.test(socketPath)) {
    throw new Error(`NOTIFY_SOCKET is no path of a socket: ${socketPath}`);
  }
  if (socketPath.startsWith("@")) path[0] = 0; // An abstract name.
  const address = Buffer.alloc(2 + path.length + (path[0] === 0 ? 0 : 1));
  address.writeUInt16LE(AF_UNIX);
  path.copy(address, 2);

  const { i32, u64, ptr: pointer } = FFIType;
  const libc = dlopen("libc.so.6", {
    socket: { args: [i32, i32, i32], returns: i32 },
    sendto: { args: [i32, pointer, u64, i32, pointer, i32], returns: FFIType.i64 },
    close: { args: [i32], returns: i32 },
  });
  const descriptor = libc.symbols.socket(AF_UNIX, DATAGRAM, 0);
  if (descriptor < 0) {
    libc.close();
    throw new Error("the system gives no unix socket for NOTIFY_SOCKET");
  }
  return {
    tell(state) {
      const bytes = Buffer.from(state);
      const sent = libc.symbols.sendto(
        descriptor,
        ptr(bytes),
        bytes.length,
        NO_WAIT,
        ptr(address),
        address.length,
      );
      return Number(sent) === bytes.length;
    },
    [Symbol.dispose]() {
      libc.symbols.close(descriptor);
      libc.close();
    },
  };
}
