/**
 * Where long texts go: a dump of millions of lines is written in pieces, as it is made, and never
 * held whole.
 */
import fs from 'node:fs';

export interface TextSink {
  write(text: string): void;
}

/** Text is passed on once it is this long. */
const PIECE_LENGTH = 128 * 1024;
/** A full pipe is tried again after this long. */
const PIPE_WAIT_MS = 2;

/** Keeps everything in memory. */
export class StringSink implements TextSink {
  text = '';
  write(text: string): void {
    this.text += text;
  }
}

/**
 * A file descriptor. Writing is synchronous, so that the reader of a pipe sets the pace; a reader
 * that has gone is EPIPE. `flush` at the end. Does not: close the descriptor.
 */
export class FdSink implements TextSink {
  readonly #fd: number;
  #piece = '';

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(text: string): void {
    this.#piece += text;
    if (this.#piece.length >= PIECE_LENGTH) this.flush();
  }

  flush(): void {
    const bytes = Buffer.from(this.#piece, 'utf8');
    this.#piece = '';
    for (let done = 0; done < bytes.length;) done += this.#writeSome(bytes, done);
  }

  #writeSome(bytes: Buffer, offset: number): number {
    try {
      return fs.writeSync(this.#fd, bytes, offset);
    } catch (error) {
      // Standard output may be a pipe that does not block.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PIPE_WAIT_MS);
      return 0;
    }
  }
}
