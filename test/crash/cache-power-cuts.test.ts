/**
 * Power cuts at every event of seeded lives of a cache, in every I/O mode: nothing acknowledged is
 * lost, whatever is believed of clean and dirty blocks afterwards is right, in writethrough mode
 * the origin alone is complete, and nobody's data shows up elsewhere.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random, seedOf } from '../helpers/random.ts';
import { CacheLife, NO_CACHE } from './cache-life.ts';
import { runCache, type CacheRunOptions } from './cache-run.ts';
import { CutError, Cuts } from './cuts.ts';

/** Cuts of all variants together must come to 10,000 at least. */
const WANTED_CUTS = 2050;
const STEPS = 330;

const variants: readonly Pick<CacheRunOptions, 'modes' | 'format'>[] = [
  { modes: ['writeback'], format: 2 },
  { modes: ['writeback'], format: 1 },
  { modes: ['writethrough'], format: 2 },
  { modes: ['writeback', 'writethrough', 'passthrough'], format: 2 },
  { modes: ['writeback', 'passthrough'], format: 1 },
];

for (const [index, { modes, format }] of variants.entries()) {
  const seed = seedOf(300 + index);
  const name = `${modes.join(', ')}, format ${format}`;
  test(`no cut of the power breaks a cache's promise: ${name} (seed ${seed})`, async () => {
    let nrPromoted = 0;
    let nrDemoted = 0;
    const nrCuts = await runCache({
      seed,
      nrSteps: STEPS,
      cutsPerEvent: 2,
      modes,
      format,
      onLife: ({ moved }) => {
        nrPromoted += moved.promotions;
        nrDemoted += moved.demotions;
      },
    });
    assert.ok(nrCuts >= WANTED_CUTS, `wanted ${WANTED_CUTS} cuts, made ${nrCuts}`);
    assert.ok(nrPromoted > 8 && nrDemoted > 4, `moved: ${nrPromoted} in, ${nrDemoted} out`);
  });
}

test("the kernel's rules lose data, and the cuts notice", async () => {
  const options = { nrSteps: 300, modes: ['writeback'], format: 2, kernelQuirks: true } as const;
  await assert.rejects(runCache({ ...options, seed: 1 }), CutError);
});

/** Lives as told, with a clean block cached; the block is then written and flushed. */
async function writeAfterResume(kernelQuirks: boolean): Promise<void> {
  const random = new Random(5);
  const life = new CacheLife(random.fork(), NO_CACHE, 2, { kernelQuirks });
  const block = { begin: 0, end: 64 };
  await life.clock.run(
    (async () => {
      await life.open('writeback');
      life.write(block);
      await life.settle();
      await life.idle(3000); // Written back.
      await life.suspendResume(false);
      life.write(block, true);
      await life.settle();
      life.flush();
      await life.settle();
    })(),
  );
  const cuts = new Cuts(life, random);
  await cuts.cut(life.storage.nrEvents, 'none', 'written after suspend and resume');
}

// Hazard 1 of the spec: the mark of a clean shutdown stays on the disk over a suspend and resume
// until the next commit, and a write hit causes none: after a crash the block counts as clean.
test('a block written after suspend and resume does not count as clean after a crash', async () => {
  await writeAfterResume(false);
  await assert.rejects(writeAfterResume(true), /content without clean blocks/);
});
