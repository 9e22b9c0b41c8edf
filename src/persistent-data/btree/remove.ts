/**
 * B-tree removal: on the way down every node is shadowed and the children around the key are
 * rebalanced before one is entered, so that it can always lose an entry (spec: persistent-data, 4.8
 * and 4.9). Answers to drivers/md/persistent-data/dm-btree-remove.c. Shapes and order are the
 * kernel's.
 */
import { DmError } from '../../base/error.ts';
import type { BlockNr, WriteBlock } from '../block.ts';
import { checkValueSize, DEPTH_MAX, emptyInternalNode, tooDeep, type BTree } from './btree.ts';
import {
  balanceTwo,
  deleteAt,
  isLeaf,
  keyAt,
  lowerBound,
  maxEntriesOf,
  moveToLeft,
  moveToRight,
  nodeValidator,
  nrEntriesOf,
  setKey,
  valueOffset,
} from './node.ts';
import { incChildren, shadowChild, shadowNode } from './shadow.ts';
import { blockNrAt } from './value-type.ts';

/** Where a removal's walk ended. */
export interface LeafPlace {
  root: BlockNr;
  leaf: WriteBlock;
}

/**
 * Walks to the leaf that covers `key`, with all of the path shadowed and rebalanced. The leaf is
 * null if every key of some node on the way is above `key`.
 */
export function descendToRemove(
  tree: BTree,
  root: BlockNr,
  key: number,
): { root: BlockNr; leaf: WriteBlock | null } {
  const top = shadowNode(tree, root);
  let node = top;
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    if (!isLeaf(node.view)) {
      const nr = nrEntriesOf(node.view);
      if (nr === 0) throw emptyInternalNode(node);
      if (nr === 1) replaceByOnlyChild(tree, node);
      else if (!rebalanceChildren(tree, node, key)) return { root: top.blocknr, leaf: null };
    }
    if (isLeaf(node.view)) {
      checkValueSize(node, tree.valueType.size);
      return { root: top.blocknr, leaf: node };
    }
    const index = lowerBound(node.view, key);
    if (index < 0) return { root: top.blocknr, leaf: null };
    node = shadowChild(tree, node, index);
  }
  throw tooDeep(root);
}

/** Removes `key`, dropping its value's reference. Throws ENODATA if it is not there. */
export function remove(tree: BTree, root: BlockNr, key: number): BlockNr {
  const { root: newRoot, leaf } = descendToRemove(tree, root, key);
  removeFrom(tree, leaf, key);
  return newRoot;
}

/** Removes `key` from the leaf that `descendToRemove` found for it. */
export function removeFrom(tree: BTree, leaf: WriteBlock | null, key: number): void {
  const index = leaf === null ? -1 : lowerBound(leaf.view, key);
  if (leaf === null || index < 0 || keyAt(leaf.view, index) !== key) {
    throw new DmError('ENODATA', `btree: no entry for key ${key}`);
  }
  removeAt(tree, leaf, index);
}

function removeAt(tree: BTree, leaf: WriteBlock, index: number): void {
  tree.valueType.dec(leaf.view, valueOffset(leaf.view, index), 1);
  deleteAt(leaf, index);
}

/**
 * Removes entries from the key `begin` on, up to `end` (not included), as far as single removals
 * reach; it may stop early at a gap. Returns the new root and how many went.
 */
export function removeLeaves(
  tree: BTree,
  root: BlockNr,
  begin: number,
  end: number,
): { root: BlockNr; nrRemoved: number } {
  let nrRemoved = 0;
  for (;;) {
    tree.tm.blocks.newOperation();
    const place = descendToRemove(tree, root, begin);
    root = place.root;
    const { leaf } = place;
    if (leaf === null) break;
    const index = Math.max(lowerBound(leaf.view, begin), 0);
    if (index >= nrEntriesOf(leaf.view)) break;
    const key = keyAt(leaf.view, index);
    if (key < begin || key >= end) break;
    removeAt(tree, leaf, index);
    begin = key + 1;
    nrRemoved++;
  }
  return { root, nrRemoved };
}

/**
 * A node with one child becomes that child: the tree loses a level. The node keeps its block. The
 * grandchildren that come up with it are not rebalanced in this walk, so a node can be left one
 * entry short of a third, until a removal passes it again; the kernel leaves it so too.
 */
