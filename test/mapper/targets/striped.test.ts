/**
 * striped: where chunks lie, against arithmetic of the plainest kind; flushes, discards and errors
 * of stripes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { errno } from '../../../src/base/errno.ts';
import { BioOp } from '../../../src/block/bio.ts';
import { ExtentFlag } from '../../../src/block/device.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { submit } from '../../helpers/block-device-suite.ts';
import { FaultyDevice } from '../../helpers/faulty-device.ts';
import { ProbeDevice, type ProbeLog } from '../../helpers/probe-device.ts';
import { seedOf } from '../../helpers/random.ts';
import { discard, fill, flush, read, runs, SECTOR, Stack, write } from '../../helpers/stack.ts';

interface Shape {
  /** Chunk size in sectors, chunks a stripe, sectors before the target and before each stripe. */
  readonly chunk: number;
  readonly rows: number;
  readonly begin: number;
  readonly offsets: readonly number[];
}

const shapes: fc.Arbitrary<Shape> = fc.record({
  chunk: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constantFrom(8, 16, 19)),
  rows: fc.integer({ min: 1, max: 6 }),
  begin: fc.nat(20),
  offsets: fc.array(fc.nat(30), { minLength: 1, maxLength: 5 }),
});

/** Lays out the chunks one after the other, as a person would; `[stripe, sector]` by sector. */
function layOut({ chunk, rows, offsets }: Shape): [stripe: number, sector: number][] {
  const places: [number, number][] = [];
  for (let row = 0; row < rows; row++) {
    for (const [stripe, offset] of offsets.entries()) {
      for (let i = 0; i < chunk; i++) places.push([stripe, offset + row * chunk + i]);
    }
  }
  return places;
}

async function build(shape: Shape) {
  const stack = new Stack();
  const { chunk, rows, begin, offsets } = shape;
  const log: ProbeLog = [];
  const disks = offsets.map((_, i) => new MemoryDevice(`s${i}`, 200));
  for (const [i, disk] of disks.entries()) {
    stack.disk(disk.name, new ProbeDevice(String(i), disk, log));
  }
  const stripes = offsets.map((offset, i) => `/dev/s${i} ${offset}`).join(' ');
  const length = chunk * rows * offsets.length;
  const first = begin > 0 ? `0 ${begin} linear /dev/s0 170\n` : '';
  const line = `${begin} ${length} striped ${offsets.length} ${chunk} ${stripes}`;
  const device = await stack.create('t', first + line);
  return { stack, device, disks, log, length, places: layOut(shape) };
}

test('each sector lies where its chunk is laid, for any number and size of chunks', async () => {
  await fc.assert(
    fc.asyncProperty(shapes, fc.nat(), fc.nat(), async (shape, from, count) => {
      const { device, disks, length, places } = await build(shape);
      const sector = from % length;
      const n = 1 + (count % (length - sector));
      const data = Buffer.alloc(n * SECTOR);
      for (let i = 0; i < n; i++) data.writeUInt32LE(sector + i + 1, i * SECTOR);
      await write(device, (shape.begin + sector) * SECTOR, data);
      assert.ok((await read(device, (shape.begin + sector) * SECTOR, n * SECTOR)).equals(data));
      const wanted = disks.map(() => new Map<number, number>());
      for (let i = sector; i < sector + n; i++) {
        const [stripe, at] = places[i] as [number, number];
        wanted[stripe]?.set(at, i + 1);
      }
      for (const [i, disk] of disks.entries()) {
        const found = await read(disk, 0, 200 * SECTOR);
        for (let at = 0; at < 200; at++) {
          assert.equal(found.readUInt32LE(at * SECTOR), wanted[i]?.get(at) ?? 0, `${i}: ${at}`);
        }
      }
      const again = Buffer.alloc(data.length);
      assert.equal(device.readSync(shape.begin + sector, n, again, 0), 0);
      assert.ok(again.equals(data), 'a synchronous read finds the same');
    }),
    { seed: seedOf(1), numRuns: 120, includeErrorInReport: true },
  );
});

test('a discard is one request a stripe, of just the sectors that lie there', async () => {
  const op = fc.constantFrom(BioOp.DISCARD, BioOp.WRITE_ZEROES);
  await fc.assert(
    fc.asyncProperty(shapes, fc.nat(), fc.nat(), op, async (shape, from, count, op) => {
      const { device, disks, log, length, places } = await build(shape);
      for (const disk of disks) await fill(disk, 0, 200 * SECTOR, 0xff);
      log.length = 0;
      const sector = from % length;
      const n = 1 + (count % (length - sector));
      assert.equal(await submit(device, op, shape.begin + sector, n), 0);
      const touched = new Set(places.slice(sector, sector + n).map(([stripe]) => stripe));
      assert.equal(log.length, touched.size, 'stripes without a part of the range are left alone');
      for (const [i, disk] of disks.entries()) {
        const found = await read(disk, 0, 200 * SECTOR);
        const gone = new Set(
          places.slice(sector, sector + n).flatMap(([stripe, at]) => (stripe === i ? [at] : [])),
        );
        for (let at = 0; at < 200; at++) {
          assert.equal(found[at * SECTOR], gone.has(at) ? 0 : 0xff, `stripe ${i}, sector ${at}`);
        }
      }
    }),
    { seed: seedOf(1), numRuns: 120, includeErrorInReport: true },
  );
});

