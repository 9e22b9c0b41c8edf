/**
 * Arrays against a model, and the order in which they take blocks (spec: persistent-data, 9).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DmError } from '../../src/base/error.ts';
import { getLe64, setLe64, type ReadView } from '../../src/base/struct.ts';
import { DmArray } from '../../src/persistent-data/array.ts';
import { walkArray } from '../../src/persistent-data/array-cursor.ts';
import { arrayEntriesFor, arrayHeader } from '../../src/persistent-data/array-layout.ts';
import { asBlockNr } from '../../src/persistent-data/block.ts';
import { makeEntry } from '../../src/persistent-data/btree/btree.ts';
import { makeValue } from '../../src/persistent-data/btree/insert.ts';
import { plainValueType, type ValueType } from '../../src/persistent-data/btree/value-type.ts';
import { checkArray } from '../../src/persistent-data/check/array-check.ts';
import { seedOf } from '../helpers/random.ts';
import { checkScratch, Scratch, type ScratchWalk } from '../helpers/scratch.ts';

function arrayOf(scratch: Scratch, valueSize: number): DmArray {
  return new DmArray(scratch.tm, plainValueType(valueSize));
}

function valueOf(size: number, n: number): ReturnType<typeof makeValue> {
  const value = makeValue(size);
  value.view.setUint32(0, n, true);
  value.view.setUint32(size - 4, n, true);
  return value;
}

function valuesOf(array: DmArray, root: number): number[] {
  const found: number[] = [];
  walkArray(array, asBlockNr(root), (index, view, offset) => {
    assert.equal(index, found.length);
    found.push(view.getUint32(offset, true));
    const { size } = array.valueType;
    assert.equal(view.getUint32(offset + size - 4, true), found[index]);
  });
  return found;
}

/** The numbers of values in the array blocks, in order. */
function shapeOf(array: DmArray, root: number): number[] {
  const shape = new Map<ReadView, number>();
  walkArray(array, asBlockNr(root), (_, view) => {
    shape.set(view, arrayHeader.nrEntries.get(view, 0));
  });
  return [...shape.values()];
}

test('an array block holds 509 values of 8 bytes and 1018 of 4', () => {
  assert.equal(arrayEntriesFor(8), 509);
  assert.equal(arrayEntriesFor(4), 1018);
});

test('a new array takes its empty tree first, then a block for each 509 values', async () => {
  const scratch = await Scratch.format();
  const array = arrayOf(scratch, 8);
  const before = scratch.metadataSm.nrFree;
  const asked: number[] = [];
  const root = array.create(1200, (index, view, offset) => {
    asked.push(index);
    setLe64(view, offset, index * 3);
  });
  assert.deepEqual(
    asked,
    Array.from({ length: 1200 }, (_, i) => i),
  );
  assert.deepEqual(shapeOf(array, root), [509, 509, 182]);
  const entry = makeEntry();
  array.get(root, 1199, entry);
  assert.equal(getLe64(entry.view, entry.offset), 3597);
  // The tree, the bitmap's shadow that the first allocation costs, and three blocks.
  assert.equal(before - scratch.metadataSm.nrFree, 5);
  const blocks: number[] = [];
  for (let key = 0; key < 3; key++) {
    array.index.lookup(root, key, entry);
    blocks.push(getLe64(entry.view, entry.offset) - root);
  }
  assert.deepEqual(blocks, [2, 3, 4]);
});

test('a value beyond the end is ENODATA, and asking changes nothing', async () => {
  const scratch = await Scratch.format();
  const array = arrayOf(scratch, 8);
  const root = array.create(600, () => undefined);
  const before = scratch.metadataSm.nrFree;
  const enodata = (error: unknown): boolean =>
    error instanceof DmError && error.errno === 'ENODATA';
  assert.throws(() => array.get(root, 600, makeEntry()), enodata);
  assert.throws(() => array.get(root, 1018, makeEntry()), enodata);
  assert.throws(() => array.set(root, 600, valueOf(8, 1)), enodata);
  assert.throws(() => array.set(root, 5000, valueOf(8, 1)), enodata);
  assert.equal(scratch.metadataSm.nrFree, before);
});

test('an array of another value size is refused, not misread', async () => {
  const scratch = await Scratch.format();
  const root = arrayOf(scratch, 4).create(10, () => undefined);
  assert.throws(
    () => arrayOf(scratch, 8).get(root, 3, makeEntry()),
    /wanted values of 8 bytes in block \d+, found 4/,
  );
});

