/**
 * In which order a pool writes: as was observed on Linux 6.1 (spec: thin, scenarios 30 and 48), and
 * so that what is durable is sound at every moment. kernel/write-order.test.ts asks a kernel.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { Clock, Timer } from '../../../src/base/clock.ts';
import type { DmError } from '../../../src/base/error.ts';
import type { BlockDevice } from '../../../src/block/device.ts';
import { LoggedDevice } from '../../../src/block/logged-device.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { WriteLog } from '../../../src/block/write-log.ts';
import { orderHere } from '../../helpers/io-order.ts';
import { scripts } from '../../helpers/io-order-scripts.ts';
import { noCounts, OrderChecker, tag } from '../../helpers/order-checker.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { ShuffleDevice } from '../../helpers/shuffle-device.ts';
import { discard, flush, Stack, write } from '../../helpers/stack.ts';

test('scenario 30: writes, flushes and FUA writes come in the order of the kernel', async () => {
  assert.deepEqual(Object.fromEntries(await orderHere(scripts['scenario 30'] ?? [])), {
    format: 'M 1-7, F, M 0, F, F, M 8-11, F, M 0, F',
    create_thin: 'F, M 12-16, F, M 0, F',
    '64k@20-dsync,4k@0':
      'D 0+128 FUA, F, M 17-23, F, M 0, F, F, D 128+128, D 128+8, F, M 24-30, F, M 0, F',
    '64k@21-dsync,64k@3':
      'D 256+128 FUA, F, M 31-37, F, M 0, F, F, D 384+128, F, M 38-44, F, M 0, F',
    '4k@64-dsync': 'D 512+128, F, M 45-51, F, M 0, F, D 512+8 FUA, F',
    '64k@8-dsync': 'D 640+128 FUA, F, M 52-58, F, M 0, F, F',
    '4k@1-dsync': 'D 136+8 FUA, F',
    fsync: 'F',
    status: 'F, F, M 0, F',
    remove: 'F, F, M 0, F, F, F, M 0, F',
    unused: '',
    'unused-dsync': 'D 128+8 FUA, D 128+8, F',
  });
});

test('scenario 48: FUA writes wait for the commit that maps them, or are waited for', async () => {
  assert.deepEqual(Object.fromEntries(await orderHere(scripts['scenario 48'] ?? [])), {
    'skip-zeroing': 'F, M 17-23, F, M 0, F, D 0+128 FUA, F',
    'skip-zeroing-part': 'F, M 24-30, F, M 0, F, D 128+8 FUA, F, F, F, M 0, F, F, F, M 0, F',
    zeroing: 'D 256+128 FUA, F, M 1 3-4 6-9, F, M 0, F, F',
    'pending-part':
      'D 384+128 FUA, F, M 10-16, F, M 0, F, F, ' +
      'D 512+128, D 640+128, F, M 17-23, F, M 0, F, D 640+8 FUA, F',
    'pending-sync':
      'D 768+128 FUA, F, M 24-30, F, M 0, F, F, D 896+128, D 896+8, F, M 31-37, F, M 0, F',
    // The one section that is not the kernel's: one commit, not two.
    'pending-overwrite':
      'D 1024+128 FUA, F, M 38-44, F, M 0, F, F, ' +
      'D 1280+128 FUA, D 1152+128, F, M 45-51, F, M 0, F, F',
    remove: 'F, F, M 0, F, F, F, M 0, F',
  });
});

// --- what is durable, at random

/** A clock that a workload moves on: nothing depends on how fast the machine is. */
class SteppedClock implements Clock {
  #now = 0;
  #timers: { at: number; fire: () => void }[] = [];

  nowMs(): number {
    return this.#now;
  }

