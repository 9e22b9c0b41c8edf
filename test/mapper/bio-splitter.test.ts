/**
 * How a bio goes through a table: where it is cut, how many copies of it there are, what becomes of
 * its status.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { errno } from '../../src/base/errno.ts';
import { Bio, BioFlag, BioOp, STATUS_REQUEUE } from '../../src/block/bio.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import type { MappedDevice } from '../../src/mapper/mapped-device.ts';
import { MapResult } from '../../src/mapper/target.ts';
import { submit } from '../helpers/block-device-suite.ts';
import { HeldDevice } from '../helpers/held-device.ts';
import { ProbeDevice, type ProbeLog } from '../helpers/probe-device.ts';
import { ProbeType } from '../helpers/probe-target.ts';
import { seedOf } from '../helpers/random.ts';
import { fill, read, runs, SECTOR, Stack } from '../helpers/stack.ts';

interface Probed {
  readonly stack: Stack;
  readonly probe: ProbeType;
  readonly device: MappedDevice;
}

async function probed(table: string, readOnly = false): Promise<Probed> {
  const stack = new Stack();
  const probe = new ProbeType();
  stack.registry.register(probe);
  const device = await stack.create('t', table, { readOnly });
  probe.take();
  return { stack, probe, device };
}

/** Submits a bio with data where it needs some; resolves to its status. */
function io(device: MappedDevice, op: BioOp, sector: number, n: number, flags = 0) {
  return submit(device, op, sector, n, { data: Buffer.alloc(n * SECTOR), flags });
}

const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES } = BioOp;

// --- where bios are cut

test('reads and writes are cut at target boundaries, in order', async () => {
  const { probe, device } = await probed('0 7 probe a\n7 9 probe b\n16 100 probe c');
  assert.equal(await io(device, READ, 0, 32), 0);
  assert.deepEqual(probe.take(), ['a map read 0+7', 'b map read 7+9', 'c map read 16+16']);
  assert.equal(await io(device, WRITE, 6, 4), 0);
  assert.deepEqual(probe.take(), ['a map write 6+1', 'b map write 7+3']);
  assert.equal(await io(device, READ, 7, 9), 0);
  assert.equal(await io(device, WRITE, 115, 1), 0);
  assert.deepEqual(probe.take(), ['b map read 7+9', 'c map write 115+1']);
});

test('and at multiples of a largest length, counted from the start of the target', async () => {
  const { probe, device } = await probed('0 5 probe a\n5 20 probe b max=8\n25 7 probe c max=3');
  assert.equal(await io(device, WRITE, 0, 32), 0);
  assert.deepEqual(probe.take(), [
    'a map write 0+5',
    'b map write 5+8',
    'b map write 13+8',
    'b map write 21+4',
    'c map write 25+3',
    'c map write 28+3',
    'c map write 31+1',
  ]);
  assert.equal(await io(device, READ, 12, 2), 0);
  assert.equal(await io(device, READ, 13, 8), 0);
  assert.deepEqual(probe.take(), ['b map read 12+1', 'b map read 13+1', 'b map read 13+8']);
});

test('each piece reads into, and writes from, its own part of the buffer', async () => {
  const stack = new Stack();
  for (const name of ['x', 'y']) stack.disk(name, 1024);
  const device = await stack.create('t', '0 3 linear /dev/x 10\n3 5 linear /dev/y 20');
  const data = Buffer.alloc(100 + 8 * SECTOR);
  for (let i = 0; i < 8; i++) data.fill(i + 1, 100 + i * SECTOR, 100 + (i + 1) * SECTOR);
  assert.equal(await submit(device, WRITE, 0, 8, { data, dataOffset: 100 }), 0);
  const { device: y } = stack.registry.lookup.use('/dev/y', true, '/', null);
  const wanted = '512x00 512x04 512x05 512x06 512x07 512x08 512x00';
  assert.equal(runs(await read(y, 19 * SECTOR, 7 * SECTOR)), wanted);
  const found = Buffer.alloc(data.length, 0xee);
  assert.equal(await submit(device, READ, 2, 3, { data: found, dataOffset: 1 }), 0);
  assert.equal(runs(found), '1x' + 'ee 512x03 512x04 512x05 2659xee');
});

