// A cluster of stub brokers with as much of Kafka's protocol as a producer needs (ApiVersions, Metadata, Produce). A test
// decides which broker leads, what it answers and when, and sees what was really written.

import { createServer, type Server, type Socket } from "node:net";

export type StubPartition = {
  /** The number of the leading broker; -1 = none. */
  leader: number;
  /** Records of all produce requests that its leader accepted. */
  written: number;
  /** The error code that its leader answers with instead of writing; 0 = it writes. */
  refusal: number;
};

export interface StubCluster extends AsyncDisposable {
  readonly addresses: readonly string[];
  /** A partition that is removed from this list is unknown from then on. */
  readonly partitions: StubPartition[];
  /** How many requests of each kind have come. */
  readonly counts: { metadata: number; produce: number };
  /** Connections that are open now. */
  readonly connectionCount: number;
  /** Breaks its connections without an answer. */
  hangUp(broker: number): void;
  /** Like kill -9: connections break without an answer, new ones are refused. Other brokers still name it. */
  kill(broker: number): Promise<void>;
  /** Called before a broker answers a produce request, which waits for it. */
  beforeProduce(broker: number): void | Promise<void>;
}

const PRODUCE = 0;
const METADATA = 3;
const API_VERSIONS = 18;
/** The newest version of each that this stub speaks; kafkajs uses the newest that both know. */
const VERSIONS = [
  [PRODUCE, 3],
  [METADATA, 1],
  [API_VERSIONS, 1],
] as const;
const NOT_LEADER = 6;
const LEADER_NOT_AVAILABLE = 5;
const UNKNOWN_TOPIC_OR_PARTITION = 3;
/** Where the number of records stands in a record batch of format 2. */
const RECORD_COUNT_AT = 57;

