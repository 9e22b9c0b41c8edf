/**
 * Two-bit counts in bitmap blocks (spec: persistent-data, 6.2).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  bitmapFindFree,
  bitmapGet,
  bitmapHeader,
  bitmapSet,
  ENTRIES_PER_BITMAP,
} from '../../../src/persistent-data/space-map/layout.ts';
import { seedOf } from '../../helpers/random.ts';

const freshBitmap = (): DataView => new DataView(new ArrayBuffer(4096));

test('counts 2,0,0,2,2,1,1 make the word 0x2941', () => {
  const view = freshBitmap();
  for (const [entry, count] of [2, 0, 0, 2, 2, 1, 1].entries()) bitmapSet(view, entry, count);
  assert.equal(view.getUint32(bitmapHeader.size, true), 0x2941);
});

test('eight counts of one make the word 0xaaaa', () => {
  const view = freshBitmap();
  for (let entry = 0; entry < 8; entry++) bitmapSet(view, entry, 1);
  assert.equal(view.getUint32(bitmapHeader.size, true), 0xaaaa);
});

test('counts and the search for a free entry agree with a plain array', () => {
  const entry = fc.nat(ENTRIES_PER_BITMAP - 1);
  const run = fc.record({ begin: entry, length: fc.nat(200), count: fc.nat(3) });
  const search = fc.tuple(entry, entry);
  fc.assert(
    fc.property(
      fc.nat(3),
      fc.array(run, { maxLength: 50, size: 'max' }),
      fc.array(search, { maxLength: 20 }),
      (fill, runs, searches) => {
        const view = freshBitmap();
        const model = new Array<number>(ENTRIES_PER_BITMAP).fill(fill);
        for (let i = 0; i < ENTRIES_PER_BITMAP; i++) bitmapSet(view, i, fill);
        for (const { begin, length, count } of runs) {
          const end = Math.min(begin + length, ENTRIES_PER_BITMAP);
          for (let i = begin; i < end; i++) {
            bitmapSet(view, i, count);
            model[i] = count;
          }
        }
        for (let i = 0; i < ENTRIES_PER_BITMAP; i++) {
          if (bitmapGet(view, i) !== model[i]) assert.fail(`entry ${i} is ${bitmapGet(view, i)}`);
        }
        for (const [begin, end] of searches) {
          const found = model.slice(begin, end).indexOf(0);
          assert.equal(bitmapFindFree(view, begin, end), found < 0 ? -1 : begin + found);
        }
        assert.ok(new Uint8Array(view.buffer, 0, bitmapHeader.size).every((byte) => byte === 0));
      },
    ),
    { seed: seedOf(1), numRuns: 40, includeErrorInReport: true },
  );
});
