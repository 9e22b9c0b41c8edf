/**
 * How connections end: politely, rudely, and by the server (spec: nbd, 5 and 7).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { ClosedError, Cmd, Err, infoData, Opt, Rep } from '../helpers/nbd-client.ts';
import { HeldDevice } from '../helpers/held-device.ts';
import { MapExports, withServer, type TestServer } from '../helpers/nbd-server.ts';
import { read, runs } from '../helpers/stack.ts';

const MIB = 1 << 20;

interface Setting {
  readonly server: TestServer;
  readonly exports: MapExports;
  readonly device: HeldDevice;
  readonly memory: MemoryDevice;
}

/** Runs `body` with a held device as `disk`; afterwards nothing may be left of any session. */
async function held(body: (setting: Setting) => Promise<void>): Promise<void> {
  const memory = new MemoryDevice('disk', (16 * MIB) / 512);
  const device = new HeldDevice(memory);
  const exports = new MapExports({ disk: device });
  await withServer(exports, async (server) => {
    await body({ server, exports, device, memory });
    device.releaseAll();
    await server.idle();
    assert.equal(exports.nrOpen, 0, 'no export is left open');
  });
}

/** Long enough for anything that is going to happen to have happened. */
const aWhile = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 50));

for (const byStream of [false, true]) {
  const over = byStream ? 'a stream' : 'a socket';

  test(`DISC lets what is in flight finish and be answered first, over ${over}`, async () => {
    await held(async ({ server, exports, device, memory }) => {
      const client = await server.open('disk', { byStream });
      const write = client.command(Cmd.WRITE, { data: Buffer.alloc(512, 1) });
      const odd = client.command(Cmd.WRITE, { offset: 700, data: Buffer.alloc(9, 2) });
      const read1 = client.command(Cmd.READ, { offset: 4096, length: 512 });
      await device.whenHeld(3);
      const gone = client.disconnect();
      await aWhile();
      assert.equal(exports.nrOpen, 1);
      device.releaseAll();
      const replies = await Promise.all([write, odd, read1]);
      assert.deepEqual(
        replies.map(({ error }) => error),
        [0, 0, 0],
      );
      await gone;
      assert.equal(runs(await read(memory, 0, 1024)), '512x01 188x00 9x02 315x00');
    });
  });

  test(`what comes after DISC is not carried out, over ${over}`, async () => {
    await held(async ({ server, device, memory }) => {
      const client = await server.open('disk', { byStream });
      device.holding = false;
      const write = client.encode(Cmd.WRITE, { data: Buffer.alloc(512, 1) }, 1n);
      client.send(client.encode(Cmd.DISC, {}, 0n), write, Buffer.alloc(100_000, 0x11));
      await client.closed;
      client.destroy();
      assert.equal(client.unread, 0);
      assert.equal(runs(await read(memory, 0, 512)), '512x00');
    });
  });

  test(`a client that only closes its side still gets its answers, over ${over}`, async () => {
    await held(async ({ server, device }) => {
      const client = await server.open('disk', { byStream });
      const write = client.command(Cmd.WRITE, { data: Buffer.alloc(512, 1) });
      await device.whenHeld(1);
      client.socket.end();
      await aWhile();
      device.releaseAll();
      assert.equal((await write).error, 0);
      await client.closed;
    });
  });

  test(`a client that takes its time with its last answers gets them all, over ${over}`, async () => {
    // The connection was cut a second after the last request had ended, whatever was still unread.
    await held(async ({ server, exports, device }) => {
      device.holding = false;
      const client = await server.open('disk', { byStream });
      await client.writeAt(0, Buffer.alloc(16 * MIB, 7));
      client.socket.pause();
      const reads = [0, 1].map(() => client.command(Cmd.READ, { length: 16 * MIB }));
      client.send(client.encode(Cmd.DISC, {}, 0n));
      await new Promise((resolve) => setTimeout(resolve, 1500));
      assert.equal(exports.nrOpen, 0, 'nothing is in flight any more');
      client.socket.resume();
      for (const { error, data } of await Promise.all(reads)) {
        assert.equal(error, 0);
        assert.ok(data.every((byte) => byte === 7));
      }
      await client.closed;
      client.destroy();
    });
  });

  test(`the export is closed at the goodbye, before the connection is, over ${over}`, async () => {
    await held(async ({ server, exports }) => {
      const client = await server.open('disk', { byStream });
      client.send(client.encode(Cmd.DISC, {}, 0n));
      await client.closed;
      assert.equal(exports.nrOpen, 0);
      assert.equal(server.server.nrSessions, 1, 'the client has not closed its side');
      client.destroy();
    });
  });

  test(`a client that vanishes leaves its writes to finish, over ${over}`, async () => {
    await held(async ({ server, exports, device, memory }) => {
      const client = await server.open('disk', { byStream });
      const replies = [
        client.command(Cmd.WRITE, { data: Buffer.alloc(65536, 1) }),
        client.command(Cmd.WRITE, { offset: 100_001, data: Buffer.alloc(7, 2) }),
        client.command(Cmd.READ, { length: MIB }),
        client.command(Cmd.WRITE_ZEROES, { offset: MIB, length: 513 }),
        client.command(Cmd.FLUSH),
      ].map((reply) => assert.rejects(reply, ClosedError));
      await device.whenHeld(5);
      client.destroy();
      await Promise.all(replies);
      await aWhile();
      assert.equal(exports.nrOpen, 1, 'the export stays open for what is in flight');
      assert.equal(server.server.nrSessions, 1);
      const other = await server.open('disk');
      const write = other.command(Cmd.WRITE, { offset: 2 * MIB, data: Buffer.alloc(512, 3) });
      await device.whenHeld(6);
      device.releaseAll();
      assert.equal((await write).error, 0);
      await other.disconnect();
      await server.idle();
      const found = await read(memory, 0, 131072);
      assert.equal(runs(found), '65536x01 34465x00 7x02 31064x00');
    });
  });

  test(`a client that vanishes in the middle of a payload writes nothing, over ${over}`, async () => {
    await held(async ({ server, device, memory }) => {
      device.holding = false;
      for (const bytes of [0, 1, 4095, 4096 * 3, MIB]) {
        const client = await server.open('disk', { byStream });
        const data = Buffer.alloc(2 * MIB, 1);
        const request = client.encode(Cmd.WRITE, { data }, 1n);
        client.send(request.subarray(0, request.length - data.length + bytes));
        await aWhile();
        client.destroy();
      }
      await server.idle();
      assert.equal(runs(await read(memory, 0, 2 * MIB)), `${2 * MIB}x00`);
    });
  });

  test(`a client that has gone does not make a prefetch go on, over ${over}`, async () => {
    await held(async ({ server, device, memory }) => {
      device.holding = false;
      const client = await server.open('disk', { byStream });
      await client.writeAt(0, Buffer.alloc(8 * MIB, 1));
      device.holding = true;
      device.log.length = 0;
      const cached = assert.rejects(client.command(Cmd.CACHE, { length: 16 * MIB }));
      await device.whenHeld(1);
      client.destroy();
      await cached;
      await aWhile();
      device.releaseAll();
      await server.idle();
      assert.equal(device.log.length, 1);
      assert.equal(memory.sizeSectors, (16 * MIB) / 512);
    });
  });
}

