/**
 * MappingArray: the mappings of all cblocks, an array indexed by cblock (spec: cache, 2.3).
 *
 * Any change may move the root, which the owner stores at a commit.
 */
import { DmError } from '../../base/error.ts';
import { DmArray } from '../../persistent-data/array.ts';
import { ArrayCursor } from '../../persistent-data/array-cursor.ts';
import type { BlockNr } from '../../persistent-data/block.ts';
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
    const { perBlock } = this.#array;
    for (let begin = 0; begin < this.#length; begin += perBlock) {
      const changes: { cblock: number; oblock: number; flags: number }[] = [];
      // A walk ends with the first change, so first comes a block's walk, then its changes.
      this.walk(begin, Math.min(begin + perBlock, this.#length), (cblock, oblock, old) => {
        const flags = wanted(cblock, old);
        if (flags !== old) changes.push({ cblock, oblock, flags });
      });
      for (const { cblock, oblock, flags } of changes) this.set(cblock, oblock, flags);
    }
  }

  /** Changes the number of cblocks; new ones are unmapped. */
  resize(length: number): void {
    const value = makeValue(MAPPING_SIZE);
    this.#root = this.#array.resize(this.#root, this.#length, length, value);
    this.#length = length;
  }

  /**
   * Visits cblocks `[begin, end)` in order; the array must not change meanwhile. Throws ENODATA if
   * it ends before.
   */
  walk(begin: number, end: number, visit: MappingVisitor): void {
    const cursor = new ArrayCursor(this.#array, this.#root, begin);
    for (let cblock = begin; cblock < end; cblock++, cursor.next()) {
      if (cursor.atEnd || cursor.index !== cblock) {
        throw new DmError('ENODATA', `the mapping array has no cblock ${cblock}`);
      }
      const go = cursor.value((view, offset) =>
        visit(cblock, oblockAt(view, offset), flagsAt(view, offset)),
      );
      if (go === false) return;
    }
  }

  /** The first cblock in `[begin, end)` whose mapping has all of `wanted`, or -1. */
  firstWith(wanted: number, begin: number, end: number): number {
    let found = -1;
    this.walk(begin, end, (cblock, _oblock, flags) => {
      const fits = (flags & wanted) === wanted;
      if (fits) found = cblock;
      return !fits;
    });
    return found;
  }
}
