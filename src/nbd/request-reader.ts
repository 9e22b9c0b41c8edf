/**
 * RequestReader: cuts the bytes that a client sends during transmission into requests (spec: nbd,
 * 5). Hot path.
 *
 *   HEADER ──whole──► payload? ──► PAYLOAD (in the slab) ──► request ──► HEADER
 *                        ├─ large ───► LARGE (in a slab of its own) ──► request ──► HEADER
 *                        └─ too long ► DRAIN ──► request, to be refused ──► HEADER
 *
 * Bytes are received into slabs and stay where they are: a write's payload goes to the disk from
 * there. What has been received and not read is at `[#begin, #end)` of the slab; it is moved to the
 * front, or to the front of another slab while writes still use this one, when the rest of the
 * request would not fit behind it. The reader stops between two requests when its consumer says so,
 * and goes on from there.
 * Invariant: `room` always has room, since at most RECEIVE_BYTES_MAX and less than one payload lie
 * unread in a slab.
 * Bytes are hostile: a wrong magic or an absurd length ends the connection.
 */
import { assert } from '../base/error.ts';
import {
  Command,
  CommandFlag,
  EXTENDED_REQUEST_MAGIC,
  extendedRequest,
  PAYLOAD_BYTES_ABSURD,
  PAYLOAD_BYTES_MAX,
  request as compactRequest,
  REQUEST_MAGIC,
} from './protocol.ts';
import type { Request } from './request.ts';
import { SLAB_BYTES, type Slab, type SlabPool } from './slab.ts';

export interface RequestConsumer {
  /** A request to fill. */
  takeRequest(): Request;
  /** A whole request; its payload is there. False: stop reading for now. */
  startRequest(request: Request): boolean;
  /** A request whose payload had no place and has been drained. False as above. */
  refuseRequest(request: Request): boolean;
  /** The client broke the protocol. */
  breakOff(reason: string): void;
}

/** A payload longer than this is received into a slab of its own. */
const LARGE_BYTES = SLAB_BYTES / 2;
/** At most so much is received at once. */
export const RECEIVE_BYTES_MAX = SLAB_BYTES / 4;
/** Little room: it is worth moving a few unread bytes to get more. */
const ROOM_BYTES_MIN = 64 * 1024;
const MOVED_BYTES_FEW = 16 * 1024;

const State = { HEADER: 0, PAYLOAD: 1, LARGE: 2, DRAIN: 3, BROKEN: 4 } as const;

export class RequestReader {
  readonly #pool: SlabPool;
  readonly #consumer: RequestConsumer;
  readonly #extended: boolean;
  readonly #headerBytes: number;
  #state: (typeof State)[keyof typeof State] = State.HEADER;
  #slab: Slab;
  #begin = 0;
  #end = 0;
  /** The request whose payload is being received; in LARGE and DRAIN, how much is missing of it. */
  #request: Request | null = null;
  #missing = 0;
  /** The room given out last is the large payload's. */
  #roomIsLarge = false;

  constructor(pool: SlabPool, consumer: RequestConsumer, extended: boolean) {
    this.#pool = pool;
    this.#consumer = consumer;
    this.#extended = extended;
    this.#headerBytes = extended ? extendedRequest.size : compactRequest.size;
    this.#slab = pool.take(SLAB_BYTES);
  }

