/**
 * B-trees against a model: a Map for each root. Trees are changed, shared (as snapshots of each
 * other) and deleted at random; after every commit the device is checked as a whole, and now and
 * then everything is opened anew.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BTree, makeEntry } from '../../../src/persistent-data/btree/btree.ts';
import { walk } from '../../../src/persistent-data/btree/cursor.ts';
import { deleteTree } from '../../../src/persistent-data/btree/delete.ts';
import { insert, makeValue } from '../../../src/persistent-data/btree/insert.ts';
import { remove, removeLeaves } from '../../../src/persistent-data/btree/remove.ts';
import { plainValueType } from '../../../src/persistent-data/btree/value-type.ts';
import { asBlockNr } from '../../../src/persistent-data/block.ts';
import { checkTree } from '../../../src/persistent-data/check/tree-check.ts';
import { seedOf } from '../../helpers/random.ts';
import { checkScratch, findDamage, Scratch, type ScratchWalk } from '../../helpers/scratch.ts';

const NR_TREES = 4;

type Op =
  | { op: 'insert'; tree: number; begin: number; step: number; count: number }
  | { op: 'remove'; tree: number; begin: number; step: number; count: number }
  | { op: 'removeLeaves'; tree: number; begin: number; count: number }
  | { op: 'snapshot'; tree: number; of: number }
  | { op: 'delete'; tree: number }
  | { op: 'commit' }
  | { op: 'reopen' }
  | { op: 'abort' };

/** Operations on keys below `keys`, in runs of up to `count`. */
function opArbitrary(keys: number, count: number): fc.Arbitrary<Op> {
  const tree = fc.nat(NR_TREES - 1);
  const run = {
    tree,
    begin: fc.nat(keys - 1),
    step: fc.constantFrom(-2, -1, 1, 1, 1, 3),
    count: fc.integer({ min: 1, max: count }),
  };
  return fc.oneof(
    { weight: 6, arbitrary: fc.record({ op: fc.constant('insert' as const), ...run }) },
    { weight: 4, arbitrary: fc.record({ op: fc.constant('remove' as const), ...run }) },
    {
      weight: 2,
      arbitrary: fc.record({
        op: fc.constant('removeLeaves' as const),
        tree,
        begin: fc.nat(keys - 1),
        count: fc.integer({ min: 1, max: 2 * count }),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ op: fc.constant('snapshot' as const), tree, of: tree }),
    },
    { weight: 1, arbitrary: fc.record({ op: fc.constant('delete' as const), tree }) },
    { weight: 2, arbitrary: fc.constant({ op: 'commit' as const }) },
    { weight: 1, arbitrary: fc.constant({ op: 'reopen' as const }) },
    { weight: 1, arbitrary: fc.constant({ op: 'abort' as const }) },
  );
}

function emptyModels(): Map<number, number>[] {
  return Array.from({ length: NR_TREES }, () => new Map<number, number>());
}

class Subject {
  scratch: Scratch;
  readonly valueSize: number;
  tree: BTree;
  models = emptyModels();
  committed: Map<number, number>[];
  #next = 1;
  /** Levels of the tallest tree that was committed. */
  heightMax = 0;

  private constructor(scratch: Scratch, valueSize: number) {
    this.scratch = scratch;
    this.valueSize = valueSize;
    this.tree = this.#makeTree();
    this.committed = this.#copy(this.models);
  }

  static async make(valueSize: number): Promise<Subject> {
    const scratch = await Scratch.format({ nrBlocks: 20_000, cacheBytes: 64 * 4096 });
    const subject = new Subject(scratch, valueSize);
    for (let i = 0; i < NR_TREES; i++) scratch.slots[i] = subject.tree.empty();
    await subject.commit();
    return subject;
  }

