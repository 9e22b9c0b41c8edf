/**
 * Each kind of damage, done to a sound store, is found by the check: as that kind, at its place,
 * with the keys that it costs.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { errno } from '../../../src/base/errno.ts';
import { setLe64 } from '../../../src/base/struct.ts';
import type { MemoryDevice } from '../../../src/block/memory-device.ts';
import { DmArray } from '../../../src/persistent-data/array.ts';
import { arrayHeader } from '../../../src/persistent-data/array-layout.ts';
import { BLOCK_SECTORS } from '../../../src/persistent-data/block.ts';
import { BTree, makeEntry } from '../../../src/persistent-data/btree/btree.ts';
import { insert, makeValue } from '../../../src/persistent-data/btree/insert.ts';
import { insertNested } from '../../../src/persistent-data/btree/nested.ts';
import { nodeHeader } from '../../../src/persistent-data/btree/node.ts';
import { plainValueType } from '../../../src/persistent-data/btree/value-type.ts';
import { checkArray } from '../../../src/persistent-data/check/array-check.ts';
import type { Damage, DamageList } from '../../../src/persistent-data/check/damage.ts';
import { readSpaceMapRoot } from '../../../src/persistent-data/check/space-map-check.ts';
import { checkTree } from '../../../src/persistent-data/check/tree-check.ts';
import {
  bitmapSet,
  ENTRIES_PER_BITMAP,
  indexEntry,
  smRoot,
} from '../../../src/persistent-data/space-map/layout.ts';
import { SALT } from '../../../src/persistent-data/validator.ts';
import { copyDevice, editBlock, readBytes } from '../../helpers/edit-blocks.ts';
import { FaultyDevice } from '../../helpers/faulty-device.ts';
import { checkNestedTrees, nestedTrees } from '../../helpers/nested-trees.ts';
import { findDamage, Scratch, type ScratchWalk } from '../../helpers/scratch.ts';

/** Where things are in the store that every test starts from. */
interface Store {
  readonly device: MemoryDevice;
  /** A tree of 1000 even keys: a root with these leaves. */
  readonly root: number;
  readonly leaves: readonly number[];
  readonly firstKeys: readonly number[];
  /** Subtree of device 7 in a two-level tree. */
  readonly subtree: number;
  readonly arrayRoot: number;
  readonly arrayBlocks: readonly number[];
  readonly metadataIndex: number;
  readonly metadataBitmap: number;
  readonly dataBitmapTree: number;
  readonly dataBitmap: number;
  readonly dataOverflow: number;
}

const NR_VALUES = 1200;
/** Offsets of the root records in the scratch superblock. */
const DATA_ROOT = 16;
const METADATA_ROOT = 16 + 128;
/** Where values of 8 bytes begin in a node. */
const VALUES = 2048;

async function makeStore(): Promise<Store> {
  const scratch = await Scratch.format({ nrDataBlocks: ENTRIES_PER_BITMAP + 500 });
  const device = scratch.device as MemoryDevice;
  const tree = new BTree(scratch.tm, plainValueType(8));
  scratch.slots[0] = tree.empty();
  for (let key = 0; key < 1000; key++) {
    scratch.slots[0] = insert(tree, scratch.slot(0), key * 2, makeValue(8)).root;
  }
  const array = new DmArray(scratch.tm, plainValueType(8));
  scratch.slots[1] = array.create(NR_VALUES, (i, view, at) => setLe64(view, at, i));
  const { top, bottom } = nestedTrees(scratch);
  scratch.slots[2] = top.empty();
  const value = makeValue(8);
  for (const id of [5, 7]) {
    for (let key = 0; key < 20; key++) {
      // Some share a data block, whose count is then in the overflow tree.
      if (key < 4) scratch.dataSm.inc(9, 10);
      setLe64(value.view, 0, key < 4 ? 9 : scratch.dataSm.newBlock());
      scratch.slots[2] = insertNested([top, bottom], scratch.slot(2), [id, key], value).root;
    }
  }
  await scratch.commit();
  return locate(device, scratch, array, top);
}

