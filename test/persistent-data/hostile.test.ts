/**
 * Metadata whose bytes someone chose: blocks with right checksums and wrong contents. Whatever they
 * say, operations end with a result or a DmError, nothing loops or runs past a block, and the check
 * reports and never throws.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../src/base/error.ts';
import { setLe64 } from '../../src/base/struct.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { DmArray } from '../../src/persistent-data/array.ts';
import { walkArray } from '../../src/persistent-data/array-cursor.ts';
import { asBlockNr, BLOCK_SECTORS } from '../../src/persistent-data/block.ts';
import { BTree, makeEntry } from '../../src/persistent-data/btree/btree.ts';
import { walk } from '../../src/persistent-data/btree/cursor.ts';
import { deleteTree } from '../../src/persistent-data/btree/delete.ts';
import { insert, makeValue } from '../../src/persistent-data/btree/insert.ts';
import { remove, removeLeaves } from '../../src/persistent-data/btree/remove.ts';
import { plainValueType } from '../../src/persistent-data/btree/value-type.ts';
import { checkArray } from '../../src/persistent-data/check/array-check.ts';
import { checkTree } from '../../src/persistent-data/check/tree-check.ts';
import { hasSalt, SALT } from '../../src/persistent-data/validator.ts';
import { copyDevice, editBlock, readBytes } from '../helpers/edit-blocks.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { findDamage, Scratch, type ScratchWalk } from '../helpers/scratch.ts';

const NR_BLOCKS = 256;

/** A tree of many leaves, an array, overflow counts. */
async function makeBase(): Promise<MemoryDevice> {
  const device = new MemoryDevice('scratch', NR_BLOCKS * BLOCK_SECTORS);
  const scratch = await Scratch.format({ device });
  const tree = new BTree(scratch.tm, plainValueType(8));
  scratch.slots[0] = tree.empty();
  for (let key = 0; key < 3000; key++) {
    scratch.slots[0] = insert(tree, scratch.slot(0), key, makeValue(8)).root;
  }
  const fill = (i: number, view: DataView, at: number): void => setLe64(view, at, i);
  scratch.slots[1] = new DmArray(scratch.tm, plainValueType(8)).create(1200, fill as never);
  for (let i = 0; i < 5; i++) scratch.dataSm.inc(0, 300);
  await scratch.commit();
  return device;
}

/** The salt of each block that is of some kind. */
function saltsOf(device: MemoryDevice): Map<number, number> {
  const salts = new Map<number, number>();
  for (let b = 0; b < NR_BLOCKS; b++) {
    const bytes = readBytes(device, b);
    const block = { body: bytes.subarray(4), view: new DataView(bytes.buffer) };
    const salt = Object.values(SALT).find((candidate) => hasSalt(block, candidate));
    if (salt !== undefined) salts.set(b, salt);
  }
  return salts;
}

const u32s = [0, 1, 2, 3, 7, 8, 83, 84, 251, 252, 253, 336, 508, 1018, 2 ** 31, 2 ** 32 - 1];

/** Changes a field or two of a block to something that hurts. */
function vandalize(random: Random, view: DataView): void {
  for (let i = random.between(1, 3); i > 0; i--) {
    const roll = random.next();
    if (roll < 0.5) {
      const field = 4 * random.pick([1, 2, 3, 4, 5, 6, 7]);
      view.setUint32(field, random.pick(u32s), true);
    } else if (roll < 0.8) {
      // A pointer or key to somewhere else: most often into the device.
      const at = 8 * random.between(2, 511);
      view.setUint32(at, random.chance(0.8) ? random.below(NR_BLOCKS + 4) : 2 ** 32 - 1, true);
      if (random.chance(0.2)) view.setUint32(at + 4, random.below(2 ** 32), true);
    } else {
      const at = 4 * random.between(2, 1023);
      view.setUint32(at, random.below(2 ** 32), true);
    }
  }
}

const walkAll: ScratchWalk = (run, [tree = 0, array = 0]) => {
  checkTree(run, tree, { name: 'tree', valueSize: 8 });
  checkArray(run, array, { name: 'array', valueSize: 8, nrValues: 1200 });
};

