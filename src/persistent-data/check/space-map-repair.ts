/**
 * SpaceMapRepair: gives the space maps of a metadata device the counts that a check has found,
 * where theirs differ. For tools, on metadata without fatal damage and not in use.
 *
 * What is right already stays; bitmaps and trees that differ are written anew, in blocks to which
 * nothing refers. So the order of a commit holds: the caller flushes the new blocks, then writes
 * the root records into its superblock, then flushes again; a crash in between leaves the old maps.
 * (Changing the blocks in place would need no free block, but a torn write would cost the pool.)
 * Does not: touch anything but space maps; see a superblock.
 */
import { assert, DmError } from '../../base/error.ts';
import { divUp } from '../../base/numbers.ts';
import type { WriteView } from '../../base/struct.ts';
import { asBlockNr, BLOCK_SIZE, type WriteBlock } from '../block.ts';
import type { BlockManager } from '../block-manager.ts';
import { DEPTH_MAX } from '../btree/btree.ts';
import { buildTree, type TreeEntries } from '../btree/build.ts';
import { isLeaf, keyAt, nodeValidator, nrEntriesOf, valueOffset } from '../btree/node.ts';
import { blockNrAt } from '../btree/value-type.ts';
import {
  bitmapFindFree,
  bitmapHeader,
  bitmapSet,
  bitmapValidator,
  ENTRIES_PER_BITMAP,
  indexEntry,
  indexHeader,
  indexValidator,
  readIndexEntry,
  smRoot,
  writeIndexEntry,
  type IndexEntry,
} from '../space-map/layout.ts';
import type { Validator } from '../validator.ts';
import type { CountTable } from './count-table.ts';
import type { SpaceMapRoot } from './space-map-check.ts';

/** The smallest count that is in the overflow tree. */
const OVERFLOW_MIN = 3;

/** Writes a root record into a superblock. */
export function writeSpaceMapRoot(view: WriteView, offset: number, root: SpaceMapRoot): void {
  smRoot.nrBlocks.set(view, offset, root.nrBlocks);
  smRoot.nrAllocated.set(view, offset, root.nrAllocated);
  smRoot.bitmapRoot.set(view, offset, root.bitmapRoot);
  smRoot.refCountRoot.set(view, offset, root.refCountRoot);
}

export class SpaceMapRepair {
  readonly #blocks: BlockManager;
  /** References to metadata blocks; kept up to date with what is written and given up here. */
  readonly #counts: CountTable;
  readonly #nrBlocks: number;
  /** Part of the committed state, so not to be used before the commit. */
  readonly #dropped = new Set<number>();
  #nextFree = 1;

  /** `counts` are the references found to the `nrBlocks` metadata blocks; they are changed. */
  constructor(blocks: BlockManager, counts: CountTable, nrBlocks: number) {
    this.#blocks = blocks;
    this.#counts = counts;
    this.#nrBlocks = nrBlocks;
  }

