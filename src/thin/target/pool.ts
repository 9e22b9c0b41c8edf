/**
 * Pool: what a thin-pool table and all thin targets on it share: metadata, mode, space, commits.
 * Answers to struct pool in drivers/md/dm-thin.c (spec: thin, 6, 7, 10 and 12).
 *
 * Only one thing at a time changes the metadata: the worker, a message, a status or a suspend.
 * While a commit runs nothing changes it; whoever wants to waits first (`metadataIdle`).
 * Does not: process bios (see worker.ts and the files it uses) or parse tables.
 */
import type { Clock } from '../../base/clock.ts';
import { codeOf } from '../../base/error.ts';
import { errno } from '../../base/errno.ts';
import type { Log } from '../../base/log.ts';
import type { Bio } from '../../block/bio.ts';
import { Copier } from '../../block/copy.ts';
import { flushDevice, type BlockDevice } from '../../block/device.ts';
import type { MappedDevice } from '../../mapper/mapped-device.ts';
import { MetadataOperationError } from '../../persistent-data/operation-error.ts';
import type { PoolMetadata } from '../metadata/pool-metadata.ts';
import type { ThinDevice } from '../metadata/thin-device.ts';
import { CellSpace } from './cells.ts';
import type { PoolFeatures } from './features.ts';
import { logWord, PoolMode } from './modes.ts';
import { NoSpaceTimeout } from './no-space-timeout.ts';
import type { BoundTable, PoolOptions, PoolVerifier } from './pool-options.ts';
import type { ThinTarget } from './thin-target.ts';
import { Worker } from './worker.ts';

/** The two lock spaces of a thin device. */
export interface DeviceCells {
  readonly virtual: CellSpace;
  readonly physical: CellSpace;
}

/** Faults of a commit that are logged. */
const FAULTS_LOGGED_MAX = 20;

export class Pool {
  /** The mapped device of the pool; data I/O goes through it. */
  readonly device: MappedDevice;
  readonly metadataIdentity: object;
  readonly dataIdentity: object;
  readonly metadata: PoolMetadata;
  readonly sectorsPerBlock: number;
  readonly clock: Clock;
  readonly worker: Worker;
  readonly copier = new Copier();
  readonly thins = new Set<ThinTarget>();
  /** Tables and thin targets that use the pool. */
  nrUsers = 0;
  /** Until the first resume, too. */
  suspended = true;
  features: PoolFeatures;
  #table: BoundTable | null = null;
  #metadataDevice: BlockDevice;
  readonly #verify: PoolVerifier | null;
  #lowWaterTriggered = false;
  /** Queued I/O that has to be failed fails with ENOSPC instead of EIO. */
  #outOfDataSpace = false;
  readonly #noSpaceTimeout: NoSpaceTimeout;
  readonly #log: Log;
  readonly #cells = new Map<ThinDevice, DeviceCells>();
  /** Devices that `suspendThins` suspended, to be resumed by `resumeThins`. */
  #suspendedOwners: MappedDevice[] = [];
  #needsCheckWritten: Promise<void> = Promise.resolve();

