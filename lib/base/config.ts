// The one reader of settings: from the environment, and the files that it names, to the Config that the parts get. It
// reports all mistakes at once; no message holds the value of a secret. base/settings.ts says what each setting accepts.

import { readFileSync } from "node:fs";
import { PROXY_NAMES, proxySecrets, readProxies, shownProxy } from "./proxy.ts";
import {
  type Environment,
  fileNames,
  type ReadFile,
  readText,
  readTexts,
  type Texts,
} from "./setting-texts.ts";
import {
  certificateNames,
  defaultText,
  FINNHUB_API_URL,
  FINNHUB_WS_URL,
  type Name,
  type ScenarioName,
  SIMULATED_SUFFIX,
  secretNames,
  settingNames,
  settings,
  type Values,
} from "./settings.ts";

/** The operator must change a setting; each mistake is a sentence that says what to do. */
export class ConfigError extends Error {
  readonly mistakes: readonly string[];
  constructor(mistakes: readonly string[]) {
    super(mistakes.join("\n"));
    this.name = "ConfigError";
    this.mistakes = mistakes;
  }
}

export type ServiceName = "local" | "producer" | "processor" | "admin";

type Simulator = Readonly<{
  seed: number;
  scenario: ScenarioName | undefined;
  tapePath: string | undefined;
  speed: number | "max";
}>;

export type Source =
  | (Readonly<{ kind: "simulator" }> & Simulator)
  | Readonly<{ kind: "finnhub"; url: string; token: string | undefined }>;

/** The names of one kind of data, real or simulated: see namesOf. */
export type Names = Readonly<{ dataDirectory: string; topic: string; groupId: string; keyspace: string }>;

export type Config = Readonly<ReturnType<typeof arrange>>;

/** Where systemd listens to what a process tells of itself (sd_notify(3)); null = nobody does. */
export function supervisorSocket(given: Environment = process.env): string | null {
  return given.NOTIFY_SOCKET || null;
}

export function readConfig(
  given: Environment = process.env,
  readFile: ReadFile = (path) => readFileSync(path, "utf8"),
): Config {
  const { texts, mistakes } = readTexts(given, readFile);
  const certificates: Texts = {};
  for (const name of certificateNames) {
    const path = texts[name];
    if (path !== undefined) certificates[name] = readText(name, path, readFile, mistakes);
  }

  const secrets = [
    ...secretNames.flatMap((name) => texts[name] ?? []),
    ...PROXY_NAMES.flatMap((name) => proxySecrets(texts[name] ?? "")),
  ];
  const parsed = settings.safeParse(texts);
  for (const issue of parsed.error?.issues ?? []) {
    const name = issue.path[0] as Name;
    const found = fileNames.includes(name) ? "" : `; found ${quote(texts[name] ?? "", secrets)}`;
    const comment = /\s#/.test(texts[name] ?? "") ? "; a comment needs a line of its own" : "";
    mistakes.push(`${name}: ${issue.message}${found}${comment}`);
  }
  const faulty = new Set(parsed.error?.issues.map(({ path }) => path[0]));
  for (const name of settingNames) if (!faulty.has(name)) mistakes.push(...leftOver(name, texts[name] ?? ""));
  mistakes.push(...contradictions(texts));

  if (mistakes.length > 0 || !parsed.success) throw new ConfigError(mistakes);
  return arrange(parsed.data, certificates, secrets, shownTexts(texts));
}

function arrange(values: Values, certificates: Texts, secrets: readonly string[], shown: readonly string[]) {
  const simulator: Simulator = {
    seed: values.SIMULATOR_SEED,
    scenario: values.SIMULATOR_RECIPE,
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
      /** portOf knows which is this binary's. 0 = any free port. */
      ports: { admin: values.ADMIN_PORT, producer: values.PRODUCER_PORT, processor: values.PROCESSOR_PORT },
      /** Where admin polls health. */
      producerUrls: values.PRODUCER_URL as readonly string[],
      processorUrls: values.PROCESSOR_URL as readonly string[],
      adminToken: values.ADMIN_TOKEN,
    },
    grafana: {
      /** The login of `admin grafana-check`. The password of a new Grafana is its user name. */
      username: values.GRAFANA_USERNAME,
      password: values.GRAFANA_PASSWORD ?? "admin",
      /** The user who may only read the tables; null: `admin init` creates none. */
      cassandraRole: values.CASSANDRA_GRAFANA_USERNAME
        ? {
            username: values.CASSANDRA_GRAFANA_USERNAME,
            password: values.CASSANDRA_GRAFANA_PASSWORD ?? "",
          }
        : null,
    },
    proxies: readProxies(
      Object.fromEntries(
        ([...PROXY_NAMES, "NO_PROXY"] as const).flatMap((name) =>
          values[name] === undefined ? [] : [[name, values[name]]],
        ),
      ),
    ),
    log: { level: values.LOG_LEVEL, format: values.LOG_FORMAT },
    /** For openLogger: what no line may hold. */
    secrets,
    /** `NAME=text` of every setting, secrets redacted: for describeConfig. */
    shown,
  };
}

