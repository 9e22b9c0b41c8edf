/**
 * Dirty bits: which cblocks differ from the origin, as of the last clean shutdown; after any other
 * end they say nothing. The two formats keep them in two places:
 *
 *   1  a flag of each mapping (spec: cache, 2.3)
 *   2  a bitset of its own, made anew at each clean shutdown (spec: cache, 2.4)
 */
import type { Log } from '../../base/log.ts';
import { Bitset } from '../../persistent-data/bitset.ts';
import { asBlockNr, type BlockNr } from '../../persistent-data/block.ts';
import type { TransactionManager } from '../../persistent-data/transaction-manager.ts';
import { DIRTY, VALID } from './mapping.ts';
import type { MappingArray } from './mapping-array.ts';

export interface DirtyBits {
  /** Of the dirty bitset, after `flush`; 0 in format 1. */
  readonly root: BlockNr;
  /** Whether a cblock, whose mapping has `flags`, is dirty. */
  isDirty(cblock: number, flags: number): boolean;
  /** Writes the state of all cblocks. */
  write(isDirty: (cblock: number) => boolean): void;
  /** The first dirty cblock in `[begin, end)`, or -1. */
  firstDirty(begin: number, end: number): number;
  /** Tells the kernel's log of a cblock that cannot go because it is dirty. */
  complain(log: Log, cblock: number): void;
  /** Follows the mapping array from `oldLength` to `length`. */
  resize(oldLength: number, length: number): void;
  /** Brings what is held in memory into the blocks. */
  flush(): void;
}

/** Format 1. */
export class DirtyFlags implements DirtyBits {
  readonly root = asBlockNr(0);
  readonly #mappings: MappingArray;

  constructor(mappings: MappingArray) {
    this.#mappings = mappings;
  }

  isDirty(_cblock: number, flags: number): boolean {
    return (flags & DIRTY) !== 0;
  }

  write(isDirty: (cblock: number) => boolean): void {
    this.#mappings.updateFlags((cblock, flags) => {
      if ((flags & VALID) === 0) return flags;
      return isDirty(cblock) ? flags | DIRTY : flags & ~DIRTY;
    });
  }

  firstDirty(begin: number, end: number): number {
    return this.#mappings.firstWith(VALID | DIRTY, begin, end);
  }

  complain(log: Log, cblock: number): void {
    log.write('error', `cache metadata: cache block ${cblock} is dirty`);
  }

  resize(): void {}

  flush(): void {}
}

/** Format 2. */
export class DirtyBitset implements DirtyBits {
  readonly #tm: TransactionManager;
  readonly #mappings: MappingArray;
  #bits: Bitset;

  constructor(tm: TransactionManager, mappings: MappingArray, bits: Bitset) {
    this.#tm = tm;
    this.#mappings = mappings;
    this.#bits = bits;
  }

  get root(): BlockNr {
    return this.#bits.root;
  }

  isDirty(cblock: number): boolean {
    return this.#bits.testBit(cblock);
  }

  write(isDirty: (cblock: number) => boolean): void {
    this.#bits.delete();
    this.#bits = Bitset.create(this.#tm, this.#mappings.length, isDirty);
  }

  firstDirty(begin: number, end: number): number {
    for (let cblock = begin; cblock < end; cblock++) if (this.#bits.testBit(cblock)) return cblock;
    return -1;
  }

  complain(log: Log, cblock: number): void {
    const text = `blocks_are_clean_separate_dirty: cache block ${cblock} is dirty`;
    log.write('error', `cache metadata: ${text}`);
  }

  resize(oldLength: number, length: number): void {
    this.#bits.resize(oldLength, length, false);
  }

  flush(): void {
    this.#bits.flush();
  }
}
