/**
 * DiscardSet: which discard blocks of the origin hold nothing that anybody wants (spec: cache, 2.6
 * and 11.8). In memory; the metadata keeps it over a clean shutdown.
 */
import { divDown, divUp } from '../../base/numbers.ts';

/** Discard blocks are made larger until there are no more than this. */
const DISCARD_BLOCKS_MAX = 16384;

export class DiscardSet {
  readonly blockSectors: number;
  readonly nrBlocks: number;
  readonly #bits: Uint8Array;
  readonly #oblocksPerBlock: number;

  constructor(cacheBlockSectors: number, originSectors: number) {
    let size = cacheBlockSectors;
    while (divDown(originSectors, size) > DISCARD_BLOCKS_MAX) size *= 2;
    this.blockSectors = size;
    this.nrBlocks = divUp(originSectors, size);
    this.#oblocksPerBlock = size / cacheBlockSectors;
    this.#bits = new Uint8Array(this.nrBlocks);
  }

  /** Whether the discard block that `oblock` is in was discarded. Hot path. */
  has(oblock: number): boolean {
    return this.#bits[Math.floor(oblock / this.#oblocksPerBlock)] === 1;
  }

  /** Somebody writes to `oblock`. Hot path. */
  clear(oblock: number): void {
    this.#bits[Math.floor(oblock / this.#oblocksPerBlock)] = 0;
  }

  isSet(index: number): boolean {
    return this.#bits[index] === 1;
  }

  /** A discard of sectors `[begin, end)`: whole blocks in it count. */
  addSectors(begin: number, end: number): void {
    if (end - begin < this.blockSectors) return;
    this.#bits.fill(1, divUp(begin, this.blockSectors), divDown(end, this.blockSectors));
  }

  /** A run of set bits in units of another size, as an earlier table had them. */
  addRun(begin: number, end: number, blockSectors: number): void {
    const first = divUp(begin * blockSectors, this.blockSectors);
    const last = Math.min(divDown(end * blockSectors, this.blockSectors), this.nrBlocks);
    if (first < last) this.#bits.fill(1, first, last);
  }
}
