// Addresses as they stand in a URL.

import { expect, test } from "bun:test";
import { reachableHost } from "../../../lib/base/address.ts";

test("a server that listens everywhere is found on the loopback, and an IPv6 address stands in brackets", () => {
  const hosts = ["0.0.0.0", "::", "::1", "fe80::1", "127.0.0.1", "10.0.0.7", "localhost"].map(reachableHost);
  expect(hosts).toEqual(["127.0.0.1", "[::1]", "[::1]", "[fe80::1]", "127.0.0.1", "10.0.0.7", "localhost"]);
});
