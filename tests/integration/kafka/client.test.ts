// What an operator is told when Kafka cannot be used: one sentence and one hint for each mistake, at the first
// attempt; and what merely passes is told apart from it.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createServer } from "node:net";
import { LogUnavailableError, SetupError } from "../../../lib/base/errors.ts";
import type { Fields, Logger } from "../../../lib/base/logger.ts";
import { checkKafka, createKafka } from "../../../lib/kafka/client.ts";
import { type KafkaSettings, kafkaDeps } from "../../support/kafka.ts";
import { type Certificates, createCertificates } from "../../support/services/certificates.ts";
import { startKafka } from "../../support/services/kafka.ts";
import type { Server } from "../../support/services/server.ts";
import { services, sharedKafka } from "../../support/services/shared.ts";

const PASSWORD = "correct-horse";
const WRONG_PASSWORD = "battery-staple";

/** What checkKafka rejects with, or null. */
async function refusalOf(
  address: Readonly<{ host: string; port: number }>,
  changed: Partial<KafkaSettings> = {},
): Promise<Error | null> {
  try {
    await checkKafka(kafkaDeps(address, changed));
    return null;
  } catch (error) {
    return error as Error;
  }
}

test("nobody at the port, and one who hangs up, is something that passes", async () => {
  const hangingUp = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => hangingUp.listen(0, "127.0.0.1", resolve));
  const { port } = hangingUp.address() as { port: number };
  for (const refusal of [
    await refusalOf({ host: "127.0.0.1", port: 1 }),
    await refusalOf({ host: "127.0.0.1", port }),
    await refusalOf({ host: "127.0.0.1", port }, { tls: { ca: undefined } }),
  ]) {
    expect(refusal).toBeInstanceOf(LogUnavailableError);
    expect(refusal).toMatchObject({ hint: expect.any(String) });
  }
  await new Promise((resolve) => hangingUp.close(resolve));
});

test("kafkajs is heard at debug only, and no field of a payload is", async () => {
  const lines: [string, Fields | undefined][] = [];
  const loud = () => {
    throw new Error("only debug");
  };
  const logger: Logger = {
    debug: (message, fields) => lines.push([message, fields]),
    info: loud,
    warn: loud,
    error: loud,
  };
  const kafkaLogger = createKafka({ ...kafkaDeps({ host: "127.0.0.1", port: 1 }), logger }).logger();
  kafkaLogger.error("Connection error", { broker: "127.0.0.1:1", payload: PASSWORD, error: "refused" });
  expect(lines).toEqual([
    [
      "kafkajs: Connection error",
      { namespace: undefined, label: "ERROR", broker: "127.0.0.1:1", reason: "refused" },
    ],
  ]);
});

describe.skipIf(!services.available)("on real brokers", () => {
  let certificates: Certificates;
  let secure: Server;

  beforeAll(async () => {
    certificates = await createCertificates();
    secure = await startKafka({
      tls: certificates,
      sasl: { mechanism: "plain", users: { producer: PASSWORD } },
    });
  }, 120_000);

  afterAll(async () => {
    await secure[Symbol.asyncDispose]();
    certificates[Symbol.dispose]();
  });

  const sasl = (fields: Partial<NonNullable<KafkaSettings["sasl"]>> = {}) => ({
    mechanism: "plain" as const,
    username: "producer",
    password: PASSWORD,
    ...fields,
  });
  const tls = () => ({ ca: certificates.ca });

  test("with the right password and authority there is nothing to say", async () => {
    expect(await refusalOf(secure, { tls: tls(), sasl: sasl() })).toBeNull();
    expect(await refusalOf(await sharedKafka())).toBeNull();
  }, 60_000);

  test("each mistake has its sentence and its hint, and no sentence has the password", async () => {
    const plain = await sharedKafka();
    const mistakes: [Error | null, RegExp, RegExp][] = [
      [
        await refusalOf(secure, { tls: tls(), sasl: sasl({ password: WRONG_PASSWORD }) }),
        /refuses the user/,
        /KAFKA_SASL_PASSWORD/,
      ],
      [
        await refusalOf(secure, { tls: tls(), sasl: sasl({ mechanism: "scram-sha-512" }) }),
        /kind of login/,
        /KAFKA_SASL_MECHANISM/,
      ],
      [
        await refusalOf(secure, { tls: { ca: certificates.strangerCa }, sasl: sasl() }),
        /not trusted/,
        /KAFKA_SSL_CA/,
      ],
      [await refusalOf(secure, { tls: { ca: undefined }, sasl: sasl() }), /not trusted/, /KAFKA_SSL_CA/],
      [
        await refusalOf(secure, { tls: { ca: "no certificate" }, sasl: sasl() }),
        /not trusted/,
        /KAFKA_SSL_CA/,
      ],
      [await refusalOf(secure, { sasl: sasl() }), /speaks TLS and KAFKA_SSL is off/, /KAFKA_SSL=1/],
      [await refusalOf(plain, { tls: tls() }), /does not speak TLS/, /KAFKA_SSL=0/],
      [await refusalOf(plain, { sasl: sasl() }), /kind of login/, /KAFKA_SASL_MECHANISM/],
    ];
    for (const [refusal, sentence, hint] of mistakes) {
      expect(refusal).toBeInstanceOf(SetupError);
      expect(refusal?.message).toMatch(sentence);
      expect((refusal as SetupError).hint).toMatch(hint);
      expect(Bun.inspect(refusal)).not.toContain(WRONG_PASSWORD);
      expect(Bun.inspect(refusal)).not.toContain(PASSWORD);
    }
  }, 120_000);

  test("a broker that wants a password and is given none closes the connection: the hint says so", async () => {
    const refusal = await refusalOf(secure, { tls: tls() });
    expect(refusal).toBeInstanceOf(LogUnavailableError);
    expect((refusal as LogUnavailableError).hint).toContain("KAFKA_SASL_MECHANISM");
  }, 60_000);

  test("a broker that is killed is something that passes", async () => {
    await secure.kill();
    const refusal = await refusalOf(secure, { tls: tls(), sasl: sasl() });
    expect(refusal).toBeInstanceOf(LogUnavailableError);
  }, 60_000);
});
