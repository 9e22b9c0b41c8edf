/**
 * Trim and write-zeroes (spec: nbd, 5, Command semantics).
 *
 *   write-zeroes ─┬─ parts of logical blocks at both ends: written
 *                 └─ whole blocks: ─┬─ the device can zero: it does, and keeps or frees the space
 *                                   ├─ holes read as zeroes: discarded, and what is left written
 *                                   └─ else: written
 *
 * A range is never discarded, nor left alone for reading as zeroes, where it would not stay zeroes
 * once a part of it is written: over an external origin, and in a pool that does not zero new
 * blocks.
 */
import { DmError } from '../base/error.ts';
import { errnoName } from '../base/errno.ts';
import { roundDown, roundUp, SECTOR_SIZE } from '../base/numbers.ts';
import { BioFlag, BioOp } from '../block/bio.ts';
import { zeroRange } from '../block/copy.ts';
import { flushDevice, request as submit, type BlockDevice } from '../block/device.ts';
import type { CommandContext } from './commands.ts';
import { blocksInside, firstNonZero, isZero, type SectorRange } from './extents.ts';
import { holdSectors, writeBytes } from './partial-blocks.ts';
import { CommandFlag } from './protocol.ts';
import type { Request } from './request.ts';

/** Discards the whole logical blocks inside the range. */
export async function trim({ device }: CommandContext, request: Request): Promise<void> {
  await discardSectors(device, blocksInside(device, request.offset, request.length));
  if ((request.flags & CommandFlag.FUA) !== 0) await flushDevice(device);
}

/** Cuts lie where the device's units end, so that none is lost to both of its parts. */
async function discardSectors(device: BlockDevice, { begin, end }: SectorRange): Promise<void> {
  const { maxDiscardSectors, discardGranularity } = device.limits;
  if (maxDiscardSectors === 0) throw new DmError('EOPNOTSUPP', `${device.name} does not discard`);
  const granule = Math.max(discardGranularity / SECTOR_SIZE, 1);
  for (let at = begin; at < end;) {
    const furthest = at + maxDiscardSectors;
    const cut = roundDown(furthest, granule) > at ? roundDown(furthest, granule) : furthest;
    const until = Math.min(cut, end);
    await submit(device, BioOp.DISCARD, at, until - at);
    at = until;
  }
}

/** Makes the range read as zeroes. */
export async function writeZeroes(context: CommandContext, request: Request): Promise<void> {
  const { device, ranges } = context;
  const { offset, length, flags } = request;
  const mayUnmap = (flags & CommandFlag.NO_HOLE) === 0 && canUnmap(device);
  if ((flags & CommandFlag.FAST_ZERO) !== 0 && !(mayUnmap && isFast(device, offset, length))) {
    throw new DmError('EOPNOTSUPP', 'zeroing the range would not be fast');
  }
  const inside = blocksInside(device, offset, length);
  await zeroEdges(context, offset, length, inside, mayUnmap);
  if (inside.begin < inside.end) {
    // A partial write beside us must not bring back what it read before.
    const release = await holdSectors(ranges, inside.begin, inside.end, false);
    try {
      await zeroBlocks(device, inside, mayUnmap, flags);
    } finally {
      release();
    }
  }
  if ((flags & CommandFlag.FUA) !== 0) await flushDevice(device);
}

/** Whether discarded blocks are holes that read as zeroes, and stay so when written in part. */
function canUnmap({ limits }: BlockDevice): boolean {
  return limits.discardZeroes && limits.maxDiscardSectors > 0;
}

/** Whether all that a discard would leave over reads as zeroes already. */
function isFast(device: BlockDevice, offset: number, length: number): boolean {
  const granule = Math.max(device.limits.discardGranularity, SECTOR_SIZE);
  const begin = Math.min(roundUp(offset, granule), offset + length);
  const end = Math.max(roundDown(offset + length, granule), begin);
  return isZero(device, offset, begin) && isZero(device, end, offset + length);
}

/** Zeroes the parts of logical blocks at both ends of a range. */
async function zeroEdges(
  context: CommandContext,
  offset: number,
  length: number,
  inside: SectorRange,
  mayUnmap: boolean,
): Promise<void> {
  const end = offset + length;
  const insideBegin = inside.begin * SECTOR_SIZE;
  const insideEnd = inside.end * SECTOR_SIZE;
  const edges = insideBegin < insideEnd ? [offset, insideBegin, insideEnd, end] : [offset, end];
  for (let i = 0; i < edges.length; i += 2) {
    const [from = 0, to = 0] = edges.slice(i);
    if (from === to || (mayUnmap && isZero(context.device, from, to))) continue;
    await writeBytes(context, from, new Uint8Array(to - from), 0);
  }
}

async function zeroBlocks(
  device: BlockDevice,
  range: SectorRange,
  mayUnmap: boolean,
  flags: number,
): Promise<void> {
  if (device.limits.maxWriteZeroesSectors > 0 || !mayUnmap) {
    const keep = (flags & CommandFlag.NO_HOLE) !== 0;
    await zeroSectors(device, range, keep ? BioFlag.NOUNMAP : 0);
    return;
  }
  await discardSectors(device, range);
  let { begin } = range;
  for (;;) {
    const part = firstNonZero(device, { begin, end: range.end });
    if (part === null) return;
    await zeroSectors(device, part, 0);
    begin = part.end;
  }
}

async function zeroSectors(device: BlockDevice, range: SectorRange, flags: number): Promise<void> {
  const { begin, end } = range;
  const status = await new Promise<number>((resolve) =>
    zeroRange(device, begin, end - begin, flags, resolve),
  );
  if (status !== 0) throw new DmError(errnoName(status), 'zeroing failed');
}
