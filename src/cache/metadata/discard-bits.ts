/**
 * DiscardBits: which parts of the origin were discarded and not written since, as of the last clean
 * shutdown; after any other end they say nothing (spec: cache, 2.6).
 */
import { DmError } from '../../base/error.ts';
import type { Bitset } from '../../persistent-data/bitset.ts';
import type { BlockNr } from '../../persistent-data/block.ts';

export class DiscardBits {
  readonly #bits: Bitset;
  /** In sectors. */
  blockSize: number;
  nrBlocks: number;

  constructor(bits: Bitset, blockSize: number, nrBlocks: number) {
    this.#bits = bits;
    this.blockSize = blockSize;
    this.nrBlocks = nrBlocks;
  }

  /** After `flush`. */
  get root(): BlockNr {
    return this.#bits.root;
  }

  resize(blockSize: number, nrBlocks: number): void {
    this.#bits.resize(this.nrBlocks, nrBlocks, false);
    this.blockSize = blockSize;
    this.nrBlocks = nrBlocks;
  }

  write(isDiscarded: (dblock: number) => boolean): void {
    for (let dblock = 0; dblock < this.nrBlocks; dblock++) {
      if (isDiscarded(dblock)) this.#bits.setBit(dblock);
      else this.#bits.clearBit(dblock);
    }
  }

  /**
   * Visits each maximal run of discarded blocks `[begin, end)`. Throws ENODATA if bits are missing.
   */
  eachRun(visit: (begin: number, end: number) => void): void {
    if (this.nrBlocks === 0) return;
    let begin = -1;
    const cursor = this.#bits.cursor(this.nrBlocks);
    for (let dblock = 0; dblock < this.nrBlocks; dblock++, cursor.next()) {
      if (cursor.atEnd) throw new DmError('ENODATA', `the discard bitset has no block ${dblock}`);
      const isDiscarded = cursor.value;
      if (isDiscarded && begin < 0) begin = dblock;
      if (isDiscarded || begin < 0) continue;
      visit(begin, dblock);
      begin = -1;
    }
    if (begin >= 0) visit(begin, this.nrBlocks);
  }

  /** Brings what is held in memory into the blocks. */
  flush(): void {
    this.#bits.flush();
  }
}
