/**
 * CacheTransaction: a cache's superblock, the structures that it names, and how they change
 * together: opened, committed, aborted (spec: cache, 3 to 5 and 7).
 *
 *   CLEAN_SHUTDOWN on the disk:  open ─► cleared ─► commit(true) ─► set ─► commit(false) ─► cleared
 *   with `keepsMark`, opening leaves it: the owner commits before any data change.
 *
 * What a crash leaves: exactly the state of the last commit.
 * Invariants: nothing changes while a commit runs; of a transaction in which an operation has
 *   failed nothing is ever committed: until it is aborted, all changes and commits fail.
 * Does not: know operations; see CacheMetadata, which is one of these.
 */
import { assert, codeOf, DmError } from '../../base/error.ts';
import type { Log } from '../../base/log.ts';
import type { BlockDevice } from '../../block/device.ts';
import { BlockManager } from '../../persistent-data/block-manager.ts';
import { CommitLock } from '../../persistent-data/commit-lock.ts';
import { MetadataOperationError } from '../../persistent-data/operation-error.ts';
import {
  createStructures,
  flushStructures,
  openStructures,
  writeRoots,
  type Structures,
} from './structures.ts';
import {
  CLEAN_SHUTDOWN,
  MAGIC,
  METADATA_BLOCK_SIZE_SECTORS,
  NEEDS_CHECK,
  readCounters,
  readPolicy,
  refusalOf,
  superblock,
  SUPERBLOCK_LOCATION,
  superblockValidator,
  writeCounters,
  writePolicy,
  type CacheFormat,
  type HitCounters,
  type PolicyIdentity,
} from './superblock.ts';

export interface OpenOptions {
  /** In sectors; must be what the metadata was formatted with. */
  readonly dataBlockSize: number;
  /** Format a device whose first block is zero; otherwise such a device is refused with EPERM. */
  readonly mayFormat: boolean;
  /** For formatting only: what is on the disk counts. */
  readonly format: CacheFormat;
  /** Leave the mark of a clean shutdown to the owner, who commits before any data change. */
  readonly keepsMark?: boolean;
  /** Memory for metadata blocks. */
  readonly cacheBytes?: number;
  /** As the kernel: believe dirty bits after a crash when cblocks are taken away. */
  readonly kernelQuirks?: boolean;
}

const FAILED = 'the metadata has failed';

export class CacheTransaction {
  readonly dataBlockSize: number;
  protected readonly log: Log;
  readonly #blocks: BlockManager;
  /** Null when an abort could not read the superblock: then nothing works any more. */
  #structures: Structures | null = null;
  #version: CacheFormat = 1;
  #flags = 0;
  /** Who wrote the hints. */
  protected policy: PolicyIdentity = { name: '', version: [0, 0, 0], hintSize: 0 };
  protected storedCounters: HitCounters = {
    readHits: 0,
    readMisses: 0,
    writeHits: 0,
    writeMisses: 0,
  };
  #cleanWhenOpened = false;
  #isDirtyStateKnown = false;
  #changed = false;
  /** An operation has failed in this transaction. */
  #isBroken = false;
  readonly #commitLock = new CommitLock();
  #preCommit: () => Promise<void> = () => Promise.resolve();

  protected constructor(device: BlockDevice, log: Log, options: OpenOptions) {
    this.log = log;
    this.dataBlockSize = options.dataBlockSize;
    this.#blocks = new BlockManager(device, log, options.cacheBytes);
  }

  // --- format and open

  /** Formats the device if allowed and needed, opens it, and takes the mark of cleanness off. */
  protected async openDevice({ mayFormat, format, keepsMark }: OpenOptions): Promise<void> {
    const isFresh = this.#blocks.isZero(SUPERBLOCK_LOCATION);
    if (isFresh) {
      if (!mayFormat) throw new DmError('EPERM', 'the metadata device is not formatted');
      await this.#format(format);
    }
    this.#checkSuperblock();
    this.#readState();
    if (isFresh) this.#cleanWhenOpened = this.#isDirtyStateKnown = true;
    if (keepsMark !== true) await this.#markInUse();
  }

