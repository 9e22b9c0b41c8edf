/**
 * Thin volumes as exports: what each command does to the mappings (spec: nbd, 5).
 * Blocks are of 64 KiB; the data device is full of 0xaa, so that old data shows where it leaks.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../src/base/error.ts';
import { DeviceExports } from '../../src/daemon/exports.ts';
import type { MemoryDevice } from '../../src/block/memory-device.ts';
import { Cmd, Err, Flag, Opt, type NbdClient } from '../helpers/nbd-client.ts';
import { withServer, type TestServer } from '../helpers/nbd-server.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { fill, read, runs, Stack } from '../helpers/stack.ts';

const K = 1024;
const BLOCK = 64 * K;
const DATA_BLOCKS = 64;
const VOLUME_BLOCKS = 32;
const VOLUME = `0 ${(VOLUME_BLOCKS * BLOCK) / 512} thin /dev/mapper/p`;

interface Setting {
  readonly stack: Stack;
  readonly server: TestServer;
  readonly client: NbdClient;
}

/** A pool with the features, volume t0, and a client of it. */
async function thin(
  body: (setting: Setting) => Promise<void>,
  features = '',
  form: 'simple' | 'structured' = 'structured',
): Promise<void> {
  const stack = new Stack();
  stack.disk('meta', 8192);
  const data = stack.disk('data', (DATA_BLOCKS * BLOCK) / 512);
  await fill(data, 0, DATA_BLOCKS * BLOCK, 0xaa);
  const sectors = (DATA_BLOCKS * BLOCK) / 512;
  await stack.create('p', `0 ${sectors} thin-pool /dev/meta /dev/data 128 0 ${features}`);
  await stack.message('p', 'create_thin 0');
  await stack.create('t0', `${VOLUME} 0`);
  await withServer(new DeviceExports(stack.registry), async (server) => {
    const client = await server.open('t0', { form, contexts: form === 'structured' });
    await body({ stack, server, client });
  });
}

/** How many blocks of t0 are mapped. */
async function mapped(stack: Stack, name = 't0'): Promise<number> {
  return Number((await stack.status(name)).split(' ')[3]) / (BLOCK / 512);
}

async function errorOf(
  client: NbdClient,
  type: number,
  offset: number,
  length: number,
  flags = 0,
): Promise<number> {
  return (await client.command(type, { offset, length, flags })).error;
}

test('a read of an unprovisioned range comes as a hole and provisions nothing', async () => {
  await thin(async ({ stack, client }) => {
    const reply = await client.command(Cmd.READ, { length: VOLUME_BLOCKS * BLOCK });
    assert.deepEqual(reply.chunks, [2]);
    assert.equal(runs(reply.data), `${VOLUME_BLOCKS * BLOCK}x00`);
    assert.equal(runs(await client.readAt(4096, 4096)), '4096x00');
    assert.equal(runs(await client.readAt(5 * BLOCK - 7, 100)), '100x00');
    assert.equal(await mapped(stack), 0);
  });
});

test('block status tells provisioned from unprovisioned, and merges neighbours', async () => {
  await thin(async ({ client }) => {
    const size = VOLUME_BLOCKS * BLOCK;
    assert.equal(await client.map(0, size), `${size}:3`);
    await client.writeAt(3 * BLOCK + 512, Buffer.alloc(512, 1));
    await client.writeAt(4 * BLOCK, Buffer.alloc(3 * BLOCK, 1));
    await client.writeAt(size - 1, Buffer.alloc(1, 1));
    assert.equal(
      await client.map(0, size),
      `${3 * BLOCK}:3 ${4 * BLOCK}:0 ${24 * BLOCK}:3 ${BLOCK}:0`,
    );
    assert.equal(await client.map(4 * BLOCK + 10, BLOCK), `${BLOCK}:0`);
    assert.equal(await client.map(2 * BLOCK, 9 * BLOCK, Flag.REQ_ONE), `${BLOCK}:3`);
    assert.equal(await client.map(3 * BLOCK, 9 * BLOCK, Flag.REQ_ONE), `${4 * BLOCK}:0`);
    assert.equal(await client.map(6 * BLOCK, 20 * BLOCK), `${BLOCK}:0 ${19 * BLOCK}:3`);
  });
});

