/**
 * Transmission: carries out a client's commands and answers them (spec: nbd, 5). Hot path: aligned
 * reads and writes; the other commands are in commands.ts.
 *
 * Commands run and complete in any order. A flush is sent down after every write that was answered
 * before it came, on any connection, because those have ended on the same device.
 */
import { BioFlag, BioOp } from '../block/bio.ts';
import type { BlockDevice } from '../block/device.ts';
import { errno } from '../base/errno.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { runCommand, type CommandContext } from './commands.ts';
import { firstNonZero } from './extents.ts';
import type { Agreement } from './negotiation.ts';
import {
  Command,
  CommandFlag,
  IN_FLIGHT_BYTES_MAX,
  IN_FLIGHT_REQUESTS_MAX,
  PAYLOAD_BYTES_MAX,
  ReplyForm,
  UNSENT_PIECES_MAX,
  wireError,
} from './protocol.ts';
import type { ReplyWriter } from './reply-writer.ts';
import { Request } from './request.ts';
import type { RequestConsumer } from './request-reader.ts';
import type { Slab, SlabPool } from './slab.ts';
import type { WriteRanges } from './write-ranges.ts';

/** Reads from this length on are looked at for being a hole as a whole. */
const HOLE_CHECK_BYTES = 32 * 1024;
/** Reading goes on when so few requests are left that a good many can follow. */
const IN_FLIGHT_REQUESTS_FEW = IN_FLIGHT_REQUESTS_MAX / 2;

/** Which flags each command may carry, by its number; FUA is accepted, without effect, on all. */
const flagsAllowed: readonly number[] = (() => {
  const { FUA, DF, NO_HOLE, FAST_ZERO, REQ_ONE } = CommandFlag;
  const allowed: number[] = [];
  allowed[Command.READ] = FUA | DF;
  allowed[Command.WRITE] = FUA;
  allowed[Command.DISC] = FUA;
  allowed[Command.FLUSH] = FUA;
  allowed[Command.TRIM] = FUA;
  allowed[Command.CACHE] = FUA;
  allowed[Command.WRITE_ZEROES] = FUA | NO_HOLE | FAST_ZERO;
  allowed[Command.BLOCK_STATUS] = FUA | REQ_ONE;
  return allowed;
})();

