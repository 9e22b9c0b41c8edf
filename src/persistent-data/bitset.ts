/**
 * Bitset: bits packed into an array of 64-bit words (spec: persistent-data, 10).
 * Answers to drivers/md/persistent-data/dm-bitset.c.
 *
 * Bit b is bit b mod 64, counted from the least significant, of word b div 64. Bits past the end of
 * the last word are unspecified, and growing leaves them as they are.
 *
 * One word is held in memory and written back when another is needed: so any call may change
 * `root`, and `flush` must come before the owner stores it for a commit. What a crash leaves is the
 * array of the last commit.
 * Invariant: a word in memory lies inside the array.
 */
import { assert } from '../base/error.ts';
import { divDown, divUp } from '../base/numbers.ts';
import type { WriteView } from '../base/struct.ts';
import { DmArray } from './array.ts';
import { ArrayCursor } from './array-cursor.ts';
import type { BlockNr } from './block.ts';
import { makeEntry } from './btree/btree.ts';
import { makeValue } from './btree/insert.ts';
import { plainValueType } from './btree/value-type.ts';
import type { TransactionManager } from './transaction-manager.ts';

const BITS_PER_WORD = 64;
const WORD_BYTES = 8;

const wordsFor = (nrBits: number): number => divUp(nrBits, BITS_PER_WORD);

function arrayOfWords(tm: TransactionManager): DmArray {
  return new DmArray(tm, plainValueType(WORD_BYTES));
}

export class Bitset {
  readonly #array: DmArray;
  #root: BlockNr;
  /** The word in memory; null before the first is needed. */
  #index: number | null = null;
  #dirty = false;
  readonly #word = makeValue(WORD_BYTES);
  readonly #entry = makeEntry();

  private constructor(array: DmArray, root: BlockNr) {
    this.#array = array;
    this.#root = root;
  }

  /** Makes a bitset of no bits. */
  static empty(tm: TransactionManager): Bitset {
    const array = arrayOfWords(tm);
    return new Bitset(array, array.empty());
  }

  /** Makes a bitset of `nrBits` bits; `isSet` is asked for each, in order. */
  static create(tm: TransactionManager, nrBits: number, isSet: (bit: number) => boolean): Bitset {
    const array = arrayOfWords(tm);
    const root = array.create(wordsFor(nrBits), (index, view, offset) => {
      const first = index * BITS_PER_WORD;
      const nr = Math.min(BITS_PER_WORD, nrBits - first);
      for (let i = 0; i < nr; i++) if (isSet(first + i)) changeBit(view, offset, i, true);
    });
    return new Bitset(array, root);
  }

  /** The bitset whose root the owner has stored. */
  static open(tm: TransactionManager, root: BlockNr): Bitset {
    return new Bitset(arrayOfWords(tm), root);
  }

  /** For the owner to store, after `flush`. */
  get root(): BlockNr {
    return this.#root;
  }

  /** Whether a word is in memory that the array does not have yet. */
  get isDirty(): boolean {
    return this.#dirty;
  }

  /** Throws ENODATA beyond the last word, as setBit and clearBit. */
  testBit(bit: number): boolean {
    this.#load(bit);
    return bitAt(this.#word.bytes, 0, bit % BITS_PER_WORD);
  }

  setBit(bit: number): void {
    this.#change(bit, true);
  }

  clearBit(bit: number): void {
    this.#change(bit, false);
  }

  /** The word is written back even if the bit was like that: block for block as the kernel. */
  #change(bit: number, value: boolean): void {
    this.#load(bit);
    changeBit(this.#word.view, 0, bit % BITS_PER_WORD, value);
    this.#dirty = true;
  }

  /** Writes the word in memory back into the array. */
  flush(): void {
    if (this.#index === null || !this.#dirty) return;
    this.#root = this.#array.set(this.#root, this.#index, this.#word);
    this.#dirty = false;
  }

  /** Changes the length from `oldBits`; new words have all bits as `value` says. */
  resize(oldBits: number, newBits: number, value: boolean): void {
    this.flush();
    this.#index = null;
    const word = makeValue(WORD_BYTES);
    word.bytes.fill(value ? 0xff : 0);
    this.#root = this.#array.resize(this.#root, wordsFor(oldBits), wordsFor(newBits), word);
  }

  /** Drops one reference to the bitset, which is not to be used any more. */
  delete(): void {
    this.#index = null;
    this.#dirty = false;
    this.#array.delete(this.#root);
  }

  /** A cursor over the first `nrBits` bits, from bit `from` on. Flush first. */
  cursor(nrBits: number, from = 0): BitsetCursor {
    assert(!this.#dirty, 'a bitset is flushed before a cursor reads it');
    return new BitsetCursor(this.#array, this.#root, nrBits, from);
  }

  /** Brings the word of `bit` into memory. */
  #load(bit: number): void {
    const index = divDown(bit, BITS_PER_WORD);
    if (index === this.#index) return;
    this.flush();
    this.#index = null;
    const entry = this.#entry;
    this.#array.get(this.#root, index, entry);
    const { bytes } = this.#word;
    for (let i = 0; i < WORD_BYTES; i++) bytes[i] = entry.view.getUint8(entry.offset + i);
    this.#index = index;
  }
}

/** A place in a bitset; right only as long as the bitset does not change. */
export class BitsetCursor {
  readonly #words: ArrayCursor;
  readonly #nrBits: number;
  readonly #word = new Uint8Array(WORD_BYTES);
  #bit: number;

  /** Made by Bitset.cursor. */
  constructor(array: DmArray, root: BlockNr, nrBits: number, from: number) {
    this.#words = new ArrayCursor(array, root, divDown(from, BITS_PER_WORD));
    this.#nrBits = nrBits;
    this.#bit = from;
    this.#readWord();
  }

  get atEnd(): boolean {
    return this.#bit >= this.#nrBits || this.#words.atEnd;
  }

  get bit(): number {
    return this.#bit;
  }

  get value(): boolean {
    assert(!this.atEnd, 'a cursor at the end has no bit');
    return bitAt(this.#word, 0, this.#bit % BITS_PER_WORD);
  }

  /** Moves to the next bit. */
  next(): void {
    assert(!this.atEnd, 'a cursor at the end does not move');
    this.#bit++;
    if (this.#bit % BITS_PER_WORD !== 0) return;
    this.#words.next();
    this.#readWord();
  }

  #readWord(): void {
    if (this.#words.atEnd) return;
    this.#words.value((view, offset) => {
      for (let i = 0; i < WORD_BYTES; i++) this.#word[i] = view.getUint8(offset + i);
    });
  }
}

function bitAt(bytes: Uint8Array, offset: number, bit: number): boolean {
  return (((bytes[offset + (bit >>> 3)] as number) >>> (bit & 7)) & 1) !== 0;
}

function changeBit(view: WriteView, offset: number, bit: number, value: boolean): void {
  const at = offset + (bit >>> 3);
  const mask = 1 << (bit & 7);
  const byte = view.getUint8(at);
  view.setUint8(at, value ? byte | mask : byte & ~mask);
}
