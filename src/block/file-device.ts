/**
 * FileDevice: a regular file or a block special file as a BlockDevice. Hot path.
 *
 * How a bio travels: a read that the page cache can serve, and a page-aligned write, are done
 * inline; everything that may wait for the disk goes to the thread pool, where several can be in
 * flight.
 *
 *   read tmpfs: pread inline · other file systems: preadv2(RWF_NOWAIT) inline, the rest by the pool
 *    write   tmpfs: pwrite inline · whole pages: pwrite inline, unless such writes were slow lately
 *   flush   fdatasync, by the pool, one at a time; skipped when one has covered all that ended
 *   FUA     write, then fdatasync
 *   discard punch hole, or BLKDISCARD · write-zeroes: punch hole or zero range, else writes
 *
 * What a crash leaves: of this process, nothing is lost that was written (the page cache has it);
 * of the machine, what was written after the last flush may be there, partly there, or not.
 * After a failed fdatasync the kernel may have dropped the data: the failure is reported once, to
 * the flush that met it, and the layers above treat their transaction as lost.
 * Without koffi: reads go to the pool except on tmpfs, and discard is not supported.
 * Does not: lock or share files; see open-devices.ts.
 */
import fs from 'node:fs';
import { performance } from 'node:perf_hooks';
import { assert } from '../base/error.ts';
import { errno, errnoOf } from '../base/errno.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { BioFlag, BioOp, type Bio } from './bio.ts';
import type { BlockDevice, ExtentVisitor, Limits } from './device.ts';
import { blockSpecialSize, findLimits } from './file-limits.ts';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  native,
} from './native.ts';

const PAGE_BYTES = 4096;
/** Largest write done inline: a longer one would hold up the event loop for long. */
const INLINE_WRITE_BYTES_MAX = 256 * 1024;
/** An inline write slower than this sends the next writes to the thread pool. */
const SLOW_WRITE_MS = 4;
const WRITES_BY_POOL_AFTER_SLOW = 256;
/** Write-zeroes without kernel support writes this many bytes at a time. */
const ZERO_BUFFER = new Uint8Array(256 * 1024);
/** statfs(2) types of file systems in memory, which never make a caller wait. */
const TMPFS_MAGIC = 0x0102_1994;
const RAMFS_MAGIC = 0x8584_58f6;

/** How reads are tried before the thread pool. */
type InlineRead = 'memory' | 'nowait' | 'never';

/** One bio on its way through the thread pool; pooled, its callbacks bound once. */
class PoolRequest {
  bio: Bio | null = null;
  done = 0;
  readonly afterTransfer: (error: NodeJS.ErrnoException | null, bytes: number) => void;
  next: PoolRequest | null = null;

  constructor(device: FileDevice) {
    this.afterTransfer = (error, bytes) => device.transferred(this, error, bytes);
  }
}

export class FileDevice implements BlockDevice {
  readonly name: string;
  readonly path: string;
  readonly readOnly: boolean;
  readonly isBlockSpecial: boolean;
  readonly limits: Limits;
  readonly #fd: number;
  readonly #inMemory: boolean;
  #inlineRead: InlineRead;
  #sizeSectors = 0;
  #requests: PoolRequest | null = null;
  #inFlight = 0;
  #writesByPool = 0;
  /** Changes of the file that have ended, what happened before it was opened being the first. */
  #nrChanges = 1;
  /** How many of them a good fdatasync has covered, and how many the one that runs will. */
  #nrDurable = 0;
  #nrSyncing = 0;
  /** Whom the fdatasync that runs is for; null: none runs. Who came later waits for the next. */
  #syncing: PoolRequest[] | null = null;
  #waitingForSync: PoolRequest[] = [];
  #closed = false;
  #idle: (() => void) | null = null;

  /** Takes over `fd`, opened on `path` with the access that `readOnly` says. */
  constructor(fd: number, path: string, name: string, readOnly: boolean) {
    this.#fd = fd;
    this.path = path;
    this.name = name;
    this.readOnly = readOnly;
    const stat = fs.fstatSync(fd);
    this.isBlockSpecial = stat.isBlockDevice();
    const type = fs.statfsSync(path).type;
    this.#inMemory = !this.isBlockSpecial && (type === TMPFS_MAGIC || type === RAMFS_MAGIC);
    this.#inlineRead = this.#inMemory ? 'memory' : native === null ? 'never' : 'nowait';
    this.limits = findLimits(fd, stat, readOnly);
    this.refreshSize();
  }

  get sizeSectors(): number {
    return this.#sizeSectors;
  }

  get isWriteProtected(): boolean {
    if (!this.readOnly) return false;
    try {
      fs.accessSync(this.path, fs.constants.W_OK);
      return false;
    } catch {
      return true;
    }
  }

