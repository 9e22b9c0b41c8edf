/**
 * ReplyBuffer: the bytes on their way to a client, gathered so that a turn of the event loop makes
 * one write. Hot path.
 *
 * Replies are laid out in slabs. A read reserves room for its header and data when it starts, so
 * that the data is read to where it is sent from; it is queued when it is done. Reserved room that
 * is never sent (a failed read's) is simply skipped. A slab is used again when nothing reserved or
 * queued in it is left.
 */
import type { Socket } from 'node:net';

const SLAB_BYTES = 1024 * 1024;
/** A reply larger than this gets a slab of its own, which is not kept. */
const LARGE_BYTES = 256 * 1024;
const SLABS_KEPT_MAX = 4;

export class Slab {
  readonly buffer: Buffer;
  readonly view: DataView;
  used = 0;
  /**
   * Reservations that are not yet queued or given up, and queued bytes that are not yet written.
   */
  pending = 0;

  constructor(bytes: number) {
    this.buffer = Buffer.allocUnsafeSlow(bytes);
    const { buffer, byteOffset, byteLength } = this.buffer;
    this.view = new DataView(buffer, byteOffset, byteLength);
  }
}

interface Piece {
  readonly slab: Slab;
  readonly begin: number;
  end: number;
}

export class ReplyBuffer {
  readonly #socket: Socket;
  #current: Slab | null = null;
  readonly #idle: Slab[] = [];
  #pieces: Piece[] = [];
  #bytesQueued = 0;
  #bytesWriting = 0;
  readonly #written: () => void;

  /** `written` is called whenever the socket has taken what was flushed. */
  constructor(socket: Socket, written: () => void) {
    this.#socket = socket;
    this.#written = written;
  }

  /** Bytes that the client has not taken yet. */
  get bytesPending(): number {
    return this.#bytesQueued + this.#bytesWriting;
  }

  get hasQueued(): boolean {
    return this.#pieces.length > 0;
  }

  /** A slab with `bytes` of room from its `used` on, which is moved behind them. */
  reserve(bytes: number): Slab {
    let slab = this.#current;
    if (bytes > LARGE_BYTES) {
      slab = new Slab(bytes);
    } else if (slab === null || slab.buffer.length - slab.used < bytes) {
      slab = this.#idle.pop() ?? new Slab(SLAB_BYTES);
      this.#current = slab;
    }
    slab.used += bytes;
    slab.pending++;
    return slab;
  }

  /** Queues `bytes` at `begin` of a reservation in `slab`. */
  queue(slab: Slab, begin: number, bytes: number): void {
    const last = this.#pieces.at(-1);
    if (last !== undefined && last.slab === slab && last.end === begin) {
      last.end += bytes;
      slab.pending--;
    } else {
      this.#pieces.push({ slab, begin, end: begin + bytes });
    }
    this.#bytesQueued += bytes;
  }

  /** Gives a reservation up without sending anything. */
  drop(slab: Slab): void {
    this.#release(slab);
  }

  #release(slab: Slab): void {
    if (--slab.pending > 0) return;
    slab.used = 0;
    if (slab === this.#current || slab.buffer.length !== SLAB_BYTES) return;
    if (this.#idle.length < SLABS_KEPT_MAX) this.#idle.push(slab);
  }

  /** Hands everything queued to the socket. */
  flush(): void {
    const pieces = this.#pieces;
    if (pieces.length === 0) return;
    this.#pieces = [];
    const bytes = this.#bytesQueued;
    this.#bytesQueued = 0;
    if (this.#socket.destroyed) {
      for (const { slab } of pieces) this.#release(slab);
      return;
    }
    this.#bytesWriting += bytes;
    const done = (): void => {
      this.#bytesWriting -= bytes;
      for (const { slab } of pieces) this.#release(slab);
      this.#written();
    };
    if (pieces.length > 1) this.#socket.cork();
    for (const [index, { slab, begin, end }] of pieces.entries()) {
      const part = slab.buffer.subarray(begin, end);
      if (index === pieces.length - 1) this.#socket.write(part, done);
      else this.#socket.write(part);
    }
    if (pieces.length > 1) this.#socket.uncork();
  }
}
