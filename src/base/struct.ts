/**
 * Layouts declared once: the fields of a disk or wire structure as typed values with a fixed
 * offset.
 *
 *   const nodeHeader = struct(32, { csum: le32, flags: le32, blocknr: le64, ... });
 *   nodeHeader.blocknr.get(view, base)
 *
 * The declaration is checked when the module loads: fields must be aligned to their size and add up
 * to the declared size. Reading makes no object. 64-bit fields are read as two words; a value that
 * does not fit a plain number (2^53) is damage or hostile input, and reading it as a number throws
 * EILSEQ.
 * Does not: know what any structure means.
 */
import { assert, DmError } from './error.ts';
import { U32 } from './numbers.ts';

/** What a reader of bytes may do with them; a DataView is one. */
export interface ReadView {
  readonly byteLength: number;
  getUint8(offset: number): number;
  getUint16(offset: number, littleEndian?: boolean): number;
  getUint32(offset: number, littleEndian?: boolean): number;
}

/** What a writer of bytes may do with them; a DataView is one. */
export interface WriteView extends ReadView {
  setUint8(offset: number, value: number): void;
  setUint16(offset: number, value: number, littleEndian?: boolean): void;
  setUint32(offset: number, value: number, littleEndian?: boolean): void;
}

/** High halves from here on make a number above 2^53 - 1. */
const HIGH_WORD_LIMIT = 0x20_0000;

/** A little-endian u64 at `offset` as a number; EILSEQ if it does not fit one. */
export function getLe64(view: ReadView, offset: number): number {
  const high = view.getUint32(offset + 4, true);
  const low = view.getUint32(offset, true);
  if (high >= HIGH_WORD_LIMIT) throw tooLarge(high, low);
  return high * U32 + low;
}

/** A little-endian u64 as a number, rounded when above 2^53: for comparing only. */
export function peekLe64(view: ReadView, offset: number): number {
  return view.getUint32(offset + 4, true) * U32 + view.getUint32(offset, true);
}

/** Writes a number as a little-endian u64. */
export function setLe64(view: WriteView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / U32), true);
}

function tooLarge(high: number, low: number): DmError {
  const value = BigInt(high) * BigInt(U32) + BigInt(low);
  return new DmError('EILSEQ', `wanted a number below 2^53, found ${value}`);
}

export class Le32Field {
  readonly offset: number;
  readonly size = 4;
  constructor(offset: number) {
    this.offset = offset;
  }
  get(view: ReadView, base: number): number {
    return view.getUint32(base + this.offset, true);
  }
  set(view: WriteView, base: number, value: number): void {
    view.setUint32(base + this.offset, value, true);
  }
}

export class Le64Field {
  readonly offset: number;
  readonly size = 8;
  constructor(offset: number) {
    this.offset = offset;
  }
  get(view: ReadView, base: number): number {
    return getLe64(view, base + this.offset);
  }
  set(view: WriteView, base: number, value: number): void {
    setLe64(view, base + this.offset, value);
  }
  /** All 64 bits, for fields whose every value is the user's. */
  getBig(view: ReadView, base: number): bigint {
    const at = base + this.offset;
    return (BigInt(view.getUint32(at + 4, true)) << 32n) | BigInt(view.getUint32(at, true));
  }
  setBig(view: WriteView, base: number, value: bigint): void {
    const at = base + this.offset;
    view.setUint32(at, Number(value & 0xffff_ffffn), true);
    view.setUint32(at + 4, Number(value >> 32n), true);
  }
}

export class Be16Field {
  readonly offset: number;
  readonly size = 2;
  constructor(offset: number) {
    this.offset = offset;
  }
  get(view: ReadView, base: number): number {
    return view.getUint16(base + this.offset, false);
  }
  set(view: WriteView, base: number, value: number): void {
    view.setUint16(base + this.offset, value, false);
  }
}

export class Be32Field {
  readonly offset: number;
  readonly size = 4;
  constructor(offset: number) {
    this.offset = offset;
  }
  get(view: ReadView, base: number): number {
    return view.getUint32(base + this.offset, false);
  }
  set(view: WriteView, base: number, value: number): void {
    view.setUint32(base + this.offset, value, false);
  }
}

/**
 * A big-endian u64. Wire offsets may exceed 2^53: `get` then gives a rounded number, larger than
 * any size.
 */
export class Be64Field {
  readonly offset: number;
  readonly size = 8;
  constructor(offset: number) {
    this.offset = offset;
  }
  get(view: ReadView, base: number): number {
    const at = base + this.offset;
    return view.getUint32(at, false) * U32 + view.getUint32(at + 4, false);
  }
  set(view: WriteView, base: number, value: number): void {
    const at = base + this.offset;
    view.setUint32(at, Math.floor(value / U32), false);
    view.setUint32(at + 4, value >>> 0, false);
  }
}

/** A run of bytes with a place but no number: a uuid, a root record, reserved space. */
export class BytesField {
  readonly offset: number;
  readonly size: number;
  constructor(offset: number, size: number) {
    this.offset = offset;
    this.size = size;
  }
}

interface Kind<F> {
  readonly size: number;
  readonly align: number;
  make(offset: number): F;
}

export const le32: Kind<Le32Field> = { size: 4, align: 4, make: (at) => new Le32Field(at) };
export const le64: Kind<Le64Field> = { size: 8, align: 8, make: (at) => new Le64Field(at) };
/** A little-endian u64 at an odd place: some kernel structures are packed. */
export const le64Packed: Kind<Le64Field> = { size: 8, align: 4, make: (at) => new Le64Field(at) };
export const be16: Kind<Be16Field> = { size: 2, align: 1, make: (at) => new Be16Field(at) };
export const be32: Kind<Be32Field> = { size: 4, align: 1, make: (at) => new Be32Field(at) };
export const be64: Kind<Be64Field> = { size: 8, align: 1, make: (at) => new Be64Field(at) };

/** `size` bytes that are not a number. */
export function bytes(size: number): Kind<BytesField> {
  return { size, align: 1, make: (at) => new BytesField(at, size) };
}

type Fields<S extends Record<string, Kind<unknown>>> = {
  readonly [K in keyof S]: S[K] extends Kind<infer F> ? F : never;
};

/**
 * Lays out `kinds` in order from offset 0; throws if they do not add up to `size` or are
 * misaligned.
 */
export function struct<S extends Record<string, Kind<unknown>>>(
  size: number,
  kinds: S,
): Fields<S> & { readonly size: number } {
  const fields: Record<string, unknown> = { size };
  let offset = 0;
  for (const [name, kind] of Object.entries(kinds)) {
    assert(offset % kind.align === 0, `field ${name} at ${offset} is aligned to ${kind.align}`);
    fields[name] = kind.make(offset);
    offset += kind.size;
  }
  assert(offset === size, `fields add up to ${size} bytes, not ${offset}`);
  return fields as Fields<S> & { readonly size: number };
}
