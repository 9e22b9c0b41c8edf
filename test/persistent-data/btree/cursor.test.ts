/**
 * Cursors and walks over one-level trees (spec: persistent-data, 4.11).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getLe64, setLe64 } from '../../../src/base/struct.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { BLOCK_SECTORS, BLOCK_SIZE } from '../../../src/persistent-data/block.ts';
import { BTree, makeEntry } from '../../../src/persistent-data/btree/btree.ts';
import { Cursor, walk } from '../../../src/persistent-data/btree/cursor.ts';
import { insert, makeValue } from '../../../src/persistent-data/btree/insert.ts';
import { plainValueType } from '../../../src/persistent-data/btree/value-type.ts';
import { Scratch } from '../../helpers/scratch.ts';

/** A store whose slot 0 has a tree of every third number below `end`, ten times itself as value. */
async function makeTree(end: number): Promise<[Scratch, BTree]> {
  const device = new MemoryDevice('scratch', 20_000 * BLOCK_SECTORS);
  const scratch = await Scratch.format({ device });
  const tree = new BTree(scratch.tm, plainValueType(8));
  const value = makeValue(8);
  let root = tree.empty();
  for (let key = 0; key < end; key += 3) {
    setLe64(value.view, 0, key * 10);
    root = insert(tree, root, key, value).root;
  }
  scratch.slots[0] = root;
  return [scratch, tree];
}

function keysFrom(tree: BTree, scratch: Scratch, from: number): number[] {
  const keys: number[] = [];
  for (const cursor = new Cursor(tree, scratch.slot(0), from); !cursor.atEnd; cursor.next()) {
    assert.equal(cursor.value(getLe64), cursor.key * 10);
    keys.push(cursor.key);
  }
  return keys;
}

test('a cursor stands on the first key that is not below where it starts', async () => {
  const [scratch, tree] = await makeTree(3000);
  const all = Array.from({ length: 1000 }, (_, i) => 3 * i);
  for (const from of [0, 1, 3, 743, 744, 745, 1500, 2996, 2997, 2998, 9999]) {
    assert.deepEqual(
      keysFrom(tree, scratch, from),
      all.filter((key) => key >= from),
    );
  }
});

test('a cursor over an empty tree is at its end at once, and does not move', async () => {
  const [scratch, tree] = await makeTree(0);
  const cursor = new Cursor(tree, scratch.slot(0));
  assert.ok(cursor.atEnd);
  assert.throws(() => cursor.next(), /at the end does not move/);
  assert.throws(() => cursor.key, /at the end has no entry/);
});

test('a walk keeps to its range, and stops when it is told to', async () => {
  const [scratch, tree] = await makeTree(3000);
  const seen: number[] = [];
  walk(tree, scratch.slot(0), (key) => void seen.push(key), 1000, 2000);
  assert.equal(seen[0], 1002);
  assert.equal(seen.at(-1), 1998);
  assert.equal(seen.length, 333);
  let n = 0;
  walk(tree, scratch.slot(0), () => ++n < 7);
  assert.equal(n, 7);
});

test('a walk over more blocks than the cache holds keeps to the cache', async () => {
  const [scratch] = await makeTree(200_000);
  await scratch.commit();
  const small = Scratch.open(scratch.device, 16 * BLOCK_SIZE);
  const again = new BTree(small.tm, plainValueType(8));
  let n = 0;
  walk(again, small.slot(0), () => {
    n++;
    assert.ok(small.blocks.nrCached <= 16);
  });
  assert.equal(n, 66_667);
});

test('the edges of a tree are its lowest and highest key', async () => {
  const [scratch, tree] = await makeTree(3000);
  assert.equal(tree.lowestKey(scratch.slot(0)), 0);
  assert.equal(tree.highestKey(scratch.slot(0)), 2997);
  const entry = makeEntry();
  assert.ok(!tree.lookupNext(scratch.slot(0), 2998, entry));
  assert.ok(tree.lookupNext(scratch.slot(0), 2995, entry));
  assert.equal(entry.key, 2997);
});
