/**
 * Disk space map: reference counts of the data device.
 * Answers to drivers/md/persistent-data/dm-space-map-disk.c (spec: persistent-data, 6 and 7.1).
 *
 * Invariant: a block freed in this transaction is not handed out again before commit, so the
 *   committed mappings never show another block's data after a crash.
 * Does not: allocate metadata for itself except through the transaction manager.
 */
import { DmError } from '../../base/error.ts';
import type { ReadView, WriteView } from '../../base/struct.ts';
import { asBlockNr } from '../block.ts';
import type { TransactionManager } from '../transaction-manager.ts';
import { TreeIndexStore } from './index-store.ts';
import { smRoot } from './layout.ts';
import { LowLevelMap, type BlockFilter, type OldView } from './low-level.ts';
import type { SpaceMap } from './space-map.ts';

declare const brand: unique symbol;

/** Number of a block of the data device. */
export type DataBlock = number & { readonly [brand]: 'data block' };

/** Where a data block number is read from a disk structure or counted up: the only casts. */
export const asDataBlock = (n: number): DataBlock => n as DataBlock;

export class DiskSpaceMap implements SpaceMap<DataBlock> {
  readonly #map: LowLevelMap;
  #old: OldView;
  /** Where the next search begins: one past the last block handed out. */
  #begin = 0;

  private constructor(map: LowLevelMap) {
    this.#map = map;
    this.#map.index.commit();
    this.#old = map.oldView();
  }

  /** A new map of `nrBlocks` blocks, all free. */
  static create(tm: TransactionManager, nrBlocks: number): DiskSpaceMap {
    const map = LowLevelMap.create(tm, TreeIndexStore.create(tm));
    map.extend(nrBlocks);
    return new DiskSpaceMap(map);
  }

  /** The map whose root record is at `offset` of the owner's superblock. */
  static open(tm: TransactionManager, view: ReadView, offset: number): DiskSpaceMap {
    const index = TreeIndexStore.open(tm, asBlockNr(smRoot.bitmapRoot.get(view, offset)));
    return new DiskSpaceMap(
      LowLevelMap.open(tm, index, {
        nrBlocks: smRoot.nrBlocks.get(view, offset),
        nrAllocated: smRoot.nrAllocated.get(view, offset),
        refCountRoot: asBlockNr(smRoot.refCountRoot.get(view, offset)),
      }),
    );
  }

  get nrBlocks(): number {
    return this.#map.nrBlocks;
  }

  /** Blocks managed at the last commit: what the status line shows. */
  get nrBlocksCommitted(): number {
    return this.#old.nrBlocks;
  }

  /**
   * Blocks freed since the last commit count as free at once, though they cannot be had before it.
   */
  get nrFree(): number {
    return this.#old.nrBlocks - this.#map.nrAllocated;
  }

  count(block: DataBlock): number {
    return this.#map.count(block);
  }

  isFree(block: DataBlock): boolean {
    return this.#map.bitmapCount(block) === 0;
  }

  countIsMoreThanOne(block: DataBlock): boolean {
    return this.#map.bitmapCount(block) > 1;
  }

  inc(begin: number, end: number): void {
    this.#map.inc(begin, end);
  }

  dec(begin: number, end: number): void {
    this.#map.dec(begin, end);
  }

  /**
   * Finds a block that is free now, was free at the last commit and is not in `skip`, without
   * taking it; the next search begins behind it. Throws ENOSPC.
   */
  findFree(skip?: BlockFilter): DataBlock {
    let found = this.#map.findCommonFree(this.#old, this.#begin, this.#map.nrBlocks, skip);
    if (found < 0) found = this.#map.findCommonFree(this.#old, 0, this.#begin, skip);
    if (found < 0) throw new DmError('ENOSPC', 'no free data block');
    this.#begin = found + 1;
    return asDataBlock(found);
  }

  newBlock(): DataBlock {
    const block = this.findFree();
    this.#map.inc(block, block + 1);
    return block;
  }

  extend(extra: number): void {
    this.#map.extend(extra);
  }

  commit(): void {
    this.#map.index.commit();
    this.#old = this.#map.oldView();
  }

  writeRoot(view: WriteView, offset: number): void {
    this.#map.writeRoot(view, offset);
  }
}
