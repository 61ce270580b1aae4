// The table of settings: the name of each, its default, which texts it accepts and what they mean. sample.env lists the
// same (a test compares them). It reads no environment: base/config.ts does, and reports all mistakes at once.

import { isIP } from "node:net";
import { z } from "zod";
import { proxyUrl } from "./proxy.ts";

type Fail = (message: string) => never;

/** A setting with a check of its own: `fail` names the fault; base/config.ts adds the name and the value. */
function checked<T>(read: (text: string, fail: Fail) => T) {
  return z.string().transform((text, context): T => {
    try {
      return read(text, (message) => {
        throw new Fault(message);
      });
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      context.issues.push({ code: "custom", message: error.message, input: text });
      return z.NEVER;
    }
  });
}
class Fault extends Error {}

function wholeNumber(min: number, max: number) {
  return checked((text, fail) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    const isLink = text.startsWith("tcp://"); // Kubernetes sets NAME_PORT for every service called NAME.
    const remedy = isLink ? " (Kubernetes set this one: use enableServiceLinks: false)" : "";
    return fail(`give a whole number from ${min} to ${max}${remedy}`);
  });
}

function oneOf<const Words extends readonly string[]>(words: Words) {
  return checked((text, fail): Words[number] => {
    const word = words.find((candidate) => candidate.toLowerCase() === text.toLowerCase());
    return word ?? fail(`give one of ${words.join(", ")}`);
  });
}

function pattern(expected: RegExp, message: string) {
  return checked((text, fail) => (expected.test(text) ? text : fail(message)));
}

const flag = z.stringbool({ truthy: ["1", "true"], falsy: ["0", "false"], error: "give 1 or 0" });
const text = z.string();
const listeningPort = wholeNumber(0, 65_535);
const remotePort = wholeNumber(1, 65_535);
const visibleAscii = pattern(/^[\x21-\x7e]+$/, "it must have no blanks, control or accented characters");

const bytes = checked((size, fail) => {
  const powers = ["", "k", "m", "g", "t"];
  const [, amount = "", letter = "", binary] = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?$/i.exec(size) ?? [];
  const value = Math.floor(Number(amount) * (binary ? 1_024 : 1_000) ** powers.indexOf(letter.toLowerCase()));
  const isSize = amount !== "" && !(binary && letter === "") && Number.isSafeInteger(value);
  if (isSize && value >= 2 ** 20) return value;
  return fail("give a size of at least 1 MiB, like 1GiB, 256 MiB or 1073741824");
});

const speed = checked((value, fail): number | "max" => {
  if (value.toLowerCase() === "max") return "max";
  const factor = /^\d+(\.\d+)?$/.test(value) ? Number(value) : 0;
  return factor > 0 && factor <= 1e6 ? factor : fail("give a factor like 1 or 0.5, or max");
});

const address = checked((host, fail) =>
  isIP(host) || host === "localhost" ? host : fail("give an IP address, like 127.0.0.1 or 0.0.0.0"),
);

