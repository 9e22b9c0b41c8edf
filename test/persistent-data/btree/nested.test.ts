/**
 * Two-level trees over data blocks, as a thin pool uses them, against a model: devices with their
 * own trees, snapshots that share nodes, data blocks counted once for each live leaf entry.
 *
 *        top level            device trees         data blocks
 *     ┌─ id 1 ────────────┬─► leaf (count 2) ────► 5, 6, 7   (count 1 each)
 *     └─ id 2 (snapshot) ─┘
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DmError } from '../../../src/base/error.ts';
import { getLe64, setLe64 } from '../../../src/base/struct.ts';
import { BTree, makeEntry } from '../../../src/persistent-data/btree/btree.ts';
import { Cursor } from '../../../src/persistent-data/btree/cursor.ts';
import { insert, makeValue } from '../../../src/persistent-data/btree/insert.ts';
import {
  insertNested,
  lookupNested,
  removeNested,
} from '../../../src/persistent-data/btree/nested.ts';
import { remove, removeLeaves } from '../../../src/persistent-data/btree/remove.ts';
import { blockNrAt, plainValueType } from '../../../src/persistent-data/btree/value-type.ts';
import { checkNestedTrees, nestedTrees, type NestedTrees } from '../../helpers/nested-trees.ts';
import { seedOf } from '../../helpers/random.ts';
import { checkScratch, Scratch, type ScratchWalk } from '../../helpers/scratch.ts';

const NR_DATA_BLOCKS = 20_000;

type Op =
  | { op: 'write'; device: number; begin: number; count: number }
  | { op: 'remove'; device: number; begin: number; count: number }
  | { op: 'discard'; device: number; begin: number; count: number }
  | { op: 'snapshot'; device: number; of: number }
  | { op: 'delete'; device: number }
  | { op: 'commit' }
  | { op: 'reopen' }
  | { op: 'abort' };

const device = fc.oneof(fc.nat(5), fc.nat(300));
const run = { device, begin: fc.nat(1500), count: fc.integer({ min: 1, max: 300 }) };
const opArbitrary: fc.Arbitrary<Op> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ op: fc.constant('write' as const), ...run }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('remove' as const), ...run }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('discard' as const), ...run }) },
  {
    weight: 4,
    arbitrary: fc.record({ op: fc.constant('snapshot' as const), device, of: fc.nat(1000) }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('delete' as const), device: fc.nat(1000) }) },
  { weight: 3, arbitrary: fc.constant<Op>({ op: 'commit' }) },
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'reopen' }) },
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'abort' }) },
);

/** Device -> virtual block -> data block. */
type Model = Map<number, Map<number, number>>;

const copyOf = (model: Model): Model =>
  new Map([...model].map(([id, blocks]) => [id, new Map(blocks)]));

class Subject {
  scratch: Scratch;
  #trees: NestedTrees;
  #model: Model = new Map();
  #committed: Model = new Map();
  readonly #value = makeValue(8);
  readonly #entry = makeEntry();

  constructor(scratch: Scratch) {
    this.scratch = scratch;
    this.#trees = nestedTrees(scratch);
    scratch.slots[0] = this.#trees.top.empty();
  }

  async run(op: Op): Promise<void> {
    const { scratch } = this;
    scratch.blocks.newOperation();
    switch (op.op) {
      case 'write':
        for (let i = 0; i < op.count; i++) this.#write(op.device, op.begin + i);
        break;
      case 'remove':
        for (let i = 0; i < op.count; i++) this.#remove(op.device, op.begin + i);
        break;
      case 'discard':
        this.#discard(op.device, op.begin, op.begin + op.count);
        break;
      case 'snapshot':
        this.#snapshot(op.device, this.#pick(op.of));
        break;
      case 'delete':
        this.#delete(this.#pick(op.device));
        break;
      case 'commit':
        await this.commit();
        break;
      case 'reopen':
        await this.commit();
        this.scratch = Scratch.open(scratch.device);
        this.#trees = nestedTrees(this.scratch);
        break;
      case 'abort':
        scratch.abort();
        this.#trees = nestedTrees(this.scratch);
        this.#model = copyOf(this.#committed);
        break;
    }
  }

  #pick(n: number): number | undefined {
    const ids = [...this.#model.keys()];
    return ids[n % ids.length];
  }

