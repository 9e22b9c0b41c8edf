/**
 * B-tree nodes: layout, validator, search and the moves of entries within and between nodes.
 * Answers to struct btree_node and dm-btree-internal.h (spec: persistent-data, 4.1 to 4.4).
 *
 *   0       8        16    20    24    28   32            32 + 8*max_entries
 *   ├csum┬fl┤ blocknr │ nr  │ max │ size │  │ keys ...     │ values ...
 *
 * The value area's place follows from max_entries, not from nr_entries. Bytes of unused entries are
 * whatever they were: nothing is cleared, as in the kernel.
 */
import { DmError } from '../../base/error.ts';
import { le32, le64, peekLe64, setLe64, struct } from '../../base/struct.ts';
import type { ReadView, WriteView } from '../../base/struct.ts';
import { BLOCK_SIZE, type ReadBlock, type WriteBlock } from '../block.ts';
import { makeValidator, SALT } from '../validator.ts';

export const nodeHeader = struct(32, {
  csum: le32,
  /** Exactly one of INTERNAL_NODE, LEAF_NODE. */
  flags: le32,
  /** The block this node believes it lives in. */
  blocknr: le64,
  nrEntries: le32,
  /** A multiple of 3; fixes where the values begin. */
  maxEntries: le32,
  valueSize: le32,
  padding: le32,
});

export const INTERNAL_NODE = 1;
export const LEAF_NODE = 2;

const KEYS_OFFSET = nodeHeader.size;
const KEY_SIZE = 8;
/** Bytes of a value of an internal node: a block number. */
const CHILD_SIZE = 8;

/** The greatest multiple of 3 of entries that fits a block. */
export function maxEntriesFor(valueSize: number): number {
  return 3 * Math.floor(Math.floor((BLOCK_SIZE - KEYS_OFFSET) / (KEY_SIZE + valueSize)) / 3);
}

function checkStructure(block: ReadBlock): string | null {
  const { view } = block;
  const max = nodeHeader.maxEntries.get(view, 0);
  const size = nodeHeader.valueSize.get(view, 0);
  if (KEYS_OFFSET + (KEY_SIZE + size) * max > BLOCK_SIZE) return 'max_entries too large';
  if (nodeHeader.nrEntries.get(view, 0) > max) return 'too many entries';
  const flags = nodeHeader.flags.get(view, 0);
  if ((flags & (INTERNAL_NODE | LEAF_NODE)) === 0) return 'node is neither INTERNAL or LEAF';
  // The kernel does not look here; its reads of children would run past the block.
  if ((flags & LEAF_NODE) === 0 && size !== CHILD_SIZE)
    return `internal node with value_size ${size}`;
  return null;
}

export const nodeValidator = makeValidator({
  name: 'btree_node',
  salt: SALT.BTREE_NODE,
  blocknr: nodeHeader.blocknr,
  complaint: 'btree spine: node_check failed: ',
  checkLate: checkStructure,
});

// --- reading; hot path

/** Entries in use. */
export function nrEntriesOf(view: ReadView): number {
  return nodeHeader.nrEntries.get(view, 0);
}

/** Entries that fit. */
export function maxEntriesOf(view: ReadView): number {
  return nodeHeader.maxEntries.get(view, 0);
}

/** Bytes of a value. */
export function valueSizeOf(view: ReadView): number {
  return nodeHeader.valueSize.get(view, 0);
}

/** Whether the node holds values, not children. */
export function isLeaf(view: ReadView): boolean {
  return (nodeHeader.flags.get(view, 0) & LEAF_NODE) !== 0;
}

/** Whether no further entry fits. */
export function isFull(view: ReadView): boolean {
  return nrEntriesOf(view) === maxEntriesOf(view);
}

/** Key `index`; rounded above 2^53, which no undamaged tree has. */
export function keyAt(view: ReadView, index: number): number {
  return peekLe64(view, KEYS_OFFSET + index * KEY_SIZE);
}

/** Where value `index` begins in the block. */
export function valueOffset(view: ReadView, index: number): number {
  return KEYS_OFFSET + maxEntriesOf(view) * KEY_SIZE + index * valueSizeOf(view);
}

/** The largest index whose key is not above `key`; -1 if there is none. */
export function lowerBound(view: ReadView, key: number): number {
  let low = -1;
  let high = nrEntriesOf(view);
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (peekLe64(view, KEYS_OFFSET + middle * KEY_SIZE) <= key) low = middle;
    else high = middle;
  }
  return low;
}

/** The smallest index whose key is not below `key`; may be nr_entries. */
export function upperBound(view: ReadView, key: number): number {
  const index = lowerBound(view, key);
  return index >= 0 && keyAt(view, index) === key ? index : index + 1;
}

// --- writing

