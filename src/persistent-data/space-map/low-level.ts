/**
 * What both kinds of space map share: counts in bitmap blocks, found through an index store, with
 * an overflow tree for counts of three and more. Answers to
 * drivers/md/persistent-data/dm-space-map-common.c and struct ll_disk (spec: persistent-data, 6).
 *
 * Invariant: nrAllocated is the number of blocks whose count is above zero; the overflow tree holds
 *   exactly the blocks whose bitmap entry is 3.
 * Does not: decide when anything is committed or which free block is taken first; see the two maps.
 */
import { codeOf, DmError } from '../../base/error.ts';
import { divUp } from '../../base/numbers.ts';
import type { WriteView } from '../../base/struct.ts';
import { asBlockNr, type BlockNr, type WriteBlock } from '../block.ts';
import { BTree, makeEntry } from '../btree/btree.ts';
import { insert, makeValue } from '../btree/insert.ts';
import { overwritePlace } from '../btree/overwrite.ts';
import { remove } from '../btree/remove.ts';
import { plainValueType } from '../btree/value-type.ts';
import type { TransactionManager } from '../transaction-manager.ts';
import type { IndexStore } from './index-store.ts';
import {
  bitmapFindFree,
  bitmapGet,
  bitmapSet,
  bitmapValidator,
  ENTRIES_PER_BITMAP,
  smRoot,
  type IndexEntry,
} from './layout.ts';

/** A count that does not fit the bitmap's two bits. */
const IN_OVERFLOW_TREE = 3;

/** A space map's state at the last commit: enough to tell which blocks were free then. */
export interface OldView {
  readonly nrBlocks: number;
  readonly nrAllocated: number;
  readonly index: IndexStore;
}

/** Blocks that are not to be handed out, although they are free. */
export interface BlockFilter {
  has(block: number): boolean;
}

export class LowLevelMap {
  readonly tm: TransactionManager;
  readonly index: IndexStore;
  nrBlocks = 0;
  nrAllocated = 0;
  readonly #overflow: BTree;
  #refCountRoot: BlockNr;
  readonly #entry = makeEntry();
  readonly #count = makeValue(4);
  readonly #ie: IndexEntry = { blocknr: 0, nrFree: 0, noneFreeBefore: 0 };
  readonly #oldIe: IndexEntry = { blocknr: 0, nrFree: 0, noneFreeBefore: 0 };

  private constructor(tm: TransactionManager, index: IndexStore, refCountRoot: BlockNr | null) {
    this.tm = tm;
    this.index = index;
    this.#overflow = new BTree(tm, plainValueType(4));
    this.#refCountRoot = refCountRoot ?? this.#overflow.empty();
  }

  /** A map of no blocks, over an index store just created. */
  static create(tm: TransactionManager, index: IndexStore): LowLevelMap {
    return new LowLevelMap(tm, index, null);
  }

  static open(
    tm: TransactionManager,
    index: IndexStore,
    root: { nrBlocks: number; nrAllocated: number; refCountRoot: BlockNr },
  ): LowLevelMap {
    const map = new LowLevelMap(tm, index, root.refCountRoot);
    map.nrBlocks = root.nrBlocks;
    map.nrAllocated = root.nrAllocated;
    return map;
  }

  get refCountRoot(): BlockNr {
    return this.#refCountRoot;
  }

  oldView(): OldView {
    return {
      nrBlocks: this.nrBlocks,
      nrAllocated: this.nrAllocated,
      index: this.index.snapshot(),
    };
  }

