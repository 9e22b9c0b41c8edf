/**
 * The image of a fresh pool, block for block, as a Linux 6.1 kernel makes it
 * (spec: persistent-data, 8 and 2.1).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryLog } from '../../../src/base/log.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { PoolMetadata } from '../../../src/thin/metadata/pool-metadata.ts';
import { superblock } from '../../../src/thin/metadata/superblock.ts';

const BLOCK = 4096;

function image(device: MemoryDevice): Buffer {
  const bytes = Buffer.alloc(device.sizeSectors * 512);
  device.readSync(0, device.sizeSectors, bytes, 0);
  return bytes;
}

const csumOf = (bytes: Buffer, block: number): number => bytes.readUInt32LE(block * BLOCK);

async function freshPool(): Promise<{ device: MemoryDevice; pmd: PoolMetadata }> {
  const device = new MemoryDevice('meta', 8192);
  const options = { dataBlockSize: 128, mayFormat: true };
  const pmd = await PoolMetadata.open(device, new MemoryLog(), options);
  pmd.resizeData(4096);
  await pmd.commit();
  return { device, pmd };
}

test('a fresh pool of 4096 data blocks has the checksums that the kernel gives it', async () => {
  const { device } = await freshPool();
  const bytes = image(device);
  const wanted = [
    0x51bd3fd8, 0x18e0660a, 0xc360e452, 0xa19f6375, 0x787f52c8, 0x41bfaa04, 0xcb3dda35, 0xb1c81346,
    0x58bb3366, 0xe3cd2ec7, 0xb7af1487, 0xa1012ee6,
  ];
  const found = wanted.map((_, block) => csumOf(bytes, block));
  assert.deepEqual(found.map(hex), wanted.map(hex));
  const rest = bytes.subarray(wanted.length * BLOCK);
  assert.ok(rest.every((byte) => byte === 0));
});

test('the first create_thin takes the blocks that the kernel takes', async () => {
  const { device, pmd } = await freshPool();
  pmd.createThin(0);
  await pmd.commit();
  const view = new DataView(image(device).buffer);
  assert.equal(superblock.dataMappingRoot.get(view, 0), 14);
  assert.equal(superblock.deviceDetailsRoot.get(view, 0), 15);
  assert.equal(pmd.nrMetadataBlocks - pmd.nrFreeMetadataBlocks, 112);
});

function hex(n: number): string {
  return `0x${n.toString(16)}`;
}
