/**
 * The part of a cache's check that looks at its arrays: mappings, dirty bits, hints, discards
 * (spec: tools, 14; cache, 2.3 to 2.6). A visitor sees what is in them.
 */
import type { ReadView } from '../../base/struct.ts';
import { checkArray, checkBitset } from '../../persistent-data/check/array-check.ts';
import type { CheckRun, Place } from '../../persistent-data/check/check-run.ts';
import { CountTable } from '../../persistent-data/check/count-table.ts';
import type { DamageKind } from '../../persistent-data/check/damage.ts';
import { HINT_SIZE } from '../metadata/hint-array.ts';
import { DIRTY, flagsAt, MAPPING_SIZE, oblockAt, VALID } from '../metadata/mapping.ts';
import type { CacheSuperblock } from './cache-superblock.ts';

/** Sees what is in sound blocks of the arrays, in order within a block. */
export interface CacheVisitor {
  /** A cblock that holds an origin block. */
  mapping?(cblock: number, oblock: number, flags: number): void;
  /** A bit of the dirty bitset that is set (format 2). */
  dirtyBit?(cblock: number): void;
  hint?(cblock: number, hint: number): void;
  /** A bit of the discard bitset that is set. */
  discard?(dblock: number): void;
}

const MAPPINGS = 'mapping array';
const DIRTY_BITS = 'dirty bitset';
const HINTS = 'hint array';
const DISCARDS = 'discard bitset';

export class ArraysCheck {
  readonly #run: CheckRun;
  readonly #sb: CacheSuperblock;
  readonly #visitor: CacheVisitor;
  /** How many times each origin block is mapped. */
  readonly #oblocks = new CountTable();
  /** Origin blocks that there are; Infinity if that is not known. */
  readonly #nrOriginBlocks: number;
  /** Cblocks that hold an origin block. */
  readonly #mapped = new CountTable();

  constructor(run: CheckRun, sb: CacheSuperblock, visitor: CacheVisitor = {}) {
    this.#run = run;
    this.#sb = sb;
    this.#visitor = visitor;
    const { cleanShutdown, discardBlockSize, nrDiscardBlocks, dataBlockSize } = sb;
    const nrSectors = cleanShutdown ? discardBlockSize * nrDiscardBlocks : 0;
    this.#nrOriginBlocks = nrSectors > 0 ? Math.floor(nrSectors / dataBlockSize) : Infinity;
  }

  #report(kind: DamageKind, where: string, cblock: number, blocknr: number, text: string): void {
    const place: Place = { where, path: [], blocknr, begin: cblock, end: cblock + 1 };
    this.#run.report({ ...place, kind, text });
  }

  // --- mappings

  checkMappings(): void {
    const { mappingRoot, nrCacheBlocks } = this.#sb;
    checkArray(this.#run, mappingRoot, {
      name: MAPPINGS,
      valueSize: MAPPING_SIZE,
      nrValues: nrCacheBlocks,
      visitValues: (begin, count, view, offset, blocknr) => {
        for (let i = 0; i < count; i++) {
          const at = offset + i * MAPPING_SIZE;
          this.#checkMapping(begin + i, oblockAt(view, at), flagsAt(view, at), blocknr);
        }
      },
    });
  }

  #checkMapping(cblock: number, oblock: number, flags: number, blocknr: number): void {
    const complain = (text: string): void => this.#report('value', MAPPINGS, cblock, blocknr, text);
    const known = this.#sb.version === 1 ? VALID | DIRTY : VALID;
    if ((flags & ~known) !== 0) complain(`mapping has unknown flags ${flags & ~known}`);
    if ((flags & VALID) === 0) {
      if (oblock !== 0) complain(`an unmapped block names origin block ${oblock}`);
      if ((flags & DIRTY & known) !== 0) complain('an unmapped block is dirty');
      return;
    }
    if (oblock >= this.#nrOriginBlocks) {
      complain(`mapping beyond end of the origin device: block ${oblock}`);
    }
    if (this.#oblocks.get(oblock) > 0) complain(`origin block ${oblock} already mapped`);
    this.#oblocks.add(oblock);
    this.#mapped.add(cblock);
    this.#visitor.mapping?.(cblock, oblock, flags);
  }

  // --- what a clean shutdown leaves

  /**
   * After a clean shutdown, if `knowsMappings`, dirty bits of unmapped blocks are surplus: nobody
   * reads them, and cache_restore 0.9 sets them.
   */
  checkDirtyBits(knowsMappings: boolean): void {
    const { cleanShutdown, dirtyRoot, nrCacheBlocks, version } = this.#sb;
    if (version === 1) return;
    if (dirtyRoot === 0) {
      const place: Place = {
        where: DIRTY_BITS,
        path: [],
        blocknr: 0,
        begin: 0,
        end: nrCacheBlocks,
      };
      this.#run.report({ ...place, kind: 'missing', text: 'dirty bitset not found' });
      return;
    }
    let nrSurplus = 0;
    let first = 0;
    checkBitset(this.#run, dirtyRoot, {
      name: DIRTY_BITS,
      nrBits: nrCacheBlocks,
      visitSetBit: (cblock) => {
        this.#visitor.dirtyBit?.(cblock);
        if (!cleanShutdown || !knowsMappings || this.#mapped.get(cblock) > 0) return;
        if (nrSurplus++ === 0) first = cblock;
      },
    });
    if (nrSurplus === 0) return;
    const text = `${nrSurplus} unmapped blocks are dirty, the first is ${first}`;
    this.#report('surplus', DIRTY_BITS, first, dirtyRoot, text);
  }

  get hasHints(): boolean {
    return this.#sb.hintRoot !== 0;
  }

  checkHints(): void {
    const { hintRoot, nrCacheBlocks, policy, cleanShutdown } = this.#sb;
    if (!this.hasHints) return;
    // cache_restore 0.9 writes hints of 4 bytes, but a size of 0.
    if (policy.hintSize !== HINT_SIZE && policy.hintSize !== 0) {
      const text = `wanted hints of ${HINT_SIZE} bytes, found ${policy.hintSize}`;
      this.#report('value', HINTS, 0, 0, text);
      return;
    }
    checkArray(this.#run, hintRoot, {
      name: HINTS,
      valueSize: HINT_SIZE,
      nrValues: nrCacheBlocks,
      // They are not resized with the cache, but made anew by the next clean shutdown.
      anyLength: !cleanShutdown,
      visitValues: (begin, count, view, offset) => this.#visitHints(begin, count, view, offset),
    });
  }

  #visitHints(begin: number, count: number, view: ReadView, offset: number): void {
    for (let i = 0; i < count; i++) {
      this.#visitor.hint?.(begin + i, view.getUint32(offset + i * HINT_SIZE, true));
    }
  }

  checkDiscards(): void {
    const { discardRoot, nrDiscardBlocks } = this.#sb;
    if (discardRoot === 0) return;
    checkBitset(this.#run, discardRoot, {
      name: DISCARDS,
      nrBits: nrDiscardBlocks,
      visitSetBit: (dblock) => this.#visitor.discard?.(dblock),
    });
  }
}
