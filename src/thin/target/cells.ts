/**
 * Cells: ranges of blocks that are held while something is done to them, with the bios that wait.
 * Answers to drivers/md/dm-bio-prison-v1.c (spec: thin, 8.1).
 *
 * A CellSpace is one lock space: the virtual blocks, or the physical blocks, of one thin device. No
 * two held cells of a space overlap. Hot path: `heldAt` on a space where nothing is held.
 */
import { assert } from '../../base/error.ts';
import { BioList, type Bio } from '../../block/bio.ts';

export class Cell {
  readonly begin: number;
  /** One past the last block. */
  readonly end: number;
  /** The bio on whose behalf the range is held, if any. */
  readonly holder: Bio | null;
  /** Bios that came while the range was held. */
  readonly waiting = new BioList();
  readonly #space: CellSpace;

  constructor(space: CellSpace, begin: number, end: number, holder: Bio | null) {
    this.#space = space;
    this.begin = begin;
    this.end = end;
    this.holder = holder;
  }

  /** Lets go of the range; the waiting bios are the caller's to deal with. */
  release(): void {
    this.#space.remove(this);
  }
}

export class CellSpace {
  /** Cells of one block, by block. */
  readonly #single = new Map<number, Cell>();
  /** Cells of several blocks: discards, few at a time. */
  readonly #ranges: Cell[] = [];

  get isEmpty(): boolean {
    return this.#single.size === 0 && this.#ranges.length === 0;
  }

  /** The cell that covers `block`, if one is held. */
  heldAt(block: number): Cell | null {
    const cell = this.#single.get(block);
    if (cell !== undefined) return cell;
    if (this.#ranges.length === 0) return null;
    return this.#ranges.find(({ begin, end }) => begin <= block && block < end) ?? null;
  }

  /** The first held cell that overlaps `[begin, end)`, if any. */
  heldIn(begin: number, end: number): Cell | null {
    if (end === begin + 1) return this.heldAt(begin);
    if (end - begin < this.#single.size) {
      for (let block = begin; block < end; block++) {
        const cell = this.#single.get(block);
        if (cell !== undefined) return cell;
      }
    } else {
      for (const cell of this.#single.values()) {
        if (cell.begin >= begin && cell.begin < end) return cell;
      }
    }
    return this.#ranges.find((cell) => cell.begin < end && cell.end > begin) ?? null;
  }

  /** Holds a range that nobody holds. */
  hold(begin: number, end: number, holder: Bio | null): Cell {
    const cell = new Cell(this, begin, end, holder);
    if (end === begin + 1) {
      assert(!this.#single.has(begin), 'a range is held once');
      this.#single.set(begin, cell);
    } else {
      this.#ranges.push(cell);
    }
    return cell;
  }

  remove(cell: Cell): void {
    if (cell.end === cell.begin + 1) {
      assert(this.#single.delete(cell.begin), 'a released cell was held');
      return;
    }
    const index = this.#ranges.indexOf(cell);
    assert(index >= 0, 'a released cell was held');
    this.#ranges.splice(index, 1);
  }
}
