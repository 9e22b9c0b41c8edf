/**
 * Scenarios of spec thin, section 16, each observed on Linux 6.1, on memory devices.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { plainLimits } from '../../../src/block/device.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { discard, fill, read, runs, Stack } from '../../helpers/stack.ts';

const POOL = '0 524288 thin-pool /dev/ubda /dev/ubdb 128 0';
const K = 1024;

/** META of 4 MiB and DATA of 256 MiB that cannot discard, as under kernel-run. */
function disks(): Stack {
  const stack = new Stack();
  stack.disk('ubda', 8192);
  stack.disk('ubdb', new MemoryDevice('ubdb', 524288, { limits: plainLimits() }));
  return stack;
}

async function poolWithThin(dataByte?: number): Promise<Stack> {
  const stack = disks();
  if (dataByte !== undefined) {
    const { device } = stack.registry.lookup.use('/dev/ubdb', false, '/', null);
    await fill(device, 0, 4096 * K, dataByte);
  }
  await stack.create('p', POOL);
  await stack.message('p', 'create_thin 0');
  await stack.create('t0', '0 65536 thin /dev/mapper/p 0');
  return stack;
}

test('scenario 1: a fresh pool and ten blocks have the status lines of the kernel', async () => {
  const stack = disks();
  await stack.create('p', POOL);
  assert.equal(
    await stack.status('p'),
    '0 524288 thin-pool 0 111/1024 0/4096 - rw no_discard_passdown queue_if_no_space - 256 ',
  );
  assert.equal(await stack.table('p'), '0 524288 thin-pool 98:0 98:16 128 0 0 ');
  await stack.message('p', 'create_thin 0');
  assert.match(await stack.status('p'), /^0 524288 thin-pool 0 112\/1024 0\/4096 - rw /);
  const t0 = await stack.create('t0', '0 262144 thin /dev/mapper/p 0');
  assert.equal(await stack.status('t0'), '0 262144 thin 0 -');
  assert.equal(await stack.table('t0'), '0 262144 thin 254:0 0');
  for (let i = 0; i < 10; i++) await fill(t0, i * 64 * K, 64 * K, 0x11);
  assert.equal(await stack.status('t0'), '0 262144 thin 1280 1279');
  assert.match(await stack.status('p'), / 112\/1024 10\/4096 /);
  await stack.remove('t0');
  await stack.remove('p');
});

test('scenario 12: zeroing, copy on write, sharing seen from one side only', async () => {
  const stack = await poolWithThin(0xaa);
  const t0 = stack.device('t0');
  assert.equal(runs(await read(t0, 0, 64 * K)), '65536x00');
  assert.equal(await stack.status('t0'), '0 65536 thin 0 -');
  await fill(t0, 4096, 4096, 0x11);
  assert.equal(runs(await read(t0, 0, 64 * K)), '4096x00 4096x11 57344x00');
  await fill(t0, 5 * 64 * K, 64 * K, 0x22);
  assert.equal(runs(await read(t0, 5 * 64 * K, 64 * K)), '65536x22');
  assert.equal(await stack.status('t0'), '0 65536 thin 256 767');
  assert.match(await stack.status('p'), / 2\/4096 /);

  await stack.suspend('t0');
  await stack.message('p', 'create_snap 1 0');
  await stack.resume('t0');
  const s1 = await stack.create('s1', '0 65536 thin /dev/mapper/p 1');
  await fill(t0, 0, 4096, 0x33);
  assert.equal(runs(await read(t0, 0, 64 * K)), '4096x33 4096x11 57344x00');
  assert.equal(runs(await read(s1, 0, 64 * K)), '4096x00 4096x11 57344x00');
  assert.match(await stack.status('p'), / 3\/4096 /);
  await fill(t0, 5 * 64 * K, 64 * K, 0x44);
  assert.equal(runs(await read(t0, 5 * 64 * K, 64 * K)), '65536x44');
  assert.equal(runs(await read(s1, 5 * 64 * K, 64 * K)), '65536x22');
  assert.match(await stack.status('p'), / 4\/4096 /);

  // s1's block 0 has count 1 by now but is still "shared" by time: it is copied, the old one freed.
  await fill(s1, 3 * 4096, 4096, 0x55);
  assert.match(await stack.status('p'), / 4\/4096 /);
  assert.equal(runs(await read(s1, 0, 64 * K)), '4096x00 4096x11 4096x00 4096x55 49152x00');
});

test('scenario 13: only blocks that lie wholly inside a discard are unmapped', async () => {
  const stack = await poolWithThin();
  const t0 = stack.device('t0');
  await fill(t0, 0, 64 * K, 0x11);
  await discard(t0, 4096, 61440);
  assert.equal(await stack.status('t0'), '0 65536 thin 128 127');
  await discard(t0, 0, 65536);
  assert.equal(await stack.status('t0'), '0 65536 thin 0 -');
  assert.equal(runs(await read(t0, 0, 64 * K)), '65536x00');
  for (let i = 0; i < 6; i++) await fill(t0, i * 64 * K, 64 * K, 0x11);
  await discard(t0, 32768, 163840);
  assert.equal(await stack.status('t0'), '0 65536 thin 512 767');
});