test('a trim unmaps the whole blocks inside its range and leaves the edges alone', async () => {
  await thin(async ({ stack, client }) => {
    await client.writeAt(0, Buffer.alloc(6 * BLOCK, 1));
    assert.equal(await errorOf(client, Cmd.TRIM, BLOCK - 1000, 3 * BLOCK + 2000), 0);
    assert.equal(await mapped(stack), 3);
    assert.equal(
      runs(await client.readAt(0, 6 * BLOCK)),
      `${BLOCK}x01 ${3 * BLOCK}x00 ${2 * BLOCK}x01`,
    );
    assert.equal(await errorOf(client, Cmd.TRIM, 4 * BLOCK + 1, BLOCK), 0);
    assert.equal(await mapped(stack), 3, 'no whole block is inside');
  });
});

test('write-zeroes unmaps whole blocks and zeroes the edges', async () => {
  await thin(async ({ stack, client }) => {
    await client.writeAt(0, Buffer.alloc(6 * BLOCK, 1));
    const [begin, end] = [BLOCK - 1000, 4 * BLOCK + 1000];
    assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, begin, end - begin), 0);
    assert.equal(await mapped(stack), 3);
    const wanted = `${begin}x01 ${end - begin}x00 ${6 * BLOCK - end}x01`;
    assert.equal(runs(await client.readAt(0, 6 * BLOCK)), wanted);
  });
});

test('write-zeroes of holes provisions nothing, not even for the edges', async () => {
  await thin(async ({ stack, client }) => {
    assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, 777, 9 * BLOCK), 0);
    assert.equal(await mapped(stack), 0);
  });
});

test('write-zeroes with NO_HOLE provisions the whole range with zeroes', async () => {
  await thin(async ({ stack, client }) => {
    await client.writeAt(2 * BLOCK, Buffer.alloc(BLOCK, 1));
    const [begin, end] = [BLOCK - 1, 4 * BLOCK + 1];
    assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, begin, end - begin, Flag.NO_HOLE), 0);
    assert.equal(await mapped(stack), 5);
    assert.equal(runs(await client.readAt(0, 6 * BLOCK)), `${6 * BLOCK}x00`);
  });
});

test('fast zeroes unmap whole blocks, and else do nothing', async () => {
  await thin(async ({ stack, client }) => {
    const fast = (offset: number, length: number, more = 0): Promise<number> =>
      errorOf(client, Cmd.WRITE_ZEROES, offset, length, Flag.FAST_ZERO | more);
    await client.writeAt(0, Buffer.alloc(4 * BLOCK, 1));
    assert.equal(await fast(512, BLOCK), Err.ENOTSUP);
    assert.equal(await fast(0, BLOCK, Flag.NO_HOLE), Err.ENOTSUP);
    assert.equal(await fast(10 * BLOCK, BLOCK, Flag.NO_HOLE), Err.ENOTSUP);
    assert.equal(await mapped(stack), 4);
    assert.equal(runs(await client.readAt(0, 4 * BLOCK)), `${4 * BLOCK}x01`);
    assert.equal(await fast(BLOCK, 2 * BLOCK), 0);
    assert.equal(await mapped(stack), 2);
    assert.equal(await fast(4 * BLOCK + 5, 6), 0, 'a hole already');
    assert.equal(await fast(BLOCK + 5, 2 * BLOCK), Err.ENOTSUP, 'it ends in a mapped block');
    assert.equal(await fast(BLOCK + 5, 10 * BLOCK), 0, 'a mapped block in the middle is unmapped');
    assert.equal(await mapped(stack), 1);
  });
});

