/**
 * The commands that are not worth a fast path: trim, write-zeroes, cache, block status, and reads
 * and writes of parts of sectors (spec: nbd, 5).
 */
import { codeOf, DmError } from '../base/error.ts';
import { errno, errnoName } from '../base/errno.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { BioFlag, BioOp } from '../block/bio.ts';
import { zeroRange } from '../block/copy.ts';
import { ExtentFlag, flushDevice, request as submit, type BlockDevice } from '../block/device.ts';
import { BASE_ALLOCATION_ID, Chunk, Command, CommandFlag } from './protocol.ts';
import type { Request } from './request.ts';
import type { WriteRanges } from './write-ranges.ts';

/** What the commands need of the transmission. */
export interface CommandContext {
  readonly device: BlockDevice;
  readonly ranges: WriteRanges;
  readonly baseAllocation: boolean;
  reserveRead(request: Request): void;
  dataBegin(request: Request): number;
  finishRead(request: Request, status: number): void;
  finish(request: Request, status: number): void;
  finishWithChunk(request: Request, type: number, payload: Uint8Array): void;
}

/**
 * Extents looked at for one block-status reply: more work is done for the client's next request.
 */
const EXTENTS_LOOKED_AT_MAX = 16384;
/** Extents in one reply. */
const EXTENTS_SENT_MAX = 8192;
/** A 32-bit extent length. */
const EXTENT_BYTES_MAX = 0x1_0000_0000;
/** The cache command reads so much at a time. */
const CACHE_BYTES = 256 * 1024;

/** Carries out a command and answers it. */
export function runCommand(context: CommandContext, request: Request): void {
  if (request.type === Command.BLOCK_STATUS) {
    blockStatus(context, request);
    return;
  }
  const work = workOf(context, request);
  work.then(
    () => done(context, request, 0),
    (error: unknown) => done(context, request, codeOf(error)),
  );
}

function done(context: CommandContext, request: Request, status: number): void {
  if (request.type === Command.READ) context.finishRead(request, status);
  else context.finish(request, status);
}

function workOf(context: CommandContext, request: Request): Promise<void> {
  switch (request.type) {
    case Command.READ:
      return partialRead(context, request);
    case Command.WRITE:
      return partialWrite(context, request);
    case Command.TRIM:
      return trim(context, request);
    case Command.CACHE:
      return cache(context, request);
    default:
      return writeZeroes(context, request);
  }
}

// --- parts of sectors

/** The whole logical blocks around a range of bytes, in sectors. */
function blocksAround(device: BlockDevice, offset: number, length: number): Range {
  const block = device.limits.logicalBlockSize;
  const begin = Math.floor(offset / block) * (block / SECTOR_SIZE);
  const end = Math.ceil((offset + length) / block) * (block / SECTOR_SIZE);
  return { begin, end: Math.min(end, device.sizeSectors) };
}

/** The whole logical blocks inside a range of bytes, in sectors; may be empty. */
function blocksInside(device: BlockDevice, offset: number, length: number): Range {
  const block = device.limits.logicalBlockSize;
  const begin = Math.ceil(offset / block) * (block / SECTOR_SIZE);
  const end = Math.floor((offset + length) / block) * (block / SECTOR_SIZE);
  return { begin, end: Math.max(begin, end) };
}

interface Range {
  readonly begin: number;
  readonly end: number;
}

async function partialRead(context: CommandContext, request: Request): Promise<void> {
  const { device } = context;
  context.reserveRead(request);
  const { begin, end } = blocksAround(device, request.offset, request.length);
  const bytes = Buffer.allocUnsafe((end - begin) * SECTOR_SIZE);
  await submit(device, BioOp.READ, begin, end - begin, bytes);
  const from = request.offset - begin * SECTOR_SIZE;
  const reply = request.slab as NonNullable<typeof request.slab>;
  bytes.copy(reply.buffer, context.dataBegin(request), from, from + request.length);
}

