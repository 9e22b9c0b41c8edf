/**
 * Builds a B-tree from entries in key order, bottom up: nodes as full as can be, all equally full.
 *
 * For trees that are written once and whole, by tools; a pool in use inserts.
 */
import { assert } from '../../base/error.ts';
import { divUp } from '../../base/numbers.ts';
import { setLe64, type WriteView } from '../../base/struct.ts';
import type { WriteBlock } from '../block.ts';
import {
  initNode,
  INTERNAL_NODE,
  LEAF_NODE,
  maxEntriesFor,
  setKey,
  setNrEntries,
  valueOffset,
} from './node.ts';

/** The entries of a tree, in ascending order of key. */
export interface TreeEntries {
  readonly nrEntries: number;
  /** Bytes of a value. */
  readonly valueSize: number;
  key(index: number): number;
  writeValue(view: WriteView, offset: number, index: number): void;
}

/** Builds the tree in blocks, all zero, that `newBlock` gives; returns the root's number. */
export function buildTree(entries: TreeEntries, newBlock: () => WriteBlock): number {
  let level = buildLevel(entries, LEAF_NODE, newBlock);
  while (level.length > 1) {
    const children = level;
    const at = (index: number): Child => children[index] as Child;
    const pointers: TreeEntries = {
      nrEntries: children.length,
      valueSize: 8,
      key: (index) => at(index).key,
      writeValue: (view, offset, index) => setLe64(view, offset, at(index).blocknr),
    };
    level = buildLevel(pointers, INTERNAL_NODE, newBlock);
  }
  const [root] = level;
  assert(root !== undefined, 'a level has at least one node');
  return root.blocknr;
}

interface Child {
  readonly key: number;
  readonly blocknr: number;
}

function buildLevel(entries: TreeEntries, flags: number, newBlock: () => WriteBlock): Child[] {
  const { nrEntries, valueSize } = entries;
  const nrNodes = Math.max(1, divUp(nrEntries, maxEntriesFor(valueSize)));
  const level: Child[] = [];
  for (let node = 0; node < nrNodes; node++) {
    const begin = Math.floor((node * nrEntries) / nrNodes);
    const end = Math.floor(((node + 1) * nrEntries) / nrNodes);
    const block = newBlock();
    initNode(block, flags, valueSize);
    setNrEntries(block.view, end - begin);
    for (let index = begin; index < end; index++) {
      setKey(block.view, index - begin, entries.key(index));
      entries.writeValue(block.view, valueOffset(block.view, index - begin), index);
    }
    level.push({ key: nrEntries > 0 ? entries.key(begin) : 0, blocknr: block.blocknr });
  }
  return level;
}
