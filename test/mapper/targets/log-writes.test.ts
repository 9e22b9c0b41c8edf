/**
 * The log-writes target: what is on the log when the table goes (spec: dm-core, 9.6). That the log
 * is the kernel's, bit for bit, is shown by kernel/write-log; errors, status and messages by the
 * script log-writes in test/kernel/transcripts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { END_MARK, LogFlag } from '../../../src/block/write-log-format.ts';
import { WriteLogReader } from '../../../src/block/write-log-reader.ts';
import { discard, fill, flush, read, runs, Stack } from '../../helpers/stack.ts';

class Rig {
  readonly stack = new Stack();
  readonly disk = new MemoryDevice('disk', 2000);
  readonly log: MemoryDevice;

  constructor(logSectors = 4000) {
    this.log = new MemoryDevice('log', logSectors);
  }

  async open(): Promise<void> {
    this.stack.disk('disk', this.disk);
    this.stack.disk('log', this.log);
    await this.stack.create('l', '0 2000 log-writes /dev/disk /dev/log');
  }

  entries(): string[] {
    return [...WriteLogReader.open(this.log).entries()].map(({ flags, sector, nrSectors, text }) =>
      `${flags} ${sector} ${nrSectors} ${text}`.trim(),
    );
  }
}

test('everything goes through, and is on the log in its order', async () => {
  const rig = new Rig();
  await rig.open();
  const device = rig.stack.device('l');
  await fill(device, 0, 1024, 0x11);
  await flush(device);
  await rig.stack.message('l', 'mark half');
  await fill(device, 1024, 512, 0x22, true);
  await discard(device, 0, 512);
  assert.equal(runs(await read(device, 0, 2048)), '512x00 512x11 512x22 512x00');
  assert.equal(await rig.stack.status('l'), '0 2000 log-writes 4 7');
  await rig.stack.remove('l');
  const { FLUSH, FUA, DISCARD, MARK } = LogFlag;
  assert.deepEqual(rig.entries(), [
    '0 0 2',
    `${FLUSH} 0 0`,
    `${MARK} 0 0 half`,
    `${FUA} 2 1`,
    `${DISCARD} 0 1`,
    `${MARK} 0 0 ${END_MARK}`,
  ]);
});

test('a log that is full costs the log, not the data', async () => {
  const rig = new Rig(8);
  await rig.open();
  const device = rig.stack.device('l');
  await fill(device, 0, 16 * 512, 0x11, true);
  await fill(device, 0, 512, 0x22, true);
  assert.match(await rig.stack.status('l'), /logging_disabled$/);
  assert.equal(runs(await read(rig.disk, 0, 1024)), '512x22 512x11');
  assert.ok(rig.stack.log.lines.some((line) => line.includes('Ran out of space on the logdev')));
  await rig.stack.remove('l');
});

test('each table begins the log anew', async () => {
  const rig = new Rig();
  await rig.open();
  await fill(rig.stack.device('l'), 0, 512, 0x11, true);
  await rig.stack.suspend('l');
  await rig.stack.reload('l', '0 2000 log-writes /dev/disk /dev/log');
  await rig.stack.resume('l');
  await rig.stack.remove('l');
  assert.deepEqual(rig.entries(), [`${LogFlag.MARK} 0 0 ${END_MARK}`]);
});
