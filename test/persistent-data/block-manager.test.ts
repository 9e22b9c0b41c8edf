/**
 * The block manager: its bounded cache, kinds of blocks, and what happens when the device fails
 * (spec: persistent-data, 3).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { errno } from '../../src/base/errno.ts';
import { DmError } from '../../src/base/error.ts';
import { MemoryLog } from '../../src/base/log.ts';
import { BioOp } from '../../src/block/bio.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { asBlockNr, BLOCK_SECTORS, BLOCK_SIZE } from '../../src/persistent-data/block.ts';
import { BlockManager } from '../../src/persistent-data/block-manager.ts';
import { nodeValidator } from '../../src/persistent-data/btree/node.ts';
import { bitmapValidator } from '../../src/persistent-data/space-map/layout.ts';
import { FaultyDevice } from '../helpers/faulty-device.ts';
import { ProbeDevice, type ProbeLog } from '../helpers/probe-device.ts';
import { seedOf } from '../helpers/random.ts';

/** The smallest cache there is, in blocks. */
const CACHE_BLOCKS = 16;
const NR_BLOCKS = 200;

interface Rig {
  readonly device: FaultyDevice;
  readonly log: MemoryLog;
  readonly blocks: BlockManager;
}

/** A manager with the smallest cache, over a device whose blocks are all valid bitmaps. */
async function makeRig(): Promise<Rig> {
  const device = new FaultyDevice(new MemoryDevice('disk', NR_BLOCKS * BLOCK_SECTORS));
  const log = new MemoryLog();
  const writer = new BlockManager(device, log);
  for (let b = 0; b < NR_BLOCKS; b++) {
    writer.create(asBlockNr(b), bitmapValidator).view.setUint32(100, b);
  }
  await writer.flush();
  return { device, log, blocks: new BlockManager(device, log, CACHE_BLOCKS * BLOCK_SIZE) };
}

function read(blocks: BlockManager, b: number): number {
  return blocks.read(asBlockNr(b), bitmapValidator).view.getUint32(100);
}

const fails =
  (name: string) =>
  (error: unknown): boolean =>
    error instanceof DmError && error.errno === name;

test('a block is read from the device once while it is cached', async () => {
  const { device, blocks } = await makeRig();
  for (let i = 0; i < 5; i++) assert.equal(read(blocks, 7), 7);
  assert.equal(device.nrReads, 1);
});

test('the cache stays within its bound, whatever is read', async () => {
  const { blocks } = await makeRig();
  for (let b = 0; b < NR_BLOCKS; b++) {
    blocks.newOperation();
    assert.equal(read(blocks, b), b);
    assert.ok(blocks.nrCached <= CACHE_BLOCKS);
  }
  assert.equal(blocks.nrCached, CACHE_BLOCKS);
});

test('the block that was not used for the longest time goes first', async () => {
  const { device, blocks } = await makeRig();
  for (let b = 0; b < CACHE_BLOCKS; b++) read(blocks, b);
  read(blocks, 0);
  blocks.newOperation();
  read(blocks, 100);
  device.nrReads = 0;
  read(blocks, 0);
  assert.equal(device.nrReads, 0);
  read(blocks, 1);
  assert.equal(device.nrReads, 1);
});

test('an operation may use more blocks than the cache has room for', async () => {
  const { device, blocks } = await makeRig();
  const views = Array.from({ length: 50 }, (_, b) => blocks.read(asBlockNr(b), bitmapValidator));
  for (const [b, block] of views.entries()) {
    assert.equal(block.blocknr, b);
    assert.equal(block.view.getUint32(100), b);
  }
  assert.equal(blocks.nrCached, 50);
  device.nrReads = 0;
  for (let b = 0; b < 50; b++) read(blocks, b);
  assert.equal(device.nrReads, 0);
  blocks.newOperation();
  read(blocks, 60);
  assert.equal(blocks.nrCached, CACHE_BLOCKS);
});

test('dirty blocks stay, even if they alone exceed the bound', async () => {
  const { blocks } = await makeRig();
  for (let b = 0; b < 40; b++) {
    blocks.newOperation();
    blocks.write(asBlockNr(b), bitmapValidator).view.setUint32(100, 1000 + b);
  }
  for (let b = 50; b < 90; b++) {
    blocks.newOperation();
    read(blocks, b);
    assert.ok(blocks.nrCached <= 41);
  }
  assert.equal(blocks.nrDirty, 40);
  assert.ok(blocks.wantsCommit);
  for (let b = 0; b < 40; b++) assert.equal(read(blocks, b), 1000 + b);
  await blocks.flush();
  assert.equal(blocks.nrDirty, 0);
  assert.ok(!blocks.wantsCommit);
  read(blocks, 150);
  assert.equal(blocks.nrCached, CACHE_BLOCKS);
});

