/**
 * Request: one NBD command of one connection, pooled; with the bio and the reply room that it
 * needs. Hot path: everything it carries is set in the constructor once.
 */
import { Bio } from '../block/bio.ts';
import type { Slab } from './reply-buffer.ts';
import type { WriteRange } from './write-ranges.ts';

const NO_BYTES = Buffer.alloc(0);

export class Request implements WriteRange {
  type = 0;
  flags = 0;
  cookieHigh = 0;
  cookieLow = 0;
  /** In bytes; rounded above 2^53, where it is past the end of anything. */
  offset = 0;
  length = 0;
  /** A write's data: `length` bytes of `payload` from `payloadOffset`. */
  payload: Buffer = NO_BYTES;
  payloadOffset = 0;
  /** A read's room: header and data from `replyBegin`. */
  slab: Slab | null = null;
  replyBegin = 0;
  readonly bio = new Bio();
  nextFree: Request | null = null;

  beginSector = 0;
  endSector = 0;
  partial = false;
  previous: WriteRange | null = null;
  next: WriteRange | null = null;
  start: () => void;

  /** `ended` is called when the request's bio has ended, `started` when its range may go on. */
  constructor(ended: (request: Request) => void, started: (request: Request) => void) {
    this.bio.onEnd = () => ended(this);
    this.start = () => started(this);
  }

  /** Lets go of what it carried. */
  reset(): void {
    this.payload = NO_BYTES;
    this.slab = null;
    this.bio.data = NO_BYTES;
  }
}
