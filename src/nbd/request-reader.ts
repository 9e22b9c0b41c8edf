/**
 * RequestReader: cuts the bytes that a client sends during transmission into requests (spec: nbd,
 * 5). Hot path.
 *
 *   HEADER ──28 bytes──► write? ──► PAYLOAD ──► request ──► HEADER
 *                          └─ too long ──► DRAIN ──► request, to be refused ──► HEADER
 *
 * A header or a payload that lies whole in one received chunk is used where it is. The reader stops
 * between two requests when its owner says so, and goes on from there.
 * Bytes are hostile: a wrong magic or an absurd length ends the connection.
 */
import {
  Command,
  PAYLOAD_BYTES_ABSURD,
  PAYLOAD_BYTES_MAX,
  request as layout,
  REQUEST_MAGIC,
} from './protocol.ts';
import type { Request } from './request.ts';

export interface RequestConsumer {
  /** A request to fill. */
  takeRequest(): Request;
  /** A whole request; a write's payload is there. False: stop reading for now. */
  startRequest(request: Request): boolean;
  /** A write whose payload was too long and has been drained. False as above. */
  refuseRequest(request: Request): boolean;
  /** The client broke the protocol. */
  breakOff(reason: string): void;
}

const State = { HEADER: 0, PAYLOAD: 1, DRAIN: 2, BROKEN: 3 } as const;

const NO_BYTES = Buffer.alloc(0);

export class RequestReader {
  readonly #consumer: RequestConsumer;
  #state: (typeof State)[keyof typeof State] = State.HEADER;
  /** What has been received and not read: `#chunk` from `#at`. */
  #chunk: Buffer = NO_BYTES;
  #view: DataView = new DataView(new ArrayBuffer(0));
  #at = 0;
  /** A header that spans chunks. */
  readonly #header = Buffer.alloc(layout.size);
  readonly #headerView = new DataView(this.#header.buffer, this.#header.byteOffset, layout.size);
  #headerBytes = 0;
  /** The request whose payload is being received, and how much is still missing. */
  #request: Request | null = null;
  #missing = 0;

  constructor(consumer: RequestConsumer) {
    this.#consumer = consumer;
  }

  /** Takes a received chunk, after the one before has been read to its end. */
  feed(chunk: Buffer): void {
    this.#chunk = chunk;
    this.#view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#at = 0;
  }

  /** Whether everything received has been read. */
  get isEmpty(): boolean {
    return this.#at === this.#chunk.length;
  }

  /** Reads requests until the chunk is used up or the consumer wants no more. */
  read(): void {
    while (this.#at < this.#chunk.length) {
      let more = true;
      if (this.#state === State.HEADER) more = this.#readHeader();
      else if (this.#state === State.PAYLOAD) more = this.#readPayload();
      else if (this.#state === State.DRAIN) more = this.#drain();
      else return;
      if (!more) return;
    }
    this.#chunk = NO_BYTES;
    this.#at = 0;
  }

  #readHeader(): boolean {
    const available = this.#chunk.length - this.#at;
    if (this.#headerBytes === 0 && available >= layout.size) {
      const at = this.#at;
      this.#at += layout.size;
      return this.#parse(this.#view, at);
    }
    const n = Math.min(available, layout.size - this.#headerBytes);
    this.#chunk.copy(this.#header, this.#headerBytes, this.#at, this.#at + n);
    this.#headerBytes += n;
    this.#at += n;
    if (this.#headerBytes < layout.size) return true;
    this.#headerBytes = 0;
    return this.#parse(this.#headerView, 0);
  }

  #parse(view: DataView, at: number): boolean {
    if (layout.magic.get(view, at) !== REQUEST_MAGIC) return this.#break('wrong request magic');
    const request = this.#consumer.takeRequest();
    request.flags = layout.flags.get(view, at);
    request.type = layout.type.get(view, at);
    request.cookieHigh = layout.cookieHigh.get(view, at);
    request.cookieLow = layout.cookieLow.get(view, at);
    request.offset = layout.offset.get(view, at);
    request.length = layout.length.get(view, at);
    if (request.type !== Command.WRITE || request.length === 0) {
      return this.#consumer.startRequest(request);
    }
    return this.#expectPayload(request);
  }

  #expectPayload(request: Request): boolean {
    const { length } = request;
    if (length > PAYLOAD_BYTES_ABSURD) return this.#break(`a write of ${length} bytes`);
    if (length > PAYLOAD_BYTES_MAX) {
      this.#state = State.DRAIN;
    } else if (this.#chunk.length - this.#at >= length) {
      request.payload = this.#chunk;
      request.payloadOffset = this.#at;
      this.#at += length;
      return this.#consumer.startRequest(request);
    } else {
      request.payload = Buffer.allocUnsafeSlow(length);
      request.payloadOffset = 0;
      this.#state = State.PAYLOAD;
    }
    this.#request = request;
    this.#missing = length;
    return true;
  }

  #readPayload(): boolean {
    const request = this.#request as Request;
    const n = Math.min(this.#chunk.length - this.#at, this.#missing);
    this.#chunk.copy(request.payload, request.length - this.#missing, this.#at, this.#at + n);
    this.#at += n;
    this.#missing -= n;
    if (this.#missing > 0) return true;
    this.#state = State.HEADER;
    this.#request = null;
    return this.#consumer.startRequest(request);
  }

  #drain(): boolean {
    const n = Math.min(this.#chunk.length - this.#at, this.#missing);
    this.#at += n;
    this.#missing -= n;
    if (this.#missing > 0) return true;
    const request = this.#request as Request;
    this.#state = State.HEADER;
    this.#request = null;
    return this.#consumer.refuseRequest(request);
  }

  #break(reason: string): boolean {
    this.#state = State.BROKEN;
    this.#consumer.breakOff(reason);
    return false;
  }
}
