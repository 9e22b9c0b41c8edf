/**
 * What the simulated power cuts found, each as the shortest story that shows it.
 */
import { test } from 'node:test';
import { Random } from '../../src/base/random.ts';
import { LOSSES } from '../../src/block/crash-images.ts';
import { Cuts } from './cuts.ts';
import { Life, NOTHING, type Range } from './life.ts';
import { BLOCK_SECTORS } from './world.ts';

const ORIGIN = 1;
const SNAPSHOT = 4;
const BLOCK: Range = { begin: BLOCK_SECTORS, end: 2 * BLOCK_SECTORS };

/** Lives as told, and cuts at every event in every way. */
async function cutEverywhere(live: (life: Life) => Promise<void>): Promise<void> {
  for (let seed = 1; seed <= 8; seed++) {
    const random = new Random(seed);
    const life = new Life(random.fork(), NOTHING);
    await life.clock.run(life.open().then(() => live(life)));
    const cuts = new Cuts(life, random);
    for (let event = life.formatted; event <= life.storage.nrEvents; event++) {
      for (const loss of LOSSES) await cuts.cut(event, loss, `seed ${seed}`);
    }
  }
}

// A block is durable in an origin and its snapshot. The origin breaks the sharing, which is not
// committed; the snapshot discards the block. Now nobody refers to it, and the discard used to be
// passed down at once, as in the kernel. A power cut then brought the origin's old mapping back, to
// a block whose content was gone: flushed data lost, that nobody had discarded.
test('a discard of what a crash brings back to another device waits for the commit', async () => {
  await cutEverywhere(async (life) => {
    await life.create(ORIGIN);
    life.write(ORIGIN, BLOCK, true);
    await life.settle();
    await life.snapshot(SNAPSHOT, ORIGIN);
    life.write(ORIGIN, BLOCK);
    await life.settle();
    life.discard(SNAPSHOT, BLOCK);
    await life.settle();
  });
});
