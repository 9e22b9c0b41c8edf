/**
 * Reading and changing metadata blocks behind the library's back, for tests of damage.
 */
import assert from 'node:assert/strict';
import { Bio, BioOp } from '../../src/block/bio.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { BLOCK_SECTORS, BLOCK_SIZE } from '../../src/persistent-data/block.ts';
import { checksum } from '../../src/persistent-data/checksum.ts';

/** The bytes of a block as they are on the device. */
export function readBytes(device: BlockDevice, blocknr: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK_SIZE);
  assert.equal(device.readSync(blocknr * BLOCK_SECTORS, BLOCK_SECTORS, bytes, 0), 0);
  return bytes;
}

/** Writes at once, to a device that completes before `submit` returns. */
export function writeBytes(device: MemoryDevice, blocknr: number, bytes: Uint8Array): void {
  const bio = new Bio();
  bio.op = BioOp.WRITE;
  bio.sector = blocknr * BLOCK_SECTORS;
  bio.nrSectors = bytes.length / 512;
  bio.data = bytes;
  bio.onEnd = ({ status }) => assert.equal(status, 0);
  device.submit(bio);
}

/** Changes a block; with a `salt`, its checksum is right again afterwards. */
export function editBlock(
  device: MemoryDevice,
  blocknr: number,
  edit: (view: DataView, bytes: Uint8Array) => void,
  salt?: number,
): void {
  const bytes = readBytes(device, blocknr);
  const view = new DataView(bytes.buffer);
  edit(view, bytes);
  if (salt !== undefined) view.setUint32(0, checksum(bytes.subarray(4), salt), true);
  writeBytes(device, blocknr, bytes);
}

/** A device with the same contents. */
export function copyDevice(device: BlockDevice): MemoryDevice {
  const bytes = new Uint8Array(device.sizeSectors * 512);
  assert.equal(device.readSync(0, device.sizeSectors, bytes, 0), 0);
  const copy = new MemoryDevice(device.name, device.sizeSectors);
  writeBytes(copy, 0, bytes);
  return copy;
}

/** All bytes of a device. */
export function imageOf(device: BlockDevice): Buffer {
  const bytes = Buffer.alloc(device.sizeSectors * 512);
  assert.equal(device.readSync(0, device.sizeSectors, bytes, 0), 0);
  return bytes;
}
