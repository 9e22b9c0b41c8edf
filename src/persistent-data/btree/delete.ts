/**
 * Deletion of a whole tree: every reference that it alone held is given up
 * (spec: persistent-data, 4.10). Answers to dm_btree_del in dm-btree.c.
 */
import type { BlockNr } from '../block.ts';
import { DEPTH_MAX, tooDeep, type BTree } from './btree.ts';
import { isLeaf, nodeValidator, nrEntriesOf, valueOffset } from './node.ts';
import { blockNrAt } from './value-type.ts';

interface Frame {
  readonly blocknr: BlockNr;
  readonly nrChildren: number;
  next: number;
}

/**
 * Drops one reference to the tree at `root`. Where it was the last, the subtrees and values below
 * are dropped too, depth first; a block with other references keeps all that it refers to.
 */
export function deleteTree(tree: BTree, root: BlockNr): void {
  const { tm } = tree;
  const stack: Frame[] = [];
  const push = (blocknr: BlockNr): void => {
    if (stack.length === DEPTH_MAX) throw tooDeep(root);
    if (tm.count(blocknr) > 1) {
      tm.dec(blocknr);
      return;
    }
    const { view } = tm.read(blocknr, nodeValidator);
    const nr = nrEntriesOf(view);
    if (isLeaf(view)) {
      if (nr > 0) tree.valueType.dec(view, valueOffset(view, 0), nr);
      tm.dec(blocknr);
      return;
    }
    stack.push({ blocknr, nrChildren: nr, next: 0 });
  };
  push(root);
  for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
    if (frame.next === frame.nrChildren) {
      tm.dec(frame.blocknr);
      stack.pop();
      continue;
    }
    // Between nodes nothing is kept but numbers, so what was read may be evicted.
    tm.blocks.newOperation();
    const { view } = tm.read(frame.blocknr, nodeValidator);
    push(blockNrAt(view, valueOffset(view, frame.next++)));
  }
}
