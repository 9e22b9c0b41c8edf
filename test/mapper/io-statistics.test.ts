/**
 * I/O statistics: times, histograms and what is in flight, on a clock of the test's own. Messages
 * and counts are compared with the kernel's by the script statistics in test/kernel/transcripts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedClock } from '../../src/base/simulated-clock.ts';
import { fill, flush, read, Stack } from '../helpers/stack.ts';

const READ_MS = 30;
const WRITE_MS = 70;

async function rig(): Promise<{ clock: SimulatedClock; stack: Stack }> {
  const clock = new SimulatedClock();
  const stack = new Stack(clock);
  stack.disk('disk', 1000);
  const routes = `/dev/disk 0 ${READ_MS} /dev/disk 0 ${WRITE_MS}`;
  await clock.run(stack.create('d', `0 1000 delay ${routes}`));
  return { clock, stack };
}

test('times of requests, of the device with any of them, and of all of them together', async () => {
  const { clock, stack } = await rig();
  const device = stack.device('d');
  assert.equal(await stack.message('d', '@stats_create - 1000'), '0');
  await clock.run(Promise.all([read(device, 0, 512), read(device, 512, 512), flush(device)]));
  await clock.run(fill(device, 0, 1024, 1));
  await clock.pass(100);
  const words = ['0+1000', 2, 0, 2, 2 * READ_MS, 1, 0, 2, WRITE_MS, 0];
  const times = [READ_MS + WRITE_MS, 2 * READ_MS + WRITE_MS, READ_MS, WRITE_MS];
  assert.equal(await stack.message('d', '@stats_print 0'), [...words, ...times].join(' '));
});

test('what is in flight counts as such, and its time goes on', async () => {
  const { clock, stack } = await rig();
  await stack.message('d', '@stats_create - 1000');
  const writing = fill(stack.device('d'), 0, 512, 1);
  await clock.pass(50);
  const line = await stack.message('d', '@stats_print 0');
  assert.equal(line, '0+1000 0 0 0 0 0 0 0 0 1 50 50 0 50');
  await clock.run(writing);
  assert.match(await stack.message('d', '@stats_print_clear 0'), / 1 0 1 70 0 70 70 0 70$/);
  assert.equal(await stack.message('d', '@stats_print 0'), `0+1000${' 0'.repeat(13)}`);
});

test('histograms count requests by their time, in ms, or ns if precise', async () => {
  const { clock, stack } = await rig();
  const device = stack.device('d');
  await stack.message('d', '@stats_create - 1000 1 histogram:30,31,100');
  await stack.message('d', '@stats_create - 1000 2 precise_timestamps histogram:30000001');
  await clock.run(Promise.all([read(device, 0, 512), fill(device, 512, 512, 1)]));
  assert.match(await stack.message('d', '@stats_print 0'), / 0:1:1:0$/);
  assert.match(await stack.message('d', '@stats_print 1'), / 30000000 .* 1:1$/);
});

test('a request that waits for a resume is counted once, from then on', async () => {
  const { clock, stack } = await rig();
  const device = stack.device('d');
  await stack.message('d', '@stats_create - 1000');
  await clock.run(stack.suspend('d'));
  const reading = read(device, 0, 512);
  await clock.pass(1000);
  assert.equal(await stack.message('d', '@stats_print 0'), `0+1000${' 0'.repeat(13)}`);
  await clock.run(stack.resume('d'));
  await clock.run(reading);
  assert.match(await stack.message('d', '@stats_print 0'), /^0\+1000 1 0 1 30 /);
});

test('a region that is gone, or came meanwhile, does not count what was in flight', async () => {
  const { clock, stack } = await rig();
  const device = stack.device('d');
  await stack.message('d', '@stats_create - 1000');
  const first = fill(device, 0, 512, 1);
  await stack.message('d', '@stats_create - 1000');
  await stack.message('d', '@stats_delete 0');
  await clock.run(first);
  assert.equal(await stack.message('d', '@stats_print 1'), `0+1000${' 0'.repeat(13)}`);
  await clock.run(read(device, 0, 512));
  assert.match(await stack.message('d', '@stats_print 1'), /^0\+1000 1 0 1 30 0 /);
});

test('regions that would fill the memory are refused', async () => {
  const { stack } = await rig();
  const message = '@stats_create 0+4503599627370496 1';
  await assert.rejects(stack.message('d', message), { errno: 'EINVAL' });
});
