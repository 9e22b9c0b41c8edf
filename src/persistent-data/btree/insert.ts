/**
 * B-tree insertion: on the way down every node is shadowed, and made non-full before it is entered,
 * so that a split never has to go back up (spec: persistent-data, 4.7).
 * Answers to dm_btree_insert and its helpers in dm-btree.c. The shapes and the order of allocations
 * are the kernel's, to the block.
 */
import type { WriteView } from '../../base/struct.ts';
import type { BlockNr, WriteBlock } from '../block.ts';
import { checkValueSize, DEPTH_MAX, emptyInternalNode, tooDeep, type BTree } from './btree.ts';
import {
  balanceTwo,
  initNodeLike,
  insertAt,
  INTERNAL_NODE,
  isFull,
  isLeaf,
  keyAt,
  lowerBound,
  maxEntriesFor,
  maxEntriesOf,
  copyEntries,
  nodeHeader,
  nodeValidator,
  nrEntriesOf,
  setBlockNr,
  setKey,
  setNrEntries,
  valueOffset,
} from './node.ts';
import { shadowChild, shadowNode } from './shadow.ts';
import { blockNrAt } from './value-type.ts';

/** A sibling takes entries from a full node only if it has room for this many. */
const SPACE_THRESHOLD = 8;

/** Where an insertion ended: the writable leaf and the place in it. Filled by `descend`. */
export interface Place {
  root: BlockNr;
  leaf: WriteBlock;
  index: number;
  /** The key was already there: its value is at `index`. */
  found: boolean;
}

/**
 * Walks to where `key` is or belongs, with all of the path shadowed and room in the leaf. If the
 * key is missing, nothing is inserted yet: its place is after `index`.
 */
export function descend(tree: BTree, root: BlockNr, key: number): Place {
  const top = shadowNode(tree, root);
  let node = top;
  let parent: WriteBlock | null = null;
  let indexInParent = 0;
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    if (isFull(node.view) && !(isLeaf(node.view) && hasKey(node.view, key))) {
      if (parent === null) splitBeneath(tree, node);
      else node = makeRoom(tree, parent, indexInParent, node, key);
    }
    const index = lowerBound(node.view, key);
    if (isLeaf(node.view)) {
      checkValueSize(node, tree.valueType.size);
      const found = index >= 0 && keyAt(node.view, index) === key;
      return { root: top.blocknr, leaf: node, index, found };
    }
    if (nrEntriesOf(node.view) === 0) throw emptyInternalNode(node);
    if (index < 0) setKey(node.view, 0, key);
    parent = node;
    indexInParent = Math.max(index, 0);
    node = shadowChild(tree, parent, indexInParent);
  }
  throw tooDeep(root);
}

/** A value to insert: its bytes, and a view of them. */
export interface Value {
  readonly view: WriteView;
  readonly bytes: Uint8Array;
}

/** Room for a value of `size` bytes, to fill and insert again and again. */
export function makeValue(size: number): Value & { readonly view: DataView } {
  const bytes = new Uint8Array(size);
  return { bytes, view: new DataView(bytes.buffer) };
}

/**
 * Inserts or overwrites `key`. An overwritten value gives its reference up, unless the value type
 * says that both are equal. The caller hands over the reference that the new value stands for.
 */
export function insert(
  tree: BTree,
  root: BlockNr,
  key: number,
  value: Value,
): { root: BlockNr; inserted: boolean } {
  const place = descend(tree, root, key);
  putValue(tree, place, key, value);
  return { root: place.root, inserted: !place.found };
}

/** Writes `value` at a place that `descend` found for `key`. */
export function putValue(tree: BTree, place: Place, key: number, value: Value): void {
  const { leaf } = place;
  const { valueType } = tree;
  let { index } = place;
  if (place.found) {
    const offset = valueOffset(leaf.view, index);
    if (!valueType.equal(leaf.view, offset, value.view, 0)) valueType.dec(leaf.view, offset, 1);
  } else {
    index++;
    insertAt(leaf, index, key);
  }
  leaf.bytes.set(value.bytes, valueOffset(leaf.view, index));
}

function hasKey(view: WriteView, key: number): boolean {
  const index = lowerBound(view, key);
  return index >= 0 && keyAt(view, index) === key;
}

/** The full top node becomes the parent of two new halves; its block stays (4.7.1). */
function splitBeneath(tree: BTree, top: WriteBlock): void {
  const left = tree.tm.newBlock(nodeValidator);
  const right = tree.tm.newBlock(nodeValidator);
  initNodeLike(left, top);
  initNodeLike(right, top);
  const nr = nrEntriesOf(top.view);
  const nrLeft = Math.floor(nr / 2);
  copyEntries(left, 0, top, 0, nrLeft);
  copyEntries(right, 0, top, nrLeft, nr - nrLeft);
  setNrEntries(left.view, nrLeft);
  setNrEntries(right.view, nr - nrLeft);

  nodeHeader.flags.set(top.view, 0, INTERNAL_NODE);
  nodeHeader.nrEntries.set(top.view, 0, 2);
  nodeHeader.maxEntries.set(top.view, 0, maxEntriesFor(8));
  nodeHeader.valueSize.set(top.view, 0, 8);
  setKey(top.view, 0, keyAt(left.view, 0));
  setBlockNr(top.view, 0, left.blocknr);
  setKey(top.view, 1, keyAt(right.view, 0));
  setBlockNr(top.view, 1, right.blocknr);
}

