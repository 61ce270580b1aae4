// The settings: what is understood, what is refused and with which words, what is never printed.

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  ConfigError,
  chooseSource,
  describeConfig,
  namesOf,
  portOf,
  readConfig,
} from "../../../lib/base/config.ts";

type Environment = Record<string, string>;

const noFile = (path: string): string => {
  throw Object.assign(new Error(`no ${path}`), { code: "ENOENT" });
};
const read = (environment: Environment, files: Environment = {}) =>
  readConfig(environment, (path) => files[path] ?? noFile(path));

function mistakesOf(environment: Environment, files: Environment = {}): readonly string[] {
  try {
    read(environment, files);
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

const PROXY_NAMES = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];
const SECRET = "tok-4711-XYZ";
const SECRET_NAMES = [
  "FINNHUB_API_TOKEN",
  "KAFKA_SASL_PASSWORD",
  "CASSANDRA_PASSWORD",
  "CASSANDRA_GRAFANA_PASSWORD",
  "ADMIN_TOKEN",
  "GRAFANA_PASSWORD",
];

test("without any setting everything has its default", () => {
  const config = read({});
  expect(config.source).toBeNull();
  expect(config.finnhub.tickers).toContain("BINANCE:BTCUSDT");
  expect(config.finnhub.symbolsMax).toBe(50);
  expect(config.kafka).toMatchObject({ brokers: ["127.0.0.1:9092"], partitions: 8, tls: null, sasl: null });
  expect(config.cassandra).toMatchObject({ contactPoints: ["127.0.0.1:9042"], consistency: "LOCAL_QUORUM" });
  expect(config.outbox).toEqual({ bytesMax: 2 ** 30, sync: "normal" });
  expect([portOf(config, "local"), portOf(config, "admin")]).toEqual([8080, 8080]);
  expect([portOf(config, "producer"), portOf(config, "processor")]).toEqual([8081, 8082]);
  expect(config.web.adminToken).toBeUndefined();
});

const sampleText = readFileSync(join(import.meta.dir, "../../../sample.env"), "utf8");
const sampleLines = sampleText.split("\n").filter((line) => /^\w+=/.test(line));

test("sample.env lists every setting, each with its default, each below a comment", () => {
  const defaults = describeConfig(read({})).split("\n");
  const shown = defaults.map((line) => line.replace(/=not set$/, "="));
  expect(sampleLines.map((line) => line.replace(/='(.*)'$/, "=$1"))).toEqual(shown);
  const lines = sampleText.split("\n");
  for (const line of sampleLines) expect(lines[lines.indexOf(line) - 1]).toMatch(/^# ./);
  const secretLines = sampleLines.filter((line) => lines[lines.indexOf(line) - 1]?.startsWith("# * "));
  expect(secretLines).toEqual([...SECRET_NAMES, ...PROXY_NAMES].map((name) => `${name}=`));
});

test("sample.env as .env changes nothing: neither the settings nor which source is chosen", () => {
  const entries = sampleLines.map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]);
  expect(read(Object.fromEntries(entries))).toEqual(read({}));
  const script = `process.stdout.write(JSON.stringify(process.env))`;
  const file = join(import.meta.dir, "../../../sample.env");
  const bun = Bun.spawnSync([process.execPath, `--env-file=${file}`, "-e", script], { env: {} });
  expect(read(JSON.parse(bun.stdout.toString()) as Environment)).toEqual(read({}));
});

