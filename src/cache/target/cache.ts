/**
 * Cache: what a cache table and all its parts share: devices, metadata, policy, dirty and discarded
 * blocks, mode, commits. Answers to struct cache in drivers/md/dm-cache-target.c (spec: cache, 4,
 * 7 and 13).
 *
 * Durability, where the kernel's order loses data (spec: cache, 18; docs/differences.md): before
 * each commit the fast device is flushed if mappings to new data were made, and the origin if data
 * was written back to it since the last flush of it here.
 * Does not: map bios (see cache-target.ts) or move blocks (see migrations.ts).
 */
import { codeOf } from '../../base/error.ts';
import { errno } from '../../base/errno.ts';
import type { Bio } from '../../block/bio.ts';
import { flushDevice, type BlockDevice } from '../../block/device.ts';
import type { TargetContext, UsedDevice } from '../../mapper/target.ts';
import { MetadataOperationError } from '../../persistent-data/operation-error.ts';
import type { CacheMetadata } from '../metadata/cache-metadata.ts';
import type { Policy } from '../policy/policy.ts';
import { BlockLocks } from './block-locks.ts';
import { Committer } from './committer.ts';
import { DiscardSet } from './discard-set.ts';
import { IoMode, type CacheFeatures } from './features.ts';
import { IoTracker } from './io-tracker.ts';
import { CacheMode, logWord } from './modes.ts';
import { Statistics } from './statistics.ts';

export interface CacheDevices {
  readonly metadata: UsedDevice;
  readonly fast: UsedDevice;
  readonly origin: UsedDevice;
}

export interface CacheOptions {
  readonly context: TargetContext;
  readonly devices: CacheDevices;
  readonly metadata: CacheMetadata;
  readonly policy: Policy;
  readonly features: CacheFeatures;
  readonly blockSectors: number;
  readonly nrCacheBlocks: number;
  readonly migrationThreshold: bigint;
  /** Do as the kernel does where it loses data. */
  readonly kernelQuirks: boolean;
}

export class Cache {
  readonly context: TargetContext;
  readonly fast: BlockDevice;
  readonly origin: BlockDevice;
  readonly metadata: CacheMetadata;
  readonly policy: Policy;
  readonly features: CacheFeatures;
  readonly blockSectors: number;
  /** Whole blocks of the target. */
  readonly nrOriginBlocks: number;
  /** Blocks of the fast device, as the table has it. */
  nrCacheBlocks: number;
  readonly kernelQuirks: boolean;
  readonly locks = new BlockLocks();
  readonly originIo: IoTracker;
  readonly committer: Committer;
  readonly discards: DiscardSet;
  readonly statistics = new Statistics();
  /**
   * Every block was loaded as dirty, because nobody knows better. In writethrough mode the origin
   * gets what is written to them all the same (but not with `kernelQuirks`).
   */
  isAfterCrash = false;
  /** In sectors. */
  migrationThreshold: bigint;
  #dirty: Uint8Array;
  #nrDirty = 0;
  #mode: CacheMode = CacheMode.WRITE;
  /** New mappings lead to data on the fast device that is not flushed. */
  #isFastBehind = false;
  /** Data was written back that is not flushed. */
  #isOriginBehind = false;

  constructor(options: CacheOptions) {
    const { context, devices, blockSectors } = options;
    this.context = context;
    this.fast = devices.fast.device;
    this.origin = devices.origin.device;
    this.metadata = options.metadata;
    this.policy = options.policy;
    this.features = options.features;
    if (this.features.ioMode === IoMode.PASSTHROUGH) this.policy.allowMigrations(false);
    this.blockSectors = blockSectors;
    this.nrCacheBlocks = options.nrCacheBlocks;
    this.nrOriginBlocks = Math.floor(context.length / blockSectors);
    this.kernelQuirks = options.kernelQuirks;
    this.migrationThreshold = options.migrationThreshold;
    this.originIo = new IoTracker(context.clock);
    this.discards = new DiscardSet(blockSectors, context.length);
    this.#dirty = new Uint8Array(options.nrCacheBlocks);
    this.committer = new Committer(
      context.clock,
      () => this.commitIfChanged(),
      (bio) => this.issue(bio),
    );
  }

  /** A line in the kernel's log, with the device's number. */
  log(level: 'error' | 'warn' | 'info', text: string): void {
    this.context.log.write(level, `cache: ${this.context.owner.number}: ${text}`);
  }

  /** Sends on a bio that is mapped already. */
  issue(bio: Bio): void {
    (bio.device as BlockDevice).submit(bio);
  }

  // --- dirty blocks

  get nrDirty(): number {
    return this.#nrDirty;
  }

  isDirty(cblock: number): boolean {
    return this.#dirty[cblock] === 1;
  }

  /** Hot path. */
  setDirty(cblock: number): void {
    if (this.#dirty[cblock] === 0) {
      this.#dirty[cblock] = 1;
      this.#nrDirty++;
    }
    this.policy.setDirty(cblock);
  }

