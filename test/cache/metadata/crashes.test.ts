/**
 * Random lives of a cache's metadata, cut at every event: what is left is sound, and is the last
 * commit that was acknowledged or one that was under way. Dirty bits, hints and discards are
 * believed only where they are right.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CrashImages, imageDevice, LOSSES, type Loss } from '../../../src/block/crash-images.ts';
import type { SparseBytes } from '../../../src/block/sparse-bytes.ts';
import type { CacheFormat } from '../../../src/cache/metadata/superblock.ts';
import { CacheMetadataLife } from '../../helpers/cache-metadata-life.ts';
import type { CacheState } from '../../helpers/cache-states.ts';
import { Random, seedOf } from '../../helpers/random.ts';

const NR_LIVES = 8;
const NR_STEPS = 60;

interface Remains {
  readonly bytes: SparseBytes;
  readonly state: CacheState;
}

class Cuts {
  readonly #life: CacheMetadataLife;
  readonly #images: CrashImages;
  readonly #random: Random;
  nr = 0;

  constructor(life: CacheMetadataLife, random: Random) {
    this.#life = life;
    this.#images = new CrashImages(life.storage.journal, [life.disk]);
    this.#random = random;
  }

  /** Cuts just before event `event`, not below that of the cut before. */
  async cut(event: number, loss: Loss): Promise<Remains | null> {
    this.nr++;
    this.#images.advance(event);
    const bytes = this.#images.image(this.#life.disk, loss, this.#random);
    try {
      const state = await this.#life.verify(imageDevice(this.#life.disk, bytes.clone()), event);
      return state === null ? null : { bytes, state };
    } catch (error) {
      const diary = this.#life.diary.join('\n');
      throw new Error(`cut at event ${event}, losing ${loss}: ${String(error)}\n${diary}`);
    }
  }
}

for (const format of [1, 2] as CacheFormat[]) {
  const seed = seedOf(40 + format);
  test(`a power cut leaves a committed state, format ${format} (seed ${seed})`, async () => {
    const random = new Random(seed);
    let remains: Remains | undefined;
    let nrCuts = 0;
    let nrClean = 0;
    for (let i = 0; i < NR_LIVES; i++) {
      const life = new CacheMetadataLife(random.fork(), format, remains);
      await life.clock.run(
        (async () => {
          for (let step = 0; step < NR_STEPS; step++) await life.step();
        })(),
      );
      const cuts = new Cuts(life, random);
      const { nrEvents } = life.storage;
      const next = random.below(nrEvents + 1);
      let goOn: Remains | null = null;
      for (let event = 0; event <= nrEvents; event++) {
        const found = await cuts.cut(event, random.pick(LOSSES));
        if (found?.state.shutdown) nrClean++;
        if (event === next) goOn = found;
      }
      remains = goOn ?? remains;
      nrCuts += cuts.nr;
    }
    assert.ok(nrCuts > 100 * NR_LIVES, `${nrCuts} cuts`);
    assert.ok(nrClean > nrCuts / 50, `${nrClean} of ${nrCuts} cuts left a clean shutdown`);
  });
}
