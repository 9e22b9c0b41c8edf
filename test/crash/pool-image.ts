/**
 * What a pool's metadata image says, read without the pool: the transaction id, and by device its
 * details and mappings. Only for metadata that checks clean.
 */
import assert from 'node:assert/strict';
import type { BlockDevice } from '../../src/block/device.ts';
import { DeviceReader } from '../../src/persistent-data/check/block-reader.ts';
import { eachEntry } from '../../src/persistent-data/check/tree-check.ts';
import { dataBlockAt, MAPPING_SIZE, timeAt } from '../../src/thin/metadata/mapping.ts';
import { liveSuperblock } from '../../src/thin/tools/dump.ts';
import type { DeviceInfo } from '../../src/thin/tools/pool-visitor.ts';
import { TreeReader } from '../../src/thin/tools/tree-reader.ts';

export interface MappingImage {
  readonly block: number;
  readonly time: number;
}

export interface DeviceImage {
  readonly info: DeviceInfo;
  /** By virtual block. */
  readonly mappings: ReadonlyMap<number, MappingImage>;
}

export interface PoolImage {
  readonly transactionId: number;
  readonly devices: ReadonlyMap<number, DeviceImage>;
}

export function readPoolImage(metadata: BlockDevice): PoolImage {
  const reader = new DeviceReader(metadata);
  const sb = liveSuperblock(reader);
  const trees = new TreeReader(reader);
  const roots = trees.deviceRoots(sb.mappingRoot);
  const devices = new Map<number, DeviceImage>();
  for (const [id, info] of trees.details(sb.detailsRoot)) {
    const mappings = new Map<number, MappingImage>();
    trees.eachLeaf(roots.get(id) as number, MAPPING_SIZE, ({ view }) =>
      eachEntry(view, (virtual, offset) => {
        mappings.set(virtual, { block: dataBlockAt(view, offset), time: timeAt(view, offset) });
      }),
    );
    devices.set(id, { info, mappings });
  }
  return { transactionId: Number(sb.transactionId), devices };
}

/**
 * A data block that two devices map must be the same block of both, made at the same time, before
 * the last snapshot of each: otherwise one would write into what the other one reads.
 */
export function assertSharingIsSafe(pool: PoolImage): void {
  const users = new Map<number, { id: number; virtual: number; time: number; safe: boolean }>();
  for (const [id, { info, mappings }] of pool.devices) {
    for (const [virtual, { block, time }] of mappings) {
      const safe = time < info.snapshottedTime;
      const other = users.get(block);
      users.set(block, { id, virtual, time, safe });
      if (other === undefined) continue;
      const where = `data block ${block} of device ${other.id} and of device ${id}`;
      assert.ok(other.virtual === virtual && other.time === time, `${where}: the same mapping`);
      assert.ok(other.safe && safe, `${where}: both know that it is shared`);
    }
  }
}