async function partialWrite(context: CommandContext, request: Request): Promise<void> {
  const { payload, payloadOffset, offset, length } = request;
  const data = payload.subarray(payloadOffset, payloadOffset + length);
  await changeBytes(context, offset, data, (request.flags & CommandFlag.FUA) !== 0);
}

/**
 * Writes bytes at any offset: reads the blocks around them, changes them, writes them, undisturbed.
 */
async function changeBytes(
  context: CommandContext,
  offset: number,
  data: Uint8Array,
  fua: boolean,
): Promise<void> {
  const { device, ranges } = context;
  const { begin, end } = blocksAround(device, offset, data.length);
  const release = await holdRange(ranges, begin, end);
  try {
    const bytes = Buffer.allocUnsafe((end - begin) * SECTOR_SIZE);
    await submit(device, BioOp.READ, begin, end - begin, bytes);
    bytes.set(data, offset - begin * SECTOR_SIZE);
    const flags = fua ? BioFlag.FUA : 0;
    await submit(device, BioOp.WRITE, begin, end - begin, bytes, flags);
  } finally {
    release();
  }
}

/** Waits until nothing else writes to the sectors; returns what lets others go on. */
async function holdRange(
  ranges: WriteRanges,
  beginSector: number,
  endSector: number,
): Promise<() => void> {
  const range = {
    beginSector,
    endSector,
    partial: true,
    previous: null,
    next: null,
    start: (): void => undefined,
  };
  await new Promise<void>((resolve) => {
    range.start = resolve;
    if (ranges.begin(range)) resolve();
  });
  return () => ranges.end(range);
}

// --- trim and write-zeroes

async function trim(context: CommandContext, request: Request): Promise<void> {
  const { device } = context;
  const { begin, end } = blocksInside(device, request.offset, request.length);
  if (begin < end) await submit(device, BioOp.DISCARD, begin, end - begin);
  if ((request.flags & CommandFlag.FUA) !== 0) await flushDevice(device);
}

async function writeZeroes(context: CommandContext, request: Request): Promise<void> {
  const { device } = context;
  const { offset, length, flags } = request;
  const noHole = (flags & CommandFlag.NO_HOLE) !== 0;
  const inside = blocksInside(device, offset, length);
  const unmap = !noHole && device.limits.discardZeroes && device.limits.maxDiscardSectors > 0;
  if ((flags & CommandFlag.FAST_ZERO) !== 0 && !(unmap && isFast(device, offset, length))) {
    throw new DmError('EOPNOTSUPP', 'zeroing the range would not be fast');
  }
  await zeroEdges(context, offset, length, inside);
  if (inside.begin < inside.end) {
    if (unmap) await submit(device, BioOp.DISCARD, inside.begin, inside.end - inside.begin);
    await zeroSectors(device, inside, noHole);
  }
  if ((flags & CommandFlag.FUA) !== 0) await flushDevice(device);
}

/** Whether all that a discard leaves over reads as zeroes already. */
function isFast(device: BlockDevice, offset: number, length: number): boolean {
  const granule = device.limits.discardGranularity;
  const begin = Math.min(Math.ceil(offset / granule) * granule, offset + length);
  const end = Math.max(Math.floor((offset + length) / granule) * granule, begin);
  return isZero(device, offset, begin) && isZero(device, end, offset + length);
}

/** Whether bytes `[begin, end)` are known to read as zeroes. */
function isZero(device: BlockDevice, begin: number, end: number): boolean {
  if (begin >= end) return true;
  const around = blocksAround(device, begin, end - begin);
  let zero = true;
  device.blockStatus(around.begin, around.end - around.begin, (_n, flags) => {
    zero = (flags & ExtentFlag.ZERO) !== 0;
    return zero;
  });
  return zero;
}

