/**
 * A value of the mapping array: which origin block a cblock holds (spec: cache, 2.3).
 *
 *   63                16 15       0
 *   ├──── oblock (48) ───┼─ flags ─┤   all zero: holds nothing
 */
import { assert } from '../../base/error.ts';
import type { ReadView, WriteView } from '../../base/struct.ts';

export const MAPPING_SIZE = 8;

/** Flag: the cblock holds the oblock. */
export const VALID = 1;
/** Flag, format 1 only, and right only after a clean shutdown: fast device and origin differ. */
export const DIRTY = 2;

const FLAGS = 0x1_0000;
/** One more than the largest origin block that a mapping can name. */
export const OBLOCKS_MAX = 2 ** 48;

/** The origin block at `offset`. */
export function oblockAt(view: ReadView, offset: number): number {
  return view.getUint32(offset + 4, true) * FLAGS + (view.getUint32(offset, true) >>> 16);
}

/** The flags at `offset`. */
export function flagsAt(view: ReadView, offset: number): number {
  return view.getUint16(offset, true);
}

/** Writes a mapping. */
export function setMapping(view: WriteView, offset: number, oblock: number, flags: number): void {
  assert(oblock < OBLOCKS_MAX, 'an origin block has 48 bits');
  view.setUint16(offset, flags, true);
  view.setUint16(offset + 2, oblock % FLAGS, true);
  view.setUint32(offset + 4, Math.floor(oblock / FLAGS), true);
}
