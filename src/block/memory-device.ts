/**
 * MemoryDevice: a sparse block device in memory, for tests, for scratch pools and as the plainest
 * BlockDevice there is. Everything completes before `submit` returns; nothing survives the process.
 */
import { SECTOR_SIZE } from '../base/numbers.ts';
import { errno } from '../base/errno.ts';
import { BioOp, type Bio } from './bio.ts';
import {
  ExtentFlag,
  plainLimits,
  type BlockDevice,
  type ExtentVisitor,
  type Limits,
} from './device.ts';
import { SparseBytes } from './sparse-bytes.ts';

export class MemoryDevice implements BlockDevice {
  readonly name: string;
  readonly readOnly: boolean;
  readonly limits: Limits;
  #sizeSectors: number;
  readonly #bytes: SparseBytes;

  constructor(
    name: string,
    sizeSectors: number,
    options: { readOnly?: boolean; limits?: Partial<Limits>; bytes?: SparseBytes } = {},
  ) {
    this.#bytes = options.bytes ?? new SparseBytes();
    this.name = name;
    this.#sizeSectors = sizeSectors;
    this.readOnly = options.readOnly ?? false;
    this.limits = {
      ...plainLimits(),
      discardGranularity: SECTOR_SIZE,
      maxDiscardSectors: 0x7f_ffff,
      maxWriteZeroesSectors: 0x7f_ffff,
      discardZeroes: true,
      ...options.limits,
    };
  }

  get sizeSectors(): number {
    return this.#sizeSectors;
  }

  /** Grows or shrinks the device; what lies beyond a smaller size is gone. */
  resize(sizeSectors: number): void {
    const gone = this.#sizeSectors - sizeSectors;
    if (gone > 0) this.#bytes.clear(sizeSectors * SECTOR_SIZE, gone * SECTOR_SIZE);
    this.#sizeSectors = sizeSectors;
  }

  refreshSize(): void {}

  submit(bio: Bio): void {
    if (bio.endSector > this.#sizeSectors) {
      bio.end(errno.EIO);
      return;
    }
    if (bio.isWrite && this.readOnly) {
      bio.end(errno.EPERM);
      return;
    }
    const offset = bio.sector * SECTOR_SIZE;
    const length = bio.nrSectors * SECTOR_SIZE;
    switch (bio.op) {
      case BioOp.READ:
        this.#bytes.read(offset, length, bio.data, bio.dataOffset);
        break;
      case BioOp.WRITE:
        this.#bytes.write(offset, length, bio.data, bio.dataOffset);
        break;
      case BioOp.DISCARD:
      case BioOp.WRITE_ZEROES:
        this.#bytes.clear(offset, length);
        break;
      case BioOp.FLUSH:
        break;
    }
    bio.end(0);
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    if (sector + nrSectors > this.#sizeSectors) return errno.EIO;
    this.#bytes.read(sector * SECTOR_SIZE, nrSectors * SECTOR_SIZE, data, dataOffset);
    return 0;
  }

  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    const chunkSectors = this.#bytes.chunkBytes / SECTOR_SIZE;
    const end = Math.min(sector + nrSectors, this.#sizeSectors);
    while (sector < end) {
      const n = Math.min(chunkSectors - (sector % chunkSectors), end - sector);
      const hole = this.#bytes.isHole(sector * SECTOR_SIZE);
      if (!visit(n, hole ? ExtentFlag.HOLE | ExtentFlag.ZERO : 0)) return;
      sector += n;
    }
  }

  /** The bytes of allocated chunks; what the device costs in memory. */
  get allocatedBytes(): number {
    return this.#bytes.allocatedBytes;
  }
}
