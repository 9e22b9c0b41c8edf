/**
 * Check of a space map: its own blocks, then its counts against the references that were found
 * (spec: persistent-data, 6, 7.1, 7.2, 7.4).
 *
 *   scan:    index block or bitmap tree, overflow tree; counts the metadata blocks that these are
 *   compare: each bitmap, read once, against a table of counts; call it when all structures of the
 *            device have been scanned
 *
 * A count below the references found is fatal, one above is a leak. What index entries and root
 * record say of free space is compared with the bitmaps.
 */
import { divUp } from '../../base/numbers.ts';
import { peekLe64, type ReadView } from '../../base/struct.ts';
import type { ReadBlock } from '../block.ts';
import {
  bitmapFindFree,
  bitmapGet,
  bitmapHeader,
  bitmapValidator,
  ENTRIES_PER_BITMAP,
  INDEX_ENTRIES_MAX,
  indexEntry,
  indexHeader,
  indexValidator,
  smRoot,
} from '../space-map/layout.ts';
import type { CheckRun, Place } from './check-run.ts';
import { CountTable } from './count-table.ts';
import type { DamageKind } from './damage.ts';
import { checkTree, eachEntry } from './tree-check.ts';

/** A space map's root record, as it is on the disk: nothing in it is to be trusted. */
export interface SpaceMapRoot {
  readonly nrBlocks: number;
  readonly nrAllocated: number;
  readonly bitmapRoot: number;
  readonly refCountRoot: number;
}

/** Reads a root record; numbers above 2^53 are rounded. */
export function readSpaceMapRoot(view: ReadView, offset: number): SpaceMapRoot {
  return {
    nrBlocks: peekLe64(view, offset + smRoot.nrBlocks.offset),
    nrAllocated: peekLe64(view, offset + smRoot.nrAllocated.offset),
    bitmapRoot: peekLe64(view, offset + smRoot.bitmapRoot.offset),
    refCountRoot: peekLe64(view, offset + smRoot.refCountRoot.offset),
  };
}

/** An index entry as found. */
interface Bitmap {
  readonly blocknr: number;
  readonly nrFree: number;
  readonly noneFreeBefore: number;
}

/** Counts that differ from the references found, over the whole map. */
export interface Comparison {
  /** Blocks with fewer counts than references. */
  nrBad: number;
  /** Blocks with more. */
  nrLeaked: number;
  /** Blocks with a count above zero. */
  nrAllocated: number;
}

/** Told of each block whose count differs from the references found. */
export type MismatchVisitor = (block: number, stored: number, found: number) => void;

/** The smallest count that is in the overflow tree. */
const OVERFLOW_MIN = 3;

export class SpaceMapCheck {
  readonly #run: CheckRun;
  readonly #name: string;
  readonly #root: SpaceMapRoot;
  readonly #bitmaps = new Map<number, Bitmap>();
  readonly #overflow = new CountTable();

  private constructor(run: CheckRun, name: string, root: SpaceMapRoot) {
    this.#run = run;
    this.#name = name;
    this.#root = root;
  }

  /** Scans the metadata space map. */
  static scanMetadata(run: CheckRun, name: string, root: SpaceMapRoot): SpaceMapCheck {
    const check = new SpaceMapCheck(run, name, root);
    check.#scanIndexBlock();
    check.#scanOverflow();
    return check;
  }

  /** Scans the space map of a data device. */
  static scanDisk(run: CheckRun, name: string, root: SpaceMapRoot): SpaceMapCheck {
    const check = new SpaceMapCheck(run, name, root);
    check.#scanBitmapTree();
    check.#scanOverflow();
    return check;
  }

  get #nrBitmaps(): number {
    return divUp(this.#root.nrBlocks, ENTRIES_PER_BITMAP);
  }

  #place(blocknr: number | null, begin = 0, end = this.#root.nrBlocks): Place {
    return { where: this.#name, path: [], blocknr, begin, end };
  }