/** Operations on whatever the store holds; each is tried, whether or not those before it worked. */
const operations: ((scratch: Scratch, random: Random) => unknown)[] = [
  ({ tm, slots }, random) => {
    const tree = new BTree(tm, plainValueType(8));
    for (let i = 0; i < 20; i++) {
      tree.lookup(asBlockNr(slots[0] as number), random.below(3000), makeEntry());
      tree.lookupNext(asBlockNr(slots[0] as number), random.below(3000), makeEntry());
    }
    tree.lowestKey(asBlockNr(slots[0] as number));
    tree.highestKey(asBlockNr(slots[0] as number));
  },
  ({ tm, slots }) => {
    let n = 0;
    const tree = new BTree(tm, plainValueType(8));
    walk(tree, asBlockNr(slots[0] as number), () => n++ < 100_000);
  },
  ({ tm, slots }) => {
    let n = 0;
    const array = new DmArray(tm, plainValueType(8));
    walkArray(array, asBlockNr(slots[1] as number), () => n++ < 100_000);
  },
  (scratch, random) => {
    const tree = new BTree(scratch.tm, plainValueType(8));
    for (let i = 0; i < 20; i++) {
      const key = random.below(6000) / 2;
      scratch.slots[0] = insert(tree, scratch.slot(0), key, makeValue(8)).root;
    }
  },
  (scratch, random) => {
    const tree = new BTree(scratch.tm, plainValueType(8));
    for (let i = 0; i < 20; i++) {
      scratch.slots[0] = remove(tree, scratch.slot(0), random.below(3000));
    }
  },
  (scratch, random) => {
    const tree = new BTree(scratch.tm, plainValueType(8));
    const begin = random.below(3000);
    scratch.slots[0] = removeLeaves(tree, scratch.slot(0), begin, begin + 500).root;
  },
  (scratch, random) => {
    const array = new DmArray(scratch.tm, plainValueType(8));
    const index = random.below(1200);
    scratch.slots[1] = array.set(scratch.slot(1), index, makeValue(8));
    scratch.slots[1] = array.resize(scratch.slot(1), 1200, random.below(3000), makeValue(8));
  },
  ({ dataSm }) => {
    for (let i = 0; i < 10; i++) dataSm.newBlock();
    dataSm.inc(0, 400);
    dataSm.dec(0, 300);
  },
  ({ metadataSm }) => {
    for (let i = 0; i < 30; i++) metadataSm.newBlock();
  },
  (scratch) => {
    deleteTree(new BTree(scratch.tm, plainValueType(8)), scratch.slot(0));
    new DmArray(scratch.tm, plainValueType(8)).delete(scratch.slot(1));
  },
  (scratch) => scratch.commit(),
];

test('no bytes make an operation or the check do anything but end', async () => {
  const base = await makeBase();
  const salts = saltsOf(base);
  const first = seedOf(1);
  let nrRefused = 0;
  let nrDamaged = 0;
  for (let seed = first; seed < first + 500; seed++) {
    const random = new Random(seed);
    const device = copyDevice(base);
    for (let i = random.between(1, 3); i > 0; i--) {
      const [block, salt] = random.pick([...salts]);
      editBlock(device, block, (view) => vandalize(random, view), salt);
    }
    try {
      if (findDamage(device, walkAll).nrFatal > 0) nrDamaged++;
    } catch (error) {
      assert.fail(`DM_SEED=${seed}: the check threw ${String(error)}`);
    }
    for (const operation of [...operations].sort(() => random.next() - 0.5)) {
      try {
        const scratch = Scratch.open(device, 1);
        await operation(scratch, random);
      } catch (error) {
        const text = (error as Error).stack;
        assert.ok(error instanceof DmError, `DM_SEED=${seed}: ${text}`);
        nrRefused++;
      }
    }
  }
  assert.ok(nrDamaged > 100 && nrRefused > 100, `${nrDamaged} damaged, ${nrRefused} refused`);
});
