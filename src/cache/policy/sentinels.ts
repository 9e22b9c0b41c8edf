/**
 * Sentinels: two markers in each level of a queue, which divide it by age. What is ahead of both
 * has not been touched for one to two periods. Answers to the sentinel allocators of struct
 * smq_policy in drivers/md/dm-cache-policy-smq.c (spec: cache, 15.2, 15.5).
 *
 * The two sets take turns: at the end of a period the older one goes to the tails and becomes the
 * current one.
 *
 * Hot path: nothing is allocated after the constructor.
 */
import type { EntryPool } from './entry-pool.ts';
import { NR_LEVELS, type MultiQueue } from './multi-queue.ts';

/** Sentinels that a queue needs in its pool. */
export const NR_SENTINELS = 2 * NR_LEVELS;

export class Sentinels {
  readonly #queue: MultiQueue;
  readonly #begin: number;
  readonly #periodJiffies: number;
  #isSecondCurrent = true;
  #nextPeriod: number;

  /** Takes the pool's sentinels from `begin` on for `queue`, and puts them there. */
  constructor(
    pool: EntryPool,
    begin: number,
    queue: MultiQueue,
    periodJiffies: number,
    now: number,
  ) {
    this.#queue = queue;
    this.#begin = begin;
    this.#periodJiffies = periodJiffies;
    this.#nextPeriod = now + periodJiffies;
    for (let level = 0; level < NR_LEVELS; level++) {
      for (const isSecond of [false, true]) {
        const e = this.#sentinel(level, isSecond);
        pool.level[e] = level;
        queue.push(e);
      }
    }
  }

  /** The one that was put to the tail of `level` last. */
  current(level: number): number {
    return this.#sentinel(level, this.#isSecondCurrent);
  }

  /** The other one. */
  old(level: number): number {
    return this.#sentinel(level, !this.#isSecondCurrent);
  }

  /** Begins a new period if the present one is over. */
  tick(now: number): void {
    if (now <= this.#nextPeriod) return;
    this.#nextPeriod = now + this.#periodJiffies;
    this.#isSecondCurrent = !this.#isSecondCurrent;
    for (let level = 0; level < NR_LEVELS; level++) {
      const e = this.current(level);
      this.#queue.remove(e);
      this.#queue.push(e);
    }
  }

  #sentinel(level: number, isSecond: boolean): number {
    return this.#begin + level + (isSecond ? NR_LEVELS : 0);
  }
}