test("all mistakes are told at once, each with what to do", () => {
  expect(
    mistakesOf({
      FINNHUB_STOCKS_TICKERS: "AAPL,MSFT",
      FINHUB_API_TOKEN: SECRET,
      KAFKA_PORT: "70000",
      KAFKA_SSL: "ja",
      OUTBOX_MAX_BYTES: "1 GBi",
      LOG_LEVEL: "loud",
      CASSANDRA_USERNAME: "me",
      ADMIN_TOKEN_FILE: "/run/none",
      PRODUCER_URL: "localhost:8081",
    }),
  ).toEqual([
    "FINHUB_API_TOKEN: did you mean FINNHUB_API_TOKEN? Rename it, or unset it if it is not for us",
    "ADMIN_TOKEN_FILE: the file cannot be read (ENOENT); give the path of one that this user may read",
    `FINNHUB_STOCKS_TICKERS: give a JSON list of symbols, like '["AAPL", "BINANCE:BTCUSDT"]'; found "AAPL,MSFT"`,
    'KAFKA_PORT: give a whole number from 1 to 65535; found "70000"',
    'KAFKA_SSL: give 1 or 0; found "ja"',
    'OUTBOX_MAX_BYTES: give a size of at least 1 MiB, like 1GiB, 256 MiB or 1073741824; found "1 GBi"',
    'PRODUCER_URL: give a URL that begins with http:// or https://; found "localhost:8081"',
    'LOG_LEVEL: give one of debug, info, warn, error; found "loud"',
    "CASSANDRA_USERNAME: needs CASSANDRA_PASSWORD beside it",
  ]);
});

test("an empty or blank setting is not set", () => {
  const empty = Object.fromEntries(sampleLines.map((line) => [line.split("=")[0] ?? "", ""]));
  expect(read(empty)).toEqual(read({}));
  expect(read({ KAFKA_PORT: "  ", FINNHUB_API_TOKEN_FILE: "" })).toEqual(read({}));
});

test.each([
  [
    "FINNHUB_STOCKS_TICKERS",
    ['["A"', '{"a":1}', '"A"', '["A",1]', '["A",""]', '[" "]', `["${"x".repeat(129)}"]`],
  ],
  ["FINNHUB_MAX_SYMBOLS", ["0", "-1", "1.5", "1e3", "0x10", "ten", "10001"]],
  ["FINNHUB_WS_URL", ["ws.finnhub.io", "https://h", "ws://u:p@h", "wss://h?token=x"]],
  ["SIMULATOR_SPEED", ["0", "-1", "fast", "1e9"]],
  ["SIMULATOR_RECIPE", ["wild", "calm market"]],
  ["KAFKA_SERVER", ["kafka://a", "a b", "a:0", "a:99999", ",", "a,,b c"]],
  ["KAFKA_PORT", ["0", "65536", "tcp://10.0.0.1:9092"]],
  ["KAFKA_TOPIC_NAME", ["a b", "market_simulated", "x".repeat(201)]],
  ["CASSANDRA_KEYSPACE", ["Market", "1st", "a-b", "market_simulated", "x".repeat(39)]],
  ["GRAFANA_USERNAME", ["with blank"]],
  ["DATA_DIR", ["simulated", "./data/simulated/"]],
  ["OUTBOX_MAX_BYTES", ["1", "1 Mi B", "-1GiB", "999999 TiB", "1iB", "GiB"]],
  ["RETENTION_DAYS", ["0", "7301"]],
  ["BIND_ADDRESS", ["everywhere", "256.1.1.1"]],
  ["ADMIN_PORT", ["65536", "-1"]],
  ["ADMIN_TOKEN", ["with blank", 'quo"te', "ümlaut"]],
  ["FINNHUB_API_TOKEN", ["with blank", "line\nline"]],
])("%s refuses what it cannot mean", (name, values) => {
  for (const value of values) {
    const mistakes = mistakesOf({ [name]: value });
    expect(mistakes.map((mistake) => mistake.split(":")[0])).toEqual([name]);
  }
});

