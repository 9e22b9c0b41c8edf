/**
 * LeafRuns: which leaves several mapping trees share, as runs that a dump writes once
 * (spec: tools, 3).
 *
 * The leaves of each tree, in key order, are a sequence. A leaf ends a run if it ends a sequence or
 * if what follows it is not always the same leaf, which always follows it; so each sequence is a
 * row of whole runs.
 *
 *   1 2 3 4 5 and 1 2 3 6      1 2 3 | 4 5 and 1 2 3 | 6
 *
 * The nodes of all trees are visited once each, their leaves are not read: what a shared internal
 * node has below it is the same everywhere. Memory is a few bytes for each block of the device.
 */
import { DmError } from '../../base/error.ts';
import { MAPPING_SIZE } from '../metadata/mapping.ts';
import type { TreeReader } from './tree-reader.ts';

const Flag = {
  SEEN: 1,
  /** Reached more than once, itself or through a node above. */
  SHARED: 2,
  /** A leaf that begins or ends the sequence of some tree. */
  FIRST: 4,
  LAST: 8,
} as const;

/** In place of a leaf: none yet (block 0 is no leaf), or more than one. */
const NONE = 0;
const SEVERAL = 0xffff_ffff;

export class LeafRuns {
  readonly #reader: TreeReader;
  readonly #flags: Uint8Array;
  /** Levels of nodes from here down; 1 for a leaf. */
  readonly #heights: Uint8Array;
  /** Of a leaf: what precedes it. Of an internal node: its first leaf. */
  readonly #before: Uint32Array;
  /** Of a leaf: what follows it. Of an internal node: its last leaf. */
  readonly #after: Uint32Array;
  /** Of an internal node; of a leaf that begins a run: how many leaves that has, once known. */
  readonly #nrLeaves: Uint32Array;

  constructor(reader: TreeReader) {
    const { nrBlocks } = reader;
    this.#reader = reader;
    this.#flags = new Uint8Array(nrBlocks);
    this.#heights = new Uint8Array(nrBlocks);
    this.#before = new Uint32Array(nrBlocks);
    this.#after = new Uint32Array(nrBlocks);
    this.#nrLeaves = new Uint32Array(nrBlocks);
  }

  /** Takes the tree at `root` into account. Throws EILSEQ or EIO if an internal node is damaged. */
  add(root: number): void {
    this.#visit(root, this.#reader.height(root, MAPPING_SIZE));
    this.#mark(this.firstLeaf(root), Flag.FIRST);
    this.#mark(this.#lastLeaf(root), Flag.LAST);
  }

  #mark(blocknr: number, flag: number): void {
    this.#flags[blocknr] = (this.#flags[blocknr] as number) | flag;
  }

  #has(blocknr: number, flag: number): boolean {
    return ((this.#flags[blocknr] as number) & flag) !== 0;
  }

  #visit(blocknr: number, height: number): void {
    if (blocknr === 0 || blocknr >= this.#flags.length) {
      throw new DmError('EILSEQ', `block ${blocknr} is out of bounds`);
    }
    if (this.#has(blocknr, Flag.SEEN)) {
      if (this.heightOf(blocknr) !== height) {
        throw new DmError('EILSEQ', `block ${blocknr} is at different depths`);
      }
      this.#markShared(blocknr);
      return;
    }
    this.#mark(blocknr, Flag.SEEN);
    this.#heights[blocknr] = height;
    if (height > 1) this.#visitChildren(blocknr, height);
  }

  #visitChildren(blocknr: number, height: number): void {
    const { blocknrs } = this.#reader.children(blocknr, MAPPING_SIZE);
    let nrLeaves = 0;
    let last = NONE;
    for (const child of blocknrs) {
      this.#visit(child, height - 1);
      nrLeaves += this.nrLeavesBelow(child);
      if (last !== NONE) this.#link(last, this.firstLeaf(child));
      last = this.#lastLeaf(child);
    }
    // Only nodes that share children against all order of keys can do this; it bounds the dump.
    if (nrLeaves > this.#flags.length) {
      throw new DmError('EILSEQ', `block ${blocknr}: more leaves than there are blocks`);
    }
    this.#before[blocknr] = this.firstLeaf(blocknrs[0] as number);
    this.#after[blocknr] = last;
    this.#nrLeaves[blocknr] = nrLeaves;
  }

  #link(leaf: number, next: number): void {
    this.#after[leaf] = only(this.#after[leaf] as number, next);
    this.#before[next] = only(this.#before[next] as number, leaf);
  }

  #markShared(blocknr: number): void {
    if (this.#has(blocknr, Flag.SHARED)) return;
    this.#mark(blocknr, Flag.SHARED);
    if (this.heightOf(blocknr) === 1) return;
    for (const child of this.#reader.children(blocknr, MAPPING_SIZE).blocknrs) {
      this.#markShared(child);
    }
  }

  // --- what was found

  /** Levels of nodes from `blocknr` down; 1 for a leaf, 0 for a block that is in no tree. */
  heightOf(blocknr: number): number {
    return this.#heights[blocknr] as number;
  }

  /** The first leaf of the subtree at `blocknr`. */
  firstLeaf(blocknr: number): number {
    return this.heightOf(blocknr) === 1 ? blocknr : (this.#before[blocknr] as number);
  }

  #lastLeaf(blocknr: number): number {
    return this.heightOf(blocknr) === 1 ? blocknr : (this.#after[blocknr] as number);
  }

  nrLeavesBelow(blocknr: number): number {
    return this.heightOf(blocknr) === 1 ? 1 : (this.#nrLeaves[blocknr] as number);
  }

  /** Whether a leaf is in the sequences of several trees. */
  isShared(leaf: number): boolean {
    return this.#has(leaf, Flag.SHARED);
  }

  /** The leaf that follows in the same run; 0 at its end. */
  next(leaf: number): number {
    const next = this.#after[leaf] as number;
    if (next === NONE || next === SEVERAL || this.#has(leaf, Flag.LAST)) return NONE;
    return this.#before[next] === leaf && !this.#has(next, Flag.FIRST) ? next : NONE;
  }

  #isHead(leaf: number): boolean {
    const before = this.#before[leaf] as number;
    return before === NONE || before === SEVERAL || this.next(before) !== leaf;
  }

  /** The first leaves of all shared runs, in order of block number. */
  *sharedRuns(): Generator<number> {
    for (let blocknr = 1; blocknr < this.#flags.length; blocknr++) {
      if (this.heightOf(blocknr) !== 1 || !this.isShared(blocknr)) continue;
      if (this.#isHead(blocknr)) yield blocknr;
    }
  }

  /** How many leaves the run that begins with `head` has. */
  runLength(head: number): number {
    let length = this.#nrLeaves[head] as number;
    if (length > 0) return length;
    for (let leaf = head; leaf !== NONE; leaf = this.next(leaf)) length++;
    this.#nrLeaves[head] = length;
    return length;
  }
}

/** Which leaf is beside another, if it was `known` and now is `leaf`. */
function only(known: number, leaf: number): number {
  return known === NONE || known === leaf ? leaf : SEVERAL;
}