  refreshSize(): void {
    if (this.isBlockSpecial)
      this.#sizeSectors = Math.floor(blockSpecialSize(this.#fd) / SECTOR_SIZE);
    else this.#sizeSectors = Math.floor(fs.fstatSync(this.#fd).size / SECTOR_SIZE);
  }

  submit(bio: Bio): void {
    assert(!this.#closed, 'no bio is submitted to a closed file');
    if (bio.endSector > this.#sizeSectors) {
      bio.end(errno.EIO);
    } else if (bio.nrSectors === 0 && bio.op !== BioOp.FLUSH) {
      bio.end(0);
    } else if (bio.op === BioOp.READ) {
      this.#read(bio);
    } else if (bio.op === BioOp.FLUSH) {
      this.#flush(bio);
    } else if (this.readOnly) {
      bio.end(errno.EPERM);
    } else if (bio.op === BioOp.WRITE) {
      this.#write(bio);
    } else {
      this.#deallocate(bio);
    }
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    const length = nrSectors * SECTOR_SIZE;
    for (let done = 0; done < length;) {
      let bytes: number;
      try {
        const at = sector * SECTOR_SIZE + done;
        bytes = fs.readSync(this.#fd, data, dataOffset + done, length - done, at);
      } catch (error) {
        return errno[errnoOf(error)];
      }
      if (bytes === 0) return errno.EIO; // The file is shorter than it was.
      done += bytes;
    }
    return 0;
  }

  blockStatus(_sector: number, nrSectors: number, visit: ExtentVisitor): void {
    visit(nrSectors, 0);
  }

  /** Closes the file once nothing is in flight. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inFlight > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    fs.closeSync(this.#fd);
  }

  // --- reads

  #read(bio: Bio): void {
    const length = bio.nrSectors * SECTOR_SIZE;
    const at = bio.sector * SECTOR_SIZE;
    let done = 0;
    if (this.#inlineRead === 'memory') {
      bio.end(this.readSync(bio.sector, bio.nrSectors, bio.data, bio.dataOffset));
      return;
    }
    if (this.#inlineRead === 'nowait' && native !== null) {
      done = native.preadNowait(this.#fd, bio.data, bio.dataOffset, length, at);
      if (done === length) {
        bio.end(0);
        return;
      }
      if (done === -errno.EOPNOTSUPP) this.#inlineRead = 'never';
      if (done < 0) done = 0;
    }
    this.#startTransfer(bio, done);
  }

  // --- writes

  #write(bio: Bio): void {
    const length = bio.nrSectors * SECTOR_SIZE;
    const fua = (bio.flags & BioFlag.FUA) !== 0;
    if (fua || !this.#mayWriteInline(bio.sector * SECTOR_SIZE, length)) {
      this.#startTransfer(bio, 0);
      return;
    }
    const begin = performance.now();
    const status = this.#writeSync(bio, length);
    if (!this.#inMemory && performance.now() - begin > SLOW_WRITE_MS) {
      this.#writesByPool = WRITES_BY_POOL_AFTER_SLOW;
    }
    bio.end(status);
  }

  #mayWriteInline(at: number, length: number): boolean {
    if (length > INLINE_WRITE_BYTES_MAX) return false;
    if (this.#inMemory) return true;
    if (this.#writesByPool > 0) {
      this.#writesByPool--;
      return false;
    }
    // A write of part of a page may have to read the page first.
    return at % PAGE_BYTES === 0 && length % PAGE_BYTES === 0;
  }

  #writeSync(bio: Bio, length: number): number {
    const at = bio.sector * SECTOR_SIZE;
    for (let done = 0; done < length;) {
      try {
        done += fs.writeSync(this.#fd, bio.data, bio.dataOffset + done, length - done, at + done);
      } catch (error) {
        return errno[errnoOf(error)];
      }
    }
    this.#nrChanges++;
    return 0;
  }

  // --- the thread pool

  #takeRequest(bio: Bio): PoolRequest {
    const request = this.#requests ?? new PoolRequest(this);
    this.#requests = request.next;
    request.next = null;
    request.bio = bio;
    request.done = 0;
    this.#inFlight++;
    return request;
  }

  /**
   * Ends the request's bio; the request is free again first, because `end` may submit the next bio.
   */
  #finish(request: PoolRequest, status: number): void {
    const bio = request.bio as Bio;
    request.bio = null;
    request.next = this.#requests;
    this.#requests = request;
    this.#inFlight--;
    bio.end(status);
    if (this.#inFlight === 0) this.#idle?.();
  }

  /** Reads or writes what is missing of `bio` after its first `done` bytes. */
  #startTransfer(bio: Bio, done: number): void {
    const request = this.#takeRequest(bio);
    request.done = done;
    this.#transfer(request);
  }

  #transfer(request: PoolRequest): void {
    const bio = request.bio as Bio;
    const at = bio.sector * SECTOR_SIZE + request.done;
    const length = bio.nrSectors * SECTOR_SIZE - request.done;
    const from = bio.dataOffset + request.done;
    if (bio.op === BioOp.READ) {
      fs.read(this.#fd, bio.data, from, length, at, request.afterTransfer);
    } else {
      fs.write(this.#fd, bio.data, from, length, at, request.afterTransfer);
    }
  }

  /** Callback of the thread pool: `bytes` more of a read or write are done. */
  transferred(request: PoolRequest, error: NodeJS.ErrnoException | null, bytes: number): void {
    const bio = request.bio as Bio;
    if (error !== null) {
      this.#finish(request, errno[errnoOf(error)]);
    } else if (bytes === 0) {
      this.#finish(request, errno.EIO);
    } else {
      request.done += bytes;
      if (request.done < bio.nrSectors * SECTOR_SIZE) {
        this.#transfer(request);
      } else if (bio.op === BioOp.READ) {
        this.#finish(request, 0);
      } else {
        this.#nrChanges++;
        if ((bio.flags & BioFlag.FUA) !== 0) this.#sync(request);
        else this.#finish(request, 0);
      }
    }
  }

  // --- flush

  #flush(bio: Bio): void {
    if (this.#nrDurable === this.#nrChanges) bio.end(0);
    else this.#sync(this.#takeRequest(bio));
  }

  /** Ends the request after an fdatasync that begins now or later. */
  #sync(request: PoolRequest): void {
    this.#waitingForSync.push(request);
    if (this.#syncing === null) this.#startSync();
  }

  #startSync(): void {
    this.#syncing = this.#waitingForSync;
    this.#waitingForSync = [];
    // A write that ends while fdatasync runs may not be covered by it.
    this.#nrSyncing = this.#nrChanges;
    fs.fdatasync(this.#fd, this.#afterSync);
  }

  readonly #afterSync = (error: NodeJS.ErrnoException | null): void => {
    let ended = this.#syncing as PoolRequest[];
    this.#syncing = null;
    if (error === null) {
      this.#nrDurable = this.#nrSyncing;
      if (this.#waitingForSync.length > 0) this.#startSync();
    } else {
      // The kernel tells of lost data once: the next fdatasync would hide it from those who wait.
      ended = ended.concat(this.#waitingForSync.splice(0));
    }
    const status = error === null ? 0 : errno[errnoOf(error)];
    for (const request of ended) this.#finish(request, status);
  };

  // --- discard and write-zeroes

  #deallocate(bio: Bio): void {
    const offset = bio.sector * SECTOR_SIZE;
    const length = bio.nrSectors * SECTOR_SIZE;
    const discard = bio.op === BioOp.DISCARD;
    if (discard && this.limits.maxDiscardSectors === 0) {
      bio.end(errno.EOPNOTSUPP);
      return;
    }
    if (native === null) {
      this.#writeZeroes(this.#takeRequest(bio));
      return;
    }
    const request = this.#takeRequest(bio);
    if (discard && this.isBlockSpecial) {
      native.blkDiscard(this.#fd, offset, length, (result) => this.#deallocated(request, result));
      return;
    }
    const keep = !discard && (bio.flags & BioFlag.NOUNMAP) !== 0;
    const mode = FALLOC_FL_KEEP_SIZE | (keep ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
    const done = (result: number): void => {
      if (result === 0 || discard) this.#deallocated(request, result);
      else this.#writeZeroes(request);
    };
    if (this.#inMemory && !keep) done(native.fallocateSync(this.#fd, mode, offset, length));
    else native.fallocate(this.#fd, mode, offset, length, done);
  }

  #deallocated(request: PoolRequest, result: number): void {
    this.#nrChanges++;
    this.#finish(request, result < 0 ? -result : 0);
  }

  /** Writes zeroes where the file system cannot make them. */
  #writeZeroes(request: PoolRequest): void {
    const { sector, nrSectors } = request.bio as Bio;
    const end = (sector + nrSectors) * SECTOR_SIZE;
    let at = sector * SECTOR_SIZE;
    const step = (error: NodeJS.ErrnoException | null, bytes: number): void => {
      at += bytes;
      if (error === null && at < end) {
        fs.write(this.#fd, ZERO_BUFFER, 0, Math.min(ZERO_BUFFER.length, end - at), at, step);
      } else {
        this.#deallocated(request, error === null ? 0 : -errno[errnoOf(error)]);
      }
    };
    step(null, 0);
  }
}
