/**
 * Session: one client's connection, from the greeting to the end (spec: nbd, 1 to 3 and 7).
 *
 *   CLIENT_FLAGS ─► OPTION ◄─► OPTION_DATA ─► TRANSMISSION ─► closed
 *                      ▲ └─ too long ─► OPTION_DRAIN
 *                      └──────────────────────┘
 *
 * A client that breaks the protocol loses its connection; what it had in flight is finished and its
 * replies discarded.
 */
import type { Socket } from 'node:net';
import type { Log } from '../base/log.ts';
import type { ExportTable, OpenExport } from './export.ts';
import { Negotiation, type Outcome } from './negotiation.ts';
import {
  greeting,
  HandshakeFlag,
  NBD_MAGIC,
  OPT_MAGIC,
  optionHeader,
  OPTION_BYTES_ABSURD,
  OPTION_BYTES_MAX,
} from './protocol.ts';
import { ReplyBuffer } from './reply-buffer.ts';
import { RequestReader } from './request-reader.ts';
import { Transmission, type TransmissionOwner } from './transmission.ts';
import type { WriteRanges } from './write-ranges.ts';

/** A client has this long to choose an export. */
export const HANDSHAKE_TIMEOUT_MS = 60_000;

const State = {
  CLIENT_FLAGS: 0,
  OPTION: 1,
  OPTION_DATA: 2,
  OPTION_DRAIN: 3,
  TRANSMISSION: 4,
  CLOSED: 5,
} as const;

export interface SessionContext {
  readonly exports: ExportTable;
  readonly log: Log;
  /** The write ranges that all sessions on a device share. */
  rangesFor(chosen: OpenExport): WriteRanges;
  /** The session has ended and nothing of it is in flight. */
  ended(session: Session): void;
}

export class Session implements TransmissionOwner {
  readonly #socket: Socket;
  readonly #context: SessionContext;
  #state: (typeof State)[keyof typeof State] = State.CLIENT_FLAGS;
  /** Received during haggling and not used yet. */
  #received: Buffer = Buffer.alloc(0);
  #option = 0;
  #optionBytes = 0;
  #negotiation: Negotiation | null = null;
  #export: OpenExport | null = null;
  #transmission: Transmission | null = null;
  #reader: RequestReader | null = null;
  readonly #replies: ReplyBuffer;
  #reading = false;
  #flushScheduled = false;
  #paused = false;
  #disconnecting = false;
  #shuttingDown = false;
  #ended = false;
  readonly #timer: NodeJS.Timeout;

  constructor(socket: Socket, context: SessionContext) {
    this.#socket = socket;
    this.#context = context;
    this.#replies = new ReplyBuffer(socket, () => this.#written());
    this.#timer = setTimeout(() => this.breakOff('no export chosen in time'), HANDSHAKE_TIMEOUT_MS);
    this.#timer.unref();
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', () => undefined); // 'close' follows.
    socket.on('close', () => this.#closed());
    this.#greet();
  }

  #greet(): void {
    const bytes = Buffer.alloc(greeting.size);
    bytes.writeUInt32BE(NBD_MAGIC[0], 0);
    bytes.writeUInt32BE(NBD_MAGIC[1], 4);
    bytes.writeUInt32BE(OPT_MAGIC[0], 8);
    bytes.writeUInt32BE(OPT_MAGIC[1], 12);
    bytes.writeUInt16BE(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES, 16);
    this.#socket.write(bytes);
  }

  // --- receiving

  #receive(chunk: Buffer): void {
    if (this.#state === State.TRANSMISSION) {
      this.#reader?.feed(chunk);
      this.#readRequests();
      return;
    }
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    while (this.#haggle());
  }

  /** Takes `n` bytes of what has been received, or null while there are fewer. */
  #take(n: number): Buffer | null {
    if (this.#received.length < n) return null;
    const bytes = this.#received.subarray(0, n);
    this.#received = this.#received.subarray(n);
    return bytes;
  }

