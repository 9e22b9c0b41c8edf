/**
 * The cache command: reads a range once, so that later reads find it in memory. Holes are skipped.
 */
import { SECTOR_SIZE } from '../base/numbers.ts';
import { BioOp } from '../block/bio.ts';
import { request as submit } from '../block/device.ts';
import type { CommandContext } from './commands.ts';
import { blocksAround, firstNonZero } from './extents.ts';
import type { Request } from './request.ts';

/** So much is read at a time. */
const PIECE_BYTES = 256 * 1024;
const PIECE_SECTORS = PIECE_BYTES / SECTOR_SIZE;

/** Where everything is read to: nobody looks at it. */
const NOWHERE = new Uint8Array(PIECE_BYTES);

/** Reads the request's range, until the client has gone. */
export async function prefetch(context: CommandContext, request: Request): Promise<void> {
  const { device } = context;
  const { begin, end } = blocksAround(device, request.offset, request.length);
  for (let at = begin; at < end;) {
    const part = firstNonZero(device, { begin: at, end });
    if (part === null) return;
    for (at = part.begin; at < part.end; at += PIECE_SECTORS) {
      if (context.isClientGone) return;
      await submit(device, BioOp.READ, at, Math.min(PIECE_SECTORS, part.end - at), NOWHERE);
    }
    at = part.end;
  }
}
