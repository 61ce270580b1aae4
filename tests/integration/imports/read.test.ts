// Files of other recorders, read from the disk in every packing: which format they are, what is taken, left out and
// refused, and each format's own traps.

import { afterAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { zipSync } from "fflate";
import { parquetWriteFile } from "hyparquet-writer";
import { type ImportItem, type ReadOptions, readImport } from "../../../lib/imports/read.ts";
import { temporaryDirectory } from "../../support/builders.ts";

const directory = temporaryDirectory();
afterAll(() => directory[Symbol.dispose]());

const NONE: ReadOptions = { format: null, symbol: null, map: {} };
type Read = { formats: string[]; items: ImportItem[] };

function written(name: string, bytes: string | Uint8Array): string {
  const path = join(directory.path, name);
  writeFileSync(path, bytes);
  return path;
}

async function readAll(path: string, options: Partial<ReadOptions> = {}): Promise<Read> {
  const read: Read = { formats: [], items: [] };
  for await (const { format, items } of readImport(path, { ...NONE, ...options }).entries) {
    read.formats.push(format.name);
    for await (const item of items) read.items.push(item);
  }
  return read;
}

/** `symbol time price volume conditions` of a trade; what became of anything else. */
const shown = ({ items }: Read) =>
  items.map((item) => {
    if (item.kind !== "trade") return `${item.place} ${item.kind}: ${item.why}`;
    const { symbol, tradedAtMs, price, volume, conditions } = item.trade;
    const codes = conditions === null ? "" : ` ${JSON.stringify(conditions)}`;
    return `${symbol} ${new Date(tradedAtMs).toISOString()} ${price} ${volume}${codes}`;
  });

const CSV = `time,price,size,symbol
2013-10-07T14:00:00.123Z,10.5,100,AAA
1381154400123,10.5,100,AAA
1381154400,10.6,-7,AAA
yesterday,1,1,AAA
1381154401,abc,1,AAA
"1381154402123456","10.7",1,"A,B"
`;
const CSV_SHOWN = [
  "AAA 2013-10-07T14:00:00.123Z 10.5 100",
  "AAA 2013-10-07T14:00:00.123Z 10.5 100",
  "AAA 2013-10-07T14:00:00.000Z 10.6 7",
  "5 refused: not a time: yesterday",
  "6 refused: not a price: abc",
  "A,B 2013-10-07T14:00:02.123Z 10.7 1",
];

test("columns by their usual names, in every packing, with the same identities", async () => {
  const bytes = new TextEncoder().encode(CSV);
  const paths = [
    written("a.csv", bytes),
    written("bom.csv", `\uFEFF${CSV.replaceAll("\n", "\r\n")}`),
    written("tabs.tsv", CSV.replaceAll('"A,B"', "A|B").replaceAll(",", "\t").replace("A|B", "A,B")),
    written("a.csv.gz", gzipSync(bytes)),
    written("a.csv.zst", Bun.zstdCompressSync(bytes)),
    written("a.zip", zipSync({ "a.csv": bytes })),
  ];
  const uuids = new Set<string>();
  for (const path of paths) {
    const read = await readAll(path);
    expect([path, read.formats, shown(read)]).toEqual([path, ["columns"], CSV_SHOWN]);
    for (const item of read.items) if (item.kind === "trade") uuids.add(item.uuid);
  }
  expect(uuids.size).toBe(4);
});

test("NDJSON: objects with columns, and Finnhub's frames, each line for itself", async () => {
  const lines = written(
    "a.ndjson",
    '{"t":1381154400123,"p":10.5,"v":1,"s":"AAA","c":["1"],"id":7}\n\nnot json\n{"t":1381154400123,"p":10.5,"v":1,"s":"AAA","id":8}',
  );
  const read = await readAll(lines);
  expect(shown(read)).toEqual([
    'AAA 2013-10-07T14:00:00.123Z 10.5 1 ["1"]',
    "3 refused: not a JSON object",
    "AAA 2013-10-07T14:00:00.123Z 10.5 1",
  ]);
  const frame =
    '{"type":"trade","data":[{"s":"A","p":1,"v":2,"t":1381154400123,"c":null},{"s":"A","p":1,"v":2,"t":1381154400123}]}';
  const frames = written("frames.ndjson", `${frame}\n{"type":"ping"}\n${JSON.stringify({ at: 1, frame })}\n`);
  const { formats, items } = await readAll(frames);
  expect([formats, items.length]).toEqual([["finnhub"], 5]);
  expect(new Set(items.flatMap((item) => (item.kind === "trade" ? [item.uuid] : []))).size).toBe(4);
});

test("Parquet: typed columns, our own uuids, times of any unit", async () => {
  const path = join(directory.path, "own.parquet");
  const uuid = "018cc251-f400-7bc7-9cc5-1d60a5eac48e";
  await parquetWriteFile({
    filename: path,
    columnData: [
      { name: "symbol", data: ["AAPL", "AAPL"], type: "STRING" },
      {
        name: "trade_timestamp",
        data: [new Date(1_381_154_400_123), new Date(1_381_154_400_124)],
        type: "TIMESTAMP",
      },
      { name: "uuid", data: [uuid, "018cc251-f400-7bc7-9cc5-1d60a5eac48f"], type: "STRING" },
      { name: "price", data: [10.5, 10.6], type: "DOUBLE" },
      { name: "volume", data: [1, 2], type: "DOUBLE" },
      { name: "trade_conditions", data: ['["1","12"]', null], type: "STRING", nullable: true },
    ],
  });
  const read = await readAll(path);
  expect([read.formats, ...shown(read)]).toEqual([
    ["pipeline"],
    'AAPL 2013-10-07T14:00:00.123Z 10.5 1 ["1","12"]',
    "AAPL 2013-10-07T14:00:00.124Z 10.6 2",
  ] as unknown as (typeof read.formats)[]);
  expect(read.items[0]).toMatchObject({ uuid });
});

test("Binance: without a header, in ms and µs, by the exchange's ids, the symbol from the name", async () => {
  const trades = written(
    "BTCUSDT-trades-2025-01-01.csv",
    "1,42000.1,0.01,420.0,1704067200000,True,True\n2,42000.1,0.01,420.0,1735689600000001,True,True\n",
  );
  expect(shown(await readAll(trades))).toEqual([
    "BINANCE:BTCUSDT 2024-01-01T00:00:00.000Z 42000.1 0.01",
    "BINANCE:BTCUSDT 2025-01-01T00:00:00.000Z 42000.1 0.01",
  ]);
  const futures = written(
    "ETHUSDT-aggTrades-2024-01.csv",
    "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n5,2300,1.5,1,3,1704067200000,true\n",
  );
  const read = await readAll(futures);
  expect([read.formats, shown(read)]).toEqual([
    ["binance-aggtrades"],
    ["BINANCE:ETHUSDT 2024-01-01T00:00:00.000Z 2300 1.5"],
  ]);
});

test("Databento: fixed-point prices, the event's time, an execution once", async () => {
  const path = written(
    "glbx-trades.csv",
    "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags,ts_in_delta,sequence,symbol\n" +
      "1704187800000000123,1704187800000000001,0,1,42,T,B,0,4750250000000,3,0,100,77,ESH4\n" +
      "1704187800000000123,1704187800000000001,0,1,42,F,A,0,4750250000000,3,0,100,77,ESH4\n" +
      "1704187800000000123,2024-01-02T09:30:00.000000001Z,0,1,42,T,B,0,4750.25,3,0,100,78,ESH4\n",
  );
  expect(shown(await readAll(path))).toEqual([
    "ESH4 2024-01-02T09:30:00.000Z 4750.25 3",
    "3 skipped: no trade: action F",
    "ESH4 2024-01-02T09:30:00.000Z 4750.25 3",
  ]);
});

test("LEAN: a zip of a day, ms since New York's midnight, prices in 1/10,000, suspicious prints left out", async () => {
  const zip = zipSync({
    "20131007_ibm_Trade_Tick.csv": new TextEncoder().encode(
      "34200123,1814000,100,P,41,0\n34200124,1814100,100,P,0,1\n",
    ),
    "20131007_spy_Trade_Tick.csv": new TextEncoder().encode("34200500,1674100,1400,Q,0,0\n"),
  });
  const read = await readAll(written("20131007_trade.zip", zip));
  expect([read.formats, shown(read)]).toEqual([
    ["lean", "lean"],
    [
      'IBM 2013-10-07T13:30:00.123Z 181.4 100 ["41"]',
      "2 skipped: suspicious by LEAN's word",
      "SPY 2013-10-07T13:30:00.500Z 167.41 1400 []",
    ],
  ]);
});

test("TAQ: conditions character by character, cancelled prints left out, the day from the name", async () => {
  const path = written(
    "EQY_US_ALL_TRADE_20240102.txt",
    "Time|Exchange|Symbol|Sale Condition|Trade Volume|Trade Price|Trade Stop Stock Indicator|Trade Correction Indicator|Sequence Number\n" +
      "093000123456789|Q|IBM|@F I|100|181.5||00|1\n093000223456789|Q|IBM|@|100|181.6||08|2\n160001000000000|N|BRK B|@ T |5|350||00|3\n",
  );
  expect(shown(await readAll(path))).toEqual([
    'IBM 2024-01-02T14:30:00.123Z 181.5 100 ["F","I"]',
    "3 skipped: cancelled or corrected: correction 8",
    'BRK.B 2024-01-02T21:00:01.000Z 350 5 ["T"]',
  ]);
});

test("quotes are no trades: a price without volume, by the bid; three bare columns are seconds, price, amount", async () => {
  const quotes = written(
    "EURUSD_Ticks.csv",
    "Gmt time,Ask,Bid,AskVolume,BidVolume\n07.05.2014 00:00:00.123,1.3930,1.3929,1.5,2\n",
  );
  const read = await readAll(quotes, { symbol: "OANDA:EUR_USD" });
  expect([read.formats, shown(read)]).toEqual([
    ["quotes"],
    ["OANDA:EUR_USD 2014-05-07T00:00:00.123Z 1.3929 0"],
  ]);
  expect(read.items[0]).toMatchObject({ note: "quotes, taken at the bid without volume" });
  const bare = written("bitstampUSD.csv", "1381154400,120.500000000000,0.5\n1381154401,121,1\n");
  expect(shown(await readAll(bare))).toEqual([
    "1 refused: no symbol: give --symbol",
    "2 refused: no symbol: give --symbol",
  ]);
  expect(shown(await readAll(bare, { symbol: "BITSTAMP:BTCUSD" }))).toEqual([
    "BITSTAMP:BTCUSD 2013-10-07T14:00:00.000Z 120.5 0.5",
    "BITSTAMP:BTCUSD 2013-10-07T14:00:01.000Z 121 1",
  ]);
});

test("--map names columns that nobody would guess", async () => {
  const path = written("odd.csv", "wann,was,wieviel\n2013-10-07T14:00:00Z,10.5,3\n");
  expect(shown(await readAll(path, { symbol: "A" }))).toEqual(["2 refused: not a time: "]);
  const map = { time: "wann", price: "was", volume: "wieviel" };
  expect(shown(await readAll(path, { symbol: "A", map }))).toEqual(["A 2013-10-07T14:00:00.000Z 10.5 3"]);
});

test("what cannot be read is said in a sentence that names the file and what to do", async () => {
  const gz = gzipSync(new TextEncoder().encode(CSV.repeat(50)));
  const random = new TextEncoder().encode(
    Array.from({ length: 3_000 }, (_, n) => `${n * n},${n ** 3}`).join("\n"),
  );
  const zip = zipSync({ "BTCUSDT-trades-2024-01-01.csv": random });
  for (const [path, options, words] of [
    [join(directory.path, "nowhere.csv"), {}, /there is no file .*nowhere\.csv/],
    [directory.path, {}, /is not a file/],
    [written("cut.csv.gz", gz.subarray(0, gz.length / 2)), {}, /cut\.csv\.gz is damaged/],
    [written("no.zip", "this is no zip"), {}, /no\.zip is damaged .*no zip archive/],
    [written("cut.zip", zip.subarray(0, zip.length - 200)), {}, /cut\.zip is damaged/],
    [written("no-header.csv", "1381154400,1,2,3,4\n"), {}, /no line with the names of its columns/],
    [written("b.csv", CSV), { format: "tarot" }, /--format tarot is unknown/],
    [
      written("x.zip", zipSync({ "a.parquet": new TextEncoder().encode("PAR1....PAR1") })),
      {},
      /Parquet inside of another file/,
    ],
  ] as const) {
    const error = await readAll(path, options).catch((caught: unknown) => caught);
    expect([path, String((error as Error).message)]).toEqual([path, expect.stringMatching(words)]);
  }
});
