/**
 * The metadata space map, which counts its own blocks too: against a model of the blocks that a
 * test takes for itself, with the whole-structure check after every commit
 * (spec: persistent-data, 7).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DmError } from '../../../src/base/error.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { asBlockNr, BLOCK_SECTORS } from '../../../src/persistent-data/block.ts';
import { BTree } from '../../../src/persistent-data/btree/btree.ts';
import { insert, makeValue } from '../../../src/persistent-data/btree/insert.ts';
import { remove } from '../../../src/persistent-data/btree/remove.ts';
import { plainValueType } from '../../../src/persistent-data/btree/value-type.ts';
import { checkTree } from '../../../src/persistent-data/check/tree-check.ts';
import {
  ENTRIES_PER_BITMAP,
  METADATA_BLOCKS_MAX,
} from '../../../src/persistent-data/space-map/layout.ts';
import { seedOf } from '../../helpers/random.ts';
import { checkScratch, Scratch, type ScratchWalk } from '../../helpers/scratch.ts';

type Op =
  | { op: 'allocate'; count: number }
  | { op: 'inc' | 'dec'; from: number; count: number; times: number }
  | { op: 'tree'; key: number; count: number }
  | { op: 'extend'; extra: number }
  | { op: 'commit' }
  | { op: 'reopen' }
  | { op: 'abort' };

const NR_BLOCKS = 6000;
const NR_BLOCKS_MAX = 60_000;

const opArbitrary: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ op: fc.constant('allocate' as const), count: fc.nat(300) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constantFrom('inc', 'dec'),
      from: fc.oneof(fc.nat(1000), fc.nat(30)),
      count: fc.oneof(fc.nat(20), fc.nat(900)),
      times: fc.integer({ min: 1, max: 25 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('tree' as const),
      key: fc.nat(3000),
      count: fc.nat(300),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('extend' as const),
      extra: fc.oneof(fc.nat(50), fc.nat(2 * ENTRIES_PER_BITMAP)),
    }),
  },
  { weight: 4, arbitrary: fc.constant<Op>({ op: 'commit' }) },
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'reopen' }) },
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'abort' }) },
);

interface State {
  /** Blocks that the test has taken, and their counts. */
  readonly counts: Map<number, number>;
  readonly keys: Set<number>;
  nrBlocks: number;
}

const copyOf = ({ counts, keys, nrBlocks }: State): State => ({
  counts: new Map(counts),
  keys: new Set(keys),
  nrBlocks,
});

class Subject {
  readonly device: MemoryDevice;
  scratch: Scratch;
  #tree: BTree;
  #state: State = { counts: new Map(), keys: new Set(), nrBlocks: NR_BLOCKS };
  #committed: State;
  /** Everything that was in use at the last commit, the map's own blocks included. */
  #usedAtCommit = new Set<number>();
  countMax = 0;
  /** The most blocks that the overflow tree had at once. */
  nrLargeMax = 0;

  constructor(device: MemoryDevice, scratch: Scratch) {
    this.device = device;
    this.scratch = scratch;
    this.#tree = new BTree(scratch.tm, plainValueType(8));
    scratch.slots[0] = this.#tree.empty();
    this.#committed = copyOf(this.#state);
  }

  static async make(): Promise<Subject> {
    const device = new MemoryDevice('scratch', NR_BLOCKS * BLOCK_SECTORS);
    const subject = new Subject(device, await Scratch.format({ device, cacheBytes: 1 }));
    await subject.commit();
    return subject;
  }

