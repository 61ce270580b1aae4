// What an error of Kafka's is turned into, wherever kafkajs has wrapped it.

import { expect, test } from "bun:test";
import { LogUnavailableError, SetupError } from "../../../lib/base/errors.ts";
import { hasErrorName, isKafkaError, kafkaError } from "../../../lib/kafka/errors.ts";

const wrap = (inner: Error) =>
  Object.assign(new Error("wrapped", { cause: inner }), { name: "KafkaJSError" });
const protocol = (type: string) => Object.assign(new Error(type), { name: "KafkaJSProtocolError", type });
const told = (type: string) => kafkaError(wrap(wrap(protocol(type))), "");

test("an error is recognised wherever it is wrapped; a bug stays a bug; what is not Kafka's is left alone", () => {
  expect(told("SASL_AUTHENTICATION_FAILED")).toBeInstanceOf(SetupError);
  expect(told("GROUP_AUTHORIZATION_FAILED")).toBeInstanceOf(SetupError);
  expect(told("UNKNOWN_TOPIC_OR_PARTITION")).toMatchObject({ hint: expect.stringContaining("admin init") });
  for (const passing of [
    "NOT_LEADER_FOR_PARTITION",
    "GROUP_COORDINATOR_NOT_AVAILABLE",
    "REQUEST_TIMED_OUT",
    "NOT_ENOUGH_REPLICAS",
  ]) {
    expect(told(passing)).toBeInstanceOf(LogUnavailableError);
  }
  expect(kafkaError(wrap(new TypeError("ours")), "")).toBeInstanceOf(TypeError);
  const foreign = new Error("not Kafka's");
  expect(kafkaError(foreign, "")).toBe(foreign);
  const setup = new SetupError("said already");
  expect(kafkaError(setup, "")).toBe(setup);
});

test("every way in which kafkajs nests an error is looked into, and an error that holds itself ends the search", () => {
  const inner = protocol("NOT_LEADER_FOR_PARTITION");
  const nested = [
    wrap(inner),
    Object.assign(new Error("retries"), { originalError: inner }),
    Object.assign(new Error("several"), { errors: [new Error("another"), inner] }),
  ];
  for (const error of nested) {
    expect(isKafkaError(error, "NOT_LEADER_FOR_PARTITION", "OTHER")).toBe(true);
    expect(hasErrorName(error, "KafkaJSProtocolError")).toBe(true);
    expect(isKafkaError(error, "OTHER")).toBe(false);
  }
  const itself = new Error("itself");
  itself.cause = itself;
  expect(isKafkaError(itself, "OTHER")).toBe(false);
});

test("what is no Error at all still becomes one, with what was being done", () => {
  expect(kafkaError("a text", "Kafka cannot be reached").message).toBe("Kafka cannot be reached: a text");
});
