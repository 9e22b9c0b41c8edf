/** linear, zero and error: what they do with each operation. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errno } from '../../../src/base/errno.ts';
import { BioFlag, BioOp } from '../../../src/block/bio.ts';
import { ExtentFlag, type BlockDevice } from '../../../src/block/device.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { submit } from '../../helpers/block-device-suite.ts';
import { ProbeDevice, type ProbeLog } from '../../helpers/probe-device.ts';
import { discard, fill, read, runs, SECTOR, Stack } from '../../helpers/stack.ts';

/** The status of each operation on sectors 2 to 5, which are filled with 0xee for a read. */
async function statuses(device: BlockDevice): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const [name, op] of Object.entries(BioOp)) {
    const [sector, n] = op === BioOp.FLUSH ? [0, 0] : [2, 4];
    found[name] = await submit(device, op, sector, n, { data: Buffer.alloc(4 * SECTOR) });
  }
  return found;
}

function extents(device: BlockDevice, sector: number, n: number): string {
  const found: string[] = [];
  device.blockStatus(sector, n, (count, flags) => found.push(`${count}:${flags}`) > 0);
  return found.join(' ');
}

const HOLE = ExtentFlag.HOLE | ExtentFlag.ZERO;

test('zero: reads give zeroes, writes and flushes succeed and vanish, the rest is not there', async () => {
  const device = await new Stack().create('t', '0 8 error\n8 8 zero');
  const data = Buffer.alloc(3 * SECTOR, 0xee);
  assert.equal(await submit(device, BioOp.READ, 9, 2, { data, dataOffset: 100 }), 0);
  assert.equal(runs(data), '100xee 1024x00 412xee');
  const { EOPNOTSUPP } = errno;
  assert.deepEqual(await statuses(await new Stack().create('t', '0 8 zero')), {
    READ: 0,
    WRITE: 0,
    FLUSH: 0,
    DISCARD: EOPNOTSUPP,
    WRITE_ZEROES: EOPNOTSUPP,
  });
  await fill(device, 8 * SECTOR, 8 * SECTOR, 0x11, true);
  assert.equal(runs(await read(device, 8 * SECTOR, 8 * SECTOR)), '4096x00');
  assert.equal(device.readSync(10, 2, data, 0), 0);
  assert.equal(runs(data.subarray(0, 1124)), '1124x00');
  assert.equal(extents(device, 9, 5), `5:${HOLE}`);
});

test('error: reads and writes fail, flushes succeed, the rest is not there', async () => {
  const device = await new Stack().create('t', '0 8 error any words');
  const { EIO, EOPNOTSUPP } = errno;
  assert.deepEqual(await statuses(device), {
    READ: EIO,
    WRITE: EIO,
    FLUSH: 0,
    DISCARD: EOPNOTSUPP,
    WRITE_ZEROES: EOPNOTSUPP,
  });
  const data = Buffer.alloc(SECTOR, 0xee);
  assert.equal(device.readSync(0, 1, data, 0), EIO);
  assert.equal(runs(data), '512xee');
  assert.equal(extents(device, 0, 8), '8:0');
});

test('linear: every operation goes through, shifted, with its flags', async () => {
  const stack = new Stack();
  const log: ProbeLog = [];
  stack.disk('x', new ProbeDevice('x', new MemoryDevice('x', 1024), log));
  const device = await stack.create('t', '0 4 zero\n4 100 linear /dev/x 50');
  await fill(device, 10 * SECTOR, 3 * SECTOR, 0x11, true);
  await stack.create('u', '0 100 linear /dev/x 50');
  const upper = stack.device('u');
  assert.deepEqual(Object.values(await statuses(upper)), [0, 0, 0, 0, 0]);
  const flags = BioFlag.NOUNMAP;
  assert.equal(await submit(upper, BioOp.WRITE_ZEROES, 99, 1, { flags }), 0);
  assert.deepEqual(log, [
    'x write 56+3 FUA',
    'x write 52+4',
    'x flush',
    'x discard 52+4',
    'x zero 52+4',
    'x zero 149+1',
  ]);
  const data = Buffer.alloc(2 * SECTOR);
  assert.equal(device.readSync(12, 1, data, 0), 0);
  assert.equal(runs(data), '512x11 512x00');
  await discard(upper, 0, 512);
});

test('linear: block status is that of its device, and stops with its visitor', async () => {
  const stack = new Stack();
  const below = new MemoryDevice('x', 4096);
  stack.disk('x', below);
  const device = await stack.create('t', '0 300 linear /dev/x 100\n300 10 zero');
  await fill(below, 128 * SECTOR, 512, 1);
  assert.equal(extents(device, 0, 310), `28:${HOLE} 128:0 128:${HOLE} 16:${HOLE} 10:${HOLE}`);
  let nrVisits = 0;
  device.blockStatus(0, 310, () => ++nrVisits < 2);
  assert.equal(nrVisits, 2);
});
