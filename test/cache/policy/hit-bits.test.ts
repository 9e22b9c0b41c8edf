/** Hit bits, up to the last period that can be counted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HitBits } from '../../../src/cache/policy/hit-bits.ts';

for (const firstPeriod of [1, 2 ** 32 - 2, 2 ** 32 - 1]) {
  test(`hit bits that are cleared are clear, from period ${firstPeriod} on`, () => {
    const bits = new HitBits(3, firstPeriod);
    assert.ok(!bits.has(0), 'at first');
    for (let period = 0; period < 4; period++) {
      bits.set(0);
      bits.set(1);
      assert.ok(bits.has(0) && bits.has(1) && !bits.has(2));
      bits.clear(1);
      assert.ok(bits.has(0) && !bits.has(1));
      bits.clearAll();
      assert.ok(!bits.has(0) && !bits.has(1) && !bits.has(2));
    }
  });
}
