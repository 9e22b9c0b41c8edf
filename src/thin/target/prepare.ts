/**
 * Preparing the content of new blocks: by zeroing, copying, or letting a whole-block write through;
 * and inserting the mapping afterwards. Answers to schedule_zero, schedule_copy and
 * process_prepared_mapping in drivers/md/dm-thin.c (spec: thin, 8.4 to 8.6).
 */
import { errno } from '../../base/errno.ts';
import { BioOp, type Bio } from '../../block/bio.ts';
import { zeroRange } from '../../block/copy.ts';
import type { BlockDevice } from '../../block/device.ts';
import type { DataBlock } from '../../persistent-data/space-map/disk.ts';
import type { Cell } from './cells.ts';
import { PoolMode } from './modes.ts';
import { NewMapping } from './new-mapping.ts';
import type { Pool } from './pool.ts';
import type { ThinTarget } from './thin-target.ts';

export class Preparer {
  readonly #pool: Pool;
  readonly #prepared: (mapping: NewMapping) => void;

  /** `prepared` is called with each mapping whose block is ready, or failed. */
  constructor(pool: Pool, prepared: (mapping: NewMapping) => void) {
    this.#pool = pool;
    this.#prepared = prepared;
  }

  /**
   * A new block without old content: zeroed unless the pool skips that or `bio` writes all of it.
   */
  zero(thin: ThinTarget, virtBlock: number, dataBlock: DataBlock, cell: Cell, bio: Bio): void {
    const mapping = new NewMapping(thin, virtBlock, dataBlock, cell, 1);
    if (!this.#pool.features.zeroNewBlocks) this.insert(mapping);
    else if (this.#overwrites(bio)) this.#overwrite(mapping, bio);
    else this.#zeroFrom(mapping, 0);
  }

  /** A private copy of a shared block, made while earlier reads of it finish. */
  copyShared(
    thin: ThinTarget,
    virtBlock: number,
    oldBlock: number,
    dataBlock: DataBlock,
    cell: Cell,
    bio: Bio,
  ): void {
    const mapping = new NewMapping(thin, virtBlock, dataBlock, cell, 2);
    if (!this.#pool.worker.sharedReads.add(mapping)) mapping.nrActions--;
    if (this.#overwrites(bio)) this.#overwrite(mapping, bio);
    else {
      const from = { device: this.#pool.device, sector: this.#pool.sectorOf(oldBlock) };
      this.#copy(mapping, from, this.#pool.sectorsPerBlock);
    }
  }

  /** A new block with the external origin's content, as far as the origin reaches. */
  copyExternal(
    thin: ThinTarget,
    virtBlock: number,
    dataBlock: DataBlock,
    cell: Cell,
    bio: Bio,
    origin: { device: BlockDevice; sizeSectors: number },
  ): void {
    const { sectorsPerBlock, features } = this.#pool;
    const begin = virtBlock * sectorsPerBlock;
    const length = Math.min(origin.sizeSectors - begin, sectorsPerBlock);
    if (length <= 0) {
      this.zero(thin, virtBlock, dataBlock, cell, bio);
      return;
    }
    const mapping = new NewMapping(thin, virtBlock, dataBlock, cell, 1);
    if (this.#overwrites(bio)) {
      this.#overwrite(mapping, bio);
      return;
    }
    const zeroRest = length < sectorsPerBlock && features.zeroNewBlocks;
    if (zeroRest) mapping.nrActions++;
    this.#copy(mapping, { device: origin.device, sector: begin }, length);
    if (zeroRest) this.#zeroFrom(mapping, length);
  }

  #overwrites(bio: Bio): boolean {
    return bio.op === BioOp.WRITE && bio.nrSectors === this.#pool.sectorsPerBlock;
  }

  /** Sends the write to the new block first; its completion waits for the mapping. */
  #overwrite(mapping: NewMapping, bio: Bio): void {
    mapping.overwrite = bio;
    mapping.overwriteEnd = bio.onEnd;
    bio.onEnd = (ended) => {
      bio.onEnd = mapping.overwriteEnd as (bio: Bio) => void;
      this.actionDone(mapping, ended.status);
    };
    mapping.thin.enterAllIo(bio);
    mapping.thin.remap(bio, mapping.dataBlock);
    // Not through `issue`: with FUA it is the completion that waits for the commit, not the write.
    (bio.device as BlockDevice).submit(bio);
  }

  #copy(mapping: NewMapping, from: { device: BlockDevice; sector: number }, length: number): void {
    const to = { device: this.#pool.device, sector: this.#pool.sectorOf(mapping.dataBlock) };
    this.#pool.copier.copy(from, to, length, (status) => this.actionDone(mapping, status));
  }

  /** Zeroes the block from its sector `offset` to its end. */
  #zeroFrom(mapping: NewMapping, offset: number): void {
    const sector = this.#pool.sectorOf(mapping.dataBlock) + offset;
    const length = this.#pool.sectorsPerBlock - offset;
    const { device } = this.#pool;
    zeroRange(device, sector, length, 0, (status) => this.actionDone(mapping, status));
  }

  /** One preparation has ended. */
  actionDone(mapping: NewMapping, status: number): void {
    if (status !== 0 && mapping.status === 0) mapping.status = status;
    if (--mapping.nrActions === 0) this.#prepared(mapping);
  }

  /** Inserts a prepared mapping and lets the I/O of its cell go on; only while no commit runs. */
  insert(mapping: NewMapping): void {
    const { thin, cell, overwrite } = mapping;
    if (mapping.status !== 0 || this.#pool.mode > PoolMode.OUT_OF_DATA_SPACE) {
      this.#fail(mapping);
      return;
    }
    try {
      this.#pool.metadata.insertBlock(thin.device, mapping.virtBlock, mapping.dataBlock);
    } catch (error) {
      this.#pool.operationFailed(error);
      thin.failCell(cell, errno.EIO);
      return;
    }
    if (overwrite !== null) {
      thin.issueWaiting(cell, mapping.dataBlock);
      this.#completeOverwrite(thin, overwrite);
    } else {
      thin.issueCell(cell, mapping.dataBlock);
    }
  }

  /**
   * A preparation failed: the I/O of the cell fails, the block stays free. (The kernel leaves it
   * allocated for good; see docs/differences.md.)
   */
  #fail(mapping: NewMapping): void {
    this.#pool.metadata.releaseDataBlock(mapping.dataBlock);
    mapping.thin.failCell(mapping.cell, errno.EIO);
  }

  /**
   * The write is on the disk and mapped; with FUA it is acknowledged after the commit that maps it.
   */
  #completeOverwrite(thin: ThinTarget, bio: Bio): void {
    if (!thin.triggersCommit(bio)) bio.end(0);
    else if (thin.device.abortedWithChanges) bio.end(errno.EIO);
    else this.#pool.worker.commitThenEnd(bio);
  }
}
