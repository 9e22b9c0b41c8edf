/**
 * HeldBlocks: data blocks that are free in the space map but must not be handed out now: reserved
 * for a mapping whose data is being prepared, or freed while their discard is still on the way to
 * the disk.
 *
 * In memory only: after a crash the blocks are simply free. (The kernel raises their counts
 * instead, which leaks them if the machine dies before they are lowered again; see
 * docs/differences.md.)
 */
import { assert } from '../../base/error.ts';

interface Range {
  readonly begin: number;
  readonly end: number;
}

export class HeldBlocks {
  readonly #single = new Set<number>();
  /** Discards on the way: few at a time. */
  readonly #ranges: Range[] = [];
  #nrInRanges = 0;

  /** How many blocks are held. */
  get size(): number {
    return this.#single.size + this.#nrInRanges;
  }

  has(block: number): boolean {
    if (this.#single.has(block)) return true;
    if (this.#nrInRanges === 0) return false;
    return this.#ranges.some(({ begin, end }) => begin <= block && block < end);
  }

  hold(block: number): void {
    assert(!this.has(block), 'a block is held once');
    this.#single.add(block);
  }

  release(block: number): void {
    assert(this.#single.delete(block), 'a released block was held');
  }

  holdRange(begin: number, end: number): void {
    this.#ranges.push({ begin, end });
    this.#nrInRanges += end - begin;
  }

  releaseRange(begin: number, end: number): void {
    const index = this.#ranges.findIndex((range) => range.begin === begin && range.end === end);
    assert(index >= 0, 'a released range was held');
    this.#ranges.splice(index, 1);
    this.#nrInRanges -= end - begin;
  }
}