  /** A missing device comes into being with its first block. */
  #write(id: number, block: number): void {
    const { scratch } = this;
    if (scratch.dataSm.nrFree < 100 || scratch.metadataSm.nrFree < 500) return;
    let dataBlock: number;
    try {
      dataBlock = scratch.dataSm.newBlock();
    } catch (error) {
      if (error instanceof DmError && error.errno === 'ENOSPC') return; // Freed, not committed.
      throw error;
    }
    setLe64(this.#value.view, 0, dataBlock);
    const trees = [this.#trees.top, this.#trees.bottom];
    const result = insertNested(trees, scratch.slot(0), [id, block], this.#value);
    scratch.slots[0] = result.root;
    let blocks = this.#model.get(id);
    assert.equal(result.inserted, blocks?.has(block) !== true);
    if (blocks === undefined) this.#model.set(id, (blocks = new Map<number, number>()));
    blocks.set(block, dataBlock);
  }

  #remove(id: number, block: number): void {
    const { scratch } = this;
    const blocks = this.#model.get(id);
    const trees = [this.#trees.top, this.#trees.bottom];
    if (blocks?.delete(block) === true) {
      scratch.slots[0] = removeNested(trees, scratch.slot(0), [id, block]);
    } else {
      assert.ok(!lookupNested(trees, scratch.slot(0), [id, block], this.#entry));
    }
  }

  /** As a thin pool does: the device's tree is taken out of the top level and put back. */
  #discard(id: number, begin: number, end: number): void {
    const { scratch } = this;
    const blocks = this.#model.get(id);
    if (blocks === undefined) return;
    let root = this.#rootOf(id);
    scratch.tm.inc(root);
    scratch.slots[0] = remove(this.#trees.top, scratch.slot(0), id);
    const entry = this.#entry;
    for (let from = begin; this.#trees.bottom.lookupNext(root, from, entry) && entry.key < end;) {
      from = entry.key;
      root = removeLeaves(this.#trees.bottom, root, from, end).root;
    }
    this.#setRoot(id, root);
    for (const block of [...blocks.keys()]) if (block >= begin && block < end) blocks.delete(block);
  }

  #snapshot(id: number, of: number | undefined): void {
    const origin = of === undefined ? undefined : this.#model.get(of);
    if (of === undefined || origin === undefined || this.#model.has(id)) return;
    const root = this.#rootOf(of);
    this.scratch.tm.inc(root);
    this.#setRoot(id, root);
    this.#model.set(id, new Map(origin));
  }

  #delete(id: number | undefined): void {
    if (id === undefined) return;
    this.scratch.slots[0] = remove(this.#trees.top, this.scratch.slot(0), id);
    this.#model.delete(id);
  }

  #rootOf(id: number): ReturnType<typeof blockNrAt> {
    assert.ok(this.#trees.top.lookup(this.scratch.slot(0), id, this.#entry));
    return blockNrAt(this.#entry.view, this.#entry.offset);
  }

  #setRoot(id: number, root: number): void {
    setLe64(this.#value.view, 0, root);
    this.scratch.slots[0] = insert(this.#trees.top, this.scratch.slot(0), id, this.#value).root;
  }

  async commit(): Promise<void> {
    await this.scratch.commit();
    this.#committed = copyOf(this.#model);
    const nrMapped = new Map<number, number>();
    const walk: ScratchWalk = (checkRun, [root = 0], data) =>
      checkNestedTrees(checkRun, root, data, ({ key }, { nrEntries }) => {
        nrMapped.set(key, nrEntries);
      });
    assert.deepEqual(checkScratch(this.scratch.device, walk), []);
    assert.deepEqual(
      [...nrMapped].sort(([a], [b]) => a - b),
      [...this.#model].map(([id, blocks]) => [id, blocks.size] as const).sort(([a], [b]) => a - b),
    );
    for (const [id, blocks] of this.#model) this.#compare(id, blocks);
  }

  #compare(id: number, blocks: Map<number, number>): void {
    const cursor = new Cursor(this.#trees.bottom, this.#rootOf(id));
    for (const [block, dataBlock] of [...blocks].sort(([a], [b]) => a - b)) {
      assert.equal(cursor.key, block);
      assert.equal(cursor.value(getLe64), dataBlock);
      cursor.next();
    }
    assert.ok(cursor.atEnd);
  }
}

test('devices of a two-level tree agree with maps, and every reference is counted', async () => {
  const ops = fc.array(opArbitrary, { maxLength: 100, size: 'max' });
  await fc.assert(
    fc.asyncProperty(ops, async (list) => {
      const subject = new Subject(
        await Scratch.format({ nrBlocks: 6000, nrDataBlocks: NR_DATA_BLOCKS }),
      );
      await subject.commit();
      for (const op of list) await subject.run(op);
      await subject.commit();
    }),
    { seed: seedOf(1), numRuns: 30, includeErrorInReport: true },
  );
});

test('a removal below a missing upper key is ENODATA', async () => {
  const scratch = await Scratch.format();
  const bottom = new BTree(scratch.tm, plainValueType(8));
  const top = new BTree(scratch.tm, plainValueType(8));
  const value = makeValue(8);
  const { root } = insertNested([top, bottom], top.empty(), [7, 1], value);
  const enodata = (error: unknown): boolean =>
    error instanceof DmError && error.errno === 'ENODATA';
  assert.throws(() => removeNested([top, bottom], root, [8, 1]), enodata);
  assert.throws(() => removeNested([top, bottom], root, [7, 2]), enodata);
});

test('three levels nest like two', async () => {
  const scratch = await Scratch.format();
  const trees = [0, 1, 2].map(() => new BTree(scratch.tm, plainValueType(8)));
  let root = (trees[0] as BTree).empty();
  const value = makeValue(8);
  const keys: [number, number, number][] = [];
  for (let a = 0; a < 5; a++) {
    for (let b = 0; b < 6; b++) for (let c = 0; c < 7; c++) keys.push([a * 100, b, c]);
  }
  for (const [i, key] of keys.entries()) {
    setLe64(value.view, 0, i);
    root = insertNested(trees, root, key, value).root;
  }
  const entry = makeEntry();
  for (const [i, key] of keys.entries()) {
    assert.ok(lookupNested(trees, root, key, entry));
    assert.equal(getLe64(entry.view, entry.offset), i);
  }
  root = removeNested(trees, root, [200, 3, 4]);
  assert.ok(!lookupNested(trees, root, [200, 3, 4], entry));
  assert.ok(lookupNested(trees, root, [200, 3, 5], entry));
});