test("lists, sizes, flags, hosts and addresses are understood in their usual spellings", () => {
  const config = read({
    FINNHUB_STOCKS_TICKERS: '["AAPL", "IC MARKETS:1", "AAPL", " MSFT "]',
    KAFKA_SERVER: "a, b:9093 ,[::1]:9094,::1",
    KAFKA_SSL: "true",
    FINNHUB_VALIDATE_TICKERS: "false",
    CASSANDRA_CONSISTENCY: "quorum",
    SIMULATOR_SPEED: "max",
    SIMULATOR_RECIPE: "Bad-Day",
    ADMIN_PORT: "0",
    PRODUCER_URL: "http://a:1/, http://b:2",
    FINNHUB_API_URL: "http://127.0.0.1:9/api/v1/",
  });
  expect(config.finnhub.tickers).toEqual(["AAPL", "IC MARKETS:1", "MSFT"]);
  expect(config.kafka.brokers).toEqual(["a:9092", "b:9093", "[::1]:9094", "[::1]:9092"]);
  expect(config.kafka.tls).toEqual({ ca: undefined });
  expect(config.finnhub.validateTickers).toBeFalse();
  expect(config.cassandra.consistency).toBe("QUORUM");
  expect(config.simulator.speed).toBe("max");
  expect(config.simulator.scenario).toBe("bad-day");
  expect(portOf(config, "local")).toBe(0);
  expect(config.web.producerUrls).toEqual(["http://a:1", "http://b:2"]);
  expect(config.finnhub.apiUrl).toBe("http://127.0.0.1:9/api/v1");
  const sizes: [string, number][] = [
    ["1 GiB", 2 ** 30],
    ["256MiB", 2 ** 28],
    ["1.5 gib", 1.5 * 2 ** 30],
    ["2GB", 2e9],
    ["1048576", 2 ** 20],
    ["1048576 B", 2 ** 20],
  ];
  for (const [text, bytes] of sizes) expect(read({ OUTBOX_MAX_BYTES: text }).outbox.bytesMax).toBe(bytes);
});

test("any secret can be given as a file, whose last line end does not count", () => {
  for (const name of SECRET_NAMES) {
    const others = { KAFKA_SASL_MECHANISM: "plain", KAFKA_SASL_USERNAME: "u", KAFKA_SASL_PASSWORD: "p" };
    const environment: Environment = name === "KAFKA_SASL_PASSWORD" ? { ...others, [name]: "" } : {};
    if (name === "CASSANDRA_PASSWORD") environment.CASSANDRA_USERNAME = "u";
    const reader = { CASSANDRA_GRAFANA_USERNAME: "g", CASSANDRA_USERNAME: "u", CASSANDRA_PASSWORD: "p" };
    if (name === "CASSANDRA_GRAFANA_PASSWORD") Object.assign(environment, reader);
    const config = read(
      { ...environment, [`${name}_FILE`]: "/run/secret" },
      { "/run/secret": `${SECRET}\r\n` },
    );
    const beside = name === "CASSANDRA_GRAFANA_PASSWORD" ? ["p"] : [];
    expect(config.secrets).toEqual([...beside, SECRET]);
  }
  expect(mistakesOf({ ADMIN_TOKEN: "a", ADMIN_TOKEN_FILE: "/f" }, { "/f": "b" })).toEqual([
    "ADMIN_TOKEN: given twice, here and as ADMIN_TOKEN_FILE; remove one",
  ]);
  expect(mistakesOf({ ADMIN_TOKEN_FILE: "/f" }, { "/f": "\n" })).toEqual([
    "ADMIN_TOKEN_FILE: the file is empty; write the secret into it",
  ]);
});

test("what belongs together must be given together", () => {
  expect(mistakesOf({ KAFKA_SASL_PASSWORD: "p" })).toEqual([
    "KAFKA_SASL_PASSWORD: needs KAFKA_SASL_MECHANISM beside it",
  ]);
  expect(mistakesOf({ CASSANDRA_SSL_CA: "/ca" }, { "/ca": "PEM" })).toEqual([
    "CASSANDRA_SSL_CA: has no effect without CASSANDRA_SSL=1; set both or none",
  ]);
  expect(mistakesOf({ KAFKA_SSL: "1", KAFKA_SSL_CA: "/none" })).toEqual([
    "KAFKA_SSL_CA: the file cannot be read (ENOENT); give the path of one that this user may read",
  ]);
  expect(mistakesOf({ CASSANDRA_GRAFANA_USERNAME: "g", CASSANDRA_GRAFANA_PASSWORD: "p" })).toEqual([
    "CASSANDRA_GRAFANA_USERNAME: needs CASSANDRA_USERNAME beside it",
  ]);
  const config = read({ KAFKA_SSL: "1", KAFKA_SSL_CA: "/ca" }, { "/ca": "PEM" });
  expect(config.kafka.tls).toEqual({ ca: "PEM" });
});

