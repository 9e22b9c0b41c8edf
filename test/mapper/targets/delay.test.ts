/**
 * The delay target: each class of request goes to its device, after its time (spec: dm-core, 9.5).
 * Tables, errors and status lines are compared with the kernel's by the script delay in
 * test/kernel/transcripts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedClock } from '../../../src/base/simulated-clock.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { discard, fill, flush, read, runs, Stack } from '../../helpers/stack.ts';

const READ_MS = 30;
const WRITE_MS = 70;
const FLUSH_MS = 110;

class Rig {
  readonly clock = new SimulatedClock();
  readonly stack = new Stack(this.clock);
  readonly reads = new MemoryDevice('reads', 2000);
  readonly writes = new MemoryDevice('writes', 2000);

  async open(): Promise<void> {
    this.stack.disk('reads', this.reads);
    this.stack.disk('writes', this.writes);
    const routes = `/dev/reads 8 ${READ_MS} /dev/writes 16 ${WRITE_MS} /dev/writes 0 ${FLUSH_MS}`;
    await this.stack.create('d', `0 1000 delay ${routes}`);
  }

  /** How long `work` takes. */
  async timed(work: Promise<unknown>): Promise<number> {
    const begin = this.clock.nowMs();
    await this.clock.run(work);
    return this.clock.nowMs() - begin;
  }
}

test('reads, writes and flushes take their own time, on their own device', async () => {
  const rig = new Rig();
  await rig.open();
  const device = rig.stack.device('d');
  await fill(rig.reads, 8 * 512, 512, 0x11);
  assert.equal(await rig.timed(fill(device, 0, 1024, 0x22)), WRITE_MS);
  assert.equal(await rig.timed(discard(device, 4096, 512)), WRITE_MS);
  assert.equal(await rig.timed(flush(device)), FLUSH_MS);
  const reading = read(device, 0, 1024);
  assert.equal(await rig.timed(reading), READ_MS);
  assert.equal(runs(await reading), '512x11 512x00');
  assert.equal(runs(await read(rig.writes, 15 * 512, 4 * 512)), '512x00 1024x22 512x00');
});

test('requests that come together end together, and are counted until then', async () => {
  const rig = new Rig();
  await rig.open();
  const device = rig.stack.device('d');
  const all = Promise.all([
    read(device, 0, 512),
    read(device, 512, 512),
    fill(device, 0, 512, 1),
    flush(device),
  ]);
  assert.equal(await rig.stack.status('d'), '0 1000 delay 2 1 1');
  assert.equal(await rig.timed(all), FLUSH_MS);
  assert.equal(await rig.stack.status('d'), '0 1000 delay 0 0 0');
});

test('a suspend lets what is delayed go at once', async () => {
  const rig = new Rig();
  await rig.open();
  const device = rig.stack.device('d');
  const writing = fill(device, 0, 512, 1);
  assert.equal(await rig.timed(rig.stack.suspend('d')), 0);
  await writing;
  await rig.stack.resume('d');
  assert.equal(await rig.timed(fill(device, 0, 512, 1)), WRITE_MS);
});

test('without delay nothing is delayed', async () => {
  const rig = new Rig();
  await rig.open();
  await rig.stack.create('n', '0 1000 delay /dev/reads 0 0');
  await fill(rig.stack.device('n'), 0, 512, 7);
  assert.equal(runs(await read(rig.reads, 0, 512)), '512x07');
});