  /** Where the next bytes are to be put. */
  room(): Uint8Array {
    const empty = this.#begin === this.#end;
    this.#roomIsLarge = this.#state === State.LARGE && empty;
    if (this.#roomIsLarge) {
      const { payload, payloadBytes } = this.#request as Request;
      return payload.subarray(payloadBytes - this.#missing, payloadBytes);
    }
    if (this.#mustMove()) this.#move();
    const end = Math.min(this.#end + RECEIVE_BYTES_MAX, SLAB_BYTES);
    assert(end > this.#end, 'there is room to receive into');
    return this.#slab.buffer.subarray(this.#end, end);
  }

  /** `bytes` have been put where `room` said. */
  received(bytes: number): void {
    if (this.#roomIsLarge) this.#missing -= bytes;
    else this.#end += bytes;
  }

  /** Takes what came in one go with the last option; before anything else. */
  accept(bytes: Uint8Array): void {
    this.#slab.buffer.set(bytes, 0);
    this.#end = bytes.length;
  }

  #mustMove(): boolean {
    if (this.#begin === 0) return false;
    const room = SLAB_BYTES - this.#end;
    let wanted = 1;
    if (this.#state === State.HEADER) wanted = this.#headerBytes;
    else if (this.#state === State.PAYLOAD) wanted = (this.#request as Request).payloadBytes;
    if (room === 0 || this.#begin + wanted > SLAB_BYTES) return true;
    const few = this.#end - this.#begin <= MOVED_BYTES_FEW;
    return few && (this.#slab.holders === 1 || room < ROOM_BYTES_MIN);
  }

  #move(): void {
    const from = this.#slab;
    const inUse = from.holders > 1;
    const to = inUse ? this.#pool.take(SLAB_BYTES) : from;
    from.buffer.copy(to.buffer, 0, this.#begin, this.#end);
    if (inUse) this.#pool.release(from);
    this.#slab = to;
    this.#end -= this.#begin;
    this.#begin = 0;
  }

  /** Reads requests until what was received is used up or the consumer wants no more. */
  read(): void {
    let more = true;
    while (more) {
      const available = this.#end - this.#begin;
      switch (this.#state) {
        case State.HEADER:
          if (available < this.#headerBytes) return;
          more = this.#readHeader();
          break;
        case State.PAYLOAD:
          if (available < (this.#request as Request).payloadBytes) return;
          more = this.#readPayload(this.#request as Request);
          break;
        case State.LARGE:
          this.#fillLarge(this.#request as Request, available);
          if (this.#missing > 0) return;
          more = this.#consumer.startRequest(this.#whole());
          break;
        case State.DRAIN:
          this.#begin += Math.min(available, this.#missing);
          this.#missing -= Math.min(available, this.#missing);
          if (this.#missing > 0) return;
          more = this.#consumer.refuseRequest(this.#whole());
          break;
        default:
          return;
      }
    }
  }

  #readHeader(): boolean {
    const { view } = this.#slab;
    const at = this.#begin;
    const magic = this.#extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC;
    if (compactRequest.magic.get(view, at) !== magic) return this.#break('wrong request magic');
    this.#begin += this.#headerBytes;
    const request = this.#consumer.takeRequest();
    request.flags = compactRequest.flags.get(view, at);
    request.type = compactRequest.type.get(view, at);
    request.cookieHigh = compactRequest.cookieHigh.get(view, at);
    request.cookieLow = compactRequest.cookieLow.get(view, at);
    request.offsetHigh = compactRequest.offsetHigh.get(view, at);
    request.offsetLow = compactRequest.offsetLow.get(view, at);
    if (this.#extended) {
      request.length = extendedRequest.length.get(view, at);
      const hasPayload = (request.flags & CommandFlag.PAYLOAD_LEN) !== 0;
      request.payloadBytes = hasPayload ? request.length : 0;
    } else {
      request.length = compactRequest.length.get(view, at);
      request.payloadBytes = request.type === Command.WRITE ? request.length : 0;
    }
    if (request.payloadBytes === 0) return this.#consumer.startRequest(request);
    return this.#expectPayload(request);
  }

  #expectPayload(request: Request): boolean {
    const { payloadBytes } = request;
    if (payloadBytes > PAYLOAD_BYTES_ABSURD) {
      return this.#break(`a payload of ${payloadBytes} bytes`);
    }
    this.#request = request;
    this.#missing = payloadBytes;
    if (payloadBytes > PAYLOAD_BYTES_MAX || request.type !== Command.WRITE) {
      this.#state = State.DRAIN;
    } else if (payloadBytes > LARGE_BYTES) {
      this.#state = State.LARGE;
      const slab = this.#pool.take(payloadBytes);
      request.payload = slab.buffer;
      request.payloadBegin = 0;
      request.payloadSlab = slab;
    } else {
      this.#state = State.PAYLOAD;
    }
    return true;
  }

  #readPayload(request: Request): boolean {
    const slab = this.#slab;
    slab.holders++;
    request.payload = slab.buffer;
    request.payloadBegin = this.#begin;
    request.payloadSlab = slab;
    this.#begin += request.payloadBytes;
    return this.#consumer.startRequest(this.#whole());
  }

  /** Moves what came in the slab to the large payload that it belongs to. */
  #fillLarge(request: Request, available: number): void {
    const n = Math.min(available, this.#missing);
    const at = request.payloadBytes - this.#missing;
    this.#slab.buffer.copy(request.payload, at, this.#begin, this.#begin + n);
    this.#begin += n;
    this.#missing -= n;
  }

  /** The request whose payload has come to its end. */
  #whole(): Request {
    const request = this.#request as Request;
    this.#state = State.HEADER;
    this.#request = null;
    return request;
  }

  #break(reason: string): boolean {
    this.#state = State.BROKEN;
    this.#consumer.breakOff(reason);
    return false;
  }
}
