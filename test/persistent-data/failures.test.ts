/**
 * Operations in which something fails: every allocation in turn (ENOSPC), every block read in turn
 * (EIO), every write and flush of a commit in turn (EIO). The operation must throw a DmError with
 * that name, an abort must bring the last commit back, whole, and the operation must then succeed
 * with the same result as if nothing had happened.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { inspect } from 'node:util';
import { errno } from '../../src/base/errno.ts';
import { DmError } from '../../src/base/error.ts';
import { getLe64, setLe64 } from '../../src/base/struct.ts';
import { BioOp } from '../../src/block/bio.ts';
import type { MemoryDevice } from '../../src/block/memory-device.ts';
import { DmArray } from '../../src/persistent-data/array.ts';
import { walkArray } from '../../src/persistent-data/array-cursor.ts';
import { Bitset } from '../../src/persistent-data/bitset.ts';
import { BLOCK_SECTORS, type BlockNr } from '../../src/persistent-data/block.ts';
import { BTree, makeEntry } from '../../src/persistent-data/btree/btree.ts';
import { walk } from '../../src/persistent-data/btree/cursor.ts';
import { deleteTree } from '../../src/persistent-data/btree/delete.ts';
import { insert, makeValue } from '../../src/persistent-data/btree/insert.ts';
import { insertNested } from '../../src/persistent-data/btree/nested.ts';
import { remove, removeLeaves } from '../../src/persistent-data/btree/remove.ts';
import { blockNrAt, plainValueType } from '../../src/persistent-data/btree/value-type.ts';
import { checkArray, checkBitset } from '../../src/persistent-data/check/array-check.ts';
import { checkTree } from '../../src/persistent-data/check/tree-check.ts';
import type { SpaceMap } from '../../src/persistent-data/space-map/space-map.ts';
import { copyDevice } from '../helpers/edit-blocks.ts';
import { FaultyDevice } from '../helpers/faulty-device.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { checkNestedTrees, nestedTrees } from '../helpers/nested-trees.ts';
import { checkScratch, Scratch, type ScratchWalk } from '../helpers/scratch.ts';

/** What the slots hold. */
const TREE = 0;
const SNAPSHOT = 1;
const NESTED = 2;
const ARRAY = 3;
const BITS = 4;
/** Lengths of array and bitset are numbers that change with them. */
const ARRAY_SIZE = 5;
const NR_BITS = 6;

const NR_BLOCKS = 4000;
const CACHE_BYTES = 1; // The smallest there is.

const setSlot = (scratch: Scratch, slot: number, n: number): void => {
  scratch.slots[slot] = n as BlockNr;
};
const treeOf = ({ tm }: Scratch): BTree => new BTree(tm, plainValueType(8));
const arrayOf = ({ tm }: Scratch): DmArray => new DmArray(tm, plainValueType(8));

/** A number as an 8-byte value. */
function valueOf(n: number): ReturnType<typeof makeValue> {
  const value = makeValue(8);
  setLe64(value.view, 0, n);
  return value;
}

function insertRange(scratch: Scratch, slot: number, begin: number, end: number, by = 1): void {
  const tree = treeOf(scratch);
  for (let key = begin; key < end; key += by) {
    scratch.slots[slot] = insert(tree, scratch.slot(slot), key, valueOf(key * 3)).root;
  }
}

function writeNested(scratch: Scratch, id: number, begin: number, end: number): void {
  const { top, bottom } = nestedTrees(scratch);
  for (let key = begin; key < end; key++) {
    const value = valueOf(scratch.dataSm.newBlock());
    const { root } = insertNested([top, bottom], scratch.slot(NESTED), [id, key], value);
    scratch.slots[NESTED] = root;
  }
}

function snapshotNested(scratch: Scratch, id: number, of: number): void {
  const { top } = nestedTrees(scratch);
  const entry = makeEntry();
  assert.ok(top.lookup(scratch.slot(NESTED), of, entry));
  const root = blockNrAt(entry.view, entry.offset);
  scratch.tm.inc(root);
  scratch.slots[NESTED] = insert(top, scratch.slot(NESTED), id, valueOf(root)).root;
}

