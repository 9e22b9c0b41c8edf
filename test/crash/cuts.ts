/**
 * Cuts: looks at what a life leaves if the power is cut at some event of it.
 */
import type { Random } from '../../src/base/random.ts';
import { CrashImages, imageDevice, type Loss } from '../../src/block/crash-images.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import type { SparseBytes } from '../../src/block/sparse-bytes.ts';
import type { Life } from './life.ts';
import type { Found } from './world.ts';

/** What a cut left, and what is in it. */
export interface Image {
  readonly metadata: SparseBytes;
  readonly data: SparseBytes;
  readonly metadataDevice: BlockDevice;
  readonly found: Found;
}

/** A broken promise, and all that is needed to see it again. */
export class CutError extends Error {}

export class Cuts {
  readonly #life: Life;
  readonly #random: Random;
  readonly #images: CrashImages;
  /** What was tried so far. */
  nr = 0;

  constructor(life: Life, random: Random) {
    this.#life = life;
    this.#random = random;
    const { metadata, data, storage } = life;
    this.#images = new CrashImages(storage.journal, [metadata, data]);
  }

  /**
   * Cuts just before event `event`, which must not be below that of the cut before. Rejects with a
   * CutError that begins with `what` if a promise is broken.
   */
  async cut(event: number, loss: Loss, what: string): Promise<Image> {
    const life = this.#life;
    this.#images.advance(event);
    const metadata = this.#images.image(life.metadata, loss, this.#random);
    const data = this.#images.image(life.data, loss, this.#random);
    const metadataDevice = imageDevice(life.metadata, metadata);
    this.nr++;
    try {
      const found = await life.world.verify(event, metadataDevice, imageDevice(life.data, data));
      return { metadata, data, metadataDevice, found };
    } catch (error) {
      const { message } = error as Error;
      const where = `${what}, cut at event ${event}, losing ${loss}`;
      throw new CutError(`${where}: ${message}\n${life.diary.join('\n')}`);
    }
  }
}