test('a bio beyond the end fails with EIO and reaches no target', async () => {
  const { probe, device } = await probed('0 10 probe a\n10 10 probe b');
  for (const op of [READ, WRITE, DISCARD, WRITE_ZEROES]) {
    for (const [sector, n] of [
      [19, 2],
      [20, 1],
      [0, 21],
      [1000, 8],
    ] as const) {
      assert.equal(await io(device, op, sector, n), errno.EIO);
    }
  }
  assert.deepEqual(probe.take(), []);
});

test('a bio of no sectors succeeds and reaches no target', async () => {
  const { probe, device } = await probed('0 10 probe a');
  for (const op of [READ, WRITE, DISCARD, WRITE_ZEROES]) {
    assert.equal(await io(device, op, 3, 0), 0);
  }
  assert.deepEqual(probe.take(), []);
});

test('a read-only table refuses what changes the device with EPERM, and reads and flushes', async () => {
  const { probe, device } = await probed('0 10 probe a', true);
  for (const op of [WRITE, DISCARD, WRITE_ZEROES]) {
    assert.equal(await io(device, op, 0, 1), errno.EPERM);
  }
  assert.equal(await io(device, WRITE, 0, 1, BioFlag.FUA), errno.EPERM);
  assert.deepEqual(probe.take(), []);
  assert.equal(await io(device, READ, 0, 1), 0);
  assert.equal(await io(device, FLUSH, 0, 0), 0);
  assert.deepEqual(probe.take(), ['a map read 0+1', 'a map flush']);
});

// --- copies

test('a flush goes to every target, in as many copies as it asks for, not to those that ask for none', async () => {
  const { probe, device } = await probed(
    '0 1 probe a\n1 1 probe b flushes=3\n2 1 probe c flushes=0\n3 1 zero\n4 1 error\n5 1 probe d',
  );
  assert.equal(await io(device, FLUSH, 0, 0), 0);
  assert.deepEqual(probe.take(), [
    'a map flush',
    'b map flush',
    'b map flush #1',
    'b map flush #2',
    'd map flush',
  ]);
});

test('a flush that no target wants succeeds', async () => {
  const { device } = await probed('0 8 zero\n8 8 error');
  assert.equal(await io(device, FLUSH, 0, 0), 0);
});

test('discards and zeroes are cut at targets, not at their largest length, and copied', async () => {
  const { probe, device } = await probed(
    '0 10 probe a max=2\n10 10 probe b discards=2 zeroes=3\n20 10 probe c',
  );
  assert.equal(await io(device, DISCARD, 5, 20), 0);
  assert.deepEqual(probe.take(), [
    'a map discard 5+5',
    'b map discard 10+10',
    'b map discard 10+10 #1',
    'c map discard 20+5',
  ]);
  assert.equal(await io(device, WRITE_ZEROES, 19, 1), 0);
  assert.deepEqual(probe.take(), [
    'b map zeroes 19+1',
    'b map zeroes 19+1 #1',
    'b map zeroes 19+1 #2',
  ]);
});

test('and at the largest discard of the devices below', async () => {
  const stack = new Stack();
  const log: ProbeLog = [];
  const limits = { maxDiscardSectors: 8, maxWriteZeroesSectors: 5 };
  stack.disk('x', new ProbeDevice('x', new MemoryDevice('x', 1024, { limits }), log));
  const device = await stack.create('t', '0 100 linear /dev/x 100');
  assert.equal(await io(device, DISCARD, 3, 20), 0);
  assert.equal(await io(device, WRITE_ZEROES, 90, 10), 0);
  assert.deepEqual(log, [
    'x discard 103+8',
    'x discard 111+8',
    'x discard 119+4',
    'x zero 190+5',
    'x zero 195+5',
  ]);
});

test('if one target cannot discard, or zero, the device cannot', async () => {
  for (const table of [
    '0 10 probe a\n10 10 zero',
    '0 10 probe a\n10 10 error',
    '0 10 probe a\n10 10 probe b discards=0 zeroes=0',
  ]) {
    const { probe, device } = await probed(table);
    assert.equal(await io(device, DISCARD, 0, 5), errno.EOPNOTSUPP);
    assert.equal(await io(device, WRITE_ZEROES, 0, 5), errno.EOPNOTSUPP);
    assert.deepEqual(probe.take(), []);
  }
});

