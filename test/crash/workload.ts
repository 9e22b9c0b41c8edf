/**
 * A seeded workload: what is done to a pool in one life, one random operation after the other, with
 * many under way at once.
 */
import type { Random } from '../../src/base/random.ts';
import { hasOrigin, VOLUME_SECTORS, type Life, type Range } from './life.ts';
import { BLOCK_SECTORS } from './world.ts';

/** Most volumes at once: all of them, with a copy under way for each, fit into the data device. */
const VOLUMES_MAX = 6;
const IDS_MAX = 60;
const IN_FLIGHT_MAX = 8;
/** Longer than the pool goes without a commit. */
const IDLE_MS = 1500;

export class Workload {
  readonly #life: Life;
  readonly #random: Random;
  /** What is done, by weight. */
  readonly #operations: readonly [weight: number, run: (id: number) => void | Promise<void>][] = [
    [44, (id) => this.#write(id)],
    [10, (id) => this.#onRange(id, (range) => this.#life.read(id, range))],
    [10, (id) => this.#onRange(id, (range) => this.#life.discard(id, range))],
    [8, (id) => this.#life.flush(id)],
    [6, () => this.#create()],
    [9, (id) => this.#snapshot(id)],
    [3, (id) => this.#life.delete(id)],
    [2, (id) => this.#life.suspended(id, this.#random.chance(0.5), () => this.#write(id))],
    [1, () => this.#life.suspendPool(this.#random.chance(0.5))],
    [2, () => this.#life.growData(this.#random.between(1, 4))],
    [1, () => this.#life.growMetadata(this.#random.between(1, 16))],
    [2, () => this.#life.setTransactionId(this.#random.below(1000))],
    [2, () => this.#life.idle(IDLE_MS)],
  ];

  constructor(life: Life, random: Random) {
    this.#life = life;
    this.#random = random;
  }

  /** One random operation; those with data go on in the background. */
  async step(): Promise<void> {
    this.#life.throwFailure();
    const { ids } = this.#life.world;
    if (ids.length === 0) await this.#life.try(() => this.#create());
    else await this.#life.try(() => this.#pick()(this.#random.pick(ids)));
    await this.#life.room(IN_FLIGHT_MAX);
    if (this.#random.chance(0.3)) await this.#life.clock.delay(this.#random.next());
  }

  #pick(): (id: number) => void | Promise<void> {
    const total = this.#operations.reduce((sum, [weight]) => sum + weight, 0);
    let left = this.#random.below(total);
    for (const [weight, run] of this.#operations) {
      left -= weight;
      if (left < 0) return run;
    }
    throw new Error('the weights add up');
  }

  #write(id: number): void {
    this.#onRange(id, (range) => this.#life.write(id, range, this.#random.chance(0.2)));
  }

  /** Does something to a random part of the volume, unless that is busy. */
  #onRange(id: number, run: (range: Range) => void): void {
    const range = this.#randomRange();
    if (this.#life.isFree(id, range)) run(range);
  }

  #randomRange(): Range {
    const random = this.#random;
    if (random.chance(0.4)) {
      const begin = random.below(3) * BLOCK_SECTORS;
      return { begin, end: begin + BLOCK_SECTORS };
    }
    const begin = random.below(VOLUME_SECTORS);
    const nr = random.pick([1, 8, 8, 40, 150, 300]);
    return { begin, end: Math.min(begin + nr, VOLUME_SECTORS) };
  }

  async #create(): Promise<void> {
    if (this.#life.world.ids.length < VOLUMES_MAX) await this.#life.create(this.#freshId());
  }

  async #snapshot(id: number): Promise<void> {
    if (this.#life.world.ids.length >= VOLUMES_MAX) return;
    let fresh = this.#freshId();
    // Over no external origin the snapshot would show something else than its origin.
    while (hasOrigin(fresh) !== hasOrigin(id)) fresh = this.#freshId();
    await this.#life.snapshot(fresh, id);
  }

  #freshId(): number {
    const id = this.#random.between(1, IDS_MAX);
    return this.#life.world.mayExist(id) ? this.#freshId() : id;
  }
}
