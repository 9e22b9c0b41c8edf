/**
 * CacheMetadata: every operation on a cache's metadata. Answers to
 * drivers/md/dm-cache-metadata.c and struct dm_cache_metadata (spec: cache, 2 to 7).
 *
 * Operations are synchronous; only `open` and `commit` are not. One that fails throws
 * MetadataOperationError: the transaction must then be aborted.
 *
 * What a crash leaves: the mappings of the last commit. Dirty bits, hints and discards go with them
 *   only if that was a clean shutdown; else every block counts as dirty.
 * Does not: move data, or know tables, modes, policies and bios.
 */
import { DmError } from '../../base/error.ts';
import type { Log } from '../../base/log.ts';
import type { BlockDevice } from '../../block/device.ts';
import type { HintReader } from './hint-array.ts';
import { VALID } from './mapping.ts';
import type { Structures } from './structures.ts';
import type { HitCounters, PolicyIdentity } from './superblock.ts';
import { CacheTransaction, type OpenOptions } from './transaction.ts';

/** Sees a mapping. It may refuse it by throwing a DmError. */
export type LoadVisitor = (
  oblock: number,
  cblock: number,
  isDirty: boolean,
  hint: number | null,
) => void;

/** A LoadVisitor's refusal on its way through the walk. */
class Refusal extends Error {
  constructor(cause: DmError) {
    super(cause.message, { cause });
  }
}

/** Refusals that say nothing about the metadata (spec: cache, 6). */
const HARMLESS_REFUSALS: readonly string[] = ['EFBIG', 'EBUSY'];

export class CacheMetadata extends CacheTransaction {
  readonly #kernelQuirks: boolean;

  private constructor(device: BlockDevice, log: Log, options: OpenOptions) {
    super(device, log, options);
    this.#kernelQuirks = options.kernelQuirks ?? false;
  }

  /**
   * Opens the metadata on `device`, formatting it first if allowed and needed, and takes the mark
   * of a clean shutdown off it unless told to keep it. Rejects with DmError: EPERM, ENOTBLK,
   * EILSEQ, EINVAL, ENOSPC, EIO; the log says why.
   */
  static async open(device: BlockDevice, log: Log, options: OpenOptions): Promise<CacheMetadata> {
    const metadata = new CacheMetadata(device, log, options);
    await metadata.openDevice(options);
    return metadata;
  }

  /** Throws EINVAL, and logs why, unless `dataBlockSize` is that of the metadata. */
  checkDataBlockSize(dataBlockSize: number): void {
    if (dataBlockSize === this.dataBlockSize) return;
    const difference = `different from that in metadata (${this.dataBlockSize})`;
    throw this.refuse(`data_block_size (${dataBlockSize}) ${difference}`);
  }

  get nrMetadataBlocks(): number {
    return this.structures.metadataSm.nrBlocks;
  }

  get nrFreeMetadataBlocks(): number {
    return this.structures.metadataSm.nrFree;
  }

  /** Counters as of the last clean shutdown. */
  get counters(): HitCounters {
    return this.storedCounters;
  }

  /** Stores counters for the next commit; that alone is no change that asks for one. */
  setCounters(counters: HitCounters): void {
    const { readHits, readMisses, writeHits, writeMisses } = counters;
    this.storedCounters = { readHits, readMisses, writeHits, writeMisses };
  }

  // --- mappings

  get nrCacheBlocks(): number {
    return this.structures.mappings.length;
  }

  /** Changes the number of cblocks. Those that go must be clean, or it fails with EINVAL. */
  resize(nrCacheBlocks: number): void {
    this.change('dm_cache_resize', (s) => {
      const old = s.mappings.length;
      if (nrCacheBlocks < old) this.#checkClean(s, nrCacheBlocks, old);
      s.mappings.resize(nrCacheBlocks);
      s.dirty.resize(old, nrCacheBlocks);
      this.touch();
    });
  }

