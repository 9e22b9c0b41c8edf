/**
 * Reading a one-level tree in key order: a walk over a range, and a cursor that moves an entry at a
 * time (spec: persistent-data, 4.11). Answers to dm_btree_walk and dm_btree_cursor.
 *
 * Both stay right only as long as the tree does not change. They keep block numbers, not blocks, so
 * a long walk does not fill the cache's memory.
 */
import { assert } from '../../base/error.ts';
import type { ReadView } from '../../base/struct.ts';
import type { BlockNr } from '../block.ts';
import { checkValueSize, DEPTH_MAX, tooDeep, type BTree } from './btree.ts';
import {
  isLeaf,
  keyAt,
  lowerBound,
  nodeValidator,
  nrEntriesOf,
  upperBound,
  valueOffset,
} from './node.ts';
import { blockNrAt } from './value-type.ts';

interface Frame {
  blocknr: BlockNr;
  index: number;
}

/** A place in a tree. `atEnd` is true once there is no entry at or after it. */
export class Cursor {
  readonly #tree: BTree;
  readonly #stack: Frame[] = [];

  /** Stands on the first entry whose key is not below `from`. */
  constructor(tree: BTree, root: BlockNr, from = 0) {
    this.#tree = tree;
    this.#push(root, from);
    this.#settle();
  }

  get atEnd(): boolean {
    return this.#stack.length === 0;
  }

  get key(): number {
    const { view, index } = this.#leaf();
    return keyAt(view, index);
  }

  /** The value under the cursor, as a view and an offset in it. */
  value<T>(read: (view: ReadView, offset: number) => T): T {
    const { view, index } = this.#leaf();
    return read(view, valueOffset(view, index));
  }

  /** Moves to the next entry. */
  next(): void {
    const top = this.#stack.at(-1);
    assert(top !== undefined, 'a cursor at the end does not move');
    top.index++;
    this.#settle();
  }

  #leaf(): { view: ReadView; index: number } {
    const top = this.#stack.at(-1);
    assert(top !== undefined, 'a cursor at the end has no entry');
    const { view } = this.#tree.tm.read(top.blocknr, nodeValidator);
    return { view, index: top.index };
  }

  /** Goes down from `blocknr` towards the first key not below `from`. */
  #push(blocknr: BlockNr, from: number): void {
    for (;;) {
      if (this.#stack.length === DEPTH_MAX) throw tooDeep(blocknr);
      const node = this.#tree.tm.read(blocknr, nodeValidator);
      const { view } = node;
      if (isLeaf(view)) {
        checkValueSize(node, this.#tree.valueType.size);
        this.#stack.push({ blocknr, index: upperBound(view, from) });
        return;
      }
      const index = Math.max(lowerBound(view, from), 0);
      this.#stack.push({ blocknr, index });
      if (index >= nrEntriesOf(view)) return;
      blocknr = blockNrAt(view, valueOffset(view, index));
    }
  }

  /**
   * Leaves nodes that are used up and goes down into the next ones, until on an entry or at the
   * end.
   */
  #settle(): void {
    const { tm } = this.#tree;
    tm.blocks.newOperation();
    for (let top = this.#stack.at(-1); top !== undefined; top = this.#stack.at(-1)) {
      const { view } = tm.read(top.blocknr, nodeValidator);
      if (top.index >= nrEntriesOf(view)) {
        this.#stack.pop();
        const parent = this.#stack.at(-1);
        if (parent !== undefined) parent.index++;
      } else if (isLeaf(view)) {
        return;
      } else {
        this.#push(blockNrAt(view, valueOffset(view, top.index)), 0);
      }
    }
  }
}

/** Calls `visit` for each entry with `begin <= key < end`, in order; it returns false to stop. */
export function walk(
  tree: BTree,
  root: BlockNr,
  visit: (key: number, view: ReadView, offset: number) => boolean | void,
  begin = 0,
  end = Infinity,
): void {
  for (const cursor = new Cursor(tree, root, begin); !cursor.atEnd; cursor.next()) {
    const { key } = cursor;
    if (key >= end) return;
    if (cursor.value((view, offset) => visit(key, view, offset)) === false) return;
  }
}