test('a snapshot keeps what its origin trims and zeroes', async () => {
  await thin(async ({ stack, server, client }) => {
    await client.writeAt(0, Buffer.alloc(4 * BLOCK, 1));
    await client.flush();
    await stack.suspend('t0');
    await stack.message('p', 'create_snap 1 0');
    await stack.resume('t0');
    await stack.create('snap', `${VOLUME} 1`);
    assert.equal(await errorOf(client, Cmd.TRIM, 0, BLOCK), 0);
    assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, BLOCK + 100, 2 * BLOCK), 0);
    const old = await server.open('snap', { form: 'structured', contexts: true });
    assert.equal(runs(await old.readAt(0, 4 * BLOCK)), `${4 * BLOCK}x01`);
    assert.equal(await old.map(0, 5 * BLOCK), `${4 * BLOCK}:0 ${BLOCK}:3`);
    assert.equal(
      runs(await client.readAt(0, 4 * BLOCK)),
      `${BLOCK}x00 100x01 ${2 * BLOCK}x00 ${BLOCK - 100}x01`,
    );
  });
});

test('zeroes stay zeroes in a pool that does not zero new blocks', async () => {
  // Unmapping reads as zeroes at first, there too; but a write of part of the block provisions it
  // with whatever the data device has: zeroes that a file system had written would be old data.
  await thin(async ({ stack, client }) => {
    await client.writeAt(0, Buffer.alloc(BLOCK, 1));
    for (const offset of [0, 3 * BLOCK]) {
      assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, offset, 2 * BLOCK), 0);
      await client.writeAt(offset + 4096, Buffer.alloc(512, 2));
      const wanted = `4096x00 512x02 ${2 * BLOCK - 4608}x00`;
      assert.equal(runs(await client.readAt(offset, 2 * BLOCK)), wanted);
    }
    assert.equal(await mapped(stack), 4);
    const fast = await errorOf(client, Cmd.WRITE_ZEROES, 0, BLOCK, Flag.FAST_ZERO);
    assert.equal(fast, Err.ENOTSUP);
  }, '1 skip_block_zeroing');
});

test('an external origin shows in block status and is never unmapped to', async () => {
  await thin(async ({ stack, server }) => {
    const base = stack.disk('base', (10 * BLOCK) / 512);
    await fill(base, 0, 4 * BLOCK, 7);
    await stack.message('p', 'create_thin 5');
    await stack.create('over', `${VOLUME} 5 /dev/base`);
    const client = await server.open('over', { form: 'structured', contexts: true });
    assert.equal(await client.map(0, 12 * BLOCK), `${4 * BLOCK}:0 ${8 * BLOCK}:3`);
    await client.writeAt(0, Buffer.alloc(BLOCK, 1));
    assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, 100, 2 * BLOCK), 0);
    assert.equal(
      runs(await client.readAt(0, 4 * BLOCK)),
      `100x01 ${2 * BLOCK}x00 ${2 * BLOCK - 100}x07`,
    );
    const fast = await errorOf(client, Cmd.WRITE_ZEROES, 0, BLOCK, Flag.FAST_ZERO);
    assert.equal(fast, Err.ENOTSUP);
    assert.equal(await errorOf(client, Cmd.TRIM, 0, BLOCK), 0);
    assert.equal(runs(await client.readAt(0, BLOCK)), `${BLOCK}x07`, 'a trim shows the origin');
    assert.equal(runs(await read(base, 0, 10 * BLOCK)), `${4 * BLOCK}x07 ${6 * BLOCK}x00`);
  });
});

