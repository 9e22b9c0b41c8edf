/**
 * A device whose requests end when the test says so, in the order that it chooses.
 */
import { BioFlag, BioOp, type Bio } from '../../src/block/bio.ts';
import type { BlockDevice, ExtentVisitor, Limits } from '../../src/block/device.ts';
import type { Random } from './random.ts';

export class HeldDevice implements BlockDevice {
  readonly #below: BlockDevice;
  /** Requests are held rather than passed on. */
  holding = true;
  /** What is held, oldest first. */
  readonly held: Bio[] = [];
  /** The most requests that were held at once. */
  heldMax = 0;
  /** Operations in the order in which they came. */
  readonly log: string[] = [];

  constructor(below: BlockDevice) {
    this.#below = below;
  }

  get name(): string {
    return this.#below.name;
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
  refreshSize(): void {
    this.#below.refreshSize();
  }
  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    return this.#below.readSync(sector, nrSectors, data, dataOffset);
  }
  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    this.#below.blockStatus(sector, nrSectors, visit);
  }

  submit(bio: Bio): void {
    this.log.push(`${describeOp(bio)} ${bio.sector}+${bio.nrSectors}`);
    if (!this.holding) {
      this.#below.submit(bio);
      return;
    }
    this.held.push(bio);
    this.heldMax = Math.max(this.heldMax, this.held.length);
  }

  /** Passes the oldest held request on, or the one at `index`. */
  release(index = 0): void {
    const [bio] = this.held.splice(index, 1);
    if (bio === undefined) throw new Error(`no request is held at ${index}`);
    this.#below.submit(bio);
  }

  /** Ends the oldest held request with an errno number. */
  fail(status: number): void {
    const bio = this.held.shift();
    if (bio === undefined) throw new Error('no request is held');
    bio.end(status);
  }

  /** Passes on all that is held and holds nothing any more. */
  releaseAll(): void {
    this.holding = false;
    while (this.held.length > 0) this.release();
  }

  /**
   * Passes held requests on, one at each turn of the event loop, in an order that `random` chooses.
   * Returns what stops that.
   */
  releaseByChance(random: Random): () => void {
    let stopped = false;
    const turn = (): void => {
      if (this.held.length > 0) this.release(random.below(this.held.length));
      if (!stopped) setImmediate(turn);
    };
    turn();
    return () => (stopped = true);
  }

  /** Resolves when `count` requests are held. */
  async whenHeld(count: number): Promise<void> {
    while (this.held.length < count) await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

function describeOp(bio: Bio): string {
  const nameOf = (names: Record<string, number>, number: number): string | undefined =>
    Object.entries(names).find(([, value]) => value === number)?.[0];
  const flag = bio.flags === 0 ? '' : `(${nameOf(BioFlag, bio.flags)})`;
  return `${nameOf(BioOp, bio.op)}${flag}`;
}
