// The one reader of settings. Their names, defaults and checks stand in the table below, and sample.env lists
// the same (a test compares them). All mistakes are told at once; a secret's value stands in no message.

import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { z } from "zod";

/** The operator must change a setting; each mistake is a sentence that says what to do. */
export class ConfigError extends Error {
  readonly mistakes: readonly string[];
  constructor(mistakes: readonly string[]) {
    super(mistakes.join("\n"));
    this.name = "ConfigError";
    this.mistakes = mistakes;
  }
}

type Fail = (message: string) => never;

/** A setting with a check of its own: `fail` names the fault, the value is added by whoever reports it. */
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
  if (value === "max") return value;
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
    list = JSON.parse(json);
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

/** `a, b:9093` -> what a client wants to hear: each host with its port, the default one where none is given. */
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
  // So that no URL of the configuration holds a secret, and all of them may be shown.
  if (parsed.username !== "" || parsed.password !== "" || /[?&](token|key|secret|password)=/i.test(value)) {
    return fail("give the URL without user, password or token: secrets have settings of their own");
  }
  return value.replace(/\/+$/, "");
}

function splitList(list: string): string[] {
  return list
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

/** Simulated data lives beside the real, never in it: a base name that ends so could be either's. */
const SIMULATED_SUFFIX = "_simulated";
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
  "real data would mix with simulated data there: give another",
);

/** Days that the simulator can play: lib/simulator/recipes.ts says what each holds. */
const RECIPE_NAMES = ["calm", "bell", "bad-day"] as const;
export type RecipeName = (typeof RECIPE_NAMES)[number];

const FINNHUB_WS_URL = "wss://ws.finnhub.io";
const FINNHUB_API_URL = "https://finnhub.io/api/v1";

/** Every setting, with its default as text (`prefault`), in the order of sample.env. */
const settings = z.object({
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
  SIMULATOR_RECIPE: oneOf(RECIPE_NAMES).optional(),
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
  LOG_LEVEL: oneOf(["debug", "info", "warn", "error"]).prefault("info"),
  LOG_FORMAT: oneOf(["auto", "json", "pretty"]).prefault("auto"),
});

type Name = keyof typeof settings.shape;
const settingNames = Object.keys(settings.shape) as Name[];
const secretNames: readonly Name[] = [
  "FINNHUB_API_TOKEN",
  "KAFKA_SASL_PASSWORD",
  "CASSANDRA_PASSWORD",
  "CASSANDRA_GRAFANA_PASSWORD",
  "ADMIN_TOKEN",
  "GRAFANA_PASSWORD",
];
const certificateNames: readonly Name[] = ["KAFKA_SSL_CA", "CASSANDRA_SSL_CA"];

export type ServiceName = "local" | "producer" | "processor" | "admin";

type Simulator = Readonly<{
  seed: number;
  recipe: RecipeName | undefined;
  tapePath: string | undefined;
  speed: number | "max";
}>;

export type Source =
  | (Readonly<{ kind: "simulator" }> & Simulator)
  | Readonly<{ kind: "finnhub"; url: string; token: string | undefined }>;

/** What data of one kind, real or simulated, is called: see namesOf. */
export type Names = Readonly<{ dataDirectory: string; topic: string; groupId: string; keyspace: string }>;

export type Config = Readonly<ReturnType<typeof arrange>>;

type Values = z.output<typeof settings>;
type Texts = { [name in Name]?: string | undefined };
type Environment = Readonly<Record<string, string | undefined>>;
type ReadFile = (path: string) => string;

export function readConfig(
  environment: Environment = process.env,
  readFile: ReadFile = (path) => readFileSync(path, "utf8"),
): Config {
  const mistakes = slips(environment);
  const texts: Texts = {};
  for (const name of settingNames) {
    const isSecret = secretNames.includes(name);
    const value = isSecret ? readSecret(name, environment, readFile, mistakes) : unquoted(environment[name]);
    if (value !== undefined && value !== "") texts[name] = value;
  }
  const certificates: Texts = {};
  for (const name of certificateNames) {
    const path = texts[name];
    if (path !== undefined) certificates[name] = readText(name, path, readFile, mistakes);
  }

  const secrets = secretNames.flatMap((name) => texts[name] ?? []);
  const parsed = settings.safeParse(texts);
  for (const issue of parsed.error?.issues ?? []) {
    const name = issue.path[0] as Name;
    const found = secretNames.includes(name) ? "" : `; found ${quote(texts[name] ?? "", secrets)}`;
    mistakes.push(`${name}: ${issue.message}${found}`);
  }
  mistakes.push(...contradictions(texts));

  if (mistakes.length > 0 || !parsed.success) throw new ConfigError(mistakes);
  return arrange(parsed.data, certificates, secrets, shownTexts(texts));
}