function locate(device: MemoryDevice, scratch: Scratch, array: DmArray, top: BTree): Store {
  const viewOf = (block: number): DataView => new DataView(readBytes(device, block).buffer);
  const u64At = (view: DataView, at: number): number => Number(view.getBigUint64(at, true));
  const root = viewOf(scratch.slot(0));
  const nr = nodeHeader.nrEntries.get(root, 0);
  const indices = Array.from({ length: nr }, (_, i) => i);
  const entry = makeEntry();
  const arrayBlocks = [0, 1, 2].map((key) => {
    assert.ok(array.index.lookup(scratch.slot(1), key, entry));
    return entry.view.getUint32(entry.offset, true);
  });
  assert.ok(top.lookup(scratch.slot(2), 7, entry));
  const subtree = entry.view.getUint32(entry.offset, true);
  const superblock = viewOf(0);
  const data = readSpaceMapRoot(superblock, DATA_ROOT);
  const metadata = readSpaceMapRoot(superblock, METADATA_ROOT);
  return {
    device,
    root: scratch.slot(0),
    leaves: indices.map((i) => u64At(root, VALUES + 8 * i)),
    firstKeys: indices.map((i) => u64At(root, 32 + 8 * i)),
    subtree,
    arrayRoot: scratch.slot(1),
    arrayBlocks,
    metadataIndex: metadata.bitmapRoot,
    metadataBitmap: indexEntry.blocknr.get(viewOf(metadata.bitmapRoot), 16),
    dataBitmapTree: data.bitmapRoot,
    dataBitmap: indexEntry.blocknr.get(viewOf(data.bitmapRoot), 1376),
    dataOverflow: data.refCountRoot,
  };
}

const walkAll: ScratchWalk = (run, [tree = 0, array = 0, nested = 0], data) => {
  checkTree(run, tree, { name: 'tree', valueSize: 8 });
  checkArray(run, array, { name: 'array', valueSize: 8, nrValues: NR_VALUES });
  checkNestedTrees(run, nested, data);
};

let sound: Store;
before(async () => {
  sound = await makeStore();
  assert.deepEqual(findDamage(sound.device, walkAll).lines(), []);
});

/** Does damage to a copy of the store; what the check finds. */
function damaged(edit: (store: Store) => void): DamageList {
  const store = { ...sound, device: copyDevice(sound.device) };
  edit(store);
  return findDamage(store.device, walkAll);
}

/** The one finding that is not a count which follows from it. */
function only(found: DamageList): Damage {
  const [first, ...rest] = found.kept.filter(({ kind }) => kind !== 'leak');
  assert.ok(first !== undefined, 'something is found');
  assert.deepEqual(rest, []);
  return first;
}

/** What a finding must say; its text apart. */
type Expected = Partial<Omit<Damage, 'text'>>;

function assertFinding(finding: Damage, expected: Expected, text: RegExp): void {
  const { kind, where, path, blocknr, begin, end } = finding;
  assert.deepEqual(
    { kind, where, path, blocknr, begin, end },
    { kind, where, path, blocknr, begin, end, ...expected },
  );
  assert.match(finding.text, text);
}

const editNode = (store: Store, block: number, edit: (view: DataView) => void): void =>
  editBlock(store.device, block, edit, SALT.BTREE_NODE);

test('a checksum: the leaf is lost with its keys, and what it refers to has leaked', () => {
  const found = damaged(({ device, leaves }) =>
    editBlock(device, leaves[1] as number, (view) => view.setUint8(4000, 1)),
  );
  const [begin, end] = sound.firstKeys.slice(1);
  const where = { where: 'tree', path: [], blocknr: sound.leaves[1] as number };
  assertFinding(
    only(found),
    { kind: 'checksum', ...where, begin: begin as number, end: end as number },
    /node_check failed: csum \d+ != wanted \d+/,
  );
  assert.equal(found.nrFatal, 1);
});

