/**
 * MultiQueue: 64 lists of entries, the more valuable the higher; head is oldest, tail is newest.
 * Answers to struct queue in drivers/md/dm-cache-policy-smq.c (spec: cache, 15.3).
 *
 * Invariants: an entry is in the list of its level; `nrElements` and `nrInLevel` count what is in
 * the lists but for the sentinels.
 *
 * Hot path: nothing is allocated after the constructor.
 */
import { divDown } from '../../base/numbers.ts';
import { NONE, type EntryPool } from './entry-pool.ts';

export const NR_LEVELS = 64;
export const LEVEL_MAX = NR_LEVELS - 1;

/** How `redistribute` shares the elements out: `nrElements` of them to the uppermost `nrLevels`. */
export interface TopLevels {
  readonly nrLevels: number;
  readonly nrElements: number;
}

/** All levels are alike. */
const NO_TOP_LEVELS: TopLevels = { nrLevels: 0, nrElements: 0 };

export class MultiQueue {
  readonly #pool: EntryPool;
  readonly #top: TopLevels;
  readonly #heads = new Int32Array(NR_LEVELS).fill(NONE);
  readonly #tails = new Int32Array(NR_LEVELS).fill(NONE);
  readonly #nrInLevel = new Int32Array(NR_LEVELS);
  readonly #targets = new Int32Array(NR_LEVELS);
  #nrElements = 0;

  constructor(pool: EntryPool, top: TopLevels = NO_TOP_LEVELS) {
    this.#pool = pool;
    this.#top = top;
  }

  /** Elements, without the sentinels. */
  get nrElements(): number {
    return this.#nrElements;
  }

  /** Puts an entry at the tail of its level. */
  push(e: number): void {
    const { level, prev, next } = this.#pool;
    const l = level[e] as number;
    const tail = this.#tails[l] as number;
    prev[e] = tail;
    next[e] = NONE;
    if (tail === NONE) this.#heads[l] = e;
    else next[tail] = e;
    this.#tails[l] = e;
    this.#count(e, 1);
  }

  /** Puts an entry at the head of its level. */
  pushFront(e: number): void {
    const head = this.#heads[this.#pool.level[e] as number] as number;
    if (head === NONE) this.push(e);
    else this.#insertBefore(head, e);
  }

  remove(e: number): void {
    const { level, prev, next } = this.#pool;
    const l = level[e] as number;
    const before = prev[e] as number;
    const after = next[e] as number;
    if (before === NONE) this.#heads[l] = after;
    else next[before] = after;
    if (after === NONE) this.#tails[l] = before;
    else prev[after] = before;
    this.#count(e, -1);
  }

  /**
   * The oldest element of the lowest of the first `nrLevels` levels that has one, or NONE. What is
   * behind a sentinel is only seen with `crossSentinels`.
   */
  peek(nrLevels: number, crossSentinels: boolean): number {
    for (let l = 0; l < nrLevels; l++) {
      let e = this.#heads[l] as number;
      if (crossSentinels) e = this.#firstElement(e);
      if (e !== NONE && !this.#pool.isSentinel(e)) return e;
    }
    return NONE;
  }

  /**
   * Raises an element by up to `jump` levels, to the tail there. The oldest element of that level
   * changes places with it: it goes down to where its age puts it, before the sentinel `old` if it
   * had no sentinel before it, before `current` if one, else (or if the queue has none, and both
   * are NONE) to the tail.
   */
  requeue(e: number, jump: number, old: number, current: number): void {
    const { level, next } = this.#pool;
    const from = level[e] as number;
    const to = Math.min(LEVEL_MAX, from + jump);
    if (to > from) {
      let nrPassed = 0;
      let down = this.#heads[to] as number;
      while (down !== NONE && this.#pool.isSentinel(down)) {
        nrPassed++;
        down = next[down] as number;
      }
      if (down !== NONE) {
        const before = nrPassed === 0 ? old : nrPassed === 1 ? current : NONE;
        this.remove(down);
        level[down] = from;
        if (before === NONE) this.push(down);
        else this.#insertBefore(before, down);
      }
    }
    this.remove(e);
    level[e] = to;
    this.push(e);
  }

  /**
   * Evens the levels out: one that has too few gets the oldest of those above, one that has too
   * many gives its newest to the next.
   */
  redistribute(): void {
    this.#setTargets();
    for (let l = 0; l < LEVEL_MAX; l++) {
      const target = this.#targets[l] as number;
      let above = l + 1;
      while ((this.#nrInLevel[l] as number) < target) {
        while (above < NR_LEVELS && this.#nrInLevel[above] === 0) above++;
        if (above === NR_LEVELS) break;
        this.#move(this.#firstElement(this.#heads[above] as number), l);
      }
      while ((this.#nrInLevel[l] as number) > target) {
        this.#move(this.#lastElement(this.#tails[l] as number), l + 1);
      }
    }
  }

  /** A level from head to tail, sentinels included. For checks. */
  entriesOf(level: number): number[] {
    const found: number[] = [];
    const { next } = this.#pool;
    for (let e = this.#heads[level] as number; e !== NONE; e = next[e] as number) found.push(e);
    return found;
  }

  /** Elements of a level, without the sentinels. */
  nrInLevel(level: number): number {
    return this.#nrInLevel[level] as number;
  }

  #setTargets(): void {
    const { nrLevels, nrElements } = this.#top;
    const nrBelow = Math.max(0, this.#nrElements - nrElements);
    this.#shareOut(0, NR_LEVELS - nrLevels, nrBelow);
    this.#shareOut(NR_LEVELS - nrLevels, NR_LEVELS, nrElements);
  }

  /** Targets of the levels [begin, end) for `nr` elements; the first ones get what is left over. */
  #shareOut(begin: number, end: number, nr: number): void {
    const each = divDown(nr, end - begin);
    const nrLeft = nr % (end - begin);
    for (let l = begin; l < end; l++) this.#targets[l] = l - begin < nrLeft ? each + 1 : each;
  }

  #move(e: number, level: number): void {
    this.remove(e);
    this.#pool.level[e] = level;
    this.push(e);
  }

  #insertBefore(place: number, e: number): void {
    const { level, prev, next } = this.#pool;
    const before = prev[place] as number;
    prev[e] = before;
    next[e] = place;
    prev[place] = e;
    if (before === NONE) this.#heads[level[e] as number] = e;
    else next[before] = e;
    this.#count(e, 1);
  }

  #firstElement(from: number): number {
    let e = from;
    while (e !== NONE && this.#pool.isSentinel(e)) e = this.#pool.next[e] as number;
    return e;
  }

  #lastElement(from: number): number {
    let e = from;
    while (e !== NONE && this.#pool.isSentinel(e)) e = this.#pool.prev[e] as number;
    return e;
  }

  #count(e: number, by: 1 | -1): void {
    if (this.#pool.isSentinel(e)) return;
    const l = this.#pool.level[e] as number;
    this.#nrInLevel[l] = (this.#nrInLevel[l] as number) + by;
    this.#nrElements += by;
  }
}
