/**
 * An NBD client written for tests: it sends what it is told to, right or wrong, and shows exactly
 * what comes back. The numbers of the protocol are written out here once more, on purpose.
 */
import { once } from 'node:events';
import net from 'node:net';
import type { Duplex } from 'node:stream';

export const Opt = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

export const Rep = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  UNSUP: 0x80000001,
  POLICY: 0x80000002,
  INVALID: 0x80000003,
  TLS_REQD: 0x80000005,
  UNKNOWN: 0x80000006,
  SHUTDOWN: 0x80000007,
  TOO_BIG: 0x80000009,
  EXT_HEADER_REQD: 0x8000000a,
} as const;

export const Cmd = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
  RESIZE: 8,
} as const;

export const Flag = {
  FUA: 1,
  NO_HOLE: 2,
  DF: 4,
  REQ_ONE: 8,
  FAST_ZERO: 16,
  PAYLOAD_LEN: 32,
} as const;

export const Err = {
  EPERM: 1,
  EIO: 5,
  EINVAL: 22,
  ENOSPC: 28,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

export type Form = 'simple' | 'structured' | 'extended';

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export interface Command {
  readonly flags?: number;
  /** A number, or all 64 bits. */
  readonly offset?: number | bigint;
  readonly length?: number | bigint;
  /** Sent behind the header; its length is the default for `length`. */
  readonly data?: Uint8Array;
  readonly cookie?: bigint;
}

/** One whole reply. */
export interface Reply {
  readonly cookie: bigint;
  readonly error: number;
  /** A read's data, holes filled with zeroes. */
  readonly data: Buffer;
  /** Types of the chunks, in order; empty for a simple reply. */
  readonly chunks: readonly number[];
  readonly extents: readonly { readonly bytes: number; readonly flags: number }[];
}

/** The server has closed the connection. */
export class ClosedError extends Error {}

interface Pending {
  readonly type: number;
  readonly offset: bigint;
  readonly length: number;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

const DONE = 1;

export class NbdClient {
  readonly socket: Duplex;
  form: Form = 'simple';
  /** What GO or EXPORT_NAME told. */
  size = 0n;
  transmissionFlags = 0;
  /** Cookies in the order in which replies came. */
  readonly order: bigint[] = [];
  /** Resolves when the server has closed the connection, or it broke. */
  readonly closed: Promise<void>;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;
  #wanted: { bytes: number; resolve: () => void; reject: (error: Error) => void } | null = null;
  #isClosed = false;
  #nextCookie = 1n;
  readonly #pending = new Map<bigint, Pending>();
  #pumping = false;

  constructor(socket: Duplex) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#bytes += chunk.length;
      if (this.#wanted !== null && this.#bytes >= this.#wanted.bytes) {
        const { resolve } = this.#wanted;
        this.#wanted = null;
        resolve();
      }
    });
    socket.on('error', () => undefined);
    this.closed = new Promise((resolve) => {
      const end = (): void => {
        this.#isClosed = true;
        this.#wanted?.reject(new ClosedError('the server closed the connection'));
        this.#wanted = null;
        resolve();
      };
      socket.on('end', end);
      socket.on('close', end);
    });
  }

  /** Connects to a unix socket, without reading or sending anything. */
  static async connect(path: string): Promise<NbdClient> {
    const socket = net.connect({ path, allowHalfOpen: true });
    await once(socket, 'connect');
    return new NbdClient(socket);
  }

  // --- bytes

  send(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** The next `bytes` that come; rejects with ClosedError if fewer do. */
  async read(bytes: number): Promise<Buffer> {
    if (this.#bytes < bytes) {
      if (this.#isClosed) throw new ClosedError('the server has closed the connection');
      await new Promise<void>((resolve, reject) => {
        this.#wanted = { bytes, resolve, reject };
      });
    }
    const parts: Buffer[] = [];
    for (let missing = bytes; missing > 0;) {
      const chunk = this.#chunks[0] as Buffer;
      const part = chunk.subarray(0, missing);
      parts.push(part);
      missing -= part.length;
      if (part.length === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(part.length);
    }
    this.#bytes -= bytes;
    return Buffer.concat(parts);
  }

  /** Bytes that have come and have not been read. */
  get unread(): number {
    return this.#bytes;
  }

  /** Ends the connection without a word. */
  destroy(): void {
    this.socket.destroy();
  }

  // --- haggling

  /** Reads the greeting and answers with the client's flags. */
  async greet(flags = 3): Promise<Buffer> {
    const greeting = await this.read(18);
    this.send(u32(flags));
    return greeting;
  }

  sendOption(option: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.send(Buffer.from('IHAVEOPT'), u32(option), u32(data.length), data);
  }

  async readOptionReply(): Promise<OptionReply> {
    const header = await this.read(20);
    if (header.readBigUInt64BE(0) !== 0x0003e889045565a9n) throw new Error('wrong reply magic');
    const data = await this.read(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data };
  }

  /** Sends an option and reads its replies, up to the ACK or error that ends them. */
  async option(option: number, data?: Uint8Array): Promise<OptionReply[]> {
    this.sendOption(option, data);
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = await this.readOptionReply();
      replies.push(reply);
      if (reply.type === Rep.ACK || reply.type >= 0x80000000) return replies;
    }
  }

  /** Types of the replies to an option. */
  async optionTypes(option: number, data?: Uint8Array): Promise<number[]> {
    return (await this.option(option, data)).map(({ type }) => type);
  }

  /** Agrees on a form of replies. */
  async choose(form: Form): Promise<void> {
    if (form === 'simple') return;
    const option = form === 'structured' ? Opt.STRUCTURED_REPLY : Opt.EXTENDED_HEADERS;
    const [reply] = await this.option(option);
    if (reply?.type !== Rep.ACK) throw new Error(`${form} replies are refused`);
    this.form = form;
  }

  /** GO, into transmission. */
  async go(name: string): Promise<void> {
    const replies = await this.option(Opt.GO, infoData(name, []));
    const last = replies.at(-1);
    if (last?.type !== Rep.ACK) throw new Error(`GO is refused: ${last?.data.toString()}`);
    const info = replies.find(({ type, data }) => type === Rep.INFO && data.readUInt16BE(0) === 0);
    if (info === undefined) throw new Error('GO without NBD_INFO_EXPORT');
    this.size = info.data.readBigUInt64BE(2);
    this.transmissionFlags = info.data.readUInt16BE(10);
  }

  // --- transmission

  /** A request's bytes, in the form that was agreed on. */
  encode(type: number, command: Command, cookie: bigint): Buffer {
    const { flags = 0, offset = 0, data } = command;
    const length = BigInt(command.length ?? data?.length ?? 0);
    const extended = this.form === 'extended';
    const header = Buffer.alloc(extended ? 32 : 28);
    header.writeUInt32BE(extended ? 0x21e41c71 : 0x25609513, 0);
    const payload = extended && data !== undefined ? Flag.PAYLOAD_LEN : 0;
    header.writeUInt16BE(flags | payload, 4);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    if (extended) header.writeBigUInt64BE(length, 24);
    else header.writeUInt32BE(Number(length), 24);
    return data === undefined ? header : Buffer.concat([header, data]);
  }

  /** Sends a command and resolves to its reply. Any number may be under way. */
  command(type: number, command: Command = {}): Promise<Reply> {
    const cookie = command.cookie ?? this.#nextCookie++;
    return new Promise((resolve, reject) => {
      this.#pending.set(cookie, {
        type,
        offset: BigInt(command.offset ?? 0),
        length: Number(command.length ?? command.data?.length ?? 0),
        resolve,
        reject,
      });
      this.send(this.encode(type, command, cookie));
      if (!this.#pumping) void this.#pump();
    });
  }

  async #pump(): Promise<void> {
    this.#pumping = true;
    try {
      while (this.#pending.size > 0) await this.#readReply();
    } catch (error) {
      for (const { reject } of this.#pending.values()) reject(error as Error);
      this.#pending.clear();
    }
    this.#pumping = false;
  }

  async #readReply(): Promise<void> {
    const magic = (await this.read(4)).readUInt32BE(0);
    if (magic === 0x67446698) return this.#readSimple();
    const extended = magic === 0x6e8a278c;
    if (!extended && magic !== 0x668e33ef) throw new Error(`wrong magic ${magic.toString(16)}`);
    const wanted = extended ? 'extended' : 'structured';
    if (this.form !== wanted) throw new Error(`a reply in ${wanted} form to ${this.form}`);
    const chunks: number[] = [];
    let reply: Reply | null = null;
    for (let first = true; ; first = false) {
      if (!first) await this.read(4);
      const header = await this.read(extended ? 28 : 16);
      const flags = header.readUInt16BE(0);
      const type = header.readUInt16BE(2);
      const cookie = header.readBigUInt64BE(4);
      const pending = this.#pendingOf(cookie);
      if (extended && header.readBigUInt64BE(12) !== pending.offset) {
        throw new Error('an extended chunk repeats another offset');
      }
      const length = extended ? Number(header.readBigUInt64BE(20)) : header.readUInt32BE(12);
      chunks.push(type);
      reply = addChunk(reply, pending, cookie, type, await this.read(length));
      if ((flags & DONE) !== 0) break;
    }
    this.#finish({ ...reply, chunks });
  }

  async #readSimple(): Promise<void> {
    if (this.form === 'extended') throw new Error('a simple reply among extended headers');
    const header = await this.read(12);
    const error = header.readUInt32BE(0);
    const cookie = header.readBigUInt64BE(4);
    const { type, length } = this.#pendingOf(cookie);
    const mustChunk = type === Cmd.READ || type === Cmd.BLOCK_STATUS;
    if (mustChunk && this.form === 'structured') throw new Error('a simple reply to a read');
    const data = type === Cmd.READ && error === 0 ? await this.read(length) : Buffer.alloc(0);
    this.#finish({ cookie, error, data, chunks: [], extents: [] });
  }

  #pendingOf(cookie: bigint): Pending {
    const pending = this.#pending.get(cookie);
    if (pending === undefined) throw new Error(`a reply to nothing, with cookie ${cookie}`);
    return pending;
  }

  #finish(reply: Reply): void {
    const { resolve } = this.#pendingOf(reply.cookie);
    this.#pending.delete(reply.cookie);
    this.order.push(reply.cookie);
    resolve(reply);
  }

  // --- commands that must succeed

  async readAt(offset: number, length: number): Promise<Buffer> {
    return expectOk(await this.command(Cmd.READ, { offset, length })).data;
  }

  async writeAt(offset: number, data: Uint8Array, flags = 0): Promise<void> {
    expectOk(await this.command(Cmd.WRITE, { offset, data, flags }));
  }

  async flush(): Promise<void> {
    expectOk(await this.command(Cmd.FLUSH));
  }

  /** Block status as `bytes:flags …`. */
  async map(offset: number, length: number, flags = 0): Promise<string> {
    const reply = expectOk(await this.command(Cmd.BLOCK_STATUS, { offset, length, flags }));
    return reply.extents.map((extent) => `${extent.bytes}:${extent.flags}`).join(' ');
  }

  /** Says goodbye and waits until the server has closed. */
  async disconnect(): Promise<void> {
    this.send(this.encode(Cmd.DISC, {}, 0n));
    await this.closed;
    this.socket.destroy();
  }
}