test('FUA stays on the pieces; a flush with data is an empty flush first, then the data', async () => {
  const stack = new Stack();
  const log: ProbeLog = [];
  const disk = new ProbeDevice('x', new MemoryDevice('x', 1024), log);
  stack.disk('x', disk);
  const device = await stack.create('t', '0 4 linear /dev/x 0\n4 4 linear /dev/x 100');
  assert.equal(await io(device, WRITE, 2, 4, BioFlag.FUA), 0);
  assert.deepEqual(log.splice(0), ['x write 2+2 FUA', 'x write 100+2 FUA']);
  disk.hold((bio) => bio.op === FLUSH);
  const both = io(device, WRITE, 0, 8, BioFlag.PREFLUSH | BioFlag.FUA);
  assert.deepEqual(log.splice(0), ['x flush', 'x flush']);
  disk.release();
  assert.equal(await both, 0);
  assert.deepEqual(log.splice(0), ['x write 0+4 FUA', 'x write 100+4 FUA']);
  disk.fail((bio) => (bio.op === FLUSH ? errno.ENOSPC : 0));
  assert.equal(await io(device, WRITE, 0, 8, BioFlag.PREFLUSH), errno.ENOSPC);
  assert.deepEqual(log.splice(0), ['x flush', 'x flush'], 'without its flush no data is written');
});

// --- status

test('a bio ends when all its pieces have, with the first error among them', async () => {
  const stack = new Stack();
  const held = new HeldDevice(new MemoryDevice('x', 1024));
  stack.disk('x', held);
  const device = await stack.create('t', '0 4 linear /dev/x 0\n4 4 linear /dev/x 4\n8 4 zero');
  let ended = false;
  const status = io(device, WRITE, 2, 8).finally(() => (ended = true));
  assert.equal(held.held.length, 2);
  held.held.pop()?.end(errno.ENOSPC);
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(ended, false);
  held.fail(errno.EIO);
  assert.equal(await status, errno.ENOSPC);
});

test('pieces that fail do not stop the others', async () => {
  const { probe, device } = await probed('0 4 probe a\n4 4 error\n8 4 probe b');
  assert.equal(await io(device, WRITE, 0, 12), errno.EIO);
  assert.deepEqual(probe.take(), ['a map write 0+4', 'b map write 8+4']);
  const { device: three } = await probed('0 4 zero\n4 4 error\n8 4 zero');
  const data = Buffer.alloc(12 * SECTOR, 0xee);
  assert.equal(await submit(three, READ, 0, 12, { data }), errno.EIO);
  assert.equal(runs(data), '2048x00 2048xee 2048x00');
});

test('a target sees how its bios end, and has the last word', async () => {
  const { probe, device } = await probed('0 4 probe a\n4 4 probe b');
  const seen: string[] = [];
  probe.onMap = (bio, tag) => {
    bio.end(tag === 'a' ? errno.ENOSPC : 0);
    return MapResult.SUBMITTED;
  };
  probe.onEndIo = (bio, tag) => {
    seen.push(`${tag} ${bio.status}`);
    return tag === 'a' ? 0 : errno.ETIMEDOUT;
  };
  assert.equal(await io(device, READ, 0, 8), errno.ETIMEDOUT);
  assert.deepEqual(seen, [`a ${errno.ENOSPC}`, 'b 0']);
  assert.equal(await io(device, READ, 0, 4), 0);
});

test('a bio that is killed ends with EIO, one that is handed back outside a suspend too', async () => {
  const { probe, device } = await probed('0 8 probe a');
  for (const result of [MapResult.KILL, MapResult.REQUEUE]) {
    probe.onMap = () => result;
    assert.equal(await io(device, READ, 0, 8), errno.EIO);
  }
  probe.onMap = (bio) => {
    setImmediate(() => bio.end(STATUS_REQUEUE));
    return MapResult.SUBMITTED;
  };
  assert.equal(await io(device, READ, 0, 8), errno.EIO);
});

test('per-bio data stays with a clone, and a clone is not used for two bios at once', async () => {
  const { probe, device } = await probed('0 64 probe a max=1');
  const held: Bio[] = [];
  probe.onMap = (bio) => {
    held.push(bio);
    return MapResult.SUBMITTED;
  };
  for (let round = 0; round < 3; round++) {
    const status = io(device, READ, 0, 64);
    assert.equal(new Set(held).size, 64);
    for (const bio of held.splice(0)) bio.end(0);
    assert.equal(await status, 0);
  }
});

/*
 * A target that threw kept its bio for ever: the client that had sent it waited, and so did every
 * suspend and remove of the device, and with them the end of the daemon.
 */