test('shrinking to whole blocks removes the block that the kernel leaves behind', async () => {
  const scratch = await Scratch.format();
  const array = arrayOf(scratch, 8);
  const full = array.create(600, () => undefined);
  scratch.slots[0] = array.resize(full, 600, 509, valueOf(8, 0));
  assert.deepEqual(shapeOf(array, scratch.slot(0)), [509]);
  await scratch.commit();
  const walk: ScratchWalk = (run, [root = 0]) =>
    checkArray(run, root, { name: 'array', valueSize: 8, nrValues: 509 });
  assert.deepEqual(checkScratch(scratch.device, walk), []);
});

test('a block left behind by the kernel is noted, overwritten by growth, removed by shrinking', async () => {
  for (const newSize of [1100, 100]) {
    const scratch = await Scratch.format();
    const array = arrayOf(scratch, 8);
    // Two blocks, of which the owner knows of the first only: what the kernel makes of 600 → 509.
    scratch.slots[0] = array.create(600, () => undefined);
    await scratch.commit();
    const walk =
      (nrValues: number): ScratchWalk =>
      (run, [root = 0]) =>
        checkArray(run, root, { name: 'array', valueSize: 8, nrValues });
    assert.match(checkScratch(scratch.device, walk(509)).join(), /array block 1 .*\(surplus\)$/);
    scratch.slots[0] = array.resize(scratch.slot(0), 509, newSize, valueOf(8, 7));
    await scratch.commit();
    assert.deepEqual(checkScratch(scratch.device, walk(newSize)), []);
    assert.equal(valuesOf(array, scratch.slot(0)).length, newSize);
  }
});

test('values that refer to data blocks are counted as often as they are held', async () => {
  const scratch = await Scratch.format();
  const { dataSm } = scratch;
  const at = (view: ReadView, offset: number, i: number): number => getLe64(view, offset + i * 8);
  const type: ValueType = {
    size: 8,
    inc(view, offset, count) {
      for (let i = 0; i < count; i++) dataSm.inc(at(view, offset, i), at(view, offset, i) + 1);
    },
    dec(view, offset, count) {
      for (let i = 0; i < count; i++) dataSm.dec(at(view, offset, i), at(view, offset, i) + 1);
    },
    equal: (a, aOffset, b, bOffset) => getLe64(a, aOffset) === getLe64(b, bOffset),
  };
  const array = new DmArray(scratch.tm, type);
  const walk: ScratchWalk = (run, slots, data) => {
    for (const root of slots.slice(0, 2).filter((slot) => slot !== 0)) {
      checkArray(run, root, {
        name: 'array',
        valueSize: 8,
        nrValues: 700,
        visitValues(_, count, view, offset) {
          for (let i = 0; i < count; i++) data.add(at(view, offset, i));
        },
      });
    }
  };
  const commit = async (): Promise<void> => {
    await scratch.commit();
    assert.deepEqual(checkScratch(scratch.device, walk), []);
  };
  const next = makeValue(8);
  const take = (): typeof next => {
    setLe64(next.view, 0, dataSm.newBlock());
    return next;
  };
  scratch.slots[0] = array.create(600, (_, view, offset) =>
    setLe64(view, offset, dataSm.newBlock()),
  );
  // Growth adds copies of one value, each with a reference of its own.
  const filler = makeValue(8);
  setLe64(filler.view, 0, 5);
  scratch.slots[0] = array.resize(scratch.slot(0), 600, 700, filler);
  await commit();
  assert.equal(dataSm.count(5 as never), 101);

  // A second holder of the whole array: the first change of a block counts its values once more.
  scratch.tm.inc(scratch.slot(0));
  scratch.slots[1] = scratch.slot(0);
  scratch.slots[1] = array.set(scratch.slot(1), 3, take());
  scratch.slots[1] = array.set(scratch.slot(1), 600, take());
  await commit();

  // Alone in its transaction, a set moves the block: no value's count changes but the two.
  const before = dataSm.nrFree;
  scratch.slots[1] = array.set(scratch.slot(1), 4, take());
  await commit();
  assert.equal(before - dataSm.nrFree, 1);

  array.delete(scratch.slot(0));
  scratch.slots[0] = asBlockNr(0);
  await commit();
  array.delete(scratch.slot(1));
  scratch.slots[1] = asBlockNr(0);
  await commit();
  assert.equal(dataSm.nrFree, dataSm.nrBlocks);
});

// --- against a model

type Op =
  | { op: 'set'; index: number; count: number }
  | { op: 'resize'; size: number }
  | { op: 'snapshot' }
  | { op: 'swap' }
  | { op: 'commit' }
  | { op: 'reopen' }
  | { op: 'abort' };

