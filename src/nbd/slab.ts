/**
 * Slabs: the memory through which a session's bytes come and go, and the pool that they are from.
 * Hot path.
 *
 * Requests and replies are cut from slabs one behind the other. Whoever cuts from a slab holds it,
 * and so does each piece until it is done with; a slab that nobody holds goes back to the pool.
 * Invariant: `bytesInUse` is the size of all slabs that are held.
 */

/** Size of a slab; a piece that is too large for one gets a slab of its own size. */
export const SLAB_BYTES = 1024 * 1024;
/** Slabs that are kept for the next use. */
const IDLE_MAX = 2;

export class Slab {
  readonly buffer: Buffer;
  readonly view: DataView;
  /** Bytes that have been cut from it. */
  used = 0;
  holders = 0;

  constructor(bytes: number) {
    this.buffer = Buffer.allocUnsafeSlow(bytes);
    const { buffer, byteOffset, byteLength } = this.buffer;
    this.view = new DataView(buffer, byteOffset, byteLength);
  }
}

export class SlabPool {
  readonly #idle: Slab[] = [];
  #bytesInUse = 0;

  get bytesInUse(): number {
    return this.#bytesInUse;
  }

  /** A slab of SLAB_BYTES, or of `bytes` if that is more; held once, by the caller. */
  take(bytes: number): Slab {
    const slab = bytes > SLAB_BYTES ? new Slab(bytes) : (this.#idle.pop() ?? new Slab(SLAB_BYTES));
    slab.used = 0;
    slab.holders = 1;
    this.#bytesInUse += slab.buffer.length;
    return slab;
  }

  /** Ends one hold of `slab`. */
  release(slab: Slab): void {
    if (--slab.holders > 0) return;
    this.#bytesInUse -= slab.buffer.length;
    if (slab.buffer.length === SLAB_BYTES && this.#idle.length < IDLE_MAX) this.#idle.push(slab);
  }
}
