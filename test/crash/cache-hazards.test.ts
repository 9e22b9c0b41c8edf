/**
 * What the kernel's rules for a cache lose (spec: cache, 18), each as the shortest story that shows
 * it: told once with the kernel's rule and once with ours. A crash is a stack of which nothing is
 * shut down, and another one on the same disks; where caches of disks matter, a simulated cut.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../src/base/error.ts';
import { SimulatedClock } from '../../src/base/simulated-clock.ts';
import { LOSSES } from '../../src/block/crash-images.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { readCacheImage } from '../../src/cache/tools/cache-image.ts';
import { checkCache } from '../../src/cache/tools/check.ts';
import { Boot } from '../helpers/boot.ts';
import { Random } from '../helpers/random.ts';
import { discard, fill, flush, read, runs, Stack } from '../helpers/stack.ts';
import { CacheLife, NO_CACHE } from './cache-life.ts';
import { CutError, Cuts } from './cuts.ts';

const K = 1024;
const BLOCK_SECTORS = 64;
const BLOCK = 32 * K;
const ORIGIN_SECTORS = 700 * BLOCK_SECTORS;
const NR_CBLOCKS = 16;
/** Never idle: nothing is written back. */
const T0 = '2 migration_threshold 0';
/** Long enough for what is dirty to be written back. */
const WRITEBACK_MS = 5000;

/** A machine: disks, and what runs until the next crash. */
class Machine {
  readonly metadata = new MemoryDevice('meta', 8192);
  readonly fast = new MemoryDevice('fast', 640 * BLOCK_SECTORS);
  readonly origin = new MemoryDevice('origin', ORIGIN_SECTORS);
  readonly #kernelQuirks: boolean;
  readonly clock = new SimulatedClock();
  #bootClock = new Boot(this.clock);
  stack: Stack;

  constructor(kernelQuirks: boolean) {
    this.#kernelQuirks = kernelQuirks;
    this.stack = this.#boot();
  }

  #boot(): Stack {
    const stack = new Stack(this.#bootClock, { kernelQuirks: this.#kernelQuirks });
    stack.disk('meta', this.metadata);
    stack.disk('fast', this.fast);
    stack.disk('origin', this.origin);
    return stack;
  }

  /** The power goes and comes back: nothing was shut down, all that was written is there. */
  crash(): void {
    this.#bootClock.stop();
    this.#bootClock = new Boot(this.clock);
    this.stack = this.#boot();
  }

  async create(args: string, nrCblocks = NR_CBLOCKS): Promise<void> {
    await this.stack.create('cdata', this.#fastTable(nrCblocks));
    await this.activate(args);
  }

  async activate(args: string, name = 'cache'): Promise<void> {
    await this.stack.create(name, this.table(args));
  }

  #fastTable(nrCblocks: number): string {
    return `0 ${nrCblocks * BLOCK_SECTORS} linear /dev/fast 0`;
  }

  table(args: string): string {
    const devices = '/dev/meta /dev/mapper/cdata /dev/origin';
    return `0 ${ORIGIN_SECTORS} cache ${devices} ${BLOCK_SECTORS} 2 metadata2 ${args}`;
  }

  /** Another table for the cache: the one before is shut down cleanly. */
  async reload(args: string): Promise<void> {
    await this.stack.suspend('cache');
    await this.stack.reload('cache', this.table(args));
    await this.stack.resume('cache');
  }

