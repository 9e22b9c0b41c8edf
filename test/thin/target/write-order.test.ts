/**
 * In which order a pool writes: as was observed on Linux 6.1 (spec: thin, scenarios 30 and 48), and
 * so that what is durable is sound at every moment. kernel/write-order.test.ts asks a kernel.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { orderHere } from '../../helpers/io-order.ts';
import { scripts } from '../../helpers/io-order-scripts.ts';

test('scenario 30: writes, flushes and FUA writes come in the order of the kernel', async () => {
  assert.deepEqual(Object.fromEntries(await orderHere(scripts['scenario 30'] ?? [])), {
    format: 'M 1-7, F, M 0, F, F, M 8-11, F, M 0, F',
    create_thin: 'F, M 12-16, F, M 0, F',
    '64k@20-dsync,4k@0':
      'D 0+128 FUA, F, M 17-23, F, M 0, F, F, D 128+128, D 128+8, F, M 24-30, F, M 0, F',
    '64k@21-dsync,64k@3':
      'D 256+128 FUA, F, M 31-37, F, M 0, F, F, D 384+128, F, M 38-44, F, M 0, F',
    '4k@64-dsync': 'D 512+128, F, M 45-51, F, M 0, F, D 512+8 FUA, F',
    '64k@8-dsync': 'D 640+128 FUA, F, M 52-58, F, M 0, F, F',
    '4k@1-dsync': 'D 136+8 FUA, F',
    fsync: 'F',
    status: 'F, F, M 0, F',
    remove: 'F, F, M 0, F, F, F, M 0, F',
    unused: '',
    'unused-dsync': 'D 128+8 FUA, D 128+8, F',
  });
});

test('scenario 48: FUA writes wait for the commit that maps them, or are waited for', async () => {
  assert.deepEqual(Object.fromEntries(await orderHere(scripts['scenario 48'] ?? [])), {
    'skip-zeroing': 'F, M 17-23, F, M 0, F, D 0+128 FUA, F',
    'skip-zeroing-part': 'F, M 24-30, F, M 0, F, D 128+8 FUA, F, F, F, M 0, F, F, F, M 0, F',
    zeroing: 'D 256+128 FUA, F, M 1 3-4 6-9, F, M 0, F, F',
    'pending-part':
      'D 384+128 FUA, F, M 10-16, F, M 0, F, F, ' +
      'D 512+128, D 640+128, F, M 17-23, F, M 0, F, D 640+8 FUA, F',
    'pending-sync':
      'D 768+128 FUA, F, M 24-30, F, M 0, F, F, D 896+128, D 896+8, F, M 31-37, F, M 0, F',
    // The one section that is not the kernel's: one commit, not two.
    'pending-overwrite':
      'D 1024+128 FUA, F, M 38-44, F, M 0, F, F, ' +
      'D 1280+128 FUA, D 1152+128, F, M 45-51, F, M 0, F, F',
    remove: 'F, F, M 0, F, F, F, M 0, F',
  });
});
