/**
 * Reads and writes of parts of logical blocks: the whole blocks around are read, changed and
 * written, while nothing else writes to them.
 */
import { SECTOR_SIZE } from '../base/numbers.ts';
import { BioFlag, BioOp } from '../block/bio.ts';
import { request as submit, type BlockDevice } from '../block/device.ts';
import type { CommandContext } from './commands.ts';
import { blocksAround } from './extents.ts';
import { CommandFlag } from './protocol.ts';
import type { Request } from './request.ts';
import type { Slab } from './slab.ts';
import type { WriteRanges } from './write-ranges.ts';

/** Reads any range of bytes into the request's reply. */
export async function readPart(context: CommandContext, request: Request): Promise<void> {
  const { device } = context;
  const { offset, length } = request;
  const at = context.reserveRead(request);
  const { begin, end } = blocksAround(device, offset, length);
  const bytes = Buffer.allocUnsafe((end - begin) * SECTOR_SIZE);
  await submit(device, BioOp.READ, begin, end - begin, bytes);
  const from = offset - begin * SECTOR_SIZE;
  bytes.copy((request.replySlab as Slab).buffer, at, from, from + length);
}

/** Writes the request's payload to any range of bytes. */
export async function writePart(context: CommandContext, request: Request): Promise<void> {
  const { payload, payloadBegin, payloadBytes, offset } = request;
  const data = payload.subarray(payloadBegin, payloadBegin + payloadBytes);
  const flags = (request.flags & CommandFlag.FUA) === 0 ? 0 : BioFlag.FUA;
  await writeBytes(context, offset, data, flags);
}

/** Writes bytes at any offset. `flags` are BioFlag bits. */
export async function writeBytes(
  context: CommandContext,
  offset: number,
  data: Uint8Array,
  flags: number,
): Promise<void> {
  const { device, ranges } = context;
  const { begin, end } = blocksAround(device, offset, data.length);
  const release = await holdSectors(ranges, begin, end, true);
  try {
    const bytes = Buffer.allocUnsafe((end - begin) * SECTOR_SIZE);
    await readEdges(device, begin, end, bytes);
    bytes.set(data, offset - begin * SECTOR_SIZE);
    await submit(device, BioOp.WRITE, begin, end - begin, bytes, flags);
  } finally {
    release();
  }
}

/** Reads the first and the last logical block of a range to their places in `bytes`. */
async function readEdges(
  device: BlockDevice,
  begin: number,
  end: number,
  bytes: Buffer,
): Promise<void> {
  const perBlock = device.limits.logicalBlockSize / SECTOR_SIZE;
  const first = Math.min(perBlock, end - begin);
  await submit(device, BioOp.READ, begin, first, bytes);
  const last = Math.max(begin + first, end - perBlock);
  if (last === end) return;
  const at = (last - begin) * SECTOR_SIZE;
  await submit(device, BioOp.READ, last, end - last, bytes.subarray(at));
}

/**
 * Waits until the sectors may be written to: with `partial`, until nothing else writes to them;
 * without, until no partial write does. Resolves to what lets others go on.
 */
export async function holdSectors(
  ranges: WriteRanges,
  beginSector: number,
  endSector: number,
  partial: boolean,
): Promise<() => void> {
  const range = {
    beginSector,
    endSector,
    partial,
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
