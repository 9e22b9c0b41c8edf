/**
 * Removal: what stays, what goes, and trees that lose a level.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../../src/base/error.ts';
import { BTree } from '../../../src/persistent-data/btree/btree.ts';
import { insert, makeValue } from '../../../src/persistent-data/btree/insert.ts';
import { remove, removeLeaves } from '../../../src/persistent-data/btree/remove.ts';
import { plainValueType } from '../../../src/persistent-data/btree/value-type.ts';
import { checkTree } from '../../../src/persistent-data/check/tree-check.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { checkScratch, findDamage, Scratch } from '../../helpers/scratch.ts';

/** A store whose slot 0 has a tree of `keys`. */
async function treeOf(keys: Iterable<number>, valueSize = 8): Promise<[Scratch, BTree]> {
  const scratch = await Scratch.format({ nrBlocks: 20_000 });
  const tree = new BTree(scratch.tm, plainValueType(valueSize));
  const value = makeValue(valueSize);
  let root = tree.empty();
  for (const key of keys) root = insert(tree, root, key, value).root;
  scratch.slots[0] = root;
  return [scratch, tree];
}

const range = (begin: number, end: number): number[] =>
  Array.from({ length: end - begin }, (_, i) => begin + i);

test('removing a key that is not there is ENODATA', async () => {
  for (const key of [0, 9, 1000, 5000]) {
    const [scratch, tree] = await treeOf(range(10, 1000));
    assert.throws(
      () => remove(tree, scratch.slot(0), key),
      (error) => error instanceof DmError && error.errno === 'ENODATA',
    );
  }
});

test('removing leaves stops at the end of the range, and at a gap that it cannot cross', async () => {
  const [scratch, tree] = await treeOf([...range(0, 100), ...range(200, 300)]);
  const first = removeLeaves(tree, scratch.slot(0), 50, 250);
  // After 99 it looks for 100 and finds 49, which is before the range.
  assert.equal(first.nrRemoved, 50);
  const second = removeLeaves(tree, first.root, 200, 250);
  assert.equal(second.nrRemoved, 50);
  const third = removeLeaves(tree, second.root, 400, 500);
  assert.equal(third.nrRemoved, 0);
  assert.equal(tree.lowestKey(third.root), 0);
  assert.equal(tree.highestKey(third.root), 299);
});

test('a tree of three levels shrinks to an empty leaf, in any order, and frees its blocks', async () => {
  const random = new Random(seedOf(1));
  const keys = range(0, 64_000);
  const orders: Record<string, number[]> = {
    ascending: keys,
    descending: keys.toReversed(),
    random: keys.toSorted(() => random.next() - 0.5),
  };
  for (const [name, order] of Object.entries(orders)) {
    const [scratch, tree] = await treeOf(order);
    await scratch.commit();
    let height = 0;
    const check = (): void => {
      const { kept } = findDamage(scratch.device, (run, [root = 0]) => {
        height = checkTree(run, root, { name: 'tree', valueSize: 8 }).height;
      });
      assert.deepEqual(
        kept.filter(({ kind }) => kind !== 'fill'),
        [],
        name,
      );
    };
    check();
    assert.equal(height, 3);
    for (const [i, key] of order.entries()) {
      if (i % 200 === 0) scratch.blocks.newOperation();
      scratch.slots[0] = remove(tree, scratch.slot(0), key);
      if (i % 16_000 === 15_999) {
        await scratch.commit();
        check();
      }
    }
    assert.equal(height, 1);
    assert.equal(tree.lowestKey(scratch.slot(0)), undefined);
    await scratch.commit();
    // The empty tree, and what an empty store has.
    const { metadataSm } = scratch;
    assert.equal(metadataSm.nrBlocks - metadataSm.nrFree, 8 + 1);
  }
});

test('a tree that loses a level may keep a node one entry short, until the next removal there', async () => {
  const [scratch, tree] = await treeOf(range(0, 2500), 600);
  const found: string[] = [];
  for (let key = 0; key < 2100; key++) {
    scratch.slots[0] = remove(tree, scratch.slot(0), key);
    if (key < 1950) continue;
    await scratch.commit();
    const lines = checkScratch(scratch.device, (run, [root = 0]) => {
      checkTree(run, root, { name: 'tree', valueSize: 600 });
    });
    found.push(...lines);
  }
  assert.equal(found.length, 1);
  assert.match(found[0] as string, /wanted at least 2 entries, found 1 \(fill\)$/);
});