function arrange(values: Values, certificates: Texts, secrets: readonly string[], shown: readonly string[]) {
  const simulator: Simulator = {
    seed: values.SIMULATOR_SEED,
    recipe: values.SIMULATOR_RECIPE,
    tapePath: values.SIMULATOR_TAPE,
    speed: values.SIMULATOR_SPEED,
  };
  return {
    /** Null: none was given, and chooseSource decides. */
    source: givenSource(values, simulator),
    simulator,
    finnhub: {
      token: values.FINNHUB_API_TOKEN,
      apiUrl: values.FINNHUB_API_URL,
      tickers: values.FINNHUB_STOCKS_TICKERS as readonly string[],
      validateTickers: values.FINNHUB_VALIDATE_TICKERS && !isElsewhere(values),
      symbolsMax: values.FINNHUB_MAX_SYMBOLS,
    },
    kafka: {
      brokers: values.KAFKA_SERVER.map(({ host, port }) => `${host}:${port ?? values.KAFKA_PORT}`),
      partitions: values.KAFKA_TOPIC_PARTITIONS,
      compression: values.KAFKA_COMPRESSION,
      sessionTimeoutMs: values.KAFKA_SESSION_TIMEOUT_MS,
      rebalanceTimeoutMs: values.KAFKA_REBALANCE_TIMEOUT_MS,
      /** Without a CA the system's are trusted. */
      tls: values.KAFKA_SSL ? { ca: certificates.KAFKA_SSL_CA } : null,
      sasl: values.KAFKA_SASL_MECHANISM
        ? {
            mechanism: values.KAFKA_SASL_MECHANISM,
            username: values.KAFKA_SASL_USERNAME ?? "",
            password: values.KAFKA_SASL_PASSWORD ?? "",
          }
        : null,
    },
    cassandra: {
      contactPoints: values.CASSANDRA_HOST.map(
        ({ host, port }) => `${host}:${port ?? values.CASSANDRA_PORT}`,
      ),
      datacenter: values.CASSANDRA_DATACENTER,
      replicationFactor: values.CASSANDRA_REPLICATION_FACTOR,
      consistency: values.CASSANDRA_CONSISTENCY,
      tls: values.CASSANDRA_SSL ? { ca: certificates.CASSANDRA_SSL_CA } : null,
      credentials: values.CASSANDRA_USERNAME
        ? { username: values.CASSANDRA_USERNAME, password: values.CASSANDRA_PASSWORD ?? "" }
        : null,
    },
    /** The names of real data; ask namesOf, which knows whether this is. */
    realNames: {
      dataDirectory: values.DATA_DIR,
      topic: values.KAFKA_TOPIC_NAME,
      groupId: values.KAFKA_GROUP_ID,
      keyspace: values.CASSANDRA_KEYSPACE,
    } satisfies Names,
    outbox: { bytesMax: values.OUTBOX_MAX_BYTES, sync: values.OUTBOX_SYNC },
    retentionDays: values.RETENTION_DAYS,
    web: {
      bindAddress: values.BIND_ADDRESS,
      /** Of this binary: portOf. 0 = any free port. */
      ports: { admin: values.ADMIN_PORT, producer: values.PRODUCER_PORT, processor: values.PROCESSOR_PORT },
      /** Whom admin asks for health. */
      producerUrls: values.PRODUCER_URL as readonly string[],
      processorUrls: values.PROCESSOR_URL as readonly string[],
      adminToken: values.ADMIN_TOKEN,
    },
    grafana: {
      /** Who logs in there: for `admin grafana-check`. A new Grafana's password is its name. */
      username: values.GRAFANA_USERNAME,
      password: values.GRAFANA_PASSWORD ?? "admin",
      /** Who may only read the tables; null: `admin init` makes no such user. */
      cassandraRole: values.CASSANDRA_GRAFANA_USERNAME
        ? {
            username: values.CASSANDRA_GRAFANA_USERNAME,
            password: values.CASSANDRA_GRAFANA_PASSWORD ?? "",
          }
        : null,
    },
    log: { level: values.LOG_LEVEL, format: values.LOG_FORMAT },
    /** For openReport: what must stand in no line. */
    secrets,
    /** `NAME=text` of every setting, secrets redacted: for describeConfig. */
    shown,
  };
}

