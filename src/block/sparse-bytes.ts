/**
 * SparseBytes: the content of a disk in memory, in chunks; what was never written is not there and
 * reads as zeroes. A clone shares all chunks with its original; whoever writes one first copies it.
 */

export class SparseBytes {
  readonly #chunkBytes: number;
  readonly #chunks: Map<number, Uint8Array>;
  /** Chunks that no clone shares. */
  readonly #own = new Set<number>();

  /** `chunkBytes` is what a clone copies at least for its first write to a place. */
  constructor(chunkBytes = 65536, chunks = new Map<number, Uint8Array>()) {
    this.#chunkBytes = chunkBytes;
    this.#chunks = chunks;
  }

  clone(): SparseBytes {
    this.#own.clear();
    return new SparseBytes(this.#chunkBytes, new Map(this.#chunks));
  }

  /** Bytes of memory that its chunks take, shared ones included. */
  get allocatedBytes(): number {
    return this.#chunks.size * this.#chunkBytes;
  }

  isHole(offset: number): boolean {
    return !this.#chunks.has(Math.floor(offset / this.#chunkBytes));
  }

  get chunkBytes(): number {
    return this.#chunkBytes;
  }

  read(offset: number, length: number, data: Uint8Array, dataOffset: number): void {
    for (let done = 0; done < length;) {
      const index = Math.floor((offset + done) / this.#chunkBytes);
      const from = offset + done - index * this.#chunkBytes;
      const n = Math.min(this.#chunkBytes - from, length - done);
      const chunk = this.#chunks.get(index);
      const at = dataOffset + done;
      if (chunk === undefined) data.fill(0, at, at + n);
      else data.set(chunk.subarray(from, from + n), at);
      done += n;
    }
  }

  write(offset: number, length: number, data: Uint8Array, dataOffset: number): void {
    for (let done = 0; done < length;) {
      const index = Math.floor((offset + done) / this.#chunkBytes);
      const from = offset + done - index * this.#chunkBytes;
      const n = Math.min(this.#chunkBytes - from, length - done);
      const at = dataOffset + done;
      this.#writable(index).set(data.subarray(at, at + n), from);
      done += n;
    }
  }

  /** Makes the range read as zeroes; whole chunks of it become holes. */
  clear(offset: number, length: number): void {
    for (let done = 0; done < length;) {
      const index = Math.floor((offset + done) / this.#chunkBytes);
      const from = offset + done - index * this.#chunkBytes;
      const n = Math.min(this.#chunkBytes - from, length - done);
      if (n === this.#chunkBytes) {
        this.#chunks.delete(index);
        this.#own.delete(index);
      } else if (this.#chunks.has(index)) {
        this.#writable(index).fill(0, from, from + n);
      }
      done += n;
    }
  }

  #writable(index: number): Uint8Array {
    const chunk = this.#chunks.get(index);
    if (chunk !== undefined && this.#own.has(index)) return chunk;
    const own = chunk === undefined ? new Uint8Array(this.#chunkBytes) : chunk.slice();
    this.#chunks.set(index, own);
    this.#own.add(index);
    return own;
  }
}