/** The source, for people. */
export function sourceWords({ kind }: Source): string {
  return { simulator: "the built-in simulator", finnhub: "Finnhub" }[kind];
}

/** The token of another feed must not go to Finnhub's REST API. */
function isElsewhere(values: Values): boolean {
  return values.FINNHUB_WS_URL !== FINNHUB_WS_URL && values.FINNHUB_API_URL === FINNHUB_API_URL;
}

/** Finnhub's own address alone chooses no source: it answers nothing without a token. */
function givenSource(values: Values, simulator: Simulator): Source | null {
  const token = values.FINNHUB_API_TOKEN;
  if (values.FINNHUB_SIMULATE) return { kind: "simulator", ...simulator };
  if (values.FINNHUB_WS_URL === FINNHUB_WS_URL && token === undefined) return null;
  return { kind: "finnhub", url: values.FINNHUB_WS_URL, token };
}

/** Without a source local simulates; a producer must be given one, since others will trust its topic. */
export function chooseSource(config: Config, service: "local" | "producer"): Source {
  if (config.source !== null) return config.source;
  if (service === "local") return { kind: "simulator", ...config.simulator };
  throw new ConfigError([
    "producer has no source of trades: set FINNHUB_API_TOKEN (a free one is at https://finnhub.io/register), " +
      "or set FINNHUB_SIMULATE=1 for the built-in simulator",
  ]);
}

/** The source whose data a binary works on: local and producer receive it, the others must be told of none. */
export function sourceFor(config: Config, service: ServiceName): Source | null {
  return service === "local" || service === "producer" ? chooseSource(config, service) : config.source;
}

/** Simulated and real data never mix: each kind has names of its own. Null = no source is given (see chooseSource). */
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

/** `local` is the admin of its own pipeline. 0 = any free port. */
export function portOf(config: Config, service: ServiceName): number {
  return config.web.ports[portOwner(service)];
}

/** The name of the setting that chooses that port. */
export function portSettingOf(service: ServiceName): Name {
  const names = { admin: "ADMIN_PORT", producer: "PRODUCER_PORT", processor: "PROCESSOR_PORT" } as const;
  return names[portOwner(service)];
}

function portOwner(service: ServiceName): Exclude<ServiceName, "local"> {
  return service === "local" ? "admin" : service;
}

/** Every setting as it is understood, a line each; for a secret only whether it is set. */
export function describeConfig(config: Config): string {
  return config.shown.join("\n");
}

function shownTexts(texts: Texts): string[] {
  return settingNames.map((name) => {
    if (secretNames.includes(name)) return `${name}=${texts[name] === undefined ? "not set" : "set"}`;
    if (fileNames.includes(name)) return `${name}=${shownProxy(texts[name] ?? "")}`;
    return `${name}=${texts[name] ?? defaultText(name)}`;
  });
}

/** What a writer or an editor left at an end of a value, and which would otherwise be taken for a part of it. A password may
 * be anything. */
function leftOver(name: Name, text: string): string[] {
  if (name.endsWith("_PASSWORD") || !/^["'`\u2018-\u201f]|["'`\u2018-\u201f;]$/.test(text)) return [];
  return [
    `${name}: a quote or a ; at an end of the value would be a part of it; write it plain, or in one pair of ' or "`,
  ];
}

/** Mistakes that no setting shows alone. */
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
  // Without logins nobody can be kept from writing.
  together("CASSANDRA_GRAFANA_USERNAME", "CASSANDRA_USERNAME");
  for (const [ca, ssl] of [
    ["KAFKA_SSL_CA", "KAFKA_SSL"],
    ["CASSANDRA_SSL_CA", "CASSANDRA_SSL"],
  ] as const) {
    const isOn = !["0", "false"].includes(texts[ssl]?.toLowerCase() ?? "0");
    if (texts[ca] !== undefined && !isOn)
      found.push(`${ca}: has no effect without ${ssl}=1; set both or none`);
  }
  return found;
}

/** A value to show: a token may have been put there too, or into a URL. */
function quote(value: string, secrets: readonly string[]): string {
  const known = secrets.reduce((clean, secret) => clean.replaceAll(secret, "[secret]"), value);
  const clean = known.replace(/\/\/[^/@]*@/g, "//[secret]@").replace(/\?.*/s, "?[...]");
  return JSON.stringify(clean.length > 80 ? `${clean.slice(0, 80)}...` : clean);
}