/** Everything there is, shared in every way there is, committed. */
async function makeBase(): Promise<MemoryDevice> {
  const scratch = await Scratch.format({ nrBlocks: NR_BLOCKS, nrDataBlocks: 20_000 });
  scratch.slots[TREE] = treeOf(scratch).empty();
  insertRange(scratch, TREE, 0, 3000, 2);
  scratch.tm.inc(scratch.slot(TREE));
  scratch.slots[SNAPSHOT] = scratch.slot(TREE);
  insertRange(scratch, TREE, 601, 611, 2);
  scratch.slots[NESTED] = nestedTrees(scratch).top.empty();
  writeNested(scratch, 0, 0, 600);
  for (let id = 1; id < 5; id++) {
    snapshotNested(scratch, id, id - 1);
    writeNested(scratch, id, 590, 605);
  }
  setSlot(scratch, ARRAY_SIZE, 1200);
  scratch.slots[ARRAY] = arrayOf(scratch).create(1200, (i, view, at) => setLe64(view, at, i));
  setSlot(scratch, NR_BITS, 70_000);
  scratch.slots[BITS] = Bitset.create(scratch.tm, 70_000, (bit) => bit % 3 === 0).root;
  await scratch.commit();
  assert.deepEqual(checkScratch(scratch.device, walkAll), []);
  return scratch.device as MemoryDevice;
}

const walkAll: ScratchWalk = (run, slots, data) => {
  const at = (slot: number): number => slots[slot] as number;
  for (const slot of [TREE, SNAPSHOT]) {
    if (at(slot) !== 0) checkTree(run, at(slot), { name: 'tree', valueSize: 8 });
  }
  checkNestedTrees(run, at(NESTED), data);
  checkArray(run, at(ARRAY), { name: 'array', valueSize: 8, nrValues: at(ARRAY_SIZE) });
  checkBitset(run, at(BITS), { name: 'bits', nrBits: at(NR_BITS) });
};

/** All that the structures hold, as text. */
function contentsOf(scratch: Scratch): string {
  const parts: string[] = [];
  const tree = treeOf(scratch);
  for (const slot of [TREE, SNAPSHOT]) {
    if (scratch.slot(slot) === 0) continue;
    walk(
      tree,
      scratch.slot(slot),
      (key, view, at) => void parts.push(`${key}:${getLe64(view, at)}`),
    );
  }
  const { top, bottom } = nestedTrees(scratch);
  const roots: [number, BlockNr][] = [];
  walk(top, scratch.slot(NESTED), (id, view, at) => void roots.push([id, blockNrAt(view, at)]));
  for (const [id, root] of roots) {
    walk(bottom, root, (key, view, at) => void parts.push(`${id}/${key}:${getLe64(view, at)}`));
  }
  const array = arrayOf(scratch);
  walkArray(array, scratch.slot(ARRAY), (_, view, at) => void parts.push(`${getLe64(view, at)}`));
  const bits = Bitset.open(scratch.tm, scratch.slot(BITS)).cursor(scratch.slot(NR_BITS));
  for (; !bits.atEnd; bits.next()) parts.push(bits.value ? '1' : '0');
  return parts.join(' ');
}