test('a created block is zero and never read from the device', async () => {
  const { device, blocks } = await makeRig();
  device.failRead = () => errno.EIO;
  const block = blocks.create(asBlockNr(9), nodeValidator);
  assert.ok(block.bytes.every((byte) => byte === 0));
  assert.equal(device.nrReads, 0);
});

test('a block of another kind is refused while it is cached', async () => {
  const { log, blocks } = await makeRig();
  read(blocks, 5);
  assert.throws(() => blocks.read(asBlockNr(5), nodeValidator), fails('EINVAL'));
  assert.deepEqual(log.take(), [
    'block manager: validator mismatch (old=sm_bitmap vs new=btree_node) for block 5',
  ]);
});

test('a block that fails its check is not cached, and is logged each time', async () => {
  const { log, blocks } = await makeRig();
  for (let i = 0; i < 2; i++) {
    assert.throws(() => blocks.read(asBlockNr(5), nodeValidator), fails('EILSEQ'));
    const [first, second, ...rest] = log.take();
    assert.match(first as string, /^btree spine: node_check failed: csum \d+ != wanted \d+$/);
    assert.equal(second, 'block manager: btree_node validator check failed for block 5');
    assert.deepEqual(rest, []);
  }
  assert.equal(blocks.nrCached, 0);
  assert.equal(read(blocks, 5), 5);
});

test('a failed read is EIO without a word of a check, and may succeed later', async () => {
  const { device, log, blocks } = await makeRig();
  device.failRead = () => errno.EIO;
  assert.throws(() => read(blocks, 5), fails('EIO'));
  device.heal();
  assert.equal(read(blocks, 5), 5);
  assert.deepEqual(log.take(), []);
});

test('a block beyond the end of the device is EIO', async () => {
  const { blocks } = await makeRig();
  assert.throws(() => read(blocks, NR_BLOCKS), fails('EIO'));
  assert.throws(() => blocks.create(asBlockNr(NR_BLOCKS), nodeValidator), fails('EIO'));
  assert.equal(blocks.nrCached, 0);
});

test('a read-only manager reads, and refuses the rest with EPERM', async () => {
  const { blocks } = await makeRig();
  blocks.setReadOnly(true);
  assert.equal(read(blocks, 5), 5);
  assert.throws(() => blocks.write(asBlockNr(5), bitmapValidator), fails('EPERM'));
  assert.throws(() => blocks.create(asBlockNr(6), bitmapValidator), fails('EPERM'));
  await assert.rejects(blocks.flush(), fails('EPERM'));
  blocks.setReadOnly(false);
  blocks.write(asBlockNr(5), bitmapValidator);
  await blocks.flush();
});

test('number and checksum are filled in only when a block is written', async () => {
  const { device, blocks } = await makeRig();
  const block = blocks.create(asBlockNr(11), bitmapValidator);
  block.view.setUint32(100, 77);
  assert.equal(block.view.getUint32(8, true), 0);
  await blocks.flush();
  assert.equal(block.view.getUint32(8, true), 11);
  const other = new BlockManager(device, new MemoryLog());
  assert.equal(read(other, 11), 77);
});

test('a flush writes neighbours together, up to 64, and flushes the device after them', async () => {
  const log: ProbeLog = [];
  const device = new ProbeDevice('M', new MemoryDevice('disk', NR_BLOCKS * BLOCK_SECTORS), log);
  const blocks = new BlockManager(device, new MemoryLog());
  for (const b of [9, 3, 4, 5]) blocks.create(asBlockNr(b), bitmapValidator);
  for (let b = 100; b < 170; b++) blocks.create(asBlockNr(b), bitmapValidator);
  await blocks.flush();
  const writes = ['M write 24+24', 'M write 72+8', 'M write 800+512', 'M write 1312+48'];
  assert.deepEqual(log.splice(0), [...writes, 'M flush']);
  await blocks.flush();
  assert.deepEqual(log, ['M flush']);
});

