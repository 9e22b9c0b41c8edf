/**
 * The cache through its table, as a user sees it: status lines, data on both devices, messages
 * (spec: cache, 20). Time is simulated.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedClock } from '../../../src/base/simulated-clock.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { readCacheImage } from '../../../src/cache/tools/cache-image.ts';
import { discard, fill, flush, read, runs, Stack } from '../../helpers/stack.ts';

const K = 1024;
const BLOCK = 64 * K;
const ORIGIN_SECTORS = 262144;

class Rig {
  readonly clock = new SimulatedClock();
  readonly stack: Stack;
  readonly metadata = new MemoryDevice('meta', 8192);
  readonly fast: MemoryDevice;
  readonly origin: MemoryDevice;

  constructor(options: { kernelQuirks?: boolean; fastSectors?: number } = {}) {
    this.stack = new Stack(this.clock, options);
    const limits = { maxDiscardSectors: 64 };
    this.fast = new MemoryDevice('fast', options.fastSectors ?? 131072);
    this.origin = new MemoryDevice('origin', ORIGIN_SECTORS, { limits });
    this.stack.disk('meta', this.metadata);
    this.stack.disk('fast', this.fast);
    this.stack.disk('origin', this.origin);
  }

  run<T>(work: () => Promise<T>): Promise<T> {
    return this.clock.run(work());
  }

  table(args: string): string {
    return `0 ${ORIGIN_SECTORS} cache /dev/meta /dev/fast /dev/origin ${args}`;
  }

  async create(args: string): Promise<void> {
    await this.stack.create('cache', this.table(args));
  }

  async reload(args: string): Promise<void> {
    await this.stack.suspend('cache');
    await this.stack.reload('cache', this.table(args));
    await this.stack.resume('cache');
  }

  write(offset: number, length: number, byte: number, fua = false): Promise<void> {
    return fill(this.stack.device('cache'), offset, length, byte, fua);
  }

  async read(offset: number, length: number): Promise<string> {
    return runs(await read(this.stack.device('cache'), offset, length));
  }

  /** `rh rm wh wm dem pro dirty`. */
  async counters(): Promise<string> {
    return (await this.stack.status('cache')).split(' ').slice(7, 14).join(' ');
  }

  async residency(): Promise<string> {
    return (await this.stack.status('cache')).split(' ')[6] ?? '';
  }
}

const T0 = '2 migration_threshold 0';

test('fresh metadata: both formats, status and table lines (20.2)', async () => {
  for (const [args, line] of [
    [
      '128 1 writeback smq 0',
      '8 9/1024 128 0/1024 0 0 0 0 0 0 0 2 writeback no_discard_passdown 2 migration_threshold 2048 smq 0 rw - ',
    ],
    [
      `128 2 metadata2 writeback smq ${T0}`,
      '8 11/1024 128 0/1024 0 0 0 0 0 0 0 3 metadata2 writeback no_discard_passdown 2 migration_threshold 0 smq 0 rw - ',
    ],
  ] as const) {
    const rig = new Rig();
    await rig.run(async () => {
      await rig.create(args);
      assert.equal(await rig.stack.status('cache'), `0 ${ORIGIN_SECTORS} cache ${line}`);
      const table = `0 ${ORIGIN_SECTORS} cache 98:0 98:16 98:32 ${args}`;
      assert.equal(await rig.stack.table('cache'), table);
    });
  }
});

test('whole-block writes are promoted without a copy, and counted so (20.11)', async () => {
  const rig = new Rig();
  await rig.run(async () => {
    await rig.create(`128 1 writeback smq ${T0}`);
    await rig.write(200 * BLOCK, BLOCK, 0x11);
    assert.equal(await rig.counters(), '0 0 0 0 0 1 1');
    assert.equal(runs(await read(rig.fast, 0, BLOCK)), `${BLOCK}x11`);
    assert.equal(runs(await read(rig.origin, 200 * BLOCK, BLOCK)), `${BLOCK}x00`);
    await rig.write(200 * BLOCK, BLOCK, 0x12);
    assert.equal(await rig.counters(), '0 0 1 0 0 1 1');
    await rig.write(300 * BLOCK, 4 * BLOCK, 0x13);
    assert.equal(await rig.counters(), '0 0 1 0 0 5 5');
    assert.equal(await rig.read(300 * BLOCK, 4 * BLOCK), `${4 * BLOCK}x13`);
  });
});

test('idle writeback is bounded by the threshold, and raises an event when all is clean (20.12)', async () => {
  const rig = new Rig();
  await rig.run(async () => {
    await rig.create(`128 1 writeback smq ${T0}`);
    for (let i = 0; i < 7; i++) await rig.write(i * BLOCK, BLOCK, i + 1);
    await rig.stack.message('cache', 'migration_threshold 127');
    await rig.clock.delay(2500);
    assert.equal(await rig.counters(), '0 0 0 0 0 7 7');
    await rig.stack.message('cache', 'migration_threshold 128');
    await rig.clock.delay(2500);
    assert.equal(await rig.counters(), '0 0 0 0 0 7 0');
    assert.equal(rig.stack.device('cache').events.nr, 1);
    assert.equal(runs(await read(rig.origin, 6 * BLOCK, BLOCK)), `${BLOCK}x07`);
  });
});

