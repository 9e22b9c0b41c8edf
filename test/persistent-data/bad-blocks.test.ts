/**
 * Damaged blocks of each kind, with the lines that the kernel logs and the error that a caller gets
 * (spec: persistent-data, 12).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../src/base/error.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { DmArray } from '../../src/persistent-data/array.ts';
import { arrayHeader } from '../../src/persistent-data/array-layout.ts';
import { BLOCK_SECTORS } from '../../src/persistent-data/block.ts';
import { BTree, makeEntry } from '../../src/persistent-data/btree/btree.ts';
import { insert, makeValue } from '../../src/persistent-data/btree/insert.ts';
import { nodeHeader } from '../../src/persistent-data/btree/node.ts';
import { remove } from '../../src/persistent-data/btree/remove.ts';
import { plainValueType } from '../../src/persistent-data/btree/value-type.ts';
import { readSpaceMapRoot } from '../../src/persistent-data/check/space-map-check.ts';
import { asDataBlock } from '../../src/persistent-data/space-map/disk.ts';
import { indexEntry } from '../../src/persistent-data/space-map/layout.ts';
import { SALT } from '../../src/persistent-data/validator.ts';
import { editBlock, readBytes } from '../helpers/edit-blocks.ts';
import { Scratch } from '../helpers/scratch.ts';

/** A store with a tree of two leaves in slot 0 and an array in slot 1, committed. */
async function makeStore(): Promise<{ device: MemoryDevice; scratch: Scratch }> {
  const device = new MemoryDevice('scratch', 1024 * BLOCK_SECTORS);
  const scratch = await Scratch.format({ device });
  const tree = new BTree(scratch.tm, plainValueType(8));
  let root = tree.empty();
  for (let key = 0; key < 400; key++) root = insert(tree, root, key, makeValue(8)).root;
  scratch.slots[0] = root;
  scratch.slots[1] = new DmArray(scratch.tm, plainValueType(8)).create(30, () => undefined);
  for (let i = 0; i < 4; i++) scratch.dataSm.inc(7, 8);
  await scratch.commit();
  return { device, scratch };
}

/** Where the space maps' own blocks are. */
function mapsOf(device: MemoryDevice): { index: number; bitmap: number; dataOverflow: number } {
  const view = new DataView(readBytes(device, 0).buffer);
  const index = readSpaceMapRoot(view, 16 + 128).bitmapRoot;
  const entry = new DataView(readBytes(device, index).buffer);
  return {
    index,
    bitmap: indexEntry.blocknr.get(entry, 16),
    dataOverflow: readSpaceMapRoot(view, 16).refCountRoot,
  };
}

/** The errno name that `act` throws, and the log's lines, checksums written as `*`. */
function outcome(scratch: Scratch, act: () => unknown): [string, ...string[]] {
  scratch.log.take();
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof DmError);
    const lines = scratch.log.take().map((line) => line.replaceAll(/csum \d+/g, 'csum *'));
    return [error.errno, ...lines.map((line) => line.replaceAll(/wanted \d{5,}/g, 'wanted *'))];
  }
  assert.fail('nothing was thrown');
}

const lookup =
  (scratch: Scratch, key = 0) =>
  (): boolean =>
    new BTree(scratch.tm, plainValueType(8)).lookup(scratch.slot(0), key, makeEntry());

test('a node with a wrong checksum', async () => {
  const { device, scratch } = await makeStore();
  const root = scratch.slot(0);
  editBlock(device, root, (view) => view.setUint8(4000, 1));
  const again = Scratch.open(device);
  const expected = [
    'EILSEQ',
    'btree spine: node_check failed: csum * != wanted *',
    `block manager: btree_node validator check failed for block ${root}`,
  ];
  assert.deepEqual(outcome(again, lookup(again)), expected);
  assert.deepEqual(outcome(again, lookup(again)), expected);
});

