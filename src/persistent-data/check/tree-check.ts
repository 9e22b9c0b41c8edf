/**
 * Check of B-trees: node order, key ranges, depth, fill, and the references between nodes
 * (spec: persistent-data, 4.1 and 4.2).
 *
 * A node shared by several trees is read and shown to the visitor once; each pointer to it counts.
 * A node with fatal damage is lost with all below it: the visitor does not see it, its range is
 * reported.
 * Does not: know what values mean; a visitor counts what they refer to.
 */
import { peekLe64, type ReadView } from '../../base/struct.ts';
import type { ReadBlock } from '../block.ts';
import { DEPTH_MAX } from '../btree/btree.ts';
import {
  INTERNAL_NODE,
  isLeaf,
  keyAt,
  LEAF_NODE,
  maxEntriesFor,
  nodeHeader,
  nodeValidator,
  nrEntriesOf,
  valueOffset,
  valueSizeOf,
} from '../btree/node.ts';
import type { CheckRun, Place } from './check-run.ts';
import type { DamageKind } from './damage.ts';
import { lostSubtree, type SubtreeSummary } from './node-table.ts';

/** What a check must know of a tree. */
export interface TreeSpec {
  /** As in reports: `mapping tree`. */
  readonly name: string;
  /** Bytes of a value. */
  readonly valueSize: number;
  /**
   * Sees each sound leaf once. The block is valid during the call, in which nothing may be read.
   */
  readonly visitLeaf?: (leaf: ReadBlock, path: readonly number[]) => void;
}

/** Calls `visit(key, offset of the value)` for each entry of a node. */
export function eachEntry(view: ReadView, visit: (key: number, offset: number) => void): void {
  const nr = nrEntriesOf(view);
  for (let i = 0; i < nr; i++) visit(keyAt(view, i), valueOffset(view, i));
}

/** Checks the one-level tree at `root`, whose reference is counted. */
export function checkTree(
  run: CheckRun,
  root: number,
  spec: TreeSpec,
  path: readonly number[] = [],
): SubtreeSummary {
  return new TreeCheck(run, spec, path).visit(root, 0, Infinity, 0, null);
}

/** A subtree of an upper level, and what was found in it. */
export interface Subtree {
  readonly key: number;
  readonly root: number;
}

/**
 * Reads the leaves of an upper level, whose values are roots, in key order; the roots are not
 * followed.
 */
export function checkUpperLevel(
  run: CheckRun,
  root: number,
  name: string,
): { summary: SubtreeSummary; subtrees: Subtree[] } {
  const subtrees: Subtree[] = [];
  const visitLeaf = ({ view }: ReadBlock): void =>
    eachEntry(view, (key, offset) => subtrees.push({ key, root: peekLe64(view, offset) }));
  const summary = checkTree(run, root, { name, valueSize: 8, visitLeaf });
  return { summary, subtrees };
}

/**
 * Checks a two-level tree: the upper level, then each subtree as `lower` with the upper key as
 * path. `visitSubtree` is told what was found in each.
 */
export function checkNested(
  run: CheckRun,
  root: number,
  lower: TreeSpec,
  visitSubtree?: (subtree: Subtree, summary: SubtreeSummary) => void,
): SubtreeSummary {
  const { summary, subtrees } = checkUpperLevel(run, root, lower.name);
  for (const subtree of subtrees) {
    const found = checkTree(run, subtree.root, lower, [subtree.key]);
    visitSubtree?.(subtree, found);
  }
  return summary;
}

/** An internal node's entries, taken out of the block before its children are read. */
export interface Children {
  readonly keys: Float64Array;
  readonly blocknrs: Float64Array;
}

class TreeCheck {
  readonly #run: CheckRun;
  readonly #spec: TreeSpec;
  readonly #path: readonly number[];

  constructor(run: CheckRun, spec: TreeSpec, path: readonly number[]) {
    this.#run = run;
    this.#spec = spec;
    this.#path = path;
  }

  /** Checks the subtree at `blocknr`, whose keys must lie in `[begin, end)`. */
  visit(
    blocknr: number,
    begin: number,
    end: number,
    depth: number,
    parent: number | null,
  ): SubtreeSummary {
    const { nodes } = this.#run;
    const from: Place = { where: this.#spec.name, path: this.#path, blocknr: parent, begin, end };
    const isFirst = this.#run.reference(blocknr, this.#spec.name, from);
    if (isFirst === null) return lostSubtree;
    const place = { ...from, blocknr };
    if (!isFirst) return this.#revisit(blocknr, place);
    nodes.open(blocknr);
    const summary = depth < DEPTH_MAX ? this.#read(blocknr, place, depth) : this.#tooDeep(place);
    nodes.close(blocknr, summary);
    return this.#inRange(summary, place);
  }

  #revisit(blocknr: number, place: Place): SubtreeSummary {
    const { nodes } = this.#run;
    if (nodes.isOpen(blocknr)) return this.#lost('depth', place, 'the nodes form a loop');
    return this.#inRange(nodes.summary(blocknr), place);
  }