test('after a failed write or flush every block is still dirty, and the next flush writes all', async () => {
  for (const op of [BioOp.WRITE, BioOp.FLUSH]) {
    const { device, blocks } = await makeRig();
    for (const b of [1, 50, 100]) {
      blocks.write(asBlockNr(b), bitmapValidator).view.setUint32(100, 5);
    }
    const isLast = (sector: number): boolean => sector === 100 * BLOCK_SECTORS;
    device.failBio = (bio) =>
      bio.op === op && (op === BioOp.FLUSH || isLast(bio.sector)) ? errno.EIO : 0;
    await assert.rejects(blocks.flush(), fails('EIO'));
    assert.equal(blocks.nrDirty, 3);
    device.heal();
    const written: number[] = [];
    device.failBio = (bio) => {
      if (bio.op === BioOp.WRITE) written.push(bio.sector / BLOCK_SECTORS);
      return 0;
    };
    await blocks.flush();
    assert.deepEqual(written, [1, 50, 100]);
    assert.equal(blocks.nrDirty, 0);
  }
});

test('nothing changes while it is written', async () => {
  const { blocks } = await makeRig();
  blocks.write(asBlockNr(1), bitmapValidator);
  const flushed = blocks.flush();
  for (const b of [1, 2]) {
    assert.throws(() => blocks.write(asBlockNr(b), bitmapValidator), /no block changes/);
  }
  assert.throws(() => blocks.reset(), /nothing is forgotten/);
  await assert.rejects(blocks.flush(), /one flush at a time/);
  await flushed;
});

test('a reset forgets what was changed', async () => {
  const { blocks } = await makeRig();
  blocks.write(asBlockNr(1), bitmapValidator).view.setUint32(100, 5);
  blocks.reset();
  assert.equal(blocks.nrDirty, 0);
  assert.equal(blocks.nrCached, 0);
  assert.equal(read(blocks, 1), 1);
});

test('the probe for a zero block neither checks nor caches', async () => {
  const device = new MemoryDevice('disk', 80);
  const blocks = new BlockManager(device, new MemoryLog());
  assert.ok(blocks.isZero(asBlockNr(0)));
  blocks.create(asBlockNr(0), bitmapValidator);
  await blocks.flush();
  assert.ok(!blocks.isZero(asBlockNr(0)));
});

// --- against a model

type Op =
  | { op: 'read' | 'write' | 'create'; block: number }
  | { op: 'newOperation' | 'flush' | 'failFlush' | 'reset' };

const block = fc.oneof(fc.nat(NR_BLOCKS - 1), fc.nat(30));
const opArbitrary: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({ op: fc.constantFrom('read', 'read', 'write', 'create'), block }),
  },
  { weight: 10, arbitrary: fc.constant<Op>({ op: 'newOperation' }) },
  { weight: 1, arbitrary: fc.constantFrom<Op>({ op: 'flush' }, { op: 'failFlush' }) },
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'reset' }) },
);

test('random reads and writes agree with a model, and the cache keeps to its bound', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(opArbitrary, { maxLength: 600, size: 'max' }), async (list) => {
      const { device, blocks } = await makeRig();
      const onDisk = Array.from({ length: NR_BLOCKS }, (_, b) => b);
      let inMemory = [...onDisk];
      const dirty = new Set<number>();
      const inUse = new Set<number>();
      let next = 1000;
      let nrReads = 0;
      for (const op of list) {
        switch (op.op) {
          case 'read':
            inUse.add(op.block);
            assert.equal(read(blocks, op.block), inMemory[op.block]);
            break;
          case 'write':
          case 'create': {
            inUse.add(op.block);
            dirty.add(op.block);
            inMemory[op.block] = next;
            blocks[op.op](asBlockNr(op.block), bitmapValidator).view.setUint32(100, next++);
            break;
          }
          case 'newOperation':
            inUse.clear();
            blocks.newOperation();
            break;
          case 'flush':
            await blocks.flush();
            inUse.clear();
            for (const b of dirty) onDisk[b] = inMemory[b] as number;
            dirty.clear();
            break;
          case 'failFlush':
            device.failBio = (bio) => (bio.op === BioOp.FLUSH ? errno.EIO : 0);
            await assert.rejects(blocks.flush());
            device.heal();
            for (const b of dirty) onDisk[b] = inMemory[b] as number;
            break;
          case 'reset':
            blocks.reset();
            dirty.clear();
            inUse.clear();
            inMemory = [...onDisk];
            break;
        }
        assert.equal(blocks.nrDirty, dirty.size);
        // The bound is seen to whenever a block enters.
        if (device.nrReads === nrReads) continue;
        nrReads = device.nrReads;
        const needed = new Set([...dirty, ...inUse]).size;
        assert.ok(blocks.nrCached <= Math.max(CACHE_BLOCKS, needed));
      }
    }),
    { seed: seedOf(1), numRuns: 60, includeErrorInReport: true },
  );
});