function opArbitrary(sizeMax: number): fc.Arbitrary<Op> {
  const simple = (op: 'snapshot' | 'swap' | 'commit' | 'reopen' | 'abort'): fc.Arbitrary<Op> =>
    fc.constant({ op });
  return fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        op: fc.constant('set' as const),
        index: fc.nat(sizeMax),
        count: fc.integer({ min: 1, max: 30 }),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        op: fc.constant('resize' as const),
        size: fc.oneof(
          fc.nat(sizeMax),
          fc.constantFrom(0, 1, 508, 509, 510, 1018, 1019, 2 * 1018, 3 * 509),
        ),
      }),
    },
    { weight: 1, arbitrary: simple('snapshot') },
    { weight: 1, arbitrary: simple('swap') },
    { weight: 2, arbitrary: simple('commit') },
    { weight: 1, arbitrary: simple('reopen') },
    { weight: 1, arbitrary: simple('abort') },
  );
}

/** Two arrays, that may share blocks, and what each should hold. */
class Subject {
  readonly #size: number;
  #scratch: Scratch;
  #array: DmArray;
  #models: [number[], number[]] = [[], []];
  #committed: [number[], number[]] = [[], []];
  #next = 1;

  constructor(scratch: Scratch, valueSize: number) {
    this.#size = valueSize;
    this.#scratch = scratch;
    this.#array = arrayOf(scratch, valueSize);
    scratch.slots[0] = this.#array.empty();
    scratch.slots[1] = this.#array.empty();
  }

  async run(op: Op): Promise<void> {
    const scratch = this.#scratch;
    const [model] = this.#models;
    scratch.blocks.newOperation();
    switch (op.op) {
      case 'set':
        for (let i = op.index; i < Math.min(op.index + op.count, model.length); i++) {
          model[i] = this.#next++;
          const value = valueOf(this.#size, model[i] as number);
          scratch.slots[0] = this.#array.set(scratch.slot(0), i, value);
        }
        break;
      case 'resize': {
        const fill = this.#next++;
        const value = valueOf(this.#size, fill);
        const old = model.length;
        scratch.slots[0] = this.#array.resize(scratch.slot(0), old, op.size, value);
        if (op.size < old) model.length = op.size;
        else for (let i = old; i < op.size; i++) model.push(fill);
        break;
      }
      case 'snapshot':
        this.#array.delete(scratch.slot(1));
        scratch.tm.inc(scratch.slot(0));
        scratch.slots[1] = scratch.slot(0);
        this.#models[1] = [...model];
        break;
      case 'swap':
        scratch.slots.splice(0, 2, scratch.slot(1), scratch.slot(0));
        this.#models.reverse();
        break;
      case 'commit':
        await this.commit();
        break;
      case 'reopen':
        await this.commit();
        this.#scratch = Scratch.open(scratch.device);
        this.#array = arrayOf(this.#scratch, this.#size);
        break;
      case 'abort':
        scratch.abort();
        this.#array = arrayOf(scratch, this.#size);
        this.#models = [[...this.#committed[0]], [...this.#committed[1]]];
        break;
    }
  }

  async commit(): Promise<void> {
    await this.#scratch.commit();
    this.#committed = [[...this.#models[0]], [...this.#models[1]]];
    assert.deepEqual(checkScratch(this.#scratch.device, this.#walk), []);
    for (const [i, model] of this.#models.entries()) {
      assert.deepEqual(valuesOf(this.#array, this.#scratch.slot(i)), model);
      const entry = makeEntry();
      for (let index = 0; index < model.length; index += 97) {
        this.#array.get(this.#scratch.slot(i), index, entry);
        assert.equal(entry.view.getUint32(entry.offset, true), model[index]);
      }
    }
  }

  readonly #walk: ScratchWalk = (run, slots) => {
    for (const [i, model] of this.#models.entries()) {
      const spec = { name: 'array', valueSize: this.#size, nrValues: model.length };
      checkArray(run, slots[i] as number, spec);
    }
  };
}

for (const valueSize of [4, 8, 1000]) {
  test(`arrays of ${valueSize}-byte values agree with lists`, async () => {
    const sizeMax = valueSize === 1000 ? 1500 : 4000;
    const ops = fc.array(opArbitrary(sizeMax), { maxLength: 80, size: 'max' });
    await fc.assert(
      fc.asyncProperty(ops, async (list) => {
        const subject = new Subject(await Scratch.format({ nrBlocks: 8000 }), valueSize);
        await subject.commit();
        for (const op of list) await subject.run(op);
        await subject.commit();
      }),
      { seed: seedOf(valueSize), numRuns: 40, includeErrorInReport: true },
    );
  });
}
