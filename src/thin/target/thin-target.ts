/**
 * thin: a device of a thin pool, activated. Answers to thin_map and struct thin_c in
 * drivers/md/dm-thin.c (spec: thin, 3, 5.3 and 8). Hot path: `map`, `endIo`.
 *
 * What needs no change of metadata is done at once in `map`: reads, and writes to blocks that are
 * mapped and not shared. The rest holds its virtual block and goes to the pool's worker.
 * Bios are kept with sectors relative to the target's begin.
 */
import { codeOf } from '../../base/error.ts';
import { errno } from '../../base/errno.ts';
import { SECTOR_SIZE } from '../../base/numbers.ts';
import { BioList, BioOp, STATUS_REQUEUE, type Bio } from '../../block/bio.ts';
import { type BlockDevice, type ExtentVisitor, type Limits } from '../../block/device.ts';
import type { MappedDevice } from '../../mapper/mapped-device.ts';
import {
  MapResult,
  Target,
  type StatusKind,
  type TargetContext,
  type UsedDevice,
} from '../../mapper/target.ts';
import { makeMapping, type Mapping, type ThinDevice } from '../metadata/thin-device.ts';
import type { Cell } from './cells.ts';
import type { DeferredEntry } from './deferred-set.ts';
import type { DiscardWork } from './discard.ts';
import type { NewMapping } from './new-mapping.ts';
import type { DeviceCells, Pool } from './pool.ts';
import type { PoolTable } from './pool-table.ts';
import { readThinSync, thinBlockStatus } from './thin-reading.ts';

/** Largest discard of a thin device: 16 GiB. */
const MAX_DISCARD_SECTORS = 2048 * 1024 * 16;

/** Per-bio data: the sets that the bio is counted in. */
class ThinBio {
  sharedRead: DeferredEntry<NewMapping> | null = null;
  allIo: DeferredEntry<DiscardWork> | null = null;
}

/** An external origin: a read-only device that shows through where nothing is mapped. */
interface Origin {
  readonly used: UsedDevice;
  readonly device: BlockDevice;
  /** As it was at the last resume. */
  sizeSectors: number;
}

export class ThinTarget extends Target {
  readonly owner: MappedDevice;
  readonly pool: Pool;
  readonly device: ThinDevice;
  readonly cells: DeviceCells;
  readonly origin: Origin | null;
  override readonly hasEndIo = true;
  /** Suspending without flush: bios are handed back. */
  requeueMode = false;
  readonly #used: UsedDevice;
  readonly #pools: PoolTable;
  #deferredCells: Cell[] = [];
  readonly #deferredBios = new BioList();
  /** Writes that wait for data space. */
  readonly #queuedForSpace = new BioList();
  readonly #found: Mapping = makeMapping();
  readonly #sectorsPerBlock: number;

  constructor(
    context: TargetContext,
    pools: PoolTable,
    pool: Pool,
    used: UsedDevice,
    device: ThinDevice,
    origin: UsedDevice | null,
  ) {
    super(context, () => new ThinBio());
    this.owner = context.owner;
    this.pool = pool;
    this.device = device;
    this.cells = pool.cellsOf(device);
    this.origin = origin && { used: origin, device: origin.device, sizeSectors: 0 };
    this.#used = used;
    this.#pools = pools;
    this.#sectorsPerBlock = pool.sectorsPerBlock;
    this.maxIoSectors = pool.sectorsPerBlock;
    this.nrFlushBios = 1;
    this.nrDiscardBios = pool.features.discardEnabled ? 1 : 0;
    pool.thins.add(this);
  }

  // --- entry

