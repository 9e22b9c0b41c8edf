/** The index of blocks, against a Map. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EntryIndex } from '../../../src/cache/policy/entry-index.ts';
import { EntryPool, NONE } from '../../../src/cache/policy/entry-pool.ts';
import { seedOf } from '../../helpers/random.ts';

/** Few blocks, so that they meet again, of all sizes that 48 bits have. */
const block = fc.oneof(
  fc.nat(40),
  fc.nat(40).map((n) => n * 2 ** 32),
  fc.nat(40).map((n) => n * 2 ** 32 + n),
  fc.nat(40).map((n) => 2 ** 48 - 1 - n),
);

test('the index finds what a Map finds, through insertions and removals', () => {
  const seed = seedOf(17);
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.array(block, { maxLength: 300, size: 'max' }),
      (nrEntries, blocks) => {
        const pool = new EntryPool(nrEntries);
        const index = new EntryIndex(pool);
        const map = new Map<number, number>();
        for (const each of blocks) {
          const known = map.get(each);
          assert.equal(index.find(each), known ?? NONE);
          if (known !== undefined) {
            index.remove(known);
            pool.free(known);
            map.delete(each);
            continue;
          }
          const e = pool.allocate();
          if (e === NONE) continue;
          pool.block[e] = each;
          index.insert(e);
          map.set(each, e);
          assert.equal(index.nrEntries, map.size);
          for (const [other, entry] of map) assert.equal(index.find(other), entry);
        }
      },
    ),
    { seed, numRuns: 100 },
  );
});

test('a full index of neighbouring blocks, and of far ones with equal low words, still finds all', () => {
  for (const step of [1, 16, 2 ** 32, 2 ** 32 + 1]) {
    const pool = new EntryPool(4096);
    const index = new EntryIndex(pool);
    for (let i = 0; i < 4096; i++) {
      const e = pool.allocate();
      pool.block[e] = i * step;
      index.insert(e);
    }
    for (let i = 0; i < 4096; i++) assert.equal(index.find(i * step), i);
    assert.equal(index.find(4096 * step), NONE);
  }
});

test('a block is in the index once', () => {
  const pool = new EntryPool(2);
  const index = new EntryIndex(pool);
  for (let i = 0; i < 2; i++) pool.block[pool.allocate()] = 5;
  index.insert(0);
  assert.throws(() => index.insert(1), /a block is mapped once/);
  assert.throws(() => new EntryIndex(pool).remove(0), /is there/);
});
