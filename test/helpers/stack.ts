/**
 * A registry with all targets over memory devices, and short words for what tests do with it.
 */
import { Registry } from '../../src/mapper/registry.ts';
import { parseTable } from '../../src/mapper/table-grammar.ts';
import { delay } from '../../src/mapper/targets/delay.ts';
import { flakey } from '../../src/mapper/targets/flakey.ts';
import { logWrites } from '../../src/mapper/targets/log-writes.ts';
import { linear } from '../../src/mapper/targets/linear.ts';
import { errorTarget } from '../../src/mapper/targets/error.ts';
import { striped } from '../../src/mapper/targets/striped.ts';
import { zero } from '../../src/mapper/targets/zero.ts';
import { registerCache } from '../../src/cache/target/index.ts';
import { registerThin } from '../../src/thin/target/index.ts';
import { MemoryLog } from '../../src/base/log.ts';
import { BioFlag, BioOp } from '../../src/block/bio.ts';
import { request, type BlockDevice } from '../../src/block/device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import type { MappedDevice } from '../../src/mapper/mapped-device.ts';
import type { Clock } from '../../src/base/clock.ts';

export const SECTOR = 512;

export class Stack {
  readonly log = new MemoryLog();
  readonly registry: Registry;
  readonly pools: ReturnType<typeof registerThin>;
  #nextMinor = 0;

  constructor(clock?: Clock, options: { kernelQuirks?: boolean } = {}) {
    this.registry = new Registry({ log: this.log, ...(clock && { clock }) });
    this.registry.register(delay);
    this.registry.register(flakey);
    this.registry.register(logWrites);
    this.registry.register(errorTarget);
    this.registry.register(linear);
    this.registry.register(striped);
    this.registry.register(zero);
    this.pools = registerThin(this.registry);
    registerCache(this.registry, { kernelQuirks: options.kernelQuirks ?? false });
  }

  /**
   * Makes `device` (or a new memory device of `sectors`) known as `/dev/<name>`, numbered 98:0,
   * 98:16, …
   */
  disk(name: string, sectors: number | BlockDevice): BlockDevice {
    const device = typeof sectors === 'number' ? new MemoryDevice(name, sectors) : sectors;
    this.registry.lookup.add(`/dev/${name}`, device, `98:${16 * this.#nextMinor++}`);
    return device;
  }

  /** As `dmsetup create`: create, load, resume; removed again on failure. */
  async create(
    name: string,
    table: string,
    options: { readOnly?: boolean } = {},
  ): Promise<MappedDevice> {
    const device = this.registry.create(name);
    try {
      await this.registry.load(device, parseTable(table), options);
      await this.registry.resume(device);
    } catch (error) {
      await this.registry.remove(device);
      throw error;
    }
    return device;
  }

  device(name: string): MappedDevice {
    return this.registry.get({ name });
  }

  async reload(name: string, table: string): Promise<void> {
    await this.registry.load(this.device(name), parseTable(table));
  }

  async suspend(name: string, noflush = false): Promise<void> {
    await this.registry.suspend(this.device(name), { noflush });
  }

  async resume(name: string): Promise<void> {
    await this.registry.resume(this.device(name));
  }

  async remove(name: string): Promise<void> {
    await this.registry.remove(this.device(name));
  }

  async message(name: string, words: string): Promise<string> {
    return this.registry.message(this.device(name), 0, words.split(' '));
  }

  async status(name: string): Promise<string> {
    return (await this.registry.lines(this.device(name), 'INFO')).join('\n');
  }

  async table(name: string): Promise<string> {
    return (await this.registry.lines(this.device(name), 'TABLE')).join('\n');
  }
}

export async function read(device: BlockDevice, offset: number, length: number): Promise<Buffer> {
  const data = Buffer.alloc(length, 0xee);
  await request(device, BioOp.READ, offset / SECTOR, length / SECTOR, data);
  return data;
}

export async function write(
  device: BlockDevice,
  offset: number,
  data: Uint8Array,
  fua = false,
): Promise<void> {
  const flags = fua ? BioFlag.FUA : 0;
  await request(device, BioOp.WRITE, offset / SECTOR, data.length / SECTOR, data, flags);
}

export async function fill(
  device: BlockDevice,
  offset: number,
  length: number,
  byte: number,
  fua = false,
): Promise<void> {
  await write(device, offset, Buffer.alloc(length, byte), fua);
}

export async function discard(device: BlockDevice, offset: number, length: number): Promise<void> {
  await request(device, BioOp.DISCARD, offset / SECTOR, length / SECTOR);
}

export async function flush(device: BlockDevice): Promise<void> {
  await request(device, BioOp.FLUSH, 0, 0);
}

/** Runs of equal bytes, as `4096x00 4096x11`. */
export function runs(bytes: Uint8Array): string {
  const found: string[] = [];
  for (let i = 0; i < bytes.length;) {
    let end = i;
    while (end < bytes.length && bytes[end] === bytes[i]) end++;
    found.push(`${end - i}x${(bytes[i] as number).toString(16).padStart(2, '0')}`);
    i = end;
  }
  return found.join(' ');
}
