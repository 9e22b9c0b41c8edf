/**
 * Bitsets against a model, their layout, and when the word in memory is written back
 * (spec: persistent-data, 10).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DmError } from '../../src/base/error.ts';
import { DmArray } from '../../src/persistent-data/array.ts';
import { Bitset } from '../../src/persistent-data/bitset.ts';
import { asBlockNr, type BlockNr } from '../../src/persistent-data/block.ts';
import { makeEntry } from '../../src/persistent-data/btree/btree.ts';
import { plainValueType } from '../../src/persistent-data/btree/value-type.ts';
import { checkBitset } from '../../src/persistent-data/check/array-check.ts';
import { seedOf } from '../helpers/random.ts';
import { checkScratch, Scratch } from '../helpers/scratch.ts';

/** The 64 bits of a word, the least significant first. */
function wordOf(scratch: Scratch, root: BlockNr, index: number): string {
  const entry = makeEntry();
  new DmArray(scratch.tm, plainValueType(8)).get(root, index, entry);
  const low = BigInt(entry.view.getUint32(entry.offset, true));
  const high = BigInt(entry.view.getUint32(entry.offset + 4, true));
  return [...((high << 32n) | low).toString(2).padStart(64, '0')].reverse().join('');
}

test('a bit is counted from the least significant of its 64-bit word', async () => {
  const scratch = await Scratch.format();
  const asked: number[] = [];
  const bits = Bitset.create(scratch.tm, 100, (bit) => {
    asked.push(bit);
    return bit === 3 || bit === 63 || bit === 64 || bit === 99;
  });
  assert.deepEqual(
    asked,
    Array.from({ length: 100 }, (_, i) => i),
  );
  assert.equal(wordOf(scratch, bits.root, 0), `0001${'0'.repeat(59)}1`);
  assert.equal(wordOf(scratch, bits.root, 1), `1${'0'.repeat(34)}1${'0'.repeat(28)}`);
});

test('a word is written back when another is needed, or by a flush', async () => {
  const scratch = await Scratch.format();
  const bits = Bitset.create(scratch.tm, 128, () => false);
  bits.setBit(5);
  assert.ok(bits.isDirty);
  assert.equal(wordOf(scratch, bits.root, 0), '0'.repeat(64));
  assert.equal(bits.testBit(5), true);
  assert.equal(bits.testBit(64), false);
  assert.ok(!bits.isDirty);
  assert.equal(wordOf(scratch, bits.root, 0).indexOf('1'), 5);
  bits.setBit(64);
  bits.flush();
  assert.equal(wordOf(scratch, bits.root, 1).indexOf('1'), 0);
});

test('setting a bit that is set already writes its word all the same, as in the kernel', async () => {
  const scratch = await Scratch.format();
  const bits = Bitset.create(scratch.tm, 64, () => true);
  scratch.slots[0] = bits.root;
  await scratch.commit();
  bits.setBit(1);
  bits.flush();
  assert.notEqual(bits.root, scratch.slot(0));
});

test('growing fills whole words and leaves the unused bits of the old last one', async () => {
  const scratch = await Scratch.format();
  const bits = Bitset.create(scratch.tm, 10, () => false);
  bits.resize(10, 130, true);
  assert.equal(bits.testBit(10), false);
  assert.equal(bits.testBit(63), false);
  assert.equal(bits.testBit(64), true);
  assert.equal(bits.testBit(129), true);
  bits.resize(130, 64, false);
  assert.throws(
    () => bits.testBit(64),
    (error) => error instanceof DmError && error.errno === 'ENODATA',
  );
  assert.equal(bits.testBit(63), false);
});

test('a cursor reads from any bit on, and stops where the owner says', async () => {
  const scratch = await Scratch.format();
  const nrBits = 64 * 509 + 70;
  const bits = Bitset.create(scratch.tm, nrBits, (bit) => bit % 7 === 0);
  for (const from of [0, 1, 63, 64, 64 * 509 - 1, 64 * 509, nrBits - 1, nrBits]) {
    let expected = from;
    for (const cursor = bits.cursor(nrBits, from); !cursor.atEnd; cursor.next()) {
      assert.equal(cursor.bit, expected);
      assert.equal(cursor.value, expected % 7 === 0);
      expected++;
    }
    assert.equal(expected, nrBits);
  }
});

test('the check shows an owner each set bit and no other', async () => {
  const scratch = await Scratch.format();
  const isSet = (bit: number): boolean => bit % 3 === 1 || bit > 40_000;
  const bits = Bitset.create(scratch.tm, 41_000, isSet);
  scratch.slots[0] = bits.root;
  await scratch.commit();
  const seen: number[] = [];
  const lines = checkScratch(scratch.device, (run, [root = 0]) =>
    checkBitset(run, root, { name: 'bits', nrBits: 41_000, visitSetBit: (bit) => seen.push(bit) }),
  );
  assert.deepEqual(lines, []);
  assert.deepEqual(
    seen,
    Array.from({ length: 41_000 }, (_, i) => i).filter((bit) => isSet(bit)),
  );
});

// --- against a model

