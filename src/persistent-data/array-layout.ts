/**
 * Array blocks: layout and validator (spec: persistent-data, 9 and 3).
 * Answers to struct array_block and array_validator in drivers/md/persistent-data/dm-array.c.
 *
 *   0     4     8    12     16        24
 *   ├csum─┼─max─┼─nr─┼─size─┼─blocknr─┼── values, packed ...
 */
import { le32, le64, struct, type ReadView, type WriteView } from '../base/struct.ts';
import { BLOCK_SIZE, type ReadBlock } from './block.ts';
import { makeValidator, SALT } from './validator.ts';

export const arrayHeader = struct(24, {
  csum: le32,
  /** As many values as fit. */
  maxEntries: le32,
  nrEntries: le32,
  valueSize: le32,
  blocknr: le64,
});

/** Values that fit an array block. */
export function arrayEntriesFor(valueSize: number): number {
  return Math.floor((BLOCK_SIZE - arrayHeader.size) / valueSize);
}

function checkStructure({ view }: ReadBlock): string | null {
  const size = arrayHeader.valueSize.get(view, 0);
  if (size === 0) return 'value_size is zero';
  const max = arrayHeader.maxEntries.get(view, 0);
  const wanted = arrayEntriesFor(size);
  if (max !== wanted) return `max_entries ${max} != wanted ${wanted}`;
  const nr = arrayHeader.nrEntries.get(view, 0);
  if (nr > max) return `nr_entries ${nr} > max_entries ${max}`;
  return null;
}

export const arrayValidator = makeValidator({
  name: 'array',
  salt: SALT.ARRAY,
  blocknr: arrayHeader.blocknr,
  complaint: 'array: array_block_check failed: ',
  checkLate: checkStructure,
});

/** Where value `entry` of a block begins. */
export function arrayValueOffset(entry: number, valueSize: number): number {
  return arrayHeader.size + entry * valueSize;
}

/** Values in use. */
export function arrayNrEntries(view: ReadView): number {
  return arrayHeader.nrEntries.get(view, 0);
}

/** Sets the number of values in use. */
export function setArrayNrEntries(view: WriteView, nr: number): void {
  arrayHeader.nrEntries.set(view, 0, nr);
}
