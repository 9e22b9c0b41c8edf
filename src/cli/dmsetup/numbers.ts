/**
 * Numbers as dmsetup reads them: with C's atoi and strtoull, whose results for odd text scripts may
 * see.
 */

const INT64_MAX = 2n ** 63n - 1n;
const UINT64_MAX = 2n ** 64n - 1n;

/** The number at the beginning of `text`, or undefined if there is none. */
function leadingNumber(text: string): bigint | undefined {
  const digits = /^\s*([+-]?)([0-9]+)/.exec(text);
  if (digits === null) return undefined;
  const value = BigInt(digits[2] ?? '');
  return digits[1] === '-' ? -value : value;
}

/**
 * As atoi(3) of glibc: whatever follows the digits does not count, no digits are 0; what is beyond
 * 64 bits is the largest, of which the lowest 32 bits are taken.
 */
export function atoi(text: string): number {
  const value = leadingNumber(text) ?? 0n;
  const magnitude = value > INT64_MAX ? INT64_MAX : value < -INT64_MAX - 1n ? 0n : value;
  return Number(BigInt.asIntN(32, magnitude));
}

/**
 * As strtoull(3) with a check that all of `text` is a number in range; undefined if it is not.
 * Negative ones are taken from 2^64.
 */
export function strtoull(text: string): bigint | undefined {
  const value = /^\s*[+-]?[0-9]+$/.test(text) ? leadingNumber(text) : undefined;
  if (value === undefined || value > UINT64_MAX || value < -UINT64_MAX) return undefined;
  return BigInt.asUintN(64, value);
}

/** As strtoul(3) into 32 bits, whatever `text` is. */
export function strtou32(text: string): number {
  const value = leadingNumber(text) ?? 0n;
  const inRange = value > UINT64_MAX || value < -UINT64_MAX ? UINT64_MAX : value;
  return Number(BigInt.asUintN(32, inRange));
}

/** Why `text` is no octal number, as dmsetup ends its complaint; null if it is one. */
export function octalMistake(text: string): string | null {
  const digits = /^\s*[+-]?([0-7]+)$/.exec(text)?.[1];
  if (digits === undefined) return '';
  return BigInt(`0o${digits}`) > INT64_MAX ? 'Numerical result out of range' : null;
}

/**
 * A device's number as it arrives in the kernel: in 32 bits, of which the middle of a large minor
 * and a large major are the same.
 */
export function packedNumber(major: number, minor: number): { major: number; minor: number } {
  const packed = (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12);
  return {
    major: (packed & 0xfff00) >>> 8,
    minor: (packed & 0xff) | ((packed >>> 12) & 0xfff00),
  };
}