/** Zeroes the parts of blocks at both ends of a range. */
async function zeroEdges(
  context: CommandContext,
  offset: number,
  length: number,
  inside: Range,
): Promise<void> {
  const end = offset + length;
  const edges =
    inside.begin < inside.end
      ? [
          { from: offset, to: inside.begin * SECTOR_SIZE },
          { from: inside.end * SECTOR_SIZE, to: end },
        ]
      : [{ from: offset, to: end }];
  for (const { from, to } of edges) {
    if (to <= from || isZero(context.device, from, to)) continue;
    await changeBytes(context, from, new Uint8Array(to - from), false);
  }
}

/** Zeroes what does not read as zeroes yet; all of it if it is to be provisioned. */
async function zeroSectors(device: BlockDevice, range: Range, noHole: boolean): Promise<void> {
  for (let at = range.begin; at < range.end;) {
    const part = noHole ? range : nextNonZero(device, at, range.end);
    if (part === null) return;
    const flags = noHole ? BioFlag.NOUNMAP : 0;
    const status = await new Promise<number>((resolve) =>
      zeroRange(device, part.begin, part.end - part.begin, flags, resolve),
    );
    if (status !== 0) throw new DmError(errnoName(status), 'zeroing failed');
    at = part.end;
  }
}

/** The first part of `[at, end)` that is not known to read as zeroes. */
function nextNonZero(device: BlockDevice, at: number, end: number): Range | null {
  let found: Range | null = null;
  device.blockStatus(at, end - at, (n, flags) => {
    const partEnd = Math.min(at + n, end);
    if ((flags & ExtentFlag.ZERO) === 0) found = { begin: at, end: partEnd };
    at = partEnd;
    return found === null && at < end;
  });
  return found;
}

// --- cache

/** Reads the range once, so that later reads find it in memory; holes are skipped. */
async function cache(context: CommandContext, request: Request): Promise<void> {
  const { device } = context;
  const { begin, end } = blocksAround(device, request.offset, request.length);
  const bytes = Buffer.allocUnsafe(CACHE_BYTES);
  for (let at = begin; at < end;) {
    const part = nextNonZero(device, at, end);
    if (part === null) return;
    const n = Math.min(part.end - part.begin, CACHE_BYTES / SECTOR_SIZE);
    await submit(device, BioOp.READ, part.begin, n, bytes);
    at = part.begin + n;
  }
}

// --- block status

function blockStatus(context: CommandContext, request: Request): void {
  if (!context.baseAllocation || request.length === 0) {
    context.finish(request, errno.EINVAL);
    return;
  }
  const extents = findExtents(context.device, request);
  const payload = Buffer.alloc(4 + extents.length * 8);
  payload.writeUInt32BE(BASE_ALLOCATION_ID, 0);
  for (const [i, { bytes, flags }] of extents.entries()) {
    payload.writeUInt32BE(bytes, 4 + i * 8);
    payload.writeUInt32BE(flags, 8 + i * 8);
  }
  context.finishWithChunk(request, Chunk.BLOCK_STATUS, payload);
}

interface Extent {
  bytes: number;
  readonly flags: number;
}

/** Extents from the request's offset on, equal neighbours merged, all inside the request. */
function findExtents(device: BlockDevice, request: Request): Extent[] {
  const { offset, length } = request;
  const one = (request.flags & CommandFlag.REQ_ONE) !== 0;
  const { begin, end } = blocksAround(device, offset, length);
  const extents: Extent[] = [];
  let nrLookedAt = 0;
  let at = begin * SECTOR_SIZE;
  device.blockStatus(begin, end - begin, (n, flags) => {
    const from = Math.max(at, offset);
    at += n * SECTOR_SIZE;
    const bytes = Math.min(at, offset + length) - from;
    const last = extents.at(-1);
    if (last?.flags === flags && last.bytes + bytes < EXTENT_BYTES_MAX) last.bytes += bytes;
    else if (last !== undefined && (one || extents.length === EXTENTS_SENT_MAX)) return false;
    else extents.push({ bytes, flags });
    return at < offset + length && ++nrLookedAt < EXTENTS_LOOKED_AT_MAX;
  });
  return extents;
}