const nodeEdits: [string, (view: DataView) => void, string, string][] = [
  [
    'own number',
    (v) => nodeHeader.blocknr.set(v, 0, 999),
    'ENOTBLK',
    'blocknr 999 != wanted <own>',
  ],
  ['capacity', (v) => nodeHeader.maxEntries.set(v, 0, 255), 'EILSEQ', 'max_entries too large'],
  ['entries', (v) => nodeHeader.nrEntries.set(v, 0, 253), 'EILSEQ', 'too many entries'],
  ['flags', (v) => nodeHeader.flags.set(v, 0, 0), 'EILSEQ', 'node is neither INTERNAL or LEAF'],
  [
    'child size',
    (v) => nodeHeader.valueSize.set(v, 0, 0),
    'EILSEQ',
    'internal node with value_size 0',
  ],
];

for (const [what, edit, errnoName, reason] of nodeEdits) {
  test(`a node with a wrong ${what} and a right checksum`, async () => {
    const { device, scratch } = await makeStore();
    const root = scratch.slot(0);
    editBlock(device, root, edit, SALT.BTREE_NODE);
    const again = Scratch.open(device);
    assert.deepEqual(outcome(again, lookup(again)), [
      errnoName,
      `btree spine: node_check failed: ${reason.replace('<own>', String(root))}`,
      `block manager: btree_node validator check failed for block ${root}`,
    ]);
  });
}

test('a bitmap is looked at when a count changes, not before', async () => {
  const { device } = await makeStore();
  const { bitmap } = mapsOf(device);
  editBlock(device, bitmap, (view) => view.setUint8(4000, 1));
  const again = Scratch.open(device);
  assert.ok(lookup(again)());
  assert.deepEqual(
    outcome(again, () => again.metadataSm.newBlock()),
    [
      'EILSEQ',
      'space map common: bitmap check failed: csum * != wanted *',
      `block manager: sm_bitmap validator check failed for block ${bitmap}`,
      'space map metadata: unable to allocate new metadata block',
    ],
  );
});

test('the index block is looked at when the metadata map is opened', async () => {
  const { device, scratch } = await makeStore();
  const { index } = mapsOf(device);
  editBlock(device, index, (view) => view.setUint8(4000, 1));
  assert.deepEqual(
    outcome(scratch, () => scratch.abort()),
    [
      'EILSEQ',
      'space map common: index_check failed: csum * != wanted *',
      `block manager: index validator check failed for block ${index}`,
    ],
  );
});

test('the superblock says its checksum in other words', async () => {
  const { device, scratch } = await makeStore();
  editBlock(device, 0, (view) => view.setUint8(4000, 1));
  const [name, first, second] = outcome(scratch, () => scratch.abort());
  assert.equal(name, 'EILSEQ');
  assert.match(first as string, /^scratch: sb_check failed: csum \* != wanted \*$/);
  assert.equal(second, 'block manager: superblock validator check failed for block 0');
});

/** The only block of the array in slot 1. */
function arrayBlock(scratch: Scratch): number {
  const array = new DmArray(scratch.tm, plainValueType(8));
  const entry = makeEntry();
  array.index.lookup(scratch.slot(1), 0, entry);
  return entry.view.getUint32(entry.offset, true);
}

const arrayEdits: [string, (view: DataView) => void, number | undefined, string, string][] = [
  ['checksum', (v) => v.setUint8(4000, 1), undefined, 'EILSEQ', 'csum * != wanted *'],
  [
    'own number',
    (v) => arrayHeader.blocknr.set(v, 0, 3),
    SALT.ARRAY,
    'ENOTBLK',
    'blocknr 3 != wanted <own>',
  ],
  [
    'value size',
    (v) => arrayHeader.valueSize.set(v, 0, 0),
    SALT.ARRAY,
    'EILSEQ',
    'value_size is zero',
  ],
  [
    'capacity',
    (v) => arrayHeader.maxEntries.set(v, 0, 510),
    SALT.ARRAY,
    'EILSEQ',
    'max_entries 510 != wanted 509',
  ],
  [
    'number of values',
    (v) => arrayHeader.nrEntries.set(v, 0, 510),
    SALT.ARRAY,
    'EILSEQ',
    'nr_entries 510 > max_entries 509',
  ],
];

