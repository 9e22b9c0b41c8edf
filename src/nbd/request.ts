/**
 * Request: one NBD command of one connection, pooled; with the bio and the memory that it needs.
 * Hot path: everything it carries is set in the constructor once.
 */
import { U32 } from '../base/numbers.ts';
import { Bio } from '../block/bio.ts';
import type { Slab } from './slab.ts';
import type { WriteRange } from './write-ranges.ts';

const NO_BYTES = Buffer.alloc(0);

export class Request implements WriteRange {
  type = 0;
  flags = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offsetHigh = 0;
  offsetLow = 0;
  /** In bytes; rounded above 2^53, where it is past the end of anything. */
  length = 0;
  /** Bytes of payload that follow the header. */
  payloadBytes = 0;
  /** The payload: `payloadBytes` of `payload` from `payloadBegin`; `payloadSlab` is held. */
  payload: Buffer = NO_BYTES;
  payloadBegin = 0;
  payloadSlab: Slab | null = null;
  /** A read's room: header and data from `replyBegin`; held. */
  replySlab: Slab | null = null;
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

  /** In bytes; rounded above 2^53, where it is past the end of anything. */
  get offset(): number {
    return this.offsetHigh * U32 + this.offsetLow;
  }

  /** Lets go of the payload's and the reply's memory; its slabs have been released. */
  reset(): void {
    this.payload = NO_BYTES;
    this.payloadSlab = null;
    this.replySlab = null;
    this.bio.data = NO_BYTES;
  }
}
