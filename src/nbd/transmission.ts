/**
 * Transmission: carries out a client's commands and answers them (spec: nbd, 5). Hot path: aligned
 * reads and writes; the other commands are in commands.ts.
 *
 * Commands run and complete in any order. A flush is sent down after every write that was answered
 * before it came, on any connection, because those have ended on the same device.
 */
import { BioFlag, BioOp } from '../block/bio.ts';
import { ExtentFlag, type BlockDevice } from '../block/device.ts';
import { errno } from '../base/errno.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { runCommand, type CommandContext } from './commands.ts';
import type { Agreement } from './negotiation.ts';
import {
  CHUNK_DONE,
  CHUNK_MAGIC,
  Chunk,
  chunk as chunkLayout,
  Command,
  CommandFlag,
  IN_FLIGHT_BYTES_MAX,
  IN_FLIGHT_REQUESTS_MAX,
  offsetData,
  offsetHole,
  PAYLOAD_BYTES_MAX,
  SIMPLE_REPLY_MAGIC,
  simpleReply,
  wireError,
} from './protocol.ts';
import type { ReplyBuffer } from './reply-buffer.ts';
import { Request } from './request.ts';
import type { RequestConsumer } from './request-reader.ts';
import type { WriteRanges } from './write-ranges.ts';

/** Reads from this length on are looked at for being a hole as a whole. */
const HOLE_CHECK_BYTES = 32 * 1024;

/** Which flags each command may carry; FUA is accepted, and without effect, on all. */
const flagsAllowed = new Map<number, number>([
  [Command.READ, CommandFlag.FUA | CommandFlag.DF],
  [Command.WRITE, CommandFlag.FUA],
  [Command.FLUSH, CommandFlag.FUA],
  [Command.TRIM, CommandFlag.FUA],
  [Command.CACHE, CommandFlag.FUA],
  [Command.WRITE_ZEROES, CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO],
  [Command.BLOCK_STATUS, CommandFlag.FUA | CommandFlag.REQ_ONE],
]);

/** What a transmission needs of its session. */
export interface TransmissionOwner {
  /** Replies are queued: flush them soon. */
  repliesQueued(): void;
  /** A request has ended: reading may go on. */
  requestEnded(): void;
  /** The client asked to disconnect. */
  disconnect(): void;
  /** The client broke the protocol. */
  breakOff(reason: string): void;
}

export class Transmission implements RequestConsumer, CommandContext {
  readonly device: BlockDevice;
  readonly ranges: WriteRanges;
  readonly baseAllocation: boolean;
  readonly #structured: boolean;
  readonly #replies: ReplyBuffer;
  readonly #owner: TransmissionOwner;
  /** Bytes that requests must be aligned to, to go straight to the device. */
  readonly #alignment: number;
  #free: Request | null = null;
  #nrInFlight = 0;
  #bytesInFlight = 0;
  #shuttingDown = false;

  constructor(
    agreement: Agreement,
    ranges: WriteRanges,
    replies: ReplyBuffer,
    owner: TransmissionOwner,
  ) {
    this.device = agreement.export.device;
    this.baseAllocation = agreement.baseAllocation;
    this.#structured = agreement.structuredReplies;
    this.ranges = ranges;
    this.#replies = replies;
    this.#owner = owner;
    this.#alignment = this.device.limits.logicalBlockSize;
  }

  get nrInFlight(): number {
    return this.#nrInFlight;
  }

  /** So much is in flight, or unread by the client, that no more should be read from it. */
  get isFull(): boolean {
    const bytes = this.#bytesInFlight + this.#replies.bytesPending;
    return this.#nrInFlight >= IN_FLIGHT_REQUESTS_MAX || bytes >= IN_FLIGHT_BYTES_MAX;
  }

  /** From now on commands are answered ESHUTDOWN. */
  shutDown(): void {
    this.#shuttingDown = true;
  }

  // --- requests

  takeRequest(): Request {
    const request = this.#free;
    if (request === null) {
      return new Request(
        (ended) => this.#bioEnded(ended),
        (started) => this.#submitWrite(started),
      );
    }
    this.#free = request.nextFree;
    request.nextFree = null;
    return request;
  }

  startRequest(request: Request): boolean {
    if (request.type === Command.DISC) {
      this.#recycle(request);
      this.#owner.disconnect();
      return false;
    }
    this.#nrInFlight++;
    this.#bytesInFlight += costOf(request);
    const error = this.#refusal(request);
    if (error !== 0) this.finish(request, error);
    else this.#dispatch(request);
    return !this.isFull;
  }