  #report(kind: DamageKind, place: Place, text: string): void {
    this.#run.report({ ...place, kind, text });
  }

  // --- the map's own blocks

  #scanIndexBlock(): void {
    const { bitmapRoot, nrBlocks } = this.#root;
    const place = this.#place(bitmapRoot);
    if (this.#nrBitmaps > INDEX_ENTRIES_MAX) {
      this.#report('structure', place, `${nrBlocks} blocks are too many for a metadata space map`);
      return;
    }
    if (this.#run.reference(bitmapRoot, `${this.#name}: index`, place) !== true) return;
    const block = this.#run.read(bitmapRoot, indexValidator, place);
    if (block === null) return;
    const bitmaps = Array.from({ length: INDEX_ENTRIES_MAX }, (_, i) =>
      readBitmap(block.view, indexHeader.size + i * indexEntry.size),
    );
    for (const [index, bitmap] of bitmaps.entries()) {
      if (index < this.#nrBitmaps) this.#addBitmap(index, bitmap);
      else if (bitmap.blocknr !== 0) this.#reportSurplus(place, `index entry ${index}`);
    }
  }

  #scanBitmapTree(): void {
    const found: [number, Bitmap][] = [];
    const visitLeaf = ({ view }: ReadBlock): void =>
      eachEntry(view, (key, offset) => found.push([key, readBitmap(view, offset)]));
    const name = `${this.#name}: bitmap tree`;
    const { bitmapRoot } = this.#root;
    const { nrErrors } = checkTree(this.#run, bitmapRoot, {
      name,
      valueSize: indexEntry.size,
      visitLeaf,
    });
    const place = this.#place(bitmapRoot);
    for (const [index, bitmap] of found) {
      if (index < this.#nrBitmaps) this.#addBitmap(index, bitmap);
      else this.#reportSurplus(place, `index entry ${index}`);
    }
    if (nrErrors > 0 || this.#bitmaps.size === this.#nrBitmaps) return;
    const text = `wanted ${this.#nrBitmaps} index entries, found ${this.#bitmaps.size}`;
    this.#report('missing', place, text);
  }

  #reportSurplus(place: Place, what: string): void {
    this.#report(
      'surplus',
      place,
      `${what} is beyond the ${this.#root.nrBlocks} blocks of the map`,
    );
  }

  #addBitmap(index: number, bitmap: Bitmap): void {
    const first = index * ENTRIES_PER_BITMAP;
    const place = this.#place(null, first, first + ENTRIES_PER_BITMAP);
    if (this.#run.reference(bitmap.blocknr, `${this.#name}: bitmap`, place) === null) return;
    this.#bitmaps.set(index, bitmap);
  }

  #scanOverflow(): void {
    const name = `${this.#name}: overflow tree`;
    const root = this.#root.refCountRoot;
    const visitLeaf = ({ view, blocknr }: ReadBlock): void =>
      eachEntry(view, (block, offset) => {
        const count = view.getUint32(offset, true);
        const place = { ...this.#place(blocknr, block, block + 1), where: name };
        if (block >= this.#root.nrBlocks) {
          this.#reportSurplus(place, `the count of block ${block}`);
          return;
        }
        this.#overflow.add(block, count);
        if (count < OVERFLOW_MIN) this.#report('ref-count', place, `found a count of ${count}`);
      });
    checkTree(this.#run, root, { name, valueSize: 4, visitLeaf });
  }

  // --- counts

  /** Compares every count with the references in `found`. Reads each bitmap. */
  compare(found: CountTable, visit?: MismatchVisitor): Comparison {
    const total: Comparison = { nrBad: 0, nrLeaked: 0, nrAllocated: 0 };
    const { nrBlocks } = this.#root;
    if (found.highest >= nrBlocks) {
      const place = this.#place(null, nrBlocks, found.highest + 1);
      this.#report('pointer', place, `block ${found.highest} is in use, the map has ${nrBlocks}`);
    }
    let readAll = this.#bitmaps.size === this.#nrBitmaps;
    for (const [index, bitmap] of this.#bitmaps) {
      if (!this.#compareBitmap(index, bitmap, found, total, visit)) readAll = false;
    }
    if (readAll && total.nrAllocated !== this.#root.nrAllocated) {
      const text = `wanted nr_allocated ${total.nrAllocated}, found ${this.#root.nrAllocated}`;
      this.#report('nr-allocated', this.#place(null), text);
    }
    return total;
  }

  /** False if the bitmap cannot be had. */
  #compareBitmap(
    index: number,
    bitmap: Bitmap,
    found: CountTable,
    total: Comparison,
    visit: MismatchVisitor | undefined,
  ): boolean {
    const first = index * ENTRIES_PER_BITMAP;
    const end = Math.min(first + ENTRIES_PER_BITMAP, this.#root.nrBlocks);
    const place = this.#place(bitmap.blocknr, first, end);
    const block = this.#run.read(bitmap.blocknr, bitmapValidator, place);
    if (block === null) return false;
    const { view } = block;
    const nrUsed = this.#compareEntries(view, place, found, total, visit);
    total.nrAllocated += nrUsed;
    for (let entry = end - first; entry < ENTRIES_PER_BITMAP; entry++) {
      if (bitmapGet(view, entry) === 0) continue;
      this.#reportSurplus(place, `the count of ${first + entry}`);
      break;
    }
    this.#checkHints(view, place, bitmap, nrUsed);
    return true;
  }

  #compareEntries(
    view: ReadView,
    place: Place,
    found: CountTable,
    total: Comparison,
    visit: MismatchVisitor | undefined,
  ): number {
    const { begin: first, end } = place;
    const runs = new MismatchRuns((kind, begin, runEnd, text) =>
      this.#report(kind, { ...place, begin, end: runEnd }, text),
    );
    const untouched = found.isUntouched(first, end) && this.#overflow.isUntouched(first, end);
    let nrUsed = 0;
    for (let block = first; block < end; block++) {
      const entry = block - first;
      if (untouched && (entry & 3) === 0 && view.getUint8(bitmapHeader.size + entry / 4) === 0) {
        block += 3; // Four free blocks that nothing refers to; those beyond `end` are free too.
        continue;
      }
      const stored = this.#stored(bitmapGet(view, entry), block, place);
      if (stored > 0) nrUsed++;
      const wanted = found.get(block);
      if (stored === wanted) continue;
      if (stored < wanted) total.nrBad++;
      else total.nrLeaked++;
      visit?.(block, stored, wanted);
      runs.add(block, stored, wanted);
    }
    runs.end();
    return nrUsed;
  }

  /** The count of a block, of which the bitmap has `bits`. */
  #stored(bits: number, block: number, place: Place): number {
    const large = this.#overflow.get(block);
    if (bits === OVERFLOW_MIN) {
      if (large === 0) {
        const text = `overflow btree is missing an entry for block ${block}`;
        this.#report('missing', { ...place, begin: block, end: block + 1 }, text);
      }
      return large;
    }
    if (large > 0) {
      const text = `block ${block} is in the overflow tree, its bitmap entry is ${bits}`;
      this.#report('surplus', { ...place, begin: block, end: block + 1 }, text);
    }
    return bits;
  }

  #checkHints(view: ReadView, place: Place, bitmap: Bitmap, nrUsed: number): void {
    // The kernel counts all entries of the last bitmap, thin_restore 0.9 those that exist.
    const free = ENTRIES_PER_BITMAP - nrUsed;
    const freeOnDevice = place.end - place.begin - nrUsed;
    if (bitmap.nrFree !== free && bitmap.nrFree !== freeOnDevice) {
      this.#report('hint', place, `wanted nr_free ${free}, found ${bitmap.nrFree}`);
    }
    const limit = Math.min(bitmap.noneFreeBefore, place.end - place.begin);
    const firstFree = bitmapFindFree(view, 0, limit);
    if (firstFree < 0) return;
    const text = `entry ${firstFree} is free, found none_free_before ${bitmap.noneFreeBefore}`;
    this.#report('hint', place, text);
  }
}

