/**
 * The block-status command: which parts of a range are allocated, in the terms of base:allocation
 * (spec: nbd, 5, Replies).
 */
import { divDown, divUp, SECTOR_SIZE } from '../base/numbers.ts';
import type { CommandContext } from './commands.ts';
import { BASE_ALLOCATION_ID, Chunk, CommandFlag } from './protocol.ts';
import type { Request } from './request.ts';

/** Extents looked at for one reply: more work is done for the client's next request. */
const LOOKED_AT_MAX = 16384;
/** Extents in one reply. */
const SENT_MAX = 8192;

interface Extent {
  bytes: number;
  readonly flags: number;
}

/** Answers with at least one extent, all inside the request; perhaps only some of its beginning. */
export function answerBlockStatus(context: CommandContext, request: Request): void {
  const extents = findExtents(context, request);
  if (context.isExtended) {
    context.finishWithChunk(request, Chunk.BLOCK_STATUS_EXT, extendedPayload(extents));
  } else {
    context.finishWithChunk(request, Chunk.BLOCK_STATUS, compactPayload(extents));
  }
}

/** Extents from the request's offset on, equal neighbours merged. */
function findExtents(context: CommandContext, request: Request): Extent[] {
  const { offset, length } = request;
  const one = (request.flags & CommandFlag.REQ_ONE) !== 0;
  const begin = divDown(offset, SECTOR_SIZE);
  const end = divUp(offset + length, SECTOR_SIZE);
  const extents: Extent[] = [];
  let nrLookedAt = 0;
  let at = begin * SECTOR_SIZE;
  context.device.blockStatus(begin, end - begin, (n, flags) => {
    nrLookedAt++;
    const from = Math.max(at, offset);
    at += n * SECTOR_SIZE;
    const bytes = Math.min(at, offset + length) - from;
    const last = extents.at(-1);
    if (last?.flags === flags) last.bytes += bytes;
    else if (last !== undefined && (one || extents.length === SENT_MAX)) return false;
    else extents.push({ bytes, flags });
    return at < offset + length && nrLookedAt < LOOKED_AT_MAX;
  });
  context.lookedAt(nrLookedAt);
  return extents;
}

/** A request's length fits 32 bits, and so do the extents inside it. */
function compactPayload(extents: readonly Extent[]): Uint8Array {
  const payload = new DataView(new ArrayBuffer(4 + extents.length * 8));
  payload.setUint32(0, BASE_ALLOCATION_ID);
  for (const [i, { bytes, flags }] of extents.entries()) {
    payload.setUint32(4 + i * 8, bytes);
    payload.setUint32(8 + i * 8, flags);
  }
  return new Uint8Array(payload.buffer);
}

function extendedPayload(extents: readonly Extent[]): Uint8Array {
  const payload = new DataView(new ArrayBuffer(8 + extents.length * 16));
  payload.setUint32(0, BASE_ALLOCATION_ID);
  payload.setUint32(4, extents.length);
  for (const [i, { bytes, flags }] of extents.entries()) {
    payload.setBigUint64(8 + i * 16, BigInt(bytes));
    payload.setBigUint64(16 + i * 16, BigInt(flags));
  }
  return new Uint8Array(payload.buffer);
}
