/**
 * BlockDevice: what every floor sees of a disk, and the limits a disk announces.
 * Answers to the kernel's struct block_device and struct queue_limits.
 *
 * Data is asynchronous (`submit`); metadata is read synchronously (`readSync`), which must be
 * short.
 * Does not: name, share or lock devices; see open.ts and the mapper's registry.
 */
import { Bio, BioFlag, BioOp } from './bio.ts';
import { DmError } from '../base/error.ts';
import { errnoName } from '../base/errno.ts';

/**
 * What a device can do and how it likes to be asked. Sizes in bytes, or in sectors where named so.
 */
export interface Limits {
  logicalBlockSize: number;
  physicalBlockSize: number;
  /** Smallest and best request sizes in bytes; 0 is unknown. */
  ioMin: number;
  ioOpt: number;
  /** Discards are done in units of this many bytes; 0 if not supported. */
  discardGranularity: number;
  /** Largest discard; 0 if discards are not supported. */
  maxDiscardSectors: number;
  /** Largest write-zeroes; 0 if the layer above must write zeroes itself. */
  maxWriteZeroesSectors: number;
  /**
   * A discarded range that is a hole afterwards (see blockStatus) reads as zeroes, and goes on to
   * where it is not written.
   */
  discardZeroes: boolean;
}

/** Limits of a plain disk without discards. */
export function plainLimits(logicalBlockSize = 512): Limits {
  return {
    logicalBlockSize,
    physicalBlockSize: logicalBlockSize,
    ioMin: logicalBlockSize,
    ioOpt: 0,
    discardGranularity: 0,
    maxDiscardSectors: 0,
    maxWriteZeroesSectors: 0,
    discardZeroes: false,
  };
}

/** Status bits of an extent, NBD's base:allocation values. */
export const ExtentFlag = {
  /** Nothing is allocated for the range. */
  HOLE: 1,
  /** The range reads as zeroes. */
  ZERO: 2,
} as const;

/**
 * Receives extents in order, without gaps. Returns false to stop early.
 */
export type ExtentVisitor = (nrSectors: number, flags: number) => boolean;

export interface BlockDevice {
  /** The kernel's short name: `dm-3`, `loop0`, or a file's base name. */
  readonly name: string;
  readonly sizeSectors: number;
  readonly readOnly: boolean;
  /** Nobody can write the device, through whatever handle; if absent, it is as `readOnly` says. */
  readonly isWriteProtected?: boolean;
  readonly limits: Limits;

  /**
   * Starts a bio; `bio.end` is called when it is done, possibly before this returns. The range must
   * lie inside the device; a bio that does not ends with EIO.
   */
  submit(bio: Bio): void;

  /**
   * Reads `nrSectors` into `data` at `dataOffset` before returning. Returns 0 or an errno number.
   * For metadata only: it may wait for the disk.
   */
  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number;

  /**
   * Reports which parts of the range are allocated; a device that does not know says all of it is.
   */
  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void;

  /** Looks again how large the device is, where that can change by itself. */
  refreshSize(): void;
}

/** One request as a promise, for the control plane: rejects with a DmError. Not for hot paths. */
export function request(
  device: BlockDevice,
  op: BioOp,
  sector: number,
  nrSectors: number,
  data?: Uint8Array,
  flags = 0,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const bio = new Bio();
    bio.op = op;
    bio.sector = sector;
    bio.nrSectors = nrSectors;
    bio.flags = flags;
    if (data !== undefined) bio.data = data;
    bio.onEnd = (ended) => {
      if (ended.status === 0) resolve();
      else reject(ioError(device, ended));
    };
    device.submit(bio);
  });
}

/** Flushes `device`; rejects with a DmError. */
export function flushDevice(device: BlockDevice): Promise<void> {
  return request(device, BioOp.FLUSH, 0, 0);
}

const opNames: Record<BioOp, string> = {
  [BioOp.READ]: 'read',
  [BioOp.WRITE]: 'write',
  [BioOp.FLUSH]: 'flush',
  [BioOp.DISCARD]: 'discard',
  [BioOp.WRITE_ZEROES]: 'write-zeroes',
};

function ioError(device: BlockDevice, bio: Bio): DmError {
  const name = errnoName(bio.status);
  const fua = (bio.flags & BioFlag.FUA) !== 0 ? ' (FUA)' : '';
  const where = bio.op === BioOp.FLUSH ? '' : ` at sector ${bio.sector} + ${bio.nrSectors}`;
  return new DmError(name, `${device.name}: ${opNames[bio.op]}${fua}${where} failed: ${name}`);
}
