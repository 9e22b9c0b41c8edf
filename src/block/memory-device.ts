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

const CHUNK_BYTES = 65536;
const CHUNK_SECTORS = CHUNK_BYTES / SECTOR_SIZE;
const ZERO_CHUNK = new Uint8Array(CHUNK_BYTES);

export class MemoryDevice implements BlockDevice {
  readonly name: string;
  readonly readOnly: boolean;
  readonly limits: Limits;
  #sizeSectors: number;
  readonly #chunks = new Map<number, Uint8Array>();

  constructor(
    name: string,
    sizeSectors: number,
    options: { readOnly?: boolean; limits?: Partial<Limits> } = {},
  ) {
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
    if (sizeSectors < this.#sizeSectors) this.#clear(sizeSectors, this.#sizeSectors - sizeSectors);
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
    switch (bio.op) {
      case BioOp.READ:
        this.#copyOut(bio.sector, bio.nrSectors, bio.data, bio.dataOffset);
        break;
      case BioOp.WRITE:
        this.#copyIn(bio.sector, bio.nrSectors, bio.data, bio.dataOffset);
        break;
      case BioOp.DISCARD:
      case BioOp.WRITE_ZEROES:
        this.#clear(bio.sector, bio.nrSectors);
        break;
      case BioOp.FLUSH:
        break;
    }
    bio.end(0);
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    if (sector + nrSectors > this.#sizeSectors) return errno.EIO;
    this.#copyOut(sector, nrSectors, data, dataOffset);
    return 0;
  }

  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    const end = Math.min(sector + nrSectors, this.#sizeSectors);
    while (sector < end) {
      const index = Math.floor(sector / CHUNK_SECTORS);
      const n = Math.min((index + 1) * CHUNK_SECTORS, end) - sector;
      const hole = !this.#chunks.has(index);
      if (!visit(n, hole ? ExtentFlag.HOLE | ExtentFlag.ZERO : 0)) return;
      sector += n;
    }
  }

  /** The bytes of allocated chunks; what the device costs in memory. */
  get allocatedBytes(): number {
    return this.#chunks.size * CHUNK_BYTES;
  }

  #copyOut(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): void {
    this.#eachPiece(sector, nrSectors, (index, from, bytes, done) => {
      const chunk = this.#chunks.get(index) ?? ZERO_CHUNK;
      data.set(chunk.subarray(from, from + bytes), dataOffset + done);
    });
  }

  #copyIn(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): void {
    this.#eachPiece(sector, nrSectors, (index, from, bytes, done) => {
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) {
        chunk = new Uint8Array(CHUNK_BYTES);
        this.#chunks.set(index, chunk);
      }
      chunk.set(data.subarray(dataOffset + done, dataOffset + done + bytes), from);
    });
  }

  #clear(sector: number, nrSectors: number): void {
    this.#eachPiece(sector, nrSectors, (index, from, bytes) => {
      if (bytes === CHUNK_BYTES) this.#chunks.delete(index);
      else this.#chunks.get(index)?.fill(0, from, from + bytes);
    });
  }

  /**
   * Calls `visit(chunk index, offset in it, bytes, bytes done before)` for each chunk of the range.
   */
  #eachPiece(
    sector: number,
    nrSectors: number,
    visit: (index: number, from: number, bytes: number, done: number) => void,
  ): void {
    let done = 0;
    const total = nrSectors * SECTOR_SIZE;
    while (done < total) {
      const at = sector * SECTOR_SIZE + done;
      const index = Math.floor(at / CHUNK_BYTES);
      const from = at - index * CHUNK_BYTES;
      const bytes = Math.min(CHUNK_BYTES - from, total - done);
      visit(index, from, bytes, done);
      done += bytes;
    }
  }
}