  /** Writes the root record into the owner's superblock. */
  writeRoot(view: WriteView, offset: number): void {
    smRoot.nrBlocks.set(view, offset, this.nrBlocks);
    smRoot.nrAllocated.set(view, offset, this.nrAllocated);
    smRoot.bitmapRoot.set(view, offset, this.index.root);
    smRoot.refCountRoot.set(view, offset, this.#refCountRoot);
  }

  /** Manages `extra` more blocks; bitmaps are made for those beyond the last one's end. */
  extend(extra: number): void {
    const nrBlocks = this.nrBlocks + extra;
    const nrBitmaps = divUp(nrBlocks, ENTRIES_PER_BITMAP);
    if (nrBitmaps > this.index.maxEntries) {
      this.tm.blocks.log.write('error', 'space map common: space map too large');
      throw new DmError('EINVAL', 'space map too large');
    }
    const oldBitmaps = divUp(this.nrBlocks, ENTRIES_PER_BITMAP);
    this.nrBlocks = nrBlocks;
    for (let i = oldBitmaps; i < nrBitmaps; i++) {
      const { blocknr } = this.tm.newBlock(bitmapValidator);
      this.index.save(i, { blocknr, nrFree: ENTRIES_PER_BITMAP, noneFreeBefore: 0 });
    }
  }

  // --- reading

  /** The count as the bitmap has it: 3 for three or more. */
  bitmapCount(block: number): number {
    this.#mustExist(block);
    this.index.load(Math.floor(block / ENTRIES_PER_BITMAP), this.#ie);
    const { view } = this.tm.read(asBlockNr(this.#ie.blocknr), bitmapValidator);
    return bitmapGet(view, block % ENTRIES_PER_BITMAP);
  }

  count(block: number): number {
    const count = this.bitmapCount(block);
    return count === IN_OVERFLOW_TREE ? this.#overflowCount(block) : count;
  }

  #overflowCount(block: number): number {
    if (!this.#overflow.lookup(this.#refCountRoot, block, this.#entry)) throw this.#missing();
    return this.#entry.view.getUint32(this.#entry.offset, true);
  }

  #mustExist(block: number): void {
    if (block < this.nrBlocks) return;
    this.tm.blocks.log.write('error', 'space map common: metadata block out of bounds');
    throw new DmError('EINVAL', `wanted a block below ${this.nrBlocks}, found ${block}`);
  }

  /**
   * The first block in `[begin, end)` that is free here, was free in `old`, and that `skip` does
   * not have; -1 if there is none.
   */
  findCommonFree(old: OldView, begin: number, end: number, skip?: BlockFilter): number {
    for (let b = begin; b < end; b++) {
      b = this.#findFree(b, end);
      if (b < 0) return -1;
      if (skip?.has(b) === true) continue;
      if (b >= old.nrBlocks || this.#oldCountIsZero(old, b)) return b;
    }
    return -1;
  }

  #findFree(begin: number, end: number): number {
    const lastBitmap = Math.floor((end - 1) / ENTRIES_PER_BITMAP);
    for (let i = Math.floor(begin / ENTRIES_PER_BITMAP); i <= lastBitmap; i++) {
      this.index.load(i, this.#ie);
      if (this.#ie.nrFree === 0) continue;
      const first = i * ENTRIES_PER_BITMAP;
      const from = Math.max(begin - first, this.#ie.noneFreeBefore, 0);
      const to = Math.min(end - first, ENTRIES_PER_BITMAP);
      const { view } = this.tm.read(asBlockNr(this.#ie.blocknr), bitmapValidator);
      const found = bitmapFindFree(view, from, to);
      if (found >= 0) return first + found;
    }
    return -1;
  }

  #oldCountIsZero(old: OldView, block: number): boolean {
    old.index.load(Math.floor(block / ENTRIES_PER_BITMAP), this.#oldIe);
    const { view } = this.tm.read(asBlockNr(this.#oldIe.blocknr), bitmapValidator);
    return bitmapGet(view, block % ENTRIES_PER_BITMAP) === 0;
  }

  // --- changing

  /** One more reference to each block in `[begin, end)`. */
  inc(begin: number, end: number): void {
    this.#eachBitmap(begin, end, (bitmap, first, from, to, ie) => {
      for (let entry = from; entry < to; entry++) this.#incOne(bitmap, first + entry, entry, ie);
    });
  }

  /** One reference less to each block in `[begin, end)`; EINVAL for one that has none. */
  dec(begin: number, end: number): void {
    this.#eachBitmap(begin, end, (bitmap, first, from, to, ie) => {
      for (let entry = from; entry < to; entry++) this.#decOne(bitmap, first + entry, entry, ie);
    });
  }

  #eachBitmap(
    begin: number,
    end: number,
    change: (bitmap: WriteBlock, first: number, from: number, to: number, ie: IndexEntry) => void,
  ): void {
    if (begin < end) this.#mustExist(end - 1);
    while (begin < end) {
      const index = Math.floor(begin / ENTRIES_PER_BITMAP);
      const first = index * ENTRIES_PER_BITMAP;
      const to = Math.min(end - first, ENTRIES_PER_BITMAP);
      // An object of its own: changing an overflow tree comes back here for the metadata map.
      const ie: IndexEntry = { blocknr: 0, nrFree: 0, noneFreeBefore: 0 };
      this.index.load(index, ie);
      const bitmap = this.#shadowBitmap(asBlockNr(ie.blocknr));
      ie.blocknr = bitmap.blocknr;
      change(bitmap, first, begin - first, to, ie);
      this.index.save(index, ie);
      begin = first + to;
    }
  }

  #shadowBitmap(blocknr: BlockNr): WriteBlock {
    try {
      return this.tm.shadow(blocknr, bitmapValidator);
    } catch (error) {
      codeOf(error);
      this.tm.blocks.log.write('error', 'space map common: dm_tm_shadow_block() failed');
      throw error;
    }
  }

  #incOne(bitmap: WriteBlock, block: number, entry: number, ie: IndexEntry): void {
    const old = bitmapGet(bitmap.view, entry);
    if (old === IN_OVERFLOW_TREE) {
      this.#changeOverflow(block, 1);
      return;
    }
    bitmapSet(bitmap.view, entry, old + 1);
    if (old === 0) {
      this.nrAllocated++;
      ie.nrFree--;
      if (ie.noneFreeBefore === entry) ie.noneFreeBefore = entry + 1;
    } else if (old + 1 === IN_OVERFLOW_TREE) {
      this.#count.view.setUint32(0, IN_OVERFLOW_TREE, true);
      this.#refCountRoot = insert(this.#overflow, this.#refCountRoot, block, this.#count).root;
    }
  }

  #decOne(bitmap: WriteBlock, block: number, entry: number, ie: IndexEntry): void {
    const old = bitmapGet(bitmap.view, entry);
    switch (old) {
      case 0:
        this.tm.blocks.log.write('error', 'space map common: unable to decrement block');
        throw new DmError('EINVAL', `unable to decrement block ${block}: its count is 0`);
      case 1:
        bitmapSet(bitmap.view, entry, 0);
        this.nrAllocated--;
        ie.nrFree++;
        ie.noneFreeBefore = Math.min(ie.noneFreeBefore, entry);
        break;
      case 2:
        bitmapSet(bitmap.view, entry, 1);
        break;
      default:
        if (this.#changeOverflow(block, -1) >= IN_OVERFLOW_TREE) break;
        this.#refCountRoot = remove(this.#overflow, this.#refCountRoot, block);
        bitmapSet(bitmap.view, entry, 2);
    }
  }

  /** Changes the count of a block that the overflow tree has; returns the new count. */
  #changeOverflow(block: number, delta: number): number {
    let place: ReturnType<typeof overwritePlace>;
    try {
      place = overwritePlace(this.#overflow, this.#refCountRoot, block);
    } catch (error) {
      if (error instanceof DmError && error.errno === 'ENODATA') throw this.#missing();
      throw error;
    }
    this.#refCountRoot = place.root;
    const { view } = place.leaf;
    const count = view.getUint32(place.offset, true) + delta;
    if (count >= IN_OVERFLOW_TREE) view.setUint32(place.offset, count, true);
    return count;
  }

  #missing(): DmError {
    const text = 'overflow btree is missing an entry';
    this.tm.blocks.log.write('error', `space map common: ${text}`);
    return new DmError('EINVAL', text);
  }
}