type Op =
  | { op: 'set' | 'clear'; bit: number; count: number }
  | { op: 'resize'; size: number; value: boolean }
  | { op: 'recreate'; size: number; every: number }
  | { op: 'commit' }
  | { op: 'reopen' }
  | { op: 'abort' };

const SIZE_MAX = 80_000;
const size = fc.oneof(
  fc.nat(SIZE_MAX),
  fc.nat(300),
  fc.constantFrom(0, 1, 63, 64, 65, 509 * 64, 509 * 64 + 1, 509 * 64 - 1),
);
const bit = fc.oneof(fc.nat(SIZE_MAX), fc.nat(300));
const count = fc.integer({ min: 1, max: 200 });
const opArbitrary: fc.Arbitrary<Op> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ op: fc.constantFrom('set', 'clear'), bit, count }) },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('resize' as const), size, value: fc.boolean() }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('recreate' as const),
      size,
      every: fc.integer({ min: 1, max: 5 }),
    }),
  },
  { weight: 2, arbitrary: fc.constant<Op>({ op: 'commit' }) },
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'reopen' }) },
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'abort' }) },
);

interface Model {
  nrBits: number;
  /** All bits of all words, also those past the end. */
  bits: boolean[];
}

class Subject {
  #scratch: Scratch;
  #bits: Bitset;
  #model: Model = { nrBits: 0, bits: [] };
  #committed: Model = { nrBits: 0, bits: [] };

  constructor(scratch: Scratch) {
    this.#scratch = scratch;
    this.#bits = Bitset.empty(scratch.tm);
  }

  async run(op: Op): Promise<void> {
    const model = this.#model;
    this.#scratch.blocks.newOperation();
    switch (op.op) {
      case 'set':
      case 'clear':
        for (let b = op.bit; b < Math.min(op.bit + op.count, model.nrBits); b++) {
          if (op.op === 'set') this.#bits.setBit(b);
          else this.#bits.clearBit(b);
          model.bits[b] = op.op === 'set';
        }
        break;
      case 'resize':
        this.#bits.resize(model.nrBits, op.size, op.value);
        while (model.bits.length < Math.ceil(op.size / 64) * 64) model.bits.push(op.value);
        model.bits.length = Math.ceil(op.size / 64) * 64;
        model.nrBits = op.size;
        break;
      case 'recreate':
        // As a cache does with its dirty bits at each clean shutdown.
        this.#bits.delete();
        this.#bits = Bitset.create(this.#scratch.tm, op.size, (b) => b % op.every === 0);
        model.nrBits = op.size;
        model.bits = Array.from(
          { length: Math.ceil(op.size / 64) * 64 },
          (_, b) => b < op.size && b % op.every === 0,
        );
        break;
      case 'commit':
        await this.commit();
        break;
      case 'reopen':
        await this.commit();
        this.#scratch = Scratch.open(this.#scratch.device);
        this.#bits = Bitset.open(this.#scratch.tm, this.#scratch.slot(0));
        break;
      case 'abort':
        this.#scratch.abort();
        this.#bits = Bitset.open(this.#scratch.tm, this.#scratch.slot(0));
        this.#model = { nrBits: this.#committed.nrBits, bits: [...this.#committed.bits] };
        break;
    }
  }

  async commit(): Promise<void> {
    this.#bits.flush();
    this.#scratch.slots[0] = this.#bits.root;
    await this.#scratch.commit();
    const { nrBits, bits } = this.#model;
    this.#committed = { nrBits, bits: [...bits] };
    const lines = checkScratch(this.#scratch.device, (run, [root = 0]) =>
      checkBitset(run, root, { name: 'bits', nrBits }),
    );
    assert.deepEqual(lines, []);
    const cursor = this.#bits.cursor(nrBits);
    for (let b = 0; b < nrBits; b++, cursor.next()) {
      if (cursor.value !== bits[b]) assert.fail(`bit ${b} is ${cursor.value}`);
    }
    assert.ok(cursor.atEnd);
    for (let b = 0; b < nrBits; b += 101) assert.equal(this.#bits.testBit(b), bits[b]);
  }
}

test('bitsets agree with lists of booleans', async () => {
  const ops = fc.array(opArbitrary, { maxLength: 80, size: 'max' });
  await fc.assert(
    fc.asyncProperty(ops, async (list) => {
      const subject = new Subject(await Scratch.format({ nrBlocks: 2000 }));
      await subject.commit();
      for (const op of list) await subject.run(op);
      await subject.commit();
    }),
    { seed: seedOf(1), numRuns: 40, includeErrorInReport: true },
  );
});

test('deleting a bitset frees all its blocks', async () => {
  const scratch = await Scratch.format();
  await scratch.commit();
  const before = scratch.metadataSm.nrFree;
  const bits = Bitset.create(scratch.tm, 100_000, () => true);
  bits.setBit(9);
  scratch.slots[0] = bits.root;
  bits.flush();
  await scratch.commit();
  bits.delete();
  scratch.slots[0] = asBlockNr(0);
  await scratch.commit();
  await scratch.commit();
  assert.equal(scratch.metadataSm.nrFree, before);
  assert.deepEqual(checkScratch(scratch.device), []);
});
