// Settings as people write them: the same file of settings, as each of its readers hands it to us, means the same.

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError, readConfig } from "../../../lib/base/config.ts";
import { settingText } from "../../../lib/base/setting-text.ts";

type Environment = Record<string, string>;

const ROOT = join(import.meta.dir, "../../..");
const directory = mkdtempSync(join(tmpdir(), "setting-text-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const noFile = (): string => {
  throw Object.assign(new Error("no file"), { code: "ENOENT" });
};
const read = (environment: Environment) => readConfig(environment, noFile);
function mistakesOf(environment: Environment, file?: string): readonly string[] {
  try {
    readConfig(environment, () => file ?? noFile());
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

test.each([
  ["plain", "plain"],
  ["'single'", "single"],
  ['"double"', "double"],
  ["  blanks\t", "blanks"],
  ["line end\r\n", "line end"],
  ["\uFEFF'mark'\n", "mark"],
  ["' kept '", " kept "],
  ["'\"both\"'", '"both"'],
  ["''", ""],
  ["'", "'"],
  ["it's", "it's"],
  ["'open", "'open"],
  ["a#b $c \\d", "a#b $c \\d"],
])("%j is read as %j", (raw, text) => {
  expect(settingText(raw)).toBe(text);
});

// --- One file, many readers ------------------------------------------------------------------------------------

/** What people write: quotes of both kinds, none, and a comment of its own. */
const FILE = `# my settings
FINNHUB_API_TOKEN='tok-0123456789abcdef'
FINNHUB_STOCKS_TICKERS='["AAPL", "BINANCE:BTCUSDT"]'
FINNHUB_MAX_SYMBOLS="30"
FINNHUB_WS_URL='wss://feed.example.com/'
FINNHUB_API_URL="https://feed.example.com/api"
FINNHUB_SIMULATE='0'
KAFKA_SERVER="one:1,two"
KAFKA_SASL_MECHANISM=plain
KAFKA_SASL_USERNAME="me"
KAFKA_SASL_PASSWORD='pass word#1'
CASSANDRA_USERNAME='cassandra'
CASSANDRA_PASSWORD='se"cr\\et'
OUTBOX_MAX_BYTES='512 MiB'
BIND_ADDRESS="0.0.0.0"
ADMIN_TOKEN="0123456789abcdef"
GRAFANA_PASSWORD='it is so'
HTTPS_PROXY="http://proxy.example.com:3128"
NO_PROXY='example.org, example.net'
LOG_LEVEL="warn"
`;
const pairs = FILE.split("\n")
  .filter((line) => /^\w+=/.test(line))
  .map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]);
const MEANT = {
  token: "tok-0123456789abcdef",
  tickers: ["AAPL", "BINANCE:BTCUSDT"],
  symbolsMax: 30,
  apiUrl: "https://feed.example.com/api",
  brokers: ["one:1", "two:9092"],
  sasl: { mechanism: "plain", username: "me", password: "pass word#1" },
  credentials: { username: "cassandra", password: 'se"cr\\et' },
  bytesMax: 512 * 2 ** 20,
  bindAddress: "0.0.0.0",
  adminToken: "0123456789abcdef",
  grafana: "it is so",
  proxy: "http://proxy.example.com:3128/",
  exceptions: ["example.org", "example.net"],
  level: "warn",
};

function understood({
  finnhub,
  kafka,
  cassandra,
  outbox,
  web,
  grafana,
  proxies,
  log,
}: ReturnType<typeof read>) {
  return {
    token: finnhub.token,
    tickers: finnhub.tickers,
    symbolsMax: finnhub.symbolsMax,
    apiUrl: finnhub.apiUrl,
    brokers: kafka.brokers,
    sasl: kafka.sasl,
    credentials: cassandra.credentials,
    bytesMax: outbox.bytesMax,
    bindAddress: web.bindAddress,
    adminToken: web.adminToken,
    grafana: grafana.password,
    proxy: proxies.https?.url,
    exceptions: proxies.exceptions,
    level: log.level,
  } as unknown;
}

const unquotedBy = (value: string) => value.replace(/^(['"])(.*)\1$/s, "$2");

test("docker run --env-file hands over the quotes", () => {
  expect(understood(read(Object.fromEntries(pairs)))).toEqual(MEANT);
});

test("systemd's EnvironmentFile and compose take the quotes off", () => {
  const settings = Object.fromEntries(pairs.map(([name, value]) => [name, unquotedBy(value)]));
  expect(understood(read(settings))).toEqual(MEANT);
});

test("a file of Windows, with line ends of two characters and a byte order mark, in each reader's way", () => {
  const kept = Object.fromEntries(pairs.map(([name, value]) => [name, `${value}\r`]));
  expect(understood(read(kept))).toEqual(MEANT);
  const marked = Object.fromEntries(pairs.map(([name, value]) => [`\uFEFF${name}`, value]));
  expect(understood(read(marked))).toEqual(MEANT);
  const exported = Object.fromEntries(pairs.map(([name, value]) => [`export ${name}`, value]));
  expect(understood(read(exported))).toEqual(MEANT);
});

test.each([
  ["as it is", FILE],
  ["of Windows", `\uFEFF${FILE.replaceAll("\n", "\r\n")}`],
  ["with export", FILE.replace(/^(?=\w)/gm, "export ")],
])("Bun's own reading of .env, %s", (_how, text) => {
  const file = join(directory, ".env");
  writeFileSync(file, text);
  const script = `
    const { readConfig } = await import(${JSON.stringify(join(ROOT, "lib/base/config.ts"))});
    process.stdout.write(JSON.stringify(readConfig()));`;
  const child = Bun.spawnSync([process.execPath, "-e", script], { cwd: directory, env: {} });
  expect(child.stderr.toString()).toBe("");
  expect(understood(JSON.parse(child.stdout.toString()))).toEqual(MEANT);
});

test("NAME_FILE: each secret as a file of its own, with quotes, a line end and a byte order mark", () => {
  const secrets = /^(?:\w*(?:TOKEN|PASSWORD)|HTTPS_PROXY)$/;
  const files = new Map(
    pairs
      .filter(([name]) => secrets.test(name))
      .map(([name, value]) => [`/run/${name}`, `\uFEFF${value}\r\n`]),
  );
  const settings = pairs.map(([name, value]) =>
    secrets.test(name) ? [`${name}_FILE`, `'/run/${name}'`] : [name, value],
  );
  const config = readConfig(
    Object.fromEntries(settings) as Environment,
    (path) => files.get(path) ?? noFile(),
  );
  expect(files.size).toBe(6);
  expect(understood(config)).toEqual(MEANT);
});

test("a list of tickers is understood with its quotes escaped, and over several lines", () => {
  const tickers = (text: string) => read({ FINNHUB_STOCKS_TICKERS: text }).finnhub.tickers;
  expect(tickers('"[\\"AAPL\\", \\"MSFT\\"]"')).toEqual(["AAPL", "MSFT"]);
  expect(tickers('"["AAPL","MSFT"]"')).toEqual(["AAPL", "MSFT"]);
  expect(tickers('\'[\n  "AAPL",\n  "MSFT"\n]\'')).toEqual(["AAPL", "MSFT"]);
});

test("a blank value is not set, also within quotes; the exact name goes before a strange spelling of it", () => {
  expect(read({ KAFKA_PORT: "''", FINNHUB_API_TOKEN: '""', LOG_LEVEL: "\r\n" })).toEqual(read({}));
  expect(read({ "export LOG_LEVEL": "warn", LOG_LEVEL: "error" }).log.level).toBe("error");
});

test("an inline comment that a reader left in the value is told apart", () => {
  expect(mistakesOf({ KAFKA_PORT: "9092 # the usual one" })).toEqual([
    'KAFKA_PORT: give a whole number from 1 to 65535; found "9092 # the usual one"; a comment needs a line of its own',
  ]);
  expect(mistakesOf({ FINNHUB_API_TOKEN: "tok # mine" })[0]).toEndWith("a comment needs a line of its own");
});

test("what was left at an end of a value is told apart, but a password may be anything", () => {
  const LEFT = `a quote or a ; at an end of the value would be a part of it; write it plain, or in one pair of ' or "`;
  const names = ["FINNHUB_API_TOKEN", "DATA_DIR", "CASSANDRA_DATACENTER", "NO_PROXY"];
  for (const name of names)
    for (const value of ['"tok', "tok'", "tok;", "'tok';", "`tok`"])
      expect(mistakesOf({ [name]: value })).toEqual([`${name}: ${LEFT}`]);
  expect(mistakesOf({ DATA_DIR: "\u201c./data\u201d" })).toEqual([`DATA_DIR: ${LEFT}`]);
  expect(mistakesOf({ LOG_LEVEL: "warn;" }).length).toBe(1);
  for (const value of ['"pw', "pw;", "\u201cpw\u201d"])
    expect(read({ GRAFANA_PASSWORD: value }).grafana.password).toBe(value);
});

test("a NAME_FILE that holds no secret alone, or is of no secret, is refused with what to do", () => {
  const token = { FINNHUB_API_TOKEN_FILE: "/f" };
  const named =
    "the file has the name of the setting in it; write the secret alone, without FINNHUB_API_TOKEN=";
  for (const text of ["FINNHUB_API_TOKEN=tok\n", "export FINNHUB_API_TOKEN = 'tok'"])
    expect(mistakesOf(token, text)).toEqual([`FINNHUB_API_TOKEN_FILE: ${named}`]);
  const utf16 = Buffer.from("\uFEFFtok\r\n", "utf16le").toString("utf8");
  for (const text of [utf16, Buffer.from("gehe\u00edm", "latin1").toString("utf8")])
    expect(mistakesOf(token, text)).toEqual([
      "FINNHUB_API_TOKEN_FILE: the file is not text in UTF-8; save it as that",
    ]);
  expect(mistakesOf({ KAFKA_SASL_USERNAME_FILE: "/f", DATA_DIR_FILE: "", KAFKA_SSL_CA_FILE: "/f" })).toEqual([
    "KAFKA_SSL_CA_FILE: only a secret is read from a file; set KAFKA_SSL_CA itself",
    "KAFKA_SASL_USERNAME_FILE: only a secret is read from a file; set KAFKA_SASL_USERNAME itself",
  ]);
});

test("one address in any spelling is one address: Finnhub's own stays its own", () => {
  const own = read({ FINNHUB_API_TOKEN: "tok" });
  for (const url of ["WSS://WS.Finnhub.io/", "wss://ws.finnhub.io:443"]) {
    const config = read({ FINNHUB_API_TOKEN: "tok", FINNHUB_WS_URL: url });
    expect([config.source, config.finnhub]).toEqual([own.source, own.finnhub]);
    expect(read({ FINNHUB_WS_URL: url }).source).toBeNull();
  }
  const other = { FINNHUB_WS_URL: "wss://other.example.com", FINNHUB_API_TOKEN: "tok" };
  const config = read({ ...other, FINNHUB_API_URL: "https://finnhub.io:443/api/v1/" });
  expect(config.finnhub.validateTickers).toBeFalse();
});

test("words are read in any case, and mean the same everywhere", () => {
  expect(read({ SIMULATOR_SPEED: "MAX" }).simulator.speed).toBe("max");
  for (const off of ["0", "false", "False", "FALSE"])
    expect(mistakesOf({ KAFKA_SSL: off, KAFKA_SSL_CA: "/ca" }, "PEM")).toEqual([
      "KAFKA_SSL_CA: has no effect without KAFKA_SSL=1; set both or none",
    ]);
});

// --- What a reader of .env lost --------------------------------------------------------------------------------

/** As Bun hands this file over, with the mistakes that are found. */
function fromEnvFile(text: string, environment: Environment = {}): readonly string[] {
  const file = join(directory, "lost.env");
  writeFileSync(file, text);
  const script = `process.stdout.write(JSON.stringify(process.env))`;
  const command = [process.execPath, `--env-file=${file}`, "-e", script];
  const child = Bun.spawnSync(command, { cwd: directory, env: environment });
  return mistakesOf(JSON.parse(child.stdout.toString()) as Environment, text);
}

const HASH = "in .env an unquoted # begins a comment, and what follows is lost; put the value in quotes";
const DOLLAR = "in .env a $ begins the name of a variable, and none of that name is set; write \\$ for a $";

test("a secret of which Bun cut off a part in .env is refused at the start, with how to write it", () => {
  expect(fromEnvFile("ADMIN_TOKEN=abc#def\n")).toEqual([`ADMIN_TOKEN: ${HASH}`]);
  for (const value of ["pa$word", "'pa$word'", '"pa$word"', ["pa$", "{word}x"].join("")])
    expect(fromEnvFile(`GRAFANA_PASSWORD=${value}\n`)).toEqual([`GRAFANA_PASSWORD: ${DOLLAR}`]);
  const open = fromEnvFile("GRAFANA_PASSWORD='abc\nLOG_LEVEL=warn\nDATA_DIR='./x'\n");
  expect(open[0]).toStartWith("GRAFANA_PASSWORD: it has several lines; give one");
});

test("what was meant so is left alone: quotes, escapes, a variable that is set, a comment, another's value", () => {
  expect(
    fromEnvFile("ADMIN_TOKEN=abc # mine\nGRAFANA_PASSWORD='a#b'\nDATA_DIR=$HOME/data\n", { HOME: "/h" }),
  ).toEqual([]);
  expect(fromEnvFile("GRAFANA_PASSWORD=pa\\$word\n")).toEqual([]);
  expect(fromEnvFile("KAFKA_PORT=$UNSET\n")).toEqual([]);
  expect(fromEnvFile("GRAFANA_PASSWORD=pa$word\n", { GRAFANA_PASSWORD: "another" })).toEqual([]);
});