  async run(op: Op): Promise<void> {
    const { scratch } = this;
    const state = this.#state;
    scratch.blocks.newOperation();
    switch (op.op) {
      case 'allocate':
        for (let i = 0; i < op.count && scratch.metadataSm.nrFree > 500; i++) this.#allocate();
        break;
      case 'inc':
      case 'dec':
        for (let i = 0; i < op.times; i++) this.#change(op.op, op.from, op.count);
        break;
      case 'tree':
        for (let key = op.key; key < op.key + op.count; key++) this.#toggle(key);
        break;
      case 'extend': {
        const extra = Math.min(op.extra, NR_BLOCKS_MAX - state.nrBlocks);
        this.device.resize((state.nrBlocks + extra) * BLOCK_SECTORS);
        scratch.metadataSm.extend(extra);
        state.nrBlocks += extra;
        break;
      }
      case 'commit':
        await this.commit();
        break;
      case 'reopen':
        await this.commit();
        this.scratch = Scratch.open(this.device, 1);
        this.#tree = new BTree(this.scratch.tm, plainValueType(8));
        break;
      case 'abort':
        scratch.abort();
        this.#tree = new BTree(scratch.tm, plainValueType(8));
        this.#state = copyOf(this.#committed);
        break;
    }
  }

  #allocate(): void {
    const block = this.scratch.metadataSm.newBlock();
    assert.ok(!this.#usedAtCommit.has(block), `block ${block} was in use at the last commit`);
    assert.ok(!this.#state.counts.has(block), `block ${block} is in use`);
    this.#state.counts.set(block, 1);
  }

  /** Changes the counts of the test's own blocks from the `from`th on, in runs of neighbours. */
  #change(op: 'inc' | 'dec', from: number, count: number): void {
    const { metadataSm } = this.scratch;
    const { counts } = this.#state;
    const own = [...counts.keys()].sort((a, b) => a - b).slice(from, from + count);
    for (let i = 0; i < own.length;) {
      const begin = own[i] as number;
      let end = begin;
      while (i < own.length && own[i] === end) {
        const next = (counts.get(end) as number) + (op === 'inc' ? 1 : -1);
        this.countMax = Math.max(this.countMax, next);
        if (next === 0) counts.delete(end);
        else counts.set(end, next);
        end++;
        i++;
      }
      metadataSm[op](begin, end);
    }
    const nrLarge = [...counts.values()].filter((n) => n > 2).length;
    this.nrLargeMax = Math.max(this.nrLargeMax, nrLarge);
  }