  constructor(options: PoolOptions) {
    this.device = options.device;
    this.metadataIdentity = options.metadataDevice.identity;
    this.dataIdentity = options.dataDevice.identity;
    this.metadata = options.metadata;
    this.#metadataDevice = options.metadataDevice.device;
    this.#verify = options.verify;
    this.features = { ...options.features, mode: PoolMode.WRITE };
    this.clock = options.clock;
    this.#log = options.log;
    this.#noSpaceTimeout = new NoSpaceTimeout(options.clock, options.noSpaceTimeoutSeconds, () =>
      this.#noLongerWaitForSpace(),
    );
    this.sectorsPerBlock = this.metadata.dataBlockSize;
    this.worker = new Worker(this);
    const { device: dataDevice } = options.dataDevice;
    // Data is durable before mappings point to it. What an older table opened is closed with it.
    this.metadata.setPreCommit(() => flushDevice(this.#table?.dataDevice ?? dataDevice));
  }

  /** A line in the kernel's log, with the pool's number. */
  log(level: 'error' | 'warn' | 'info', text: string): void {
    this.#log.write(level, `thin: ${this.device.number}: ${text}`);
  }

  /** A line without the pool's number, for what concerns a request. */
  logPlain(level: 'error' | 'warn' | 'info', text: string): void {
    this.#log.write(level, `thin: ${text}`);
  }

  raiseEvent(): void {
    this.device.events.raise();
  }

  // --- cells

  /** The lock spaces of a thin device, shared by all targets that map it. */
  cellsOf(device: ThinDevice): DeviceCells {
    let cells = this.#cells.get(device);
    if (cells === undefined) {
      cells = { virtual: new CellSpace(), physical: new CellSpace() };
      this.#cells.set(device, cells);
    }
    return cells;
  }

  forgetCells(device: ThinDevice): void {
    this.#cells.delete(device);
  }

  // --- modes

  get mode(): PoolMode {
    return this.features.mode;
  }

  get hasFailed(): boolean {
    return this.mode === PoolMode.FAIL;
  }

  /** Data blocks that the bound table covers. */
  get nrTableBlocks(): number {
    return this.#table?.nrBlocks ?? 0;
  }

  /** Nothing in the metadata may change any more, for now or for good. */
  get isReadOnly(): boolean {
    return this.mode >= PoolMode.OUT_OF_METADATA_SPACE;
  }

  /** Makes `table`'s features the pool's, and its remembered mode the mode (spec: thin, 6.2). */
  bind(table: BoundTable): void {
    const oldMode = this.mode;
    const newMode = table.adjusted.mode;
    this.#table = table;
    this.#metadataDevice = table.metadataDevice;
    this.metadata.setDevice(table.metadataDevice);
    this.features = { ...table.adjusted, mode: oldMode };
    this.setMode(newMode);
  }

  /** The table and its disks go. If no other is bound instead, thin devices that are left fail. */
  unbind(table: BoundTable): void {
    if (this.#table !== table) return;
    this.#table = null;
    if (this.thins.size > 0) this.setMode(PoolMode.FAIL);
    this.resumeThins();
  }

  setMode(wanted: PoolMode): void {
    const old = this.mode;
    const mode = this.#allowedMode(wanted, old);
    this.features.mode = mode;
    if (this.#table !== null) this.#table.adjusted.mode = mode;
    switch (mode) {
      case PoolMode.WRITE:
        this.#noSpaceTimeout.cancel();
        this.#outOfDataSpace = false;
        this.features.errorIfNoSpace = this.#table?.requested.errorIfNoSpace ?? false;
        this.metadata.setReadOnly(false);
        break;
      case PoolMode.OUT_OF_DATA_SPACE:
        this.#outOfDataSpace = true;
        this.#startNoSpaceTimeout();
        break;
      case PoolMode.OUT_OF_METADATA_SPACE:
      case PoolMode.READ_ONLY:
      case PoolMode.FAIL:
        this.metadata.setReadOnly(true);
        this.failQueued(this.#outOfDataSpace ? errno.ENOSPC : errno.EIO);
        break;
    }
    if (mode !== old) this.#notifyMode();
  }

  #allowedMode(wanted: PoolMode, old: PoolMode): PoolMode {
    if (old === PoolMode.FAIL) return PoolMode.FAIL;
    if (wanted !== PoolMode.WRITE || !this.metadata.needsCheck) return wanted;
    this.log('error', 'unable to switch pool to write mode until repaired.');
    return old === PoolMode.WRITE ? PoolMode.READ_ONLY : old;
  }

  #notifyMode(): void {
    const { mode } = this;
    const queueing = this.features.errorIfNoSpace ? 'error IO' : 'queue IO';
    const how = mode === PoolMode.OUT_OF_DATA_SPACE ? ` (${queueing})` : '';
    this.log('info', `switching pool to ${logWord[mode]}${how} mode`);
    this.raiseEvent();
  }

  // --- out of data space

  #startNoSpaceTimeout(): void {
    this.#noSpaceTimeout.cancel();
    if (!this.features.errorIfNoSpace) this.#noSpaceTimeout.start();
  }

  #noLongerWaitForSpace(): void {
    if (this.mode !== PoolMode.OUT_OF_DATA_SPACE || this.features.errorIfNoSpace) return;
    this.features.errorIfNoSpace = true;
    this.#notifyMode();
    this.failQueued(errno.ENOSPC);
  }

  stopTimers(): void {
    this.#noSpaceTimeout.cancel();
    this.worker.stopTicking();
  }

  /** Ends all I/O that waits for space. */
  failQueued(status: number): void {
    for (const thin of this.thins) thin.failQueued(status);
  }

  /** I/O that waits for space is processed again. */
  retryQueued(): void {
    for (const thin of this.thins) thin.retryQueued();
  }

  /**
   * What becomes of a write that needs a new block when there can be none: an errno number to end
   * it with, or 0 if it is to wait for space.
   */
  unserviceableStatus(): number {
    if (this.mode !== PoolMode.OUT_OF_DATA_SPACE) return errno.EIO;
    return this.features.errorIfNoSpace ? errno.ENOSPC : 0;
  }

