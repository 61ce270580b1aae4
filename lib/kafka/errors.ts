// Turns Kafka's errors into those of base/errors.ts: what the operator must change, what passes, and what is a bug.
// Nothing else in lib looks into an error of kafkajs.

import { LogUnavailableError, PipelineError, SetupError } from "../base/errors.ts";

type ChainLink = Readonly<{ name: string; message: string; type: string; code: string; error: Error }>;

/** kafkajs never nests errors this deep. */
const CHAIN_LENGTH_MAX = 20;

/** An error and all errors inside it: kafkajs nests them as `cause`, `originalError` or `errors`. */
function chainOf(error: unknown): ChainLink[] {
  const links: ChainLink[] = [];
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

/** Whether the chain has an error of one of Kafka's own types, e.g. `NOT_LEADER_FOR_PARTITION`. */
export function isKafkaError(error: unknown, ...types: readonly string[]): boolean {
  return chainOf(error).some(({ type }) => types.includes(type));
}

/** Whether the chain has an error of one of kafkajs's classes, e.g. `KafkaJSConnectionClosedError`. */
export function hasErrorName(error: unknown, errorName: string): boolean {
  return chainOf(error).some(({ name }) => name === errorName);
}

const CERTIFICATE_CODES =
  /^(?:CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERR_TLS_CERT_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE)/;
const CERTIFICATE_WORDS = /certificate|altname|unable to (?:get|verify)|invalid ca\b/i;
const NO_TLS = /wrong version number|packet length too long|unknown protocol|ERR_SSL_/i;

/** What only the operator can change. The first entry that fits an error, anywhere in its chain, is used. */
const SETUP_FAULTS: readonly {
  fits(link: ChainLink): boolean;
  /** The begin of a sentence; the client's own message follows a colon. */
  what: string;
  hint: string;
}[] = [
  {
    fits: ({ type }) => type === "UNSUPPORTED_SASL_MECHANISM" || type === "ILLEGAL_SASL_STATE",
    what: "Kafka does not accept this kind of login on that port",
    hint: "check KAFKA_SASL_MECHANISM, and that KAFKA_SERVER and KAFKA_PORT name the listener that requires a password",
  },
  {
    fits: ({ name, message }) =>
      name === "KafkaJSSASLAuthenticationError" && message.includes("not supported by the server"),
    what: "Kafka does not accept this kind of login",
    hint: "set KAFKA_SASL_MECHANISM to one that the broker has enabled",
  },
  {
    fits: ({ name, type }) =>
      name === "KafkaJSSASLAuthenticationError" || type === "SASL_AUTHENTICATION_FAILED",
    what: "Kafka refuses the user or its password",
    hint: "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM",
  },
  {
    fits: ({ code, message }) => CERTIFICATE_CODES.test(code) || CERTIFICATE_WORDS.test(message),
    what: "Kafka's certificate is not trusted",
    hint: "set KAFKA_SSL_CA to the file of the authority that signed it, and KAFKA_SERVER to a name in the certificate",
  },
  {
    fits: ({ code, message }) => NO_TLS.test(code) || NO_TLS.test(message),
    what: "Kafka does not speak TLS on that port",
    hint: "set KAFKA_SSL=0, or give the broker's TLS port in KAFKA_SERVER or KAFKA_PORT",
  },
  {
    fits: ({ type }) => type.endsWith("_AUTHORIZATION_FAILED"),
    what: "Kafka does not allow this user to do that",
    hint: "grant the user of KAFKA_SASL_USERNAME the topics and the group KAFKA_GROUP_ID",
  },
  {
    fits: ({ type }) => type === "UNKNOWN_TOPIC_OR_PARTITION" || type === "INVALID_TOPIC_EXCEPTION",
    what: "Kafka has no such topic",
    hint: "run `admin init`, or correct KAFKA_TOPIC_NAME",
  },
  {
    fits: ({ type }) => type === "INVALID_SESSION_TIMEOUT",
    what: "Kafka does not allow this session time-out",
    hint: "set KAFKA_SESSION_TIMEOUT_MS between the broker's group.min and group.max.session.timeout.ms",
  },
  {
    fits: ({ type }) => type === "INCONSISTENT_GROUP_PROTOCOL" || type === "INVALID_GROUP_ID",
    what: "another program uses the consumer group",
    hint: "set KAFKA_GROUP_ID to another name",
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
    what: "Kafka refuses to create topics like these",
    hint: "check the broker's policies and limits",
  },
];

/** Bugs, not faults of the network: kafkajs wraps them like any other error. */
const BUGS = new Set(["TypeError", "RangeError", "ReferenceError", "SyntaxError", "AssertionError"]);

/**
 * SetupError for what the operator must change, LogUnavailableError for what passes. An error that is neither Kafka's
 * nor the network's comes back as it is. `doing` begins the sentence, e.g. `Kafka cannot be reached`.
 */
export function kafkaError(error: unknown, doing: string): Error {
  // Translated already, with more context than its chain has.
  if (error instanceof PipelineError) return error;
  const chain = chainOf(error);
  const bug = chain.find(({ name }) => BUGS.has(name));
  if (bug !== undefined) return bug.error;
  for (const { fits, what, hint } of SETUP_FAULTS) {
    const link = chain.find(fits);
    if (link !== undefined) return new SetupError(`${what}: ${link.message}`, hint, error);
  }
  const [first] = chain;
  const isOfKafka = chain.some(({ name, code }) => name.startsWith("KafkaJS") || /^E[A-Z]+$/.test(code));
  if (first === undefined) return new Error(`${doing}: ${String(error)}`);
  if (!isOfKafka) return first.error;
  return new LogUnavailableError(
    `${doing}: ${chain.at(-1)?.message ?? first.message}`,
    "check that the brokers of KAFKA_SERVER are running and can be reached from this machine",
    error,
  );
}
