/**
 * Dirty bits: which cblocks differ from the origin, as of the last clean shutdown; after any other
 * end they say nothing. The two formats keep them in two places:
 *
 *   1  a flag of each mapping (spec: cache, 2.3)
 *   2  a bitset of its own, made anew at each clean shutdown (spec: cache, 2.4)
 */
import { codeOf, DmError } from '../../base/error.ts';
import type { Log } from '../../base/log.ts';
import { Bitset, type BitsetCursor } from '../../persistent-data/bitset.ts';
import { asBlockNr, type BlockNr } from '../../persistent-data/block.ts';
import type { TransactionManager } from '../../persistent-data/transaction-manager.ts';
import { DIRTY, VALID } from './mapping.ts';
import type { MappingArray } from './mapping-array.ts';

/** Tells whether a cblock, whose mapping has `flags`, is dirty; asked for each in order. */
export type DirtyReader = (cblock: number, flags: number) => boolean;

export interface DirtyBits {
  /** Of the dirty bitset, after `flush`; 0 in format 1. */
  readonly root: BlockNr;
  /** A reader that stays right as long as nothing is written. */
  reader(): DirtyReader;
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

  reader(): DirtyReader {
    return (_cblock, flags) => (flags & DIRTY) !== 0;
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

function noBit(cblock: number): DmError {
  return new DmError('ENODATA', `the dirty bitset has no cblock ${cblock}`);
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

  reader(): DirtyReader {
    const nrBits = this.#mappings.length;
    if (nrBits === 0) return () => false;
    const cursor = this.#bits.cursor(nrBits);
    if (cursor.atEnd) throw noBit(0);
    return (cblock) => {
      if (cblock > 0) this.#next(cursor, cblock, '');
      return cursor.value;
    };
  }

  /** Moves on to `cblock`. */
  #next(cursor: BitsetCursor, cblock: number, who: string): void {
    this.#explain(`${who}dm_bitset_cursor_next for dirty failed`, () => {
      cursor.next();
      if (cursor.atEnd) throw noBit(cblock);
    });
  }

  #explain<T>(text: string, step: () => T): T {
    try {
      return step();
    } catch (error) {
      codeOf(error);
      this.#tm.blocks.log.write('error', `cache metadata: ${text}`);
      throw error;
    }
  }

  write(isDirty: (cblock: number) => boolean): void {
    this.#bits.delete();
    this.#bits = Bitset.create(this.#tm, this.#mappings.length, isDirty);
  }

  firstDirty(begin: number, end: number): number {
    if (begin === end) return -1;
    const who = 'blocks_are_clean_separate_dirty: ';
    const cursor = this.#explain(`${who}dm_bitset_cursor_begin for dirty failed`, () => {
      const first = this.#bits.cursor(end, begin);
      if (first.atEnd) throw noBit(begin);
      return first;
    });
    for (let cblock = begin; !cursor.value; this.#next(cursor, cblock, who)) {
      if (++cblock === end) return -1;
    }
    return cursor.bit;
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
