/**
 * Power cuts at every event of seeded workloads: whatever part of the unpromised writes is lost or
 * torn, what was promised is there, snapshots are as they were, nobody's data shows up elsewhere,
 * and the metadata is sound. `npm run simulate -- --seed N` shows a run in full.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BlockDevice } from '../../src/block/device.ts';
import { seedOf } from '../helpers/random.ts';
import { assertClean } from '../helpers/check.ts';
import { run } from './run.ts';

/** Cuts of all tests here together must come to 10,000 at least. */
const WANTED_CUTS = 3400;
const STEPS = 800;
/** Every so many images Debian's thin_check looks, too. */
const CHECK_EVERY = 400;

const variants = [
  { name: 'passdown', features: '0' },
  { name: 'no passdown', features: '1 no_discard_passdown' },
  { name: 'no discards', features: '1 ignore_discard' },
];

for (const [index, { name, features }] of variants.entries()) {
  const seed = seedOf(100 + index);
  test(`no cut of the power breaks a promise: ${name} (seed ${seed})`, async () => {
    const sample: BlockDevice[] = [];
    let nrImages = 0;
    const nrCuts = await run({
      seed,
      nrSteps: STEPS,
      cutsPerEvent: 2,
      features,
      onImage: (metadata) => {
        if (nrImages++ % CHECK_EVERY !== 0) return;
        sample.push(metadata);
      },
    });
    assert.ok(nrCuts >= WANTED_CUTS, `wanted ${WANTED_CUTS} cuts, made ${nrCuts}`);
    for (const metadata of sample) await assertClean(metadata);
  });
}

test('a run is a function of its seed', async () => {
  const diaries = await Promise.all(
    [7, 7].map(async (seed) => {
      const lines: string[] = [];
      await run({ seed, nrSteps: 80, onLife: (life) => lines.push(...life.diary) });
      return lines;
    }),
  );
  assert.deepEqual(diaries[0], diaries[1]);
  assert.ok((diaries[0]?.length ?? 0) > 40);
});