function readBitmap(view: ReadView, offset: number): Bitmap {
  return {
    blocknr: peekLe64(view, offset + indexEntry.blocknr.offset),
    nrFree: indexEntry.nrFree.get(view, offset),
    noneFreeBefore: indexEntry.noneFreeBefore.get(view, offset),
  };
}

/** Joins neighbouring blocks that differ in the same way into one finding. */
class MismatchRuns {
  readonly #report: (kind: DamageKind, begin: number, end: number, text: string) => void;
  #begin = 0;
  #end = 0;
  #stored = 0;
  #wanted = 0;

  constructor(report: (kind: DamageKind, begin: number, end: number, text: string) => void) {
    this.#report = report;
  }

  add(block: number, stored: number, wanted: number): void {
    const joins = block === this.#end && stored === this.#stored && wanted === this.#wanted;
    if (!joins) {
      this.end();
      this.#begin = block;
      this.#stored = stored;
      this.#wanted = wanted;
    }
    this.#end = block + 1;
  }

  end(): void {
    if (this.#begin < this.#end) {
      const kind = this.#stored < this.#wanted ? 'ref-count' : 'leak';
      const text = `wanted a count of ${this.#wanted}, found ${this.#stored}`;
      this.#report(kind, this.#begin, this.#end, text);
    }
    this.#begin = this.#end = 0;
  }
}