  #makeTree(): BTree {
    return new BTree(this.scratch.tm, plainValueType(this.valueSize));
  }

  #copy(models: Map<number, number>[]): Map<number, number>[] {
    return models.map((model) => new Map(model));
  }

  async run(op: Op): Promise<void> {
    const { scratch, models } = this;
    scratch.blocks.newOperation();
    switch (op.op) {
      case 'insert':
        for (let i = 0; i < op.count; i++) this.#insert(op.tree, op.begin + i * op.step);
        break;
      case 'remove':
        for (let i = 0; i < op.count; i++) this.#remove(op.tree, op.begin + i * op.step);
        break;
      case 'removeLeaves':
        this.#removeRange(op.tree, op.begin, op.begin + op.count);
        break;
      case 'snapshot':
        if (op.tree === op.of) return;
        deleteTree(this.tree, scratch.slot(op.tree));
        scratch.tm.inc(scratch.slot(op.of));
        scratch.slots[op.tree] = scratch.slot(op.of);
        models[op.tree] = new Map(models[op.of]);
        break;
      case 'delete':
        deleteTree(this.tree, scratch.slot(op.tree));
        scratch.slots[op.tree] = this.tree.empty();
        models[op.tree] = new Map();
        break;
      case 'commit':
        await this.commit();
        break;
      case 'reopen':
        await this.commit();
        this.scratch = Scratch.open(scratch.device, 64 * 4096);
        this.tree = this.#makeTree();
        break;
      case 'abort':
        scratch.abort();
        this.tree = this.#makeTree();
        this.models = this.#copy(this.committed);
        break;
    }
  }

  #insert(index: number, key: number): void {
    if (key < 0) return;
    const model = this.models[index] as Map<number, number>;
    const value = makeValue(this.valueSize);
    value.view.setUint32(0, this.#next, true);
    value.view.setUint32(this.valueSize - 4, this.#next, true);
    const { root, inserted } = insert(this.tree, this.scratch.slot(index), key, value);
    this.scratch.slots[index] = root;
    assert.equal(inserted, !model.has(key));
    model.set(key, this.#next++);
  }

  #remove(index: number, key: number): void {
    const model = this.models[index] as Map<number, number>;
    if (!model.delete(key)) return;
    this.scratch.slots[index] = remove(this.tree, this.scratch.slot(index), key);
  }

  #removeRange(index: number, begin: number, end: number): void {
    const model = this.models[index] as Map<number, number>;
    const entry = makeEntry();
    let root = this.scratch.slot(index);
    let nrRemoved = 0;
    for (let from = begin; this.tree.lookupNext(root, from, entry) && entry.key < end;) {
      from = entry.key;
      const removed = removeLeaves(this.tree, root, from, end);
      assert.ok(removed.nrRemoved > 0);
      root = removed.root;
      nrRemoved += removed.nrRemoved;
    }
    this.scratch.slots[index] = root;
    const gone = [...model.keys()].filter((key) => key >= begin && key < end);
    for (const key of gone) model.delete(key);
    assert.equal(nrRemoved, gone.length);
  }

  /** Commits, checks the device as a whole, and compares every tree with its model. */
  async commit(): Promise<void> {
    await this.scratch.commit();
    this.committed = this.#copy(this.models);
    // When a tree loses a level, a node may be an entry short of a third; see remove.ts.
    const { kept } = findDamage(this.scratch.device, this.#walk);
    const found = kept.filter(({ kind }) => kind !== 'fill');
    assert.deepEqual(found, []);
    for (let i = 0; i < NR_TREES; i++) this.compare(i);
  }

  readonly #walk: ScratchWalk = (run, slots) => {
    for (const [i, root] of slots.slice(0, NR_TREES).entries()) {
      const summary = checkTree(run, root, { name: 'tree', valueSize: this.valueSize });
      assert.equal(summary.nrEntries, this.models[i]?.size);
      this.heightMax = Math.max(this.heightMax, summary.height);
    }
  };

  compare(index: number): void {
    const model = this.models[index] as Map<number, number>;
    const root = this.scratch.slot(index);
    const keys = [...model.keys()].sort((a, b) => a - b);
    const found: number[] = [];
    walk(this.tree, root, (key, view, offset) => {
      found.push(key);
      assert.equal(view.getUint32(offset, true), model.get(key));
      assert.equal(view.getUint32(offset + this.valueSize - 4, true), model.get(key));
    });
    assert.deepEqual(found, keys);
    assert.equal(this.tree.lowestKey(root), keys[0]);
    assert.equal(this.tree.highestKey(root), keys.at(-1));
    const entry = makeEntry();
    for (let probe = 0; probe < 30; probe++) {
      const key = Math.floor(((keys.at(-1) ?? 0) + 2) * (probe / 29));
      assert.equal(this.tree.lookup(root, key, entry), model.has(key));
      if (model.has(key)) assert.equal(entry.view.getUint32(entry.offset, true), model.get(key));
      const next = keys.find((other) => other >= key);
      assert.equal(this.tree.lookupNext(root, key, entry), next !== undefined);
      if (next !== undefined) assert.equal(entry.key, next);
    }
  }

  async end(): Promise<void> {
    await this.commit();
    for (let i = 0; i < NR_TREES; i++) {
      deleteTree(this.tree, this.scratch.slot(i));
      this.scratch.slots[i] = asBlockNr(0);
    }
    await this.scratch.commit();
    assert.deepEqual(checkScratch(this.scratch.device), []);
  }
}

/** What trees of a value size are put through. */
interface Plan {
  readonly valueSize: number;
  /** Keys are below this, more or less. */
  readonly keys: number;
  /** The longest run of keys in one operation. */
  readonly count: number;
  /** Levels that some tree must reach for the test to be worth its name. */
  readonly height: number;
}

const plans: Plan[] = [
  { valueSize: 8, keys: 3000, count: 800, height: 2 },
  { valueSize: 24, keys: 3000, count: 400, height: 2 },
  { valueSize: 300, keys: 6000, count: 1500, height: 3 },
  { valueSize: 1000, keys: 4000, count: 400, height: 3 },
];

for (const { valueSize, keys, count, height } of plans) {
  test(`trees of ${valueSize}-byte values agree with a map`, async () => {
    const seed = seedOf(valueSize);
    const ops = fc.array(opArbitrary(keys, count), { maxLength: 150, size: 'max' });
    let heightMax = 0;
    await fc.assert(
      fc.asyncProperty(ops, async (list) => {
        const subject = await Subject.make(valueSize);
        for (const op of list) await subject.run(op);
        await subject.end();
        heightMax = Math.max(heightMax, subject.heightMax);
      }),
      { seed, numRuns: 30, includeErrorInReport: true },
    );
    assert.equal(heightMax, height);
  });
}
