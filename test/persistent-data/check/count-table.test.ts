/**
 * Compact counts against a map.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CountTable } from '../../../src/persistent-data/check/count-table.ts';
import { seedOf } from '../../helpers/random.ts';

test('counts of any blocks, small and large, agree with a map', () => {
  const block = fc.oneof(fc.nat(20), fc.nat(200_000), fc.nat(2 ** 31), fc.constant(2 ** 40 - 1));
  const by = fc.oneof(fc.constant(1), fc.constantFrom(1, 2, 253, 254, 255, 256), fc.nat(2 ** 31));
  const add = fc.tuple(block, by);
  fc.assert(
    fc.property(fc.array(add, { maxLength: 300, size: 'max' }), (adds) => {
      const table = new CountTable();
      const model = new Map<number, number>();
      for (const [n, count] of adds) {
        table.add(n, count);
        model.set(n, (model.get(n) ?? 0) + count);
      }
      for (const [n, count] of model) {
        assert.equal(table.get(n), count);
        assert.equal(table.get(n + 1), model.get(n + 1) ?? 0);
        assert.ok(!table.isUntouched(n, n + 1));
      }
      assert.equal(table.highest, Math.max(-1, ...model.keys()));
    }),
    { seed: seedOf(1), numRuns: 200, includeErrorInReport: true },
  );
});

test('a table that nothing was counted in is untouched everywhere', () => {
  const table = new CountTable();
  assert.ok(table.isUntouched(0, 2 ** 20));
  table.add(70_000);
  assert.ok(table.isUntouched(0, 100));
  assert.ok(!table.isUntouched(0, 70_001));
  assert.ok(table.isUntouched(200_000, 300_000));
});
