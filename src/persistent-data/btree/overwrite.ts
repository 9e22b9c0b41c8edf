/**
 * Changing one value in place: the path to an existing key is shadowed, but nothing is split or
 * rebalanced (spec: persistent-data, 6.3). Answers to btree_get_overwrite_leaf.
 */
import { DmError } from '../../base/error.ts';
import type { BlockNr, WriteBlock } from '../block.ts';
import { checkValueSize, DEPTH_MAX, tooDeep, type BTree } from './btree.ts';
import { isLeaf, keyAt, lowerBound, valueOffset } from './node.ts';
import { shadowChild, shadowNode } from './shadow.ts';

/** The writable leaf that holds `key` and where its value begins. Throws ENODATA. */
export function overwritePlace(
  tree: BTree,
  root: BlockNr,
  key: number,
): { root: BlockNr; leaf: WriteBlock; offset: number } {
  const top = shadowNode(tree, root);
  let node = top;
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    const index = lowerBound(node.view, key);
    if (index < 0) break;
    if (isLeaf(node.view)) {
      if (keyAt(node.view, index) !== key) break;
      checkValueSize(node, tree.valueType.size);
      return { root: top.blocknr, leaf: node, offset: valueOffset(node.view, index) };
    }
    node = shadowChild(tree, node, index);
    if (depth === DEPTH_MAX - 1) throw tooDeep(root);
  }
  throw new DmError('ENODATA', `btree: no entry for key ${key}`);
}