for (const [what, edit, salt, errnoName, reason] of arrayEdits) {
  test(`an array block with a wrong ${what}`, async () => {
    const { device, scratch } = await makeStore();
    const block = arrayBlock(scratch);
    editBlock(device, block, edit, salt);
    const again = Scratch.open(device);
    const array = new DmArray(again.tm, plainValueType(8));
    assert.deepEqual(
      outcome(again, () => array.get(again.slot(1), 0, makeEntry())),
      [
        errnoName,
        `array: array_block_check failed: ${reason.replace('<own>', String(block))}`,
        `block manager: array validator check failed for block ${block}`,
      ],
    );
  });
}

test('a count of three or more without an overflow entry', async () => {
  const { device } = await makeStore();
  const { dataOverflow } = mapsOf(device);
  editBlock(device, dataOverflow, (view) => nodeHeader.nrEntries.set(view, 0, 0), SALT.BTREE_NODE);
  for (const act of ['count', 'inc', 'dec'] as const) {
    const { dataSm, log } = Scratch.open(device);
    assert.throws(
      () => (act === 'count' ? dataSm.count(asDataBlock(7)) : dataSm[act](7, 8)),
      (error) => error instanceof DmError && error.errno === 'EINVAL',
    );
    assert.deepEqual(log.take(), ['space map common: overflow btree is missing an entry']);
  }
});

test('nodes of different capacity are not rebalanced', async () => {
  const device = new MemoryDevice('scratch', 1024 * BLOCK_SECTORS);
  const scratch = await Scratch.format({ device });
  const tree = new BTree(scratch.tm, plainValueType(8));
  let root = tree.empty();
  for (let key = 0; key < 2000; key++) root = insert(tree, root, key, makeValue(8)).root;
  scratch.slots[0] = root;
  await scratch.commit();
  const child = new DataView(readBytes(device, root).buffer).getUint32(2048 + 8 * 3, true);
  editBlock(device, child, (view) => nodeHeader.maxEntries.set(view, 0, 249), SALT.BTREE_NODE);
  const again = Scratch.open(device);
  const act = (): unknown =>
    remove(new BTree(again.tm, plainValueType(8)), again.slot(0), 2 * 248 + 5);
  assert.deepEqual(outcome(again, act), [
    'EILSEQ',
    'btree: bad btree metadata, max_entries differ',
  ]);
});

test('two nodes of different capacity exchange no entries either', async () => {
  const { device, scratch } = await makeStore();
  const child = new DataView(readBytes(device, scratch.slot(0)).buffer).getUint32(2048, true);
  editBlock(device, child, (view) => nodeHeader.maxEntries.set(view, 0, 249), SALT.BTREE_NODE);
  const again = Scratch.open(device);
  const tree = new BTree(again.tm, plainValueType(8));
  assert.throws(
    () => remove(tree, again.slot(0), 3),
    (error) => error instanceof DmError && error.errno === 'EILSEQ',
  );
});

test('a leaf of another value size is refused, not misread', async () => {
  const { scratch } = await makeStore();
  const tree = new BTree(scratch.tm, plainValueType(24));
  assert.throws(
    () => tree.lookup(scratch.slot(0), 3, makeEntry()),
    /wanted values of 24 bytes in block \d+, found 8/,
  );
});

test('a device that is shorter than its space map is EIO where it ends', async () => {
  const device = new MemoryDevice('scratch', 60 * BLOCK_SECTORS);
  const scratch = await Scratch.format({ device });
  const tree = new BTree(scratch.tm, plainValueType(8));
  scratch.slots[0] = tree.empty();
  // The search for free blocks goes on to the end and wraps: leave the tree there and the rest low.
  while (scratch.slot(0) < 50) {
    scratch.slots[0] = insert(tree, scratch.slot(0), 0, makeValue(8)).root;
    await scratch.commit();
  }
  while (mapsOf(device).index > 40) {
    scratch.dataSm.inc(0, 1);
    await scratch.commit();
  }
  device.resize(50 * BLOCK_SECTORS);
  const again = Scratch.open(device);
  assert.deepEqual(outcome(again, lookup(again)), ['EIO']);
});