  refuseRequest(request: Request): boolean {
    this.#nrInFlight++;
    this.#bytesInFlight += costOf(request);
    this.finish(request, errno.EINVAL);
    return !this.isFull;
  }

  breakOff(reason: string): void {
    this.#owner.breakOff(reason);
  }

  /** The error that a request deserves before anything is done; 0 for none. */
  #refusal(request: Request): number {
    if (this.#shuttingDown) return errno.ESHUTDOWN;
    const { type, offset, length } = request;
    const allowed = flagsAllowed.get(type);
    if (allowed === undefined || (request.flags & ~allowed) !== 0) return errno.EINVAL;
    if (type === Command.FLUSH) return 0;
    const writes = type === Command.WRITE || type === Command.TRIM || type === Command.WRITE_ZEROES;
    if (writes && this.device.readOnly) return errno.EPERM;
    if (offset + length > this.device.sizeSectors * SECTOR_SIZE) {
      return writes && type !== Command.TRIM ? errno.ENOSPC : errno.EINVAL;
    }
    if (type === Command.READ && length > PAYLOAD_BYTES_MAX) return errno.EINVAL;
    return 0;
  }

  #dispatch(request: Request): void {
    const { type, offset, length } = request;
    const aligned = offset % this.#alignment === 0 && length % this.#alignment === 0;
    if (type === Command.FLUSH) this.#flush(request);
    else if (length === 0 && type !== Command.BLOCK_STATUS) this.#finishEmpty(request);
    else if (type === Command.READ && aligned) this.#read(request);
    else if (type === Command.WRITE && aligned) this.#write(request);
    else runCommand(this, request);
  }

  #finishEmpty(request: Request): void {
    if (request.type === Command.READ) this.#chunkDone(request);
    else this.finish(request, 0);
  }

  // --- aligned reads and writes, and flush

  #read(request: Request): void {
    if (this.#isHole(request)) {
      this.#sendHole(request);
      return;
    }
    this.reserveRead(request);
    const { bio, slab } = request;
    bio.op = BioOp.READ;
    bio.flags = 0;
    bio.sector = request.offset / SECTOR_SIZE;
    bio.nrSectors = request.length / SECTOR_SIZE;
    bio.data = (slab as NonNullable<typeof slab>).buffer;
    bio.dataOffset = this.dataBegin(request);
    this.device.submit(bio);
  }

  #write(request: Request): void {
    request.beginSector = request.offset / SECTOR_SIZE;
    request.endSector = request.beginSector + request.length / SECTOR_SIZE;
    request.partial = false;
    if (this.ranges.begin(request)) this.#submitWrite(request);
  }

  #submitWrite(request: Request): void {
    const { bio } = request;
    bio.op = BioOp.WRITE;
    bio.flags = (request.flags & CommandFlag.FUA) === 0 ? 0 : BioFlag.FUA;
    bio.sector = request.beginSector;
    bio.nrSectors = request.endSector - request.beginSector;
    bio.data = request.payload;
    bio.dataOffset = request.payloadOffset;
    this.device.submit(bio);
  }

  #flush(request: Request): void {
    const { bio } = request;
    bio.op = BioOp.FLUSH;
    bio.flags = 0;
    bio.sector = 0;
    bio.nrSectors = 0;
    this.device.submit(bio);
  }

  /** The bio of a read, write or flush has ended. */
  #bioEnded(request: Request): void {
    const { status } = request.bio;
    if (request.type === Command.READ) {
      this.finishRead(request, status);
      return;
    }
    if (request.type === Command.WRITE) this.ranges.end(request);
    this.finish(request, status);
  }

  // --- replies

  /** Room for the reply to a read: its header, and its data right behind. */
  reserveRead(request: Request): void {
    const bytes = this.#headerBytes + request.length;
    const slab = this.#replies.reserve(bytes);
    request.slab = slab;
    request.replyBegin = slab.used - bytes;
  }

  get #headerBytes(): number {
    return this.#structured ? offsetData.size : simpleReply.size;
  }

  /** Where in its slab a read's data begins. */
  dataBegin(request: Request): number {
    return request.replyBegin + this.#headerBytes;
  }

  /** Answers a read whose data is in its room, or failed. */
  finishRead(request: Request, status: number): void {
    const slab = request.slab as NonNullable<typeof request.slab>;
    if (status !== 0) {
      this.#replies.drop(slab);
      this.finish(request, status);
      return;
    }
    const at = request.replyBegin;
    if (this.#structured) {
      offsetData.magic.set(slab.view, at, CHUNK_MAGIC);
      offsetData.flags.set(slab.view, at, CHUNK_DONE);
      offsetData.type.set(slab.view, at, Chunk.OFFSET_DATA);
      offsetData.cookieHigh.set(slab.view, at, request.cookieHigh);
      offsetData.cookieLow.set(slab.view, at, request.cookieLow);
      offsetData.length.set(slab.view, at, 8 + request.length);
      offsetData.offset.set(slab.view, at, request.offset);
    } else {
      writeSimple(slab.view, at, request, 0);
    }
    this.#replies.queue(slab, at, this.#headerBytes + request.length);
    this.#ended(request);
  }

  /** Answers a command that returns no data, or any command that failed. */
  finish(request: Request, status: number): void {
    const error = wireError(status);
    const mustChunk = request.type === Command.READ || request.type === Command.BLOCK_STATUS;
    if (this.#structured && mustChunk && error !== 0) {
      this.#sendError(request, error);
    } else {
      const slab = this.#replies.reserve(simpleReply.size);
      const at = slab.used - simpleReply.size;
      writeSimple(slab.view, at, request, error);
      this.#replies.queue(slab, at, simpleReply.size);
    }
    this.#ended(request);
  }

  #sendError(request: Request, error: number): void {
    const bytes = chunkLayout.size + 6;
    const slab = this.#replies.reserve(bytes);
    const at = slab.used - bytes;
    writeChunk(slab.view, at, request, Chunk.ERROR, 6);
    slab.view.setUint32(at + chunkLayout.size, error);
    slab.view.setUint16(at + chunkLayout.size + 4, 0);
    this.#replies.queue(slab, at, bytes);
  }

  /** A structured reply that is one chunk with `payload`. */
  finishWithChunk(request: Request, type: number, payload: Uint8Array): void {
    const bytes = chunkLayout.size + payload.length;
    const slab = this.#replies.reserve(bytes);
    const at = slab.used - bytes;
    writeChunk(slab.view, at, request, type, payload.length);
    slab.buffer.set(payload, at + chunkLayout.size);
    this.#replies.queue(slab, at, bytes);
    this.#ended(request);
  }

  /** A read of nothing. */
  #chunkDone(request: Request): void {
    if (this.#structured) this.finishWithChunk(request, Chunk.NONE, new Uint8Array(0));
    else this.finish(request, 0);
  }

  #isHole(request: Request): boolean {
    if (!this.#structured || request.length < HOLE_CHECK_BYTES) return false;
    if ((request.flags & CommandFlag.DF) !== 0) return false;
    const nrSectors = request.length / SECTOR_SIZE;
    let hole = false;
    this.device.blockStatus(request.offset / SECTOR_SIZE, nrSectors, (n, flags) => {
      hole = n >= nrSectors && (flags & ExtentFlag.ZERO) !== 0;
      return false;
    });
    return hole;
  }

  #sendHole(request: Request): void {
    const slab = this.#replies.reserve(offsetHole.size);
    const at = slab.used - offsetHole.size;
    writeChunk(slab.view, at, request, Chunk.OFFSET_HOLE, 12);
    offsetHole.offset.set(slab.view, at, request.offset);
    offsetHole.holeLength.set(slab.view, at, request.length);
    this.#replies.queue(slab, at, offsetHole.size);
    this.#ended(request);
  }

  #ended(request: Request): void {
    this.#nrInFlight--;
    this.#bytesInFlight -= costOf(request);
    this.#recycle(request);
    this.#owner.repliesQueued();
    this.#owner.requestEnded();
  }

  #recycle(request: Request): void {
    request.reset();
    request.nextFree = this.#free;
    this.#free = request;
  }
}

/** Memory that a request holds while it is in flight. */
function costOf(request: Request): number {
  return request.type === Command.READ || request.type === Command.WRITE ? request.length : 0;
}

function writeSimple(view: DataView, at: number, request: Request, error: number): void {
  simpleReply.magic.set(view, at, SIMPLE_REPLY_MAGIC);
  simpleReply.error.set(view, at, error);
  simpleReply.cookieHigh.set(view, at, request.cookieHigh);
  simpleReply.cookieLow.set(view, at, request.cookieLow);
}

/** The header of a chunk that is its reply's only one. */
function writeChunk(
  view: DataView,
  at: number,
  request: Request,
  type: number,
  length: number,
): void {
  chunkLayout.magic.set(view, at, CHUNK_MAGIC);
  chunkLayout.flags.set(view, at, CHUNK_DONE);
  chunkLayout.type.set(view, at, type);
  chunkLayout.cookieHigh.set(view, at, request.cookieHigh);
  chunkLayout.cookieLow.set(view, at, request.cookieLow);
  chunkLayout.length.set(view, at, length);
}
