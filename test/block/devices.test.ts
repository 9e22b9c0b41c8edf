/**
 * The suite of block devices over all of ours, as the system calls that koffi reaches make them.
 * Their portable twins: portable-devices.test.ts.
 */
import os from 'node:os';
import fs from 'node:fs';
import { native } from '../../src/block/native.ts';
import { blockDeviceSuite } from '../helpers/block-device-suite.ts';
import { fileSubject, loopSubject, memorySubject, skipWithoutLoop } from '../helpers/subjects.ts';

const skip = native === null && 'needs koffi, which does not load here';
const skipWithoutShm = !fs.existsSync('/dev/shm') && 'needs /dev/shm';

blockDeviceSuite('memory', memorySubject, { discards: true, givesBack: true });

blockDeviceSuite('file', fileSubject(os.tmpdir()), { discards: true, givesBack: true, skip });

blockDeviceSuite('file in memory', fileSubject('/dev/shm'), {
  discards: true,
  givesBack: true,
  skip: skip || skipWithoutShm,
});

blockDeviceSuite('loop device', loopSubject(os.tmpdir()), {
  discards: true,
  givesBack: true,
  skip: skip || skipWithoutLoop,
});
