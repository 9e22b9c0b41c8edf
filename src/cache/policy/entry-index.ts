/**
 * EntryIndex: finds the entry that stands for a block. Answers to struct smq_hash_table in
 * drivers/md/dm-cache-policy-smq.c.
 *
 * A table of entry numbers with open addressing, at most half full, probed linearly; the blocks
 * themselves are read in the pool, which whoever looks for an entry will read next anyway. It takes
 * about half the time of a Map (bench/policy.bench.ts).
 *
 * Hot path: nothing is allocated after the constructor.
 */
import { assert } from '../../base/error.ts';
import { U32 } from '../../base/numbers.ts';
import { NONE, type EntryPool } from './entry-pool.ts';

/** Odd numbers whose bits are well mixed; the first is 2^32 divided by the golden ratio. */
const LOW_FACTOR = 0x9e3779b1;
const HIGH_FACTOR = 0x85ebca6b;

export class EntryIndex {
  readonly #pool: EntryPool;
  readonly #slots: Int32Array;
  readonly #mask: number;
  readonly #shift: number;
  #nrEntries = 0;

  constructor(pool: EntryPool) {
    this.#pool = pool;
    const bits = Math.max(1, Math.ceil(Math.log2(2 * pool.nrEntries)));
    this.#slots = new Int32Array(2 ** bits).fill(NONE);
    this.#mask = this.#slots.length - 1;
    this.#shift = 32 - bits;
  }

  get nrEntries(): number {
    return this.#nrEntries;
  }

  /** The entry for a block, or NONE. */
  find(block: number): number {
    const slots = this.#slots;
    const blocks = this.#pool.block;
    for (let slot = this.#home(block); ; slot = (slot + 1) & this.#mask) {
      const e = slots[slot] as number;
      if (e === NONE || blocks[e] === block) return e;
    }
  }

  /** Adds an entry; its block, which the pool holds, must not be there yet. */
  insert(e: number): void {
    const block = this.#pool.block[e] as number;
    let slot = this.#home(block);
    for (
      let other;
      (other = this.#slots[slot] as number) !== NONE;
      slot = (slot + 1) & this.#mask
    ) {
      assert(this.#pool.block[other] !== block, 'a block is mapped once');
    }
    this.#slots[slot] = e;
    this.#nrEntries++;
  }

  /** Removes an entry that is there. */
  remove(e: number): void {
    let hole = this.#home(this.#pool.block[e] as number);
    for (; this.#slots[hole] !== e; hole = (hole + 1) & this.#mask) {
      assert(this.#slots[hole] !== NONE, 'an entry to remove from the index is there');
    }
    // Entries behind it that could not have their own slot move up, so that no search ends early.
    for (let slot = (hole + 1) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const moved = this.#slots[slot] as number;
      if (moved === NONE) break;
      const home = this.#home(this.#pool.block[moved] as number);
      if (((slot - home) & this.#mask) < ((slot - hole) & this.#mask)) continue;
      this.#slots[hole] = moved;
      hole = slot;
    }
    this.#slots[hole] = NONE;
    this.#nrEntries--;
  }

  #home(block: number): number {
    const high = Math.imul((block / U32) | 0, HIGH_FACTOR);
    return Math.imul((block | 0) ^ high, LOW_FACTOR) >>> this.#shift;
  }
}
