import { expect, test } from "bun:test";
import fc from "fast-check";
import { elementTexts } from "../../../lib/finnhub/frame-text.ts";

test("elements are returned as they are written, without the blanks around them", () => {
  expect(elementTexts('{"data":[ 1e999 ,\t{"a" : [1, 2]},"x\\"],",[[]] ],"type":"trade"}')).toEqual([
    "1e999",
    '{"a" : [1, 2]}',
    '"x\\"],"',
    "[[]]",
  ]);
});

test("only the list of the outermost object counts, and of two the last one, as for JSON.parse", () => {
  expect(elementTexts('{"more":{"data":[1]},"data":[2],"other":[3],"d\\u0061ta":[4,5]}')).toEqual(["4", "5"]);
  expect(elementTexts('{"data":{"data":[1]}}')).toEqual([]);
  expect(elementTexts('{"list":[1],"type":"data"}')).toEqual([]);
});

test("there are as many elements as JSON.parse finds, and each is one", () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue(), { minLength: 1 }), fc.boolean(), (data, isSpaced) => {
      const text = JSON.stringify({ type: "trade", data }, null, isSpaced ? 2 : 0);
      const { data: parsed } = JSON.parse(text) as { data: unknown[] };
      expect(elementTexts(text).map((one) => JSON.parse(one) as unknown)).toEqual(parsed);
    }),
    { seed: 20260108, numRuns: 300 },
  );
});
