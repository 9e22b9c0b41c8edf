/**
 * The two trees of a thin pool in the plainest form: a top level of roots, and trees whose 8-byte
 * values are data blocks, counted in the scratch store's disk space map.
 */
import { getLe64, type ReadView } from '../../src/base/struct.ts';
import type { BlockNr, ReadBlock } from '../../src/persistent-data/block.ts';
import { BTree } from '../../src/persistent-data/btree/btree.ts';
import { deleteTree } from '../../src/persistent-data/btree/delete.ts';
import { blockNrAt, eachRun, type ValueType } from '../../src/persistent-data/btree/value-type.ts';
import type { CheckRun } from '../../src/persistent-data/check/check-run.ts';
import type { CountTable } from '../../src/persistent-data/check/count-table.ts';
import {
  checkNested,
  eachEntry,
  type Subtree,
} from '../../src/persistent-data/check/tree-check.ts';
import type { SubtreeSummary } from '../../src/persistent-data/check/node-table.ts';
import type { Scratch } from './scratch.ts';

export interface NestedTrees {
  readonly top: BTree;
  readonly bottom: BTree;
}

/** The trees of a store as it is now; make them anew after an abort. */
export function nestedTrees({ tm, dataSm }: Scratch): NestedTrees {
  const change =
    (how: 'inc' | 'dec') =>
    (view: ReadView, offset: number, count: number): void => {
      const blockAt = (i: number): number => getLe64(view, offset + i * 8);
      eachRun(count, blockAt, (begin, end) => dataSm[how](begin, end));
    };
  const equal: ValueType['equal'] = (a, aOffset, b, bOffset) =>
    getLe64(a, aOffset) === getLe64(b, bOffset);
  const bottom = new BTree(tm, { size: 8, inc: change('inc'), dec: change('dec'), equal });
  const rootsAt = (view: ReadView, offset: number, count: number): BlockNr[] =>
    Array.from({ length: count }, (_, i) => blockNrAt(view, offset + i * 8));
  const top = new BTree(tm, {
    size: 8,
    inc: (view, offset, count) => rootsAt(view, offset, count).forEach((root) => tm.inc(root)),
    dec: (view, offset, count) =>
      rootsAt(view, offset, count).forEach((root) => deleteTree(bottom, root)),
    equal,
  });
  return { top, bottom };
}

/** Checks the trees at `root`, counting data blocks into `data`. */
export function checkNestedTrees(
  run: CheckRun,
  root: number,
  data: CountTable,
  visitSubtree?: (subtree: Subtree, summary: SubtreeSummary) => void,
): void {
  const visitLeaf = ({ view }: ReadBlock): void =>
    eachEntry(view, (_, offset) => data.add(getLe64(view, offset)));
  checkNested(run, root, { name: 'mapping tree', valueSize: 8, visitLeaf }, visitSubtree);
}
