/**
 * A run: lives of one pool, one after the other, each ended by a power cut; a function of its seed.
 * After each life the cut is tried at every event of it, in several ways; the next life begins with
 * one of the images.
 */
import { Random } from '../../src/base/random.ts';
import { LOSSES } from '../../src/block/crash-images.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { checkPool } from '../../src/thin/tools/check.ts';
import { CutError, Cuts, type Image } from './cuts.ts';
import { Life, NOTHING, type Remains } from './life.ts';
import { Workload } from './workload.ts';
import type { Found } from './world.ts';

export interface RunOptions {
  readonly seed: number;
  /** Operations in all. */
  readonly nrSteps: number;
  /** Operations of each life. */
  readonly stepsPerLife?: number;
  /** Cuts tried at each event. */
  readonly cutsPerEvent?: number;
  readonly features?: string;
  /** Sizes that the pool begins with, in blocks; too small ones make space run out. */
  readonly dataBlocks?: number;
  readonly metadataBlocks?: number;
  /** Told of each life when it has been examined. */
  readonly onLife?: (life: Life, nrCuts: number) => void;
  /** Shown the metadata of each image that passed. */
  readonly onImage?: (metadata: BlockDevice) => void;
}

/** Runs; resolves to the number of cuts. Rejects with a CutError at the first broken promise. */
export async function run(options: RunOptions): Promise<number> {
  const { seed, nrSteps, stepsPerLife = 40 } = options;
  const random = new Random(seed);
  const { features = '0', dataBlocks, metadataBlocks } = options;
  let remains: Remains = {
    ...NOTHING,
    ...(dataBlocks !== undefined && { dataBlocks }),
    ...(metadataBlocks !== undefined && { metadataBlocks }),
  };
  const mayFail = dataBlocks !== undefined || metadataBlocks !== undefined;
  let nrCuts = 0;
  for (let done = 0, index = 0; done < nrSteps; done += stepsPerLife, index++) {
    const what = `seed ${seed}, life ${index}`;
    const life = new Life(random.fork(), remains, { features, mayFail });
    try {
      await live(life, random.fork(), Math.min(stepsPerLife, nrSteps - done));
    } catch (error) {
      const { stack = '' } = error as Error;
      throw new CutError(`${what}: ${stack}\n${life.diary.join('\n')}`);
    }
    const cuts = new Cuts(life, random.fork());
    const image = await cutEverywhere(life, cuts, random.fork(), what, options);
    nrCuts += cuts.nr;
    // What the user of a pool that ran out of metadata does: a clean pool only needs the flag gone.
    await checkPool(image.devices[0] as BlockDevice, { clearNeedsCheck: true });
    remains = life.remains(image);
    options.onLife?.(life, cuts.nr);
  }
  return nrCuts;
}

async function live(life: Life, random: Random, nrSteps: number): Promise<void> {
  const workload = new Workload(life, random);
  const all = async (): Promise<void> => {
    await life.open();
    for (let i = 0; i < nrSteps; i++) await workload.step();
    await life.settle();
  };
  await life.clock.run(all());
}

/** Tries the cuts; returns one of the images, to go on with. */
async function cutEverywhere(
  life: Life,
  cuts: Cuts<Found>,
  random: Random,
  what: string,
  { cutsPerEvent = 1, onImage }: RunOptions,
): Promise<Image<Found>> {
  const { nrEvents } = life.storage;
  // Before the first life has formatted the pool there is nothing to look at.
  const first = Math.max(1, life.formatted);
  const chosen = random.between(first, nrEvents);
  let result: Image<Found> | null = null;
  for (let event = first; event <= nrEvents; event++) {
    for (let i = 0; i < cutsPerEvent; i++) {
      const image = await cuts.cut(event, random.pick(LOSSES), what);
      onImage?.(image.devices[0] as BlockDevice);
      if (event >= chosen) result ??= image;
    }
  }
  return result as Image<Found>;
}
