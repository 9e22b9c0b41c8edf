/**
 * ShuffleDevice: a device whose bios end later, in a seeded random order, so that tests meet the
 * interleavings that a disk makes. Data moves when a bio ends, not when it is submitted.
 */
import { BioOp, type Bio } from '../../src/block/bio.ts';
import type { BlockDevice, ExtentVisitor, Limits } from '../../src/block/device.ts';
import type { Random } from './random.ts';

export class ShuffleDevice implements BlockDevice {
  readonly name: string;
  readonly #below: BlockDevice;
  readonly #random: Random;
  readonly #waiting: Bio[] = [];
  #scheduled = false;
  #steady = false;
  readonly #flushesInOrder: boolean;

  /** With `flushesInOrder`, no flush overtakes another. */
  constructor(below: BlockDevice, random: Random, options: { flushesInOrder?: boolean } = {}) {
    this.name = below.name;
    this.#flushesInOrder = options.flushesInOrder ?? false;
    this.#below = below;
    this.#random = random;
  }

  get sizeSectors(): number {
    return this.#below.sizeSectors;
  }

  get readOnly(): boolean {
    return this.#below.readOnly;
  }

  get limits(): Limits {
    return this.#below.limits;
  }

  refreshSize(): void {}

  /** From now on bios end at once, in order. */
  steady(): void {
    this.#steady = true;
    for (const bio of this.#waiting.splice(0)) this.#below.submit(bio);
  }

  submit(bio: Bio): void {
    if (this.#steady) {
      this.#below.submit(bio);
      return;
    }
    this.#waiting.push(bio);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#waiting.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      // Some end now, some a turn later, none in the order in which they came.
      for (let n = this.#random.between(0, this.#waiting.length); n > 0; n--) {
        const [bio] = this.#waiting.splice(this.#pick(), 1);
        if (bio !== undefined) this.#below.submit(bio);
      }
      this.#schedule();
    });
  }

  /** Which of the waiting bios ends next. */
  #pick(): number {
    const index = this.#random.below(this.#waiting.length);
    if (!this.#flushesInOrder || this.#waiting[index]?.op !== BioOp.FLUSH) return index;
    return this.#waiting.findIndex(({ op }) => op === BioOp.FLUSH);
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    return this.#below.readSync(sector, nrSectors, data, dataOffset);
  }

  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    this.#below.blockStatus(sector, nrSectors, visit);
  }
}
