/** Feature arguments of a pool's table line. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatFeatures, parseFeatures } from '../../../src/thin/target/features.ts';

test('features are shown in one order, however they were given', () => {
  const words = '3 error_if_no_space NO_DISCARD_PASSDOWN skip_block_zeroing'.split(' ');
  const shown = formatFeatures(parseFeatures(words));
  assert.equal(shown, '3 skip_block_zeroing no_discard_passdown error_if_no_space ');
});

test('no features are shown as a zero and a blank', () => {
  assert.equal(formatFeatures(parseFeatures([])), '0 ');
  assert.equal(formatFeatures(parseFeatures(['0'])), '0 ');
});

test('a count that is no number, too large, or above the words there is refused', () => {
  for (const words of ['x', '5 a b c d e', '2 read_only', '-1', '1']) {
    assert.throws(
      () => parseFeatures(words.split(' ')),
      /Invalid number of pool feature arguments/,
    );
  }
});
