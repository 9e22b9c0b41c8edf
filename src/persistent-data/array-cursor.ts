/**
 * Reading an array in order of index: a cursor that moves a value at a time, and a walk
 * (spec: persistent-data, 9). Answers to dm_array_cursor and dm_array_walk in dm-array.c.
 *
 * Both stay right only as long as the array does not change. They keep block numbers, not blocks,
 * so a long walk does not fill the cache's memory.
 */
import { assert, codeOf } from '../base/error.ts';
import { divDown } from '../base/numbers.ts';
import type { ReadView } from '../base/struct.ts';
import { arrayNrEntries, arrayValueOffset } from './array-layout.ts';
import type { DmArray } from './array.ts';
import type { BlockNr, ReadBlock } from './block.ts';
import { Cursor } from './btree/cursor.ts';
import { blockNrAt } from './btree/value-type.ts';

/** A place in an array. `atEnd` is true once there is no value at or after it. */
export class ArrayCursor {
  readonly #array: DmArray;
  readonly #blocks: Cursor;
  #blocknr: BlockNr | null = null;
  /** The value's index in its block, and how many the block has. */
  #entry: number;
  #nrEntries = 0;

  /** Stands on the value at index `from`. */
  constructor(array: DmArray, root: BlockNr, from = 0) {
    this.#array = array;
    this.#blocks = openCursor(array, root, divDown(from, array.perBlock));
    this.#entry = from % array.perBlock;
    this.#enterBlock();
    this.#settle();
  }

  get atEnd(): boolean {
    return this.#blocknr === null;
  }

  get index(): number {
    return this.#blocks.key * this.#array.perBlock + this.#entry;
  }

  /** The value under the cursor, as a view and an offset in it. */
  value<T>(read: (view: ReadView, offset: number) => T): T {
    assert(this.#blocknr !== null, 'a cursor at the end has no value');
    const { view } = this.#array.readBlock(this.#blocknr);
    return read(view, arrayValueOffset(this.#entry, this.#array.valueType.size));
  }

  /** Moves to the next value. */
  next(): void {
    assert(this.#blocknr !== null, 'a cursor at the end does not move');
    this.#entry++;
    this.#settle();
  }

  #enterBlock(): void {
    if (this.#blocks.atEnd) {
      this.#blocknr = null;
      return;
    }
    this.#blocknr = this.#blocks.value(blockNrAt);
    this.#nrEntries = arrayNrEntries(enterBlock(this.#array, this.#blocknr).view);
  }

  /** Leaves blocks that are used up, until on a value or at the end. */
  #settle(): void {
    while (this.#blocknr !== null && this.#entry >= this.#nrEntries) {
      this.#blocks.next();
      this.#entry = 0;
      this.#enterBlock();
    }
  }
}

function openCursor(array: DmArray, root: BlockNr, from: number): Cursor {
  try {
    return new Cursor(array.index, root, from);
  } catch (error) {
    codeOf(error);
    array.tm.blocks.log.write('error', "array: couldn't create btree cursor");
    throw error;
  }
}

function enterBlock(array: DmArray, blocknr: BlockNr): ReadBlock {
  try {
    return array.readBlock(blocknr);
  } catch (error) {
    codeOf(error);
    array.tm.blocks.log.write('error', 'array: get_ablock failed');
    throw error;
  }
}

/** Calls `visit` for each value with `begin <= index < end`, in order; it returns false to stop. */
export function walkArray(
  array: DmArray,
  root: BlockNr,
  visit: (index: number, view: ReadView, offset: number) => boolean | void,
  begin = 0,
  end = Infinity,
): void {
  for (const cursor = new ArrayCursor(array, root, begin); !cursor.atEnd; cursor.next()) {
    const { index } = cursor;
    if (index >= end) return;
    if (cursor.value((view, offset) => visit(index, view, offset)) === false) return;
  }
}