  /** The block was written back, or is gone. */
  forceClean(cblock: number): void {
    this.policy.clearDirty(cblock);
    if (this.#dirty[cblock] === 0) return;
    this.#dirty[cblock] = 0;
    if (--this.#nrDirty === 0) this.context.owner.events.raise();
  }

  /** A block as the metadata has it; the policy hears of it by itself. */
  loadDirty(cblock: number): void {
    this.#dirty[cblock] = 1;
    this.#nrDirty++;
  }

  /** The first dirty block from `begin` on; -1 if there is none. */
  firstDirty(begin: number): number {
    return this.#dirty.indexOf(1, begin);
  }

  resizeDirty(nrCacheBlocks: number): void {
    const dirty = new Uint8Array(nrCacheBlocks);
    dirty.set(this.#dirty.subarray(0, nrCacheBlocks));
    this.#dirty = dirty;
    this.nrCacheBlocks = nrCacheBlocks;
  }

  // --- modes

  get mode(): CacheMode {
    return this.#mode;
  }

  get hasFailed(): boolean {
    return this.#mode === CacheMode.FAIL;
  }

  get isWriteable(): boolean {
    return this.#mode === CacheMode.WRITE;
  }

  setMode(wanted: CacheMode): void {
    const old = this.#mode;
    let mode = wanted;
    if (this.metadata.hasFailed) {
      this.log('error', 'unable to read needs_check flag, setting failure mode.');
      mode = CacheMode.FAIL;
    } else if (wanted === CacheMode.WRITE && this.metadata.needsCheck) {
      this.log('error', 'unable to switch cache to write mode until repaired.');
      mode = old === CacheMode.FAIL ? old : CacheMode.READ_ONLY;
    }
    if (old === CacheMode.FAIL) mode = CacheMode.FAIL;
    this.metadata.setReadOnly(mode !== CacheMode.WRITE);
    this.#mode = mode;
    if (mode === old) return;
    this.context.owner.events.raise();
    this.log('info', `switching cache to ${logWord[mode]} mode`);
  }

  /**
   * A metadata operation failed half-way: rolls back, sets needs_check, goes read-only (spec:
   * cache, 7). Returns the errno number. Anything but a MetadataOperationError is our bug and
   * passes through.
   */
  operationFailed(error: unknown): number {
    if (!(error instanceof MetadataOperationError)) throw error;
    this.log('error', `metadata operation '${error.operation}' failed: error = -${error.code}`);
    if (this.isWriteable) this.#abort();
    this.setMode(CacheMode.READ_ONLY);
    return error.code;
  }

  #abort(): void {
    this.log('error', 'aborting current metadata transaction');
    try {
      this.metadata.abort();
    } catch (error) {
      codeOf(error);
      this.log('error', 'failed to abort metadata transaction');
      this.setMode(CacheMode.FAIL);
    }
    try {
      void this.metadata.setNeedsCheck();
    } catch (error) {
      codeOf(error);
      this.log('error', "failed to set 'needs_check' flag in metadata");
      this.setMode(CacheMode.FAIL);
    }
  }

  /** Something of ours threw where nothing may: nothing is trusted any more. */
  bug(error: unknown): void {
    const { stack = String(error) } = error as Error;
    this.log('error', `bug: ${stack}`);
    this.setMode(CacheMode.FAIL);
  }

  // --- commits

  /** A mapping to data that was just written to the fast device has been made. */
  fastWritten(): void {
    this.#isFastBehind = true;
  }

  /** Data of the fast device has been written back. */
  originWritten(): void {
    this.#isOriginBehind = true;
  }

  /** Before anything of the metadata is written. */
  async #flushBehind(): Promise<void> {
    if (this.kernelQuirks) return;
    const isFastBehind = this.#isFastBehind;
    const isOriginBehind = this.#isOriginBehind;
    this.#isFastBehind = false;
    this.#isOriginBehind = false;
    try {
      const flushes = [];
      if (isFastBehind) flushes.push(flushDevice(this.fast));
      if (isOriginBehind) flushes.push(flushDevice(this.origin));
      await Promise.all(flushes);
    } catch (error) {
      this.#isFastBehind ||= isFastBehind;
      this.#isOriginBehind ||= isOriginBehind;
      throw error;
    }
  }

  /** Runs `then` when no commit runs, so that it may change the metadata. */
  whenMetadataIdle(then: () => void): void {
    if (!this.metadata.isCommitting) then();
    else void this.metadata.whenIdle().then(() => this.whenMetadataIdle(then));
  }

  /** For flushes: 0, or the errno number of why nothing can be promised. */
  async commitIfChanged(): Promise<number> {
    while (this.metadata.isCommitting) await this.metadata.whenIdle();
    if (this.hasFailed) return errno.EIO;
    // After an abort this stays true: what was lost cannot be promised any more.
    return this.metadata.hasChanges ? this.commit(false) : 0;
  }

  /** Commits, changed or not; resolves to 0 or an errno number. */
  async commit(isCleanShutdown: boolean): Promise<number> {
    while (this.metadata.isCommitting) await this.metadata.whenIdle();
    if (!this.isWriteable) return errno.EINVAL;
    try {
      // A table that is loaded and not live yet shares the metadata: whose commit it is decides.
      this.metadata.setPreCommit(() => this.#flushBehind());
      await this.metadata.commit(isCleanShutdown);
      return 0;
    } catch (error) {
      return this.operationFailed(error);
    }
  }
}