  async #format(format: CacheFormat): Promise<void> {
    const s = createStructures(this.#blocks, format, this.log);
    await s.tm.preCommit();
    // A crash here leaves block 0 zero: the device is still unformatted.
    await s.tm.commit(() => {
      const { view } = this.#blocks.create(SUPERBLOCK_LOCATION, superblockValidator);
      superblock.magic.set(view, 0, MAGIC);
      superblock.version.set(view, 0, format);
      superblock.dataBlockSize.set(view, 0, this.dataBlockSize);
      superblock.metadataBlockSize.set(view, 0, METADATA_BLOCK_SIZE_SECTORS);
      writeRoots(view, s);
    });
  }

  #checkSuperblock(): void {
    let view;
    try {
      ({ view } = this.#blocks.read(SUPERBLOCK_LOCATION, superblockValidator));
    } catch (error) {
      this.log.write('error', "cache metadata: couldn't read lock superblock");
      throw error;
    }
    const refusal = refusalOf(view, this.dataBlockSize, !this.#blocks.device.readOnly);
    if (refusal !== null) throw this.refuse(refusal);
  }

  /** Takes the whole state from the superblock: at open and after an abort. */
  #readState(): void {
    const { view } = this.#blocks.read(SUPERBLOCK_LOCATION, superblockValidator);
    this.#structures = openStructures(this.#blocks, view, this.log);
    this.#version = superblock.version.get(view, 0) as CacheFormat;
    this.#flags = superblock.flags.get(view, 0);
    this.policy = readPolicy(view);
    this.storedCounters = readCounters(view);
    this.#cleanWhenOpened = this.#isDirtyStateKnown = this.isMarkedClean;
  }

  /** From here on, a crash is an unclean shutdown. */
  async #markInUse(): Promise<void> {
    const { view } = this.#blocks.write(SUPERBLOCK_LOCATION, superblockValidator);
    this.#flags &= ~CLEAN_SHUTDOWN;
    superblock.flags.set(view, 0, this.#flags);
    // A crash here leaves the mark or not; both are true, as nothing has been changed.
    await this.#blocks.flush();
  }

  /** An EINVAL that the kernel's log explains. */
  protected refuse(text: string): DmError {
    this.log.write('error', `cache metadata: ${text}`);
    return new DmError('EINVAL', text);
  }

  /** Goes on with another handle of the same metadata device. */
  setDevice(device: BlockDevice): void {
    this.#blocks.device = device;
  }

  // --- what the superblock says

  /** The format on the disk. */
  get version(): CacheFormat {
    return this.#version;
  }

