/**
 * The disk space map against a plain array of counts: allocation, counts up to tens, growth over
 * bitmap boundaries, and the rule that protects the last commit (spec: persistent-data, 6.6).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DmError } from '../../../src/base/error.ts';
import { asDataBlock } from '../../../src/persistent-data/space-map/disk.ts';
import { ENTRIES_PER_BITMAP } from '../../../src/persistent-data/space-map/layout.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { checkScratch, Scratch, type ScratchWalk } from '../../helpers/scratch.ts';

type Op =
  | { op: 'allocate'; count: number }
  | { op: 'inc' | 'dec'; begin: number; count: number; times: number }
  | { op: 'extend'; extra: number }
  | { op: 'commit' }
  | { op: 'reopen' }
  | { op: 'abort' };

const NR_BLOCKS = 2000;

const begin = fc.oneof(fc.nat(NR_BLOCKS), fc.nat(60), fc.nat(3 * ENTRIES_PER_BITMAP));
const opArbitrary: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ op: fc.constant('allocate' as const), count: fc.nat(400) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constantFrom('inc', 'dec', 'dec'),
      begin,
      count: fc.oneof(fc.nat(20), fc.nat(800)),
      times: fc.integer({ min: 1, max: 25 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('extend' as const),
      extra: fc.oneof(fc.nat(100), fc.nat(2 * ENTRIES_PER_BITMAP)),
    }),
  },
  { weight: 3, arbitrary: fc.constant<Op>({ op: 'commit' }) },
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'reopen' }) },
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'abort' }) },
);

class Subject {
  scratch: Scratch;
  #counts: number[] = new Array<number>(NR_BLOCKS).fill(0);
  #committed: number[] = [...this.#counts];
  #begin = 0;
  countMax = 0;

  constructor(scratch: Scratch) {
    this.scratch = scratch;
  }

  async run(op: Op): Promise<void> {
    const { scratch } = this;
    scratch.blocks.newOperation();
    switch (op.op) {
      case 'allocate':
        for (let i = 0; i < op.count; i++) this.#allocate();
        break;
      case 'inc':
      case 'dec':
        for (let i = 0; i < op.times; i++) this.#change(op.op, op.begin, op.begin + op.count);
        break;
      case 'extend':
        scratch.dataSm.extend(op.extra);
        for (let i = 0; i < op.extra; i++) this.#counts.push(0);
        break;
      case 'commit':
        await this.commit();
        break;
      case 'reopen':
        await this.commit();
        this.scratch = Scratch.open(scratch.device);
        this.#begin = 0;
        break;
      case 'abort':
        scratch.abort();
        this.#counts = [...this.#committed];
        this.#begin = 0;
        break;
    }
  }

  /** The block that next-fit takes: free now, and free at the last commit. */
  #expected(): number | undefined {
    const isFree = (block: number): boolean =>
      this.#counts[block] === 0 && (this.#committed[block] ?? 0) === 0;
    for (let b = this.#begin; b < this.#counts.length; b++) if (isFree(b)) return b;
    for (let b = 0; b < this.#begin; b++) if (isFree(b)) return b;
    return undefined;
  }

  #allocate(): void {
    const expected = this.#expected();
    if (expected === undefined) {
      assert.throws(
        () => this.scratch.dataSm.newBlock(),
        (error) => error instanceof DmError && error.errno === 'ENOSPC',
      );
      return;
    }
    assert.equal(this.scratch.dataSm.newBlock(), expected);
    this.#counts[expected] = 1;
    this.#begin = expected + 1;
  }

  /** Changes the counts of those runs in the range where that is allowed. */
  #change(op: 'inc' | 'dec', begin: number, end: number): void {
    const { dataSm } = this.scratch;
    const counts = this.#counts;
    const isAllowed = (b: number): boolean => op === 'inc' || (counts[b] as number) > 0;
    for (let b = begin; b < Math.min(end, counts.length); b++) {
      const from = b;
      while (b < Math.min(end, counts.length) && isAllowed(b)) {
        counts[b] = (counts[b] as number) + (op === 'inc' ? 1 : -1);
        this.countMax = Math.max(this.countMax, counts[b] as number);
        b++;
      }
      if (from < b) dataSm[op](from, b);
    }
  }

  readonly #walk: ScratchWalk = (_run, _slots, data) => {
    for (const [block, count] of this.#counts.entries()) if (count > 0) data.add(block, count);
  };

  async commit(): Promise<void> {
    await this.scratch.commit();
    this.#committed = [...this.#counts];
    assert.deepEqual(checkScratch(this.scratch.device, this.#walk), []);
    const { dataSm } = this.scratch;
    const nrUsed = this.#counts.filter((count) => count > 0).length;
    assert.equal(dataSm.nrBlocks, this.#counts.length);
    assert.equal(dataSm.nrFree, this.#counts.length - nrUsed);
    for (let b = 0; b < this.#counts.length; b += 7) {
      const block = asDataBlock(b);
      const count = this.#counts[b] as number;
      assert.equal(dataSm.count(block), count);
      assert.equal(dataSm.isFree(block), count === 0);
      assert.equal(dataSm.countIsMoreThanOne(block), count > 1);
    }
  }
}

test('the disk space map agrees with an array of counts, and takes the block that next-fit takes', async () => {
  const ops = fc.array(opArbitrary, { maxLength: 60, size: 'max' });
  let countMax = 0;
  await fc.assert(
    fc.asyncProperty(ops, async (list) => {
      const scratch = await Scratch.format({ nrBlocks: 2000, nrDataBlocks: NR_BLOCKS });
      const subject = new Subject(scratch);
      for (const op of list) await subject.run(op);
      await subject.commit();
      countMax = Math.max(countMax, subject.countMax);
    }),
    { seed: seedOf(1), numRuns: 40, includeErrorInReport: true },
  );
  assert.ok(countMax > 30, `counts went up to ${countMax}`);
});

test('a block freed in this transaction is not handed out before the commit', async () => {
  const { dataSm, ...rest } = await fullMap();
  dataSm.dec(3, 4);
  assert.throws(() => dataSm.newBlock(), /no free data block/);
  // It counts as free at once all the same.
  assert.equal(dataSm.nrFree, 1);
  await rest.commit();
  assert.equal(dataSm.newBlock(), 3);
});

async function fullMap(): Promise<{ dataSm: Scratch['dataSm']; commit: () => Promise<void> }> {
  const scratch = await Scratch.format({ nrDataBlocks: 10 });
  const { dataSm } = scratch;
  for (let i = 0; i < 10; i++) assert.equal(dataSm.newBlock(), i);
  await scratch.commit();
  return { dataSm, commit: () => scratch.commit() };
}

test('a block allocated and freed in one transaction can be had again in it', async () => {
  const scratch = await Scratch.format({ nrDataBlocks: 3 });
  const { dataSm } = scratch;
  for (let i = 0; i < 3; i++) dataSm.newBlock();
  dataSm.dec(1, 2);
  assert.equal(dataSm.newBlock(), 1);
});

test('a block that is skipped is not taken, and a found one is taken only by its count', async () => {
  const { dataSm } = await Scratch.format({ nrDataBlocks: 5 });
  const held = new Set([0, 1, 3]);
  assert.equal(dataSm.findFree(held), 2);
  assert.equal(dataSm.findFree(held), 4);
  assert.equal(dataSm.findFree(held), 2);
  assert.throws(() => dataSm.findFree(new Set([0, 1, 2, 3, 4])), /no free data block/);
});

test('freeing what is free is EINVAL, with the words of the kernel', async () => {
  const { dataSm, log } = await Scratch.format();
  assert.throws(() => dataSm.dec(5, 6), /unable to decrement block 5/);
  assert.deepEqual(log.take(), ['space map common: unable to decrement block']);
});

test('a count beyond the end is EINVAL, with the words of the kernel', async () => {
  const { dataSm, log } = await Scratch.format({ nrDataBlocks: 10 });
  const einval = (error: unknown): boolean => error instanceof DmError && error.errno === 'EINVAL';
  assert.throws(() => dataSm.count(asDataBlock(10)), einval);
  assert.throws(() => dataSm.inc(8, 11), einval);
  assert.deepEqual(log.take(), [
    'space map common: metadata block out of bounds',
    'space map common: metadata block out of bounds',
  ]);
});

test('65536 data blocks have five index entries, the last bitmap being counted whole', async () => {
  const scratch = await Scratch.format({ nrDataBlocks: 65_536 });
  await scratch.commit();
  assert.deepEqual(checkScratch(scratch.device), []);
  assert.equal(scratch.dataSm.nrBlocks, 65_536);
});

test('more bitmaps than the write-back cache has slots keep their entries', async () => {
  const nrBlocks = 200 * ENTRIES_PER_BITMAP;
  const scratch = await Scratch.format({ nrDataBlocks: nrBlocks, nrBlocks: 4096 });
  const random = new Random(seedOf(1));
  const taken = new Set<number>();
  for (let i = 0; i < 3000; i++) {
    const block = random.below(nrBlocks);
    if (taken.has(block)) continue;
    taken.add(block);
    scratch.dataSm.inc(block, block + 1);
  }
  await scratch.commit();
  const lines = checkScratch(scratch.device, (_run, _slots, data) => {
    for (const block of taken) data.add(block);
  });
  assert.deepEqual(lines, []);
});
