/**
 * Loading: what a cache table does before it is first resumed: checks, resizing, mappings, discards
 * (spec: cache, 6 and 14). Answers to cache_preresume in drivers/md/dm-cache-target.c.
 *
 * Each step is done once per table. What a crash in between leaves: the metadata of before, or with
 * its new size; nothing here is committed but the mark that the cache is in use.
 */
import { codeOf, DmError } from '../../base/error.ts';
import { errnoName } from '../../base/errno.ts';
import type { BlockDevice } from '../../block/device.ts';
import { MetadataOperationError } from '../../persistent-data/operation-error.ts';
import type { Cache } from './cache.ts';
import { IoMode } from './features.ts';

interface Mapping {
  readonly oblock: number;
  readonly cblock: number;
  readonly isDirty: boolean;
  readonly hint: number | null;
}

export class Loading {
  readonly #cache: Cache;
  readonly #fast: BlockDevice;
  #isSized = false;
  #hasMappings = false;
  #hasDiscards = false;
  #isMarkInDoubt = false;

  constructor(cache: Cache, fast: BlockDevice) {
    this.#cache = cache;
    this.#fast = fast;
  }

  /** Rejects with DmError to refuse the resume. */
  async resume(): Promise<void> {
    const { metadata } = this.#cache;
    // The table before this one may have failed: then needs_check is being written.
    while (metadata.isCommitting) await metadata.whenIdle();
    this.#checkResumable();
    this.#resize();
    if (!this.#hasMappings) this.#loadMappings();
    if (!this.#hasDiscards) this.#loadDiscards();
    // Before any I/O is let in: from now on the dirty bits on disk are worth nothing.
    if (!this.#cache.kernelQuirks) await this.#markInUse();
  }

  #refuse(text: string, errno: 'EINVAL' | 'EBUSY' | 'EFBIG' = 'EINVAL'): DmError {
    this.#cache.log('error', text);
    return new DmError(errno, text);
  }

  #checkResumable(): void {
    const { isWriteable, features, metadata } = this.#cache;
    if (this.#isSized && !this.#hasMappings) {
      throw this.#refuse(
        isWriteable
          ? 'unable to resume cache due to missing proper cache table reload'
          : 'unable to resume a failed-loaded cache, please check metadata.',
      );
    }
    if (features.ioMode !== IoMode.PASSTHROUGH) return;
    let cleanWhenOpened: boolean;
    try {
      ({ cleanWhenOpened } = metadata);
    } catch (error) {
      codeOf(error);
      throw this.#refuse('failed to query metadata flags');
    }
    if (!cleanWhenOpened) {
      throw this.#refuse('unable to resume into passthrough mode after unclean shutdown');
    }
  }

  // --- size

  #resize(): void {
    const cache = this.#cache;
    this.#fast.refreshSize();
    const nrBlocks = Math.floor(this.#fast.sizeSectors / cache.blockSectors);
    if (this.#isSized && nrBlocks === cache.nrCacheBlocks) return;
    this.#checkSize(nrBlocks);
    try {
      cache.metadata.resize(nrBlocks);
    } catch (error) {
      cache.log('error', 'could not resize cache metadata');
      cache.operationFailed(error);
      throw error;
    }
    cache.resizeDirty(nrBlocks);
    this.#isSized = true;
  }

  #checkSize(nrBlocks: number): void {
    const cache = this.#cache;
    if (nrBlocks > cache.nrCacheBlocks) {
      throw this.#refuse('unable to extend cache due to missing cache table reload');
    }
    if (!this.#hasMappings || nrBlocks === cache.nrCacheBlocks) return;
    const dirty = cache.firstDirty(nrBlocks);
    if (dirty >= 0) throw this.#refuse(`unable to shrink cache; cache block ${dirty} is dirty`);
    // The policy would go on with blocks that are no more.
    if (!cache.kernelQuirks) {
      throw this.#refuse('unable to shrink cache due to missing cache table reload');
    }
  }

  // --- mappings

  #loadMappings(): void {
    const cache = this.#cache;
    const { metadata, policy, nrOriginBlocks } = cache;
    const mappings: Mapping[] = [];
    try {
      metadata.loadMappings(policy, (oblock, cblock, isDirty, hint) => {
        if (isDirty) this.#checkDirty(oblock, cblock);
        mappings.push({ oblock, cblock, isDirty, hint });
      });
    } catch (error) {
      cache.log('error', 'could not load cache mappings');
      if (error instanceof MetadataOperationError) cache.operationFailed(error);
      throw error;
    }
    try {
      for (const { oblock, cblock } of mappings) {
        if (oblock >= nrOriginBlocks) metadata.removeMapping(cblock);
      }
    } catch (error) {
      cache.operationFailed(error);
      throw error;
    }
    for (const { oblock, cblock, isDirty, hint } of mappings) {
      if (oblock >= nrOriginBlocks) continue;
      policy.loadMapping(oblock, cblock, isDirty, hint);
      if (isDirty) cache.loadDirty(cblock);
    }
    cache.isAfterCrash = !metadata.cleanWhenOpened && !cache.kernelQuirks;
    this.#hasMappings = true;
  }

  /** Throws if a dirty block cannot be had in this table. */
  #checkDirty(oblock: number, cblock: number): void {
    const { features, nrOriginBlocks } = this.#cache;
    if (oblock >= nrOriginBlocks) {
      throw this.#refuse(`unable to shrink origin; cache block ${cblock} is dirty`, 'EFBIG');
    }
    if (features.ioMode === IoMode.PASSTHROUGH) {
      throw this.#refuse('cannot enter passthrough mode unless all blocks are clean', 'EBUSY');
    }
  }

  // --- discards

  #loadDiscards(): void {
    const cache = this.#cache;
    const { metadata, discards } = cache;
    try {
      const blockSectors = metadata.discardBlockSize;
      metadata.loadDiscards((begin, end) => discards.addRun(begin, end, blockSectors));
    } catch (error) {
      cache.log('error', 'could not load origin discards');
      cache.operationFailed(error);
      throw error;
    }
    this.#hasDiscards = true;
  }

  async #markInUse(): Promise<void> {
    if (!this.#cache.metadata.isMarkedClean && !this.#isMarkInDoubt) return;
    const status = await this.#cache.commit(false);
    // A failed flush leaves the mark or not: with it a crash would lose what is written now.
    this.#isMarkInDoubt = status !== 0;
    if (status !== 0) throw new DmError(errnoName(status), 'could not mark the cache as in use');
  }
}