/** Makes room in a full node that has a parent (4.7.2); returns the node that now covers `key`. */
function makeRoom(
  tree: BTree,
  parent: WriteBlock,
  index: number,
  node: WriteBlock,
  key: number,
): WriteBlock {
  const nrParent = nrEntriesOf(parent.view);
  let shared = false;
  if (index > 0) {
    const left = siblingRoom(tree, parent, index - 1);
    if (left >= SPACE_THRESHOLD) return balanceWithLeft(tree, parent, index, node, key);
    shared ||= left === SHARED;
  }
  if (index < nrParent - 1) {
    const right = siblingRoom(tree, parent, index + 1);
    if (right >= SPACE_THRESHOLD) return balanceWithRight(tree, parent, index, node, key);
    shared ||= right === SHARED;
  }
  if (shared || nrParent <= 2 || index === 0 || index === nrParent - 1) {
    return splitOneIntoTwo(tree, parent, index, node, key);
  }
  return splitTwoIntoThree(tree, parent, index, node, key);
}

/** siblingRoom's answer for a shared sibling, which is left alone so that it stays shared. */
const SHARED = -1;

/** Free entries of a child, or SHARED. */
function siblingRoom(tree: BTree, parent: WriteBlock, index: number): number {
  const blocknr = blockNrAt(parent.view, valueOffset(parent.view, index));
  if (tree.tm.isShared(blocknr)) return SHARED;
  const { view } = tree.tm.read(blocknr, nodeValidator);
  return maxEntriesOf(view) - nrEntriesOf(view);
}

function balanceWithLeft(
  tree: BTree,
  parent: WriteBlock,
  index: number,
  node: WriteBlock,
  key: number,
): WriteBlock {
  const left = shadowChild(tree, parent, index - 1);
  const total = nrEntriesOf(left.view) + nrEntriesOf(node.view);
  balanceTwo(left, node, Math.floor(total / 2));
  const first = keyAt(node.view, 0);
  setKey(parent.view, index, first);
  return key < first ? left : node;
}

function balanceWithRight(
  tree: BTree,
  parent: WriteBlock,
  index: number,
  node: WriteBlock,
  key: number,
): WriteBlock {
  const right = shadowChild(tree, parent, index + 1);
  const total = nrEntriesOf(node.view) + nrEntriesOf(right.view);
  balanceTwo(node, right, Math.floor(total / 2));
  const first = keyAt(right.view, 0);
  setKey(parent.view, index + 1, first);
  return key < first ? node : right;
}

function splitOneIntoTwo(
  tree: BTree,
  parent: WriteBlock,
  index: number,
  node: WriteBlock,
  key: number,
): WriteBlock {
  const right = tree.tm.newBlock(nodeValidator);
  initNodeLike(right, node);
  balanceTwo(node, right, Math.floor(nrEntriesOf(node.view) / 2));
  const first = keyAt(right.view, 0);
  insertAt(parent, index + 1, first);
  setBlockNr(parent.view, index + 1, right.blocknr);
  return key < first ? node : right;
}

function splitTwoIntoThree(
  tree: BTree,
  parent: WriteBlock,
  index: number,
  node: WriteBlock,
  key: number,
): WriteBlock {
  const left = shadowChild(tree, parent, index - 1);
  const middle = tree.tm.newBlock(nodeValidator);
  initNodeLike(middle, left);
  redistributeIntoMiddle(left, middle, node);
  const firstMiddle = keyAt(middle.view, 0);
  const firstRight = keyAt(node.view, 0);
  setKey(parent.view, index, firstRight);
  insertAt(parent, index, firstMiddle);
  setBlockNr(parent.view, index, middle.blocknr);
  if (key < firstMiddle) return left;
  return key < firstRight ? middle : node;
}

/** Spreads the entries of two nodes over three, the middle one being empty (4.7.4). */
function redistributeIntoMiddle(left: WriteBlock, middle: WriteBlock, right: WriteBlock): void {
  const total = nrEntriesOf(left.view) + nrEntriesOf(right.view);
  const targetLeft = Math.floor(total / 3);
  const targetMiddle = Math.floor((total - targetLeft) / 2);
  // Both outer nodes are nearly full, so both give.
  balanceTwo(left, middle, targetLeft);
  balanceTwo(middle, right, targetMiddle);
}
