/**
 * The checksum of metadata blocks: CRC-32C of bytes 4..4095 without the final inversion, XORed with
 * a salt that tells the kind of block (spec: persistent-data, 2).
 * Answers to dm_bm_checksum in drivers/md/persistent-data/dm-block-manager.h.
 *
 * The native CRC is @node-rs/crc32; where it does not load, a table-driven twin gives the same
 * numbers.
 */
import { createRequire } from 'node:module';

type Crc32c = (bytes: Uint8Array) => number;

/** Reflected Castagnoli polynomial. */
const POLYNOMIAL = 0x82f6_3b78;

function makeTables(): Uint32Array[] {
  const tables = Array.from({ length: 8 }, () => new Uint32Array(256));
  const first = tables[0] as Uint32Array;
  for (let n = 0; n < 256; n++) {
    let crc = n;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    first[n] = crc;
  }
  for (let n = 0; n < 256; n++) {
    let crc = first[n] as number;
    for (let k = 1; k < 8; k++) {
      crc = (first[crc & 0xff] as number) ^ (crc >>> 8);
      (tables[k] as Uint32Array)[n] = crc;
    }
  }
  return tables;
}

let tables: Uint32Array[] | null = null;

/** Standard CRC-32C (with the final inversion), eight bytes a step, in plain JavaScript. */
export function crc32cPortable(bytes: Uint8Array): number {
  tables ??= makeTables();
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  const at = (table: Uint32Array, index: number): number => table[index & 0xff] as number;
  const byte = (index: number): number => bytes[index] as number;
  let crc = 0xffff_ffff;
  let i = 0;
  for (; i + 8 <= bytes.length; i += 8) {
    crc ^= byte(i) | (byte(i + 1) << 8) | (byte(i + 2) << 16) | (byte(i + 3) << 24);
    crc =
      at(t7, crc) ^
      at(t6, crc >>> 8) ^
      at(t5, crc >>> 16) ^
      at(t4, crc >>> 24) ^
      at(t3, byte(i + 4)) ^
      at(t2, byte(i + 5)) ^
      at(t1, byte(i + 6)) ^
      at(t0, byte(i + 7));
  }
  for (; i < bytes.length; i++) crc = at(t0, crc ^ byte(i)) ^ (crc >>> 8);
  return ~crc >>> 0;
}

function loadNative(): Crc32c | null {
  if (process.env['DEVMAPPER_NO_FFI'] === '1') return null;
  try {
    const module = createRequire(import.meta.url)('@node-rs/crc32') as { crc32c: Crc32c };
    return module.crc32c;
  } catch {
    return null; // A platform without a prebuilt module takes the twin.
  }
}

const crc32c: Crc32c = loadNative() ?? crc32cPortable;

/** The raw register over `bytes`: started with all ones, not inverted at the end. */
export function checksumRaw(bytes: Uint8Array): number {
  return ~crc32c(bytes) >>> 0;
}

/** The stored checksum of a kind of block. `body` is the block without its first four bytes. */
export function checksum(body: Uint8Array, salt: number): number {
  return (checksumRaw(body) ^ salt) >>> 0;
}