function expectOk(reply: Reply): Reply {
  if (reply.error !== 0) throw new Error(`the command failed with errno ${reply.error}`);
  return reply;
}

function addChunk(
  before: Reply | null,
  pending: Pending,
  cookie: bigint,
  type: number,
  payload: Buffer,
): Reply {
  const hasData = pending.type === Cmd.READ && type < 0x8000;
  const data = Buffer.alloc(hasData ? pending.length : 0, 0xcc);
  const reply = before ?? { cookie, error: 0, data, chunks: [], extents: [] };
  switch (type) {
    case 0:
      if (payload.length !== 0) throw new Error('a NONE chunk with payload');
      return reply;
    case 1: {
      const at = Number(payload.readBigUInt64BE(0) - pending.offset);
      payload.copy(reply.data, at, 8);
      return reply;
    }
    case 2: {
      const at = Number(payload.readBigUInt64BE(0) - pending.offset);
      reply.data.fill(0, at, at + payload.readUInt32BE(8));
      return reply;
    }
    case 5:
    case 6:
      return { ...reply, extents: readExtents(payload, type === 6) };
    case 0x8001:
      if (payload.length !== 6 + payload.readUInt16BE(4)) throw new Error('a crooked error chunk');
      return { ...reply, error: payload.readUInt32BE(0), data: Buffer.alloc(0) };
    default:
      throw new Error(`a chunk of type ${type}`);
  }
}

