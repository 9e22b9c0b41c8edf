/**
 * What a file or block special file can do: size and limits, from the file system, sysfs and
 * ioctls.
 */
import fs from 'node:fs';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { plainLimits, type Limits } from './device.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, native } from './native.ts';

const PAGE_BYTES = 4096;
/** As the loop device announces: the largest multiple of a sector below 4 GiB. */
const MAX_DISCARD_SECTORS = 0x7f_ffff;

/** The limits of the file open as `fd`. */
export function findLimits(fd: number, stat: fs.Stats, readOnly: boolean): Limits {
  return stat.isBlockDevice() ? blockSpecialLimits(fd) : fileLimits(fd, stat.blksize, readOnly);
}

function fileLimits(fd: number, blksize: number, readOnly: boolean): Limits {
  const limits = plainLimits();
  if (native !== null && (readOnly || canPunchHoles(fd))) {
    limits.discardGranularity = Math.max(blksize, SECTOR_SIZE);
    limits.maxDiscardSectors = MAX_DISCARD_SECTORS;
    limits.maxWriteZeroesSectors = MAX_DISCARD_SECTORS;
    limits.discardZeroes = true;
  }
  return limits;
}

/** Tried beyond the end of the file, where it changes nothing. */
function canPunchHoles(fd: number): boolean {
  const { size } = fs.fstatSync(fd);
  const at = Math.ceil(size / PAGE_BYTES + 1) * PAGE_BYTES;
  const mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
  return native !== null && native.fallocateSync(fd, mode, at, PAGE_BYTES) === 0;
}

function blockSpecialLimits(fd: number): Limits {
  const size = native?.blkLogicalBlockSize(fd) ?? SECTOR_SIZE;
  const limits = plainLimits(size > 0 ? size : SECTOR_SIZE);
  if (native === null) return limits;
  const sysfs = sysfsOf(fd);
  const queue = fs.existsSync(`${sysfs}/queue`) ? `${sysfs}/queue` : `${sysfs}/../queue`;
  const maxBytes = readNumber(`${queue}/discard_max_bytes`);
  limits.discardGranularity = maxBytes > 0 ? readNumber(`${queue}/discard_granularity`) : 0;
  limits.maxDiscardSectors = Math.floor(maxBytes / SECTOR_SIZE);
  limits.maxWriteZeroesSectors = MAX_DISCARD_SECTORS;
  return limits;
}

/** Size in bytes of the block special file open as `fd`. */
export function blockSpecialSize(fd: number): number {
  const size = native?.blkSizeBytes(fd) ?? -1;
  return size >= 0 ? size : readNumber(`${sysfsOf(fd)}/size`) * SECTOR_SIZE;
}

/** The directory of a block device in sysfs, by its device number. */
function sysfsOf(fd: number): string {
  const { rdev } = fs.fstatSync(fd);
  return `/sys/dev/block/${majorOf(rdev)}:${minorOf(rdev)}`;
}

/** The major number in a Linux dev_t. */
export function majorOf(dev: number): number {
  return Math.floor(dev / 256) % 4096;
}

/** The minor number in a Linux dev_t: low 8 bits, and the bits above the major. */
export function minorOf(dev: number): number {
  return (dev % 256) + Math.floor(dev / 1_048_576) * 256;
}

function readNumber(path: string): number {
  try {
    return Number(fs.readFileSync(path, 'utf8'));
  } catch {
    return 0;
  }
}
