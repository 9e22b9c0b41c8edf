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
import { run, type RunOptions } from './run.ts';

/** Cuts of all tests here together must come to 10,000 at least. */
const WANTED_CUTS = 1500;
const STEPS = 480;
/** Every so many images Debian's thin_check looks, too. */
const CHECK_EVERY = 400;

interface Variant {
  readonly name: string;
  readonly options: Partial<RunOptions>;
  /** What the pool must say in some life, for the run to be about what it is named for. */
  readonly says?: readonly RegExp[];
}

const queueing = /switching pool to out-of-data-space \(queue IO\) mode/;
const noMetadata = /unable to allocate new metadata block/;

const variants: readonly Variant[] = [
  { name: 'passdown', options: {} },
  { name: 'no passdown', options: { features: '1 no_discard_passdown' } },
  { name: 'no discards', options: { features: '1 ignore_discard' } },
  { name: 'data space runs out', options: { dataBlocks: 6 }, says: [queueing] },
  {
    name: 'data space runs out, and errors say so',
    options: { dataBlocks: 6, features: '1 error_if_no_space' },
    says: [/switching pool to out-of-data-space \(error IO\) mode/],
  },
  { name: 'metadata space runs out', options: { metadataBlocks: 18 }, says: [noMetadata] },
  {
    name: 'both run out',
    options: { dataBlocks: 3, metadataBlocks: 20 },
    says: [queueing, noMetadata],
  },
];

for (const [index, { name, options, says = [] }] of variants.entries()) {
  const seed = seedOf(101 + index);
  test(`no cut of the power breaks a promise: ${name} (seed ${seed})`, async () => {
    const sample: BlockDevice[] = [];
    let nrImages = 0;
    const log: string[] = [];
    const nrCuts = await run({
      seed,
      nrSteps: STEPS,
      cutsPerEvent: 2,
      ...options,
      onLife: (life) => log.push(...life.stack.log.lines),
      onImage: (metadata) => {
        if (nrImages++ % CHECK_EVERY !== 0) return;
        sample.push(metadata);
      },
    });
    assert.ok(nrCuts >= WANTED_CUTS, `wanted ${WANTED_CUTS} cuts, made ${nrCuts}`);
    for (const said of says)
      assert.ok(
        log.some((line) => said.test(line)),
        `someone says ${said}`,
      );
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
