/**
 * Cuts: looks at what a life leaves if the power is cut at some event of it.
 */
import type { Random } from '../../src/base/random.ts';
import { CrashImages, imageDevice, type Loss } from '../../src/block/crash-images.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import type { SimulatedDisk, SimulatedStorage } from '../../src/block/simulated-disk.ts';
import type { SparseBytes } from '../../src/block/sparse-bytes.ts';

/** A life, as far as its end concerns us. `Found` is what is in an image. */
export interface Mortal<Found> {
  readonly storage: SimulatedStorage;
  readonly disks: readonly SimulatedDisk[];
  /** What was done, for those who replay a run. */
  readonly diary: readonly string[];
  /** Rejects if the images, in the order of `disks`, break a promise given before `event`. */
  verify(event: number, images: readonly BlockDevice[]): Promise<Found>;
}

/** What a cut left on the disks, and what is in it. */
export interface Image<Found> {
  readonly contents: readonly SparseBytes[];
  readonly devices: readonly BlockDevice[];
  readonly found: Found;
}

/** A broken promise, and all that is needed to see it again. */
export class CutError extends Error {}

export class Cuts<Found> {
  readonly #life: Mortal<Found>;
  readonly #random: Random;
  readonly #images: CrashImages;
  /** What was tried so far. */
  nr = 0;

  constructor(life: Mortal<Found>, random: Random) {
    this.#life = life;
    this.#random = random;
    this.#images = new CrashImages(life.storage.journal, life.disks);
  }

  /**
   * Cuts just before event `event`, which must not be below that of the cut before. Rejects with a
   * CutError that begins with `what` if a promise is broken.
   */
  async cut(event: number, loss: Loss, what: string): Promise<Image<Found>> {
    const { disks, diary } = this.#life;
    this.#images.advance(event);
    const contents = disks.map((disk) => this.#images.image(disk, loss, this.#random));
    const devices = disks.map((disk, i) => imageDevice(disk, contents[i] as SparseBytes));
    this.nr++;
    try {
      const found = await this.#life.verify(event, devices);
      return { contents, devices, found };
    } catch (error) {
      const { message } = error as Error;
      const where = `${what}, cut at event ${event}, losing ${loss}`;
      throw new CutError(`${where}: ${message}\n${diary.join('\n')}`);
    }
  }
}
