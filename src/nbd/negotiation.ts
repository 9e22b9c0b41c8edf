/**
 * Option haggling: what a client asks for before transmission, and what it is told (spec: nbd, 3).
 *
 * Pure: takes option frames, gives reply frames. The session (session.ts) reads and writes them.
 */
import {
  BASE_ALLOCATION,
  BASE_ALLOCATION_ID,
  Info,
  Option,
  OPT_REPLY_MAGIC,
  OptionReply,
  optionReplyHeader,
  STRING_BYTES_MAX,
} from './protocol.ts';
import {
  blockSizes,
  sizeBytes,
  transmissionFlags,
  type ExportTable,
  type OpenExport,
} from './export.ts';

/** What haggling ended with. */
export interface Agreement {
  readonly export: OpenExport;
  readonly structuredReplies: boolean;
  /** base:allocation was selected for this export. */
  readonly baseAllocation: boolean;
}

/** What the session does after an option. */
export type Outcome =
  | { readonly next: 'option' }
  /** Send the replies, then close. */
  | { readonly next: 'close' }
  | { readonly next: 'transmission'; readonly agreement: Agreement };

const MORE: Outcome = { next: 'option' };

/** An INFO or GO option's data, taken apart. */
interface InfoRequest {
  readonly name: string;
  readonly infos: readonly number[];
}

export class Negotiation {
  readonly #exports: ExportTable;
  readonly #send: (frame: Buffer) => void;
  #structuredReplies = false;
  /** Export for which base:allocation was selected last. */
  #selectedFor: string | null = null;
  #shuttingDown = false;
  readonly #noZeroes: boolean;

  /** `send` takes frames in order. `noZeroes` is the client's wish for EXPORT_NAME's reply. */
  constructor(exports: ExportTable, noZeroes: boolean, send: (frame: Buffer) => void) {
    this.#exports = exports;
    this.#noZeroes = noZeroes;
    this.#send = send;
  }

  /** From now on options are answered ERR_SHUTDOWN. */
  shutDown(): void {
    this.#shuttingDown = true;
  }

  /** An option whose data was too long to keep. */
  tooBig(option: number): void {
    this.#error(option, OptionReply.ERR_TOO_BIG, 'the option is too long');
  }

  handle(option: number, data: Buffer): Outcome {
    if (option === Option.ABORT) {
      this.#reply(option, OptionReply.ACK);
      return { next: 'close' };
    }
    if (this.#shuttingDown) {
      if (option === Option.EXPORT_NAME) return { next: 'close' };
      this.#error(option, OptionReply.ERR_SHUTDOWN, 'the server is shutting down');
      return MORE;
    }
    switch (option) {
      case Option.EXPORT_NAME:
        return this.#exportName(data);
      case Option.LIST:
        this.#list(option, data);
        return MORE;
      case Option.INFO:
      case Option.GO:
        return this.#infoOrGo(option, data);
      case Option.STRUCTURED_REPLY:
        if (this.#mustBeEmpty(option, data)) {
          this.#structuredReplies = true;
          this.#reply(option, OptionReply.ACK);
        }
        return MORE;
      case Option.LIST_META_CONTEXT:
      case Option.SET_META_CONTEXT:
        this.#metaContext(option, data);
        return MORE;
      default:
        this.#error(option, OptionReply.ERR_UNSUP, 'the option is not supported');
        return MORE;
    }
  }

  // --- replies