test('a bug in a map fails the bio, is logged, and does not hold up a suspend', async () => {
  const { stack, probe, device } = await probed('0 8 probe a\n8 8 probe b');
  probe.onMap = (bio, tag) => {
    if (tag === 'a') throw new TypeError('of our own making');
    bio.end(0);
    return MapResult.SUBMITTED;
  };
  stack.log.take();
  assert.equal(await io(device, WRITE, 4, 8), errno.EIO);
  assert.deepEqual(probe.take(), ['a map write 4+4', 'b map write 8+4']);
  const [line = ''] = stack.log.take();
  assert.match(line, /^core: 254:0: bug: TypeError: of our own making\n/);
  await stack.suspend('t');
  probe.onMap = null;
  await stack.resume('t');
  assert.equal(await io(device, WRITE, 4, 8), 0);
});

test('so does a bug in a device below, or a target that ends its bio after it threw', async () => {
  const { stack, probe, device } = await probed('0 8 probe a');
  probe.onMap = (bio) => {
    bio.device = new MemoryDevice('x', 8);
    bio.device.submit = () => {
      throw new Error('no bio is submitted to a closed file');
    };
    return MapResult.REMAPPED;
  };
  assert.equal(await io(device, READ, 0, 8), errno.EIO);
  let late: Bio | null = null;
  probe.onMap = (bio) => {
    late = bio;
    throw new Error('too early');
  };
  assert.equal(await io(device, READ, 0, 8), errno.EIO);
  (late as Bio | null)?.end(0);
  probe.onMap = null;
  assert.equal(await io(device, READ, 0, 8), 0);
  await stack.suspend('t');
});

test('what throws in the end of a bio is not taken for a bug of the target', async () => {
  const { stack, device } = await probed('0 8 probe a');
  const bio = new Bio();
  bio.nrSectors = 8;
  let nrEnds = 0;
  bio.onEnd = () => {
    nrEnds++;
    throw new Error('the submitter is confused');
  };
  stack.log.take();
  assert.throws(() => device.submit(bio), { message: 'the submitter is confused' });
  assert.equal(nrEnds, 1);
  assert.deepEqual(stack.log.take(), []);
  await stack.suspend('t');
});

// --- as a whole

test('any bio through any table: the pieces are the bio, each within its target and limit', async () => {
  const targets = fc.array(
    fc.record({ length: fc.integer({ min: 1, max: 40 }), max: fc.integer({ min: 0, max: 12 }) }),
    { minLength: 1, maxLength: 12 },
  );
  await fc.assert(
    fc.asyncProperty(targets, fc.nat(), fc.nat(), async (row, from, count) => {
      let begin = 0;
      const places = row.map(({ length, max }, i) => {
        begin += length;
        return { begin: begin - length, length, max, line: `probe ${i} max=${max}` };
      });
      const table = places.map((one) => `${one.begin} ${one.length} ${one.line}`).join('\n');
      const { probe, device } = await probed(table);
      const sector = from % begin;
      const n = 1 + (count % (begin - sector));
      assert.equal(await io(device, READ, sector, n), 0);
      let at = sector;
      for (const line of probe.take()) {
        const [, tag, piece, size] = (/^(\d+) map read (\d+)\+(\d+)$/.exec(line) ?? []).map(Number);
        assert.ok(tag !== undefined && piece !== undefined && size !== undefined, line);
        const target = places[tag];
        assert.ok(target !== undefined);
        assert.equal(piece, at);
        at += size;
        assert.ok(size > 0 && piece >= target.begin && at <= target.begin + target.length);
        if (target.max === 0) continue;
        const block = (where: number): number => Math.floor((where - target.begin) / target.max);
        assert.equal(block(piece), block(at - 1), `${line} crosses a multiple of ${target.max}`);
      }
      assert.equal(at, sector + n);
    }),
    { seed: seedOf(1), numRuns: 150, includeErrorInReport: true },
  );
});

test('what is written through pieces is read through pieces', async () => {
  const stack = new Stack();
  stack.disk('x', 4096);
  const device = await stack.create(
    't',
    '0 7 linear /dev/x 0\n7 9 linear /dev/x 2048\n16 100 zero',
  );
  await fill(device, 3072, 2048, 0x33);
  assert.equal(runs(await read(device, 0, 16384)), '3072x00 2048x33 11264x00');
});