test('a block of another number, below an upper key', () => {
  const found = damaged((store) =>
    editNode(store, store.subtree, (view) => nodeHeader.blocknr.set(view, 0, 77)),
  );
  assertFinding(
    only(found),
    { kind: 'blocknr', where: 'mapping tree', path: [7], blocknr: sound.subtree, begin: 0 },
    /blocknr 77 != wanted/,
  );
  // Its 20 mappings are gone: four counts of one block and 16 of others.
  assert.equal(found.count('leak') > 0, true);
});

test('a block that cannot be read', () => {
  const faulty = new FaultyDevice(sound.device);
  const bad = (sound.leaves[0] as number) * BLOCK_SECTORS;
  faulty.failRead = (sector) => (sector === bad ? errno.EIO : 0);
  assertFinding(
    only(findDamage(faulty, walkAll)),
    { kind: 'unreadable', blocknr: sound.leaves[0] as number, begin: 0 },
    /cannot read block/,
  );
});

const leafEdits: [string, (view: DataView) => void, Damage['kind'], RegExp][] = [
  ['entries', (v) => nodeHeader.nrEntries.set(v, 0, 253), 'structure', /too many entries/],
  ['both flags', (v) => nodeHeader.flags.set(v, 0, 3), 'structure', /wanted flags 1 or 2, found 3/],
  ['value size', (v) => nodeHeader.valueSize.set(v, 0, 4), 'value-size', /8 bytes, found 4/],
  ['key order', (v) => setLe64(v, 32 + 8 * 5, 700), 'order', /follows 700/],
  ['an equal key', (v) => setLe64(v, 32 + 8 * 5, 504), 'order', /key 504 follows 504/],
  [
    'a huge key',
    (v) => v.setBigUint64(32 + 8 * (nodeHeader.nrEntries.get(v, 0) - 1), 2n ** 60n, true),
    'order',
    /above 2\^53/,
  ],
  [
    'keys of the next leaf',
    (v) => setLe64(v, 32 + 8 * (nodeHeader.nrEntries.get(v, 0) - 1), 5000),
    'key-range',
    /found keys 496 to 5000/,
  ],
  ['a key below its range', (v) => setLe64(v, 32, 3), 'key-range', /found keys 3 to 990/],
];

for (const [what, edit, kind, text] of leafEdits) {
  test(`a leaf with a wrong ${what}`, () => {
    const found = damaged((store) => editNode(store, store.leaves[1] as number, edit));
    const blocknr = sound.leaves[1] as number;
    assertFinding(only(found), { kind, blocknr, begin: 496, end: 992 }, text);
    assert.equal(found.nrFatal, 1);
  });
}

test('an internal node without entries costs the whole tree', () => {
  const found = damaged((store) =>
    editNode(store, store.root, (view) => nodeHeader.nrEntries.set(view, 0, 0)),
  );
  assertFinding(
    only(found),
    { kind: 'structure', blocknr: sound.root, begin: 0, end: Infinity },
    /no entries/,
  );
});

test('a node that is less than a third full is noted, and usable', () => {
  const found = damaged((store) =>
    editNode(store, store.leaves[1] as number, (view) => nodeHeader.nrEntries.set(view, 0, 83)),
  );
  assertFinding(only(found), { kind: 'fill' }, /wanted at least 84 entries, found 83/);
  assert.equal(found.nrFatal, 0);
});

test('a capacity that is not the largest multiple of three is noted', () => {
  const found = damaged((store) =>
    editNode(store, store.subtree, (view) => nodeHeader.maxEntries.set(view, 0, 251)),
  );
  const finding = found.kept[0] as Damage;
  assertFinding(finding, { kind: 'max-entries', path: [7] }, /wanted max_entries 252, found 251/);
});

test('pointers out of the device, to a block of another kind, and in a circle', () => {
  const pointTo = (block: (store: Store) => number): Damage =>
    damaged((store) =>
      editNode(store, store.root, (view) => setLe64(view, VALUES + 8, block(store))),
    ).kept[0] as Damage;
  const place = { blocknr: sound.root, begin: 496, end: 992 };
  assertFinding(
    pointTo(() => 5000),
    { kind: 'pointer', ...place },
    /below 1024, found 5000/,
  );
  assertFinding(
    pointTo(() => 0),
    { kind: 'two-kinds', ...place },
    /superblock/,
  );
  assertFinding(
    pointTo(({ root }) => root),
    { ...place, kind: 'depth', blocknr: sound.root },
    /loop/,
  );
});

