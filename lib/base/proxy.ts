// The one rule for HTTP proxies: which request goes through which. HTTPS_PROXY is for https: and wss:, HTTP_PROXY for
// http: and ws:, ALL_PROXY for both where the other is not set; NO_PROXY names hosts that need none. What is on this
// machine or in its own network never goes through one. It opens no socket. Kafka and Cassandra speak no HTTP, so no
// proxy is theirs.

import { BlockList, isIP } from "node:net";

/** In the order of their weight. */
export const PROXY_NAMES = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] as const;
export type ProxyName = (typeof PROXY_NAMES)[number];

export type HttpProxy = Readonly<{
  /** With user and password, where they were given: for the client alone. */
  url: string;
  /** `http://host:port (HTTPS_PROXY)`: for sentences. */
  shown: string;
}>;

export type Proxies = Readonly<{
  https: HttpProxy | null;
  http: HttpProxy | null;
  /** The texts of NO_PROXY, in lower case. */
  exceptions: readonly string[];
}>;

export const NO_PROXIES: Proxies = { https: null, http: null, exceptions: [] };

/** `texts`: what was given, an entry for each that is set. */
export function readProxies(texts: Readonly<Partial<Record<ProxyName | "NO_PROXY", string>>>): Proxies {
  const first = (...names: readonly ProxyName[]) => {
    const name = names.find((one) => texts[one] !== undefined);
    const url = name === undefined ? null : proxyUrl(texts[name]!);
    return url === null ? null : { url: url.href, shown: `${originOf(url)} (${name})` };
  };
  const exceptions = (texts.NO_PROXY ?? "").toLowerCase().split(/[\s,]+/);
  return {
    https: first("HTTPS_PROXY", "ALL_PROXY"),
    http: first("HTTP_PROXY", "ALL_PROXY"),
    exceptions: exceptions.filter((one) => one !== ""),
  };
}

/** Null: the text is not the address of an HTTP proxy. `proxy:3128` is one; a client of SOCKS is not in Bun. */
export function proxyUrl(text: string): URL | null {
  const url = URL.parse(text.includes("://") ? text : `http://${text}`);
  const isProxy = url !== null && (url.protocol === "http:" || url.protocol === "https:");
  return isProxy && url.hostname !== "" ? url : null;
}

/** What must stand in no line: the password as it was given and as it is sent. */
export function proxySecrets(text: string): readonly string[] {
  const url = proxyUrl(text);
  if (url === null || url.password === "") return [];
  const [user, password] = [decoded(url.username), decoded(url.password)];
  return [...new Set([url.password, password, Buffer.from(`${user}:${password}`).toString("base64")])];
}

/** The proxy's address without its user and password. */
export function shownProxy(text: string): string {
  const url = proxyUrl(text);
  return url === null ? "" : originOf(url);
}

/** The proxy of a request to this URL (http:, https:, ws: or wss:); null = it goes directly. */
export function proxyFor(proxies: Proxies, address: string): HttpProxy | null {
  const url = URL.parse(address);
  if (url === null) return null;
  const isTls = url.protocol === "https:" || url.protocol === "wss:";
  const proxy = isTls ? proxies.https : proxies.http;
  if (proxy === null) return null;
  const host = url.hostname.toLowerCase().replace(/^\[|\]$|\.$/g, "");
  const port = url.port === "" ? (isTls ? "443" : "80") : url.port;
  if (isNear(host) || proxies.exceptions.some((one) => isException(one, host, port))) return null;
  return proxy;
}

/** For the end of a sentence about a request that failed. */
export function byWayOf(proxy: HttpProxy | null): string {
  return proxy === null ? "" : `, by way of the proxy ${proxy.shown}`;
}

/**
 * What a proxy answered in the place of the server, as a sentence; null = `said` is no such answer. `said`: the status
 * of an answer, or the text of Bun's error, which quotes the status line. Bun 1.4.5 gives both errors no code.
 */
export function refusalOfProxy(proxy: HttpProxy, said: string): string | null {
  const status = /(?:^|^Proxy .*: |failed: Proxy .*: )(\d{3})\b/.exec(said)?.[1];
  if (status === undefined || (status !== "407" && !said.includes("Proxy "))) return null;
  if (status !== "407") return `the proxy ${proxy.shown} refuses the connection (HTTP ${status})`;
  return `the proxy ${proxy.shown} does not accept the user and the password (HTTP 407): put them into its URL`;
}

function originOf({ protocol, host }: URL): string {
  return `${protocol}//${host}`;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// --- What goes directly ----------------------------------------------------------------------------------------

/** Loopback, link-local and private networks: a proxy stands between a network and the others. */
const near = new BlockList();
for (const [network, prefix] of [
  ["127.0.0.0", 8],
  ["10.0.0.0", 8],
  ["172.16.0.0", 12],
  ["192.168.0.0", 16],
  ["169.254.0.0", 16],
  ["0.0.0.0", 32],
] as const)
  near.addSubnet(network, prefix, "ipv4");
for (const [network, prefix] of [
  ["::", 127],
  ["fc00::", 7],
  ["fe80::", 10],
] as const)
  near.addSubnet(network, prefix, "ipv6");

/** A name without a dot, like a service of compose.yaml, means something only here: no proxy could resolve it. */
function isNear(host: string): boolean {
  const family = isIP(host);
  if (family === 0) return !host.includes(".") || host.endsWith(".localhost");
  return near.check(host, family === 6 ? "ipv6" : "ipv4");
}

/** One text of NO_PROXY: `*`, a host or its domain (`example.com`, `.example.com`, `*.example.com`), each with or
 * without a port, an address, or a network like 203.0.113.0/24. */
function isException(exception: string, host: string, port: string): boolean {
  if (exception === "*") return true;
  const [, bracketed, plain, itsPort] =
    /^(?:\[([0-9a-f:.]+)\]|([^[\]:]+))(?::(\d{1,5}))?$/.exec(exception) ?? [];
  const name = bracketed ?? plain ?? exception; // The rest is an IPv6 address without brackets, or nothing that is known.
  if (itsPort !== undefined && itsPort !== port) return false;
  if (name === host) return true;
  const family = isIP(host);
  if (family !== 0) return isInNetwork(name, host, family);
  const domain = name.replace(/^\*?\./, "");
  return domain !== "" && (host === domain || host.endsWith(`.${domain}`));
}

function isInNetwork(text: string, host: string, family: number): boolean {
  const [, network = "", bits] = /^([0-9a-f:.]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const whole = family === 6 ? 128 : 32;
  const prefix = bits === undefined ? whole : Number(bits);
  if (isIP(network) !== family || prefix > whole) return false;
  const networks = new BlockList();
  networks.addSubnet(network, prefix, family === 6 ? "ipv6" : "ipv4");
  return networks.check(host, family === 6 ? "ipv6" : "ipv4");
}
