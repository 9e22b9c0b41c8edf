/**
 * DmArray: fixed-size values by index, packed into array blocks that a B-tree finds
 * (spec: persistent-data, 9). Answers to drivers/md/persistent-data/dm-array.c.
 *
 *   index tree: 0, 1, 2, ... without gaps ──► array blocks, all full but the last
 *
 * An array is named by the root of its index tree, which the caller stores; its length too is the
 * caller's to know. What changes an array returns its new root. The order of allocations and count
 * changes is the kernel's, with one exception: shrinking to a whole number of blocks removes the
 * block that the kernel then leaves behind.
 *
 * References: a value set or filled in by a callback brings its own, as with a B-tree's insert; the
 * copies of a default value get theirs here.
 */
import { DmError } from '../base/error.ts';
import { divDown, divUp } from '../base/numbers.ts';
import { setLe64, type WriteView } from '../base/struct.ts';
import {
  arrayEntriesFor,
  arrayHeader,
  arrayNrEntries,
  arrayValidator,
  arrayValueOffset,
  setArrayNrEntries,
} from './array-layout.ts';
import type { BlockNr, ReadBlock, WriteBlock } from './block.ts';
import { BTree, DEPTH_MAX, makeEntry, tooDeep, type Entry } from './btree/btree.ts';
import { deleteTree } from './btree/delete.ts';
import { insert, makeValue, type Value } from './btree/insert.ts';
import { isLeaf, lowerBound, nodeValidator, valueOffset } from './btree/node.ts';
import { overwritePlace } from './btree/overwrite.ts';
import { remove } from './btree/remove.ts';
import { blockNrAt, blockNrValueType, isPlain, type ValueType } from './btree/value-type.ts';
import type { TransactionManager } from './transaction-manager.ts';

/** Writes the value of `index` at `offset` of `view`. */
export type FillValue = (index: number, view: WriteView, offset: number) => void;

export class DmArray {
  readonly tm: TransactionManager;
  readonly valueType: ValueType;
  /** Values of a full array block. */
  readonly perBlock: number;
  /** Dropping an entry drops the array block's values if nobody else has the block. */
  readonly index: BTree;
  /** The index tree for when a block has only moved: its values keep their references. */
  readonly #moving: BTree;
  readonly #entry = makeEntry();
  readonly #blocknr = makeValue(8);

  constructor(tm: TransactionManager, valueType: ValueType) {
    this.tm = tm;
    this.valueType = valueType;
    this.perBlock = arrayEntriesFor(valueType.size);
    this.#moving = new BTree(tm, blockNrValueType(tm));
    this.index = new BTree(tm, {
      ...this.#moving.valueType,
      dec: (view, offset, count) => {
        // Taken out first: dropping one may evict the block that `view` shows.
        const blocks = Array.from({ length: count }, (_, i) => blockNrAt(view, offset + i * 8));
        for (const blocknr of blocks) this.#drop(blocknr);
      },
    });
  }

  /** Makes an array of no values; returns its root. */
  empty(): BlockNr {
    return this.index.empty();
  }

