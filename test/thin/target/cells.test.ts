/** Cells and deferred sets: what is held, who waits, and what runs when. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Bio } from '../../../src/block/bio.ts';
import { CellSpace, type Cell } from '../../../src/thin/target/cells.ts';
import { DeferredSet, type DeferredEntry } from '../../../src/thin/target/deferred-set.ts';
import { seedOf } from '../../helpers/random.ts';

test('a held range is found by every block in it, and by no other', () => {
  const space = new CellSpace();
  const range = space.hold(10, 20, null);
  const single = space.hold(5, 6, new Bio());
  assert.equal(space.heldAt(10), range);
  assert.equal(space.heldAt(19), range);
  assert.equal(space.heldAt(20), null);
  assert.equal(space.heldAt(5), single);
  assert.equal(space.heldIn(0, 5), null);
  assert.equal(space.heldIn(0, 6), single);
  assert.equal(space.heldIn(15, 100), range);
  single.release();
  range.release();
  assert.equal(space.isEmpty, true);
});

test('a range is not held twice, and not released twice', () => {
  const space = new CellSpace();
  const cell = space.hold(3, 4, null);
  assert.throws(() => space.hold(3, 4, null), /held once/);
  cell.release();
  assert.throws(() => cell.release(), /was held/);
});

test('cells find overlaps as a list of ranges does', () => {
  const ranges = fc.array(fc.tuple(fc.nat(40), fc.integer({ min: 1, max: 8 })), { maxLength: 60 });
  fc.assert(
    fc.property(ranges, (list) => {
      const space = new CellSpace();
      const held: Cell[] = [];
      for (const [begin, length] of list) {
        const end = begin + length;
        const wanted = held.filter((cell) => cell.begin < end && cell.end > begin);
        const found = space.heldIn(begin, end);
        assert.equal(found === null, wanted.length === 0);
        if (found !== null) {
          assert.ok(wanted.includes(found));
          found.release();
          held.splice(held.indexOf(found), 1);
        } else {
          held.push(space.hold(begin, end, null));
        }
        for (let block = 0; block < 50; block++) {
          const cell = held.find((c) => c.begin <= block && block < c.end) ?? null;
          assert.equal(space.heldAt(block), cell);
        }
      }
    }),
    { seed: seedOf(1), numRuns: 300 },
  );
});

test('work waits for the I/O before it, and not for the I/O after it', () => {
  const done: string[] = [];
  const set = new DeferredSet<string>((work) => done.push(work));
  assert.equal(set.add('nothing in flight'), false, 'it need not wait');
  const first = set.enter();
  assert.equal(set.add('a'), true);
  const second = set.enter();
  assert.equal(set.add('b'), true);
  const third = set.enter();
  set.leave(third);
  assert.deepEqual(done, []);
  set.leave(second);
  assert.deepEqual(done, [], 'b waits for all before it');
  set.leave(first);
  assert.deepEqual(done, ['a', 'b']);
  assert.equal(set.add('c'), false);
});

test('work runs in order, once, when all I/O that came before it has ended', () => {
  const steps = fc.array(fc.constantFrom('enter', 'leave', 'add'), { maxLength: 200 });
  fc.assert(
    fc.property(steps, fc.infiniteStream(fc.nat()), (list, choices) => {
      const done: number[] = [];
      const set = new DeferredSet<number>((work) => done.push(work));
      const inFlight: { entry: DeferredEntry<number>; at: number }[] = [];
      const work: { nr: number; at: number }[] = [];
      for (const [at, step] of list.entries()) {
        if (step === 'enter') {
          inFlight.push({ entry: set.enter(), at });
        } else if (step === 'leave' && inFlight.length > 0) {
          const choice = choices.next().value as number;
          const [gone] = inFlight.splice(choice % inFlight.length, 1);
          if (gone !== undefined) set.leave(gone.entry);
        } else if (step === 'add') {
          const waits = set.add(at);
          assert.equal(waits, inFlight.length > 0 || work.length > done.length);
          if (waits) work.push({ nr: at, at });
        }
        const oldest = Math.min(...inFlight.map((io) => io.at), Infinity);
        const due = work.filter((item) => item.at < oldest).map((item) => item.nr);
        assert.deepEqual(done, due);
      }
    }),
    { seed: seedOf(2), numRuns: 500 },
  );
});