/** The token of another feed is nothing to ask Finnhub's REST side with. */
function isElsewhere(values: Values): boolean {
  return values.FINNHUB_WS_URL !== FINNHUB_WS_URL && values.FINNHUB_API_URL === FINNHUB_API_URL;
}

/** Finnhub's own address given explicitly is no choice: without a token nothing can be had there. */
function givenSource(values: Values, simulator: Simulator): Source | null {
  const token = values.FINNHUB_API_TOKEN;
  if (values.FINNHUB_SIMULATE) return { kind: "simulator", ...simulator };
  if (values.FINNHUB_WS_URL === FINNHUB_WS_URL && token === undefined) return null;
  return { kind: "finnhub", url: values.FINNHUB_WS_URL, token };
}

/** With no source given `local` simulates; a producer must be told, since others will trust its topic. */
export function chooseSource(config: Config, service: "local" | "producer"): Source {
  if (config.source !== null) return config.source;
  if (service === "local") return { kind: "simulator", ...config.simulator };
  throw new ConfigError([
    "producer has no source of trades: set FINNHUB_API_TOKEN (a free one is at https://finnhub.io/register), " +
      "or set FINNHUB_SIMULATE=1 for the built-in simulator",
  ]);
}

/** Simulated and real data never mix: each kind has names of its own. Null = no source was given (see above). */
export function namesOf(config: Config, source: Source | null): Names {
  const { dataDirectory, topic, groupId, keyspace } = config.realNames;
  if (source?.kind !== "simulator") return config.realNames;
  return {
    dataDirectory: `${dataDirectory.replace(/\/+$/, "")}/simulated`,
    topic: topic + SIMULATED_SUFFIX,
    groupId: groupId + SIMULATED_SUFFIX,
    keyspace: keyspace + SIMULATED_SUFFIX,
  };
}

/** `local` is the admin of its own pipeline. */
export function portOf(config: Config, service: ServiceName): number {
  return config.web.ports[service === "local" ? "admin" : service];
}

/** Every setting as it is understood, a line each; of a secret only whether it is set. */
export function describeConfig(config: Config): string {
  return config.shown.join("\n");
}

function shownTexts(texts: Texts): string[] {
  return settingNames.map((name) => {
    if (secretNames.includes(name)) return `${name}=${texts[name] === undefined ? "not set" : "set"}`;
    const field = settings.shape[name];
    const fallback = field instanceof z.ZodPrefault ? String(field.def.defaultValue) : "";
    return `${name}=${texts[name] ?? fallback}`;
  });
}

function readSecret(
  name: Name,
  environment: Environment,
  readFile: ReadFile,
  mistakes: string[],
): string | undefined {
  const value = environment[name] || undefined;
  const path = environment[`${name}_FILE`] || undefined;
  if (path === undefined) return value;
  if (value !== undefined) {
    mistakes.push(`${name}: given twice, here and as ${name}_FILE; remove one`);
    return value;
  }
  const content = readText(`${name}_FILE`, path, readFile, mistakes)?.replace(/[\r\n]+$/, "");
  if (content === "") mistakes.push(`${name}_FILE: the file is empty; write the secret into it`);
  return content;
}

function readText(name: string, path: string, readFile: ReadFile, mistakes: string[]): string | undefined {
  try {
    return readFile(path);
  } catch (error) {
    const reason = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    // The path is not shown: whoever put the secret itself there would find it in his logs.
    mistakes.push(
      `${name}: the file cannot be read (${reason}); give the path of one that this user may read`,
    );
    return undefined;
  }
}