  /** Inserts a key or removes it: a structure that takes and frees blocks beside the test's. */
  #toggle(key: number): void {
    const { scratch } = this;
    const { keys } = this.#state;
    if (keys.delete(key)) {
      scratch.slots[0] = remove(this.#tree, scratch.slot(0), key);
    } else {
      keys.add(key);
      scratch.slots[0] = insert(this.#tree, scratch.slot(0), key, makeValue(8)).root;
    }
  }

  async commit(): Promise<void> {
    const { scratch } = this;
    await scratch.commit();
    this.#committed = copyOf(this.#state);
    const { counts, nrBlocks } = this.#state;
    let used: ((block: number) => number) | undefined;
    const walk: ScratchWalk = (run, [root = 0]) => {
      for (const [block, count] of counts) run.counts.add(block, count);
      checkTree(run, root, { name: 'tree', valueSize: 8 });
      used = (block) => run.counts.get(block);
    };
    assert.deepEqual(checkScratch(this.device, walk), []);
    assert.ok(used !== undefined);
    this.#usedAtCommit = new Set();
    for (let b = 0; b < nrBlocks; b++) if (used(b) > 0) this.#usedAtCommit.add(b);
    const { metadataSm } = scratch;
    assert.equal(metadataSm.nrBlocks, nrBlocks);
    assert.equal(metadataSm.nrFree, nrBlocks - this.#usedAtCommit.size);
    for (const [block, count] of counts) {
      assert.equal(metadataSm.count(asBlockNr(block)), count);
      assert.equal(metadataSm.countIsMoreThanOne(asBlockNr(block)), count > 1);
    }
  }
}

test('the metadata space map counts the blocks of a test and its own', async () => {
  const ops = fc.array(opArbitrary, { maxLength: 60, size: 'max' });
  let countMax = 0;
  let nrLargeMax = 0;
  await fc.assert(
    fc.asyncProperty(ops, async (list) => {
      const subject = await Subject.make();
      for (const op of list) await subject.run(op);
      await subject.commit();
      countMax = Math.max(countMax, subject.countMax);
      nrLargeMax = Math.max(nrLargeMax, subject.nrLargeMax);
    }),
    { seed: seedOf(1), numRuns: 40, includeErrorInReport: true },
  );
  assert.ok(countMax > 20, `counts went up to ${countMax}`);
  assert.ok(nrLargeMax > 336, `an overflow tree of two levels, for ${nrLargeMax} counts`);
});

test('formatting takes index block, overflow root and bitmaps in this order', async () => {
  const { metadataSm } = await Scratch.format({ nrBlocks: 1024 });
  // 0 superblock, 1 index, 2 overflow root, 3 bitmap; 4 to 6 the data map. Made in one transaction,
  // none is shadowed.
  assert.equal(metadataSm.nrFree, 1024 - 7);
  for (let block = 0; block < 7; block++) assert.equal(metadataSm.count(asBlockNr(block)), 1);
  assert.equal(metadataSm.newBlock(), 7);
});

test('a device that is too small to format is ENOSPC, or EINVAL without room for any tree', async () => {
  for (const nrBlocks of [2, 3, 5, 6]) {
    await assert.rejects(
      Scratch.format({ nrBlocks }),
      (error) => error instanceof DmError && error.errno === (nrBlocks < 3 ? 'EINVAL' : 'ENOSPC'),
    );
  }
});

test('growth takes what it needs from the new area, first the new bitmaps', async () => {
  const device = new MemoryDevice('scratch', 1024 * BLOCK_SECTORS);
  const scratch = await Scratch.format({ device });
  device.resize(40_000 * BLOCK_SECTORS);
  const { metadataSm } = scratch;
  metadataSm.extend(40_000 - 1024);
  assert.equal(metadataSm.nrBlocks, 40_000);
  // Bitmaps 1 and 2, the shadow of bitmap 0, the shadow of the index.
  for (const block of [1024, 1025, 1026, 1027]) assert.equal(metadataSm.count(asBlockNr(block)), 1);
  assert.equal(metadataSm.newBlock(), 1028);
  metadataSm.dec(1028, 1029);
  await scratch.commit();
  assert.deepEqual(checkScratch(device), []);
});

test('a map that would need more than 255 bitmaps is refused', async () => {
  const { metadataSm, log } = await Scratch.format();
  assert.throws(() => metadataSm.extend(METADATA_BLOCKS_MAX), /space map too large/);
  assert.deepEqual(log.take(), ['space map common: space map too large']);
});

test('the threshold is reported once when it is crossed, and again after it was left', async () => {
  const scratch = await Scratch.format({ nrBlocks: 100 });
  const { metadataSm } = scratch;
  await scratch.commit();
  const reached: number[] = [];
  metadataSm.setThreshold(50, () => reached.push(metadataSm.nrFree));
  const taken: number[] = [];
  while (metadataSm.nrFree > 40) taken.push(metadataSm.newBlock());
  assert.deepEqual(reached, [50]);
  for (const block of taken) metadataSm.dec(block, block + 1);
  assert.equal(reached.length, 1);
  await scratch.commit();
  metadataSm.newBlock();
  while (metadataSm.nrFree > 40) metadataSm.newBlock();
  assert.deepEqual(reached, [50, 50]);
});

test('running out of blocks is ENOSPC with the words of the kernel', async () => {
  const { metadataSm, log } = await Scratch.format({ nrBlocks: 50 });
  assert.throws(
    () => {
      for (;;) metadataSm.newBlock();
    },
    (error) => error instanceof DmError && error.errno === 'ENOSPC',
  );
  assert.deepEqual(log.take(), ['space map metadata: unable to allocate new metadata block']);
});
