// Kafka's client, set up in one place: sockets, security, compression, what it logs, how often it repeats. And the
// one place that turns its errors into ours. It knows no topic and moves no record.

import { connect as connectPlain, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import {
  CompressionCodecs,
  CompressionTypes,
  type ISocketFactory,
  Kafka,
  type LogEntry,
  logLevel,
  type RetryOptions,
  type SASLOptions,
} from "kafkajs";
import type { Clock } from "../base/clock.ts";
import type { Config } from "../base/config.ts";
import { LogUnavailableError, PipelineError, SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";

export type KafkaDeps = Readonly<{
  settings: Config["kafka"];
  /** How the broker's own logs name us, e.g. `producer`. */
  clientId: string;
  clock: Clock;
  logger: Logger;
}>;

/** A virtual machine that is short of CPU answers late; a host that is not there is known at once. */
const CONNECT_MS_MAX = 3_000;
/** Above what a broker may take to acknowledge (ACK_MS_MAX in kafka/consumer.ts) and to answer a fetch (500 ms). */
const REQUEST_MS_MAX = 15_000;
const KEEP_ALIVE_MS = 60_000;
/** Beyond level 1 the time doubles and the size shrinks by a few percent. */
const ZSTD_LEVEL = 1;

/** Each seed broker once: whoever calls owns the repeats. */
const ONCE = { initialRetryTime: 50, maxRetryTime: 500, factor: 0.2, multiplier: 2 };
/**
 * Through the restart of a broker (15 s were measured) without a CRASH: a consumer that gives up leaves its member
 * behind, and the group waits for it until its session times out.
 */
const INSISTING = { initialRetryTime: 100, maxRetryTime: 1_000, retries: 100, factor: 0.2, multiplier: 1.5 };

// kafkajs knows gzip; the other codecs are native addons, which a compiled binary cannot load. Bun has zstd inside.
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async ({ buffer }: { buffer: Buffer }) => Bun.zstdCompress(buffer, { level: ZSTD_LEVEL }),
  decompress: async (buffer: Buffer) => Bun.zstdDecompress(buffer),
});

const COMPRESSION = {
  zstd: CompressionTypes.ZSTD,
  gzip: CompressionTypes.GZIP,
  none: CompressionTypes.None,
} as const;

export function compressionOf(settings: Config["kafka"]): CompressionTypes {
  return COMPRESSION[settings.compression];
}

/** `onConnecting` hears of every connection that is tried. */
export function createKafka(
  { settings, clientId, logger }: KafkaDeps,
  repeats: "once" | "insisting",
  onConnecting: (socket: Socket) => void = () => {},
): Kafka {
  const { brokers, tls, sasl } = settings;
  const retry: RetryOptions = repeats === "insisting" ? INSISTING : { ...ONCE, retries: brokers.length - 1 };
  return new Kafka({
    brokers: [...brokers],
    clientId,
    retry,
    connectionTimeout: CONNECT_MS_MAX,
    authenticationTimeout: REQUEST_MS_MAX,
    requestTimeout: REQUEST_MS_MAX,
    socketFactory: createSocketFactory(onConnecting),
    logLevel: logLevel.INFO,
    logCreator: () => (entry) => logQuietly(logger, entry),
    ...(tls !== null && { ssl: tls.ca === undefined ? {} : { ca: [tls.ca] } }),
    // One type for each mechanism in kafkajs, though all three hold the same.
    ...(sasl !== null && { sasl: { ...sasl } as SASLOptions }),
  });
}

function createSocketFactory(onConnecting: (socket: Socket) => void): ISocketFactory {
  return ({ host, port, ssl, onConnect }) => {
    // kafkajs passes undefined where there is no TLS, whatever its types say.
    const isTls = Boolean(ssl);
    const servername = isIP(host) ? {} : { servername: host };
    const socket = isTls
      ? connectTls({ host, port, ...servername, ...ssl }, onConnect)
      : connectPlain({ host, port }, onConnect);
    onConnecting(socket);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    // kafkajs never asks for it, and a produce request must not wait for the acknowledgement of the one before.
    socket.setNoDelay(true);
    return socket;
  };
}

/** At debug: what is wrong comes back as an error, and whoever meets it tells. Only fields that hold no payload. */
function logQuietly(logger: Logger, { namespace, label, log }: LogEntry): void {
  const { message, broker, groupId, error, retryCount } = log;
  logger.debug(`kafkajs: ${message}`, {
    namespace,
    label,
    ...(typeof broker === "string" && { broker }),
    ...(typeof groupId === "string" && { groupId }),
    ...(typeof error === "string" && { reason: error }),
    ...(typeof retryCount === "number" && { retryCount }),
  });
}