/** What each setting alone cannot tell. */
function contradictions(texts: Texts): string[] {
  const found: string[] = [];
  const together = (one: Name, other: Name) => {
    if (texts[one] !== undefined && texts[other] === undefined)
      found.push(`${one}: needs ${other} beside it`);
  };
  together("KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME");
  together("KAFKA_SASL_MECHANISM", "KAFKA_SASL_PASSWORD");
  together("KAFKA_SASL_USERNAME", "KAFKA_SASL_MECHANISM");
  together("KAFKA_SASL_PASSWORD", "KAFKA_SASL_MECHANISM");
  together("CASSANDRA_USERNAME", "CASSANDRA_PASSWORD");
  together("CASSANDRA_PASSWORD", "CASSANDRA_USERNAME");
  together("CASSANDRA_GRAFANA_USERNAME", "CASSANDRA_GRAFANA_PASSWORD");
  together("CASSANDRA_GRAFANA_PASSWORD", "CASSANDRA_GRAFANA_USERNAME");
  // Where nobody logs in, nobody can be kept from writing.
  together("CASSANDRA_GRAFANA_USERNAME", "CASSANDRA_USERNAME");
  for (const [ca, ssl] of [
    ["KAFKA_SSL_CA", "KAFKA_SSL"],
    ["CASSANDRA_SSL_CA", "CASSANDRA_SSL"],
  ] as const) {
    const isOn = texts[ssl] !== undefined && texts[ssl] !== "0" && texts[ssl] !== "false";
    if (texts[ca] !== undefined && !isOn)
      found.push(`${ca}: has no effect without ${ssl}=1; set both or none`);
  }
  return found;
}

/** `docker run --env-file` keeps the quotes that every other reader of such a file takes off. */
function unquoted(value: string | undefined): string | undefined {
  return value?.trim().replace(/^'(.*)'$/s, "$1");
}

/** A value to show: a token may have been put there too, or into a URL. */
function quote(value: string, secrets: readonly string[]): string {
  const known = secrets.reduce((clean, secret) => clean.replaceAll(secret, "[secret]"), value);
  const clean = known.replace(/\/\/[^/@]*@/g, "//[secret]@").replace(/\?.*/s, "?[...]");
  return JSON.stringify(clean.length > 80 ? `${clean.slice(0, 80)}...` : clean);
}

/** Names near one of ours that are usual elsewhere: Cassandra's own installation sets this one. */
const NO_SLIPS = new Set(["CASSANDRA_HOME"]);
const SLIP_LETTERS_MAX = 2;

/** Unknown names that are most likely ours, misspelt: a setting silently ignored is worse than a refusal. */
function slips(environment: Environment): string[] {
  const ours: string[] = [...settingNames, ...secretNames.map((name) => `${name}_FILE`)];
  const known = new Set(ours);
  const found: string[] = [];
  for (const name of Object.keys(environment)) {
    if (known.has(name) || NO_SLIPS.has(name)) continue;
    const distances = ours.map((candidate) => lettersApart(name.toUpperCase(), candidate));
    const least = Math.min(...distances);
    if (least > SLIP_LETTERS_MAX) continue;
    found.push(
      `${name}: did you mean ${ours[distances.indexOf(least)]}? Rename it, or unset it if it is not for us`,
    );
  }
  return found;
}

/** Damerau-Levenshtein (adjacent letters may swap); anything beyond the limit answers Infinity early. */
function lettersApart(one: string, other: string): number {
  if (Math.abs(one.length - other.length) > SLIP_LETTERS_MAX) return Number.POSITIVE_INFINITY;
  let beforeLast: number[] = [];
  let last = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i++) {
    const row = [i];
    for (let j = 1; j <= other.length; j++) {
      const isSame = one[i - 1] === other[j - 1];
      const isSwap = i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1];
      row[j] = Math.min(
        last[j]! + 1,
        row[j - 1]! + 1,
        last[j - 1]! + (isSame ? 0 : 1),
        isSwap ? beforeLast[j - 2]! + 1 : Number.POSITIVE_INFINITY,
      );
    }
    beforeLast = last;
    last = row;
  }
  return last[other.length]!;
}