  #tooDeep(place: Place): SubtreeSummary {
    return this.#lost('depth', place, `more than ${DEPTH_MAX} levels`);
  }

  #lost(kind: DamageKind, place: Place, text: string): SubtreeSummary {
    this.#run.report({ ...place, kind, text });
    return lostSubtree;
  }

  #inRange(summary: SubtreeSummary, place: Place): SubtreeSummary {
    const { nrEntries, firstKey, lastKey } = summary;
    if (nrEntries === 0 || (firstKey >= place.begin && lastKey < place.end)) return summary;
    const text = `found keys ${firstKey} to ${lastKey}`;
    return this.#lost('key-range', place, text);
  }

  #read(blocknr: number, place: Place, depth: number): SubtreeSummary {
    const node = this.#run.read(blocknr, nodeValidator, place);
    if (node === null) return lostSubtree;
    const fault = findNodeFault(node.view, this.#spec.valueSize);
    if (fault !== null) return this.#lost(fault.kind, place, fault.text);
    const nrErrors = this.#checkShape(node.view, place, depth === 0);
    const nr = nrEntriesOf(node.view);
    const firstKey = nr > 0 ? keyAt(node.view, 0) : Infinity;
    const lastKey = nr > 0 ? keyAt(node.view, nr - 1) : -Infinity;
    if (nr > 0 && (firstKey < place.begin || lastKey >= place.end)) {
      return this.#lost('key-range', place, `found keys ${firstKey} to ${lastKey}`);
    }
    if (!isLeaf(node.view)) return this.#readChildren(node, place, depth, nrErrors);
    this.#spec.visitLeaf?.(node, this.#path);
    return { height: 1, nrEntries: nr, nrErrors, firstKey, lastKey };
  }

  /** What keeps a node usable but should not be: returns how many faults were reported. */
  #checkShape(view: ReadView, place: Place, isRoot: boolean): number {
    const max = nodeHeader.maxEntries.get(view, 0);
    const wanted = maxEntriesFor(valueSizeOf(view));
    let nrErrors = 0;
    if (max !== wanted) {
      const text = `wanted max_entries ${wanted}, found ${max}`;
      this.#run.report({ ...place, kind: 'max-entries', text });
      nrErrors++;
    }
    const third = Math.floor(max / 3);
    if (!isRoot && nrEntriesOf(view) < third) {
      const text = `wanted at least ${third} entries, found ${nrEntriesOf(view)}`;
      this.#run.report({ ...place, kind: 'fill', text });
      nrErrors++;
    }
    return nrErrors;
  }

  #readChildren(node: ReadBlock, place: Place, depth: number, nrErrors: number): SubtreeSummary {
    const { keys, blocknrs } = childrenOf(node.view);
    let height = 0;
    let nrEntries = 0;
    let firstKey = Infinity;
    let lastKey = -Infinity;
    for (const [i, child] of blocknrs.entries()) {
      const begin = keys[i] as number;
      const end = keys[i + 1] ?? place.end;
      const found = this.visit(child, begin, end, depth + 1, place.blocknr);
      nrErrors += found.nrErrors;
      if (found.height === 0) continue;
      if (height === 0) height = found.height;
      if (found.height !== height) {
        const text = `wanted a subtree of ${height} levels, found ${found.height}`;
        this.#run.report({ ...place, blocknr: child, begin, end, kind: 'depth', text });
        nrErrors++;
        continue;
      }
      nrEntries += found.nrEntries;
      firstKey = Math.min(firstKey, found.firstKey);
      lastKey = Math.max(lastKey, found.lastKey);
    }
    // With every child lost, nothing is known of the height either.
    if (height > 0) height++;
    return { height, nrEntries, nrErrors, firstKey, lastKey };
  }
}

/** Why a node cannot be used. */
export interface NodeFault {
  readonly kind: DamageKind;
  readonly text: string;
}

/** What makes a node that its validator accepted unusable all the same; null if nothing does. */
export function findNodeFault(view: ReadView, leafValueSize: number): NodeFault | null {
  const flags = nodeHeader.flags.get(view, 0);
  if (flags !== INTERNAL_NODE && flags !== LEAF_NODE) {
    return { kind: 'structure', text: `wanted flags 1 or 2, found ${flags}` };
  }
  const wantedSize = flags === LEAF_NODE ? leafValueSize : 8;
  if (valueSizeOf(view) !== wantedSize) {
    const text = `wanted values of ${wantedSize} bytes, found ${valueSizeOf(view)}`;
    return { kind: 'value-size', text };
  }
  const nr = nrEntriesOf(view);
  if (nr === 0 && flags === INTERNAL_NODE) {
    return { kind: 'structure', text: 'an internal node has no entries' };
  }
  for (let i = 1; i < nr; i++) {
    if (keyAt(view, i - 1) < keyAt(view, i)) continue;
    return { kind: 'order', text: `key ${keyAt(view, i)} follows ${keyAt(view, i - 1)}` };
  }
  if (nr > 0 && keyAt(view, nr - 1) > Number.MAX_SAFE_INTEGER) {
    return { kind: 'order', text: `key ${keyAt(view, nr - 1)} is above 2^53` };
  }
  return null;
}

/** The entries of an internal node; block numbers above 2^53 are rounded. */
export function childrenOf(view: ReadView): Children {
  const nr = nrEntriesOf(view);
  const keys = new Float64Array(nr);
  const blocknrs = new Float64Array(nr);
  for (let i = 0; i < nr; i++) {
    keys[i] = keyAt(view, i);
    blocknrs[i] = peekLe64(view, valueOffset(view, i));
  }
  return { keys, blocknrs };
}