  /** The size of the fast device, while the cache is suspended. */
  async resizeFast(nrCblocks: number): Promise<void> {
    await this.stack.suspend('cdata');
    await this.stack.reload('cdata', this.#fastTable(nrCblocks));
    await this.stack.resume('cdata');
  }

  write(offset: number, length: number, byte: number, fua = false): Promise<void> {
    return fill(this.stack.device('cache'), offset, length, byte, fua);
  }

  flush(): Promise<void> {
    return flush(this.stack.device('cache'));
  }

  async read(offset: number, length: number): Promise<string> {
    return runs(await read(this.stack.device('cache'), offset, length));
  }

  async readOrigin(offset: number, length: number): Promise<string> {
    return runs(await read(this.origin, offset, length));
  }

  async field(index: number): Promise<string> {
    return (await this.stack.status('cache')).split(' ')[index] ?? '';
  }

  get nrDirty(): Promise<string> {
    return this.field(13);
  }

  /** What `work` rejects with, or `done`. */
  async outcome(work: () => Promise<unknown>, done = 'done'): Promise<string> {
    try {
      await work();
      return done;
    } catch (error) {
      if (!(error instanceof DmError)) throw error;
      return error.errno;
    }
  }
}

type Story = (machine: Machine) => Promise<unknown>;

/** Tells `story` with both rules, and compares how it ends. */
async function compare(story: Story, kernel: unknown, ours: unknown): Promise<void> {
  for (const [kernelQuirks, wanted] of [
    [true, kernel],
    [false, ours],
  ] as const) {
    const machine = new Machine(kernelQuirks);
    let ended: unknown;
    try {
      ended = await machine.clock.run(story(machine));
    } catch (error) {
      throw new Error(`kernelQuirks ${kernelQuirks}\n${machine.stack.log.lines.join('\n')}`, {
        cause: error,
      });
    }
    assert.deepEqual(ended, wanted, kernelQuirks ? "the kernel's rule" : 'our rule');
    const bug = machine.stack.log.lines.find((line) => line.includes('bug: '));
    assert.equal(bug, undefined);
  }
}

test('hazard 1: what is written after a resume counts as dirty after a crash', async () => {
  const story: Story = async (machine) => {
    await machine.create('writeback smq 0');
    await machine.write(0, BLOCK, 0x11);
    await machine.clock.delay(WRITEBACK_MS);
    await machine.stack.suspend('cache');
    await machine.stack.resume('cache');
    await machine.write(0, BLOCK, 0x55, true);
    await machine.flush();
    machine.crash();
    await machine.create('writeback smq 0');
    await machine.clock.delay(WRITEBACK_MS);
    // A cache without dirty blocks may be dropped: then the origin is all there is.
    return [await machine.nrDirty, await machine.readOrigin(0, BLOCK)];
  };
  await compare(story, ['0', '32768x11'], ['0', '32768x55']);
});

test('hazard 2: dirty blocks keep a fast device from shrinking after a crash, too', async () => {
  const story: Story = async (machine) => {
    await machine.create(`writeback smq ${T0}`);
    await machine.write(0, 8 * BLOCK, 0x33);
    await machine.flush();
    machine.crash();
    const shrunk = await machine.outcome(() => machine.create(`writeback smq ${T0}`, 4));
    if (shrunk === 'done') {
      await machine.stack.remove('cache');
      await machine.stack.remove('cdata');
    } else {
      // A refusal by the metadata asks for a check, as with dirty blocks after a clean shutdown.
      await machine.resizeFast(NR_CBLOCKS);
      const { damage } = await checkCache(machine.metadata, { clearNeedsCheck: true });
      assert.deepEqual(damage.lines(), []);
      machine.crash();
    }
    await machine.create(`writeback smq ${T0}`);
    return [shrunk, await machine.read(0, 8 * BLOCK)];
  };
  await compare(story, ['done', '131072x33 131072x00'], ['EINVAL', '262144x33']);
});

test('hazard 3: a fast device that shrank without a reload is refused', async () => {
  const story: Story = async (machine) => {
    await machine.create('writeback smq 0');
    await machine.write(0, 8 * BLOCK, 0x33);
    await machine.clock.delay(WRITEBACK_MS);
    await machine.stack.suspend('cache');
    await machine.resizeFast(4);
    const shrunk = await machine.outcome(() => machine.stack.resume('cache'));
    if (shrunk !== 'done') {
      await machine.stack.reload('cache', machine.table('writeback smq 0'));
      await machine.stack.resume('cache');
    }
    return [shrunk, await machine.outcome(() => machine.read(6 * BLOCK, BLOCK))];
  };
  await compare(story, ['done', 'EIO'], ['EINVAL', 'done']);
});

/** Lives as told, with one cut after the other at every event, losing what may be lost. */
async function cutEverywhere(
  kernelQuirks: boolean,
  tell: (life: CacheLife) => Promise<void>,
): Promise<void> {
  for (let seed = 1; seed <= 6; seed++) {
    const random = new Random(seed);
    const life = new CacheLife(random.fork(), NO_CACHE, 2, { kernelQuirks });
    await life.clock.run(life.open('writeback').then(() => tell(life)));
    const cuts = new Cuts(life, random);
    for (let event = life.formatted; event <= life.storage.nrEvents; event++) {
      for (const loss of LOSSES) await cuts.cut(event, loss, `seed ${seed}`);
    }
  }
}

const block = (index: number): { begin: number; end: number } => ({
  begin: index * BLOCK_SECTORS,
  end: (index + 1) * BLOCK_SECTORS,
});

test('hazard 4: no committed mapping leads to data that is not durable', async () => {
  const tell = async (life: CacheLife): Promise<void> => {
    life.write(block(3));
    await life.settle();
    life.flush();
    await life.settle();
  };
  await cutEverywhere(false, tell);
  await assert.rejects(cutEverywhere(true, tell), (error) => {
    assert.ok(error instanceof CutError);
    return error.message.includes('content as mapped: sector 192 is what nobody wrote there');
  });
});

test('hazard 5: a FUA write that promotes its block is durable when it ends', async () => {
  const tell = async (life: CacheLife): Promise<void> => {
    life.write(block(3), true);
    await life.settle();
  };
  await cutEverywhere(false, tell);
  await assert.rejects(cutEverywhere(true, tell), /content as mapped: sector 192 is zeroes/);
});

test('hazard 6: blocks invalidated by a message are gone after a crash, too', async () => {
  const story: Story = async (machine) => {
    await machine.create('writeback smq 0');
    await machine.write(0, BLOCK, 0x11);
    await machine.clock.delay(WRITEBACK_MS);
    await machine.reload('passthrough smq 0');
    // Somebody writes to the origin behind the cache's back, and says so.
    await fill(machine.origin, 0, BLOCK, 0x77);
    await machine.stack.message('cache', 'invalidate_cblocks 0');
    machine.crash();
    await machine.create('writeback smq 0');
    return machine.read(0, BLOCK);
  };
  await compare(story, '32768x11', '32768x77');
});

test('hazard 7: after a crash, writethrough mode writes to the origin, too', async () => {
  const story: Story = async (machine) => {
    await machine.create('writeback smq 0');
    await machine.write(0, BLOCK, 0x11);
    await machine.clock.delay(WRITEBACK_MS);
    await machine.reload('writethrough smq 0');
    await machine.write(0, 4 * K, 0x22);
    await machine.flush();
    machine.crash();
    await machine.create(`writethrough smq ${T0}`);
    await machine.write(4 * K, 4 * K, 0x33);
    await machine.write(8 * K, 4 * K, 0x44, true);
    // The fast device dies now: the origin is all there is.
    return [await machine.nrDirty, await machine.readOrigin(0, 16 * K)];
  };
  const kernel = ['1', '4096x22 12288x11'];
  await compare(story, kernel, ['1', '4096x22 4096x33 4096x44 4096x11']);
});

test('hazard 8: a table that is loaded and dropped leaves a clean cache clean', async () => {
  const story: Story = async (machine) => {
    await machine.create('writeback smq 0');
    await machine.write(0, BLOCK, 0x11);
    await machine.clock.delay(WRITEBACK_MS);
    await machine.stack.remove('cache');
    const device = machine.stack.registry.create('cache');
    await machine.stack.reload('cache', machine.table('writeback smq 0'));
    await machine.stack.registry.remove(device);
    const passthrough = await machine.outcome(() => machine.activate('passthrough smq 0'));
    if (passthrough === 'done') await machine.stack.remove('cache');
    await machine.activate(`writeback smq ${T0}`);
    return [passthrough, await machine.nrDirty];
  };
  await compare(story, ['EINVAL', '1'], ['done', '0']);
});

test('a cache whose first resume was refused is as clean as before', async () => {
  const story: Story = async (machine) => {
    await machine.create(`writeback smq ${T0}`);
    await machine.write(0, BLOCK, 0x11);
    await machine.write(BLOCK, BLOCK, 0x11);
    await machine.stack.message('cache', 'migration_threshold 64');
    await machine.clock.delay(WRITEBACK_MS);
    await machine.stack.message('cache', 'migration_threshold 0');
    await machine.write(0, 4 * K, 0x22);
    await machine.stack.remove('cache');
    const passthrough = await machine.outcome(() => machine.activate('passthrough smq 0'));
    await machine.activate(`writeback smq ${T0}`);
    return [passthrough, await machine.nrDirty];
  };
  await compare(story, ['EBUSY', '2'], ['EBUSY', '1']);
});

test('hazard 9: two caches do not share their metadata', async () => {
  const story: Story = async (machine) => {
    await machine.create(`writeback smq ${T0}`);
    await machine.write(0, BLOCK, 0x11);
    const second = await machine.outcome(() => machine.activate(`writeback smq ${T0}`, 'second'));
    if (second === 'done') {
      const device = machine.stack.device('second');
      // The first one took cblock 1 after the second had loaded the mappings; so does the second.
      await machine.write(BLOCK, BLOCK, 0x22);
      await fill(device, 2 * BLOCK, BLOCK, 0x33);
    } else {
      await machine.write(BLOCK, BLOCK, 0x22);
    }
    return [second, await machine.read(0, 2 * BLOCK)];
  };
  await compare(story, ['done', '32768x11 32768x33'], ['EBUSY', '32768x11 32768x22']);
});

test('hazard 10: discarded blocks show no old data, and reads make nothing dirty', async () => {
  const story: Story = async (machine) => {
    await fill(machine.fast, 0, NR_CBLOCKS * BLOCK, 0xee);
    await fill(machine.origin, 0, 64 * BLOCK, 0x0a);
    await machine.create(`writeback smq ${T0}`);
    await discard(machine.stack.device('cache'), 0, 16 * BLOCK);
    await fill(machine.origin, 0, 16 * BLOCK, 0x0a);
    await machine.write(2 * BLOCK, 4 * K, 0x33);
    const written = await machine.read(2 * BLOCK, BLOCK);
    // Reads that are promoted.
    await machine.clock.delay(1600);
    await machine.read(4 * BLOCK, 4 * K);
    await machine.clock.delay(1300);
    await machine.read(4 * BLOCK, 4 * K);
    await machine.clock.delay(1300);
    return [written, await machine.read(4 * BLOCK, BLOCK), await machine.nrDirty];
  };
  await compare(
    story,
    ['4096x33 28672xee', '32768xee', '2'],
    ['4096x33 28672x00', '32768x0a', '1'],
  );
});

// 600 cblocks have one full array block and a part of one; 509 fill one. The kernel leaves the
// second one in the tree then, and its own cache_check complains.
test('a fast device shrunk to whole array blocks leaves sound metadata', async () => {
  const machine = new Machine(false);
  await machine.clock.run(
    (async () => {
      await machine.create('writeback smq 0', 600);
      await machine.write(0, BLOCK, 0x11);
      await machine.clock.delay(WRITEBACK_MS);
      await machine.stack.suspend('cache');
      await machine.resizeFast(509);
      await machine.stack.reload('cache', machine.table('writeback smq 0'));
      await machine.stack.resume('cache');
      await machine.stack.remove('cache');
      assert.deepEqual((await checkCache(machine.metadata)).damage.lines(), []);
      const { superblock, mappings } = readCacheImage(machine.metadata);
      assert.equal(superblock.nrCacheBlocks, 509);
      assert.equal(mappings.length, 1);
    })(),
  );
});