test("no secret stands in a mistake, wherever it was put, nor in what --check-config shows", () => {
  const wrong = {
    FINNHUB_API_TOKEN: SECRET,
    FINNHUB_STOCKS_TICKERS: SECRET,
    KAFKA_PORT: SECRET,
    ADMIN_TOKEN: `${SECRET} "`,
    CASSANDRA_PASSWORD_FILE: SECRET,
    FINNHUB_WS_URL: "wss://user:hidden1@h/?token=hidden2",
    FINNHUB_API_URL: "https://h/?token=hidden3",
    HTTPS_PROXY: "socks5://user:hidden5@h:1",
    PRODUCER_URL: "http://user:hidden4@h",
  };
  const told = mistakesOf(wrong).join("\n");
  expect(told).toContain("KAFKA_PORT");
  expect(told).not.toContain(SECRET);
  expect(told).not.toContain("hidden");
  const right = { ...Object.fromEntries(SECRET_NAMES.map((name) => [name, `${SECRET}-${name}`])) };
  const users = { KAFKA_SASL_USERNAME: "u", CASSANDRA_USERNAME: "u", CASSANDRA_GRAFANA_USERNAME: "g" };
  const pairs = { KAFKA_SASL_MECHANISM: "plain", ...users };
  const proxy = { HTTPS_PROXY: `http://me:${SECRET}@proxy.example.com:3128` };
  const config = read({ ...right, ...pairs, ...proxy });
  const shown = describeConfig(config);
  expect(shown).toContain("HTTPS_PROXY=http://proxy.example.com:3128\n");
  expect(config.secrets).toContain(btoa(`me:${SECRET}`));
  expect(shown).not.toContain(SECRET);
  for (const name of SECRET_NAMES) expect(shown).toContain(`${name}=set\n`);
});

test("a name within two letters of one of ours is taken for a slip", () => {
  const slips: [string, string][] = [
    ["FINHUB_API_TOKEN", "FINNHUB_API_TOKEN"],
    ["FINNHUB_PAI_TOKNE", "FINNHUB_API_TOKEN"],
    ["FINNHUB_STOCK_TICKER", "FINNHUB_STOCKS_TICKERS"],
    ["finnhub_api_token", "FINNHUB_API_TOKEN"],
    ["KAFKA_SERVERS", "KAFKA_SERVER"],
    ["CASANDRA_HOST", "CASSANDRA_HOST"],
    ["DATADIR", "DATA_DIR"],
    ["ADMIN_TOKEN_FLIE", "ADMIN_TOKEN_FILE"],
    ["LOGLEVEL", "LOG_LEVEL"],
  ];
  for (const [slip, meant] of slips) {
    expect(mistakesOf({ [slip]: "x" })).toEqual([
      `${slip}: did you mean ${meant}? Rename it, or unset it if it is not for us`,
    ]);
  }
  expect(mistakesOf({ FINHB_API_TOKN: "three or more letters off" })).toEqual([]);
});