const operations: Record<string, (scratch: Scratch) => void | Promise<void>> = {
  'inserting into full nodes': (scratch) => insertRange(scratch, TREE, 1, 3000, 14),
  'inserting beside shared nodes': (scratch) => insertRange(scratch, SNAPSHOT, 601, 3000, 198),
  appending: (scratch) => insertRange(scratch, TREE, 3000, 5000),
  'removing a key': (scratch) => {
    for (let key = 2; key < 3000; key += 124) {
      scratch.slots[TREE] = remove(treeOf(scratch), scratch.slot(TREE), key);
    }
  },
  'removing a range': (scratch) => {
    const tree = treeOf(scratch);
    for (const begin of [602, 1500]) {
      scratch.slots[SNAPSHOT] = removeLeaves(tree, scratch.slot(SNAPSHOT), begin, begin + 150).root;
    }
  },
  'deleting a tree that shares nodes': (scratch) => {
    deleteTree(treeOf(scratch), scratch.slot(SNAPSHOT));
    setSlot(scratch, SNAPSHOT, 0);
  },
  'writing to a snapshot': (scratch) => writeNested(scratch, 2, 100, 110),
  'writing to a new device': (scratch) => writeNested(scratch, 77, 0, 3),
  'taking a snapshot of a snapshot': (scratch) => {
    snapshotNested(scratch, 9, 3);
    writeNested(scratch, 9, 597, 603);
  },
  'deleting a snapshot': (scratch) => {
    const { top } = nestedTrees(scratch);
    scratch.slots[NESTED] = remove(top, scratch.slot(NESTED), 3);
  },
  'setting values of an array': (scratch) => {
    for (const index of [0, 600, 1199]) {
      scratch.slots[ARRAY] = arrayOf(scratch).set(scratch.slot(ARRAY), index, valueOf(index + 7));
    }
  },
  'growing an array': (scratch) => {
    scratch.slots[ARRAY] = arrayOf(scratch).resize(scratch.slot(ARRAY), 1200, 2500, valueOf(5));
    setSlot(scratch, ARRAY_SIZE, 2500);
  },
  'shrinking an array': (scratch) => {
    scratch.slots[ARRAY] = arrayOf(scratch).resize(scratch.slot(ARRAY), 1200, 300, valueOf(5));
    setSlot(scratch, ARRAY_SIZE, 300);
  },
  'changing bits': (scratch) => {
    const bits = Bitset.open(scratch.tm, scratch.slot(BITS));
    for (const bit of [1, 2, 40_000, 69_999]) bits.setBit(bit);
    bits.flush();
    scratch.slots[BITS] = bits.root;
  },
  'making a bitset anew': (scratch) => {
    Bitset.open(scratch.tm, scratch.slot(BITS)).delete();
    scratch.slots[BITS] = Bitset.create(scratch.tm, 50_000, (bit) => bit % 2 === 0).root;
    setSlot(scratch, NR_BITS, 50_000);
  },
  'growing the metadata map': (scratch) => {
    const extra = scratch.blocks.nrBlocks - scratch.metadataSm.nrBlocks;
    scratch.metadataSm.extend(extra);
  },
  'growing the data map': (scratch) => scratch.dataSm.extend(40_000),
  committing: async (scratch) => {
    insertRange(scratch, TREE, 1, 3);
    writeNested(scratch, 1, 0, 2);
    await scratch.commit();
  },
};

let base: MemoryDevice;
before(async () => {
  base = await makeBase();
});

interface Trial {
  readonly scratch: Scratch;
  readonly faulty: FaultyDevice;
}

function openTrial(device: MemoryDevice): Trial {
  const faulty = new FaultyDevice(device);
  return { faulty, scratch: Scratch.open(faulty, CACHE_BYTES) };
}

/** A space map in which allocation number `n`, counted from 0, finds nothing. */
function failAllocation({ tm, metadataSm: below }: Scratch, n: number): { nrDone: number } {
  const progress = { nrDone: 0 };
  const map: SpaceMap<BlockNr> = {
    get nrBlocks() {
      return below.nrBlocks;
    },
    get nrFree() {
      return below.nrFree;
    },
    count: (block) => below.count(block),
    countIsMoreThanOne: (block) => below.countIsMoreThanOne(block),
    inc: (begin, end) => below.inc(begin, end),
    dec: (begin, end) => below.dec(begin, end),
    newBlock() {
      if (progress.nrDone === n) throw new DmError('ENOSPC', 'injected');
      progress.nrDone++;
      return below.newBlock();
    },
    commit: () => below.commit(),
    extend: (extra) => below.extend(extra),
  };
  tm.attach(map);
  return progress;
}

/** Runs `operation` to the end on a copy of the base: the contents that it should leave. */
async function expectedContents(name: string, device: MemoryDevice): Promise<string> {
  const { scratch } = openTrial(copyDevice(device));
  await operations[name]?.(scratch);
  await scratch.commit();
  assert.deepEqual(checkScratch(scratch.device, walkAll), []);
  return contentsOf(scratch);
}

/** A device for `name`: larger than its space map where that is to grow. */
function deviceFor(name: string): MemoryDevice {
  const device = copyDevice(base);
  if (name === 'growing the metadata map') device.resize(40_000 * BLOCK_SECTORS);
  return device;
}

/**
 * Runs `name` with fault number 0, 1, 2, … until it succeeds. `arm` injects a fault and says
 * afterwards whether it was met.
 */
