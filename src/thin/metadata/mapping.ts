/**
 * A value of the mapping tree: data block and time in one word (spec: thin, 1.4).
 *
 *   63                       24 23            0
 *   ├──── data block (40 bits) ─┼─ time (24) ──┤
 */
import type { ReadView, WriteView } from '../../base/struct.ts';
import { eachRun, type ValueType } from '../../persistent-data/btree/value-type.ts';
import {
  asDataBlock,
  type DataBlock,
  type DiskSpaceMap,
} from '../../persistent-data/space-map/disk.ts';

export const MAPPING_SIZE = 8;

/** Data block numbers have 40 bits. */
export const DATA_BLOCKS_MAX = 2 ** 40;

/** The data block of a mapping. */
export function dataBlockAt(view: ReadView, offset: number): DataBlock {
  const low = view.getUint32(offset, true);
  const high = view.getUint32(offset + 4, true);
  return asDataBlock(high * 0x100 + (low >>> 24));
}

/** The low 24 bits of the pool time at which a mapping was made. */
export function timeAt(view: ReadView, offset: number): number {
  return view.getUint32(offset, true) & 0xff_ffff;
}

/** Writes a mapping. */
export function setMapping(view: WriteView, offset: number, block: DataBlock, time: number): void {
  view.setUint32(offset, (((block & 0xff) << 24) | (time & 0xff_ffff)) >>> 0, true);
  view.setUint32(offset + 4, Math.floor(block / 0x100), true);
}

/** Mappings hold references to data blocks; two that name the same block are equal. */
export function mappingValueType(spaceMap: () => DiskSpaceMap): ValueType {
  const runs = (
    view: ReadView,
    offset: number,
    count: number,
    visit: (begin: number, end: number) => void,
  ): void => eachRun(count, (i) => dataBlockAt(view, offset + i * MAPPING_SIZE), visit);
  return {
    size: MAPPING_SIZE,
    inc: (view, offset, count) =>
      runs(view, offset, count, (begin, end) => spaceMap().inc(begin, end)),
    dec: (view, offset, count) =>
      runs(view, offset, count, (begin, end) => spaceMap().dec(begin, end)),
    equal: (a, aOffset, b, bOffset) => dataBlockAt(a, aOffset) === dataBlockAt(b, bOffset),
  };
}
