/**
 * ReplyWriter: lays replies out in the form that was agreed on: simple, structured or extended
 * (spec: nbd, 5, Replies). Hot path.
 *
 * A structured or extended reply is always one chunk, which says that it is the last.
 */
import {
  Chunk,
  chunk as chunkHeader,
  CHUNK_DONE,
  CHUNK_MAGIC,
  Command,
  errorChunk,
  extendedChunk,
  EXTENDED_CHUNK_MAGIC,
  offsetData,
  offsetHole,
  ReplyForm,
  SIMPLE_REPLY_MAGIC,
  simpleReply,
} from './protocol.ts';
import type { ReplyBuffer } from './reply-buffer.ts';
import type { Request } from './request.ts';
import type { Slab } from './slab.ts';

export class ReplyWriter {
  readonly #buffer: ReplyBuffer;
  readonly form: ReplyForm;
  readonly #chunkBytes: number;
  /** What precedes the data of a read. */
  readonly #readHeaderBytes: number;

  constructor(buffer: ReplyBuffer, form: ReplyForm) {
    this.#buffer = buffer;
    this.form = form;
    this.#chunkBytes = form === ReplyForm.EXTENDED ? extendedChunk.size : chunkHeader.size;
    this.#readHeaderBytes =
      form === ReplyForm.SIMPLE ? simpleReply.size : this.#chunkBytes + offsetData.size;
  }

  /** Pieces of replies that the client has not taken. */
  get nrUnsent(): number {
    return this.#buffer.nrUnsent;
  }

  /** Makes room for the reply to a read: its header, and its data right behind. */
  reserveRead(request: Request): void {
    const bytes = this.#readHeaderBytes + request.length;
    const slab = this.#buffer.reserve(bytes);
    request.replySlab = slab;
    request.replyBegin = slab.used - bytes;
  }

  /** Where in its slab a read's data begins. */
  dataBegin(request: Request): number {
    return request.replyBegin + this.#readHeaderBytes;
  }

  /** Answers a read whose data is in its room. */
  read(request: Request): void {
    const slab = request.replySlab as Slab;
    const at = request.replyBegin;
    if (this.form === ReplyForm.SIMPLE) {
      writeSimple(slab.view, at, request, 0);
    } else {
      this.#chunk(slab.view, at, request, Chunk.OFFSET_DATA, offsetData.size + request.length);
      offsetData.offset.set(slab.view, at + this.#chunkBytes, request.offset);
    }
    this.#buffer.queue(slab, at, this.#readHeaderBytes + request.length);
  }

  /** Gives a read's room up; it is then answered by `status`. */
  dropRead(request: Request): void {
    this.#buffer.drop(request.replySlab as Slab);
    request.replySlab = null;
  }

  /** Answers that all of a read's range is a hole. Not in simple form. */
  hole(request: Request): void {
    const bytes = this.#chunkBytes + offsetHole.size;
    const slab = this.#buffer.reserve(bytes);
    const at = slab.used - bytes;
    this.#chunk(slab.view, at, request, Chunk.OFFSET_HOLE, offsetHole.size);
    offsetHole.offset.set(slab.view, at + this.#chunkBytes, request.offset);
    offsetHole.length.set(slab.view, at + this.#chunkBytes, request.length);
    this.#buffer.queue(slab, at, bytes);
  }

  /** Answers with success and nothing more, or with an error of the wire. */
  status(request: Request, error: number): void {
    const { form } = this;
    // Of a structured session, only reads and block status must be answered by chunks.
    const mustChunk = request.type === Command.READ || request.type === Command.BLOCK_STATUS;
    if (form === ReplyForm.SIMPLE || (form === ReplyForm.STRUCTURED && !mustChunk)) {
      const slab = this.#buffer.reserve(simpleReply.size);
      const at = slab.used - simpleReply.size;
      writeSimple(slab.view, at, request, error);
      this.#buffer.queue(slab, at, simpleReply.size);
      return;
    }
    const payloadBytes = error === 0 ? 0 : errorChunk.size;
    const bytes = this.#chunkBytes + payloadBytes;
    const slab = this.#buffer.reserve(bytes);
    const at = slab.used - bytes;
    this.#chunk(slab.view, at, request, error === 0 ? Chunk.NONE : Chunk.ERROR, payloadBytes);
    if (error !== 0) {
      errorChunk.error.set(slab.view, at + this.#chunkBytes, error);
      errorChunk.messageLength.set(slab.view, at + this.#chunkBytes, 0);
    }
    this.#buffer.queue(slab, at, bytes);
  }

  /** Answers with one chunk of `type`. Not in simple form. */
  chunk(request: Request, type: number, payload: Uint8Array): void {
    const bytes = this.#chunkBytes + payload.length;
    const slab = this.#buffer.reserve(bytes);
    const at = slab.used - bytes;
    this.#chunk(slab.view, at, request, type, payload.length);
    slab.buffer.set(payload, at + this.#chunkBytes);
    this.#buffer.queue(slab, at, bytes);
  }

  #chunk(view: DataView, at: number, request: Request, type: number, length: number): void {
    const extended = this.form === ReplyForm.EXTENDED;
    chunkHeader.magic.set(view, at, extended ? EXTENDED_CHUNK_MAGIC : CHUNK_MAGIC);
    chunkHeader.flags.set(view, at, CHUNK_DONE);
    chunkHeader.type.set(view, at, type);
    chunkHeader.cookieHigh.set(view, at, request.cookieHigh);
    chunkHeader.cookieLow.set(view, at, request.cookieLow);
    if (extended) {
      extendedChunk.offsetHigh.set(view, at, request.offsetHigh);
      extendedChunk.offsetLow.set(view, at, request.offsetLow);
      extendedChunk.length.set(view, at, length);
    } else {
      chunkHeader.length.set(view, at, length);
    }
  }
}

function writeSimple(view: DataView, at: number, request: Request, error: number): void {
  simpleReply.magic.set(view, at, SIMPLE_REPLY_MAGIC);
  simpleReply.error.set(view, at, error);
  simpleReply.cookieHigh.set(view, at, request.cookieHigh);
  simpleReply.cookieLow.set(view, at, request.cookieLow);
}
