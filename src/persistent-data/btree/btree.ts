/**
 * BTree: a B+-tree of one level with u64 keys: creation and reading.
 * Answers to drivers/md/persistent-data/dm-btree.c (spec: persistent-data, 4). Hot path: `lookup`.
 *
 * A tree is named by its root block, which the caller stores; what changes a tree returns its new
 * root. Changing is in insert.ts, remove.ts and delete.ts. Multi-level trees are trees whose values
 * are roots. Damage that the kernel does not look for (a leaf of another value size, a path deeper
 * than DEPTH_MAX) is EILSEQ here: nothing loops and nothing is misread.
 */
import { DmError } from '../../base/error.ts';
import type { ReadView } from '../../base/struct.ts';
import type { BlockNr, ReadBlock } from '../block.ts';
import type { TransactionManager } from '../transaction-manager.ts';
import {
  initNode,
  isLeaf,
  keyAt,
  LEAF_NODE,
  lowerBound,
  nodeValidator,
  nrEntriesOf,
  upperBound,
  valueOffset,
  valueSizeOf,
} from './node.ts';
import { blockNrAt, type ValueType } from './value-type.ts';

/** Levels of nodes that a walk follows; a tree of all 2^64 keys has fewer. */
export const DEPTH_MAX = 16;

/**
 * A found entry; owned by the caller of a lookup and filled by it; valid until the tree changes.
 */
export interface Entry {
  key: number;
  view: ReadView;
  /** Where the value begins in `view`. */
  offset: number;
}

const NO_VIEW: ReadView = new DataView(new ArrayBuffer(0));

/** An entry for lookups to fill. */
export function makeEntry(): Entry {
  return { key: 0, view: NO_VIEW, offset: 0 };
}

export class BTree {
  readonly tm: TransactionManager;
  readonly valueType: ValueType;

  constructor(tm: TransactionManager, valueType: ValueType) {
    this.tm = tm;
    this.valueType = valueType;
  }

  /** Makes an empty tree; returns its root. */
  empty(): BlockNr {
    const block = this.tm.newBlock(nodeValidator);
    initNode(block, LEAF_NODE, this.valueType.size);
    return block.blocknr;
  }

  /** Finds exactly `key`. False if it is not there. */
  lookup(root: BlockNr, key: number, entry: Entry): boolean {
    let node = this.tm.read(root, nodeValidator);
    for (let depth = 0; depth < DEPTH_MAX; depth++) {
      const { view } = node;
      const index = lowerBound(view, key);
      if (index < 0) return false;
      if (isLeaf(view)) {
        if (keyAt(view, index) !== key) return false;
        this.#fill(node, index, entry);
        return true;
      }
      node = this.tm.read(blockNrAt(view, valueOffset(view, index)), nodeValidator);
    }
    throw tooDeep(root);
  }

  /** Finds the first entry whose key is not below `key`. False if there is none. */
  lookupNext(root: BlockNr, key: number, entry: Entry): boolean {
    return this.#next(root, key, entry, 0);
  }

  #next(blocknr: BlockNr, key: number, entry: Entry, depth: number): boolean {
    if (depth === DEPTH_MAX) throw tooDeep(blocknr);
    const node = this.tm.read(blocknr, nodeValidator);
    const { view } = node;
    const nr = nrEntriesOf(view);
    if (isLeaf(view)) {
      const index = upperBound(view, key);
      if (index >= nr) return false;
      this.#fill(node, index, entry);
      return true;
    }
    const index = Math.max(lowerBound(view, key), 0);
    for (let i = index; i < nr && i <= index + 1; i++) {
      const child = blockNrAt(view, valueOffset(view, i));
      if (this.#next(child, key, entry, depth + 1)) return true;
    }
    return false;
  }

  /** The lowest key; undefined for an empty tree. */
  lowestKey(root: BlockNr): number | undefined {
    return this.#edgeKey(root, () => 0);
  }

  /** The highest key; undefined for an empty tree. */
  highestKey(root: BlockNr): number | undefined {
    return this.#edgeKey(root, (nr) => nr - 1);
  }

  #edgeKey(root: BlockNr, choose: (nr: number) => number): number | undefined {
    let node = this.tm.read(root, nodeValidator);
    for (let depth = 0; depth < DEPTH_MAX; depth++) {
      const { view } = node;
      const nr = nrEntriesOf(view);
      if (nr === 0) return undefined;
      const index = choose(nr);
      if (isLeaf(view)) return keyAt(view, index);
      node = this.tm.read(blockNrAt(view, valueOffset(view, index)), nodeValidator);
    }
    throw tooDeep(root);
  }

  #fill(leaf: ReadBlock, index: number, entry: Entry): void {
    const { view } = leaf;
    checkValueSize(leaf, this.valueType.size);
    entry.key = keyAt(view, index);
    entry.view = view;
    entry.offset = valueOffset(view, index);
  }
}

/** A leaf's values must be of the tree's size: damage that the kernel would misread. */
export function checkValueSize(leaf: ReadBlock, wanted: number): void {
  const found = valueSizeOf(leaf.view);
  if (found === wanted) return;
  const text = `btree: wanted values of ${wanted} bytes in block ${leaf.blocknr}, found ${found}`;
  throw new DmError('EILSEQ', text);
}

/** A path that is longer than any tree is deep: the nodes form a loop. */
export function tooDeep(blocknr: BlockNr): DmError {
  return new DmError('EILSEQ', `btree: more than ${DEPTH_MAX} levels below block ${blocknr}`);
}

/** An internal node that leads nowhere. */
export function emptyInternalNode(node: ReadBlock): DmError {
  return new DmError('EILSEQ', `btree: internal node ${node.blocknr} has no entries`);
}
