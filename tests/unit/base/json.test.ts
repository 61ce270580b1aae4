// Outside JSON read as an object, or as null: never with a throw.

import { expect, test } from "bun:test";
import { asObject, parseObject } from "../../../lib/base/json.ts";

test("an object comes out of a text and of its UTF-8 bytes", () => {
  const text = '{"price":1.5,"name":"Zürich"}';
  const object = { price: 1.5, name: "Zürich" };
  expect(parseObject(text)).toEqual(object);
  expect(parseObject(new TextEncoder().encode(text))).toEqual(object);
});

test("whatever is no JSON, or JSON of another kind, is null", () => {
  for (const text of [null, "", "{", "{}x", "[]", '[{"a":1}]', "null", "1", '"{}"', "true", "undefined"]) {
    expect(parseObject(text)).toBeNull();
  }
  expect(parseObject(new Uint8Array([0xff, 0x00]))).toBeNull();
  for (const value of [undefined, null, 1, "x", [], [1]]) expect(asObject(value)).toBeNull();
  expect(asObject({ a: 1 })).toEqual({ a: 1 });
});
