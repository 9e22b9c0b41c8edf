/**
 * HintArray: what the policy wants to know again of each cblock, an array made anew at each clean
 * shutdown (spec: cache, 2.5). Hints have 4 bytes, or there are none.
 */
import { codeOf } from '../../base/error.ts';
import { DmArray } from '../../persistent-data/array.ts';
import { ArrayCursor } from '../../persistent-data/array-cursor.ts';
import { asBlockNr, type BlockNr } from '../../persistent-data/block.ts';
import { plainValueType } from '../../persistent-data/btree/value-type.ts';
import type { TransactionManager } from '../../persistent-data/transaction-manager.ts';

export const HINT_SIZE = 4;

/** Gives the hints of cblocks that are asked for in ascending order; null where there is none. */
export type HintReader = (cblock: number) => number | null;

export class HintArray {
  readonly #array: DmArray;
  /** 0 for none. */
  #root: BlockNr;

  constructor(tm: TransactionManager, root: BlockNr) {
    this.#array = new DmArray(tm, plainValueType(HINT_SIZE));
    this.#root = root;
  }

  get root(): BlockNr {
    return this.#root;
  }

  get isEmpty(): boolean {
    return this.#root === 0;
  }

  /**
   * A reader that stays right as long as nothing is written. Where the array ends, or cannot be
   * read on, there are no hints.
   */
  reader(): HintReader {
    const cursor = new ArrayCursor(this.#array, this.#root);
    let isUsable = !cursor.atEnd;
    return (cblock) => {
      if (isUsable && cursor.index < cblock) isUsable = moveTo(cursor, cblock);
      if (!isUsable) return null;
      return cursor.value((view, offset) => view.getUint32(offset, true));
    };
  }

  /** Writes the hints of `length` cblocks in place of the old ones; those of size 0 are none. */
  write(length: number, hintSize: number, hintOf: (cblock: number) => number): void {
    if (!this.isEmpty) this.#array.delete(this.#root);
    this.#root = asBlockNr(0);
    if (hintSize === 0) return;
    this.#root = this.#array.create(length, (cblock, view, offset) =>
      view.setUint32(offset, hintOf(cblock), true),
    );
  }
}

/** False if there is no such place. */
function moveTo(cursor: ArrayCursor, cblock: number): boolean {
  try {
    while (!cursor.atEnd && cursor.index < cblock) cursor.next();
  } catch (error) {
    codeOf(error);
    return false;
  }
  return !cursor.atEnd && cursor.index === cblock;
}
