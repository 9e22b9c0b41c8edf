/**
 * Session: one client's connection, from the greeting to the end (spec: nbd, 1 to 3 and 7).
 *
 *   HAGGLING ──GO, EXPORT_NAME──► TRANSMISSION ──DISC, end of stream, shutdown──► ENDING ──► CLOSED
 *      └───────────────ABORT, a refused EXPORT_NAME, shutdown───────────────────────▲
 *
 * A client that breaks the protocol loses its connection at once; whatever way a connection ends,
 * what it had in flight is finished first, and only then the export is closed.
 * In ENDING everything has been answered; what the client still sends is thrown away, since closing
 * a socket with unread bytes would take the last replies back.
 */
import type { Duplex } from 'node:stream';
import type { Log } from '../base/log.ts';
import type { ExportTable, OpenExport } from './export.ts';
import { Negotiation, type Agreement, type Outcome } from './negotiation.ts';
import { OptionReader, type OptionConsumer } from './option-reader.ts';
import {
  greeting,
  HandshakeFlag,
  NBD_MAGIC,
  OPT_MAGIC,
  OPTION_REPLY_BYTES_MAX,
  ReplyForm,
} from './protocol.ts';
import { Receiver, type ByteSink } from './receiver.ts';
import { ReplyBuffer } from './reply-buffer.ts';
import { ReplyWriter } from './reply-writer.ts';
import { RequestReader } from './request-reader.ts';
import { SlabPool } from './slab.ts';
import { Transmission, type TransmissionOwner } from './transmission.ts';
import type { WriteRanges } from './write-ranges.ts';

/** A client has this long to choose an export. */
const HANDSHAKE_TIMEOUT_MS = 60_000;
/** A client that goes has this long to take some of the replies that it has not taken yet. */
const TAKING_TIMEOUT_MS = 60_000;
/** A client has this long to close its side after it has taken everything and ours is closed. */
const ENDING_TIMEOUT_MS = 1_000;
/** What a client has sent when the server shuts down is still answered, with errors. */
const SHUTDOWN_LINGER_MS = 100;

const State = { HAGGLING: 0, TRANSMISSION: 1, ENDING: 2, CLOSED: 3 } as const;

/** Where bytes go that nobody will look at. */
const DISCARDED = new Uint8Array(65536);

export interface SessionContext {
  readonly exports: ExportTable;
  readonly log: Log;
  /** The write ranges that all sessions on a device share, until `released`. */
  rangesFor(chosen: OpenExport): WriteRanges;
  /** Nothing of the session's is in flight on `chosen` any more; it is closed now. */
  released(chosen: OpenExport): void;
  /** The session has ended. */
  ended(session: Session): void;
}

