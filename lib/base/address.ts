// Where a process on this machine finds a server, by the address that the server listens on. It opens no socket.

/** The host part of a URL for that address: one that listens everywhere is found on the loopback, IPv6 has brackets. */
export function reachableHost(bindAddress: string): string {
  if (bindAddress === "0.0.0.0") return "127.0.0.1";
  if (bindAddress === "::") return "[::1]";
  return bindAddress.includes(":") ? `[${bindAddress}]` : bindAddress;
}
