/**
 * Replaying write logs: which entries a range has, and what is on the device after them. That a
 * whole replay leaves what the logged device has is shown in write-log.test.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LoggedDevice } from '../../src/block/logged-device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import {
  entriesIn,
  replayLog,
  type ReplayOptions,
  type ReplayRange,
} from '../../src/block/replay-log.ts';
import { LogFlag } from '../../src/block/write-log-format.ts';
import { WriteLogReader } from '../../src/block/write-log-reader.ts';
import { WriteLog } from '../../src/block/write-log.ts';
import { discard, fill, flush, read, runs } from '../helpers/stack.ts';

const SECTORS = 64;

/**
 * 0 write 11 · 1 flush · 2 mark a · 3 write 22 · 4 write 33 · 5 flush · 6 FUA 44 · 7 mark b
 * 8 discard · 9 flush · 10 mark of the end
 */
async function makeLog(): Promise<WriteLogReader> {
  const device = new MemoryDevice('log', 4096);
  const log = new WriteLog(device, 512);
  const logged = new LoggedDevice(new MemoryDevice('disk', SECTORS), log);
  await fill(logged, 0, 1024, 0x11);
  await flush(logged);
  log.mark('a');
  await fill(logged, 512, 1024, 0x22);
  await fill(logged, 2048, 512, 0x33);
  await flush(logged);
  await fill(logged, 0, 512, 0x44, true);
  log.mark('b');
  await discard(logged, 0, 1024);
  await flush(logged);
  logged.close();
  await log.close();
  return WriteLogReader.open(device);
}

async function indexes(range: ReplayRange): Promise<string> {
  return [...entriesIn(await makeLog(), range)].map(({ index }) => index).join(' ');
}

async function replayed(options: ReplayOptions): Promise<string> {
  const device = new MemoryDevice('copy', SECTORS);
  await replayLog(await makeLog(), device, options);
  return runs(await read(device, 0, 3072));
}

test('a range begins and ends where it is told to', async () => {
  assert.equal(await indexes({}), '0 1 2 3 4 5 6 7 8 9 10');
  assert.equal(await indexes({ startEntry: 3, limit: 2 }), '3 4');
  assert.equal(await indexes({ startMark: 'a', endMark: 'b' }), '3 4 5 6');
  assert.equal(await indexes({ untilFlag: LogFlag.FLUSH }), '0 1');
  assert.equal(await indexes({ startEntry: 2, untilFlag: LogFlag.FLUSH }), '2 3 4 5');
  assert.equal(await indexes({ untilFlag: LogFlag.FUA }), '0 1 2 3 4 5 6');
  assert.equal(await indexes({ limit: 0 }), '');
});

test('what is wanted and not there is ENOENT', async () => {
  for (const range of [
    { startMark: 'c' },
    { endMark: 'c' },
    { startMark: 'b', endMark: 'a' },
    { startEntry: 7, untilFlag: LogFlag.FUA },
  ]) {
    await assert.rejects(indexes(range), { errno: 'ENOENT' }, JSON.stringify(range));
  }
});

test('the device is as it was at the end of the range', async () => {
  assert.equal(await replayed({ endMark: 'a' }), '1024x11 2048x00');
  assert.equal(await replayed({ endMark: 'b' }), '512x44 1024x22 512x00 512x33 512x00');
  assert.equal(await replayed({}), '1024x00 512x22 512x00 512x33 512x00');
  assert.equal(await replayed({ skipDiscards: true }), '512x44 1024x22 512x00 512x33 512x00');
  const part = { startSector: 1, endSector: 2, endMark: 'b' };
  assert.equal(await replayed(part), '512x00 512x22 2048x00');
});

test('a device that cannot discard gets zeroes', async () => {
  const limits = { maxDiscardSectors: 0, maxWriteZeroesSectors: 0 };
  const device = new MemoryDevice('copy', SECTORS, { limits });
  await replayLog(await makeLog(), device, {});
  assert.equal(runs(await read(device, 0, 1536)), '1024x00 512x22');
});

test('a device that is too small is ENOSPC, and keeps what came before', async () => {
  const device = new MemoryDevice('copy', 3);
  await assert.rejects(replayLog(await makeLog(), device, {}), { errno: 'ENOSPC' });
  assert.equal(runs(await read(device, 0, 1536)), '512x11 1024x22');
});

test('who looks at each entry sees the device with it', async () => {
  const device = new MemoryDevice('copy', SECTORS);
  const seen: string[] = [];
  const onEntry = async ({ index }: { index: number }): Promise<void> => {
    seen.push(`${index}: ${runs(await read(device, 0, 512))}`);
    if (index === 6) throw new Error('enough');
  };
  await assert.rejects(replayLog(await makeLog(), device, { onEntry }), /enough/);
  assert.deepEqual([seen[0], seen[6], seen.length], ['0: 512x11', '6: 512x44', 7]);
});
