/**
 * Reads and writes of parts of logical blocks: read, change, write, without losing what others
 * write beside them (spec: nbd, 6).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { WriteRanges } from '../../src/nbd/write-ranges.ts';
import { Cmd, Flag, type Reply } from '../helpers/nbd-client.ts';
import { HeldDevice } from '../helpers/held-device.ts';
import { withDevice } from '../helpers/nbd-server.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { read, runs } from '../helpers/stack.ts';

const blockSizes = [512, 4096] as const;

function disk(logicalBlockSize: number, bytes = 1 << 20): MemoryDevice {
  return new MemoryDevice('disk', bytes / 512, {
    limits: { logicalBlockSize, discardGranularity: logicalBlockSize },
  });
}

for (const block of blockSizes) {
  test(`only whole blocks of ${block} bytes ever reach the device`, async () => {
    const seed = seedOf(6);
    const random = new Random(seed);
    const device = new HeldDevice(disk(block));
    device.holding = false;
    const size = 1 << 20;
    await withDevice(device, async (server) => {
      const client = await server.open('disk', { form: 'structured' });
      const model = Buffer.alloc(size);
      for (let i = 0; i < 300; i++) {
        const offset = random.below(size);
        const length = random.between(1, Math.min(3 * block, size - offset));
        const flags = random.pick([0, Flag.FUA]);
        const command = { offset, length, flags };
        switch (random.below(4)) {
          case 0:
            assert.equal((await client.command(Cmd.WRITE_ZEROES, command)).error, 0);
            model.fill(0, offset, offset + length);
            break;
          case 1:
            assert.equal((await client.command(Cmd.TRIM, command)).error, 0);
            (await client.readAt(0, size)).copy(model);
            break;
          default: {
            const data = Buffer.alloc(length, random.between(1, 255));
            await client.writeAt(offset, data, flags);
            data.copy(model, offset);
          }
        }
        const at = random.below(size - 2 * block);
        assert.ok(
          (await client.readAt(at, 2 * block)).equals(model.subarray(at, at + 2 * block)),
          `seed ${seed}, step ${i}`,
        );
      }
      assert.ok((await client.readAt(0, size)).equals(model), `seed ${seed}`);
    });
    for (const line of device.log) {
      const [sector = 0, count = 0] = (line.split(' ')[1] ?? '').split('+').map(Number);
      assert.ok((sector * 512) % block === 0, line);
      assert.ok((count * 512) % block === 0, line);
    }
  });

  test(`a long write with odd ends reads only its first and last ${block} bytes`, async () => {
    const device = new HeldDevice(disk(block));
    device.holding = false;
    await withDevice(device, async (server) => {
      const client = await server.open('disk');
      await client.writeAt(100, Buffer.alloc(100_000, 1));
      const perBlock = block / 512;
      const count = Math.ceil(100_100 / block) * perBlock;
      assert.deepEqual(device.log, [
        `READ 0+${perBlock}`,
        `READ ${count - perBlock}+${perBlock}`,
        `WRITE 0+${count}`,
      ]);
      assert.equal(runs(await client.readAt(0, 100_200)), '100x00 100000x01 100x00');
    });
  });

  test(`writes of parts of one ${block}-byte block, from everywhere, all survive`, async () => {
    const seed = seedOf(7);
    const device = new HeldDevice(disk(block));
    const stop = device.releaseByChance(new Random(seed));
    const nrClients = 4;
    // Each client owns every fourth byte of three blocks; a fifth one rewrites all of a fourth.
    const size = 3 * block;
    await withDevice(device, async (server) => {
      const wanted = Buffer.alloc(size);
      const jobs = Array.from({ length: nrClients }, async (_, nr) => {
        const client = await server.open('disk');
        const random = new Random(seed + nr);
        const replies: Promise<Reply>[] = [];
        const mine = Array.from({ length: size / nrClients }, (_, i) => i * nrClients + nr);
        for (let i = 0; i < 150; i++) {
          // Never the same byte twice: writes in flight have no order.
          const [offset = 0] = mine.splice(random.below(mine.length), 1);
          const value = random.between(1, 255);
          wanted[offset] = value;
          const data = Buffer.from([value]);
          replies.push(client.command(Cmd.WRITE, { offset, data }));
        }
        assert.ok((await Promise.all(replies)).every(({ error }) => error === 0));
      });
      await Promise.all(jobs);
      const client = await server.open('disk');
      assert.ok((await client.readAt(0, size)).equals(wanted), `seed ${seed}`);
    });
    stop();
  });
}

test('whole-sector writes and zeroes beside a partial write keep what they wrote', async () => {
  const seed = seedOf(8);
  const random = new Random(seed);
  const device = new HeldDevice(disk(512));
  const stop = device.releaseByChance(random);
  await withDevice(device, async (server) => {
    const [odd, even, zero] = [
      await server.open('disk'),
      await server.open('disk'),
      await server.open('disk'),
    ];
    for (let round = 0; round < 60; round++) {
      // Byte 511 of the sector is everyone's; what the others write around it must be there.
      await even.writeAt(0, Buffer.alloc(2048, 0xaa));
      await Promise.all([
        odd.command(Cmd.WRITE, { offset: 511, data: Buffer.alloc(2, 1) }),
        odd.command(Cmd.WRITE, { offset: 1535, data: Buffer.alloc(2, 2) }),
        even.command(Cmd.WRITE, { offset: 0, data: Buffer.alloc(512, 3) }),
        zero.command(Cmd.WRITE_ZEROES, { offset: 512, length: 1024 }),
      ]);
      const found = await even.readAt(0, 2048);
      assert.equal(runs(found.subarray(0, 511)), '511x03', `seed ${seed}, round ${round}`);
      assert.equal(runs(found.subarray(513, 1535)), '1022x00', `seed ${seed}, round ${round}`);
      assert.equal(found[1536], 2);
      assert.equal(runs(found.subarray(1537)), '511xaa');
    }
  });
  stop();
});

test('a partial write waits for the write before it, others overtake it', async () => {
  const device = new HeldDevice(disk(512));
  await withDevice(device, async (server) => {
    const [one, two] = [await server.open('disk'), await server.open('disk')];
    const first = one.command(Cmd.WRITE, { offset: 0, data: Buffer.alloc(1024, 1) });
    await device.whenHeld(1);
    const second = two.command(Cmd.WRITE, { offset: 700, data: Buffer.alloc(10, 2) });
    const third = two.command(Cmd.WRITE, { offset: 4096, data: Buffer.alloc(512, 3) });
    await device.whenHeld(2);
    assert.deepEqual(device.log, ['WRITE 0+2', 'WRITE 8+1'], 'the partial write has not begun');
    device.releaseAll();
    await Promise.all([first, second, third]);
    assert.deepEqual(device.log.slice(2), ['READ 1+1', 'WRITE 1+1']);
    assert.equal(runs(await read(device, 0, 1024)), '700x01 10x02 314x01');
  });
});

test('a partial write that fails lets the next one go on', async () => {
  const device = new HeldDevice(disk(512));
  await withDevice(device, async (server) => {
    const client = await server.open('disk');
    const writes = [1, 2, 3].map((byte) =>
      client.command(Cmd.WRITE, { offset: byte, data: Buffer.from([byte]) }),
    );
    await device.whenHeld(1);
    device.fail(5);
    await device.whenHeld(1);
    device.release();
    await device.whenHeld(1);
    device.fail(5);
    await device.whenHeld(1);
    device.releaseAll();
    assert.deepEqual(
      (await Promise.all(writes)).map(({ error }) => error),
      [5, 5, 0],
    );
  });
});

test('a read at the end of a device that is no multiple of its block size works', async () => {
  const device = new MemoryDevice('disk', 9, { limits: { logicalBlockSize: 4096 } });
  await withDevice(device, async (server) => {
    const client = await server.open('disk', { form: 'structured', contexts: true });
    await client.writeAt(4096 + 100, Buffer.alloc(412, 5));
    assert.equal(runs(await client.readAt(4096, 512)), '100x00 412x05');
    assert.equal(await client.map(4600, 8), '8:0');
  });
});

// --- the ranges by themselves

interface Range {
  readonly beginSector: number;
  readonly endSector: number;
  readonly partial: boolean;
  previous: null;
  next: null;
  start: () => void;
}

test('no partial range ever runs beside one that it overlaps, and none starves', () => {
  const seed = seedOf(9);
  const random = new Random(seed);
  const ranges = new WriteRanges();
  const running = new Set<Range>();
  let nrStarted = 0;
  const enter = (range: Range): void => {
    for (const other of running) {
      const overlap = range.beginSector < other.endSector && other.beginSector < range.endSector;
      assert.ok(!overlap || (!range.partial && !other.partial), `seed ${seed}`);
    }
    nrStarted++;
    running.add(range);
  };
  const total = 5000;
  for (let i = 0; i < total;) {
    if (random.chance(0.5)) {
      i++;
      const beginSector = random.below(40);
      const range: Range = {
        beginSector,
        endSector: beginSector + random.between(1, 8),
        partial: random.chance(0.4),
        previous: null,
        next: null,
        start: () => enter(range),
      };
      if (ranges.begin(range)) enter(range);
    } else if (running.size > 0) {
      const range = random.pick([...running]);
      running.delete(range);
      ranges.end(range);
    }
  }
  while (running.size > 0) {
    const [range] = running;
    running.delete(range as Range);
    ranges.end(range as Range);
  }
  assert.equal(nrStarted, total, `seed ${seed}`);
});