export async function openStubCluster(topic: string, leaders: readonly number[], brokerCount = 2) {
  const partitions: StubPartition[] = leaders.map((leader) => ({ leader, written: 0, refusal: 0 }));
  const servers: Server[] = [];
  const sockets = new Map<Socket, number>();
  const ports: number[] = [];
  const cluster: StubCluster = {
    get addresses() {
      return ports.map((port) => `127.0.0.1:${port}`);
    },
    partitions,
    counts: { metadata: 0, produce: 0 },
    get connectionCount() {
      return sockets.size;
    },
    hangUp(broker) {
      for (const [socket, ofBroker] of sockets) if (ofBroker === broker) socket.destroy();
    },
    async kill(broker) {
      cluster.hangUp(broker);
      await new Promise((resolve) => servers[broker]!.close(resolve));
    },
    beforeProduce() {},
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((_, broker) => cluster.kill(broker)));
    },
  };

  async function answer(broker: number, request: Reader): Promise<Buffer | null> {
    const [apiKey, version, correlation] = [request.int16(), request.int16(), request.int32()];
    request.text();
    const to = new Writer().int32(correlation);
    if (apiKey === API_VERSIONS) {
      to.int16(version > 1 ? 35 : 0).int32(VERSIONS.length);
      for (const [key, newest] of VERSIONS) to.int16(key).int16(0).int16(newest);
      return version > 1 ? to.done() : to.int32(0).done();
    }
    if (apiKey === METADATA) {
      cluster.counts.metadata += 1;
      to.int32(ports.length);
      for (const [id, port] of ports.entries()) to.int32(id).text("127.0.0.1").int32(port).text(null);
      // Broker 0 is the controller. The side topics of the pipeline are there and lead nowhere of interest.
      to.int32(0).int32(3);
      describe(to, topic, partitions);
      for (const side of [`${topic}.events`, `${topic}.dead`])
        describe(to, side, [{ leader: 0, written: 0, refusal: 0 }]);
      return to.done();
    }
    if (apiKey === PRODUCE) return produce(broker, request, to);
    return null;
  }

  async function produce(broker: number, request: Reader, to: Writer): Promise<Buffer> {
    cluster.counts.produce += 1;
    request.text();
    request.int16();
    request.int32();
    const asked: { id: number; recordCount: number }[] = [];
    for (let topics = request.int32(); topics > 0; topics--) {
      request.text();
      for (let count = request.int32(); count > 0; count--) {
        asked.push({ id: request.int32(), recordCount: request.bytes().readInt32BE(RECORD_COUNT_AT) });
      }
    }
    await cluster.beforeProduce(broker);
    to.int32(1).text(topic).int32(asked.length);
    for (const { id, recordCount } of asked) {
      const errorCode = answerOf(broker, partitions[id]);
      if (errorCode === 0) partitions[id]!.written += recordCount;
      to.int32(id)
        .int16(errorCode)
        .int64(errorCode === 0 ? 0 : -1)
        .int64(-1);
    }
    return to.int32(0).done();
  }

  for (let broker = 0; broker < brokerCount; broker++) {
    const server = createServer((socket) => {
      sockets.set(socket, broker);
      let waiting: Buffer = Buffer.alloc(0);
      let last: Promise<void> = Promise.resolve();
      socket.on("error", () => {});
      socket.on("close", () => sockets.delete(socket));
      socket.on("data", (data: Buffer) => {
        waiting = Buffer.concat([waiting, data]);
        while (waiting.length >= 4 && waiting.length >= 4 + waiting.readInt32BE()) {
          const size = waiting.readInt32BE();
          const request = new Reader(waiting.subarray(4, 4 + size));
          waiting = waiting.subarray(4 + size);
          last = last.then(async () => {
            const response = await answer(broker, request);
            if (response === null) socket.destroy();
            else socket.write(response);
          });
        }
      });
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    ports.push(typeof address === "object" && address !== null ? address.port : 0);
  }
  return cluster;
}

function answerOf(broker: number, partition: StubPartition | undefined): number {
  if (partition === undefined) return UNKNOWN_TOPIC_OR_PARTITION;
  return partition.leader === broker ? partition.refusal : NOT_LEADER;
}

function describe(to: Writer, topic: string, partitions: readonly StubPartition[]): void {
  to.int16(0).text(topic).int8(0).int32(partitions.length);
  for (const [id, { leader }] of partitions.entries()) {
    to.int16(leader < 0 ? LEADER_NOT_AVAILABLE : 0);
    to.int32(id).int32(leader).int32(0).int32(0);
  }
}

class Reader {
  #at = 0;
  readonly #data: Buffer;
  constructor(data: Buffer) {
    this.#data = data;
  }
  int16(): number {
    this.#at += 2;
    return this.#data.readInt16BE(this.#at - 2);
  }
  int32(): number {
    this.#at += 4;
    return this.#data.readInt32BE(this.#at - 4);
  }
  text(): string {
    const length = this.int16();
    return length < 0 ? "" : this.#take(length).toString();
  }
  bytes(): Buffer {
    return this.#take(this.int32());
  }
  #take(length: number): Buffer {
    this.#at += length;
    return this.#data.subarray(this.#at - length, this.#at);
  }
}

class Writer {
  readonly #bytes: number[] = [];
  int8(value: number): this {
    this.#bytes.push(value & 0xff);
    return this;
  }
  int16(value: number): this {
    return this.int8(value >> 8).int8(value);
  }
  int32(value: number): this {
    return this.int16(value >> 16).int16(value);
  }
  int64(value: number): this {
    return this.int32(value < 0 ? -1 : 0).int32(value);
  }
  text(value: string | null): this {
    if (value === null) return this.int16(-1);
    const bytes = Buffer.from(value);
    this.int16(bytes.length);
    this.#bytes.push(...bytes);
    return this;
  }
  /** With its length in front. */
  done(): Buffer {
    const body = Buffer.from(this.#bytes);
    const length = Buffer.alloc(4);
    length.writeInt32BE(body.length);
    return Buffer.concat([length, body]);
  }
}