// --- the server goes

test('a server that shuts down refuses what is new and finishes what is in flight', async () => {
  await held(async ({ server, device, memory }) => {
    const client = await server.open('disk', { form: 'structured' });
    const idle = await server.open('disk');
    const haggling = await server.connect();
    await haggling.greet();
    const write = client.command(Cmd.WRITE, { data: Buffer.alloc(512, 1) });
    await device.whenHeld(1);
    const drained = server.server.drain();
    for (const type of [Cmd.READ, Cmd.FLUSH, Cmd.TRIM, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS]) {
      const { error } = await client.command(type, { length: 4096 });
      assert.equal(error, Err.ESHUTDOWN, `command ${type}`);
    }
    const late = await client.command(Cmd.WRITE, { offset: 512, data: Buffer.alloc(512, 2) });
    assert.equal(late.error, Err.ESHUTDOWN);
    const options = [Opt.LIST, Opt.STRUCTURED_REPLY, Opt.GO, 77];
    for (const option of options) {
      assert.deepEqual(await haggling.optionTypes(option, infoData('disk', [])), [Rep.SHUTDOWN]);
    }
    assert.deepEqual(await haggling.optionTypes(Opt.ABORT), [Rep.ACK]);
    await idle.closed;
    await assert.rejects(server.connect(), 'nobody listens any more');
    device.release();
    assert.equal((await write).error, 0);
    await client.closed;
    for (const one of [client, idle, haggling]) one.destroy();
    await drained;
    assert.equal(runs(await read(memory, 0, 1024)), '512x01 512x00');
  });
});

test('EXPORT_NAME to a server that shuts down can only be hung up on', async () => {
  await held(async ({ server }) => {
    const client = await server.connect();
    await client.greet();
    const drained = server.server.drain();
    client.sendOption(Opt.EXPORT_NAME, Buffer.from('disk'));
    await client.closed;
    assert.equal(client.unread, 0);
    client.destroy();
    await drained;
  });
});

test('a server that closes does not wait for clients that never close', async () => {
  await held(async ({ server, device }) => {
    device.holding = false;
    const rude = await server.open('disk');
    await rude.flush();
    const begin = Date.now();
    await server.server.close();
    assert.ok(Date.now() - begin < 2500);
    assert.equal(server.server.nrSessions, 0);
  });
});

test('closing twice, or with nobody there, is fine', async () => {
  await withServer(new MapExports({}), async (server) => {
    await server.server.close();
    await server.server.close();
  });
});