  after(delayMs: number, fire: () => void): Timer {
    const timer = { at: this.#now + delayMs, fire };
    this.#timers.push(timer);
    return { cancel: () => (this.#timers = this.#timers.filter((other) => other !== timer)) };
  }

  soon(run: () => void): void {
    setImmediate(run);
  }

  /** Lets time and a turn of the event loop pass. */
  async pass(ms: number): Promise<void> {
    this.#now += ms;
    const due = this.#timers.filter(({ at }) => at <= this.#now);
    this.#timers = this.#timers.filter(({ at }) => at > this.#now);
    for (const { fire } of due) fire();
    await turn();
  }
}

const BLOCK = 65_536;
const PIECE = 4096;
const THIN_BLOCKS = 8;
const DEVICES_MAX = 5;
/** Both devices are so small that what a transaction frees is soon come by again. */
const METADATA_SECTORS = 120 * 8;
const DATA_SECTORS = 44 * 128;
const IN_FLIGHT_MAX = 8;

/**
 * A pool on devices whose bios end in any order, and what is done to it. Metadata and data are
 * logged as two devices in one log, so that a flush of one does not make the other durable.
 */
class Workload {
  readonly lineage = new Map<number, Set<number>>();
  readonly logDevice = new MemoryDevice('log', 1 << 20);
  readonly #log = new WriteLog(this.logDevice, 512);
  readonly #random: Random;
  readonly #clock = new SteppedClock();
  readonly #stack = new Stack(this.#clock);
  readonly #logged: readonly LoggedDevice[];
  readonly #alive: number[] = [];
  readonly #inFlight = new Set<Promise<void>>();
  #failure: unknown = null;
  #nextId = 1;
  #isReserved = false;

  constructor(random: Random) {
    this.#random = random;
    const logged = (name: string, sectors: number, place: number): LoggedDevice => {
      // A log cannot tell what flushes cover that overtake each other; see LoggedDevice.
      const options = { flushesInOrder: true };
      const device = new ShuffleDevice(new MemoryDevice(name, sectors), random, options);
      return new LoggedDevice(device, this.#log, place);
    };
    const meta = logged('meta', METADATA_SECTORS, 0);
    const data = logged('data', DATA_SECTORS, METADATA_SECTORS);
    this.#stack.disk('meta', meta);
    this.#stack.disk('data', data);
    this.#logged = [meta, data];
  }

  async run(features: string, nrSteps: number): Promise<void> {
    const stack = this.#stack;
    await stack.create('p', `0 ${DATA_SECTORS} thin-pool /dev/meta /dev/data 128 0 ${features}`);
    await this.#create(null);
    for (let i = 0; i < nrSteps; i++) await this.#step();
    await this.#settle();
    for (const id of this.#alive) await stack.remove(`t${id}`);
    await stack.remove('p');
    for (const logged of this.#logged) logged.close();
    await this.#log.close();
    assert.ok(!this.#log.isDisabled, 'the log is large enough');
  }

  async #step(): Promise<void> {
    await this.#clock.pass(this.#random.below(100));
    const id = this.#random.pick(this.#alive);
    const device = this.#stack.device(`t${id}`);
    const roll = this.#random.next();
    if (roll < 0.62) this.#start(this.#write(device, id));
    else if (roll < 0.82) this.#start(this.#discard(device));
    else if (roll < 0.9) this.#start(flush(device));
    else await this.#control(id, this.#random.next());
    while (this.#inFlight.size >= IN_FLIGHT_MAX) await this.#clock.pass(10);
  }

  #start(work: Promise<void>): void {
    const promise = work
      .catch((error: unknown) => {
        // A metadata snapshot keeps blocks that nobody else has: that can be too many.
        if ((error as DmError).errno !== 'ENOSPC') this.#failure ??= error;
      })
      .finally(() => this.#inFlight.delete(promise));
    this.#inFlight.add(promise);
  }

  async #settle(): Promise<void> {
    while (this.#inFlight.size > 0) await this.#clock.pass(10);
    if (this.#failure !== null) throw this.#failure as Error;
  }

  #write(device: BlockDevice, id: number): Promise<void> {
    const nrPieces = (THIN_BLOCKS * BLOCK) / PIECE;
    const whole = this.#random.chance(0.4);
    const begin = whole ? this.#random.below(THIN_BLOCKS) * 16 : this.#random.below(nrPieces);
    const n = whole ? 16 : Math.min(this.#random.between(1, 24), nrPieces - begin);
    const data = tag(Buffer.alloc(n * PIECE, 1), id, begin * PIECE);
    return write(device, begin * PIECE, data, this.#random.chance(0.1));
  }

  #discard(device: BlockDevice): Promise<void> {
    const begin = this.#random.below(THIN_BLOCKS);
    const n = Math.min(this.#random.between(1, 4), THIN_BLOCKS - begin);
    return discard(device, begin * BLOCK, n * BLOCK);
  }

  async #control(id: number, roll: number): Promise<void> {
    const stack = this.#stack;
    if (roll < 0.3) {
      await stack.status('p'); // Commits, with I/O in flight.
      return;
    }
    await this.#settle();
    if (roll < 0.6 && this.#alive.length < DEVICES_MAX) {
      await this.#create(this.#random.chance(0.7) ? id : null);
    } else if (roll < 0.75 && this.#alive.length > 1) {
      this.#alive.splice(this.#alive.indexOf(id), 1);
      await stack.remove(`t${id}`);
      await stack.message('p', `delete ${id}`);
    } else if (roll < 0.9) {
      const word = this.#isReserved ? 'release_metadata_snap' : 'reserve_metadata_snap';
      this.#isReserved = !this.#isReserved;
      await stack.message('p', word);
    } else {
      await stack.suspend('p');
      await stack.resume('p');
    }
  }

  /** A new device, empty or a snapshot of `origin`. */
  async #create(origin: number | null): Promise<void> {
    const stack = this.#stack;
    const id = this.#nextId++;
    if (origin === null) {
      await stack.message('p', `create_thin ${id}`);
    } else {
      await stack.suspend(`t${origin}`);
      await stack.message('p', `create_snap ${id} ${origin}`);
      await stack.resume(`t${origin}`);
    }
    const ancestors = origin === null ? [] : (this.lineage.get(origin) ?? []);
    this.lineage.set(id, new Set([...ancestors, id]));
    await stack.create(`t${id}`, `0 ${THIN_BLOCKS * 128} thin /dev/mapper/p ${id}`);
    this.#alive.push(id);
  }
}

for (const [features, zeroing] of [
  ['0', true],
  ['1 no_discard_passdown', true],
  ['1 skip_block_zeroing', false],
] as const) {
  const seed = seedOf(41);
  test(`whatever is durable is sound, and nothing durable is overwritten: features ${features} (seed ${seed})`, async () => {
    const total = noCounts();
    for (let run = 0; run < 3; run++) {
      const workload = new Workload(new Random(seed + run));
      await workload.run(features, 350);
      const checker = new OrderChecker(workload.logDevice, {
        metadataSectors: METADATA_SECTORS,
        dataSectors: DATA_SECTORS,
        blockSectors: BLOCK / 512,
        zeroing,
        lineage: workload.lineage,
      });
      try {
        await checker.run(total);
      } catch (error) {
        throw new Error(`seed ${seed + run}: ${(error as Error).message}`, { cause: error });
      }
    }
    assert.ok(total.commits > 100 && total.flushes > 2 * total.commits, 'it committed often');
    assert.ok(total.metadataWrites > 500 && total.dataWrites > 400, 'and wrote much');
    assert.ok(total.mappings > 1000, 'and there was much to lose');
    if (features === '0') assert.ok(total.discards > 5, 'discards were passed down');
  });
}