  /**
   * Whether the metadata had the mark of a clean shutdown when it was opened, or was fresh. EINVAL
   * if the metadata has failed.
   */
  get cleanWhenOpened(): boolean {
    if (this.#structures === null) throw new DmError('EINVAL', FAILED);
    return this.#cleanWhenOpened;
  }

  /** Whether the disk bears the mark of a clean shutdown: it must not while data can change. */
  get isMarkedClean(): boolean {
    return (this.#flags & CLEAN_SHUTDOWN) !== 0;
  }

  /** The dirty bits on the disk were right when they were written, and are while nothing runs. */
  protected get isDirtyStateKnown(): boolean {
    return this.#isDirtyStateKnown;
  }

  /** An abort could not read the superblock: nothing works any more. */
  get hasFailed(): boolean {
    return this.#structures === null;
  }

  get needsCheck(): boolean {
    return (this.#flags & NEEDS_CHECK) !== 0;
  }

  /**
   * Sets NEEDS_CHECK in memory and tries to write it at once; for just after an abort. Resolves
   * when it is written, or that has failed. Throws if block 0 cannot be changed.
   */
  setNeedsCheck(): Promise<void> {
    if (this.#structures === null) throw new DmError('EINVAL', FAILED);
    const { view } = this.#blocks.write(SUPERBLOCK_LOCATION, superblockValidator);
    this.#flags |= NEEDS_CHECK;
    superblock.flags.set(view, 0, this.#flags);
    // Under the lock: nobody may throw the transaction away meanwhile.
    return this.#commitLock
      .hold(() => this.#blocks.flush())
      .catch((error: unknown) => {
        codeOf(error);
      });
  }

  // --- transactions

  /** The structures for reading. EINVAL if the metadata has failed. */
  protected get structures(): Structures {
    if (this.#structures === null) throw new DmError('EINVAL', FAILED);
    return this.#structures;
  }

  /** Called by each commit before anything of the metadata is written: flushes data devices. */
  setPreCommit(preCommit: () => Promise<void>): void {
    this.#preCommit = preCommit;
  }

  /** True while a commit runs: nothing may be changed. */
  get isCommitting(): boolean {
    return this.#commitLock.isHeld;
  }

  /** Resolves when the running commit, if any, has ended. Another may run by then: look again. */
  whenIdle(): Promise<void> {
    return this.#commitLock.whenFree();
  }

  /** So much is in memory and not written that the owner should commit. */
  get wantsCommit(): boolean {
    return this.#blocks.wantsCommit;
  }

  /**
   * Mappings, dirty bits or discards have been changed and are not committed. An abort leaves this
   * true: they never will be.
   */
  get hasChanges(): boolean {
    return this.#changed;
  }

  /**
   * Makes the transaction durable, changed or not: all else, flush, superblock, flush. With
   * `isCleanShutdown`, dirty bits, discards and hints must have been written just before. Rejects
   * with MetadataOperationError.
   */
  commit(isCleanShutdown: boolean): Promise<void> {
    return this.#commitLock.hold(() => this.#commit(isCleanShutdown));
  }

  async #commit(isCleanShutdown: boolean): Promise<void> {
    const flags = (this.#flags & ~CLEAN_SHUTDOWN) | (isCleanShutdown ? CLEAN_SHUTDOWN : 0);
    try {
      const s = this.#writable();
      await this.#preCommit();
      // A crash before the superblock is written leaves the old state; its blocks are untouched.
      flushStructures(s);
      await s.tm.preCommit();
      await s.tm.commit(() => this.#writeSuperblock(s, flags));
    } catch (error) {
      throw this.#break('dm_cache_commit', error);
    }
    this.#flags = flags;
    this.#changed = false;
    if (isCleanShutdown) this.#isDirtyStateKnown = true;
  }

  #writeSuperblock(s: Structures, flags: number): void {
    const { view } = this.#blocks.write(SUPERBLOCK_LOCATION, superblockValidator);
    superblock.flags.set(view, 0, flags);
    writePolicy(view, this.policy);
    writeCounters(view, this.storedCounters);
    writeRoots(view, s);
  }

  /**
   * Throws the transaction away: the state is that of the last commit again. Throws DmError if the
   * superblock cannot be read; then everything else fails with EINVAL from now on.
   */
  abort(): void {
    assert(!this.isCommitting, 'a commit that runs is not aborted');
    this.#blocks.reset();
    this.#structures = null;
    this.#readState();
    this.#isBroken = false;
  }

  /** While read-only, every change and every commit fails with EINVAL. */
  setReadOnly(readOnly: boolean): void {
    this.#blocks.setReadOnly(readOnly);
  }

  get readOnly(): boolean {
    return this.#blocks.readOnly;
  }

  /** The structures for changing. Throws EINVAL, as the kernel does for each of the reasons. */
  #writable(): Structures {
    if (this.readOnly) throw new DmError('EINVAL', 'the metadata is read-only');
    if (this.#isBroken) throw new DmError('EINVAL', 'the transaction has failed');
    return this.structures;
  }

  #break(operation: string, error: unknown): unknown {
    if (!(error instanceof DmError)) return error;
    this.#isBroken = true;
    return new MetadataOperationError(operation, error);
  }

  /** Runs a change, called `operation` by the kernel; if it fails, the transaction is lost. */
  protected change(operation: string, change: (s: Structures) => void): void {
    assert(!this.isCommitting, 'nothing changes while a commit runs');
    this.#blocks.newOperation();
    try {
      change(this.#writable());
    } catch (error) {
      throw this.#break(operation, error);
    }
  }

  /** A change has been made that the next flush must make durable. */
  protected touch(): void {
    this.#changed = true;
  }

  /** Runs what only reads, but whose failure is that of an operation all the same. */
  protected load(operation: string, load: (s: Structures) => void): void {
    this.#blocks.newOperation();
    try {
      load(this.structures);
    } catch (error) {
      if (!(error instanceof DmError)) throw error;
      throw new MetadataOperationError(operation, error);
    }
  }
}