async function failEach(
  name: string,
  errnoName: string,
  arm: (trial: Trial, n: number) => () => boolean,
): Promise<void> {
  const device = deviceFor(name);
  const expected = await expectedContents(name, device);
  const old = contentsOf(openTrial(device).scratch);
  for (let n = 0; ; n++) {
    assert.ok(n < 2000, 'the operation comes to an end');
    const trial = openTrial(device);
    const wasMet = arm(trial, n);
    let failed: unknown = null;
    try {
      await operations[name]?.(trial.scratch);
    } catch (error) {
      failed = error;
    }
    trial.faulty.heal();
    trial.scratch.tm.attach(trial.scratch.metadataSm);
    if (failed === null) {
      assert.ok(!wasMet(), `fault ${n} was swallowed`);
      assert.ok(n > 0 || errnoName === 'EIO', 'the operation can fail');
      await trial.scratch.commit();
      assert.deepEqual(checkScratch(device, walkAll), []);
      assert.equal(contentsOf(trial.scratch), expected);
      return;
    }
    assert.ok(failed instanceof DmError, inspect(failed));
    assert.equal(failed.errno, errnoName, failed.message);
    trial.scratch.abort();
    assert.deepEqual(checkScratch(device, walkAll), [], `after fault ${n}`);
    if (n % 8 === 0) assert.equal(contentsOf(trial.scratch), old);
  }
}

for (const name of Object.keys(operations)) {
  test(`${name}: each allocation fails in turn`, async () => {
    await failEach(name, 'ENOSPC', ({ scratch }, n) => {
      const progress = failAllocation(scratch, n);
      return () => progress.nrDone > n;
    });
  });

  test(`${name}: each read fails in turn`, async () => {
    await failEach(name, 'EIO', ({ faulty }, n) => {
      faulty.nrReads = 0;
      faulty.failRead = (_, nrReads) => (nrReads === n ? errno.EIO : 0);
      return () => faulty.nrReads > n;
    });
  });
}

test('committing: each write fails in turn', async () => {
  await failEachBio((op) => op === BioOp.WRITE);
});

test('committing: each flush fails in turn', async () => {
  await failEachBio((op) => op === BioOp.FLUSH);
});

/** After a failed superblock write or flush, the old or the new state is there, whole. */
async function failEachBio(isCounted: (op: BioOp) => boolean): Promise<void> {
  const old = contentsOf(openTrial(base).scratch);
  const expected = await expectedContents('committing', base);
  for (let n = 0; ; n++) {
    const trial = openTrial(copyDevice(base));
    let nrSeen = 0;
    trial.faulty.failBio = (bio) => (isCounted(bio.op) && nrSeen++ === n ? errno.EIO : 0);
    let failed: unknown = null;
    try {
      await operations['committing']?.(trial.scratch);
    } catch (error) {
      failed = error;
    }
    trial.faulty.heal();
    if (failed === null) {
      assert.ok(n >= 2 && nrSeen <= n);
      return;
    }
    assert.ok(failed instanceof DmError && failed.errno === 'EIO', inspect(failed));
    trial.scratch.abort();
    assert.deepEqual(checkScratch(trial.faulty, walkAll), [], `after failure ${n}`);
    const contents = contentsOf(trial.scratch);
    assert.ok(contents === old || contents === expected);
    await operations['committing']?.(trial.scratch);
    assert.deepEqual(checkScratch(trial.faulty, walkAll), []);
  }
}

test('a device that runs full again and again keeps its last commit', async () => {
  const random = new Random(seedOf(1));
  const scratch = await Scratch.format({ nrBlocks: 60 });
  scratch.slots[TREE] = new BTree(scratch.tm, plainValueType(300)).empty();
  await scratch.commit();
  const keys = new Set<number>();
  let pending = new Set<number>();
  let nrFull = 0;
  const walkTree: ScratchWalk = (run, [root = 0]) => {
    checkTree(run, root, { name: 'tree', valueSize: 300 });
  };
  for (let round = 0; round < 300; round++) {
    const tree = new BTree(scratch.tm, plainValueType(300));
    scratch.blocks.newOperation();
    try {
      for (let i = 0; i < 30; i++) {
        const key = random.below(2000);
        scratch.slots[TREE] = insert(tree, scratch.slot(TREE), key, makeValue(300)).root;
        pending.add(key);
      }
      await scratch.commit();
      for (const key of pending) keys.add(key);
    } catch (error) {
      assert.ok(error instanceof DmError && error.errno === 'ENOSPC', String(error));
      nrFull++;
      scratch.abort();
    }
    pending = new Set();
    assert.deepEqual(checkScratch(scratch.device, walkTree), []);
    const found: number[] = [];
    walk(new BTree(scratch.tm, plainValueType(300)), scratch.slot(TREE), (key) => {
      found.push(key);
    });
    assert.deepEqual(
      found,
      [...keys].sort((a, b) => a - b),
    );
  }
  assert.ok(nrFull > 10);
});
