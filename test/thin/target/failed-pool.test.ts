/**
 * What thin devices tell of a pool that has failed, or whose table has been replaced by another.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errno } from '../../../src/base/errno.ts';
import { DmError } from '../../../src/base/error.ts';
import type { MappedDevice } from '../../../src/mapper/mapped-device.ts';
import { PoolMode } from '../../../src/thin/target/modes.ts';
import { Cmd, Err } from '../../helpers/nbd-client.ts';
import { withDevice } from '../../helpers/nbd-server.ts';
import { fill, read, runs, Stack } from '../../helpers/stack.ts';

const BLOCK = 65536;
const POOL = '0 8192 thin-pool /dev/meta /dev/data 128 0';

interface Rig {
  readonly stack: Stack;
  readonly volume: MappedDevice;
}

/** A pool with one volume, of which block 1 is mapped. */
async function rig(): Promise<Rig> {
  const stack = new Stack();
  for (const name of ['meta', 'data']) stack.disk(name, 8192);
  await stack.create('p', POOL);
  await stack.message('p', 'create_thin 0');
  const volume = await stack.create('v', '0 8192 thin /dev/mapper/p 0');
  await fill(volume, BLOCK, BLOCK, 7);
  return { stack, volume };
}

function extents(device: MappedDevice): string {
  const found: string[] = [];
  device.blockStatus(0, device.sizeSectors, (n, flags) => {
    found.push(`${n}:${flags}`);
    return true;
  });
  return found.join(' ');
}

test('holes of a failed pool are not told to be zeroes, nor read as such', async () => {
  // After a failed commit a hole may be where data was acknowledged: a client that asked for the
  // map, or whose reads were answered from it, would have had zeroes instead of an error.
  const { stack, volume } = await rig();
  assert.equal(extents(volume), '128:3 128:0 7936:3');
  stack.pools.findByDevice(stack.device('p'))?.setMode(PoolMode.FAIL);
  assert.equal(extents(volume), '8192:0');
  assert.equal(volume.readSync(0, 8, Buffer.alloc(4096), 0), errno.EIO);
  await withDevice(volume, async (server) => {
    const client = await server.open('disk', { form: 'structured', contexts: true });
    assert.equal(await client.map(0, 64 * BLOCK), `${64 * BLOCK}:0`);
    const reply = await client.command(Cmd.READ, { offset: 4 * BLOCK, length: BLOCK });
    assert.equal(reply.error, Err.EIO);
  });
});

test('a pool whose table is replaced by errors fails its volumes, and everything can end', async () => {
  // Its volumes had been suspended for the replacement, and nobody resumed them; the last one to go
  // committed to devices that were closed.
  const { stack, volume } = await rig();
  await stack.suspend('v');
  await stack.resume('v');
  await stack.registry.replaceByError(stack.device('p'));
  await assert.rejects(read(volume, 0, BLOCK), { errno: 'EIO' });
  await assert.rejects(read(volume, BLOCK, BLOCK), { errno: 'EIO' });
  await assert.rejects(fill(volume, 0, BLOCK, 1), { errno: 'EIO' });
  assert.match(await stack.status('v'), /Fail/);
  await assert.rejects(stack.create('w', '0 8192 thin /dev/mapper/p 0'), DmError);
  await stack.remove('v');
  await stack.remove('p');
  // What was there before is there again, with the pool.
  await stack.create('p', POOL);
  const again = await stack.create('v', '0 8192 thin /dev/mapper/p 0');
  assert.equal(runs(await read(again, 0, 2 * BLOCK)), `${BLOCK}x00 ${BLOCK}x07`);
});