/** Extents looked at in one turn of the event loop, by block status; then others have theirs. */
const EXTENTS_PER_TURN_MAX = 16384;

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
  readonly #replies: ReplyWriter;
  readonly #pool: SlabPool;
  readonly #owner: TransmissionOwner;
  readonly #extended: boolean;
  #free: Request | null = null;
  #nrInFlight = 0;
  #nrExtentsThisTurn = 0;
  #shuttingDown = false;
  #isClientGone = false;

  constructor(
    agreement: Agreement,
    ranges: WriteRanges,
    replies: ReplyWriter,
    pool: SlabPool,
    owner: TransmissionOwner,
  ) {
    this.device = agreement.export.device;
    this.baseAllocation = agreement.baseAllocation;
    this.ranges = ranges;
    this.#replies = replies;
    this.#pool = pool;
    this.#owner = owner;
    this.#extended = replies.form === ReplyForm.EXTENDED;
  }

  get nrInFlight(): number {
    return this.#nrInFlight;
  }

  /** So much is in flight, or unread by the client, that no more should be read from it. */
  get isFull(): boolean {
    return (
      this.#nrInFlight >= IN_FLIGHT_REQUESTS_MAX ||
      this.#pool.bytesInUse >= IN_FLIGHT_BYTES_MAX ||
      this.#replies.nrUnsent >= UNSENT_PIECES_MAX
    );
  }

  /** After it was full, so little is in flight that reading should go on. */
  get hasRoom(): boolean {
    return this.#nrInFlight <= IN_FLIGHT_REQUESTS_FEW && this.#mayGoOn;
  }

  /** So much work has been done at once that other connections should have their turn. */
  get isTired(): boolean {
    return this.#nrExtentsThisTurn >= EXTENTS_PER_TURN_MAX;
  }

  /** A turn of the event loop begins. */
  beginTurn(): void {
    this.#nrExtentsThisTurn = 0;
  }

  lookedAt(nrExtents: number): void {
    this.#nrExtentsThisTurn += nrExtents;
  }

  get #mayGoOn(): boolean {
    return !this.isFull && !this.isTired;
  }

  get isClientGone(): boolean {
    return this.#isClientGone;
  }

  /** From now on commands are answered ESHUTDOWN. */
  shutDown(): void {
    this.#shuttingDown = true;
  }

  /** The client sends nothing more, if it is there at all: what only serves it need not go on. */
  clientGone(): void {
    this.#isClientGone = true;
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
    const error = this.#refusal(request);
    if (error !== 0) this.finish(request, error);
    else this.#dispatch(request);
    return this.#mayGoOn;
  }

  refuseRequest(request: Request): boolean {
    this.#nrInFlight++;
    this.finish(request, errno.EINVAL);
    return this.#mayGoOn;
  }

  breakOff(reason: string): void {
    this.#owner.breakOff(reason);
  }

  /** The error that a request deserves before anything is done; 0 for none. */
  #refusal(request: Request): number {
    if (this.#shuttingDown) return errno.ESHUTDOWN;
    const { type, offset, length } = request;
    const allowed = flagsAllowed[type];
    if (allowed === undefined) return errno.EINVAL;
    let { flags } = request;
    if (this.#extended && type === Command.WRITE) {
      if (request.payloadBytes !== length) return errno.EINVAL;
      flags &= ~CommandFlag.PAYLOAD_LEN;
    }
    if ((flags & ~allowed) !== 0) return errno.EINVAL;
    if (type === Command.FLUSH) return 0;
    const writes = type === Command.WRITE || type === Command.TRIM || type === Command.WRITE_ZEROES;
    if (writes && this.device.readOnly) return errno.EPERM;
    if (offset + length > this.device.sizeSectors * SECTOR_SIZE) {
      return writes && type !== Command.TRIM ? errno.ENOSPC : errno.EINVAL;
    }
    if (type === Command.READ && length > PAYLOAD_BYTES_MAX) return errno.EINVAL;
    if (type === Command.BLOCK_STATUS && (!this.baseAllocation || length === 0)) {
      return errno.EINVAL;
    }
    return 0;
  }

  #dispatch(request: Request): void {
    const { type, offset, length } = request;
    // A table that is loaded meanwhile may change it.
    const alignment = this.device.limits.logicalBlockSize;
    const aligned = offset % alignment === 0 && length % alignment === 0;
    if (type === Command.FLUSH) this.#flush(request);
    else if (length === 0) this.finish(request, 0);
    else if (type === Command.READ && aligned) this.#read(request);
    else if (type === Command.WRITE && aligned) this.#write(request);
    else runCommand(this, request);
  }

  // --- aligned reads and writes, and flush

  #read(request: Request): void {
    if (this.#isHole(request)) {
      this.#replies.hole(request);
      this.#ended(request);
      return;
    }
    this.#replies.reserveRead(request);
    const { bio, replySlab } = request;
    bio.op = BioOp.READ;
    bio.flags = 0;
    bio.sector = request.offset / SECTOR_SIZE;
    bio.nrSectors = request.length / SECTOR_SIZE;
    bio.data = (replySlab as Slab).buffer;
    bio.dataOffset = this.#replies.dataBegin(request);
    this.device.submit(bio);
  }

  #isHole(request: Request): boolean {
    if (this.#replies.form === ReplyForm.SIMPLE || request.length < HOLE_CHECK_BYTES) return false;
    if ((request.flags & CommandFlag.DF) !== 0) return false;
    const begin = request.offset / SECTOR_SIZE;
    const end = begin + request.length / SECTOR_SIZE;
    return firstNonZero(this.device, { begin, end }) === null;
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
    bio.dataOffset = request.payloadBegin;
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
    if (request.type === Command.WRITE) this.ranges.end(request);
    this.finish(request, request.bio.status);
  }

  // --- replies

  /** Makes room for a read's data; returns where it begins in the request's reply slab. */
  reserveRead(request: Request): number {
    this.#replies.reserveRead(request);
    return this.#replies.dataBegin(request);
  }

  /** Answers a command: a read with what is in its room, others with their status. */
  finish(request: Request, status: number): void {
    if (status === 0 && request.replySlab !== null) {
      this.#replies.read(request);
    } else {
      if (request.replySlab !== null) this.#replies.dropRead(request);
      const fastZero = (request.flags & CommandFlag.FAST_ZERO) !== 0;
      this.#replies.status(request, wireError(status, fastZero));
    }
    this.#ended(request);
  }

  /** Answers a command with one chunk. */
  finishWithChunk(request: Request, type: number, payload: Uint8Array): void {
    this.#replies.chunk(request, type, payload);
    this.#ended(request);
  }

  get isExtended(): boolean {
    return this.#extended;
  }

  #ended(request: Request): void {
    this.#nrInFlight--;
    if (request.payloadSlab !== null) this.#pool.release(request.payloadSlab);
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
