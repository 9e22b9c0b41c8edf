/**
 * The whole-structure check of a thin pool's metadata as it grows: two-level mapping tree with
 * shared nodes, details tree, both space maps.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryLog } from '../../../src/base/log.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import type { ReadBlock } from '../../../src/persistent-data/block.ts';
import { DeviceReader } from '../../../src/persistent-data/check/block-reader.ts';
import { CheckRun } from '../../../src/persistent-data/check/check-run.ts';
import { CountTable } from '../../../src/persistent-data/check/count-table.ts';
import { DamageList } from '../../../src/persistent-data/check/damage.ts';
import {
  readSpaceMapRoot,
  SpaceMapCheck,
} from '../../../src/persistent-data/check/space-map-check.ts';
import {
  checkNested,
  checkTree,
  eachEntry,
} from '../../../src/persistent-data/check/tree-check.ts';
import { deviceDetails } from '../../../src/thin/metadata/device-details.ts';
import { dataBlockAt } from '../../../src/thin/metadata/mapping.ts';
import { PoolMetadata } from '../../../src/thin/metadata/pool-metadata.ts';
import { superblock, superblockValidator } from '../../../src/thin/metadata/superblock.ts';
import { Random, seedOf } from '../../helpers/random.ts';

/** Checks everything that the superblock on `device` names; the findings' lines. */
function checkPool(device: MemoryDevice): { lines: string[]; mapped: Map<number, number> } {
  const found = new DamageList();
  const run = new CheckRun(new DeviceReader(device), found.report);
  const place = { where: 'superblock', path: [], blocknr: 0, begin: 0, end: 0 };
  run.reference(0, 'superblock', place);
  const block = run.read(0, superblockValidator, place);
  assert.ok(block !== null);
  const { view } = block;
  const mappingRoot = superblock.dataMappingRoot.get(view, 0);
  const detailsRoot = superblock.deviceDetailsRoot.get(view, 0);
  const dataRoot = readSpaceMapRoot(view, superblock.dataSpaceMapRoot.offset);
  const metadataRoot = readSpaceMapRoot(view, superblock.metadataSpaceMapRoot.offset);

  const dataCounts = new CountTable();
  const mapped = new Map<number, number>();
  const mapping = {
    name: 'mapping tree',
    valueSize: 8,
    visitLeaf: (leaf: ReadBlock) =>
      eachEntry(leaf.view, (_, offset) => dataCounts.add(dataBlockAt(leaf.view, offset))),
  };
  checkNested(run, mappingRoot, mapping, ({ key }, { nrEntries }) => mapped.set(key, nrEntries));
  checkTree(run, detailsRoot, { name: 'details tree', valueSize: deviceDetails.size });
  const data = SpaceMapCheck.scanDisk(run, 'data space map', dataRoot);
  const metadata = SpaceMapCheck.scanMetadata(run, 'metadata space map', metadataRoot);
  data.compare(dataCounts);
  metadata.compare(run.counts);
  return { lines: found.lines(), mapped };
}

test('a pool with snapshots of snapshots passes after every commit', async () => {
  const seed = seedOf(1);
  const random = new Random(seed);
  const device = new MemoryDevice('meta', 8 * 4096);
  const options = { dataBlockSize: 128, mayFormat: true };
  const pmd = await PoolMetadata.open(device, new MemoryLog(), options);
  pmd.resizeData(40_000);
  pmd.createThin(0);
  await pmd.commit();
  const ids = [0];
  for (let round = 0; round < 40; round++) {
    const id = random.pick(ids);
    const thin = pmd.openDevice(id);
    const begin = random.below(3000);
    for (let i = 0; i < 100; i++) {
      pmd.insertBlock(thin, begin + random.below(200), pmd.reserveDataBlock());
    }
    if (random.chance(0.3)) pmd.removeRange(thin, begin, begin + random.below(300));
    pmd.closeDevice(thin);
    if (random.chance(0.3)) {
      const snap = Math.max(...ids) + 1;
      pmd.createSnap(snap, id);
      ids.push(snap);
    } else if (random.chance(0.2) && ids.length > 1) {
      pmd.deleteDevice(id);
      ids.splice(ids.indexOf(id), 1);
    }
    await pmd.commit();
    const { lines, mapped } = checkPool(device);
    assert.deepEqual(lines, [], `DM_SEED=${seed}, round ${round}`);
    assert.deepEqual([...mapped.keys()].sort(byNumber), [...ids].sort(byNumber));
  }
});

const byNumber = (a: number, b: number): number => a - b;
