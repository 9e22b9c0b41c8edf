/**
 * Where a space map keeps its index entries, one per bitmap block. Two stores stand behind one
 * interface: a single block held in memory (metadata map), and a B-tree behind a small write-back
 * cache (disk map). Answers to the load_ie, save_ie, ... members of struct ll_disk (spec:
 * persistent-data, 7).
 */
import { assert } from '../../base/error.ts';
import { asBlockNr, type BlockNr } from '../block.ts';
import { BTree, makeEntry } from '../btree/btree.ts';
import { insert, makeValue } from '../btree/insert.ts';
import { plainValueType } from '../btree/value-type.ts';
import { DmError } from '../../base/error.ts';
import type { TransactionManager } from '../transaction-manager.ts';
import {
  INDEX_ENTRIES_MAX,
  indexEntry,
  indexHeader,
  indexValidator,
  readIndexEntry,
  writeIndexEntry,
  type IndexEntry,
} from './layout.ts';

export interface IndexStore {
  /** The block that the root record names. */
  readonly root: BlockNr;
  /** The most bitmaps that the store can index. */
  readonly maxEntries: number;
  load(index: number, out: IndexEntry): void;
  save(index: number, entry: IndexEntry): void;
  /** Writes what is only in memory. */
  commit(): void;
  /** The store as it is now, for reading, unaffected by later changes of this one. */
  snapshot(): IndexStore;
}

/** All entries in one index block, held in memory and written out whole. */
export class MetadataIndexStore implements IndexStore {
  readonly maxEntries = INDEX_ENTRIES_MAX;
  readonly #tm: TransactionManager;
  readonly #entries: DataView;
  #root: BlockNr;
  #changed = false;

  private constructor(tm: TransactionManager, root: BlockNr, entries: DataView) {
    this.#tm = tm;
    this.#root = root;
    this.#entries = entries;
  }

  static create(tm: TransactionManager): MetadataIndexStore {
    const block = tm.newBlock(indexValidator);
    return new MetadataIndexStore(tm, block.blocknr, emptyEntries());
  }

  static open(tm: TransactionManager, root: BlockNr): MetadataIndexStore {
    const { view } = tm.read(root, indexValidator);
    const entries = emptyEntries();
    for (let at = 0; at < entries.byteLength; at += 4) {
      entries.setUint32(at, view.getUint32(indexHeader.size + at));
    }
    return new MetadataIndexStore(tm, root, entries);
  }

  get root(): BlockNr {
    return this.#root;
  }

  load(index: number, out: IndexEntry): void {
    readIndexEntry(this.#entries, index * indexEntry.size, out);
  }

  save(index: number, entry: IndexEntry): void {
    writeIndexEntry(this.#entries, index * indexEntry.size, entry);
    this.#changed = true;
  }

  /** Shadowing the block changes entries itself, so they are written after it. */
  commit(): void {
    if (!this.#changed) return;
    const block = this.#tm.shadow(this.#root, indexValidator);
    this.#root = block.blocknr;
    block.bytes.set(new Uint8Array(this.#entries.buffer), indexHeader.size);
    this.#changed = false;
  }

  snapshot(): IndexStore {
    const copy = new DataView(this.#entries.buffer.slice(0));
    return new MetadataIndexStore(this.#tm, this.#root, copy);
  }
}

function emptyEntries(): DataView {
  return new DataView(new ArrayBuffer(INDEX_ENTRIES_MAX * indexEntry.size));
}

/** Slots of the disk map's cache. */
const CACHE_SLOTS = 64;

interface Slot extends IndexEntry {
  index: number;
  dirty: boolean;
}

/** Entries in a B-tree keyed by bitmap number. */
export class TreeIndexStore implements IndexStore {
  readonly maxEntries = Number.MAX_SAFE_INTEGER;
  readonly #tree: BTree;
  readonly #slots: (Slot | undefined)[] = [];
  readonly #entry = makeEntry();
  readonly #value = makeValue(indexEntry.size);
  #root: BlockNr;

  private constructor(tree: BTree, root: BlockNr) {
    this.#tree = tree;
    this.#root = root;
  }

  static create(tm: TransactionManager): TreeIndexStore {
    const tree = new BTree(tm, plainValueType(indexEntry.size));
    return new TreeIndexStore(tree, tree.empty());
  }

  static open(tm: TransactionManager, root: BlockNr): TreeIndexStore {
    return new TreeIndexStore(new BTree(tm, plainValueType(indexEntry.size)), root);
  }

  get root(): BlockNr {
    return this.#root;
  }

  load(index: number, out: IndexEntry): void {
    const slot = this.#slot(index, true);
    out.blocknr = slot.blocknr;
    out.nrFree = slot.nrFree;
    out.noneFreeBefore = slot.noneFreeBefore;
  }

  save(index: number, entry: IndexEntry): void {
    const slot = this.#slot(index, false);
    slot.blocknr = entry.blocknr;
    slot.nrFree = entry.nrFree;
    slot.noneFreeBefore = entry.noneFreeBefore;
    slot.dirty = true;
  }

  commit(): void {
    for (const slot of this.#slots) if (slot?.dirty === true) this.#writeBack(slot);
  }

  snapshot(): IndexStore {
    assert(
      this.#slots.every((slot) => slot?.dirty !== true),
      'a store is committed, then copied',
    );
    const copy = new TreeIndexStore(this.#tree, this.#root);
    for (const [i, slot] of this.#slots.entries()) {
      if (slot !== undefined) copy.#slots[i] = { ...slot };
    }
    return copy;
  }

  /** The slot for `index`, taken over from another entry if need be, and filled if `load`. */
  #slot(index: number, load: boolean): Slot {
    const place = index % CACHE_SLOTS;
    let slot = this.#slots[place];
    if (slot?.index === index) return slot;
    if (slot === undefined) {
      slot = { index: -1, dirty: false, blocknr: 0, nrFree: 0, noneFreeBefore: 0 };
      this.#slots[place] = slot;
    } else if (slot.dirty) {
      this.#writeBack(slot);
    }
    slot.index = -1;
    if (load) this.#read(index, slot);
    slot.index = index;
    return slot;
  }

  #read(index: number, slot: Slot): void {
    if (!this.#tree.lookup(this.#root, index, this.#entry)) {
      throw new DmError('ENODATA', `space map: no index entry for bitmap ${index}`);
    }
    readIndexEntry(this.#entry.view, this.#entry.offset, slot);
  }

  #writeBack(slot: Slot): void {
    writeIndexEntry(this.#value.view, 0, slot);
    slot.dirty = false;
    this.#root = insert(this.#tree, this.#root, slot.index, this.#value).root;
  }
}

/** The index block of a metadata map, or the root of a bitmap tree, as a root record names it. */
export function asRoot(n: number): BlockNr {
  return asBlockNr(n);
}
