import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { FRAME_LENGTH_MAX, parseFrame, parseFrames } from "../../../lib/finnhub/frame.ts";
import { DAY_MS } from "../../../lib/model/trade.ts";
import { NOON_MS, trade } from "../../support/builders.ts";

const good = { c: ["1", "12"], p: 164.0601, s: "AAPL", t: NOON_MS, v: 5 };
const goodTrade = trade({ price: 164.0601, volume: 5, conditions: ["1", "12"] });

/** The frame of a text, which must be a trade frame. */
function tradeFrame(text: string) {
  const frame = parseFrame(text, NOON_MS);
  if (frame.type !== "trade") throw new Error(`not a trade frame: ${JSON.stringify(frame)}`);
  return frame;
}

/** A good trade, the element as it is written, a good trade. */
function between(element: string) {
  const other = JSON.stringify({ ...good, s: "MSFT" });
  return tradeFrame(`{"data":[${JSON.stringify(good)},${element},${other}],"type":"trade"}`);
}

function one(fields: Readonly<Record<string, unknown>>) {
  return between(JSON.stringify({ ...good, ...fields }));
}

const refusedWhole = (reason: string, payload: string) => ({ type: "refused", reason, payload });

describe("a trade frame", () => {
  test("gives its trades in their order, of several symbols", () => {
    const text =
      '{"data":[{"c":[],"p":130.3498,"s":"TSLA","t":1674226439365,"v":1667},{"c":["1","12"],"p":98.4556,"s":"GOOG","t":1674226439375,"v":51}],"type":"trade"}';
    expect(parseFrame(text, 1_674_226_439_400)).toEqual({
      type: "trade",
      trades: [
        { symbol: "TSLA", price: 130.3498, volume: 1667, tradedAtMs: 1_674_226_439_365, conditions: [] },
        {
          symbol: "GOOG",
          price: 98.4556,
          volume: 51,
          tradedAtMs: 1_674_226_439_375,
          conditions: ["1", "12"],
        },
      ],
      refused: [],
    });
  });

  test("may write its keys in any order", () => {
    const text = `{"type":"trade","extra":1,"data":[{"v":5,"t":${NOON_MS},"x":{},"s":"AAPL","p":164.0601,"c":["1","12"]}]}`;
    expect(tradeFrame(text).trades).toEqual([goodTrade]);
  });

  test("may be empty", () => {
    expect(tradeFrame('{"data":[],"type":"trade"}')).toEqual({ type: "trade", trades: [], refused: [] });
  });

  test.each([
    ["absent", undefined, null],
    ["null", null, null],
    ["an empty list", [], []],
    ["codes", ["1", "12"], ["1", "12"]],
    ["codes with null among them", ["1", null], ["1", null]],
  ])("takes conditions that are %s", (_, c, conditions) => {
    expect(one({ c }).trades[1]?.conditions).toEqual(conditions);
  });

  test.each([
    ["a volume of zero", { v: 0 }],
    ["a volume in fractions", { v: 0.00008 }],
    ["a price in fractions", { p: 5.583 }],
    ["a price of zero", { p: 0 }],
    ["a price below zero", { p: -37.63 }],
    ["a price far below a satoshi", { p: 3.7e-10 }],
    ["a million dollars of a token of 3.7e-10", { p: 3.7e-10, v: 2.7e15 }],
    ["a time almost a day ahead", { t: NOON_MS + DAY_MS }],
    ["a time of last year", { t: NOON_MS - 365 * DAY_MS }],
  ])("takes %s", (_, fields) => {
    expect(one(fields).refused).toEqual([]);
  });

  test("has no volume and no price of minus zero", () => {
    const frame = between(`{"p":1,"s":"A","t":${NOON_MS},"v":-0}`);
    expect(Object.is(frame.trades[1]?.volume, 0)).toBe(true);
    const free = between(`{"p":-0,"s":"A","t":${NOON_MS},"v":1}`);
    expect(Object.is(free.trades[1]?.price, 0)).toBe(true);
  });

  test.each([
    ["null", "not_a_trade", "null"],
    ["a list", "not_a_trade", "[1]"],
    ["a number", "not_a_trade", "7"],
    ["an object without a symbol", "bad_symbol", `{"p":1,"t":${NOON_MS},"v":1}`],
    ["an empty symbol", "bad_symbol", JSON.stringify({ ...good, s: "" })],
    ["a symbol that is a number", "bad_symbol", JSON.stringify({ ...good, s: 1 })],
    ["a symbol of 129 characters", "bad_symbol", JSON.stringify({ ...good, s: "A".repeat(129) })],
    ["half a character as a symbol", "bad_symbol", `{"p":1,"s":"\\ud800","t":${NOON_MS},"v":1}`],
    ["a price as text", "bad_price", JSON.stringify({ ...good, p: "1" })],
    ["no price", "bad_price", JSON.stringify({ ...good, p: undefined })],
    ["a price beyond all markets", "bad_price", JSON.stringify({ ...good, p: -1e31 })],
    ["a price without bound", "bad_price", `{"p":1e999,"s":"A","t":${NOON_MS},"v":1}`],
    ["no volume", "bad_volume", JSON.stringify({ ...good, v: undefined })],
    ["a volume below zero", "bad_volume", JSON.stringify({ ...good, v: -1 })],
    ["a volume without bound", "bad_volume", `{"p":1,"s":"A","t":${NOON_MS},"v":1e999}`],
    ["a time as text", "bad_time", JSON.stringify({ ...good, t: "1680286537580" })],
    ["a time in fractions", "bad_time", JSON.stringify({ ...good, t: NOON_MS + 0.5 })],
    ["a time in seconds", "impossible_time", JSON.stringify({ ...good, t: NOON_MS / 1000 })],
    ["a time over a day ahead", "impossible_time", JSON.stringify({ ...good, t: NOON_MS + DAY_MS + 1 })],
    ["conditions as text", "bad_conditions", JSON.stringify({ ...good, c: "1" })],
    ["conditions as an object", "bad_conditions", JSON.stringify({ ...good, c: {} })],
    ["conditions that are numbers", "bad_conditions", JSON.stringify({ ...good, c: [1] })],
    ["65 conditions", "bad_conditions", JSON.stringify({ ...good, c: Array(65).fill("1") })],
  ])("refuses %s and keeps its neighbours", (_, reason, element) => {
    const frame = between(element);
    expect(frame.trades.map(({ symbol }) => symbol)).toEqual(["AAPL", "MSFT"]);
    const payload = `{"data":[${element}],"type":"trade"}`;
    expect(frame.refused).toEqual([{ reason, payload }] as never);
    // What was kept is refused for the same reason when it is tried again.
    expect(tradeFrame(payload).refused).toEqual(frame.refused);
  });

  test("keeps a refused element as it was written", () => {
    const written = '{ "p" : 1e999, "s":"a\\"],{\\\\", "t":12345678901234567890, "data":[[1],{"data":[2]}] }';
    const frame = tradeFrame(
      `{"data":[0], "d\\u0061ta" :\n[ ${JSON.stringify(good)} ,\t${written} , 3 ], "more":[9,9], "type":"trade"}`,
    );
    expect(frame.trades).toEqual([goodTrade]);
    expect(frame.refused.map(({ payload }) => payload)).toEqual([
      `{"data":[${written}],"type":"trade"}`,
      '{"data":[3],"type":"trade"}',
    ]);
  });

  test("never throws and never loses a neighbour, whatever stands between", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.boolean(), (value, isSpaced) => {
        const element = JSON.stringify(value, null, isSpaced ? 2 : 0);
        const frame = between(element);
        expect(frame.trades[0]).toEqual(goodTrade);
        expect(frame.trades.at(-1)?.symbol).toBe("MSFT");
        expect(frame.trades.length + frame.refused.length).toBe(3);
        for (const { payload } of frame.refused) {
          expect(JSON.parse(payload)).toEqual({ data: [JSON.parse(element)], type: "trade" });
        }
      }),
      { seed: 20260105, numRuns: 500 },
    );
  });

  test("never throws and never loses a neighbour, whichever field is what", () => {
    const field = fc.oneof(fc.jsonValue({ maxDepth: 1 }), fc.constant(undefined));
    fc.assert(
      fc.property(fc.record({ s: field, p: field, v: field, t: field, c: field }), (fields) => {
        const frame = one(fields);
        expect(frame.trades.length + frame.refused.length).toBe(3);
        expect(frame.trades[0]).toEqual(goodTrade);
      }),
      { seed: 20260106, numRuns: 500 },
    );
  });
});

