/**
 * Clients that mean harm, or break off anywhere: the server goes on, keeps no session, and the data
 * changes by whole writes only.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import {
  Cmd,
  contextData,
  infoData,
  NbdClient,
  Opt,
  u32,
  type Form,
} from '../helpers/nbd-client.ts';
import { MapExports, withServer, type TestServer } from '../helpers/nbd-server.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { read } from '../helpers/stack.ts';

const SIZE = 1 << 20;

function option(number: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(data.length), data]);
}

/** The bytes of a request, in a form of replies. */
function encode(form: Form, ...args: Parameters<NbdClient['encode']>): Buffer {
  return NbdClient.prototype.encode.call({ form } as NbdClient, ...args);
}

/** A handshake into transmission. */
function handshake(form: Form): Buffer {
  const parts = [u32(3), option(Opt.LIST)];
  if (form === 'structured') parts.push(option(Opt.STRUCTURED_REPLY));
  if (form === 'extended') parts.push(option(Opt.EXTENDED_HEADERS));
  parts.push(option(Opt.SET_META_CONTEXT, contextData('disk', ['base:allocation'])));
  parts.push(option(Opt.GO, infoData('disk', [0, 1, 2, 3])));
  return Buffer.concat(parts);
}

/** Writes, trims and zeroes with the bytes that they end at, and what they do to the device. */
interface Step {
  readonly bytes: Buffer;
  readonly apply: (model: Buffer) => void;
}

function steps(form: Form): Step[] {
  const write = (offset: number, length: number, value: number): Step => {
    const data = Buffer.alloc(length, value);
    const bytes = encode(form, Cmd.WRITE, { offset, data }, 1n);
    return { bytes, apply: (model) => void data.copy(model, offset) };
  };
  const zero = (offset: number, length: number): Step => ({
    bytes: encode(form, Cmd.WRITE_ZEROES, { offset, length }, 2n),
    apply: (model) => void model.fill(0, offset, offset + length),
  });
  const nothing = (type: number, offset: number, length: number): Step => ({
    bytes: encode(form, type, { offset, length }, 3n),
    apply: () => undefined,
  });
  return [
    write(0, 512, 1),
    nothing(Cmd.READ, 0, 4096),
    write(600, 11, 2),
    zero(100, 50),
    nothing(Cmd.FLUSH, 0, 0),
    write(4096, 200, 3),
    nothing(Cmd.BLOCK_STATUS, 0, SIZE),
    zero(0, 1),
    nothing(77, 0, 5),
    write(SIZE - 64, 64, 4),
  ];
}

const forms = ['simple', 'structured', 'extended'] as const;

/** Runs `body` with a server whose export `disk` it may replace; no session may be left. */
async function besieged(
  body: (server: TestServer, exports: MapExports) => Promise<void>,
): Promise<void> {
  const exports = new MapExports({ disk: new MemoryDevice('disk', SIZE / 512) });
  await withServer(exports, async (server) => {
    await body(server, exports);
    await server.idle();
    assert.equal(exports.nrOpen, 0, 'no export is left open');
    const client = await server.open('disk', { form: 'structured', contexts: true });
    assert.equal((await client.readAt(0, 4096)).length, 4096, 'the server still serves');
  });
}

/** Sends `bytes` on a fresh connection and closes; resolves when the server has, too. */
async function sendAndClose(server: TestServer, bytes: Uint8Array, nr: number): Promise<void> {
  const client = nr % 2 === 0 ? await server.connect() : server.connectByStream();
  client.socket.end(bytes);
  await client.closed;
  client.destroy();
}

for (const form of forms) {
  test(`a session cut off at any byte leaves whole writes and no session (${form})`, async () => {
    const start = handshake(form);
    const todo = steps(form);
    const session = Buffer.concat([start, ...todo.map(({ bytes }) => bytes)]);
    await besieged(async (server, exports) => {
      for (let cut = 0; cut <= session.length; cut++) {
        const memory = new MemoryDevice('disk', SIZE / 512);
        exports.devices.set('disk', memory);
        await sendAndClose(server, session.subarray(0, cut), cut);
        await server.idle();
        const model = Buffer.alloc(SIZE);
        let at = start.length;
        for (const { bytes, apply } of todo) {
          at += bytes.length;
          if (at <= cut) apply(model);
        }
        assert.ok((await read(memory, 0, SIZE)).equals(model), `cut at ${cut}`);
      }
    });
  });

  test(`a session with bytes changed anywhere does no harm beyond its writes (${form})`, async () => {
    const seed = seedOf(10);
    const random = new Random(seed);
    const session = Buffer.concat([handshake(form), ...steps(form).map(({ bytes }) => bytes)]);
    await besieged(async (server) => {
      for (let i = 0; i < 400; i++) {
        const changed = Buffer.from(session);
        for (let n = random.between(1, 4); n > 0; n--) {
          changed[random.below(changed.length)] = random.pick([0, 1, 0x7f, 0x80, 0xff]);
        }
        await sendAndClose(server, changed, i);
      }
    });
  });
}

/** What a client may have sent before it turns to noise. */
const stages: Readonly<Record<string, Buffer>> = {
  'at once': Buffer.alloc(0),
  'after its flags': u32(3),
  'in an option': Buffer.concat([u32(3), Buffer.from('IHAVEOPT'), u32(Opt.GO), u32(60_000)]),
  'in an option that is too long': Buffer.concat([
    u32(3),
    Buffer.from('IHAVEOPT'),
    u32(Opt.GO),
    u32(100_000),
  ]),
  'in transmission': handshake('simple'),
  'in extended transmission': handshake('extended'),
  'after a request': Buffer.concat([
    handshake('structured'),
    encode('structured', Cmd.READ, { length: 4096 }, 1n),
  ]),
};

for (const [stage, before] of Object.entries(stages)) {
  test(`noise ${stage} changes nothing and leaves nothing`, async () => {
    const seed = seedOf(11);
    const random = new Random(seed);
    await besieged(async (server, exports) => {
      for (let i = 0; i < 40; i++) {
        const noise = Buffer.alloc(random.below(200_000));
        for (let at = 0; at < noise.length; at++) noise[at] = random.below(256);
        await sendAndClose(server, Buffer.concat([before, noise]), i);
      }
      await server.idle();
      const memory = exports.devices.get('disk') as MemoryDevice;
      assert.equal(memory.allocatedBytes, 0, `seed ${seed}`);
    });
  });
}

test('options of noise are answered or hung up on, one by one', async () => {
  const seed = seedOf(12);
  const random = new Random(seed);
  await besieged(async (server) => {
    for (let i = 0; i < 60; i++) {
      const parts = [u32(3)];
      for (let n = 0; n < 20; n++) {
        const data = Buffer.alloc(random.below(60));
        for (let at = 0; at < data.length; at++)
          data[at] = random.pick([0, 0, 0, 1, 4, 0x64, 0xff]);
        parts.push(option(random.pick([0, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]), data));
      }
      await sendAndClose(server, Buffer.concat(parts), i);
    }
  });
});

test('many clients that connect and say nothing do not keep others from being served', async () => {
  await besieged(async (server) => {
    const silent = await Promise.all(Array.from({ length: 200 }, () => server.connect()));
    const client = await server.open('disk');
    await client.writeAt(0, Buffer.alloc(512, 1));
    for (const one of [...silent, client]) one.destroy();
  });
});
