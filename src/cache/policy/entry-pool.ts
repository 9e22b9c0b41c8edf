/**
 * EntryPool: the fields of all entries of one kind, in typed arrays, and the list of those that are
 * free. Answers to struct entry_space and struct entry_alloc in drivers/md/dm-cache-policy-smq.c
 * (spec: cache, 15.2).
 *
 * An entry is a number: those from 0 to `nrEntries` - 1 can be allocated (in the cache's pool such
 * a number *is* the cblock), those from there on are sentinels, markers in the lists of a queue. An
 * entry is in one list at most: the free list, a level of a queue, or none. Whoever puts it into a
 * list owns its `prev` and `next`.
 *
 * Hot path: nothing is allocated after the constructor.
 */
import { assert } from '../../base/error.ts';

/** No entry: the end of a list, or nothing found. */
export const NONE = -1;

const ALLOCATED = 1;
const DIRTY = 2;
const PENDING = 4;

export class EntryPool {
  readonly nrEntries: number;
  readonly nrSentinels: number;
  /** The oblock, or hotspot block; meaningless for free entries. */
  readonly block: Float64Array;
  readonly level: Uint8Array;
  readonly prev: Int32Array;
  readonly next: Int32Array;
  readonly #flags: Uint8Array;
  #nrAllocated = 0;
  #freeHead = NONE;
  #freeTail = NONE;

  constructor(nrEntries: number, nrSentinels = 0) {
    this.nrEntries = nrEntries;
    this.nrSentinels = nrSentinels;
    const nr = nrEntries + nrSentinels;
    this.block = new Float64Array(nrEntries);
    this.level = new Uint8Array(nr);
    this.prev = new Int32Array(nr);
    this.next = new Int32Array(nr);
    this.#flags = new Uint8Array(nrEntries);
    for (let e = 0; e < nrEntries; e++) this.#appendFree(e);
  }

  get nrAllocated(): number {
    return this.#nrAllocated;
  }

  get nrFree(): number {
    return this.nrEntries - this.#nrAllocated;
  }

  isSentinel(e: number): boolean {
    return e >= this.nrEntries;
  }

  isAllocated(e: number): boolean {
    return ((this.#flags[e] as number) & ALLOCATED) !== 0;
  }

  isDirty(e: number): boolean {
    return ((this.#flags[e] as number) & DIRTY) !== 0;
  }

  /** Background work on the entry is queued or running: it is in no list. */
  isPending(e: number): boolean {
    return ((this.#flags[e] as number) & PENDING) !== 0;
  }

  setDirty(e: number, dirty: boolean): void {
    this.#setFlag(e, DIRTY, dirty);
  }

  setPending(e: number, pending: boolean): void {
    this.#setFlag(e, PENDING, pending);
  }

  /** The entry that has been free for longest, or NONE. It starts at level 0, dirty. */
  allocate(): number {
    const e = this.#freeHead;
    if (e !== NONE) this.allocateThis(e);
    return e;
  }

  /** As `allocate`, for one that the caller has chosen and that is free. */
  allocateThis(e: number): void {
    assert(e >= 0 && e < this.nrEntries, 'an entry to allocate is in the pool');
    assert(!this.isAllocated(e), 'an entry to allocate is free');
    this.#takeFree(e);
    this.level[e] = 0;
    this.#flags[e] = ALLOCATED | DIRTY;
    this.#nrAllocated++;
  }

  /** Frees an entry that is in no list. */
  free(e: number): void {
    assert(this.isAllocated(e), 'an entry to free is allocated');
    this.#flags[e] = 0;
    this.#nrAllocated--;
    this.#appendFree(e);
  }

  /** The free entries, in the order in which they will be allocated. For checks. */
  freeEntries(): number[] {
    const found: number[] = [];
    for (let e = this.#freeHead; e !== NONE; e = this.next[e] as number) found.push(e);
    return found;
  }

  #setFlag(e: number, flag: number, value: boolean): void {
    const flags = this.#flags[e] as number;
    this.#flags[e] = value ? flags | flag : flags & ~flag;
  }

  #appendFree(e: number): void {
    this.prev[e] = this.#freeTail;
    this.next[e] = NONE;
    if (this.#freeTail === NONE) this.#freeHead = e;
    else this.next[this.#freeTail] = e;
    this.#freeTail = e;
  }

  #takeFree(e: number): void {
    const prev = this.prev[e] as number;
    const next = this.next[e] as number;
    if (prev === NONE) this.#freeHead = next;
    else this.next[prev] = next;
    if (next === NONE) this.#freeTail = prev;
    else this.prev[next] = prev;
  }
}