  override map(bio: Bio): MapResult {
    bio.sector -= this.begin;
    if (this.requeueMode) return MapResult.REQUEUE;
    if (this.pool.hasFailed) return MapResult.KILL;
    if (bio.op === BioOp.DISCARD || bio.isFlushOrFua) return this.#mapSpecial(bio);
    const block = Math.floor(bio.sector / this.#sectorsPerBlock);
    const { virtual, physical } = this.cells;
    if (!virtual.isEmpty) {
      const held = virtual.heldAt(block);
      if (held !== null) {
        held.waiting.push(bio);
        return MapResult.SUBMITTED;
      }
    }
    let mapped: boolean;
    try {
      mapped = this.pool.metadata.lookup(this.device, block, this.#found);
    } catch (error) {
      this.pool.lookupFailed(error);
      return MapResult.KILL;
    }
    const found = this.#found;
    if (mapped && !physical.isEmpty) {
      const held = physical.heldAt(found.block);
      if (held !== null) {
        held.waiting.push(bio);
        return MapResult.SUBMITTED;
      }
    }
    if (mapped && !found.shared) {
      this.enterAllIo(bio);
      this.remap(bio, found.block);
      return MapResult.REMAPPED;
    }
    if (bio.op === BioOp.READ) return this.#mapSpecialRead(bio, mapped);
    this.#deferCell(virtual.hold(block, block + 1, bio));
    return MapResult.SUBMITTED;
  }

  /**
   * A read of a shared or an unmapped block: it changes nothing, so it need not go to the worker.
   */
  #mapSpecialRead(bio: Bio, mapped: boolean): MapResult {
    if (!mapped) return this.#mapUnmappedRead(bio);
    const perBio = bio.perBio as ThinBio;
    perBio.sharedRead = this.pool.worker.sharedReads.enter();
    this.enterAllIo(bio);
    this.remap(bio, this.#found.block);
    return MapResult.REMAPPED;
  }

  /** Flush, FUA and discard go to the worker, unless there is nothing to commit before them. */
  #mapSpecial(bio: Bio): MapResult {
    if (bio.op === BioOp.FLUSH && !this.triggersCommit(bio)) {
      this.#remapFlush(bio);
      return MapResult.REMAPPED;
    }
    this.defer(bio);
    return MapResult.SUBMITTED;
  }

  /**
   * A flush or FUA bio must wait for a commit iff this device has changes that are not committed.
   */
  triggersCommit(bio: Bio): boolean {
    const { changedThisTransaction, abortedWithChanges } = this.device;
    return bio.isFlushOrFua && (changedThisTransaction || abortedWithChanges);
  }

  /** Any sector will do for a flush. */
  #remapFlush(bio: Bio): void {
    bio.device = this.pool.device;
    bio.sector = 0;
  }

  issueFlush(bio: Bio): void {
    if (this.pool.hasFailed) {
      bio.end(errno.EIO);
      return;
    }
    this.#remapFlush(bio);
    this.pool.issue(this, bio);
  }

  override endIo(bio: Bio): number {
    const perBio = bio.perBio as ThinBio;
    const { sharedRead, allIo } = perBio;
    if (sharedRead !== null) {
      perBio.sharedRead = null;
      this.pool.worker.sharedReads.leave(sharedRead);
    }
    if (allIo !== null) {
      perBio.allIo = null;
      this.pool.worker.allIo.leave(allIo);
    }
    return bio.status;
  }

  // --- remapping

  enterAllIo(bio: Bio): void {
    (bio.perBio as ThinBio).allIo = this.pool.worker.allIo.enter();
  }

  /** Points `bio` at data block `dataBlock`, on the pool device. */
  remap(bio: Bio, dataBlock: number): void {
    bio.device = this.pool.device;
    bio.sector = dataBlock * this.#sectorsPerBlock + (bio.sector % this.#sectorsPerBlock);
  }