describe("any other frame", () => {
  test.each([
    ['{"type":"ping"}', { type: "ping" }],
    ['{"data":[{"category":"company","datetime":1679920200,"id":1}],"type":"news"}', { type: "news" }],
    ['{"data":[{"datetime":1637696940,"symbol":"PAE,ZIXI,KRA"}],"type":"pr"}', { type: "pr" }],
    [
      '{"msg":"Subscribing to too many symbols","type":"error"}',
      { type: "error", message: "Subscribing to too many symbols" },
    ],
    ['{"msg":{"a":1},"type":"error"}', { type: "error", message: "" }],
    ['{"type":"welcome"}', { type: "other", name: "welcome" }],
    ['{"type":""}', { type: "other", name: "" }],
  ])("is told by its type: %s", (text, frame) => {
    expect(parseFrame(text, NOON_MS)).toEqual(frame as never);
  });

  test("hands on no long text of the other side", () => {
    const long = "x".repeat(10_000);
    expect(parseFrame(`{"type":"error","msg":"${long}"}`, NOON_MS)).toEqual({
      type: "error",
      message: long.slice(0, 200),
    });
    expect(parseFrame(`{"type":"${long}"}`, NOON_MS)).toEqual({ type: "other", name: long.slice(0, 40) });
  });

  test.each(["", "garbage", "{", "null", "[]", '"trade"', "7", "{}", '{"type":7}', '{"data":[]}'])(
    "is garbage and kept whole when it names no type: %j",
    (text) => {
      expect(parseFrame(text, NOON_MS)).toEqual(refusedWhole("garbage_frame", text) as never);
    },
  );

  test.each(['{"type":"trade"}', '{"type":"trade","data":null}', '{"type":"trade","data":{"0":{}}}'])(
    "is kept whole when it says trade and holds no list: %s",
    (text) => {
      expect(parseFrame(text, NOON_MS)).toEqual(refusedWhole("bad_frame", text) as never);
    },
  );

  test.each([
    `{"type":"trades","data":[{},${JSON.stringify(good)}]}`,
    `{"type":"update","data":${JSON.stringify(good)}}`,
    `{"type":"news","data":[${JSON.stringify(good)}]}`,
  ])("is kept whole when it holds what looks like trades: %s", (text) => {
    expect(parseFrame(text, NOON_MS)).toEqual(refusedWhole("unknown_frame", text) as never);
  });

  test("is not parsed beyond the limit; its beginning is kept", () => {
    const text = `{"type":"ping","x":"${"x".repeat(FRAME_LENGTH_MAX)}"}`;
    const kept = refusedWhole("frame_too_long", text.slice(0, 65_536));
    expect(parseFrame(text, NOON_MS)).toEqual(kept as never);
    const atLimit = `{"type":"ping"}${" ".repeat(FRAME_LENGTH_MAX - 15)}`;
    expect(parseFrame(atLimit, NOON_MS)).toEqual({ type: "ping" });
  });

  test("nested beyond all reason is refused, and nobody overflows a stack", () => {
    const deep = `${"[".repeat(200_000)}${"]".repeat(200_000)}`;
    const frame = between(deep);
    expect(frame.trades.length).toBe(2);
    expect(frame.refused).toEqual([{ reason: "not_a_trade", payload: `{"data":[${deep}],"type":"trade"}` }]);
  });

  test("of any text at all never throws", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary" }), fc.json(), fc.jsonValue().map(String)), (text) => {
        expect(() => parseFrame(text, NOON_MS)).not.toThrow();
      }),
      { seed: 20260107, numRuns: 500 },
    );
  });
});

