// Kafka's client, set up in one place: sockets, security, compression, what it logs and how often it retries. It knows
// no topic and moves no record. (Its errors are translated in kafka/errors.ts.)

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
import { LogUnavailableError, SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import { hasErrorName, kafkaError } from "./errors.ts";

export type KafkaDeps = Readonly<{
  settings: Config["kafka"];
  /** The name of this client in the broker's logs, e.g. `producer`. */
  clientId: string;
  clock: Clock;
  logger: Logger;
}>;

/** A virtual machine that is short of CPU answers late; a host that refuses is known at once. */
const CONNECT_MS_MAX = 3_000;
/**
 * Above what a broker may take to acknowledge a batch (ACK_MS_MAX in kafka/sender.ts) and to answer a fetch (at most
 * 500 ms, FETCH_WAIT_MS_MAX in the files that consume).
 */
const REQUEST_MS_MAX = 15_000;
const KEEP_ALIVE_MS = 60_000;
/** Beyond level 1 the time doubles and the size shrinks by a few percent. */
const ZSTD_LEVEL = 1;

/** One attempt per seed broker: the caller owns the retries. */
const SEED_BROKERS_RETRY = { initialRetryTime: 50, maxRetryTime: 500, factor: 0.2, multiplier: 2 };
/**
 * Enough to outlast the restart of a broker (15 s were measured) without a CRASH. A consumer that gives up leaves its
 * member behind, and the group waits for that member until its session times out.
 */
const BROKER_RESTART_RETRY = {
  initialRetryTime: 100,
  maxRetryTime: 1_000,
  retries: 100,
  factor: 0.2,
  multiplier: 1.5,
};

// kafkajs has gzip; its other codecs are native addons, which a compiled binary cannot load. Bun has zstd built in.
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

export type KafkaOptions = Readonly<{
  /** Whether a call is retried until a broker has restarted. By default each seed broker is tried once. */
  outlastsRestart?: boolean;
  /** Called with the socket of every connection that is attempted. */
  onConnecting?: (socket: Socket) => void;
}>;

export function createKafka(
  { settings, clientId, logger }: KafkaDeps,
  { outlastsRestart = false, onConnecting = () => {} }: KafkaOptions = {},
): Kafka {
  const { brokers, tls, sasl } = settings;
  const retry: RetryOptions = outlastsRestart
    ? BROKER_RESTART_RETRY
    : { ...SEED_BROKERS_RETRY, retries: brokers.length - 1 };
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
    // kafkajs has a type for each mechanism, though all three have the same fields.
    ...(sasl !== null && { sasl: { ...sasl } as SASLOptions }),
  });
}

function createSocketFactory(onConnecting: (socket: Socket) => void): ISocketFactory {
  return ({ host, port, ssl, onConnect }) => {
    // Without TLS kafkajs passes undefined, whatever its types say.
    const isTls = Boolean(ssl);
    const servername = isIP(host) ? {} : { servername: host };
    const socket = isTls
      ? connectTls({ host, port, ...servername, ...ssl }, onConnect)
      : connectPlain({ host, port }, onConnect);
    onConnecting(socket);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    // kafkajs never sets it, and a produce request must not wait for the acknowledgement of the previous one.
    socket.setNoDelay(true);
    return socket;
  };
}

/** At debug only, because every fault also comes back as an error. Only fields that contain no payload are logged. */
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
  const admin = createKafka(deps).admin();
  try {
    await admin.connect();
    // A broker that requires a password accepts a connection without one, and refuses only the first request.
    await admin.describeCluster();
  } catch (error) {
    throw await explain(deps, error);
  } finally {
    await admin.disconnect();
  }
}

/** The same as kafkaError; where that does not know why a connection fails, the port is probed. */
async function explain({ settings, clock }: KafkaDeps, error: unknown): Promise<Error> {
  const known = kafkaError(error, "Kafka cannot be reached");
  if (!(known instanceof LogUnavailableError)) return known;
  for (const broker of settings.brokers) {
    const protocol = await protocolAt(broker, clock);
    if (protocol === null || (protocol === "tls") === (settings.tls !== null)) continue;
    return protocol === "tls"
      ? new SetupError(`${broker} speaks TLS and KAFKA_SSL is off`, "set KAFKA_SSL=1", error)
      : new SetupError(
          `${broker} does not speak TLS and KAFKA_SSL is on`,
          "set KAFKA_SSL=0, or give the broker's TLS port in KAFKA_SERVER or KAFKA_PORT",
          error,
        );
  }
  if (settings.sasl === null && hasErrorName(error, "KafkaJSConnectionClosedError")) {
    return new LogUnavailableError(
      `${known.message} (the broker closed the connection)`,
      "if the broker requires a password, set KAFKA_SASL_MECHANISM, _USERNAME and _PASSWORD; otherwise wait",
      error,
    );
  }
  return known;
}

/** ApiVersions, version 0, correlation 1, client `?`: every broker answers it before it asks for a login. */
const API_VERSIONS_REQUEST = Buffer.from("0000000b0012000000000001" + "00013f", "hex");

/** Which protocol a port speaks; null = nothing answers, or nothing known. */
async function protocolAt(broker: string, clock: Clock): Promise<"kafka" | "tls" | null> {
  const [, host = "", port = ""] = /^\[?(.*?)\]?:(\d+)$/.exec(broker) ?? [];
  const address = { host, port: Number(port) };
  const probe = (open: (finish: (isSpoken: boolean) => void) => { destroy(): void }) =>
    new Promise<boolean>((resolve) => {
      const cancel = clock.after(CONNECT_MS_MAX, () => finish(false));
      const finish = (isSpoken: boolean) => {
        cancel();
        socket.destroy();
        resolve(isSpoken);
      };
      const socket = open(finish);
    });
  const isKafka = await probe((finish) => {
    const socket = connectPlain(address, () => socket.write(API_VERSIONS_REQUEST));
    socket.on("data", (data: Buffer) => finish(data.length >= 8 && data.readInt32BE(4) === 1));
    socket.on("close", () => finish(false));
    return socket.on("error", () => finish(false));
  });
  if (isKafka) return "kafka";
  const isTls = await probe((finish) => {
    // Nothing is sent and no certificate is trusted: only whether a handshake succeeds matters here.
    const socket = connectTls({ ...address, rejectUnauthorized: false }, () => finish(true));
    socket.on("close", () => finish(false));
    return socket.on("error", () => finish(false));
  });
  return isTls ? "tls" : null;
}
