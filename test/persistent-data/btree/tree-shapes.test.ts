/**
 * Entries per leaf after known sequences of operations, as a Linux 6.1 kernel leaves them
 * (spec: thin, scenario 41).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BlockNr } from '../../../src/persistent-data/block.ts';
import { BTree, makeEntry } from '../../../src/persistent-data/btree/btree.ts';
import { insert, makeValue } from '../../../src/persistent-data/btree/insert.ts';
import {
  isLeaf,
  nodeValidator,
  nrEntriesOf,
  valueOffset,
} from '../../../src/persistent-data/btree/node.ts';
import { removeLeaves } from '../../../src/persistent-data/btree/remove.ts';
import { blockNrAt, plainValueType } from '../../../src/persistent-data/btree/value-type.ts';
import { checkTree } from '../../../src/persistent-data/check/tree-check.ts';
import { checkScratch, Scratch } from '../../helpers/scratch.ts';

class Shape {
  readonly scratch: Scratch;
  readonly tree: BTree;
  readonly #value: ReturnType<typeof makeValue>;
  root: BlockNr;

  private constructor(scratch: Scratch, valueSize: number) {
    this.scratch = scratch;
    this.tree = new BTree(scratch.tm, plainValueType(valueSize));
    this.#value = makeValue(valueSize);
    this.root = this.tree.empty();
  }

  static async make(valueSize = 8): Promise<Shape> {
    return new Shape(await Scratch.format({ nrBlocks: 4096 }), valueSize);
  }

  insert(...keys: number[]): void {
    for (const key of keys) this.root = insert(this.tree, this.root, key, this.#value).root;
  }

  /** As a discard of `[begin, end)`. */
  discard(begin: number, end: number): void {
    const entry = makeEntry();
    for (let from = begin; this.tree.lookupNext(this.root, from, entry);) {
      from = entry.key;
      if (from >= end) break;
      this.root = removeLeaves(this.tree, this.root, from, end).root;
    }
  }

  /** Entries of each child of the root, or of the root if it is a leaf. */
  leaves(root = this.root): number[] {
    const { view } = this.tree.tm.read(root, nodeValidator);
    if (isLeaf(view)) return [nrEntriesOf(view)];
    return Array.from({ length: nrEntriesOf(view) }, (_, i) => {
      const child = this.tree.tm.read(blockNrAt(view, valueOffset(view, i)), nodeValidator);
      assert.ok(isLeaf(child.view));
      return nrEntriesOf(child.view);
    });
  }
}

const range = (begin: number, end: number, step = 1): number[] =>
  Array.from({ length: Math.ceil((end - begin) / step) }, (_, i) => begin + i * step);

test('ascending: 248 seven times, 126, 138', async () => {
  const shape = await Shape.make();
  shape.insert(...range(0, 2000));
  assert.deepEqual(shape.leaves(), [248, 248, 248, 248, 248, 248, 248, 126, 138]);
});

test('descending: 159, 126, 245 seven times', async () => {
  const shape = await Shape.make();
  shape.insert(...range(1, 2001).reverse());
  assert.deepEqual(shape.leaves(), [159, 126, 245, 245, 245, 245, 245, 245, 245]);
});

test('a full leaf between others becomes three: 166, 168, 167', async () => {
  const shape = await Shape.make();
  shape.insert(...range(0, 3000, 2), 601, 603, 605, 607, 609);
  assert.deepEqual(shape.leaves(), [166, 168, 167, 248, 248, 248, 126, 134]);
});

test('beside shared leaves it becomes two, and the snapshot keeps its tree', async () => {
  const shape = await Shape.make();
  shape.insert(...range(0, 3000, 2));
  const snapshot = shape.root;
  shape.scratch.tm.inc(snapshot);
  const before = shape.leaves();
  shape.insert(601, 603, 605, 607, 609);
  assert.deepEqual(shape.leaves(), [248, 127, 126, 248, 248, 248, 126, 134]);
  assert.deepEqual(shape.leaves(snapshot), before);
  shape.scratch.slots.splice(0, 2, snapshot, shape.root);
  await shape.scratch.commit();
  const lines = checkScratch(shape.scratch.device, (run, slots) => {
    for (const root of slots.slice(0, 2)) checkTree(run, root, { name: 'tree', valueSize: 8 });
  });
  assert.deepEqual(lines, []);
});

test('after removing 250 of each 300: 178, 137, 92, 93', async () => {
  const shape = await Shape.make();
  shape.insert(...range(0, 3000));
  for (let k = 0; k < 10; k++) shape.discard(300 * k, 300 * k + 250);
  assert.deepEqual(shape.leaves(), [178, 137, 92, 93]);
});

test('221 device records: 110 and 111', async () => {
  const shape = await Shape.make(24);
  shape.insert(1000, ...range(0, 219), 777);
  assert.deepEqual(shape.leaves(), [110, 111]);
});
