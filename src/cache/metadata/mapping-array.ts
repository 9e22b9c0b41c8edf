/**
 * MappingArray: the mappings of all cblocks, an array indexed by cblock (spec: cache, 2.3).
 *
 * Any change may move the root, which the owner stores at a commit.
 */
import { codeOf, DmError } from '../../base/error.ts';
import { DmArray } from '../../persistent-data/array.ts';
import { ArrayCursor } from '../../persistent-data/array-cursor.ts';
import type { BlockNr } from '../../persistent-data/block.ts';
import { makeEntry } from '../../persistent-data/btree/btree.ts';
import { makeValue } from '../../persistent-data/btree/insert.ts';
import { plainValueType } from '../../persistent-data/btree/value-type.ts';
import type { TransactionManager } from '../../persistent-data/transaction-manager.ts';
import { flagsAt, MAPPING_SIZE, oblockAt, setMapping } from './mapping.ts';

/** Sees a mapping, valid or not; returns false to stop. */
export type MappingVisitor = (cblock: number, oblock: number, flags: number) => boolean | void;

export class MappingArray {
  readonly #array: DmArray;
  #root: BlockNr;
  /** Cblocks. */
  #length: number;
  readonly #value = makeValue(MAPPING_SIZE);
  readonly #entry = makeEntry();

  private constructor(array: DmArray, root: BlockNr, length: number) {
    this.#array = array;
    this.#root = root;
    this.#length = length;
  }

  static empty(tm: TransactionManager): MappingArray {
    const array = new DmArray(tm, plainValueType(MAPPING_SIZE));
    return new MappingArray(array, array.empty(), 0);
  }

  static open(tm: TransactionManager, root: BlockNr, length: number): MappingArray {
    return new MappingArray(new DmArray(tm, plainValueType(MAPPING_SIZE)), root, length);
  }

  get root(): BlockNr {
    return this.#root;
  }

  get length(): number {
    return this.#length;
  }

  /** Writes the mapping of a cblock. Throws ENODATA beyond the end. */
  set(cblock: number, oblock: number, flags: number): void {
    setMapping(this.#value.view, 0, oblock, flags);
    this.#root = this.#array.set(this.#root, cblock, this.#value);
  }

  /** Gives every cblock the flags that `wanted` says; what has them already is not written. */
  updateFlags(wanted: (cblock: number, flags: number) => number): void {
    this.#each(0, this.#length, (cblock, oblock, old) => {
      const flags = wanted(cblock, old);
      if (flags !== old) this.set(cblock, oblock, flags);
    });
  }

  /** Changes the number of cblocks; new ones are unmapped. */
  resize(length: number): void {
    const value = makeValue(MAPPING_SIZE);
    this.#root = this.#array.resize(this.#root, this.#length, length, value);
    this.#length = length;
  }

  /** The first cblock in `[begin, end)` whose mapping has all of `wanted`, or -1. */
  firstWith(wanted: number, begin: number, end: number): number {
    let found = -1;
    this.#explain('block_clean_combined_dirty failed', () =>
      this.#each(begin, end, (cblock, _oblock, flags) => {
        const fits = (flags & wanted) === wanted;
        if (fits) found = cblock;
        return !fits;
      }),
    );
    return found;
  }

  /** Visits cblocks in `[begin, end)` in order; the visitor may change the one it sees. */
  #each(begin: number, end: number, visit: MappingVisitor): void {
    const entry = this.#entry;
    for (let cblock = begin; cblock < end; cblock++) {
      // Of a long array not all is kept.
      if (cblock % this.#array.perBlock === 0) this.#array.tm.blocks.newOperation();
      this.#array.get(this.#root, cblock, entry);
      const { view, offset } = entry;
      if (visit(cblock, oblockAt(view, offset), flagsAt(view, offset)) === false) return;
    }
  }

  /** Visits all cblocks in order; the array must not change meanwhile. Throws ENODATA if it ends. */
  walk(visit: MappingVisitor): void {
    if (this.#length === 0) return;
    const cursor = new ArrayCursor(this.#array, this.#root);
    if (cursor.atEnd) throw noMapping(0);
    for (let cblock = 0; ; this.#next(cursor, cblock)) {
      const go = cursor.value((view, offset) =>
        visit(cblock, oblockAt(view, offset), flagsAt(view, offset)),
      );
      if (go === false || ++cblock === this.#length) return;
    }
  }

  /** Moves on to `cblock`. */
  #next(cursor: ArrayCursor, cblock: number): void {
    this.#explain('dm_array_cursor_next for mapping failed', () => {
      cursor.next();
      if (cursor.atEnd || cursor.index !== cblock) throw noMapping(cblock);
    });
  }

  /** Tells the kernel's log `text` if a step fails. */
  #explain(text: string, step: () => void): void {
    try {
      step();
    } catch (error) {
      codeOf(error);
      this.#array.tm.blocks.log.write('error', `cache metadata: ${text}`);
      throw error;
    }
  }
}

function noMapping(cblock: number): DmError {
  return new DmError('ENODATA', `the mapping array has no cblock ${cblock}`);
}
