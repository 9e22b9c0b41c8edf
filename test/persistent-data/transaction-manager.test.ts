/**
 * Shadow paging: what may be changed in place, who refers to what after a copy, and the order of a
 * commit (spec: persistent-data, 5).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errno } from '../../src/base/errno.ts';
import { BioOp } from '../../src/block/bio.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { asBlockNr, BLOCK_SECTORS, type BlockNr } from '../../src/persistent-data/block.ts';
import { BTree } from '../../src/persistent-data/btree/btree.ts';
import { initNode, LEAF_NODE, nodeValidator } from '../../src/persistent-data/btree/node.ts';
import { plainValueType } from '../../src/persistent-data/btree/value-type.ts';
import { checkTree } from '../../src/persistent-data/check/tree-check.ts';
import { imageOf } from '../helpers/edit-blocks.ts';
import { FaultyDevice } from '../helpers/faulty-device.ts';
import { ProbeDevice, type ProbeLog } from '../helpers/probe-device.ts';
import { checkScratch, Scratch, type ScratchWalk } from '../helpers/scratch.ts';

const walk: ScratchWalk = (run, slots) => {
  for (const root of slots.slice(0, 2).filter((slot) => slot !== 0)) {
    checkTree(run, root, { name: 'tree', valueSize: 8 });
  }
};

/** A store with one empty tree in slot 0, committed. */
async function withLeaf(): Promise<{ scratch: Scratch; leaf: BlockNr }> {
  const scratch = await Scratch.format();
  const leaf = new BTree(scratch.tm, plainValueType(8)).empty();
  scratch.slots[0] = leaf;
  await scratch.commit();
  return { scratch, leaf };
}

test('a committed block is copied when it is changed, and its reference moves', async () => {
  const { scratch, leaf } = await withLeaf();
  const { tm } = scratch;
  const shadow = tm.shadow(leaf, nodeValidator);
  assert.notEqual(shadow.blocknr, leaf);
  assert.equal(tm.shadowWasShared, false);
  assert.equal(tm.count(leaf), 0);
  assert.equal(tm.count(shadow.blocknr), 1);
  scratch.slots[0] = shadow.blocknr;
  await scratch.commit();
  assert.deepEqual(checkScratch(scratch.device, walk), []);
});

test('a block of this transaction is changed in place', async () => {
  const { scratch, leaf } = await withLeaf();
  const { tm } = scratch;
  const first = tm.shadow(leaf, nodeValidator);
  assert.equal(tm.shadow(first.blocknr, nodeValidator).blocknr, first.blocknr);
  const made = tm.newBlock(nodeValidator);
  initNode(made, LEAF_NODE, 8);
  assert.equal(tm.shadow(made.blocknr, nodeValidator).blocknr, made.blocknr);
});

test('a shared block is copied even within its own transaction, and says so', async () => {
  const scratch = await Scratch.format();
  const { tm } = scratch;
  const leaf = new BTree(tm, plainValueType(8)).empty();
  tm.inc(leaf);
  const shadow = tm.shadow(leaf, nodeValidator);
  assert.notEqual(shadow.blocknr, leaf);
  assert.equal(tm.shadowWasShared, true);
  assert.equal(tm.count(leaf), 1);
  assert.equal(tm.count(shadow.blocknr), 1);
  scratch.slots.splice(0, 2, leaf, shadow.blocknr);
  await scratch.commit();
  assert.deepEqual(checkScratch(scratch.device, walk), []);
});

test('after a commit the blocks of its transaction are copied too', async () => {
  const { scratch, leaf } = await withLeaf();
  const first = scratch.tm.shadow(leaf, nodeValidator).blocknr;
  scratch.slots[0] = first;
  await scratch.commit();
  assert.notEqual(scratch.tm.shadow(first, nodeValidator).blocknr, first);
});

test('aborting is forgetting: the device holds the last commit, byte for byte but for free blocks', async () => {
  const { scratch, leaf } = await withLeaf();
  const before = imageOf(scratch.device);
  for (let i = 0; i < 20; i++) {
    scratch.slots[0] = scratch.tm.shadow(scratch.slot(0), nodeValidator).blocknr;
    scratch.tm.newBlock(nodeValidator);
  }
  scratch.abort();
  assert.equal(scratch.slot(0), leaf);
  assert.deepEqual(checkScratch(scratch.device, walk), []);
  assert.ok(imageOf(scratch.device).equals(before));
});

test('a commit writes everything but block 0, flushes, writes block 0, flushes', async () => {
  const log: ProbeLog = [];
  const device = new ProbeDevice('M', new MemoryDevice('scratch', 1024 * BLOCK_SECTORS), log);
  const scratch = await Scratch.format({ device });
  log.length = 0;
  scratch.slots[0] = new BTree(scratch.tm, plainValueType(8)).empty();
  await scratch.commit();
  const kinds = log.map((line) => (line === 'M write 0+8' ? 'superblock' : line.split(' ')[1]));
  const nrWrites = kinds.filter((kind) => kind === 'write').length;
  assert.ok(nrWrites > 0);
  const blocks = new Array<string>(nrWrites).fill('write');
  assert.deepEqual(kinds, [...blocks, 'flush', 'superblock', 'flush']);
});

test('a commit of nothing flushes, writes the superblock and flushes all the same', async () => {
  const log: ProbeLog = [];
  const device = new ProbeDevice('M', new MemoryDevice('scratch', 1024 * BLOCK_SECTORS), log);
  const scratch = await Scratch.format({ device });
  log.length = 0;
  await scratch.commit();
  assert.deepEqual(log, ['M flush', 'M write 0+8', 'M flush']);
});

test('no commit overwrites a block that the commit before it refers to', async () => {
  const faulty = new FaultyDevice(new MemoryDevice('scratch', 256 * BLOCK_SECTORS));
  const scratch = await Scratch.format({ device: faulty });
  scratch.slots[0] = new BTree(scratch.tm, plainValueType(8)).empty();
  await scratch.commit();
  for (let round = 0; round < 300; round++) {
    const live = new Set<number>();
    for (let b = 1; b < 256; b++) if (scratch.tm.count(asBlockNr(b)) > 0) live.add(b);
    faulty.failBio = (bio) => {
      if (bio.op !== BioOp.WRITE) return 0;
      for (let b = bio.sector / BLOCK_SECTORS; b < bio.endSector / BLOCK_SECTORS; b++) {
        assert.ok(!live.has(b), `round ${round} overwrites block ${b}`);
      }
      return 0;
    };
    scratch.slots[0] = scratch.tm.shadow(scratch.slot(0), nodeValidator).blocknr;
    await scratch.commit();
  }
  assert.deepEqual(checkScratch(faulty, walk), []);
});

test('a commit that fails before the superblock leaves the old state on the device', async () => {
  const faulty = new FaultyDevice(new MemoryDevice('scratch', 1024 * BLOCK_SECTORS));
  const scratch = await Scratch.format({ device: faulty });
  const leaf = new BTree(scratch.tm, plainValueType(8)).empty();
  scratch.slots[0] = leaf;
  await scratch.commit();
  for (const op of [BioOp.WRITE, BioOp.FLUSH]) {
    scratch.slots[0] = scratch.tm.shadow(leaf, nodeValidator).blocknr;
    faulty.failBio = (bio) => (bio.op === op ? errno.EIO : 0);
    await assert.rejects(scratch.commit(), /EIO/);
    faulty.heal();
    scratch.abort();
    assert.equal(scratch.slot(0), leaf);
    assert.deepEqual(checkScratch(faulty, walk), []);
  }
});
