/**
 * HotspotQueue: which regions of the origin are accessed although they are not cached; from its
 * levels follows what is promoted. Answers to the hotspot part of struct smq_policy in
 * drivers/md/dm-cache-policy-smq.c (spec: cache, 15.4, 15.5).
 *
 * Hot path: nothing is allocated after the constructor.
 */
import { divDown } from '../../base/numbers.ts';
import { EntryIndex } from './entry-index.ts';
import { EntryPool, NONE } from './entry-pool.ts';
import { HitBits } from './hit-bits.ts';
import type { HotspotGeometry } from './hotspot-geometry.ts';
import { LevelStatistics, Rating } from './level-statistics.ts';
import { MultiQueue, NR_LEVELS } from './multi-queue.ts';

const PERIOD_JIFFIES = 100;
const NR_TOP_LEVELS = 8;

/** By rating: the worse the levels foretell accesses, the quicker an entry rises. */
const LEVEL_JUMPS: Readonly<Record<Rating, number>> = {
  [Rating.POOR]: 4,
  [Rating.FAIR]: 2,
  [Rating.WELL]: 1,
};

/** By rating: the level from which on a hotspot's blocks are promoted. */
const PROMOTE_LEVELS: Readonly<Record<Rating, number>> = {
  // What the kernel's formula comes to: its table by hit ratio never has any effect.
  [Rating.POOR]: NR_LEVELS - NR_LEVELS / 4,
  [Rating.FAIR]: NR_LEVELS - NR_LEVELS / 2,
  [Rating.WELL]: 0,
};

export class HotspotQueue {
  readonly geometry: HotspotGeometry;
  readonly pool: EntryPool;
  readonly queue: MultiQueue;
  readonly index: EntryIndex;
  readonly #hits: HitBits;
  readonly #statistics = new LevelStatistics();
  #levelJump = 1;
  /** Before the first tick nothing reaches it. */
  #promoteLevel = NR_LEVELS;
  #nextPeriod: number;

  constructor(geometry: HotspotGeometry, now: number) {
    const { nrHotspots, nrInTopLevels } = geometry;
    this.geometry = geometry;
    this.pool = new EntryPool(nrHotspots);
    const top = { nrLevels: NR_TOP_LEVELS, nrElements: nrInTopLevels };
    this.queue = new MultiQueue(this.pool, top);
    this.index = new EntryIndex(this.pool);
    this.#hits = new HitBits(nrHotspots);
    this.#nextPeriod = now;
  }

  /** Counts an access to a block that is not cached; whether the block should be. */
  access(oblock: number): boolean {
    const block = divDown(oblock, this.geometry.blocksPerHotspot);
    let e = this.index.find(block);
    if (e === NONE) {
      this.#statistics.countMiss();
      e = this.#add(block);
    } else {
      this.#statistics.countLevel(this.pool.level[e] as number);
      const jump = this.#hits.has(e) ? 0 : this.#levelJump;
      this.#hits.set(e);
      this.queue.requeue(e, jump, NONE, NONE);
    }
    return (this.pool.level[e] as number) >= this.#promoteLevel;
  }

  tick(now: number): void {
    this.#hits.clearAll();
    const { rating } = this.#statistics;
    this.#promoteLevel = PROMOTE_LEVELS[rating];
    if (now <= this.#nextPeriod) return;
    this.#nextPeriod = now + PERIOD_JIFFIES;
    this.#levelJump = LEVEL_JUMPS[rating];
    this.queue.redistribute();
    this.#statistics.reset();
  }

  /**
   * An entry for a block that is not known. If there is none left, the least valuable forgets its
   * own.
   */
  #add(block: number): number {
    let e = this.pool.allocate();
    if (e === NONE) {
      e = this.queue.peek(NR_LEVELS, true);
      this.queue.remove(e);
      this.index.remove(e);
      this.#hits.clear(e);
    }
    this.pool.block[e] = block;
    this.index.insert(e);
    this.queue.push(e);
    return e;
  }
}