test("no usual variable of a shell, npm, systemd, docker, Kubernetes or GitHub is taken for a slip", () => {
  const usual = `
    HOME PATH PORT HOST HOSTNAME LANG LANGUAGE LC_ALL LC_CTYPE TERM TERM_PROGRAM COLORTERM SHELL SHLVL USER LOGNAME PWD
    OLDPWD TMPDIR TEMP TMP TZ EDITOR VISUAL PAGER LESS MAIL DISPLAY WAYLAND_DISPLAY SSH_AUTH_SOCK SSH_CONNECTION
    SSH_CLIENT SSH_TTY XDG_DATA_HOME XDG_DATA_DIRS XDG_CONFIG_HOME XDG_CACHE_HOME XDG_RUNTIME_DIR XDG_STATE_HOME
    XDG_SESSION_ID DBUS_SESSION_BUS_ADDRESS LS_COLORS HISTFILE PS1 _ CDPATH DATABASE_URL DATA_HOME LOG_DIR LOG_FILE
    LOG_PATH CACHE_DIR STATE_DIR BASE_DIR TASK_DIR ROOT_DIR DATA_PATH DATA HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy
    https_proxy no_proxy ALL_PROXY SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE REQUESTS_CA_BUNDLE NODE_ENV NODE_OPTIONS
    NODE_PATH NODE_EXTRA_CA_CERTS NODE BUN_INSTALL BUN_OPTIONS BUN_BE_BUN FORCE_COLOR NO_COLOR CI DEBUG VERBOSE INIT_CWD
    npm_config_loglevel npm_config_cache npm_config_registry npm_config_user_agent npm_config_userconfig
    npm_config_globalconfig npm_config_local_prefix npm_config_prefix npm_config_node_gyp npm_config_noproxy
    npm_config_npm_version npm_lifecycle_event npm_lifecycle_script npm_package_name npm_package_version npm_package_json
    npm_command npm_execpath npm_node_execpath NPM_TOKEN NPM_CONFIG_LOGLEVEL YARN_VERSION PNPM_HOME COREPACK_HOME
    INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET WATCHDOG_PID WATCHDOG_USEC LISTEN_PID LISTEN_FDS LISTEN_FDNAMES MAINPID
    MANAGERPID SYSTEMD_EXEC_PID MEMORY_PRESSURE_WATCH STATE_DIRECTORY CACHE_DIRECTORY LOGS_DIRECTORY RUNTIME_DIRECTORY
    CONFIGURATION_DIRECTORY CREDENTIALS_DIRECTORY SERVICE_RESULT EXIT_CODE EXIT_STATUS
    DOCKER_HOST DOCKER_CONFIG DOCKER_BUILDKIT DOCKER_TLS_VERIFY DOCKER_CERT_PATH COMPOSE_PROJECT_NAME COMPOSE_FILE
    container KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_PORT KUBERNETES_PORT_443_TCP
    KUBERNETES_PORT_443_TCP_ADDR KAFKA_SERVICE_HOST KAFKA_SERVICE_PORT KAFKA_PORT_9092_TCP KAFKA_PORT_9092_TCP_ADDR
    KAFKA_PORT_9092_TCP_PORT KAFKA_PORT_9092_TCP_PROTO CASSANDRA_SERVICE_HOST CASSANDRA_SERVICE_PORT
    CASSANDRA_PORT_9042_TCP CASSANDRA_PORT_9042_TCP_ADDR PRODUCER_SERVICE_HOST PRODUCER_SERVICE_PORT ADMIN_SERVICE_PORT
    KAFKA_HOME KAFKA_OPTS KAFKA_HEAP_OPTS KAFKA_LOG4J_OPTS KAFKA_LOG_DIRS KAFKA_NODE_ID KAFKA_BROKER_ID KAFKA_LISTENERS
    KAFKA_ADVERTISED_LISTENERS KAFKA_PROCESS_ROLES KAFKA_CFG_LISTENERS KAFKA_CLUSTER_ID CLUSTER_ID
    KAFKAJS_NO_PARTITIONER_WARNING CASSANDRA_HOME CASSANDRA_CONF CASSANDRA_DC CASSANDRA_RACK CASSANDRA_SEEDS
    CASSANDRA_CLUSTER_NAME CASSANDRA_ENDPOINT_SNITCH CASSANDRA_LISTEN_ADDRESS CASSANDRA_BROADCAST_ADDRESS
    CASSANDRA_NUM_TOKENS CASSANDRA_LOG_DIR CASSANDRA_VERSION MAX_HEAP_SIZE HEAP_NEWSIZE JAVA_HOME
    GITHUB_TOKEN GITHUB_API_URL GITHUB_API_TOKEN GITHUB_SERVER_URL GITHUB_ACTIONS GITHUB_ACTOR GITHUB_ENV GITHUB_EVENT_NAME
    GITHUB_EVENT_PATH GITHUB_GRAPHQL_URL GITHUB_HEAD_REF GITHUB_JOB GITHUB_OUTPUT GITHUB_PATH GITHUB_REF GITHUB_REF_NAME
    GITHUB_REPOSITORY GITHUB_RUN_ID GITHUB_SHA GITHUB_STEP_SUMMARY GITHUB_WORKFLOW GITHUB_WORKSPACE RUNNER_ARCH RUNNER_OS
    RUNNER_NAME RUNNER_TEMP RUNNER_TOOL_CACHE RUNNER_DEBUG ACTIONS_RUNTIME_TOKEN ACTIONS_CACHE_URL
    ACTIONS_ID_TOKEN_REQUEST_URL AGENT_TOOLSDIRECTORY ImageOS ImageVersion DEBIAN_FRONTEND AWS_REGION AWS_CA_BUNDLE
    AWS_ACCESS_KEY_ID AWS_SESSION_TOKEN GF_SECURITY_ADMIN_PASSWORD GF_SERVER_HTTP_PORT PGDATA PGHOST PGPORT REDIS_URL
    VIRTUAL_ENV CONDA_PREFIX PYTHONPATH GOPATH CARGO_HOME RUST_LOG RUST_BACKTRACE WSL_DISTRO_NAME VSCODE_PID`;
  const names = usual.trim().split(/\s+/);
  expect(names.length).toBeGreaterThan(200);
  expect(mistakesOf(Object.fromEntries(names.map((name) => [name, "x"])))).toEqual([]);
});