  /** One step of the haggling; false when it needs more bytes, or is over. */
  #haggle(): boolean {
    switch (this.#state) {
      case State.CLIENT_FLAGS:
        return this.#clientFlags(this.#take(4));
      case State.OPTION:
        return this.#optionHeader(this.#take(optionHeader.size));
      case State.OPTION_DATA: {
        const data = this.#take(this.#optionBytes);
        if (data === null) return false;
        this.#state = State.OPTION;
        return this.#after((this.#negotiation as Negotiation).handle(this.#option, data));
      }
      case State.OPTION_DRAIN: {
        const n = Math.min(this.#received.length, this.#optionBytes);
        this.#take(n);
        this.#optionBytes -= n;
        if (this.#optionBytes > 0) return false;
        this.#negotiation?.tooBig(this.#option);
        this.#state = State.OPTION;
        return true;
      }
      default:
        return false;
    }
  }

  #clientFlags(bytes: Buffer | null): boolean {
    if (bytes === null) return false;
    const flags = bytes.readUInt32BE(0);
    const known = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES;
    if ((flags & ~known) !== 0) {
      this.breakOff(`unknown client flags ${flags}`);
      return false;
    }
    const noZeroes = (flags & HandshakeFlag.NO_ZEROES) !== 0;
    const { exports } = this.#context;
    this.#negotiation = new Negotiation(exports, noZeroes, (frame) => this.#socket.write(frame));
    if (this.#shuttingDown) this.#negotiation.shutDown();
    this.#state = State.OPTION;
    return true;
  }

  #optionHeader(bytes: Buffer | null): boolean {
    if (bytes === null) return false;
    if (bytes.readUInt32BE(0) !== OPT_MAGIC[0] || bytes.readUInt32BE(4) !== OPT_MAGIC[1]) {
      this.breakOff('wrong option magic');
      return false;
    }
    this.#option = bytes.readUInt32BE(optionHeader.option.offset);
    this.#optionBytes = bytes.readUInt32BE(optionHeader.length.offset);
    if (this.#optionBytes > OPTION_BYTES_ABSURD) {
      this.breakOff(`an option of ${this.#optionBytes} bytes`);
      return false;
    }
    const keep = this.#optionBytes <= OPTION_BYTES_MAX;
    this.#state = keep ? State.OPTION_DATA : State.OPTION_DRAIN;
    return true;
  }

  #after(outcome: Outcome): boolean {
    if (outcome.next === 'option') return true;
    clearTimeout(this.#timer);
    if (outcome.next === 'close') {
      this.#state = State.CLOSED;
      this.#socket.end();
      return false;
    }
    const { agreement } = outcome;
    this.#export = agreement.export;
    const ranges = this.#context.rangesFor(agreement.export);
    this.#transmission = new Transmission(agreement, ranges, this.#replies, this);
    if (this.#shuttingDown) this.#transmission.shutDown();
    this.#reader = new RequestReader(this.#transmission);
    this.#state = State.TRANSMISSION;
    const rest = this.#received;
    this.#received = Buffer.alloc(0);
    if (rest.length > 0) {
      this.#reader.feed(rest);
      this.#readRequests();
    }
    return false;
  }

  // --- transmission

  /** Reads as many requests as may be in flight, then sends what they have answered. */
  #readRequests(): void {
    const reader = this.#reader;
    const transmission = this.#transmission;
    if (reader === null || transmission === null || this.#disconnecting) return;
    this.#reading = true;
    reader.read();
    this.#reading = false;
    this.#replies.flush();
    const full = transmission.isFull && !this.#disconnecting;
    if (full !== this.#paused) {
      this.#paused = full;
      if (full) this.#socket.pause();
      else this.#socket.resume();
    }
    this.#endIfDone();
  }

  repliesQueued(): void {
    if (this.#reading || this.#flushScheduled) return;
    this.#flushScheduled = true;
    // Completions of one turn of the event loop go out together.
    setImmediate(() => {
      this.#flushScheduled = false;
      this.#replies.flush();
    });
  }

  requestEnded(): void {
    if (this.#reading) return;
    this.#continue();
  }

  #written(): void {
    if (!this.#reading) this.#continue();
  }

  /** Something has ended: reading may go on, or the session may be over. */
  #continue(): void {
    const transmission = this.#transmission;
    if (transmission === null) return;
    if (this.#paused && !transmission.isFull && this.#state === State.TRANSMISSION) {
      this.#paused = false;
      this.#socket.resume();
      this.#readRequests();
    }
    this.#endIfDone();
  }

  #endIfDone(): void {
    if ((this.#transmission?.nrInFlight ?? 0) > 0) return;
    if (this.#state === State.CLOSED) {
      this.#finish();
    } else if (this.#disconnecting || this.#shuttingDown) {
      this.#replies.flush();
      this.#socket.end();
    }
  }

  disconnect(): void {
    this.#disconnecting = true;
  }

  breakOff(reason: string): void {
    this.#context.log.write('warn', `nbd: client dropped: ${reason}`);
    this.#socket.destroy();
  }

  /** Answers what comes with errors, and ends the connection once nothing is in flight. */
  shutDown(): void {
    this.#shuttingDown = true;
    this.#negotiation?.shutDown();
    this.#transmission?.shutDown();
    this.#endIfDone();
  }

  /** Ends the connection at once; what is in flight still finishes. */
  destroy(): void {
    this.#socket.destroy();
  }

  #closed(): void {
    clearTimeout(this.#timer);
    this.#state = State.CLOSED;
    this.#endIfDone();
  }

  #finish(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#export?.close();
    this.#context.ended(this);
  }
}