/** Sets the number of entries in use. */
export function setNrEntries(view: WriteView, n: number): void {
  nodeHeader.nrEntries.set(view, 0, n);
}

/** Sets key `index`. */
export function setKey(view: WriteView, index: number, key: number): void {
  setLe64(view, KEYS_OFFSET + index * KEY_SIZE, key);
}

/** Value `index` of an internal node or upper-level leaf. */
export function setBlockNr(view: WriteView, index: number, blocknr: number): void {
  setLe64(view, valueOffset(view, index), blocknr);
}

/** Makes a new, zeroed block an empty node. */
export function initNode(block: WriteBlock, flags: number, valueSize: number): void {
  const { view } = block;
  nodeHeader.flags.set(view, 0, flags);
  nodeHeader.nrEntries.set(view, 0, 0);
  nodeHeader.maxEntries.set(view, 0, maxEntriesFor(valueSize));
  nodeHeader.valueSize.set(view, 0, valueSize);
}

/** Makes a new, zeroed block an empty node of the same kind as `model`. */
export function initNodeLike(block: WriteBlock, model: ReadBlock): void {
  const { view } = block;
  nodeHeader.flags.set(view, 0, nodeHeader.flags.get(model.view, 0));
  nodeHeader.nrEntries.set(view, 0, 0);
  nodeHeader.maxEntries.set(view, 0, maxEntriesOf(model.view));
  nodeHeader.valueSize.set(view, 0, valueSizeOf(model.view));
}

/** Copies `count` entries from `from[fromIndex]` to `to[toIndex]`; counts are not changed. */
export function copyEntries(
  to: WriteBlock,
  toIndex: number,
  from: WriteBlock,
  fromIndex: number,
  count: number,
): void {
  const size = valueSizeOf(from.view);
  const keys = KEYS_OFFSET + fromIndex * KEY_SIZE;
  const values = valueOffset(from.view, fromIndex);
  // TypedArray.set and copyWithin both allow overlap.
  to.bytes.set(
    from.bytes.subarray(keys, keys + count * KEY_SIZE),
    KEYS_OFFSET + toIndex * KEY_SIZE,
  );
  to.bytes.set(from.bytes.subarray(values, values + count * size), valueOffset(to.view, toIndex));
}

/** Opens a gap for one entry at `index` and sets its key; the caller writes the value. Not full. */
export function insertAt(node: WriteBlock, index: number, key: number): void {
  const nr = nrEntriesOf(node.view);
  copyEntries(node, index + 1, node, index, nr - index);
  setNrEntries(node.view, nr + 1);
  setKey(node.view, index, key);
}

/** Removes entry `index`; what it referred to is the caller's business. */
export function deleteAt(node: WriteBlock, index: number): void {
  const nr = nrEntriesOf(node.view);
  copyEntries(node, index, node, index + 1, nr - index - 1);
  setNrEntries(node.view, nr - 1);
}

/** Siblings that entries move between must be laid out alike, or the entries would be misplaced. */
function mustBeAlike(left: ReadBlock, right: ReadBlock): void {
  const isAlike =
    maxEntriesOf(left.view) === maxEntriesOf(right.view) &&
    valueSizeOf(left.view) === valueSizeOf(right.view);
  if (isAlike) return;
  const text = `btree: nodes ${left.blocknr} and ${right.blocknr} are of different layout`;
  throw new DmError('EILSEQ', text);
}

/** Moves the first `count` entries of `right` to the end of `left`. */
export function moveToLeft(left: WriteBlock, right: WriteBlock, count: number): void {
  mustBeAlike(left, right);
  const nrLeft = nrEntriesOf(left.view);
  const nrRight = nrEntriesOf(right.view);
  copyEntries(left, nrLeft, right, 0, count);
  copyEntries(right, 0, right, count, nrRight - count);
  setNrEntries(left.view, nrLeft + count);
  setNrEntries(right.view, nrRight - count);
}

/** Moves the last `count` entries of `left` to the front of `right`. */
export function moveToRight(left: WriteBlock, right: WriteBlock, count: number): void {
  mustBeAlike(left, right);
  const nrLeft = nrEntriesOf(left.view);
  const nrRight = nrEntriesOf(right.view);
  copyEntries(right, count, right, 0, nrRight);
  copyEntries(right, 0, left, nrLeft - count, count);
  setNrEntries(left.view, nrLeft - count);
  setNrEntries(right.view, nrRight + count);
}

/** Moves entries so that `left` has `nrLeft` of the entries of both. */
export function balanceTwo(left: WriteBlock, right: WriteBlock, nrLeft: number): void {
  const nr = nrEntriesOf(left.view);
  if (nr > nrLeft) moveToRight(left, right, nr - nrLeft);
  else if (nr < nrLeft) moveToLeft(left, right, nrLeft - nr);
}