function readExtents(payload: Buffer, extended: boolean): { bytes: number; flags: number }[] {
  if (payload.readUInt32BE(0) !== 1) throw new Error('block status of another context');
  const size = extended ? 16 : 8;
  const begin = extended ? 8 : 4;
  const count = (payload.length - begin) / size;
  if (extended && payload.readUInt32BE(4) !== count) throw new Error('a wrong count of extents');
  return Array.from({ length: count }, (_, i) => {
    const at = begin + i * size;
    return extended
      ? {
          bytes: Number(payload.readBigUInt64BE(at)),
          flags: Number(payload.readBigUInt64BE(at + 8)),
        }
      : { bytes: payload.readUInt32BE(at), flags: payload.readUInt32BE(at + 4) };
  });
}

export function u16(n: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(n);
  return bytes;
}

export function u32(n: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(n);
  return bytes;
}

/** A string with its length before it. */
export function sized(text: string | Uint8Array): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u32(bytes.length), bytes]);
}

/** The data of INFO and GO. */
export function infoData(name: string | Uint8Array, infos: readonly number[]): Buffer {
  return Buffer.concat([sized(name), u16(infos.length), ...infos.map(u16)]);
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextData(name: string, queries: readonly string[]): Buffer {
  return Buffer.concat([sized(name), u32(queries.length), ...queries.map((text) => sized(text))]);
}