  #checkClean(s: Structures, begin: number, end: number): void {
    const dirty = this.#firstDirty(s, begin, end);
    if (dirty < 0) return;
    s.dirty.complain(this.log, dirty);
    throw this.refuse('unable to shrink cache due to dirty blocks');
  }

  /** After an unclean shutdown dirty bits are out of date: any mapped block may be dirty. */
  #firstDirty(s: Structures, begin: number, end: number): number {
    if (this.isDirtyStateKnown || this.#kernelQuirks) return s.dirty.firstDirty(begin, end);
    return s.mappings.firstWith(VALID, begin, end);
  }

  /** Makes `cblock` hold `oblock`. */
  insertMapping(cblock: number, oblock: number): void {
    this.change('dm_cache_insert_mapping', (s) => {
      s.mappings.set(cblock, oblock, VALID);
      this.touch();
    });
  }

  /** Makes `cblock` hold nothing. */
  removeMapping(cblock: number): void {
    this.change('dm_cache_remove_mapping', (s) => {
      s.mappings.set(cblock, 0, 0);
      this.touch();
    });
  }

  /**
   * Shows all mappings in the order of cblocks. All are dirty, and none has a hint, if the metadata
   * was not clean when opened. The visitor must not change the metadata. If it refuses a mapping
   * with EFBIG or EBUSY, that error comes through: it is no failure of the metadata.
   */
  loadMappings(policy: PolicyIdentity, visit: LoadVisitor): void {
    const isClean = this.cleanWhenOpened;
    try {
      this.load('dm_cache_load_mappings', (s) => {
        if (s.mappings.length === 0) return;
        const hintOf = this.#usableHints(s, policy);
        const dirtyOf = s.dirty.reader();
        s.mappings.walk((cblock, oblock, flags) => {
          const hint = hintOf(cblock);
          const isDirty = dirtyOf(cblock, flags) || !isClean;
          if ((flags & VALID) !== 0) this.#show(visit, oblock, cblock, isDirty, hint);
        });
      });
    } catch (error) {
      throw error instanceof Refusal ? error.cause : error;
    }
  }

  #show(visit: LoadVisitor, ...mapping: Parameters<LoadVisitor>): void {
    try {
      visit(...mapping);
    } catch (error) {
      this.log.write('error', `cache metadata: policy couldn't load cache block ${mapping[1]}`);
      const isHarmless = error instanceof DmError && HARMLESS_REFUSALS.includes(error.errno);
      throw isHarmless ? new Refusal(error) : error;
    }
  }

  /** Hints that another policy, or another major version, has left are of no use. */
  #usableHints(s: Structures, policy: PolicyIdentity): HintReader {
    const { name, version, hintSize } = this.policy;
    const fits =
      name === policy.name && version[0] === policy.version[0] && hintSize === policy.hintSize;
    if (!this.cleanWhenOpened || !fits || s.hints.isEmpty) return () => null;
    return s.hints.reader();
  }

  // --- what a clean shutdown leaves

  /** Whether no cblock is dirty by the bits on the disk, which are right after a clean shutdown. */
  get isAllClean(): boolean {
    const { dirty, mappings } = this.structures;
    return dirty.firstDirty(0, mappings.length) < 0;
  }

  /** Writes the dirty state of all cblocks. */
  setDirtyBits(isDirty: (cblock: number) => boolean): void {
    this.change('dm_cache_set_dirty_bits', (s) => {
      s.dirty.write(isDirty);
      this.touch();
    });
  }

  /** Writes the policy's hints for all cblocks; that alone is no change that asks for a commit. */
  writeHints(policy: PolicyIdentity, hintOf: (cblock: number) => number): void {
    this.change('dm_cache_write_hints', (s) => {
      const { name, version, hintSize } = policy;
      s.hints.write(s.mappings.length, hintSize, hintOf);
      this.policy = { name, version, hintSize };
    });
  }

  /** Of the discard bits on the disk, in sectors; 0 before the first clean shutdown. */
  get discardBlockSize(): number {
    return this.structures.discards.blockSize;
  }

  /** Of the discard bits on the disk. */
  get nrDiscardBlocks(): number {
    return this.structures.discards.nrBlocks;
  }

  /**
   * Shows each run `[begin, end)` of discarded blocks, in units of `discardBlockSize`; none if the
   * metadata was not clean when opened.
   */
  loadDiscards(visit: (begin: number, end: number) => void): void {
    const isClean = this.cleanWhenOpened;
    this.load('dm_cache_load_discards', (s) => {
      if (isClean) s.discards.eachRun(visit);
    });
  }

  /** Writes the discard state of all `nrBlocks` blocks of `blockSize` sectors. */
  setDiscards(blockSize: number, nrBlocks: number, isDiscarded: (dblock: number) => boolean): void {
    this.change('dm_cache_discard_bitset_resize', (s) => {
      s.discards.resize(blockSize, nrBlocks);
      this.touch();
    });
    this.change('dm_cache_set_discard', (s) => s.discards.write(isDiscarded));
  }
}
