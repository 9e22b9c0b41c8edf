/**
 * ReplyBuffer: the bytes on their way to a client, gathered so that one turn of the event loop
 * makes one write. Hot path.
 *
 * Replies are laid out in slabs. A read reserves room for its header and data when it starts, so
 * that the data is read to where it is sent from; it is queued when it is done. Reserved room that
 * is never sent (a failed read's) is skipped.
 *
 *   reserve ──► queue ──► #unsent list ──flush──► the socket's, until #wrote ──► slab released
 *      └─ drop
 */
import type { Duplex } from 'node:stream';
import { SLAB_BYTES, type Slab, type SlabPool } from './slab.ts';

/** A reply larger than this gets a slab of its own: few would fit into a common one. */
const LARGE_BYTES = SLAB_BYTES / 4;

/** Bytes `[begin, end)` of a slab; pooled. */
class Piece {
  slab: Slab | null = null;
  begin = 0;
  end = 0;
  next: Piece | null = null;
}

export class ReplyBuffer {
  readonly #pool: SlabPool;
  readonly #socket: Duplex;
  readonly #written: () => void;
  /** Held, for as long as replies are cut from it. */
  #current: Slab | null = null;
  /** Pieces in order: first what the socket has and has not written, then what is queued. */
  #first: Piece | null = null;
  #last: Piece | null = null;
  #firstQueued: Piece | null = null;
  #free: Piece | null = null;
  #nrUnsent = 0;
  readonly #wrote = (): void => this.#pieceWritten();

  /** `written` is called whenever the socket has taken some of what was flushed. */
  constructor(pool: SlabPool, socket: Duplex, written: () => void) {
    this.#pool = pool;
    this.#socket = socket;
    this.#written = written;
  }

  /** Pieces that are queued, or that the socket has not written. */
  get nrUnsent(): number {
    return this.#nrUnsent;
  }

  /** A slab with `bytes` of room just before its `used`; held, for the room. */
  reserve(bytes: number): Slab {
    if (bytes > LARGE_BYTES) {
      const large = this.#pool.take(bytes);
      large.used = bytes;
      return large;
    }
    let slab = this.#current;
    if (slab?.holders === 1) slab.used = 0;
    if (slab === null || SLAB_BYTES - slab.used < bytes) {
      if (slab !== null) this.#pool.release(slab);
      slab = this.#pool.take(SLAB_BYTES);
      this.#current = slab;
    }
    slab.used += bytes;
    slab.holders++;
    return slab;
  }

  /** Queues `bytes` at `begin` of reserved room in `slab`, for the next flush. */
  queue(slab: Slab, begin: number, bytes: number): void {
    const last = this.#firstQueued === null ? null : this.#last;
    if (last !== null && last.slab === slab && last.end === begin) {
      last.end += bytes;
      this.#pool.release(slab);
      return;
    }
    const piece = this.#free ?? new Piece();
    this.#free = piece.next;
    piece.slab = slab;
    piece.begin = begin;
    piece.end = begin + bytes;
    piece.next = null;
    this.#nrUnsent++;
    if (this.#last === null) this.#first = piece;
    else this.#last.next = piece;
    this.#last = piece;
    this.#firstQueued ??= piece;
  }

  /** Gives reserved room up without sending anything. */
  drop(slab: Slab): void {
    this.#pool.release(slab);
  }

  /** Hands everything queued to the socket. */
  flush(): void {
    let piece = this.#firstQueued;
    if (piece === null) return;
    this.#firstQueued = null;
    const several = piece.next !== null;
    if (several) this.#socket.cork();
    while (piece !== null) {
      const { slab, begin, end, next }: Piece = piece;
      this.#socket.write((slab as Slab).buffer.subarray(begin, end), this.#wrote);
      piece = next;
    }
    if (several) this.#socket.uncork();
  }

  /** The socket has written the first piece, or has been destroyed: it tells in order. */
  #pieceWritten(): void {
    const piece = this.#first as Piece;
    this.#first = piece.next;
    if (piece.next === null) this.#last = null;
    this.#nrUnsent--;
    this.#pool.release(piece.slab as Slab);
    piece.slab = null;
    piece.next = this.#free;
    this.#free = piece;
    this.#written();
  }
}