  /** Makes an array of `size` values that `fill` writes, in order of index. */
  create(size: number, fill: FillValue): BlockNr {
    let root = this.empty();
    for (let begin = 0; begin < size; begin += this.perBlock) {
      const block = this.#newBlock();
      const nr = Math.min(this.perBlock, size - begin);
      for (let entry = 0; entry < nr; entry++) fill(begin + entry, block.view, this.#at(entry));
      setArrayNrEntries(block.view, nr);
      root = this.#insert(this.index, root, begin / this.perBlock, block.blocknr);
    }
    return root;
  }

  /** Finds a value. Throws ENODATA beyond the end. */
  get(root: BlockNr, index: number, entry: Entry): void {
    const block = this.readBlock(this.#find(root, divDown(index, this.perBlock)));
    const inBlock = index % this.perBlock;
    if (inBlock >= arrayNrEntries(block.view)) throw noValue(index);
    entry.key = index;
    entry.view = block.view;
    entry.offset = this.#at(inBlock);
  }

  /**
   * Overwrites a value. The old one gives its reference up, unless the value type says that both
   * are equal. Throws ENODATA beyond the end.
   */
  set(root: BlockNr, index: number, value: Value): BlockNr {
    const { valueType } = this;
    this.get(root, index, this.#entry); // What is not there must not cost a shadow.
    const change = this.#shadow(root, divDown(index, this.perBlock));
    const { view, bytes } = change.block;
    const offset = this.#at(index % this.perBlock);
    if (!valueType.equal(view, offset, value.view, 0)) valueType.dec(view, offset, 1);
    bytes.set(value.bytes, offset);
    return change.root;
  }

  /** Changes the length from `oldSize`; new values are copies of `value`. */
  resize(root: BlockNr, oldSize: number, newSize: number, value: Value): BlockNr {
    if (newSize > oldSize) return this.#grow(root, oldSize, newSize, value);
    if (newSize < oldSize) return this.#shrink(root, oldSize, newSize);
    return root;
  }

  /** Drops one reference to the array, and all that it alone held. */
  delete(root: BlockNr): void {
    deleteTree(this.index, root);
  }

  /** An array block for reading. Throws EILSEQ for one of another array. */
  readBlock(blocknr: BlockNr): ReadBlock {
    const block = this.tm.read(blocknr, arrayValidator);
    this.#checkValueSize(block);
    return block;
  }

  // --- resizing

  #grow(root: BlockNr, oldSize: number, newSize: number, value: Value): BlockNr {
    const { perBlock } = this;
    if (oldSize % perBlock > 0) {
      const key = divDown(oldSize, perBlock);
      const change = this.#shadow(root, key);
      root = change.root;
      this.#fillUp(change.block, Math.min(perBlock, newSize - key * perBlock), value);
    }
    for (let key = divUp(oldSize, perBlock); key * perBlock < newSize; key++) {
      const block = this.#newBlock();
      this.#fillUp(block, Math.min(perBlock, newSize - key * perBlock), value);
      root = this.#insert(this.index, root, key, block.blocknr);
    }
    return root;
  }

  /** Adds copies of `value` until the block has `nr`. */
  #fillUp(block: WriteBlock, nr: number, value: Value): void {
    const { view, bytes } = block;
    const from = arrayNrEntries(view);
    for (let entry = from; entry < nr; entry++) bytes.set(value.bytes, this.#at(entry));
    if (from >= nr) return;
    this.valueType.inc(view, this.#at(from), nr - from);
    setArrayNrEntries(view, nr);
  }

  #shrink(root: BlockNr, oldSize: number, newSize: number): BlockNr {
    const { perBlock } = this;
    const highest = this.index.highestKey(root) ?? -1;
    // The tree may have a block more than the length says: the kernel leaves one behind.
    const end = Math.max(divUp(oldSize, perBlock), highest + 1);
    for (let key = divUp(newSize, perBlock); key < end; key++) {
      root = remove(this.index, root, key);
    }
    const rest = newSize % perBlock;
    if (rest === 0) return root;
    const change = this.#shadow(root, divDown(newSize, perBlock));
    const { view } = change.block;
    const nr = arrayNrEntries(view);
    if (nr > rest) {
      this.valueType.dec(view, this.#at(rest), nr - rest);
      setArrayNrEntries(view, rest);
    }
    return change.root;
  }

  // --- blocks

  #at(entry: number): number {
    return arrayValueOffset(entry, this.valueType.size);
  }

  #newBlock(): WriteBlock {
    const block = this.tm.newBlock(arrayValidator);
    arrayHeader.maxEntries.set(block.view, 0, this.perBlock);
    arrayHeader.valueSize.set(block.view, 0, this.valueType.size);
    return block;
  }

  #checkValueSize({ view, blocknr }: ReadBlock): void {
    const found = arrayHeader.valueSize.get(view, 0);
    const wanted = this.valueType.size;
    if (found === wanted) return;
    const text = `array: wanted values of ${wanted} bytes in block ${blocknr}, found ${found}`;
    throw new DmError('EILSEQ', text);
  }

  #find(root: BlockNr, key: number): BlockNr {
    if (!this.index.lookup(root, key, this.#entry)) throw noValue(key * this.perBlock);
    return blockNrAt(this.#entry.view, this.#entry.offset);
  }

  #insert(tree: BTree, root: BlockNr, key: number, blocknr: BlockNr): BlockNr {
    setLe64(this.#blocknr.view, 0, blocknr);
    return insert(tree, root, key, this.#blocknr).root;
  }

  /** A writable form of array block `key`, to which the tree then points. */
  #shadow(root: BlockNr, key: number): { root: BlockNr; block: WriteBlock } {
    // A block below a shared node is shared too, though its own count does not say so yet.
    if (this.#isPathShared(root, key)) root = overwritePlace(this.index, root, key).root;
    const blocknr = this.#find(root, key);
    this.readBlock(blocknr);
    const block = this.tm.shadow(blocknr, arrayValidator);
    const nr = arrayNrEntries(block.view);
    if (this.tm.shadowWasShared && nr > 0) this.valueType.inc(block.view, this.#at(0), nr);
    if (block.blocknr === blocknr) return { root, block };
    // Shadowing has taken the tree's reference to the old block, and overwriting takes it again.
    this.tm.inc(blocknr);
    return { root: this.#insert(this.#moving, root, key, block.blocknr), block };
  }

  #isPathShared(root: BlockNr, key: number): boolean {
    let node = this.tm.read(root, nodeValidator);
    for (let depth = 0; depth < DEPTH_MAX; depth++) {
      if (this.tm.isShared(node.blocknr)) return true;
      if (isLeaf(node.view)) return false;
      const index = Math.max(lowerBound(node.view, key), 0);
      node = this.tm.read(blockNrAt(node.view, valueOffset(node.view, index)), nodeValidator);
    }
    throw tooDeep(root);
  }

  /** Drops one reference to an array block, and its values with the last one. */
  #drop(blocknr: BlockNr): void {
    const { tm, valueType } = this;
    if (!isPlain(valueType) && tm.count(blocknr) === 1) {
      const { view } = this.readBlock(blocknr);
      const nr = arrayNrEntries(view);
      if (nr > 0) valueType.dec(view, this.#at(0), nr);
    }
    tm.dec(blocknr);
  }
}

function noValue(index: number): DmError {
  return new DmError('ENODATA', `array: no value at index ${index}`);
}