  /** Repairs the space map of a data device; returns its new root record. Throws ENOSPC. */
  disk(root: SpaceMapRoot, found: CountTable): SpaceMapRoot {
    const map = new MapRepair(this.#blocks, root, found);
    for (const node of this.#nodes(root.bitmapRoot)) {
      if (!isLeaf(node.view)) continue;
      for (let i = 0; i < nrEntriesOf(node.view); i++) {
        map.load(keyAt(node.view, i), node.view, valueOffset(node.view, i));
      }
    }
    this.#renewBitmaps(map);
    const { entries } = map;
    const index: TreeEntries = {
      nrEntries: entries.length,
      valueSize: indexEntry.size,
      key: (i) => i,
      writeValue: (view, offset, i) => writeIndexEntry(view, offset, entries[i] as IndexEntry),
    };
    const refCountRoot = this.#renewOverflow(map);
    const bitmapRoot = map.finish() ? this.#renewTree(root.bitmapRoot, index) : root.bitmapRoot;
    return { ...root, nrAllocated: map.nrAllocated, bitmapRoot, refCountRoot };
  }

  /**
   * Repairs the metadata space map; returns its new root record. Call it last: it counts what the
   * other repairs took. Throws ENOSPC.
   */
  metadata(root: SpaceMapRoot): SpaceMapRoot {
    const map = new MapRepair(this.#blocks, root, this.#counts);
    const old = this.#blocks.read(asBlockNr(root.bitmapRoot), indexValidator);
    for (let i = 0; i < divUp(root.nrBlocks, ENTRIES_PER_BITMAP); i++) {
      map.load(i, old.view, indexHeader.size + i * indexEntry.size);
    }
    const refCountRoot = this.#renewOverflow(map);
    const index = this.#newBlock(indexValidator);
    this.#drop(root.bitmapRoot);
    // A new bitmap is itself counted, perhaps by another bitmap.
    while (this.#renewBitmaps(map));
    map.finish();
    for (const [i, entry] of map.entries.entries()) {
      writeIndexEntry(index.view, indexHeader.size + i * indexEntry.size, entry);
    }
    return { ...root, nrAllocated: map.nrAllocated, bitmapRoot: index.blocknr, refCountRoot };
  }

  /** Gives each bitmap that differs from what it should be a new block; whether any did. */
  #renewBitmaps(map: MapRepair): boolean {
    let any = false;
    for (let index = 0; index < map.entries.length; index++) {
      if (!map.isWrong(index)) continue;
      const old = map.renew(index, this.#newBlock(bitmapValidator));
      this.#drop(old);
      any = true;
    }
    return any;
  }

  #renewOverflow(map: MapRepair): number {
    const { refCountRoot } = map.root;
    const wanted = map.overflow();
    const stored = new Map<number, number>();
    for (const node of this.#nodes(refCountRoot)) {
      if (!isLeaf(node.view)) continue;
      for (let i = 0; i < nrEntriesOf(node.view); i++) {
        stored.set(keyAt(node.view, i), node.view.getUint32(valueOffset(node.view, i), true));
      }
    }
    const same = stored.size === wanted.length && wanted.every(([b, n]) => stored.get(b) === n);
    if (same) return refCountRoot;
    return this.#renewTree(refCountRoot, {
      nrEntries: wanted.length,
      valueSize: 4,
      key: (i) => (wanted[i] as [number, number])[0],
      writeValue: (view, offset, i) =>
        view.setUint32(offset, (wanted[i] as [number, number])[1], true),
    });
  }

  #renewTree(oldRoot: number, entries: TreeEntries): number {
    for (const node of this.#nodes(oldRoot)) this.#drop(node.blocknr);
    return buildTree(entries, () => this.#newBlock(nodeValidator));
  }

  /** The nodes of a tree without damage. */
  *#nodes(root: number, depth = 0): Generator<WriteBlock> {
    assert(depth < DEPTH_MAX, 'the tree has been checked');
    const node = this.#blocks.read(asBlockNr(root), nodeValidator) as WriteBlock;
    yield node;
    if (isLeaf(node.view)) return;
    const nr = nrEntriesOf(node.view);
    for (let i = 0; i < nr; i++) {
      yield* this.#nodes(blockNrAt(node.view, valueOffset(node.view, i)), depth + 1);
    }
  }

  #newBlock(validator: Validator): WriteBlock {
    let blocknr = this.#nextFree;
    while (this.#counts.get(blocknr) > 0 || this.#dropped.has(blocknr)) blocknr++;
    if (blocknr >= this.#nrBlocks) {
      const text = 'the repair needs metadata blocks that nothing refers to, and there are none';
      throw new DmError('ENOSPC', text);
    }
    this.#nextFree = blocknr + 1;
    this.#counts.add(blocknr, 1);
    return this.#blocks.create(asBlockNr(blocknr), validator);
  }

  #drop(blocknr: number): void {
    this.#counts.add(blocknr, -1);
    this.#dropped.add(blocknr);
  }
}

/** One space map: its index entries, and what its bitmaps should be. */
class MapRepair {
  readonly root: SpaceMapRoot;
  readonly entries: IndexEntry[] = [];
  readonly #blocks: BlockManager;
  readonly #found: CountTable;
  readonly #renewed = new Map<number, WriteBlock>();
  readonly #scratch = new Uint8Array(BLOCK_SIZE);
  readonly #view = new DataView(this.#scratch.buffer);
  nrAllocated = 0;