/** One attempt at the brokers. Rejects with SetupError or LogUnavailableError. */
export async function checkKafka(deps: KafkaDeps): Promise<void> {
  const admin = createKafka(deps, "once").admin();
  try {
    await admin.connect();
    // Connecting alone is let through by a broker that wants a password and was given none.
    await admin.describeCluster();
  } catch (error) {
    throw await explained(deps, error);
  } finally {
    await admin.disconnect();
  }
}

/** The same as kafkaError, and where it cannot tell why a connection fails it looks at the port. */
async function explained({ settings, clock }: KafkaDeps, error: unknown): Promise<Error> {
  const known = kafkaError(error, "Kafka cannot be reached");
  if (!(known instanceof LogUnavailableError)) return known;
  for (const broker of settings.brokers) {
    const speaks = await portSpeaks(broker, clock);
    if (speaks === null || (speaks === "tls") === (settings.tls !== null)) continue;
    return speaks === "tls"
      ? new SetupError(`${broker} speaks TLS and KAFKA_SSL is off`, "set KAFKA_SSL=1", error)
      : new SetupError(
          `${broker} does not speak TLS and KAFKA_SSL is on`,
          "set KAFKA_SSL=0, or give the broker's TLS port in KAFKA_SERVER or KAFKA_PORT",
          error,
        );
  }
  if (settings.sasl === null && chainOf(error).some(({ name }) => name === "KafkaJSConnectionClosedError")) {
    return new LogUnavailableError(
      `${known.message} (the broker closed the connection)`,
      "where the broker wants a password, set KAFKA_SASL_MECHANISM, _USERNAME and _PASSWORD; otherwise wait",
      error,
    );
  }
  return known;
}

/** ApiVersions, version 0, correlation 1, client `?`: what every broker answers before it asks who we are. */
const API_VERSIONS_REQUEST = Buffer.from("0000000b0012000000000001" + "00013f", "hex");

/** What answers at a port: null = nothing, or nothing that we know. */
async function portSpeaks(broker: string, clock: Clock): Promise<"kafka" | "tls" | null> {
  const [, host = "", port = ""] = /^\[?(.*?)\]?:(\d+)$/.exec(broker) ?? [];
  const to = { host, port: Number(port) };
  const answers = (open: (told: (does: boolean) => void) => { destroy(): void }) =>
    new Promise<boolean>((resolve) => {
      const cancel = clock.after(CONNECT_MS_MAX, () => told(false));
      const told = (does: boolean) => {
        cancel();
        socket.destroy();
        resolve(does);
      };
      const socket = open(told);
    });
  const isKafka = await answers((told) => {
    const socket = connectPlain(to, () => socket.write(API_VERSIONS_REQUEST));
    socket.on("data", (data: Buffer) => told(data.length >= 8 && data.readInt32BE(4) === 1));
    socket.on("close", () => told(false));
    return socket.on("error", () => told(false));
  });
  if (isKafka) return "kafka";
  const isTls = await answers((told) => {
    // Nothing is sent and nothing is believed: only whether there is a handshake is of interest.
    const socket = connectTls({ ...to, rejectUnauthorized: false }, () => told(true));
    socket.on("close", () => told(false));
    return socket.on("error", () => told(false));
  });
  return isTls ? "tls" : null;
}

// ---- Errors -----------------------------------------------------------------------------------------------------

type Link = Readonly<{ name: string; message: string; type: string; code: string; error: Error }>;

/** Deeper than kafkajs ever wraps. */
const CHAIN_LENGTH_MAX = 20;

/** An error and what is inside it: kafkajs wraps as `cause`, `originalError` or `errors`. */
function chainOf(error: unknown): Link[] {
  const links: Link[] = [];
  const waiting: unknown[] = [error];
  while (waiting.length > 0 && links.length < CHAIN_LENGTH_MAX) {
    const one = waiting.shift();
    if (!(one instanceof Error) || links.some((link) => link.error === one)) continue;
    const { name, message, cause } = one;
    const fields = one as Error & Record<"type" | "code" | "originalError" | "errors", unknown>;
    const text = (value: unknown) => (typeof value === "string" ? value : "");
    links.push({ name, message, type: text(fields.type), code: text(fields.code), error: one });
    waiting.push(cause, fields.originalError, ...(Array.isArray(fields.errors) ? fields.errors : []));
  }
  return links;
}

/** Whether Kafka's own name for an error, like `NOT_LEADER_FOR_PARTITION`, stands anywhere in it. */
export function isKafkaError(error: unknown, ...types: readonly string[]): boolean {
  return chainOf(error).some(({ type }) => types.includes(type));
}

const CERTIFICATE_CODES =
  /^(?:CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERR_TLS_CERT_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE)/;
const CERTIFICATE_WORDS = /certificate|altname|unable to (?:get|verify)|invalid ca\b/i;
const NO_TLS = /wrong version number|packet length too long|unknown protocol|ERR_SSL_/i;