test('any mix of writes, zeroes and trims reads back as a plain disk would', async () => {
  const seed = seedOf(3);
  for (const features of ['', '1 skip_block_zeroing']) {
    await thin(async ({ client }) => {
      const random = new Random(seed);
      const size = VOLUME_BLOCKS * BLOCK;
      const model = Buffer.alloc(size);
      // Where new blocks are not zeroed, only what was written or zeroed is known.
      const kinds = features === '' ? 3 : 2;
      assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, 0, size), 0);
      for (let i = 0; i < 150; i++) {
        const offset = random.below(size);
        const length = random.between(1, Math.min(3 * BLOCK, size - offset));
        const kind = random.below(kinds);
        if (kind === 0) {
          // Small, so that blocks are provisioned in part.
          const data = Buffer.alloc(Math.min(length, 3000), random.between(1, 255));
          await client.writeAt(offset, data);
          data.copy(model, offset);
        } else if (kind === 1) {
          const flags = random.pick([0, 0, Flag.NO_HOLE]);
          assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, offset, length, flags), 0);
          model.fill(0, offset, offset + length);
        } else {
          assert.equal(await errorOf(client, Cmd.TRIM, offset, length), 0);
          // What a trimmed range reads as is open until it is written; outside nothing changed.
          const found = await client.readAt(offset, length);
          found.copy(model, offset);
        }
      }
      assert.ok((await client.readAt(0, size)).equals(model), `seed ${seed}`);
    }, features);
  }
});

test('a flush on one connection commits what was answered on another', async () => {
  const stack = new Stack();
  const meta = stack.disk('meta', 8192);
  const data = stack.disk('data', (DATA_BLOCKS * BLOCK) / 512);
  const pool = `0 ${(DATA_BLOCKS * BLOCK) / 512} thin-pool /dev/meta /dev/data 128 0`;
  await stack.create('p', pool);
  await stack.message('p', 'create_thin 0');
  await stack.create('t0', `${VOLUME} 0`);
  await withServer(new DeviceExports(stack.registry), async (server) => {
    const [one, two] = [await server.open('t0'), await server.open('t0')];
    await one.writeAt(0, Buffer.alloc(4096, 1));
    await two.flush();
    await one.writeAt(BLOCK, Buffer.alloc(4096, 2), Flag.FUA);
    await one.writeAt(2 * BLOCK, Buffer.alloc(4096, 3));
  });
  // Whatever was not committed is lost to whoever opens the disks after this process.
  const later = new Stack();
  later.disk('meta', meta);
  later.disk('data', data);
  await later.create('p', pool);
  const volume = await later.create('t0', `${VOLUME} 0`);
  assert.equal(runs(await read(volume, 0, 4096)), '4096x01');
  assert.equal(runs(await read(volume, BLOCK, 4096)), '4096x02');
  assert.equal(runs(await read(volume, 2 * BLOCK, 4096)), '4096x00');
});

// --- states of the pool

test('a full pool that reports it answers ENOSPC, and the connection goes on', async () => {
  await thin(async ({ stack, client }) => {
    await stack.message('p', 'create_thin 1');
    const filler = await stack.create(
      'filler',
      `0 ${(DATA_BLOCKS * BLOCK) / 512} thin /dev/mapper/p 1`,
    );
    await fill(filler, 0, (DATA_BLOCKS - 1) * BLOCK, 1);
    await client.writeAt(0, Buffer.alloc(BLOCK, 1));
    const data = Buffer.alloc(4096, 2);
    const full = await client.command(Cmd.WRITE, { offset: BLOCK, data });
    assert.equal(full.error, Err.ENOSPC);
    await client.writeAt(4096, data);
    assert.equal(runs(await client.readAt(0, 3 * 4096)), '4096x01 4096x02 4096x01');
  }, '1 error_if_no_space');
});

test('writes that wait for space outlive their client and end when there is space', async () => {
  await thin(async ({ stack, server, client }) => {
    await stack.message('p', 'create_thin 1');
    const sectors = (DATA_BLOCKS * BLOCK) / 512;
    const filler = await stack.create('filler', `0 ${sectors} thin /dev/mapper/p 1`);
    await fill(filler, 0, DATA_BLOCKS * BLOCK, 1);
    const waiting = client.command(Cmd.WRITE, { offset: 0, data: Buffer.alloc(BLOCK, 2) });
    const refused = assert.rejects(waiting);
    await new Promise((resolve) => setTimeout(resolve, 50));
    client.destroy();
    await refused;
    const other = await server.open('t0');
    assert.equal(server.server.nrSessions, 2, 'the write in flight keeps its session');
    assert.equal(stack.device('t0').openCount, 2);
    const data = stack.registry.lookup.use('/dev/data', false, '/', null).device as MemoryDevice;
    data.resize(sectors + 128 * 4);
    await stack.reload('p', `0 ${sectors + 128 * 4} thin-pool /dev/meta /dev/data 128 0`);
    await stack.resume('p');
    while (server.server.nrSessions > 1) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(runs(await other.readAt(0, BLOCK)), `${BLOCK}x02`);
    assert.equal(stack.device('t0').openCount, 1);
  });
});