test('a subtree of another height', () => {
  const found = damaged((store) => {
    // A leaf made into the parent of another: a level too many.
    editNode(store, store.leaves[3] as number, (view) => {
      nodeHeader.flags.set(view, 0, 1);
      nodeHeader.nrEntries.set(view, 0, 1);
      setLe64(view, 32, 1488);
      setLe64(view, VALUES, store.leaves[2] as number);
    });
  });
  assert.ok(found.count('depth') + found.count('key-range') > 0);
  assert.ok(found.nrFatal > 0);
});

test('array blocks: a value size, too few values, too many', () => {
  const edit = (block: number, change: (view: DataView) => void): Damage =>
    only(damaged((s) => editBlock(s.device, s.arrayBlocks[block] as number, change, SALT.ARRAY)));
  const second = { where: 'array', blocknr: sound.arrayBlocks[1] as number };
  assertFinding(
    edit(1, (view) => {
      arrayHeader.valueSize.set(view, 0, 4);
      arrayHeader.maxEntries.set(view, 0, 1018);
    }),
    { kind: 'value-size', ...second, begin: 509, end: 1018 },
    /wanted values of 8 bytes, found 4/,
  );
  assertFinding(
    edit(1, (view) => arrayHeader.nrEntries.set(view, 0, 500)),
    { kind: 'missing', ...second, begin: 1009, end: 1018 },
    /no values from 1009 to 1017/,
  );
  assertFinding(
    edit(2, (view) => arrayHeader.nrEntries.set(view, 0, 300)),
    { kind: 'surplus', where: 'array', blocknr: sound.arrayBlocks[2] as number },
    /wanted 182 values in array block 2, found 300/,
  );
});

test('an array whose index tree has a gap, or ends early', () => {
  const found = damaged((store) =>
    editNode(store, store.arrayRoot, (view) => setLe64(view, 32 + 8, 5)),
  );
  assert.ok(found.count('order') === 1, 'keys 0, 5, 2 do not ascend');
  const gap = damaged((store) =>
    editNode(store, store.arrayRoot, (view) => setLe64(view, 32 + 16, 3)),
  );
  const missing = gap.kept.find(({ kind }) => kind === 'missing') as Damage;
  assertFinding(missing, { where: 'array', begin: 1018, end: 1200 }, /no values from 1018 to 1199/);
  const early = damaged((store) =>
    editNode(store, store.arrayRoot, (view) => nodeHeader.nrEntries.set(view, 0, 1)),
  );
  const rest = early.kept.find(({ kind }) => kind === 'missing') as Damage;
  assertFinding(rest, { where: 'array', begin: 509, end: 1200 }, /no values from 509 to 1199/);
});

/** Changes the counts of the data map's first bitmap, or of the metadata map's. */
function withCounts(which: 'data' | 'metadata', edit: (view: DataView) => void): DamageList {
  return damaged((store) => {
    const block = which === 'data' ? store.dataBitmap : store.metadataBitmap;
    editBlock(store.device, block, edit, SALT.BITMAP);
  });
}

test('counts that are too low are fatal, those that are too high have leaked', () => {
  for (const [which, block] of [
    ['data', 3],
    ['metadata', sound.root],
  ] as const) {
    const where = `${which} space map`;
    const low = withCounts(which, (view) => bitmapSet(view, block, 0));
    const lowFinding = low.kept.find(({ kind }) => kind === 'ref-count') as Damage;
    const place = { where, begin: block, end: block + 1 };
    assertFinding(lowFinding, place, /wanted a count of 1, found 0/);
    assert.equal(low.nrFatal, 1);
    assert.equal(low.count('nr-allocated'), 1);
    const high = withCounts(which, (view) => bitmapSet(view, block, 2));
    assertFinding(high.kept[0] as Damage, { ...place, kind: 'leak' }, /of 1, found 2/);
    assert.equal(high.nrFatal, 0);
  }
});

