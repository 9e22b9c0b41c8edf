/**
 * OptionReader: cuts the bytes that a client sends during haggling into options (spec: nbd, 2 and
 * 3).
 *
 *   CLIENT_FLAGS ──► HEADER ──► DATA ──► option ──► HEADER
 *                       └─ too long ──► DRAIN ──► option, to be refused ──► HEADER
 *
 * Everything is received into one buffer, in which the longest option that is kept has room.
 * Bytes are hostile: a wrong magic or an absurd length ends the connection.
 */
import { OPT_MAGIC, OPTION_BYTES_ABSURD, OPTION_BYTES_MAX, optionHeader } from './protocol.ts';

export interface OptionConsumer {
  /** The client's flags. False: stop reading, for now or for good. */
  clientFlags(flags: number): boolean;
  /** A whole option; `data` is valid until this returns. False as above. */
  option(option: number, data: Buffer): boolean;
  /** An option whose data was too long and has been drained. False as above. */
  oversizedOption(option: number): boolean;
  /** The client broke the protocol. */
  breakOff(reason: string): void;
}

const CLIENT_FLAGS_BYTES = 4;

const State = { CLIENT_FLAGS: 0, HEADER: 1, DATA: 2, DRAIN: 3, BROKEN: 4 } as const;

export class OptionReader {
  readonly #consumer: OptionConsumer;
  readonly #buffer = Buffer.allocUnsafeSlow(optionHeader.size + OPTION_BYTES_MAX);
  readonly #view = new DataView(this.#buffer.buffer);
  #state: (typeof State)[keyof typeof State] = State.CLIENT_FLAGS;
  /** Received and not read: `[#begin, #end)`. */
  #begin = 0;
  #end = 0;
  #option = 0;
  /** Length of the option's data; in DRAIN, what is missing of it. */
  #bytes = 0;

  constructor(consumer: OptionConsumer) {
    this.#consumer = consumer;
  }

  /** Where the next bytes are to be put. */
  room(): Uint8Array {
    this.#buffer.copyWithin(0, this.#begin, this.#end);
    this.#end -= this.#begin;
    this.#begin = 0;
    return this.#buffer.subarray(this.#end);
  }

  /** `bytes` have been put where `room` said. */
  received(bytes: number): void {
    this.#end += bytes;
  }

  /** What has come behind the last option that was read. */
  get rest(): Uint8Array {
    return this.#buffer.subarray(this.#begin, this.#end);
  }

  /** Reads options until what was received is used up or the consumer wants no more. */
  read(): void {
    let more = true;
    while (more) {
      const available = this.#end - this.#begin;
      switch (this.#state) {
        case State.CLIENT_FLAGS:
          if (available < CLIENT_FLAGS_BYTES) return;
          this.#state = State.HEADER;
          more = this.#consumer.clientFlags(this.#view.getUint32(this.#take(CLIENT_FLAGS_BYTES)));
          break;
        case State.HEADER:
          if (available < optionHeader.size) return;
          more = this.#readHeader(this.#take(optionHeader.size));
          break;
        case State.DATA: {
          if (available < this.#bytes) return;
          this.#state = State.HEADER;
          const begin = this.#take(this.#bytes);
          const data = this.#buffer.subarray(begin, this.#begin);
          more = this.#consumer.option(this.#option, data);
          break;
        }
        case State.DRAIN: {
          const n = Math.min(available, this.#bytes);
          this.#take(n);
          this.#bytes -= n;
          if (this.#bytes > 0) return;
          this.#state = State.HEADER;
          more = this.#consumer.oversizedOption(this.#option);
          break;
        }
        default:
          return;
      }
    }
  }

  /** Steps over `bytes` of what was received; returns where they begin. */
  #take(bytes: number): number {
    this.#begin += bytes;
    return this.#begin - bytes;
  }

  #readHeader(at: number): boolean {
    const view = this.#view;
    const high = optionHeader.magicHigh.get(view, at);
    const low = optionHeader.magicLow.get(view, at);
    if (high !== OPT_MAGIC[0] || low !== OPT_MAGIC[1]) return this.#break('wrong option magic');
    this.#option = optionHeader.option.get(view, at);
    this.#bytes = optionHeader.length.get(view, at);
    if (this.#bytes > OPTION_BYTES_ABSURD) {
      return this.#break(`an option of ${this.#bytes} bytes`);
    }
    this.#state = this.#bytes <= OPTION_BYTES_MAX ? State.DATA : State.DRAIN;
    return true;
  }

  #break(reason: string): boolean {
    this.#state = State.BROKEN;
    this.#consumer.breakOff(reason);
    return false;
  }
}
