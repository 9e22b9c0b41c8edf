/**
 * Every disk structure of the library against the offsets of the format's description
 * (spec: persistent-data, 4.1, 6.1, 6.2, 6.4, 7.2, 9).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { arrayEntriesFor, arrayHeader } from '../../src/persistent-data/array-layout.ts';
import { asBlockNr, Block } from '../../src/persistent-data/block.ts';
import {
  initNode,
  LEAF_NODE,
  maxEntriesFor,
  nodeHeader,
  valueOffset,
} from '../../src/persistent-data/btree/node.ts';
import {
  bitmapHeader,
  ENTRIES_PER_BITMAP,
  indexEntry,
  METADATA_BLOCKS_MAX,
  metadataIndex,
  ROOT_AREA_BYTES,
  smRoot,
} from '../../src/persistent-data/space-map/layout.ts';

/** Offsets by field name. */
function offsets(fields: Record<string, unknown>): Record<string, number> {
  const found: Record<string, number> = {};
  for (const [name, field] of Object.entries(fields)) {
    found[name] = typeof field === 'number' ? field : (field as { offset: number }).offset;
  }
  return found;
}

test('a node header', () => {
  assert.deepEqual(offsets(nodeHeader), {
    size: 32,
    csum: 0,
    flags: 4,
    blocknr: 8,
    nrEntries: 16,
    maxEntries: 20,
    valueSize: 24,
    padding: 28,
  });
});

test('capacity and value area of nodes by value size', () => {
  const expected = [
    [8, 252, 2048],
    [4, 336, 2720],
    [16, 168, 1376],
    [24, 126, 1040],
  ];
  for (const [size = 0, max, area] of expected) {
    const block = new Block(new ArrayBuffer(4096), 0);
    block.blocknr = asBlockNr(1);
    initNode(block, LEAF_NODE, size);
    assert.equal(maxEntriesFor(size), max);
    assert.equal(valueOffset(block.view, 0), area);
  }
});

test('space-map structures', () => {
  assert.deepEqual(offsets(smRoot), {
    size: 32,
    nrBlocks: 0,
    nrAllocated: 8,
    bitmapRoot: 16,
    refCountRoot: 24,
  });
  assert.deepEqual(offsets(bitmapHeader), { size: 16, csum: 0, notUsed: 4, blocknr: 8 });
  assert.deepEqual(offsets(indexEntry), { size: 16, blocknr: 0, nrFree: 8, noneFreeBefore: 12 });
  assert.deepEqual(offsets(metadataIndex), { size: 4096, header: 0, entries: 16 });
  assert.equal(ROOT_AREA_BYTES, 128);
  assert.equal(ENTRIES_PER_BITMAP, (4096 - bitmapHeader.size) * 4);
  assert.equal(METADATA_BLOCKS_MAX, 4_161_600);
});

test('an array header', () => {
  assert.deepEqual(offsets(arrayHeader), {
    size: 24,
    csum: 0,
    maxEntries: 4,
    nrEntries: 8,
    valueSize: 12,
    blocknr: 16,
  });
  assert.equal(arrayEntriesFor(8), 509);
  assert.equal(arrayEntriesFor(4), 1018);
});
