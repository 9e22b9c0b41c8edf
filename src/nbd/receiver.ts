/**
 * Receiver: brings the bytes that a socket receives to where its sink wants them. Hot path.
 *
 * A net.Socket allocates a buffer of 64 KiB for each read; at full speed that is half a gigabyte a
 * second of garbage, a fifth of the server's time. Given `onread`, it receives into the buffers
 * that it is told instead. Node offers that for sockets that connect, not for those that a server
 * accepts: so the accepted socket's handle is moved to a new socket made with `onread`. Where there
 * is no handle to move (another kind of stream: TLS, a pair of pipes) bytes are copied from the
 * stream's chunks.
 */
import net from 'node:net';
import type { Duplex } from 'node:stream';

export interface ByteSink {
  /** Where to put what is received next. Not empty. */
  room(): Uint8Array;
  /** `bytes` have been put there. False: receive no more until `resume`. */
  received(bytes: number): boolean;
}

/** What an accepted socket keeps behind its types. */
interface HasHandle {
  _handle?: object | null;
}

const NO_BYTES = Buffer.alloc(0);

export class Receiver {
  /** The stream to write to, and to end or destroy. */
  readonly socket: Duplex;
  readonly #sink: ByteSink;
  /** What a stream's chunk has left since the sink wanted no more. */
  #rest: Buffer = NO_BYTES;

  /** Takes over `accepted`: a socket accepted with `pauseOnConnect`, or any other stream. */
  constructor(accepted: Duplex, sink: ByteSink) {
    this.#sink = sink;
    const direct = accepted instanceof net.Socket ? this.#direct(accepted) : null;
    this.socket = direct ?? accepted;
    if (direct !== null) return;
    accepted.on('data', (chunk: Buffer) => {
      this.#rest = chunk;
      this.#copyRest();
    });
  }

  #direct(accepted: net.Socket): net.Socket | null {
    const shell = accepted as HasHandle;
    const handle = shell._handle ?? null;
    if (handle === null || accepted.constructor !== net.Socket) return null;
    const options = {
      handle,
      allowHalfOpen: true,
      onread: {
        buffer: () => this.#sink.room(),
        callback: (bytes: number) => this.#sink.received(bytes),
      },
    };
    shell._handle = null;
    const socket = new net.Socket(options);
    // The accepted socket is what its server counts.
    socket.once('close', () => accepted.destroy());
    return socket;
  }

  /** Receives on. */
  resume(): void {
    if (this.#rest.length > 0) this.#copyRest();
    else this.socket.resume();
  }

  #copyRest(): void {
    let more = true;
    while (more && this.#rest.length > 0) {
      const room = this.#sink.room();
      const n = Math.min(room.length, this.#rest.length);
      this.#rest.copy(room, 0, 0, n);
      this.#rest = this.#rest.subarray(n);
      more = this.#sink.received(n);
    }
    if (more) this.socket.resume();
    else this.socket.pause();
  }
}
