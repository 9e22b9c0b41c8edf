/**
 * Check of arrays and bitsets: the index tree, the array blocks, and that no index is missing
 * (spec: persistent-data, 9 and 10).
 *
 * A surplus block at the end is accepted, with a note: the kernel leaves one behind when it shrinks
 * an array to a whole number of blocks.
 */
import { divUp } from '../../base/numbers.ts';
import { peekLe64, type ReadView } from '../../base/struct.ts';
import {
  arrayEntriesFor,
  arrayHeader,
  arrayNrEntries,
  arrayValidator,
  arrayValueOffset,
} from '../array-layout.ts';
import type { ReadBlock } from '../block.ts';
import type { CheckRun, Place } from './check-run.ts';
import { checkTree, eachEntry } from './tree-check.ts';

/** What a check must know of an array. */
export interface ArraySpec {
  /** As in reports: `mapping array`. */
  readonly name: string;
  /** Bytes of a value. */
  readonly valueSize: number;
  /** How many values the owner says there are. */
  readonly nrValues: number;
  /** There may as well be fewer or more, of which nothing is to be said. */
  readonly anyLength?: boolean;
  /**
   * Sees the values of each sound block, `count` of them from `index` on. The view is valid during
   * the call, in which nothing may be read.
   */
  readonly visitValues?: (
    index: number,
    count: number,
    view: ReadView,
    offset: number,
    blocknr: number,
  ) => void;
}

/** An entry of the index tree. */
interface IndexedBlock {
  readonly index: number;
  readonly blocknr: number;
}

/** Checks the array whose index tree is at `root`; the root's reference is counted. */
export function checkArray(run: CheckRun, root: number, spec: ArraySpec): void {
  const { name, nrValues } = spec;
  const blocks: IndexedBlock[] = [];
  const visitLeaf = ({ view }: ReadBlock): void =>
    eachEntry(view, (index, at) => blocks.push({ index, blocknr: peekLe64(view, at) }));
  const summary = checkTree(run, root, { name, valueSize: 8, visitLeaf });
  const perBlock = arrayEntriesFor(spec.valueSize);
  const nrBlocks = divUp(nrValues, perBlock);
  const place: Place = { where: name, path: [], blocknr: root, begin: 0, end: 0 };
  const seen = new Set<number>();
  for (const block of blocks) {
    const begin = block.index * perBlock;
    const here = { ...place, begin, end: begin + perBlock };
    if (block.index >= nrBlocks && spec.anyLength !== true) {
      const text = `array block ${block.index} is beyond the ${nrValues} values`;
      run.report({ ...here, kind: 'surplus', text });
    }
    if (seen.has(block.blocknr)) {
      const text = `array block ${block.index} is block ${block.blocknr}, as another one is`;
      run.report({ ...here, kind: 'value', text });
    }
    seen.add(block.blocknr);
    checkBlock(run, block, here, spec);
  }
  if (summary.nrErrors > 0) return; // What is missing has been reported.
  if (blocks.length < summary.nrEntries) {
    // Leaves that another array has too were shown before: only the summary tells.
    const isWhole = summary.nrEntries >= nrBlocks && summary.lastKey === summary.nrEntries - 1;
    if (!isWhole) reportMissing(run, spec, place, 0, nrValues);
    return;
  }
  let next = 0;
  for (const index of [...blocks.map((block) => block.index), nrBlocks]) {
    const end = Math.min(index, nrBlocks);
    if (next < end) {
      reportMissing(run, spec, place, next * perBlock, Math.min(end * perBlock, nrValues));
    }
    next = index + 1;
  }
}

function reportMissing(
  run: CheckRun,
  { anyLength }: ArraySpec,
  place: Place,
  begin: number,
  end: number,
): void {
  if (anyLength === true) return;
  const text = `no values from ${begin} to ${end - 1}`;
  run.report({ ...place, begin, end, kind: 'missing', text });
}

function checkBlock(
  run: CheckRun,
  { index, blocknr }: IndexedBlock,
  place: Place,
  spec: ArraySpec,
): void {
  if (run.reference(blocknr, `${spec.name}: block`, place) !== true) return;
  const block = run.read(blocknr, arrayValidator, place);
  if (block === null) return;
  const { view } = block;
  const size = arrayHeader.valueSize.get(view, 0);
  if (size !== spec.valueSize) {
    const text = `wanted values of ${spec.valueSize} bytes, found ${size}`;
    run.report({ ...place, blocknr, kind: 'value-size', text });
    return;
  }
  const { begin } = place;
  const nr = arrayNrEntries(view);
  const wanted = Math.min(place.end, Math.max(begin, spec.nrValues)) - begin;
  if (nr < wanted) reportMissing(run, spec, { ...place, blocknr }, begin + nr, begin + wanted);
  if (nr > wanted && wanted > 0 && spec.anyLength !== true) {
    const text = `wanted ${wanted} values in array block ${index}, found ${nr}`;
    run.report({ ...place, blocknr, kind: 'surplus', text });
  }
  const count = Math.min(nr, wanted);
  if (count === 0) return;
  spec.visitValues?.(begin, count, view, arrayValueOffset(0, size), blocknr);
}

/** Bits in a word of a bitset. */
const BITS_PER_WORD = 64;

/** What a check must know of a bitset. */
export interface BitsetSpec {
  readonly name: string;
  readonly nrBits: number;
  /** Is told of each set bit, in order within a block. */
  readonly visitSetBit?: (bit: number) => void;
}

/** Checks the bitset whose index tree is at `root`; bits past its end mean nothing. */
export function checkBitset(run: CheckRun, root: number, spec: BitsetSpec): void {
  const { name, nrBits, visitSetBit } = spec;
  const nrValues = divUp(nrBits, BITS_PER_WORD);
  if (visitSetBit === undefined) {
    checkArray(run, root, { name, valueSize: 8, nrValues });
    return;
  }
  const visitValues = (index: number, count: number, view: ReadView, offset: number): void => {
    const first = index * BITS_PER_WORD;
    const end = Math.min(first + count * BITS_PER_WORD, nrBits) - first;
    for (let bit = 0; bit < end; bit++) {
      const byte = view.getUint8(offset + (bit >>> 3));
      if (((byte >>> (bit & 7)) & 1) !== 0) visitSetBit(first + bit);
    }
  };
  checkArray(run, root, { name, valueSize: 8, nrValues, visitValues });
}
