/**
 * A pool writes in the kernel's order: the same commands and I/O, with metadata and data on one
 * device whose writes are logged, leave the same log here as in a real kernel, but for the sections
 * listed here, which docs/differences.md explains. One boot serves all tests.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import {
  LOG_SECTORS,
  LOGGED_SECTORS,
  linesThere,
  orderHere,
  sectionsOf,
} from '../helpers/io-order.ts';
import { scripts } from '../helpers/io-order-scripts.ts';
import { writeBytes } from '../helpers/edit-blocks.ts';
import { kernelModules, repoRoot, runInKernel, skipWithoutKernel } from '../helpers/kernel.ts';
import { scratchDir, skipWithout } from '../helpers/programs.ts';

/** Sections that differ on purpose: ours, and the kernel's. */
const differences: Record<string, Record<string, readonly [ours: string, kernels: string]>> = {
  'scenario 48': {
    // A FUA overwrite with other changes pending makes one commit.
    'pending-overwrite': [
      'D 1024+128 FUA, F, M 38-44, F, M 0, F, F, ' +
        'D 1280+128 FUA, D 1152+128, F, M 45-51, F, M 0, F, F',
      'D 1024+128 FUA, F, M 38-44, F, M 0, F, F, ' +
        'D 1152+128, F, M 45-51, F, M 0, F, D 1280+128 FUA, F, M 52-56, F, M 0, F, F',
    ],
  },
  snapshots: {
    // A metadata snapshot is not referred to before it is there.
    reserve: [
      'F, F, M 0, F, F, M 105-107, F, M 0, F',
      'F, F, M 0, F, F, F, M 0, F, F, M 0 105-107, F, M 0, F',
    ],
    release: ['F, M 116-120, F, M 0, F', 'F, M 0 116-120, F, M 0, F'],
  },
  discards: {
    // A discard of shared blocks is passed down after a commit.
    'last-user': [
      'D 896+128 FUA, F, M 84-90, F, M 0, F, F, F, M 91-97, F, M 0, F, D discard 384+128, F',
      'D 896+128 FUA, F, M 84-90, F, M 0, F, F, D discard 384+128, F, M 91-97, F, M 0, F',
    ],
  },
};

const names = Object.keys(scripts);
let logs = Buffer.alloc(0);
const skip = skipWithoutKernel() || skipWithout('perl');

before(async () => {
  if (skip !== false) return;
  const { dir, remove } = scratchDir();
  try {
    const plan = names.flatMap((name, i) => linesThere(scripts[name] ?? [], i));
    fs.writeFileSync(path.join(dir, 'plan'), `${plan.join('\n')}\n`);
    const disk = path.join(dir, 'logs');
    fs.writeFileSync(disk, '');
    fs.truncateSync(disk, names.length * LOG_SECTORS * 512);
    const script = `set -e
      mount -t tmpfs none /mnt
      truncate -s ${names.length * LOGGED_SECTORS * 512} /mnt/device
      modprobe -d ${kernelModules} loop
      losetup /dev/loop0 /mnt/device
      perl ${path.join(repoRoot, 'test/kernel/guest.pl')} ${dir}/plan`;
    const { stdout, stderr } = await runInKernel(script, { disks: [disk], dir });
    assert.match(stdout, /finished\n$/, `${stdout.slice(-2000)}\n${stderr.slice(-2000)}`);
    logs = fs.readFileSync(disk);
  } finally {
    remove();
  }
});

for (const [i, name] of names.entries()) {
  test(`a pool writes in the kernel’s order: ${name}`, { skip }, async () => {
    const device = new MemoryDevice('log', LOG_SECTORS);
    const bytes = LOG_SECTORS * 512;
    writeBytes(device, 0, logs.subarray(i * bytes, (i + 1) * bytes));
    const kernels = sectionsOf(device);
    const ours = await orderHere(scripts[name] ?? []);
    assert.deepEqual([...ours.keys()], [...kernels.keys()]);
    for (const [section, order] of kernels) {
      const known = differences[name]?.[section] ?? [order, order];
      assert.deepEqual([ours.get(section), order], known, section);
    }
  });
}
