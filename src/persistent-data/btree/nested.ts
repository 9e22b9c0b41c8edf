/**
 * Multi-level trees: trees whose values, in all levels but the last, are the roots of the next
 * level (spec: persistent-data, 4.3). Answers to dm_btree_info.levels.
 *
 * `trees[level]` gives the value type of each level. Keys are one number a level.
 */
import { present } from '../../base/error.ts';
import type { BlockNr } from '../block.ts';
import type { BTree, Entry } from './btree.ts';
import { descend, makeValue, putValue, type Place, type Value } from './insert.ts';
import { descendToRemove, removeFrom } from './remove.ts';
import { DmError } from '../../base/error.ts';
import { keyAt, lowerBound, setBlockNr, valueOffset } from './node.ts';
import { blockNrAt } from './value-type.ts';
import { setLe64 } from '../../base/struct.ts';

const rootValue$ = makeValue(8);

/** Finds the entry of `keys` in the last level. */
export function lookupNested(
  trees: readonly BTree[],
  root: BlockNr,
  keys: readonly number[],
  entry: Entry,
): boolean {
  const last = trees.length - 1;
  for (let level = 0; level < last; level++) {
    if (!treeAt(trees, level).lookup(root, keyOf(keys, level), entry)) return false;
    root = blockNrAt(entry.view, entry.offset);
  }
  return treeAt(trees, last).lookup(root, keyOf(keys, last), entry);
}

/**
 * Inserts or overwrites; a missing subtree is made. The root of each lower level is shadowed and
 * its number written straight into the leaf above, which the walk has made writable: a reference
 * moves, no count changes.
 */
export function insertNested(
  trees: readonly BTree[],
  root: BlockNr,
  keys: readonly number[],
  value: Value,
): { root: BlockNr; inserted: boolean } {
  const last = trees.length - 1;
  let newRoot = root;
  let above: Place | null = null;
  for (let level = 0; ; level++) {
    const tree = treeAt(trees, level);
    const key = keyOf(keys, level);
    const place: Place = descend(tree, root, key);
    if (above === null) newRoot = place.root;
    else setBlockNr(above.leaf.view, above.index, place.root);
    if (level === last) {
      putValue(tree, place, key, value);
      return { root: newRoot, inserted: !place.found };
    }
    if (!place.found) {
      setLe64(rootValue$.view, 0, treeAt(trees, last).empty());
      putValue(tree, place, key, rootValue$);
      place.index++;
    }
    root = blockNrAt(place.leaf.view, valueOffset(place.leaf.view, place.index));
    above = place;
  }
}

/** Removes the entry of `keys` in the last level; an emptied subtree stays. Throws ENODATA. */
export function removeNested(
  trees: readonly BTree[],
  root: BlockNr,
  keys: readonly number[],
): BlockNr {
  const last = trees.length - 1;
  let newRoot = root;
  let above: { leaf: Place['leaf']; index: number } | null = null;
  for (let level = 0; ; level++) {
    const tree = treeAt(trees, level);
    const key = keyOf(keys, level);
    const place = descendToRemove(tree, root, key);
    if (above === null) newRoot = place.root;
    else setBlockNr(above.leaf.view, above.index, place.root);
    if (level === last) {
      removeFrom(tree, place.leaf, key);
      return newRoot;
    }
    const { leaf } = place;
    const index = leaf === null ? -1 : lowerBound(leaf.view, key);
    if (leaf === null || index < 0 || keyAt(leaf.view, index) !== key) {
      throw new DmError('ENODATA', `btree: no entry for key ${key} of level ${level}`);
    }
    root = blockNrAt(leaf.view, valueOffset(leaf.view, index));
    above = { leaf, index };
  }
}

function treeAt(trees: readonly BTree[], level: number): BTree {
  return present(trees[level], 'a tree is given for each level');
}

function keyOf(keys: readonly number[], level: number): number {
  return present(keys[level], 'a key is given for each level');
}