test('reads are promoted after a redistribution (20.13)', async () => {
  const rig = new Rig();
  await rig.run(async () => {
    await rig.create(`128 2 metadata2 writeback smq ${T0}`);
    await rig.clock.delay(1500);
    for (let i = 0; i < 5; i++) await rig.read(6400 * K, 4 * K);
    assert.equal(await rig.counters(), '0 5 0 0 0 0 0');
    await rig.clock.delay(1600);
    await rig.read(6400 * K, 4 * K);
    await rig.clock.delay(1);
    assert.equal(await rig.counters(), '0 6 0 0 0 1 0');
    await rig.read(6464 * K, 4 * K);
    await rig.read(6528 * K, 4 * K);
    await rig.clock.delay(1);
    assert.equal(await rig.counters(), '0 8 0 0 0 3 0');
  });
});

test('writethrough: a clean block is written on both devices (20.14)', async () => {
  const rig = new Rig();
  await rig.run(async () => {
    await rig.create(`128 1 writethrough smq ${T0}`);
    await rig.write(0, BLOCK, 0x11);
    assert.equal(await rig.counters(), '0 0 0 1 0 0 0');
    assert.equal(runs(await read(rig.fast, 0, BLOCK)), `${BLOCK}x00`);
    await rig.clock.delay(2200);
    await rig.write(0, BLOCK, 0x12);
    await rig.clock.delay(10);
    assert.equal(await rig.counters(), '0 0 0 2 0 1 0');
    await rig.write(0, BLOCK, 0x13);
    assert.equal(await rig.counters(), '0 0 1 2 0 1 0');
    assert.equal(runs(await read(rig.fast, 0, BLOCK)), `${BLOCK}x13`);
    assert.equal(runs(await read(rig.origin, 0, BLOCK)), `${BLOCK}x13`);
  });
});

test('passthrough: reads from the origin, writes invalidate for good (20.16)', async () => {
  const rig = new Rig();
  await rig.run(async () => {
    await rig.create(`128 2 metadata2 writeback smq 0`);
    for (let i = 0; i < 4; i++) await rig.write(i * BLOCK, BLOCK, 0x11);
    await rig.clock.delay(3000);
    assert.equal((await rig.counters()).split(' ')[6], '0');
    await rig.reload('128 2 metadata2 passthrough smq 0');
    assert.equal(await rig.residency(), '4/1024');
    await fill(rig.origin, BLOCK, BLOCK, 0x77);
    assert.equal(await rig.read(BLOCK, BLOCK), `${BLOCK}x77`);
    const before = await rig.counters();
    await rig.write(2 * BLOCK, 4 * K, 0x33);
    // The mapping is gone from the disk when the write returns.
    const { mappings } = readCacheImage(rig.metadata);
    assert.deepEqual(
      mappings.map(({ oblock }) => oblock),
      [0, 1, 3],
    );
    assert.equal(await rig.residency(), '3/1024');
    assert.notEqual(await rig.counters(), before);
    assert.equal(runs(await read(rig.origin, 2 * BLOCK, 4 * K)), `${4 * K}x33`);
    assert.equal(runs(await read(rig.fast, 2 * BLOCK, 4 * K)), `${4 * K}x11`);
  });
});

test('a clean shutdown keeps dirty blocks dirty and clean ones clean; flushes commit', async () => {
  const rig = new Rig();
  await rig.run(async () => {
    await rig.create(`128 2 metadata2 writeback smq ${T0}`);
    await rig.write(0, BLOCK, 0x11);
    await rig.write(BLOCK, BLOCK, 0x12);
    await flush(rig.stack.device('cache'));
    await rig.stack.remove('cache');
    await rig.create(`128 2 metadata2 writeback smq ${T0}`);
    assert.equal(await rig.residency(), '2/1024');
    assert.equal((await rig.counters()).split(' ')[6], '2');
    assert.equal(await rig.read(0, 2 * BLOCK), `${BLOCK}x11 ${BLOCK}x12`);
  });
});

test('discarded blocks never show what the fast device held before', async () => {
  const rig = new Rig();
  await rig.run(async () => {
    await fill(rig.fast, 0, 64 * BLOCK, 0xee);
    await fill(rig.origin, 0, 64 * BLOCK, 0x0a);
    await rig.create(`128 2 metadata2 no_discard_passdown smq ${T0}`);
    await discard(rig.stack.device('cache'), 2048 * K, 1024 * K);
    await rig.write(2112 * K, 4 * K, 0x33);
    assert.equal(await rig.counters(), '0 0 0 0 0 1 1');
    assert.equal(await rig.read(2112 * K, BLOCK), `${4 * K}x33 ${60 * K}x00`);
  });
});
