/**
 * Integer arithmetic on plain numbers: named divisions, 64-bit words in two halves, decimal
 * parsing.
 *
 * Block numbers and sectors are numbers below 2^53; a 64-bit field is read as two 32-bit halves.
 */

/** 2^32, the weight of the high half of a 64-bit word. */
export const U32 = 0x1_0000_0000;

/** Sectors are 512 bytes everywhere, as in the kernel. */
export const SECTOR_SIZE = 512;
export const SECTOR_SHIFT = 9;

/** n / d, rounded down. */
export function divDown(n: number, d: number): number {
  return Math.floor(n / d);
}

/** n / d, rounded up. */
export function divUp(n: number, d: number): number {
  return Math.ceil(n / d);
}

/** The largest multiple of `d` that is not above `n`. */
export function roundDown(n: number, d: number): number {
  return Math.floor(n / d) * d;
}

/** The smallest multiple of `d` that is not below `n`. */
export function roundUp(n: number, d: number): number {
  return Math.ceil(n / d) * d;
}

/** Whether `n` is 1, 2, 4, … */
export function isPowerOfTwo(n: number): boolean {
  return n > 0 && Number.isInteger(Math.log2(n));
}

/** The largest power of two that is not above `n` (n >= 1). */
export function powerOfTwoBelow(n: number): number {
  return 2 ** Math.floor(Math.log2(n));
}

/**
 * A decimal number as the kernel's kstrtoull reads it: digits, one leading `+` allowed, leading
 * zeros allowed, nothing else, at most `max`. Undefined for anything else.
 */
export function parseDecimal(text: string, max: bigint): bigint | undefined {
  if (!/^\+?[0-9]+$/.test(text)) return undefined;
  const value = BigInt(text.startsWith('+') ? text.slice(1) : text);
  return value <= max ? value : undefined;
}

export const U64_MAX = 0xffff_ffff_ffff_ffffn;
export const U32_MAX = 0xffff_ffffn;

/**
 * As parseDecimal, as a plain number. Values above 2^53 - 1 saturate there: they are only ever
 * compared with sizes, which are smaller.
 */
export function parseU64(text: string): number | undefined {
  const value = parseDecimal(text, U64_MAX);
  if (value === undefined) return undefined;
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

/** As parseDecimal, for a 32-bit unsigned number. */
export function parseU32(text: string): number | undefined {
  const value = parseDecimal(text, U32_MAX);
  return value === undefined ? undefined : Number(value);
}

/** As the kernel's sscanf with %u reads it: digits only, of which the lowest 32 bits are taken. */
export function scanU32(text: string): number | undefined {
  return /^[0-9]+$/.test(text) ? Number(BigInt.asUintN(32, BigInt(text))) : undefined;
}
