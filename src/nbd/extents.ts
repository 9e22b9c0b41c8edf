/**
 * Ranges of a device, in bytes as clients name them and in sectors as devices do, and what is known
 * of them without reading.
 */
import { divDown, divUp, SECTOR_SIZE } from '../base/numbers.ts';
import { ExtentFlag, type BlockDevice } from '../block/device.ts';

/** Sectors `[begin, end)`. */
export interface SectorRange {
  readonly begin: number;
  readonly end: number;
}

/** The whole logical blocks around a range of bytes. */
export function blocksAround(device: BlockDevice, offset: number, length: number): SectorRange {
  const block = device.limits.logicalBlockSize;
  const perBlock = block / SECTOR_SIZE;
  const end = divUp(offset + length, block) * perBlock;
  return { begin: divDown(offset, block) * perBlock, end: Math.min(end, device.sizeSectors) };
}

/** The whole logical blocks inside a range of bytes; none, at `begin`, if there are none. */
export function blocksInside(device: BlockDevice, offset: number, length: number): SectorRange {
  const block = device.limits.logicalBlockSize;
  const perBlock = block / SECTOR_SIZE;
  const begin = divUp(offset, block) * perBlock;
  const end = divDown(offset + length, block) * perBlock;
  return { begin, end: Math.max(begin, end) };
}

/** A part that is found is not followed beyond this many sectors: that is work for later. */
const PART_SECTORS_MAX = 32768;

/** The first part of `range` that is not known to read as zeroes; null if all of it does. */
export function firstNonZero(device: BlockDevice, range: SectorRange): SectorRange | null {
  if (range.begin >= range.end) return null;
  let at = range.begin;
  let begin = -1;
  let end = -1;
  device.blockStatus(at, range.end - at, (n, flags) => {
    const zero = (flags & ExtentFlag.ZERO) !== 0;
    if (zero && begin >= 0) return false;
    if (!zero && begin < 0) begin = at;
    at = Math.min(at + n, range.end);
    if (!zero) end = at;
    return at < range.end && (begin < 0 || end - begin < PART_SECTORS_MAX);
  });
  return begin < 0 ? null : { begin, end };
}

/** Whether bytes `[begin, end)` are known to read as zeroes; true for none. */
export function isZero(device: BlockDevice, begin: number, end: number): boolean {
  const range = { begin: divDown(begin, SECTOR_SIZE), end: divUp(end, SECTOR_SIZE) };
  return begin >= end || firstNonZero(device, range) === null;
}
