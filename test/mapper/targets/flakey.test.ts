/**
 * The flakey target: when it is up and down, and what each feature does to I/O (spec: dm-core,
 * 9.4). Tables, errors and what happens to I/O are compared with the kernel's by the script flakey
 * in test/kernel/transcripts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedClock } from '../../../src/base/simulated-clock.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { discard, fill, flush, read, runs, Stack, write } from '../../helpers/stack.ts';

const K = 1024;

class Rig {
  readonly clock = new SimulatedClock();
  readonly stack = new Stack(this.clock);
  readonly disk = new MemoryDevice('disk', 2000);

  async open(words: string): Promise<void> {
    this.stack.disk('disk', this.disk);
    await this.clock.run(this.stack.create('f', `0 1000 flakey /dev/disk 0 ${words}`));
  }

  /** Runs `work`; resolves to its result, or to the name of its error. */
  async outcome<T>(work: Promise<T>): Promise<T | string> {
    try {
      return await this.clock.run(work);
    } catch (error) {
      return (error as { errno: string }).errno;
    }
  }

  get device(): ReturnType<Stack['device']> {
    return this.stack.device('f');
  }
}

test('it is up and down by turns, in whole seconds from the load on', async () => {
  const rig = new Rig();
  await rig.open('2 3');
  const seen: boolean[] = [];
  for (let second = 0; second < 12; second++) {
    await rig.clock.pass(500);
    seen.push((await rig.outcome(read(rig.device, 0, 512))) !== 'EIO');
    await rig.clock.pass(500);
  }
  assert.equal(seen.map((isUp) => (isUp ? 'u' : '-')).join(''), 'uu---uu---uu');
});

test('without features everything fails while it is down', async () => {
  const rig = new Rig();
  await rig.open('0 1');
  assert.equal(await rig.outcome(read(rig.device, 0, 512)), 'EIO');
  assert.equal(await rig.outcome(fill(rig.device, 0, 512, 1)), 'EIO');
  assert.equal(await rig.outcome(flush(rig.device)), 'EIO');
  assert.equal(await rig.outcome(discard(rig.device, 0, 512)), 'EIO');
});

test('drop_writes loses writes, and says that all is well', async () => {
  const rig = new Rig();
  await fill(rig.disk, 0, 4 * K, 0x11);
  await rig.open('0 1 1 drop_writes');
  await rig.clock.run(fill(rig.device, 0, K, 0x22, true));
  await rig.clock.run(flush(rig.device));
  await rig.clock.run(discard(rig.device, 0, K));
  assert.equal(runs(await rig.clock.run(read(rig.device, 0, 4 * K))), '4096x11');
});

test('error_writes fails writes, error_reads fails reads', async () => {
  const rig = new Rig();
  await rig.open('0 1 1 error_writes');
  assert.equal(await rig.outcome(fill(rig.device, 0, K, 0x22)), 'EIO');
  assert.equal(await rig.outcome(flush(rig.device)), 'EIO');
  assert.notEqual(await rig.outcome(read(rig.device, 0, K)), 'EIO');
  const other = new Rig();
  await other.open('0 1 1 error_reads');
  assert.equal(await other.outcome(fill(other.device, 0, K, 0x22)), undefined);
  assert.equal(await other.outcome(read(other.device, 0, K)), 'EIO');
  assert.equal(runs(await read(other.disk, 0, K)), '1024x22');
});

test('corrupt_bio_byte changes a byte of reads, or of a copy of writes', async () => {
  const reads = new Rig();
  await fill(reads.disk, 0, 4 * K, 0x11);
  await reads.open('0 1 5 corrupt_bio_byte 3 r 255 0');
  assert.equal(runs(await reads.clock.run(read(reads.device, 0, 1024))), '2x11 1xff 1021x11');
  assert.equal(runs(await read(reads.disk, 0, 1024)), '1024x11', 'the disk is as it was');

  const writes = new Rig();
  await writes.open('0 1 5 corrupt_bio_byte 1025 w 255 0');
  const data = Buffer.alloc(2 * K, 0x22);
  await writes.clock.run(write(writes.device, 0, data));
  await writes.clock.run(write(writes.device, 4 * K, data.subarray(0, K)));
  assert.equal(runs(data), '2048x22', "the submitter's data is as it was");
  assert.equal(runs(await read(writes.disk, 0, 2 * K)), '1024x22 1xff 1023x22');
  assert.equal(runs(await read(writes.disk, 4 * K, K)), '1024x22', 'too short to have that byte');
});

test('random corruption hits as often as it is told to', async () => {
  const rig = new Rig();
  await rig.open('0 1 4 random_read_corrupt 500000000 random_write_corrupt 1000000000');
  assert.match(await rig.stack.table('f'), / 4 random_read_corrupt 500000000 random_write_c/);
  let nrReads = 0;
  for (let i = 0; i < 200; i++) {
    const data = await rig.clock.run(read(rig.device, 100 * K, 512));
    if (data.some((byte) => byte !== 0)) nrReads++;
  }
  assert.ok(nrReads > 50 && nrReads < 150, `${nrReads} of 200 reads`);
  let nrWrites = 0;
  for (let i = 0; i < 100; i++) {
    await rig.clock.run(fill(rig.device, 0, 512, 0x55));
    if ((await read(rig.disk, 0, 512)).some((byte) => byte !== 0x55)) nrWrites++;
  }
  assert.ok(nrWrites > 80, `${nrWrites} of 100 writes: some bytes become what they were`);
});
