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
  ReplyForm,
} from './protocol.ts';
import {
  blockSizes,
  sizeBytes,
  transmissionFlags,
  type ExportTable,
  type OpenExport,
} from './export.ts';
import { parseContexts, parseInfo, parseText } from './option-data.ts';

/** What haggling ended with. */
export interface Agreement {
  readonly export: OpenExport;
  readonly replyForm: ReplyForm;
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

export class Negotiation {
  readonly #exports: ExportTable;
  readonly #send: (frame: Buffer) => void;
  #replyForm: ReplyForm = ReplyForm.SIMPLE;
  /** Export for which base:allocation was selected last. */
  #selectedFor: string | null = null;
  #shuttingDown = false;
  /** The client's wish for EXPORT_NAME's reply. */
  noZeroes = false;

  /** `send` takes frames in order. */
  constructor(exports: ExportTable, send: (frame: Buffer) => void) {
    this.#exports = exports;
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
      case Option.EXTENDED_HEADERS:
        this.#chooseReplyForm(option, data);
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
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    optionReplyHeader.magicHigh.set(view, 0, OPT_REPLY_MAGIC[0]);
    optionReplyHeader.magicLow.set(view, 0, OPT_REPLY_MAGIC[1]);
    optionReplyHeader.option.set(view, 0, option);
    optionReplyHeader.type.set(view, 0, type);
    optionReplyHeader.length.set(view, 0, payload.length);
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

  #chooseReplyForm(option: number, data: Buffer): void {
    if (!this.#mustBeEmpty(option, data)) return;
    const extended = option === Option.EXTENDED_HEADERS;
    if (!extended && this.#replyForm === ReplyForm.EXTENDED) {
      const text = 'extended headers have been agreed on already';
      this.#error(option, OptionReply.ERR_EXT_HEADER_REQD, text);
      return;
    }
    this.#replyForm = extended ? ReplyForm.EXTENDED : ReplyForm.STRUCTURED;
    this.#reply(option, OptionReply.ACK);
  }

  // --- exports

  /** The old way to choose an export: no reply frame, and no way to refuse but closing. */
  #exportName(data: Buffer): Outcome {
    if (this.#replyForm === ReplyForm.EXTENDED) return { next: 'close' };
    const name = parseText(data);
    const found = name === null ? null : this.#exports.open(name);
    if (found === null) return { next: 'close' };
    const reply = Buffer.alloc(this.noZeroes ? 10 : 134);
    reply.writeBigUInt64BE(BigInt(sizeBytes(found.device)), 0);
    reply.writeUInt16BE(transmissionFlags(found.device, this.#replyForm), 8);
    this.#send(reply);
    return { next: 'transmission', agreement: this.#agree(found) };
  }

  #agree(chosen: OpenExport): Agreement {
    return {
      export: chosen,
      replyForm: this.#replyForm,
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
    const flags = transmissionFlags(device, this.#replyForm);
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
    if (set && this.#replyForm === ReplyForm.SIMPLE) {
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