  constructor(blocks: BlockManager, root: SpaceMapRoot, found: CountTable) {
    this.#blocks = blocks;
    this.root = root;
    this.#found = found;
  }

  /** Takes index entry `index` from where it is; those beyond the map's end are dropped. */
  load(index: number, view: Parameters<typeof readIndexEntry>[0], offset: number): void {
    if (index * ENTRIES_PER_BITMAP >= this.root.nrBlocks) return;
    const entry: IndexEntry = { blocknr: 0, nrFree: 0, noneFreeBefore: 0 };
    readIndexEntry(view, offset, entry);
    this.entries[index] = entry;
  }

  /** Fills the scratch block with what bitmap `index` should be; returns the blocks in use. */
  #fill(index: number): number {
    const first = index * ENTRIES_PER_BITMAP;
    const end = Math.min(first + ENTRIES_PER_BITMAP, this.root.nrBlocks);
    this.#scratch.fill(0);
    if (this.#found.isUntouched(first, end)) return 0;
    let nrUsed = 0;
    for (let block = first; block < end; block++) {
      const count = this.#found.get(block);
      if (count === 0) continue;
      bitmapSet(this.#view, block - first, Math.min(count, OVERFLOW_MIN));
      nrUsed++;
    }
    return nrUsed;
  }

  /** Whether a bitmap's counts differ from the references found, and it has no new block yet. */
  isWrong(index: number): boolean {
    if (this.#renewed.has(index)) return false;
    this.#fill(index);
    return !this.#isRight(index);
  }

  #isRight(index: number): boolean {
    const { blocknr } = this.entries[index] as IndexEntry;
    const stored = this.#blocks.read(asBlockNr(blocknr), bitmapValidator) as WriteBlock;
    const counts = stored.bytes.subarray(bitmapHeader.size);
    const same = Buffer.compare(counts, this.#scratch.subarray(bitmapHeader.size)) === 0;
    this.#blocks.newOperation();
    return same;
  }

  /** Bitmap `index` is to live in `block`; returns where it was. */
  renew(index: number, block: WriteBlock): number {
    const entry = this.entries[index] as IndexEntry;
    const old = entry.blocknr;
    entry.blocknr = block.blocknr;
    this.#renewed.set(index, block);
    return old;
  }

  /** Writes the new bitmaps and sets what the index says of free space; whether that changed it. */
  finish(): boolean {
    let changed = false;
    for (const [index, entry] of this.entries.entries()) {
      const nrUsed = this.#fill(index);
      this.nrAllocated += nrUsed;
      const renewed = this.#renewed.get(index);
      renewed?.bytes.set(this.#scratch.subarray(bitmapHeader.size), bitmapHeader.size);
      if (this.#setHints(index, entry, nrUsed) || renewed !== undefined) changed = true;
    }
    return changed;
  }

  #setHints(index: number, entry: IndexEntry, nrUsed: number): boolean {
    const onDevice = Math.min(ENTRIES_PER_BITMAP, this.root.nrBlocks - index * ENTRIES_PER_BITMAP);
    const nrFree = ENTRIES_PER_BITMAP - nrUsed;
    const firstFree = bitmapFindFree(this.#view, 0, ENTRIES_PER_BITMAP);
    const lowest = firstFree < 0 ? ENTRIES_PER_BITMAP : firstFree;
    // thin_restore 0.9 counts only entries on the device, which does no harm.
    const nrFreeIsRight = entry.nrFree === nrFree || entry.nrFree === onDevice - nrUsed;
    if (nrFreeIsRight && entry.noneFreeBefore <= lowest) return false;
    entry.nrFree = nrFree;
    entry.noneFreeBefore = lowest;
    return true;
  }

  /** The blocks with counts for the overflow tree, in order. */
  overflow(): [number, number][] {
    const large: [number, number][] = [];
    for (let first = 0; first < this.root.nrBlocks; first += ENTRIES_PER_BITMAP) {
      const end = Math.min(first + ENTRIES_PER_BITMAP, this.root.nrBlocks);
      if (this.#found.isUntouched(first, end)) continue;
      for (let block = first; block < end; block++) {
        const count = this.#found.get(block);
        if (count >= OVERFLOW_MIN) large.push([block, count]);
      }
    }
    return large;
  }
}