function replaceByOnlyChild(tree: BTree, node: WriteBlock): void {
  const { tm } = tree;
  const blocknr = blockNrAt(node.view, valueOffset(node.view, 0));
  const wasShared = tm.isShared(blocknr);
  const child = tm.read(blocknr, nodeValidator) as WriteBlock;
  node.bytes.set(child.bytes);
  if (wasShared) incChildren(tree, node);
  tm.dec(blocknr);
}

/** Rebalances the children around `key`; false if all keys are above it. */
function rebalanceChildren(tree: BTree, parent: WriteBlock, key: number): boolean {
  const index = lowerBound(parent.view, key);
  if (index < 0) return false;
  const hasLeft = index > 0;
  const hasRight = index < nrEntriesOf(parent.view) - 1;
  if (hasLeft && hasRight) rebalance3(tree, parent, index - 1);
  else rebalance2(tree, parent, hasLeft ? index - 1 : index);
  return true;
}

/** Merges or evens out children `index` and `index + 1`. */
function rebalance2(tree: BTree, parent: WriteBlock, index: number): void {
  const left = shadowChild(tree, parent, index);
  const right = shadowChild(tree, parent, index + 1);
  const nrRight = nrEntriesOf(right.view);
  const total = nrEntriesOf(left.view) + nrRight;
  const third = Math.floor(maxEntriesOf(left.view) / 3);
  if (total < 2 * (third + 1)) {
    moveToLeft(left, right, nrRight);
    deleteAt(parent, index + 1);
    tree.tm.dec(right.blocknr);
    return;
  }
  balanceTwo(left, right, Math.floor(total / 2));
  setKey(parent.view, index + 1, keyAt(right.view, 0));
}

/** Evens out three children from `index` on, or spreads the middle one over its neighbours. */
function rebalance3(tree: BTree, parent: WriteBlock, index: number): void {
  const left = shadowChild(tree, parent, index);
  const center = shadowChild(tree, parent, index + 1);
  const right = shadowChild(tree, parent, index + 2);
  const max = maxEntriesOf(left.view);
  if (maxEntriesOf(center.view) !== max || maxEntriesOf(right.view) !== max) {
    const text = 'btree: bad btree metadata, max_entries differ';
    tree.tm.blocks.log.write('error', text);
    throw new DmError('EILSEQ', text);
  }
  const nrCenter = nrEntriesOf(center.view);
  const total = nrEntriesOf(left.view) + nrCenter + nrEntriesOf(right.view);
  if (total >= 4 * Math.floor(max / 3) + 1) {
    redistribute3(left, center, right, total);
    setKey(parent.view, index + 1, keyAt(center.view, 0));
    setKey(parent.view, index + 2, keyAt(right.view, 0));
    return;
  }
  const toLeft = Math.min(max - nrEntriesOf(left.view), nrCenter);
  moveToLeft(left, center, toLeft);
  moveToRight(center, right, nrCenter - toLeft);
  setKey(parent.view, index + 2, keyAt(right.view, 0));
  deleteAt(parent, index + 1);
  tree.tm.dec(center.blocknr);
  rebalance2(tree, parent, index);
}

/** A third each; the left node takes the odd ones first, so that no node overflows on the way. */
function redistribute3(
  left: WriteBlock,
  center: WriteBlock,
  right: WriteBlock,
  total: number,
): void {
  const targetRight = Math.floor(total / 3);
  const targetLeft = targetRight + (total % 3 === 0 ? 0 : 1);
  // The smaller outer node is served first: only then does the center never hold too many.
  if (nrEntriesOf(left.view) < nrEntriesOf(right.view)) {
    const missing = targetLeft - nrEntriesOf(left.view);
    const nrCenter = nrEntriesOf(center.view);
    if (missing > nrCenter) {
      moveToLeft(left, center, nrCenter);
      moveToLeft(left, right, missing - nrCenter);
    } else {
      balanceTwo(left, center, targetLeft);
    }
    const both = nrEntriesOf(center.view) + nrEntriesOf(right.view);
    balanceTwo(center, right, both - targetRight);
  } else {
    const missing = targetRight - nrEntriesOf(right.view);
    const nrCenter = nrEntriesOf(center.view);
    if (missing > nrCenter) {
      moveToRight(center, right, nrCenter);
      moveToRight(left, right, missing - nrCenter);
    } else {
      balanceTwo(center, right, nrCenter - missing);
    }
    balanceTwo(left, center, targetLeft);
  }
}
