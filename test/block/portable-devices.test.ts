/**
 * The suite of block devices where there is no koffi: the portable way of everything.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import { test } from 'node:test';

// Read when the system calls are looked for, so before anything of the block room is loaded.
process.env['DEVMAPPER_NO_FFI'] = '1';
const { native } = await import('../../src/block/native.ts');
const { blockDeviceSuite } = await import('../helpers/block-device-suite.ts');
const { fileSubject, loopSubject, skipWithoutLoop } = await import('../helpers/subjects.ts');

test('DEVMAPPER_NO_FFI=1 leaves the portable ways only', () => {
  assert.equal(native, null);
});

const portable = { discards: false, givesBack: false };

blockDeviceSuite('portable file', fileSubject(os.tmpdir()), portable);

blockDeviceSuite('portable file in memory', fileSubject('/dev/shm'), {
  ...portable,
  skip: !fs.existsSync('/dev/shm') && 'needs /dev/shm',
});

blockDeviceSuite('portable loop device', loopSubject(os.tmpdir()), {
  ...portable,
  skip: skipWithoutLoop,
});