test('a suspended volume lets its clients wait', async () => {
  await thin(async ({ stack, client }) => {
    await client.writeAt(0, Buffer.alloc(4096, 1));
    await stack.suspend('t0');
    let answered = 0;
    const count = (): number => answered++;
    const commands = [
      client.command(Cmd.READ, { length: 4096 }).then(count),
      client.command(Cmd.WRITE, { data: Buffer.alloc(512, 2) }).then(count),
      client.command(Cmd.FLUSH).then(count),
    ];
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal(answered, 0);
    await stack.resume('t0');
    await Promise.all(commands);
    assert.equal(runs(await client.readAt(0, 4096)), '512x02 3584x01');
  });
});

test('a reload changes the size under a connection', async () => {
  await thin(async ({ stack, client }) => {
    const size = VOLUME_BLOCKS * BLOCK;
    const beyond = { offset: size, data: Buffer.alloc(512, 1) };
    assert.equal((await client.command(Cmd.WRITE, beyond)).error, Err.ENOSPC);
    await stack.reload('t0', `0 ${(2 * size) / 512} thin /dev/mapper/p 0`);
    await stack.resume('t0');
    assert.equal((await client.command(Cmd.WRITE, beyond)).error, 0);
  });
});

// --- exports

test('connections count as users of the device, and keep it from being removed', async () => {
  await thin(async ({ stack, server, client }) => {
    const device = stack.device('t0');
    assert.equal(device.openCount, 1);
    const second = await server.open('t0');
    assert.equal(device.openCount, 2);
    await assert.rejects(
      stack.remove('t0'),
      (error) => error instanceof DmError && error.errno === 'EBUSY',
    );
    await second.disconnect();
    while (device.openCount > 1) await new Promise((resolve) => setTimeout(resolve, 1));
    await client.disconnect();
    await server.idle();
    assert.equal(device.openCount, 0);
    await stack.remove('t0');
    const late = await server.connect();
    await late.greet();
    await assert.rejects(late.go('t0'), /no export named 't0'/);
  });
});

test('exports are the devices with a table, and the default is the one on top', async () => {
  await thin(async ({ stack, server }) => {
    stack.registry.create('empty');
    const client = await server.connect();
    await client.greet();
    const names = async (): Promise<string[]> =>
      (await client.option(Opt.LIST))
        .slice(0, -1)
        .map(({ data }) => data.toString('utf8', 4, 4 + data.readUInt32BE(0)));
    assert.deepEqual((await names()).sort(), ['p', 't0']);
    await assert.rejects(client.go('empty'), /no export/);
    await client.go('');
    assert.equal(client.size, BigInt(VOLUME_BLOCKS * BLOCK));
    assert.equal(stack.device('t0').openCount, 2);
    await stack.message('p', 'create_thin 1');
    await stack.create('t1', `${VOLUME} 1`);
    const unsure = await server.connect();
    await unsure.greet();
    await assert.rejects(unsure.go(''), /no default export; name one/);
  });
});

test('a volume tells its block size and what it can', async () => {
  await thin(async ({ stack, client }) => {
    const bits = client.transmissionFlags.toString(2);
    assert.equal(bits, '110111101101', 'trim, zeroes, fast zeroes, DF, multi-conn, cache');
    await stack.remove('t0').catch(() => undefined);
  });
  await thin(async ({ client }) => {
    assert.equal(client.transmissionFlags.toString(2), '10111001101');
  }, '1 ignore_discard');
});
