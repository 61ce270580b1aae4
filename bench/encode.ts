// Question: how many trades a second does one core turn into Avro bytes, and back again?

import { Type } from "avsc";
import { decodeMessage, encodeMessage } from "../lib/model/codec.ts";
import schema from "../schemas/trades.avsc" with { type: "json" };
import { decodeFloor, encodeFloor } from "./floors.ts";
import { marketFrames, messagesOf, tradeCountOf } from "./material.ts";
import { type Figure, ratesOf } from "./measure.ts";

const TRADES = 300_000;
const TRADES_PER_SECOND = 5_000;

export async function encode(): Promise<Figure[]> {
  const messages = messagesOf(marketFrames(TRADES, TRADES_PER_SECOND, Date.now()));
  const count = tradeCountOf(messages);
  // The shape that the schema wants, made beforehand: the floor does nothing but avsc's work.
  const records = messages.map(({ session, sequence, receivedAtMs: receivedAt, trades }) => ({
    data: trades.map(({ conditions: c, price: p, symbol: s, tradedAtMs: t, volume: v }) => ({
      c,
      p,
      s,
      t,
      v,
    })),
    type: "trade",
    session,
    sequence,
    receivedAt,
  }));
  const type = Type.forSchema(schema as never, { omitRecordMethods: true });
  const encoded = records.map((record) => type.toBuffer(record));
  const unit = "trades/s";
  const goal = { of: "ratio", atLeast: 0.6 } as const;
  return [
    await ratesOf({
      name: "encode",
      unit,
      count,
      goal,
      ours: () => {
        for (const message of messages) encodeMessage(message);
      },
      floor: () => void encodeFloor(type, records),
    }),
    await ratesOf({
      name: "decode",
      unit,
      count,
      goal,
      ours: () => {
        for (const bytes of encoded) if (!decodeMessage(bytes).ok) throw new Error("a message is unreadable");
      },
      floor: () => void decodeFloor(type, encoded),
    }),
  ];
}
