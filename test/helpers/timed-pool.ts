/**
 * TimedPool: a pool of eight blocks over probes on memory, in a time that passes when a test lets
 * it.
 */
import { MemoryLog } from '../../src/base/log.ts';
import { SimulatedClock } from '../../src/base/simulated-clock.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { PoolMetadata } from '../../src/thin/metadata/pool-metadata.ts';
import { NEEDS_CHECK, superblock } from '../../src/thin/metadata/superblock.ts';
import { assertClean } from './check.ts';
import { copyDevice, readBytes } from './edit-blocks.ts';
import { ProbeDevice, type ProbeLog } from './probe-device.ts';
import { fill, flush, read, runs, Stack } from './stack.ts';

/** Bytes of a data block. */
export const BLOCK = 65536;
export const DATA_BLOCKS = 8;
/** The pool's table, but for its features. */
export const POOL = `0 ${DATA_BLOCKS * 128} thin-pool /dev/meta /dev/data 128 0`;

/** A pool over probes with thin device 0 active as t0, in a time that passes when it is let. */
export class TimedPool {
  readonly clock = new SimulatedClock();
  readonly stack = new Stack(this.clock);
  readonly log: ProbeLog = [];
  readonly disk: MemoryDevice;
  readonly meta: ProbeDevice;
  readonly data: ProbeDevice;

  constructor(disk = new MemoryDevice('meta', 8192)) {
    this.disk = disk;
    this.meta = new ProbeDevice('M', disk, this.log);
    this.data = new ProbeDevice('D', new MemoryDevice('data', DATA_BLOCKS * 128), this.log);
    this.stack.disk('meta', this.meta);
    this.stack.disk('data', this.data);
  }

  static async make(features = ''): Promise<TimedPool> {
    const pool = new TimedPool();
    await pool.run(pool.stack.create('p', `${POOL} ${features}`));
    await pool.message('create_thin 0');
    await pool.activate(0);
    return pool;
  }

  /** Lets time pass until `promise` settles. */
  run<T>(promise: Promise<T>): Promise<T> {
    return this.clock.run(promise);
  }

  async activate(id: number): Promise<void> {
    await this.run(this.stack.create(`t${id}`, `0 65536 thin /dev/mapper/p ${id}`));
  }

  message(words: string): Promise<string> {
    return this.run(this.stack.message('p', words));
  }

  fill(id: number, block: number, length: number, byte: number, fua = false): Promise<void> {
    return this.run(fill(this.stack.device(`t${id}`), block * BLOCK, length, byte, fua));
  }

  flush(id: number): Promise<void> {
    return this.run(flush(this.stack.device(`t${id}`)));
  }

  async read(id: number, block: number, length = BLOCK): Promise<string> {
    return runs(await this.run(read(this.stack.device(`t${id}`), block * BLOCK, length)));
  }

  async reload(features: string): Promise<void> {
    await this.run(this.stack.reload('p', `${POOL} ${features}`));
    await this.run(this.stack.resume('p'));
  }

  status(name: string): Promise<string> {
    return this.run(this.stack.status(name));
  }

  async close(): Promise<void> {
    await this.run(this.stack.registry.shutDown());
  }

  /** NEEDS_CHECK, as it is on the disk. */
  get needsCheckOnDisk(): boolean {
    const { buffer } = readBytes(this.disk, 0);
    return (superblock.flags.get(new DataView(buffer), 0) & NEEDS_CHECK) !== 0;
  }

  /** Free data blocks after a crash at this moment; the metadata must be without any fault. */
  async freeAfterCrash(): Promise<number> {
    const copy = copyDevice(this.disk);
    await assertClean(copy);
    const options = { dataBlockSize: 128, mayFormat: false };
    return (await PoolMetadata.open(copy, new MemoryLog(), options)).nrFreeDataBlocks;
  }
}