  /** Raises the low-water event, once a resume. */
  checkLowWater(nrFree: number): void {
    const mark = this.#table?.lowWaterBlocks ?? 0;
    if (this.#lowWaterTriggered || nrFree > mark) return;
    this.log('warn', 'reached low water mark for data device: sending event.');
    this.#lowWaterTriggered = true;
    this.raiseEvent();
  }

  /** Called by the metadata space map. */
  metadataLow(): void {
    this.log('warn', 'reached low water mark for metadata device: sending event.');
    this.raiseEvent();
  }

  // --- commits

  /** Resolves when the running commit, if any, has ended. Another may run by then: look again. */
  metadataIdle(): Promise<void> {
    return this.metadata.whenIdle();
  }

  /**
   * Commits; resolves to 0 or an errno number. A failed commit has been dealt with: the transaction
   * is rolled back, the pool read-only or failed.
   */
  async commit(): Promise<number> {
    while (this.metadata.isCommitting) await this.metadataIdle();
    if (this.isReadOnly) return errno.EINVAL;
    try {
      await this.metadata.commit();
    } catch (error) {
      return this.operationFailed(error);
    }
    // Before anything else is written: what it sees is this commit's.
    const faults = this.#verify?.(this.#metadataDevice) ?? [];
    if (faults.length > 0) return this.#faulty(faults);
    this.#checkMetadataSpace();
    this.#checkDataSpace();
    return 0;
  }

  /** What was committed is wrong: nothing more is written to it. */
  #faulty(faults: readonly string[]): number {
    this.log('error', 'verification after a commit has failed');
    for (const fault of faults.slice(0, FAULTS_LOGGED_MAX)) this.log('error', `fault: ${fault}`);
    this.setMode(PoolMode.FAIL);
    return errno.EIO;
  }

  #checkMetadataSpace(): void {
    if (this.mode > PoolMode.OUT_OF_DATA_SPACE || this.metadata.nrFreeMetadataBlocks > 0) return;
    this.logPlain('error', 'No free metadata blocks');
    this.setMode(PoolMode.OUT_OF_METADATA_SPACE);
  }

  #checkDataSpace(): void {
    if (this.mode !== PoolMode.OUT_OF_DATA_SPACE || this.metadata.nrFreeDataBlocks <= 0) return;
    this.setMode(PoolMode.WRITE);
    this.retryQueued();
  }

  /**
   * A metadata operation failed half-way: rolls back, sets needs_check, goes read-only (spec: thin,
   * 12.2). Returns the errno number. Anything but a MetadataOperationError is our bug and passes
   * through.
   */
  operationFailed(error: unknown): number {
    if (!(error instanceof MetadataOperationError)) throw error;
    this.log('error', `metadata operation '${error.operation}' failed: error = -${error.code}`);
    this.#abort();
    this.setMode(PoolMode.READ_ONLY);
    return error.code;
  }

  /** The mapping of a block cannot be read: its bio fails, nothing else. */
  lookupFailed(error: unknown): void {
    const text = `process_cell: dm_thin_find_block() failed: error = -${codeOf(error)}`;
    this.logPlain('error', text);
  }

  /** A pass of the worker threw: our bug. Nothing is trusted any more; what is on disk is sound. */
  bug(error: unknown): void {
    const { stack = String(error) } = error as Error;
    this.log('error', `bug: ${stack}`);
    this.setMode(PoolMode.FAIL);
  }

  #abort(): void {
    this.log('error', 'aborting current metadata transaction');
    try {
      this.metadata.abort();
    } catch (error) {
      codeOf(error);
      this.log('error', 'failed to abort metadata transaction');
      this.setMode(PoolMode.FAIL);
    }
    try {
      this.#needsCheckWritten = this.metadata.setNeedsCheck();
    } catch (error) {
      codeOf(error);
      this.log('error', "failed to set 'needs_check' flag in metadata");
      this.setMode(PoolMode.FAIL);
    }
  }

  // --- life cycle

  /** Stops the I/O of all thin devices: what waits is handed back, what runs finishes. */
  async suspendThins(): Promise<void> {
    this.suspended = true;
    const owners = new Set([...this.thins].map((thin) => thin.owner));
    this.#suspendedOwners = [...owners];
    await Promise.all(this.#suspendedOwners.map((owner) => owner.internalSuspend()));
  }

  resumeThins(): void {
    for (const owner of this.#suspendedOwners.splice(0)) owner.internalResume();
  }

  /** The pool is active again: queued I/O is retried, thins go on, the tick starts. */
  resume(): void {
    this.retryQueued();
    this.resumeThins();
    this.#lowWaterTriggered = false;
    this.suspended = false;
    this.worker.startTicking();
  }

  /** The last user has gone: commits what is left. */
  async close(): Promise<void> {
    this.stopTimers();
    await this.worker.idle();
    await this.#needsCheckWritten;
    if (!this.isReadOnly) await this.commit();
    await this.#needsCheckWritten;
    if (this.metadata.needsCheck && this.mode !== PoolMode.FAIL) await this.#writeNeedsCheck();
  }

  /** Tries once more to make needs_check durable. */
  async #writeNeedsCheck(): Promise<void> {
    try {
      this.metadata.setReadOnly(false);
      await this.metadata.setNeedsCheck();
    } catch (error) {
      codeOf(error);
    } finally {
      this.metadata.setReadOnly(true);
    }
  }

  /** Where data of block `block` lies on the pool device. */
  sectorOf(block: number): number {
    return block * this.sectorsPerBlock;
  }

  /** Starts a bio that a thin target remapped, or sets it aside for a commit (spec: thin, 8.7). */
  issue(thin: ThinTarget, bio: Bio): void {
    if (!thin.triggersCommit(bio)) (bio.device as BlockDevice).submit(bio);
    else if (thin.device.abortedWithChanges) bio.end(errno.EIO);
    else this.worker.commitThenIssue(bio);
  }
}