test('neighbours that have leaked alike are one finding', () => {
  const found = withCounts('data', (view) => {
    for (let block = 200; block < 300; block++) bitmapSet(view, block, 1);
  });
  const place = { where: 'data space map', begin: 200, end: 300 };
  assertFinding(found.kept[0] as Damage, { kind: 'leak', ...place }, /of 0, found 1/);
  assert.equal(found.count('leak'), 1);
  assert.equal(found.count('hint'), 1);
  assert.equal(found.count('nr-allocated'), 1);
});

test('a count of three without an overflow entry, and an overflow entry without one', () => {
  const noEntry = damaged((store) =>
    editNode(store, store.dataOverflow, (view) => nodeHeader.nrEntries.set(view, 0, 0)),
  );
  const place = { where: 'data space map', begin: 9, end: 10 };
  assertFinding(noEntry.kept[0] as Damage, { kind: 'missing', ...place }, /missing an entry/);
  const noBits = withCounts('data', (view) => bitmapSet(view, 9, 2));
  assertFinding(noBits.kept[0] as Damage, { kind: 'surplus', ...place }, /bitmap entry is 2/);
  assert.equal(noBits.count('ref-count'), 1);
});

test('the form of free counts that thin_restore 0.9 writes is accepted, others are noted', () => {
  // The second data bitmap holds 500 blocks, none in use.
  const setFree = (nrFree: number): DamageList =>
    damaged((store) =>
      editNode(store, store.dataBitmapTree, (v) => indexEntry.nrFree.set(v, 1376 + 16, nrFree)),
    );
  assert.deepEqual(setFree(500).lines(), []);
  assertFinding(
    only(setFree(499)),
    { kind: 'hint', begin: ENTRIES_PER_BITMAP, end: ENTRIES_PER_BITMAP + 500 },
    /wanted nr_free 16320, found 499/,
  );
});

test('a search hint beyond a free entry is noted', () => {
  const found = damaged((store) =>
    editNode(store, store.dataBitmapTree, (v) => indexEntry.noneFreeBefore.set(v, 1376, 9000)),
  );
  assertFinding(only(found), { kind: 'hint' }, /is free, found none_free_before 9000/);
});

test('a root record with a wrong number of blocks in use is noted', () => {
  const found = damaged(({ device }) =>
    editBlock(
      device,
      0,
      (view) => smRoot.nrAllocated.set(view, METADATA_ROOT, 999),
      SALT.ERA_SUPERBLOCK,
    ),
  );
  const finding = only(found);
  assertFinding(finding, { kind: 'nr-allocated', where: 'metadata space map' }, /found 999/);
});

test('a bitmap and an index block that cannot be had', () => {
  const bitmap = damaged(({ device, dataBitmap }) =>
    editBlock(device, dataBitmap, (view) => view.setUint8(4000, 1)),
  );
  assertFinding(
    only(bitmap),
    { kind: 'checksum', where: 'data space map', begin: 0, end: ENTRIES_PER_BITMAP },
    /bitmap check failed/,
  );
  const index = damaged(({ device, metadataIndex }) =>
    editBlock(device, metadataIndex, (view) => view.setUint8(4000, 1)),
  );
  assertFinding(
    only(index),
    { kind: 'checksum', where: 'metadata space map', begin: 0, end: 1024 },
    /index_check failed/,
  );
});

test('a data map that says it is larger or smaller than its bitmaps', () => {
  const resized = (nrBlocks: number): DamageList =>
    damaged(({ device }) =>
      editBlock(
        device,
        0,
        (view) => smRoot.nrBlocks.set(view, DATA_ROOT, nrBlocks),
        SALT.ERA_SUPERBLOCK,
      ),
    );
  const large = resized(2 ** 50);
  assert.equal(large.count('missing'), 1);
  assert.match(large.lines().join(), /index entries, found 2/);
  const small = resized(4);
  assert.equal(small.count('pointer'), 1);
  assert.ok(small.count('surplus') > 0);
});
