/**
 * The commands that are not worth a fast path: trim, write-zeroes, cache, block status, and reads
 * and writes of parts of logical blocks (spec: nbd, 5).
 */
import { codeOf } from '../base/error.ts';
import type { BlockDevice } from '../block/device.ts';
import { answerBlockStatus } from './block-status.ts';
import { readPart, writePart } from './partial-blocks.ts';
import { prefetch } from './prefetch.ts';
import { Command } from './protocol.ts';
import type { Request } from './request.ts';
import type { WriteRanges } from './write-ranges.ts';
import { trim, writeZeroes } from './zeroing.ts';

/** What the commands need of the transmission. */
export interface CommandContext {
  readonly device: BlockDevice;
  readonly ranges: WriteRanges;
  /** Extended headers have been agreed on. */
  readonly isExtended: boolean;
  /** The client has gone, or is about to. */
  readonly isClientGone: boolean;
  /** Extents have been looked at, before returning: so much at once is enough for a while. */
  lookedAt(nrExtents: number): void;
  /** Makes room for a read's data; returns where it begins in the request's reply slab. */
  reserveRead(request: Request): number;
  /** Answers the command, with an errno number or 0. */
  finish(request: Request, status: number): void;
  finishWithChunk(request: Request, type: number, payload: Uint8Array): void;
}

/** Carries out a command and answers it. */
export function runCommand(context: CommandContext, request: Request): void {
  if (request.type === Command.BLOCK_STATUS) {
    answerBlockStatus(context, request);
    return;
  }
  workOf(context, request).then(
    () => context.finish(request, 0),
    (error: unknown) => context.finish(request, codeOf(error)),
  );
}

function workOf(context: CommandContext, request: Request): Promise<void> {
  switch (request.type) {
    case Command.READ:
      return readPart(context, request);
    case Command.WRITE:
      return writePart(context, request);
    case Command.TRIM:
      return trim(context, request);
    case Command.CACHE:
      return prefetch(context, request);
    default:
      return writeZeroes(context, request);
  }
}
