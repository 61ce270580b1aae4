// Which request goes through which proxy: one rule for the feed and every other request.

import { expect, test } from "bun:test";
import { readConfig } from "../../../lib/base/config.ts";
import { proxyFor } from "../../../lib/base/proxy.ts";

const HTTPS = "http://secure.example.com:3128/";
const HTTP = "http://plain.example.com:3128/";

function via(environment: Record<string, string>, address: string): string | null {
  return proxyFor(readConfig(environment).proxies, address)?.url ?? null;
}

test("the scheme chooses: https: and wss: are one, http: and ws: the other; ALL_PROXY fills a gap", () => {
  const both = { HTTPS_PROXY: HTTPS, HTTP_PROXY: HTTP };
  expect(via(both, "wss://ws.finnhub.io")).toBe(HTTPS);
  expect(via(both, "https://finnhub.io/api/v1")).toBe(HTTPS);
  expect(via(both, "ws://feed.example.test:9101")).toBe(HTTP);
  expect(via(both, "http://feed.example.test")).toBe(HTTP);
  expect(via({ HTTPS_PROXY: HTTPS }, "ws://feed.example.test")).toBeNull();
  expect(via({ HTTPS_PROXY: HTTPS, ALL_PROXY: HTTP }, "ws://feed.example.test")).toBe(HTTP);
  expect(via({ ALL_PROXY: HTTP }, "wss://ws.finnhub.io")).toBe(HTTP);
  expect(via({}, "wss://ws.finnhub.io")).toBeNull();
});

test("the lower-case names count too, behind ours; a proxy needs no scheme, and quotes do no harm", () => {
  expect(via({ https_proxy: HTTPS, no_proxy: "example.test" }, "wss://ws.finnhub.io")).toBe(HTTPS);
  expect(via({ https_proxy: HTTPS, no_proxy: "finnhub.io" }, "wss://ws.finnhub.io")).toBeNull();
  expect(via({ https_proxy: HTTP, HTTPS_PROXY: HTTPS }, "wss://ws.finnhub.io")).toBe(HTTPS);
  expect(via({ HTTPS_PROXY: "", https_proxy: HTTPS }, "wss://ws.finnhub.io")).toBe(HTTPS);
  expect(via({ HTTPS_PROXY: "'plain.example.com:3128'" }, "wss://ws.finnhub.io")).toBe(HTTP);
});

test.each([
  "http://127.0.0.1:8081",
  "http://127.8.8.8",
  "http://[::1]:8081",
  "http://localhost:8081",
  "ws://simulator.localhost:1",
  "http://0.0.0.0:8081",
  "http://producer:8081",
  "http://10.1.2.3",
  "http://172.31.0.1",
  "http://192.168.1.1",
  "http://169.254.1.1",
  "http://[fd00::1]",
  "http://[fe80::1]",
])("%s is on this machine or in its network, and never goes through a proxy", (address) => {
  expect(via({ ALL_PROXY: HTTP }, address)).toBeNull();
});

test.each(["http://172.32.0.1", "http://11.0.0.1", "http://[2001:db8::1]", "http://127.example.com"])(
  "%s goes through one",
  (address) => expect(via({ ALL_PROXY: HTTP }, address)).toBe(HTTP),
);

test.each([
  ["*", "https://finnhub.io", true],
  ["finnhub.io", "https://finnhub.io", true],
  ["finnhub.io", "wss://ws.finnhub.io", true],
  [".finnhub.io", "wss://ws.finnhub.io", true],
  ["*.finnhub.io", "wss://ws.finnhub.io", true],
  ["FINNHUB.IO", "https://Finnhub.io.", true],
  ["a, finnhub.io", "https://finnhub.io", true],
  ["a finnhub.io", "https://finnhub.io", true],
  ["finnhub.io:443", "wss://finnhub.io", true],
  ["finnhub.io:8443", "wss://finnhub.io", false],
  ["hub.io", "https://finnhub.io", false],
  ["ws.finnhub.io", "https://finnhub.io", false],
  ["203.0.113.0/24", "https://203.0.113.9", true],
  ["203.0.113.9", "https://203.0.113.9:1", true],
  ["203.0.114.0/24", "https://203.0.113.9", false],
  ["2001:db8::/32", "https://[2001:db8::9]", true],
  ["[2001:db8::9]:443", "https://[2001:db8::9]", true],
  ["2001:db8::9", "https://[2001:db8::9]", true],
  ["<local>, 1.2.3.*, 203.0.113.0/99, :1, /8", "https://203.0.113.9", false],
  ["", "https://finnhub.io", false],
])("NO_PROXY=%j, %s: excepted is %p", (exceptions, address, isExcepted) => {
  expect(via({ ALL_PROXY: HTTP, NO_PROXY: exceptions }, address)).toBe(isExcepted ? null : HTTP);
});

test("what is no HTTP proxy is refused, without its password; SOCKS beside an HTTP proxy is not needed", () => {
  const refusal = /^HTTPS_PROXY: give the address of an HTTP proxy, like .* a SOCKS proxy cannot be used$/;
  for (const text of ["socks5://u:hidden@h:1", "ftp://h", "http://", "http://u:hidden@:3"]) {
    const reading = () => readConfig({ HTTPS_PROXY: text });
    expect(reading).toThrow(refusal);
    expect(reading).not.toThrow("hidden");
  }
  expect(() => readConfig({ ALL_PROXY: "socks5://h:1" })).toThrow("ALL_PROXY");
  expect(via({ ALL_PROXY: "socks5://h:1", HTTPS_PROXY: HTTPS }, "wss://ws.finnhub.io")).toBe(HTTPS);
});