/** What only the operator can mend. The first that fits an error, anywhere in its chain, is told. */
const SETUP_FAULTS: readonly {
  fits(link: Link): boolean;
  /** A sentence without its end; `reason` is the client's own. */
  what: string;
  hint: string;
}[] = [
  {
    fits: ({ type }) => type === "UNSUPPORTED_SASL_MECHANISM" || type === "ILLEGAL_SASL_STATE",
    what: "Kafka does not take this kind of login at that port",
    hint: "see KAFKA_SASL_MECHANISM, and whether KAFKA_SERVER and KAFKA_PORT name the listener that wants a password",
  },
  {
    fits: ({ name, message }) =>
      name === "KafkaJSSASLAuthenticationError" && message.includes("not supported by the server"),
    what: "Kafka does not take this kind of login",
    hint: "set KAFKA_SASL_MECHANISM to one that the broker has enabled",
  },
  {
    fits: ({ name, type }) =>
      name === "KafkaJSSASLAuthenticationError" || type === "SASL_AUTHENTICATION_FAILED",
    what: "Kafka refuses the user or its password",
    hint: "see KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM",
  },
  {
    fits: ({ code, message }) => CERTIFICATE_CODES.test(code) || CERTIFICATE_WORDS.test(message),
    what: "Kafka's certificate is not trusted",
    hint: "set KAFKA_SSL_CA to the file of the authority that signed it, and KAFKA_SERVER to a name that stands in it",
  },
  {
    fits: ({ code, message }) => NO_TLS.test(code) || NO_TLS.test(message),
    what: "Kafka does not speak TLS at that port",
    hint: "set KAFKA_SSL=0, or give the broker's TLS port in KAFKA_SERVER or KAFKA_PORT",
  },
  {
    fits: ({ type }) => type.endsWith("_AUTHORIZATION_FAILED"),
    what: "Kafka does not allow it to this user",
    hint: "give the user of KAFKA_SASL_USERNAME the rights to the topics and to the group KAFKA_GROUP_ID",
  },
  {
    fits: ({ type }) => type === "UNKNOWN_TOPIC_OR_PARTITION" || type === "INVALID_TOPIC_EXCEPTION",
    what: "Kafka has no such topic",
    hint: "run `admin init`, or see KAFKA_TOPIC_NAME",
  },
  {
    fits: ({ type }) => type === "INVALID_SESSION_TIMEOUT",
    what: "Kafka does not allow this session time-out",
    hint: "set KAFKA_SESSION_TIMEOUT_MS between the broker's group.min and group.max.session.timeout.ms",
  },
  {
    fits: ({ type }) => type === "INCONSISTENT_GROUP_PROTOCOL" || type === "INVALID_GROUP_ID",
    what: "the consumer group is not ours",
    hint: "another program uses it: set KAFKA_GROUP_ID to another name",
  },
  {
    fits: ({ type, name }) => type === "UNSUPPORTED_VERSION" || name === "KafkaJSServerDoesNotSupportApiKey",
    what: "this Kafka is too old or too new for the client",
    hint: "use Kafka 2.1 or newer, up to 4.x",
  },
  {
    fits: ({ type }) =>
      ["POLICY_VIOLATION", "INVALID_CONFIG", "INVALID_REPLICATION_FACTOR", "INVALID_PARTITIONS"].includes(
        type,
      ),
    what: "Kafka refuses the topics as we want them",
    hint: "see the broker's policies and its limits",
  },
];

/** Bugs, not faults of the network: kafkajs wraps them like any other. */
const BUGS = new Set(["TypeError", "RangeError", "ReferenceError", "SyntaxError", "AssertionError"]);

/**
 * SetupError for what the operator must change, LogUnavailableError for what passes; what is no error of Kafka
 * or of the network comes back as it is. `doing` begins the sentence: `Kafka cannot be reached`.
 */
export function kafkaError(error: unknown, doing: string): Error {
  // Said already, and better than it could be told from what is inside it.
  if (error instanceof PipelineError) return error;
  const chain = chainOf(error);
  const bug = chain.find(({ name }) => BUGS.has(name));
  if (bug !== undefined) return bug.error;
  for (const { fits, what, hint } of SETUP_FAULTS) {
    const link = chain.find(fits);
    if (link !== undefined) return new SetupError(`${what}: ${link.message}`, hint, error);
  }
  const [first] = chain;
  const isOurs = chain.some(({ name, code }) => name.startsWith("KafkaJS") || /^E[A-Z]+$/.test(code));
  if (first === undefined) return new Error(`${doing}: ${String(error)}`);
  if (!isOurs) return first.error;
  return new LogUnavailableError(
    `${doing}: ${chain.at(-1)?.message ?? first.message}`,
    "see whether the brokers of KAFKA_SERVER run and can be reached from here",
    error,
  );
}