const tickers = checked((json, fail) => {
  const example = `give a JSON list of symbols, like '["AAPL", "BINANCE:BTCUSDT"]'`;
  let list: unknown;
  try {
    // In double quotes the list's own are escaped, and most readers of such a file leave that as it is.
    list = JSON.parse(/^\[\s*\\"/.test(json) ? json.replaceAll('\\"', '"') : json);
  } catch {
    return fail(example);
  }
  if (!Array.isArray(list)) return fail(example);
  const symbols = list.map((item: unknown) => (typeof item === "string" ? item.trim() : ""));
  if (symbols.some((symbol) => symbol.length === 0 || symbol.length > 128)) {
    return fail(`every symbol is a text of 1 to 128 characters: ${example}`);
  }
  return [...new Set(symbols)];
});

/** `a, b:9093` -> each host with its port; undefined where none is given. */
const hosts = checked((list, fail) => {
  const items = splitList(list).map((item) => {
    if (isIP(item) === 6) return { host: `[${item}]`, port: undefined };
    const [, host, port] = /^([\w.-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?$/i.exec(item) ?? [];
    if (host === undefined || (port !== undefined && !(Number(port) >= 1 && Number(port) <= 65_535))) {
      return fail("give host names or addresses, comma separated, each with or without :port");
    }
    return { host, port };
  });
  return items.length > 0 ? items : fail("give at least one host");
});

function url(protocols: readonly string[]) {
  return checked((value, fail) => readUrl(value, protocols, fail));
}

const healthUrls = checked((list, fail) =>
  splitList(list).map((item) => readUrl(item, ["http:", "https:"], fail)),
);

function readUrl(value: string, protocols: readonly string[], fail: Fail): string {
  const parsed = URL.parse(value);
  if (parsed === null || !protocols.includes(parsed.protocol)) {
    return fail(`give a URL that begins with ${protocols.map((protocol) => `${protocol}//`).join(" or ")}`);
  }
  // No URL of the configuration holds a secret, so all of them may be shown.
  if (parsed.username !== "" || parsed.password !== "" || /[?&](token|key|secret|password)=/i.test(value)) {
    return fail("give the URL without user, password or token: secrets have settings of their own");
  }
  // One spelling of one address: Finnhub's own is told from another's by it.
  return parsed.href.replace(/\/+$/, "");
}

/** Its user and password may stand in it, as everywhere. */
const proxy = checked((text, fail) =>
  proxyUrl(text) === null
    ? fail(
        "give the address of an HTTP proxy, like http://proxy.example.com:3128; a SOCKS proxy cannot be used",
      )
    : text,
);

function splitList(list: string): string[] {
  return list
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

/** Simulated data has names of its own: a name given by the operator that ends so could be that of either kind. */
export const SIMULATED_SUFFIX = "_simulated";
const topic = pattern(
  /^(?!.*_simulated$)[\w.-]{1,200}$/,
  "give letters, digits, . _ - (not ending in _simulated)",
);
// 48 characters are Cassandra's limit; ten are the suffix's. Upper case would need quotes in every statement.
const keyspace = pattern(
  /^(?!.*_simulated$)[a-z][a-z0-9_]{0,37}$/,
  "give at most 38 lower-case letters, digits and _, beginning with a letter (not ending in _simulated)",
);
const dataDirectory = pattern(
  /^(?!.*(^|\/)simulated\/*$)/,
  "give a directory that is not called simulated: simulated data would mix with real data there",
);

/** Days that the simulator can play; lib/simulator/scenarios.ts describes each. */
const SCENARIO_NAMES = ["calm", "bell", "bad-day"] as const;
export type ScenarioName = (typeof SCENARIO_NAMES)[number];

export const FINNHUB_WS_URL = "wss://ws.finnhub.io";
export const FINNHUB_API_URL = "https://finnhub.io/api/v1";

/** Every setting, with its default as text (`prefault`), in the order of sample.env. */
export const settings = z.object({
  FINNHUB_API_TOKEN: visibleAscii.optional(),
  FINNHUB_STOCKS_TICKERS: tickers.prefault(
    '["BINANCE:BTCUSDT","BINANCE:ETHUSDT","BINANCE:XRPUSDT","BINANCE:DOGEUSDT","OANDA:EUR_USD","AAPL","AMZN","MSFT","TSLA","SPY"]',
  ),
  FINNHUB_VALIDATE_TICKERS: flag.prefault("1"),
  FINNHUB_MAX_SYMBOLS: wholeNumber(1, 10_000).prefault("50"),
  FINNHUB_WS_URL: url(["ws:", "wss:"]).prefault(FINNHUB_WS_URL),
  FINNHUB_API_URL: url(["http:", "https:"]).prefault(FINNHUB_API_URL),
  FINNHUB_SIMULATE: flag.prefault("0"),
  SIMULATOR_SEED: wholeNumber(0, 2 ** 32 - 1).prefault("1"),
  SIMULATOR_RECIPE: oneOf(SCENARIO_NAMES).optional(),
  SIMULATOR_TAPE: text.optional(),
  SIMULATOR_SPEED: speed.prefault("1"),
  KAFKA_SERVER: hosts.prefault("127.0.0.1"),
  KAFKA_PORT: remotePort.prefault("9092"),
  KAFKA_TOPIC_NAME: topic.prefault("market"),
  KAFKA_TOPIC_PARTITIONS: wholeNumber(1, 1_000).prefault("8"),
  KAFKA_GROUP_ID: topic.prefault("processor"),
  KAFKA_SESSION_TIMEOUT_MS: wholeNumber(6_000, 300_000).prefault("10000"), // Brokers take no less than 6 s.
  KAFKA_REBALANCE_TIMEOUT_MS: wholeNumber(1_000, 300_000).prefault("10000"),
  KAFKA_COMPRESSION: oneOf(["zstd", "gzip", "none"]).prefault("zstd"),
  KAFKA_SSL: flag.prefault("0"),
  KAFKA_SSL_CA: text.optional(),
  KAFKA_SASL_MECHANISM: oneOf(["plain", "scram-sha-256", "scram-sha-512"]).optional(),
  KAFKA_SASL_USERNAME: text.optional(),
  KAFKA_SASL_PASSWORD: text.optional(),
  CASSANDRA_HOST: hosts.prefault("127.0.0.1"),
  CASSANDRA_PORT: remotePort.prefault("9042"),
  CASSANDRA_USERNAME: text.optional(),
  CASSANDRA_PASSWORD: text.optional(),
  CASSANDRA_KEYSPACE: keyspace.prefault("market"),
  CASSANDRA_DATACENTER: text.prefault("datacenter1"),
  CASSANDRA_REPLICATION_FACTOR: wholeNumber(1, 100).prefault("1"),
  CASSANDRA_CONSISTENCY: oneOf([
    "ONE",
    "TWO",
    "THREE",
    "QUORUM",
    "ALL",
    "LOCAL_QUORUM",
    "LOCAL_ONE",
  ]).prefault("LOCAL_QUORUM"),
  CASSANDRA_SSL: flag.prefault("0"),
  CASSANDRA_SSL_CA: text.optional(),
  CASSANDRA_GRAFANA_USERNAME: pattern(
    /^[A-Za-z]\w{0,47}$/,
    "give letters, digits and _, beginning with a letter",
  ).optional(),
  CASSANDRA_GRAFANA_PASSWORD: text.optional(),
  DATA_DIR: dataDirectory.prefault("./data"),
  OUTBOX_MAX_BYTES: bytes.prefault("1GiB"),
  OUTBOX_SYNC: oneOf(["normal", "full"]).prefault("normal"),
  RETENTION_DAYS: wholeNumber(1, 7_300).prefault("30"), // Cassandra's longest TTL is 20 years.
  BIND_ADDRESS: address.prefault("127.0.0.1"),
  ADMIN_PORT: listeningPort.prefault("8080"),
  PRODUCER_PORT: listeningPort.prefault("8081"),
  PROCESSOR_PORT: listeningPort.prefault("8082"),
  PRODUCER_URL: healthUrls.prefault("http://127.0.0.1:8081"),
  PROCESSOR_URL: healthUrls.prefault("http://127.0.0.1:8082"),
  // The alphabet of RFC 6750: what a bearer header can carry.
  ADMIN_TOKEN: pattern(/^[\w.~+/-]+=*$/, "use letters, digits and . _ ~ + / - only").optional(),
  GRAFANA_USERNAME: visibleAscii.prefault("admin"),
  GRAFANA_PASSWORD: text.optional(),
  HTTPS_PROXY: proxy.optional(),
  HTTP_PROXY: proxy.optional(),
  ALL_PROXY: proxy.optional(),
  NO_PROXY: text.optional(),
  LOG_LEVEL: oneOf(["debug", "info", "warn", "error"]).prefault("info"),
  LOG_FORMAT: oneOf(["auto", "json", "pretty"]).prefault("auto"),
});

export type Name = keyof typeof settings.shape;
export type Values = z.output<typeof settings>;
export const settingNames = Object.keys(settings.shape) as Name[];
export const secretNames: readonly Name[] = [
  "FINNHUB_API_TOKEN",
  "KAFKA_SASL_PASSWORD",
  "CASSANDRA_PASSWORD",
  "CASSANDRA_GRAFANA_PASSWORD",
  "ADMIN_TOKEN",
  "GRAFANA_PASSWORD",
];
export const certificateNames: readonly Name[] = ["KAFKA_SSL_CA", "CASSANDRA_SSL_CA"];

/** Empty where there is none. */
export function defaultText(name: Name): string {
  const field = settings.shape[name];
  return field instanceof z.ZodPrefault ? String(field.def.defaultValue) : "";
}