  #reply(option: number, type: number, payload: Buffer = Buffer.alloc(0)): void {
    const frame = Buffer.alloc(optionReplyHeader.size + payload.length);
    frame.writeUInt32BE(OPT_REPLY_MAGIC[0], 0);
    frame.writeUInt32BE(OPT_REPLY_MAGIC[1], 4);
    frame.writeUInt32BE(option, optionReplyHeader.option.offset);
    frame.writeUInt32BE(type, optionReplyHeader.type.offset);
    frame.writeUInt32BE(payload.length, optionReplyHeader.length.offset);
    payload.copy(frame, optionReplyHeader.size);
    this.#send(frame);
  }

  #error(option: number, type: number, text: string): void {
    this.#reply(option, type, Buffer.from(text));
  }

  #mustBeEmpty(option: number, data: Buffer): boolean {
    if (data.length === 0) return true;
    const text = `the option has no data, but ${data.length} bytes came`;
    this.#error(option, OptionReply.ERR_INVALID, text);
    return false;
  }

  // --- exports

  /** The old way to choose an export: no reply frame, and no way to refuse but closing. */
  #exportName(data: Buffer): Outcome {
    const name = textOf(data);
    const found = name === null ? null : this.#exports.open(name);
    if (found === null) return { next: 'close' };
    const reply = Buffer.alloc(this.#noZeroes ? 10 : 134);
    reply.writeBigUInt64BE(BigInt(sizeBytes(found.device)), 0);
    reply.writeUInt16BE(transmissionFlags(found.device, this.#structuredReplies), 8);
    this.#send(reply);
    return { next: 'transmission', agreement: this.#agree(found) };
  }

  #agree(chosen: OpenExport): Agreement {
    return {
      export: chosen,
      structuredReplies: this.#structuredReplies,
      baseAllocation: this.#selectedFor === chosen.name,
    };
  }

  #list(option: number, data: Buffer): void {
    if (!this.#mustBeEmpty(option, data)) return;
    for (const { name, description } of this.#exports.list()) {
      const bytes = Buffer.from(name);
      const payload = Buffer.concat([uint32(bytes.length), bytes, Buffer.from(description)]);
      this.#reply(option, OptionReply.SERVER, payload);
    }
    this.#reply(option, OptionReply.ACK);
  }

  #infoOrGo(option: number, data: Buffer): Outcome {
    const wanted = parseInfo(data);
    if (wanted === null) {
      this.#error(option, OptionReply.ERR_INVALID, 'the lengths in the option do not add up');
      return MORE;
    }
    const found = this.#open(option, wanted.name);
    if (found === null) return MORE;
    this.#describe(option, found, wanted.infos);
    this.#reply(option, OptionReply.ACK);
    if (option === Option.GO) return { next: 'transmission', agreement: this.#agree(found) };
    found.close();
    return MORE;
  }

  #open(option: number, name: string): OpenExport | null {
    const found = this.#exports.open(name);
    if (found !== null) return found;
    const text =
      name === '' ? 'there is no default export; name one' : `there is no export named '${name}'`;
    this.#error(option, OptionReply.ERR_UNKNOWN, text);
    return null;
  }

  #describe(option: number, found: OpenExport, infos: readonly number[]): void {
    const { device } = found;
    const info = (type: number, ...parts: Buffer[]): void =>
      this.#reply(option, OptionReply.INFO, Buffer.concat([uint16(type), ...parts]));
    const flags = transmissionFlags(device, this.#structuredReplies);
    info(Info.EXPORT, uint64(sizeBytes(device)), uint16(flags));
    if (infos.includes(Info.NAME)) info(Info.NAME, Buffer.from(found.name));
    if (infos.includes(Info.DESCRIPTION)) info(Info.DESCRIPTION, Buffer.from(found.description));
    if (infos.includes(Info.BLOCK_SIZE)) {
      info(Info.BLOCK_SIZE, ...blockSizes(device).map((size) => uint32(size)));
    }
  }

  // --- metadata contexts

  #metaContext(option: number, data: Buffer): void {
    const set = option === Option.SET_META_CONTEXT;
    // A SET replaces the earlier selection even when it fails.
    if (set) this.#selectedFor = null;
    const wanted = parseContexts(data);
    if (wanted === null) {
      this.#error(option, OptionReply.ERR_INVALID, 'the lengths in the option do not add up');
      return;
    }
    if (set && !this.#structuredReplies) {
      this.#error(option, OptionReply.ERR_INVALID, 'structured replies come first');
      return;
    }
    const found = this.#open(option, wanted.name);
    if (found === null) return;
    found.close();
    const names = set ? [BASE_ALLOCATION] : [BASE_ALLOCATION, 'base:'];
    const all = !set && wanted.queries.length === 0;
    if (all || wanted.queries.some((query) => names.includes(query))) {
      const id = set ? BASE_ALLOCATION_ID : 0;
      if (set) this.#selectedFor = found.name;
      const payload = Buffer.concat([uint32(id), Buffer.from(BASE_ALLOCATION)]);
      this.#reply(option, OptionReply.META_CONTEXT, payload);
    }
    this.#reply(option, OptionReply.ACK);
  }
}

function uint16(n: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(n);
  return bytes;
}

function uint32(n: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(n);
  return bytes;
}

function uint64(n: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(n));
  return bytes;
}

/** A string of the wire; null if it is too long, has a NUL or is not UTF-8. */
function textOf(bytes: Buffer): string | null {
  if (bytes.length > STRING_BYTES_MAX || bytes.includes(0)) return null;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** Takes `length` bytes at `at`; null if they are not there. */
function slice(data: Buffer, at: number, length: number): Buffer | null {
  return length <= data.length - at ? data.subarray(at, at + length) : null;
}

/** A 32-bit length and a string of that length at `at`. */
function sizedText(data: Buffer, at: number): { text: string; end: number } | null {
  if (data.length - at < 4) return null;
  const bytes = slice(data, at + 4, data.readUInt32BE(at));
  const text = bytes === null ? null : textOf(bytes);
  return bytes === null || text === null ? null : { text, end: at + 4 + bytes.length };
}

function parseInfo(data: Buffer): InfoRequest | null {
  const name = sizedText(data, 0);
  if (name === null || data.length - name.end < 2) return null;
  const count = data.readUInt16BE(name.end);
  const list = slice(data, name.end + 2, count * 2);
  if (list === null || data.length !== name.end + 2 + count * 2) return null;
  const infos = Array.from({ length: count }, (_, i) => list.readUInt16BE(i * 2));
  return { name: name.text, infos };
}

function parseContexts(data: Buffer): { name: string; queries: string[] } | null {
  const name = sizedText(data, 0);
  if (name === null || data.length - name.end < 4) return null;
  const count = data.readUInt32BE(name.end);
  const queries: string[] = [];
  let at = name.end + 4;
  for (let i = 0; i < count; i++) {
    const query = sizedText(data, at);
    if (query === null) return null;
    queries.push(query.text);
    at = query.end;
  }
  return at === data.length ? { name: name.text, queries } : null;
}
