/**
 * CellProcessor: what becomes of the bio that holds a virtual block, and of those that wait for it.
 * Answers to process_cell and its variants by mode in drivers/md/dm-thin.c (spec: thin, 8.3).
 */
import type { DmError } from '../../base/error.ts';
import { codeOf } from '../../base/error.ts';
import { errno } from '../../base/errno.ts';
import { BioOp, STATUS_REQUEUE, type Bio } from '../../block/bio.ts';
import { makeMapping, type Mapping } from '../metadata/thin-device.ts';
import { MetadataOperationError } from '../../persistent-data/operation-error.ts';
import type { DataBlock } from '../../persistent-data/space-map/disk.ts';
import type { Cell } from './cells.ts';
import { PoolMode } from './modes.ts';
import type { Pool } from './pool.ts';
import type { Preparer } from './prepare.ts';
import type { ThinTarget } from './thin-target.ts';

/** `allocate` wants a commit first. */
const COMMIT_FIRST = 'commit first';

export class CellProcessor {
  readonly #pool: Pool;
  readonly #preparer: Preparer;
  readonly #found: Mapping = makeMapping();

  constructor(pool: Pool, preparer: Preparer) {
    this.#pool = pool;
    this.#preparer = preparer;
  }

  /**
   * Deals with a held virtual block. False, and nothing done, if there is no free data block and a
   * commit might free some: only with `mayAskForCommit`.
   */
  process(thin: ThinTarget, cell: Cell, mayAskForCommit: boolean): boolean {
    const bio = cell.holder as Bio;
    if (thin.requeueMode) {
      thin.failCell(cell, STATUS_REQUEUE);
      return true;
    }
    if (this.#pool.mode === PoolMode.FAIL) {
      thin.failCell(cell, errno.EIO);
      return true;
    }
    let mapped: boolean;
    try {
      mapped = this.#pool.metadata.lookup(thin.device, cell.begin, this.#found);
    } catch (error) {
      this.#pool.lookupFailed(error);
      thin.deferWaiting(cell);
      bio.end(errno.EIO);
      return true;
    }
    const writable = this.#pool.mode === PoolMode.WRITE;
    if (!mapped) return this.#unmapped(thin, cell, bio, writable, mayAskForCommit);
    if (this.#found.shared) return this.#shared(thin, cell, bio, writable, mayAskForCommit);
    thin.issueCell(cell, this.#found.block);
    return true;
  }

  #unmapped(
    thin: ThinTarget,
    cell: Cell,
    bio: Bio,
    writable: boolean,
    mayAskForCommit: boolean,
  ): boolean {
    if (bio.op === BioOp.READ) {
      thin.deferWaiting(cell);
      thin.readUnmapped(bio);
      return true;
    }
    if (!writable) {
      thin.deferWaiting(cell);
      this.#refuse(thin, bio);
      return true;
    }
    const block = this.#allocate(thin, cell, 'provision_block', mayAskForCommit);
    if (block === COMMIT_FIRST) return false;
    if (block === null) return true;
    const { origin } = thin;
    if (origin === null) this.#preparer.zero(thin, cell.begin, block, cell, bio);
    else this.#preparer.copyExternal(thin, cell.begin, block, cell, bio, origin);
    return true;
  }

  #shared(
    thin: ThinTarget,
    cell: Cell,
    bio: Bio,
    writable: boolean,
    mayAskForCommit: boolean,
  ): boolean {
    const oldBlock = this.#found.block;
    const held = thin.cells.physical.heldAt(oldBlock);
    if (held !== null) {
      held.waiting.push(bio);
      thin.deferWaiting(cell);
      return true;
    }
    if (bio.op === BioOp.READ) {
      thin.issueSharedRead(bio, oldBlock);
      for (const waiting of cell.waiting.drain()) {
        if (waiting.op === BioOp.READ) thin.issueSharedRead(waiting, oldBlock);
        else thin.defer(waiting);
      }
      cell.release();
      return true;
    }
    if (!writable) {
      thin.deferWaiting(cell);
      this.#refuse(thin, bio);
      return true;
    }
    const block = this.#allocate(thin, cell, 'break_sharing', mayAskForCommit);
    if (block === COMMIT_FIRST) return false;
    if (block === null) return true;
    // Later I/O of this device to the block finds the old mapping and joins the physical cell.
    const physical = thin.cells.physical.hold(oldBlock, oldBlock + 1, bio);
    const virtBlock = cell.begin;
    thin.deferWaiting(cell);
    this.#preparer.copyShared(thin, virtBlock, oldBlock, block, physical, bio);
    return true;
  }

  /** A write that needs a new block when there can be none: waits for space, or fails. */
  #refuse(thin: ThinTarget, bio: Bio): void {
    const status = this.#pool.unserviceableStatus();
    if (status === 0) thin.queueForSpace(bio);
    else bio.end(status);
  }

  /**
   * A data block for the cell's bio. Null if there is none: the bios of the cell have been queued
   * or failed.
   */
  #allocate(
    thin: ThinTarget,
    cell: Cell,
    caller: string,
    mayAskForCommit: boolean,
  ): DataBlock | typeof COMMIT_FIRST | null {
    const { metadata } = this.#pool;
    const nrFree = metadata.nrFreeDataBlocks;
    this.#pool.checkLowWater(nrFree);
    if (nrFree <= 0 && mayAskForCommit) return COMMIT_FIRST;
    try {
      if (nrFree > 0) return metadata.reserveDataBlock();
    } catch (error) {
      if (codeOf(error) !== errno.ENOSPC) return this.#allocationFailed(thin, cell, caller, error);
    }
    this.#pool.setMode(PoolMode.OUT_OF_DATA_SPACE);
    for (const bio of thin.takeCell(cell)) this.#refuse(thin, bio);
    return null;
  }

  #allocationFailed(thin: ThinTarget, cell: Cell, caller: string, error: unknown): null {
    const cause = error as DmError;
    const failure = new MetadataOperationError('dm_pool_alloc_data_block', cause);
    this.#pool.operationFailed(failure);
    const text = `${caller}: alloc_data_block() failed: error = -${cause.code}`;
    this.#pool.logPlain('error', text);
    thin.failCell(cell, errno.EIO);
    return null;
  }
}