test('reads and writes are cut at chunks, not at multiples of sectors of the device', async () => {
  const { device, log } = await build({ chunk: 5, rows: 2, begin: 3, offsets: [0, 100, 7] });
  log.length = 0;
  await fill(device, 6 * SECTOR, 14 * SECTOR, 1);
  assert.deepEqual(log, ['0 write 3+2', '1 write 100+5', '2 write 7+5', '0 write 5+2']);
});

test('a flush goes to every stripe once', async () => {
  const { device, log } = await build({ chunk: 4, rows: 1, begin: 0, offsets: [0, 0, 0] });
  await flush(device);
  assert.deepEqual(log, ['0 flush', '1 flush', '2 flush']);
});

test('block status is that of the stripes, chunk by chunk', async () => {
  const { device } = await build({ chunk: 4, rows: 2, begin: 4, offsets: [0, 0] });
  await fill(device, 6 * SECTOR, SECTOR, 1); // On stripe 0, whose memory comes in large chunks.
  const extents: string[] = [];
  device.blockStatus(5, 14, (n, flags) => extents.push(`${n}:${flags}`) > 0);
  const hole = ExtentFlag.HOLE | ExtentFlag.ZERO;
  assert.deepEqual(extents, ['3:0', `4:${hole}`, '4:0', `3:${hole}`]);
});

/** A device striped over two faulty ones. */
async function faulty(second = '/dev/y 0') {
  const stack = new Stack();
  const disks = ['x', 'y'].map((name) => {
    const disk = new FaultyDevice(new MemoryDevice(name, 1024));
    stack.disk(name, disk);
    return disk;
  });
  const device = await stack.create('s', `0 16 striped 2 8 /dev/x 0 ${second}`);
  return { stack, disks, device };
}

/*
 * Both numbers were observed in the kernel: twenty failed reads raise 14 events, and an error of a
 * device that has several stripes raises one. They were 15, and one for each stripe.
 */
test('an error of a stripe shows in the status, and the first 14 raise an event each', async () => {
  const { stack, disks, device } = await faulty();
  assert.equal(await stack.status('s'), '0 16 striped 2 98:0 98:16 1 AA');
  assert.ok(disks[1]);
  disks[1].failBio = () => errno.EIO;
  for (let i = 1; i <= 20; i++) {
    assert.equal(await submit(device, BioOp.READ, 8, 1, { data: Buffer.alloc(512) }), errno.EIO);
    assert.equal(device.events.nr, Math.min(i, 14));
  }
  assert.equal(await stack.status('s'), '0 16 striped 2 98:0 98:16 1 AD');
  await fill(device, 0, 512, 1);
  assert.equal(await stack.status('s'), '0 16 striped 2 98:0 98:16 1 AD', 'and stays');
});

test('an error of a device with several stripes counts for all of them, and is one event', async () => {
  const { stack, disks, device } = await faulty('/dev/x 100');
  assert.ok(disks[0]);
  disks[0].failBio = () => errno.EIO;
  for (let i = 1; i <= 3; i++) {
    assert.equal(await submit(device, BioOp.READ, 0, 1, { data: Buffer.alloc(512) }), errno.EIO);
    assert.equal(device.events.nr, i);
  }
  assert.equal(await stack.status('s'), '0 16 striped 2 98:0 98:0 1 DD');
});

test('an operation that a stripe does not support is no error of it', async () => {
  const { stack, disks, device } = await faulty();
  for (const disk of disks) {
    disk.failBio = (bio) => (bio.op === BioOp.DISCARD ? errno.EOPNOTSUPP : 0);
  }
  await assert.rejects(discard(device, 0, 16 * SECTOR), { errno: 'EOPNOTSUPP' });
  assert.equal(await stack.status('s'), '0 16 striped 2 98:0 98:16 1 AA');
  assert.equal(device.events.nr, 0);
});

test('a synchronous read that fails on one stripe says so', async () => {
  const { disks, device } = await faulty();
  assert.ok(disks[1]);
  disks[1].failRead = () => errno.EILSEQ;
  const data = Buffer.alloc(16 * SECTOR);
  assert.equal(device.readSync(0, 8, data, 0), 0);
  assert.equal(device.readSync(0, 16, data, 0), errno.EILSEQ);
});

test('the table is printed as it was given, the devices by number', async () => {
  const { stack } = await faulty('/dev/y 100');
  assert.equal(await stack.table('s'), '0 16 striped 2 8 98:0 0 98:16 100');
  await stack.create('one', '0 8 striped 1 4 /dev/mapper/s 0');
  assert.equal(await stack.table('one'), '0 8 striped 1 4 254:0 0');
  assert.equal(await stack.status('one'), '0 8 striped 1 254:0 1 A');
  assert.equal(runs(await read(stack.device('one'), 0, 4096)), '4096x00');
});