export class Session implements ByteSink, OptionConsumer, TransmissionOwner {
  readonly #context: SessionContext;
  readonly #receiver: Receiver;
  readonly #socket: Duplex;
  #state: (typeof State)[keyof typeof State] = State.HAGGLING;
  readonly #options = new OptionReader(this);
  readonly #negotiation: Negotiation;
  #export: OpenExport | null = null;
  #transmission: Transmission | null = null;
  #requests: RequestReader | null = null;
  #replies: ReplyBuffer | null = null;
  /** Requests or options are being read: what they cause is done when they have been. */
  #reading = false;
  /** The client's bytes are left where they are until it has less in use. */
  #paused = false;
  #flushScheduled = false;
  #turnScheduled = false;
  /** The client wants to, or has to, go: nothing more is read from it. */
  #disconnecting = false;
  #shuttingDown = false;
  #ended = false;
  #timer: NodeJS.Timeout;
  readonly #flush = (): void => {
    this.#flushScheduled = false;
    this.#replies?.flush();
  };
  readonly #turn = (): void => {
    this.#turnScheduled = false;
    this.#transmission?.beginTurn();
    this.#continue();
  };

  constructor(accepted: Duplex, context: SessionContext) {
    this.#context = context;
    this.#receiver = new Receiver(accepted, this);
    const socket = this.#receiver.socket;
    this.#socket = socket;
    this.#negotiation = new Negotiation(context.exports, (frame) => void socket.write(frame));
    this.#timer = setTimeout(() => this.breakOff('no export chosen in time'), HANDSHAKE_TIMEOUT_MS);
    this.#timer.unref();
    socket.on('error', () => undefined); // 'close' follows.
    socket.on('end', () => this.#endOfStream());
    socket.on('close', () => this.#closed());
    socket.on('drain', () => this.#continue());
    this.#greet();
  }

  #greet(): void {
    const bytes = Buffer.alloc(greeting.size);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    greeting.nbdMagicHigh.set(view, 0, NBD_MAGIC[0]);
    greeting.nbdMagicLow.set(view, 0, NBD_MAGIC[1]);
    greeting.optMagicHigh.set(view, 0, OPT_MAGIC[0]);
    greeting.optMagicLow.set(view, 0, OPT_MAGIC[1]);
    greeting.flags.set(view, 0, HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES);
    this.#socket.write(bytes);
  }

  // --- receiving

  room(): Uint8Array {
    if (this.#state === State.HAGGLING) return this.#options.room();
    if (this.#state !== State.TRANSMISSION || this.#disconnecting) return DISCARDED;
    return (this.#requests as RequestReader).room();
  }

  received(bytes: number): boolean {
    if (this.#state === State.HAGGLING) {
      this.#options.received(bytes);
      this.#readOptions();
    } else if (this.#state === State.TRANSMISSION && !this.#disconnecting) {
      (this.#requests as RequestReader).received(bytes);
      this.#readRequests();
    }
    return !this.#paused;
  }

  #endOfStream(): void {
    this.#disconnecting = true;
    this.#transmission?.clientGone();
    this.#endIfDone();
  }

  // --- haggling

  #readOptions(): void {
    this.#reading = true;
    this.#socket.cork();
    this.#options.read();
    this.#socket.uncork();
    this.#reading = false;
    this.#paused = this.#state === State.HAGGLING && this.#hasUnreadReplies;
    if (this.#requests !== null) this.#readRequests();
    else this.#endIfDone();
  }

  get #hasUnreadReplies(): boolean {
    return this.#socket.writableLength >= OPTION_REPLY_BYTES_MAX;
  }

  clientFlags(flags: number): boolean {
    const known = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES;
    if ((flags & ~known) !== 0) {
      this.breakOff(`unknown client flags ${flags}`);
      return false;
    }
    this.#negotiation.noZeroes = (flags & HandshakeFlag.NO_ZEROES) !== 0;
    return true;
  }

  option(option: number, data: Buffer): boolean {
    return this.#after(this.#negotiation.handle(option, data));
  }

  oversizedOption(option: number): boolean {
    this.#negotiation.tooBig(option);
    return true;
  }

  /** False when haggling is over, or the client should read its replies first. */
  #after(outcome: Outcome): boolean {
    if (outcome.next === 'option') return !this.#hasUnreadReplies;
    if (outcome.next === 'close') this.#disconnecting = true;
    else this.#transmit(outcome.agreement);
    return false;
  }

  #transmit(agreement: Agreement): void {
    clearTimeout(this.#timer);
    this.#export = agreement.export;
    const pool = new SlabPool();
    const ranges = this.#context.rangesFor(agreement.export);
    this.#replies = new ReplyBuffer(pool, this.#socket, () => this.#continue());
    const writer = new ReplyWriter(this.#replies, agreement.replyForm);
    this.#transmission = new Transmission(agreement, ranges, writer, pool, this);
    if (this.#shuttingDown) this.#transmission.shutDown();
    const extended = agreement.replyForm === ReplyForm.EXTENDED;
    this.#requests = new RequestReader(pool, this.#transmission, extended);
    this.#requests.accept(this.#options.rest);
    this.#state = State.TRANSMISSION;
  }

  // --- transmission

  /** Reads as many requests as may be in flight, then sends what they have answered. */
  #readRequests(): void {
    const transmission = this.#transmission as Transmission;
    transmission.beginTurn();
    this.#reading = true;
    if (!this.#disconnecting) (this.#requests as RequestReader).read();
    this.#reading = false;
    (this.#replies as ReplyBuffer).flush();
    this.#paused = (transmission.isFull || transmission.isTired) && !this.#disconnecting;
    if (transmission.isTired && !this.#turnScheduled) {
      this.#turnScheduled = true;
      setImmediate(this.#turn);
    }
    this.#endIfDone();
  }

  repliesQueued(): void {
    if (this.#reading || this.#flushScheduled) return;
    this.#flushScheduled = true;
    // Completions of one turn of the event loop go out together.
    setImmediate(this.#flush);
  }

  requestEnded(): void {
    this.#continue();
  }

  /** Something has ended: reading may go on, or the session may be over. */
  #continue(): void {
    if (this.#reading) return;
    if (this.#paused) this.#resumeIfPossible();
    this.#endIfDone();
  }

  #resumeIfPossible(): void {
    if (this.#state === State.HAGGLING) {
      if (this.#hasUnreadReplies) return;
      this.#readOptions();
    } else if (this.#state === State.TRANSMISSION) {
      if (!(this.#transmission as Transmission).hasRoom) return;
      this.#readRequests();
    }
    if (!this.#paused) this.#receiver.resume();
  }

  disconnect(): void {
    this.#disconnecting = true;
  }

  // --- the end

  breakOff(reason: string): void {
    this.#context.log.write('warn', `nbd: client dropped: ${reason}`);
    this.#disconnecting = true;
    this.#socket.destroy();
  }

  /**
   * Answers what comes from now on with errors, and ends the connection soon, once nothing is in
   * flight.
   */
  shutDown(): void {
    if (this.#shuttingDown) return;
    this.#shuttingDown = true;
    this.#negotiation.shutDown();
    this.#transmission?.shutDown();
    setTimeout(() => {
      this.#disconnecting = true;
      this.#endIfDone();
    }, SHUTDOWN_LINGER_MS);
  }

  /** Ends the connection at once; what is in flight still finishes. */
  destroy(): void {
    this.#socket.destroy();
  }

  #endIfDone(): void {
    if ((this.#transmission?.nrInFlight ?? 0) > 0) return;
    if (this.#state === State.CLOSED) this.#finish();
    else if (this.#disconnecting && this.#state !== State.ENDING) this.#end();
  }

  /** Everything is answered: says so by closing our side, and waits for the client to. */
  #end(): void {
    this.#state = State.ENDING;
    this.#release();
    this.#replies?.flush();
    this.#socket.end(() => this.#destroyAfter(ENDING_TIMEOUT_MS));
    this.#destroyUnlessTaken();
    if (this.#paused) {
      this.#paused = false;
      this.#receiver.resume();
    }
  }

  #destroyAfter(milliseconds: number): void {
    clearTimeout(this.#timer);
    if (this.#state === State.CLOSED) return;
    this.#timer = setTimeout(() => this.#socket.destroy(), milliseconds);
  }

  /** Destroys the socket when the client has taken nothing for long, though there is something. */
  #destroyUnlessTaken(): void {
    const { writableLength } = this.#socket;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#socket.writableLength < writableLength) this.#destroyUnlessTaken();
      else this.#socket.destroy();
    }, TAKING_TIMEOUT_MS);
  }

  #closed(): void {
    clearTimeout(this.#timer);
    this.#state = State.CLOSED;
    this.#transmission?.clientGone();
    this.#endIfDone();
  }

  #finish(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#release();
    this.#context.ended(this);
  }

  /** Closes the export: nothing is in flight, and nothing more will be. */
  #release(): void {
    const chosen = this.#export;
    if (chosen === null) return;
    this.#export = null;
    chosen.close();
    this.#context.released(chosen);
  }
}