describe("a frame of several messages", () => {
  const message = (v: number) => JSON.stringify({ data: [{ ...good, v }], type: "trade" });
  const shown = (text: string) =>
    parseFrames(text, NOON_MS).map((frame) =>
      frame.type === "trade" ? frame.trades.map(({ volume }) => volume).join() : frame.type,
    );

  test.each([
    ["a newline between them", `${message(1)}\n${message(2)}`, ["1", "2"]],
    ["a newline behind each", `${message(1)}\r\n${message(2)}\r\n`, ["1", "2"]],
    ["nothing between them", `${message(1)}${message(2)}${message(3)}`, ["1", "2", "3"]],
    [
      "other types among them",
      `{"type":"ping"}\n${message(1)}{"type":"error","msg":"}{"}`,
      ["ping", "1", "error"],
    ],
    ["a byte order mark", `\uFEFF${message(1)}`, ["1"]],
    ["braces in texts", `{"type":"ping","x":"}{\\"{"}${message(1)}`, ["ping", "1"]],
    ["a byte order mark before each", `\uFEFF${message(1)}\r\n\uFEFF${message(2)}`, ["1", "2"]],
    ["a NUL behind each", `${message(1)}\0${message(2)}\0`, ["1", "2"]],
    ["RS before each, as JSON text sequences have it", `\x1e${message(1)}\n\x1e${message(2)}\n`, ["1", "2"]],
    ["a comma between them", `${message(1)},${message(2)},`, ["1", "2"]],
    [
      "a list of them, of any length",
      `[${Array.from({ length: 9 }, (_, at) => message(at)).join(", ")}]`,
      ["0", "1", "2", "3", "4", "5", "6", "7", "8"],
    ],
    ["lines within them", `${JSON.stringify(JSON.parse(message(1)), null, 1)}\n${message(2)}`, ["1", "2"]],
  ])("gives each of them, with %s", (_, text, expected) => {
    expect(shown(text)).toEqual(expected);
  });

  test.each([
    ["cut off before a new line", `${message(1).slice(0, 30)}\n`],
    ["cut off within a text, before a new line", `{"type":"trade","data":[{"s":"AA\n`],
    ["cut off before the next, on the same line", `{"type":"trade","data":[{"p":1`],
    ["of a comma too many", `{"type":"trade","data":[,]}`],
    ["of words", "upstream timed out\n"],
  ])("loses only what is broken: %s", (_, broken) => {
    const frames = parseFrames(`${message(1)}${broken}${message(2)}`, NOON_MS);
    expect(shown(`${message(1)}${broken}${message(2)}`)).toEqual(["1", "refused", "2"]);
    expect(frames[1]).toEqual(refusedWhole("garbage_frame", broken.trimEnd()) as never);
  });

  test("stays in one piece when nothing in it can be read, and in a bounded number of pieces whatever it is", () => {
    for (const text of ["{}{}{}", "{\n{\n{", `${message(1).slice(0, 30)}\n{}`])
      expect(parseFrames(text, NOON_MS)).toEqual([refusedWhole("garbage_frame", text)] as never);
    const flood = `${'{"type":"ping"}'.repeat(3_000)}`;
    expect(parseFrames(flood, NOON_MS).length).toBe(1_024);
    const startedAtMs = performance.now();
    parseFrames(message(1) + '{"type":'.repeat(100_000), NOON_MS);
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);
  });

  test("of any texts and cuts never throws, and every whole message of one line is found", () => {
    const lines = fc.array(fc.oneof(fc.constant(message(1)), fc.json(), fc.string({ unit: "binary" })), {
      maxLength: 8,
    });
    fc.assert(
      fc.property(lines, (all) => {
        expect(() => parseFrames(all.join("\n"), NOON_MS)).not.toThrow();
        const whole = all.filter((line) => line === message(1));
        const objects = all.filter((line) => line === message(1) || (line.startsWith("{") && isJson(line)));
        if (objects.length < all.length) return;
        const found = shown(all.join("\n")).filter((one) => one === "1");
        expect(found.length).toBe(whole.length);
      }),
      { seed: 20261129, numRuns: 500 },
    );
  });
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
