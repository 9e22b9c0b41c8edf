/**
 * Shadowing of B-tree nodes: a writable copy, with the references of what it points to counted once
 * more if the node was shared (spec: persistent-data, 4.6 and 5.2).
 */
import type { BlockNr, WriteBlock } from '../block.ts';
import { blockNrValueType, blockNrAt, type ValueType } from './value-type.ts';
import type { BTree } from './btree.ts';
import { isLeaf, nodeValidator, nrEntriesOf, setBlockNr, valueOffset } from './node.ts';
import type { TransactionManager } from '../transaction-manager.ts';

const childTypes = new WeakMap<TransactionManager, ValueType>();

/** The value type of internal nodes of every tree of `tm`. */
export function childValueType(tm: TransactionManager): ValueType {
  let type = childTypes.get(tm);
  if (type === undefined) {
    type = blockNrValueType(tm);
    childTypes.set(tm, type);
  }
  return type;
}

/** Counts one more reference to everything that `node` points to. */
export function incChildren(tree: BTree, node: WriteBlock): void {
  const type = isLeaf(node.view) ? tree.valueType : childValueType(tree.tm);
  const nr = nrEntriesOf(node.view);
  if (nr > 0) type.inc(node.view, valueOffset(node.view, 0), nr);
}

/** A writable form of a node; the caller stores its number where the reference was. */
export function shadowNode(tree: BTree, blocknr: BlockNr): WriteBlock {
  const node = tree.tm.shadow(blocknr, nodeValidator);
  if (tree.tm.shadowWasShared) incChildren(tree, node);
  return node;
}

/** A writable form of child `index` of a writable node, which then points to it. */
export function shadowChild(tree: BTree, parent: WriteBlock, index: number): WriteBlock {
  const child = blockNrAt(parent.view, valueOffset(parent.view, index));
  const node = shadowNode(tree, child);
  setBlockNr(parent.view, index, node.blocknr);
  return node;
}
