/**
 * What a B-tree must know of its values: their size, and what happens to what they refer to.
 * Answers to struct dm_btree_value_type (spec: persistent-data, 4.6).
 */
import { getLe64, type ReadView } from '../../base/struct.ts';
import { asBlockNr } from '../block.ts';
import type { TransactionManager } from '../transaction-manager.ts';

export interface ValueType {
  /** Bytes of a value. */
  readonly size: number;
  /** A leaf with these `count` values was copied: each gives one more reference. */
  inc(view: ReadView, offset: number, count: number): void;
  /** These `count` values are removed or overwritten: each gives one reference up. */
  dec(view: ReadView, offset: number, count: number): void;
  /**
   * Whether two values refer to the same thing, so that overwriting one by the other drops nothing.
   */
  equal(a: ReadView, aOffset: number, b: ReadView, bOffset: number): boolean;
}

function nothing(): void {}

/** Values that refer to nothing. */
export function plainValueType(size: number): ValueType {
  return { size, inc: nothing, dec: nothing, equal: () => false };
}

/** Whether values refer to nothing, so that dropping them needs no look at them. */
export function isPlain(valueType: ValueType): boolean {
  return valueType.dec === nothing;
}

/** Calls `visit(begin, end)` for each run of consecutive numbers among `count` numbers. */
export function eachRun(
  count: number,
  numberAt: (index: number) => number,
  visit: (begin: number, end: number) => void,
): void {
  if (count === 0) return;
  let begin = numberAt(0);
  let end = begin + 1;
  for (let i = 1; i < count; i++) {
    const n = numberAt(i);
    if (n === end) {
      end++;
      continue;
    }
    visit(begin, end);
    begin = n;
    end = n + 1;
  }
  visit(begin, end);
}

/** Values that are metadata block numbers: children of internal nodes, roots in upper levels. */
export function blockNrValueType(tm: TransactionManager): ValueType {
  const eachValueRun = (
    view: ReadView,
    offset: number,
    count: number,
    visit: (begin: number, end: number) => void,
  ): void => eachRun(count, (i) => getLe64(view, offset + i * 8), visit);
  return {
    size: 8,
    inc: (view, offset, count) =>
      eachValueRun(view, offset, count, (begin, end) => tm.spaceMap.inc(begin, end)),
    dec: (view, offset, count) =>
      eachValueRun(view, offset, count, (begin, end) => tm.spaceMap.dec(begin, end)),
    equal: (a, aOffset, b, bOffset) => getLe64(a, aOffset) === getLe64(b, bOffset),
  };
}

/** The metadata block number at `offset`. */
export function blockNrAt(view: ReadView, offset: number): ReturnType<typeof asBlockNr> {
  return asBlockNr(getLe64(view, offset));
}
