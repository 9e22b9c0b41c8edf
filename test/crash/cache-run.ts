/**
 * A run of a cache: lives one after the other, each ended by a power cut that is tried at every
 * event; a function of its seed. The counterpart of run.ts.
 */
import { Random } from '../../src/base/random.ts';
import { LOSSES } from '../../src/block/crash-images.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import {
  CACHE_BLOCK,
  CACHE_SECTORS,
  CacheLife,
  NO_CACHE,
  type CacheLifeOptions,
  type CacheRange,
  type CacheRemains,
  type Mode,
} from './cache-life.ts';
import { CutError, Cuts, type Image } from './cuts.ts';

export interface CacheRunOptions extends CacheLifeOptions {
  readonly seed: number;
  readonly nrSteps: number;
  readonly stepsPerLife?: number;
  readonly cutsPerEvent?: number;
  readonly format: 1 | 2;
  /** Modes that the workload uses; a life begins in the first. */
  readonly modes: readonly Mode[];
  readonly onLife?: (life: CacheLife, nrCuts: number) => void;
  /** Shown the metadata of each image that passed. */
  readonly onImage?: (metadata: BlockDevice) => void;
}

const IN_FLIGHT_MAX = 8;
/** A few blocks get most of the I/O, so that they are promoted. */
const HOT_BLOCKS = 5;

class CacheWorkload {
  readonly #life: CacheLife;
  readonly #random: Random;
  readonly #operations: readonly [weight: number, run: () => void | Promise<void>][];
  /** The hot blocks move now and then, so that others are promoted, and these demoted. */
  #hotBegin = 0;

  constructor(life: CacheLife, random: Random, modes: readonly Mode[]) {
    this.#life = life;
    this.#random = random;
    this.#operations = [
      [40, () => this.#onRange((range) => life.write(range, random.chance(0.2)))],
      [20, () => this.#onRange((range) => life.read(range))],
      [5, () => this.#onRange((range) => life.discard(range))],
      [8, () => life.flush()],
      [3, () => life.suspendResume(random.chance(0.3))],
      [
        3,
        () =>
          life.reload(random.pick(modes), random.pick(['smq 0', 'smq 0', 'smq 0', 'cleaner 0'])),
      ],
      [2, () => life.remove()],
      [6, () => life.idle(random.pick([50, 1200, 2500, 65_000]))],
      [modes.includes('passthrough') ? 4 : 0, () => life.enterPassthrough()],
      [2, () => life.message(`migration_threshold ${random.pick([0, 2048, 2048, 2048])}`)],
    ];
  }

  async step(): Promise<void> {
    this.#life.throwFailure();
    const total = this.#operations.reduce((sum, [weight]) => sum + weight, 0);
    let left = this.#random.below(total);
    for (const [weight, run] of this.#operations) {
      left -= weight;
      if (left >= 0) continue;
      await this.#life.try(run);
      break;
    }
    await this.#life.room(IN_FLIGHT_MAX);
    if (this.#random.chance(0.3)) await this.#life.clock.delay(this.#random.next() * 5);
  }

  #onRange(run: (range: CacheRange) => void): void {
    const range = this.#randomRange();
    if (this.#life.isFree(range)) run(range);
  }

  #randomRange(): CacheRange {
    const random = this.#random;
    const nrBlocks = Math.floor(CACHE_SECTORS / CACHE_BLOCK);
    if (random.chance(0.06)) this.#hotBegin = random.below(nrBlocks - HOT_BLOCKS);
    const hot = this.#hotBegin + random.below(HOT_BLOCKS);
    const block = random.chance(0.7) ? hot : random.below(nrBlocks + 1);
    const begin = block * CACHE_BLOCK;
    if (random.chance(0.5)) return { begin, end: Math.min(begin + CACHE_BLOCK, CACHE_SECTORS) };
    const from = Math.min(begin + random.below(CACHE_BLOCK), CACHE_SECTORS - 1);
    return { begin: from, end: Math.min(from + random.pick([1, 8, 30, 100]), CACHE_SECTORS) };
  }
}

/** Runs; resolves to the number of cuts. Rejects with a CutError at the first broken promise. */
export async function runCache(options: CacheRunOptions): Promise<number> {
  const { seed, nrSteps, stepsPerLife = 50, format, modes } = options;
  const random = new Random(seed);
  let remains: CacheRemains = NO_CACHE;
  let nrCuts = 0;
  for (let done = 0, index = 0; done < nrSteps; done += stepsPerLife, index++) {
    const what = `seed ${seed}, life ${index}`;
    const life = new CacheLife(random.fork(), remains, format, options);
    try {
      await live(life, random.fork(), modes, Math.min(stepsPerLife, nrSteps - done));
    } catch (error) {
      const { stack = '' } = error as Error;
      const log = life.stack.log.lines.join('\n');
      throw new CutError(`${what}: ${stack}\n${life.diary.join('\n')}\n${log}`);
    }
    const cuts = new Cuts(life, random.fork());
    const image = await cutEverywhere(life, cuts, random.fork(), what, index, options);
    nrCuts += cuts.nr;
    remains = life.remains(image);
    options.onLife?.(life, cuts.nr);
  }
  return nrCuts;
}

async function live(
  life: CacheLife,
  random: Random,
  modes: readonly Mode[],
  nrSteps: number,
): Promise<void> {
  const workload = new CacheWorkload(life, random, modes);
  const all = async (): Promise<void> => {
    await life.open(modes[0] as Mode);
    for (let i = 0; i < nrSteps; i++) await workload.step();
    await life.settle();
  };
  await life.clock.run(all());
}

async function cutEverywhere(
  life: CacheLife,
  cuts: Cuts<Uint32Array>,
  random: Random,
  what: string,
  index: number,
  { cutsPerEvent = 1, onImage }: CacheRunOptions,
): Promise<Image<Uint32Array>> {
  const { nrEvents } = life.storage;
  // Before the first life has formatted the metadata there is nothing to look at.
  const first = index === 0 ? Math.max(1, life.formatted) : 1;
  const chosen = random.between(first, nrEvents);
  let result: Image<Uint32Array> | null = null;
  for (let event = first; event <= nrEvents; event++) {
    for (let i = 0; i < cutsPerEvent; i++) {
      const image = await cuts.cut(event, random.pick(LOSSES), what);
      onImage?.(image.devices[0] as BlockDevice);
      if (event >= chosen) result ??= image;
    }
  }
  return result as Image<Uint32Array>;
}