test("a port that Kubernetes set for a service is refused with the way out", () => {
  expect(mistakesOf({ KAFKA_PORT: "tcp://10.0.0.1:9092" })[0]).toContain("enableServiceLinks: false");
});

test("the source: FINNHUB_SIMULATE before another feed's address before a token", () => {
  const simulate = { FINNHUB_SIMULATE: "1" };
  const ownFeed = { FINNHUB_WS_URL: "ws://127.0.0.1:9" };
  const token = { FINNHUB_API_TOKEN: SECRET };
  const simulator = { kind: "simulator", seed: 1, tapePath: undefined, speed: 1 };
  expect(read({ ...simulate, ...ownFeed, ...token }).source).toEqual(simulator as never);
  expect(read(ownFeed).source).toEqual({ kind: "finnhub", url: "ws://127.0.0.1:9", token: undefined });
  expect(read({ ...ownFeed, ...token }).source).toEqual({
    kind: "finnhub",
    url: "ws://127.0.0.1:9",
    token: SECRET,
  });
  expect(read(token).source).toEqual({ kind: "finnhub", url: "wss://ws.finnhub.io", token: SECRET });
});

test("with no source local simulates, and producer refuses and names both ways out", () => {
  const config = read({ SIMULATOR_SEED: "7" });
  expect(chooseSource(config, "local")).toMatchObject({ kind: "simulator", seed: 7 });
  const refusal = () => chooseSource(config, "producer");
  expect(refusal).toThrow(ConfigError);
  expect(refusal).toThrow(/FINNHUB_API_TOKEN.*FINNHUB_SIMULATE=1/);
});

test("simulated data has names of its own in every store", () => {
  const config = read({ DATA_DIR: "/var/lib/market/" });
  const simulated = namesOf(config, chooseSource(config, "local"));
  expect(simulated).toEqual({
    dataDirectory: "/var/lib/market/simulated",
    topic: "market_simulated",
    groupId: "processor_simulated",
    keyspace: "market_simulated",
  });
  const real = namesOf(config, { kind: "finnhub", url: "wss://h", token: undefined });
  expect(namesOf(config, null)).toEqual(real);
  for (const name of ["dataDirectory", "topic", "groupId", "keyspace"] as const) {
    expect(real[name]).not.toBe(simulated[name]);
  }
});

test("the token of another feed is not shown to Finnhub's REST side", () => {
  const elsewhere = { FINNHUB_WS_URL: "ws://127.0.0.1:9", FINNHUB_API_TOKEN: "other-token" };
  expect(readConfig(elsewhere).finnhub.validateTickers).toBe(false);
  expect(readConfig({ FINNHUB_API_TOKEN: "own-token" }).finnhub.validateTickers).toBe(true);
  const both = { ...elsewhere, FINNHUB_API_URL: "http://127.0.0.1:9/api" };
  expect(readConfig(both).finnhub.validateTickers).toBe(true);
});
