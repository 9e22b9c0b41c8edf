/**
 * LevelStatistics: how well a queue's order foretells what is accessed. Answers to struct stats in
 * drivers/md/dm-cache-policy-smq.c (spec: cache, 15.2, 15.5).
 *
 * An access to an entry in the upper quarter of the levels is a hit; one further down, or to what
 * the queue does not know, is a miss.
 */
import { NR_LEVELS } from './multi-queue.ts';

export const Rating = { POOR: 0, FAIR: 1, WELL: 2 } as const;
export type Rating = (typeof Rating)[keyof typeof Rating];

const HIT_LEVEL_MIN = (NR_LEVELS * 3) / 4;

/** In 256ths. */
const FAIR_MIN = 16;
const WELL_MIN = 32;

export class LevelStatistics {
  #hits = 0;
  #misses = 0;

  countLevel(level: number): void {
    if (level >= HIT_LEVEL_MIN) this.#hits++;
    else this.#misses++;
  }

  countMiss(): void {
    this.#misses++;
  }

  get rating(): Rating {
    const nr = this.#hits + this.#misses;
    const confidence = nr === 0 ? 0 : Math.floor((256 * this.#hits) / nr);
    if (confidence < FAIR_MIN) return Rating.POOR;
    return confidence < WELL_MIN ? Rating.FAIR : Rating.WELL;
  }

  reset(): void {
    this.#hits = 0;
    this.#misses = 0;
  }
}