  #issueTo(bio: Bio, dataBlock: number): void {
    this.enterAllIo(bio);
    this.remap(bio, dataBlock);
    this.pool.issue(this, bio);
  }

  issueSharedRead(bio: Bio, dataBlock: number): void {
    (bio.perBio as ThinBio).sharedRead = this.pool.worker.sharedReads.enter();
    this.#issueTo(bio, dataBlock);
  }

  /** Fills the buffer with zeroes, or with the external origin as far as that reaches. */
  readUnmapped(bio: Bio): void {
    if (this.#mapUnmappedRead(bio) === MapResult.REMAPPED) (bio.device as BlockDevice).submit(bio);
  }

  #mapUnmappedRead(bio: Bio): MapResult {
    const available = this.origin === null ? 0 : this.origin.sizeSectors - bio.sector;
    const fromOrigin = Math.min(Math.max(available, 0), bio.nrSectors);
    if (fromOrigin < bio.nrSectors) {
      const begin = bio.dataOffset + fromOrigin * SECTOR_SIZE;
      bio.data.fill(0, begin, bio.dataOffset + bio.nrSectors * SECTOR_SIZE);
    }
    if (this.origin === null || fromOrigin === 0) {
      bio.end(0);
      return MapResult.SUBMITTED;
    }
    bio.nrSectors = fromOrigin;
    bio.device = this.origin.device;
    return MapResult.REMAPPED;
  }

  // --- cells and lists

  /**
   * Holds the virtual block of `bio` for it; null if it has joined the cell that holds it already.
   */
  holdVirtual(bio: Bio): Cell | null {
    const block = Math.floor(bio.sector / this.#sectorsPerBlock);
    const held = this.cells.virtual.heldAt(block);
    if (held === null) return this.cells.virtual.hold(block, block + 1, bio);
    held.waiting.push(bio);
    return null;
  }

  #deferCell(cell: Cell): void {
    this.#deferredCells.push(cell);
    this.pool.worker.wake();
  }

  /** Leaves a bio to the worker. */
  defer(bio: Bio): void {
    this.#deferredBios.push(bio);
    this.pool.worker.wake();
  }

  takeDeferredCells(): Cell[] {
    const cells = this.#deferredCells;
    if (cells.length > 0) this.#deferredCells = [];
    return cells;
  }

  takeDeferredBios(): Bio[] {
    return this.#deferredBios.isEmpty ? NO_BIOS : this.#deferredBios.drain();
  }

  /** Releases a cell; the bios that waited are looked at again. Nobody is woken if none did. */
  deferWaiting(cell: Cell): void {
    cell.release();
    if (cell.waiting.isEmpty) return;
    this.#deferredBios.splice(cell.waiting);
    this.pool.worker.wake();
  }

  /** Releases a cell; all its bios are the caller's, the holder first. */
  takeCell(cell: Cell): Bio[] {
    cell.release();
    const bios = cell.waiting.drain();
    return cell.holder === null ? bios : [cell.holder, ...bios];
  }

  /** Releases a cell and ends all its bios with `status`. */
  failCell(cell: Cell, status: number): void {
    for (const bio of this.takeCell(cell)) bio.end(status);
  }

  /** Releases a cell whose block is `dataBlock` now and sends its bios there. */
  issueCell(cell: Cell, dataBlock: number): void {
    const { holder } = cell;
    if (holder !== null) this.#issueTo(holder, dataBlock);
    this.issueWaiting(cell, dataBlock);
  }

  /** As issueCell, but for the holder. Flush, FUA and discard are looked at again. */
  issueWaiting(cell: Cell, dataBlock: number): void {
    cell.release();
    for (const bio of cell.waiting.drain()) {
      if (bio.isFlushOrFua || bio.op === BioOp.DISCARD) this.defer(bio);
      else this.#issueTo(bio, dataBlock);
    }
  }

  queueForSpace(bio: Bio): void {
    this.#queuedForSpace.push(bio);
  }

  failQueued(status: number): void {
    for (const bio of this.#queuedForSpace.drain()) bio.end(status);
  }

  retryQueued(): void {
    if (this.#queuedForSpace.isEmpty) return;
    this.#deferredBios.splice(this.#queuedForSpace);
    this.pool.worker.wake();
  }

  // --- life cycle

  /** Without flush, everything that waits is handed back to be mapped again after the resume. */
  override presuspend(): void {
    if (!this.owner.isNoflushSuspending) return;
    this.requeueMode = true;
    for (const bio of this.#deferredBios.drain()) bio.end(STATUS_REQUEUE);
    this.failQueued(STATUS_REQUEUE);
    for (const cell of this.takeDeferredCells()) this.failCell(cell, STATUS_REQUEUE);
  }

  override postsuspend(): void {
    this.requeueMode = false;
  }

  override preresume(): void {
    if (this.origin === null) return;
    this.origin.device.refreshSize();
    this.origin.sizeSectors = this.origin.device.sizeSectors;
  }

  override async destroy(): Promise<void> {
    this.pool.thins.delete(this);
    this.pool.metadata.closeDevice(this.device);
    if (this.device.openCount === 0) this.pool.forgetCells(this.device);
    await this.#pools.release(this.pool);
  }

  // --- what it shows

  override status(kind: StatusKind): string {
    if (this.pool.hasFailed) return 'Fail';
    if (kind === 'TABLE') {
      const origin = this.origin === null ? '' : ` ${this.origin.used.number}`;
      return `${this.#used.number} ${this.device.id}${origin}`;
    }
    let highest: number | undefined;
    try {
      highest = this.pool.metadata.highestMapped(this.device);
    } catch (error) {
      const text = `dm_thin_get_highest_mapped_block returned -${codeOf(error)}`;
      this.pool.logPlain('error', text);
      return 'Error';
    }
    const mapped = this.device.mappedBlocks * this.#sectorsPerBlock;
    const end = highest === undefined ? '-' : (highest + 1) * this.#sectorsPerBlock - 1;
    return `${mapped} ${end}`;
  }

  override iterateDevices(visit: (used: UsedDevice, begin: number, length: number) => void): void {
    // Any block of the pool may be used.
    visit(this.#used, 0, this.pool.sectorOf(this.pool.nrTableBlocks));
  }

  override ioHints(limits: Limits): void {
    const blockBytes = this.#sectorsPerBlock * SECTOR_SIZE;
    limits.ioMin = blockBytes;
    if (limits.ioOpt < blockBytes || limits.ioOpt % blockBytes !== 0) limits.ioOpt = blockBytes;
    const discards = this.nrDiscardBios > 0;
    limits.discardGranularity = discards ? blockBytes : 0;
    limits.maxDiscardSectors = discards ? MAX_DISCARD_SECTORS : 0;
    // A block unmapped and written again in part would show old data in the rest of it.
    const staysZero = this.origin === null && this.pool.features.zeroNewBlocks;
    limits.discardZeroes = discards && staysZero;
    limits.maxWriteZeroesSectors = 0;
  }

  override readSync(sector: number, nrSectors: number, data: Uint8Array, offset: number): number {
    return readThinSync(this, sector - this.begin, nrSectors, data, offset);
  }

  override blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    return thinBlockStatus(this, sector - this.begin, nrSectors, visit);
  }
}

const NO_BIOS: Bio[] = [];
