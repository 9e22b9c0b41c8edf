/**
 * The reader of requests and its slabs: however the bytes come, and however long payloads are held,
 * each request and payload is what was sent.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command, IN_FLIGHT_BYTES_MAX } from '../../src/nbd/protocol.ts';
import { RequestReader, type RequestConsumer } from '../../src/nbd/request-reader.ts';
import { Request } from '../../src/nbd/request.ts';
import { SLAB_BYTES, SlabPool, type Slab } from '../../src/nbd/slab.ts';
import { Random, seedOf } from '../helpers/random.ts';

const MIB = 1 << 20;

/** A request as sent: its number is its cookie, its payload a pattern made from the number. */
interface Sent {
  readonly nr: number;
  readonly type: number;
  readonly length: number;
}

const patternAt = (nr: number, i: number): number => (nr * 31 + i * 7 + (i >> 8)) & 0xff;

function encode({ nr, type, length }: Sent): Buffer {
  const payload = type === Command.WRITE ? length : 0;
  const bytes = Buffer.alloc(28 + payload);
  bytes.writeUInt32BE(0x25609513, 0);
  bytes.writeUInt16BE(type, 6);
  bytes.writeBigUInt64BE(BigInt(nr), 8);
  bytes.writeUInt32BE(length, 24);
  for (let i = 0; i < payload; i++) bytes[28 + i] = patternAt(nr, i);
  return bytes;
}

/** Holds requests for a while, in an order of its own, and stops the reader now and then. */
class Holder implements RequestConsumer {
  readonly pool = new SlabPool();
  readonly held: Request[] = [];
  readonly seen: number[] = [];
  readonly #random: Random;
  readonly #sent: readonly Sent[];
  stopping = 0.1;
  broken = '';

  constructor(sent: readonly Sent[], random: Random) {
    this.#sent = sent;
    this.#random = random;
  }

  takeRequest(): Request {
    return new Request(
      () => undefined,
      () => undefined,
    );
  }

  startRequest(request: Request): boolean {
    this.seen.push(request.cookieLow);
    this.#check(request);
    if (this.#random.chance(0.5)) this.#end(request);
    else this.held.push(request);
    return !this.#random.chance(this.stopping);
  }

  refuseRequest(request: Request): boolean {
    this.seen.push(request.cookieLow);
    return true;
  }

  breakOff(reason: string): void {
    this.broken = reason;
  }

  #check(request: Request): void {
    const sent = this.#sent[request.cookieLow] as Sent;
    assert.equal(request.type, sent.type);
    assert.equal(request.length, sent.length);
    const { payload, payloadBegin, payloadBytes } = request;
    assert.equal(payloadBytes, sent.type === Command.WRITE ? sent.length : 0);
    for (let i = 0; i < payloadBytes; i += 1 + (i % 61)) {
      if (payload[payloadBegin + i] === patternAt(sent.nr, i)) continue;
      assert.fail(`byte ${i} of request ${sent.nr} is not what was sent`);
    }
  }

  /** The payload must still be as it came when the write is done. */
  #end(request: Request): void {
    this.#check(request);
    if (request.payloadSlab !== null) this.pool.release(request.payloadSlab);
  }

  endSome(): void {
    while (this.held.length > 0 && this.#random.chance(0.6)) {
      const [request] = this.held.splice(this.#random.below(this.held.length), 1);
      this.#end(request as Request);
    }
  }

  endAll(): void {
    for (const request of this.held.splice(0)) this.#end(request);
  }
}

/** Lengths at which something changes in how a payload is received. */
const lengths = [0, 1, 512, 4096, 16_384, 65_536, 262_144, SLAB_BYTES / 2, SLAB_BYTES / 2 + 1, MIB];
const rareLengths = [MIB + 1, 3 * MIB, 32 * MIB + 5];

test('requests are read right however they are cut, and payloads stay until released', () => {
  const seed = seedOf(13);
  const random = new Random(seed);
  const sent: Sent[] = Array.from({ length: 700 }, (_, nr) => {
    const write = random.chance(0.6);
    const length = random.chance(0.01) ? random.pick(rareLengths) : random.pick(lengths);
    return { nr, type: write ? Command.WRITE : Command.READ, length };
  });
  const holder = new Holder(sent, random);
  const reader = new RequestReader(holder.pool, holder, false);
  const cuts = [1, 5, 27, 28, 29, 1000, 4124, 65_536, 200_000, 10 * MIB];
  for (const one of sent) {
    const bytes = encode(one);
    for (let at = 0; at < bytes.length;) {
      const room = reader.room();
      assert.ok(room.length > 0, `seed ${seed}`);
      const n = Math.min(room.length, bytes.length - at, random.pick(cuts));
      room.set(bytes.subarray(at, at + n));
      at += n;
      reader.received(n);
      reader.read();
      // As a session: nothing more is received until what was is read.
      for (let goOn = holder.seen.length; ; goOn = holder.seen.length) {
        reader.read();
        if (holder.seen.length === goOn) break;
      }
      if (holder.pool.bytesInUse > IN_FLIGHT_BYTES_MAX) holder.endAll();
      holder.endSome();
    }
  }
  assert.deepEqual(
    holder.seen,
    sent.map(({ nr }) => nr),
    `seed ${seed}`,
  );
  holder.endAll();
  assert.equal(holder.pool.bytesInUse, SLAB_BYTES, 'only the reader has a slab');
});

test('a reader that was stopped still has room for what was on the way', () => {
  const random = new Random(1);
  const sent = Array.from({ length: 100_000 }, (_, nr) => ({ nr, type: Command.READ, length: 1 }));
  const holder = new Holder(sent, random);
  holder.stopping = 1;
  const reader = new RequestReader(holder.pool, holder, false);
  const one = encode(sent[0] as Sent);
  for (let nr = 0; nr < sent.length;) {
    const room = reader.room();
    assert.ok(room.length >= one.length);
    let n = 0;
    for (; n + one.length <= room.length && nr < sent.length; n += one.length) {
      room.set(encode(sent[nr++] as Sent), n);
    }
    reader.received(n);
    while (holder.seen.length < nr) reader.read();
    holder.endAll();
  }
  assert.equal(holder.broken, '');
});

test('slabs that are released are used again, but only a few are kept', () => {
  const pool = new SlabPool();
  const slabs = Array.from({ length: 10 }, () => pool.take(1));
  assert.equal(pool.bytesInUse, 10 * SLAB_BYTES);
  const large = pool.take(5 * MIB);
  assert.equal(large.buffer.length, 5 * MIB);
  for (const slab of [...slabs, large]) pool.release(slab);
  assert.equal(pool.bytesInUse, 0);
  const again = Array.from({ length: 10 }, () => pool.take(SLAB_BYTES));
  const reused = again.filter((slab: Slab) => slabs.includes(slab));
  assert.ok(reused.length >= 1 && reused.length <= 4, `${reused.length} slabs were kept`);
});
