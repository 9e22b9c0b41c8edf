/**
 * Images of cache metadata for tests of tools: each made by driving CacheMetadata over a memory
 * device, seeded, and named for what is special about it.
 */
import { MemoryDevice } from '../../src/block/memory-device.ts';
import type { CacheMetadata } from '../../src/cache/metadata/cache-metadata.ts';
import type { CacheFormat } from '../../src/cache/metadata/superblock.ts';
import { BLOCK_SECTORS } from '../../src/persistent-data/block.ts';
import {
  EMPTY,
  openCache,
  randomShutdown,
  writeShutdown,
  type CacheState,
  type Shutdown,
} from './cache-states.ts';
import { imageOf } from './edit-blocks.ts';
import type { Random } from './random.ts';

/** A cache being made: its metadata, what that says, and words for what tests do with it. */
export class CacheMaker {
  readonly device: MemoryDevice;
  readonly format: CacheFormat;
  readonly random: Random;
  #metadata: CacheMetadata;
  state: CacheState = EMPTY;

  private constructor(
    device: MemoryDevice,
    format: CacheFormat,
    random: Random,
    metadata: CacheMetadata,
  ) {
    this.device = device;
    this.format = format;
    this.random = random;
    this.#metadata = metadata;
  }

  static async make(
    format: CacheFormat,
    random: Random,
    options: { nrBlocks?: number; size: number },
  ): Promise<CacheMaker> {
    const device = new MemoryDevice('metadata', (options.nrBlocks ?? 128) * BLOCK_SECTORS);
    const metadata = await openCache(device, { format, mayFormat: true });
    const maker = new CacheMaker(device, format, random, metadata);
    await maker.resize(options.size);
    return maker;
  }

  get metadata(): CacheMetadata {
    return this.#metadata;
  }

  async resize(size: number): Promise<void> {
    this.metadata.resize(size);
    const mappings = [...this.state.mappings].filter(([cblock]) => cblock < size);
    this.state = { ...this.state, size, mappings: new Map(mappings), shutdown: null };
    await this.metadata.commit(false);
  }

  /** Maps `nr` more cblocks, chosen at random, to origin blocks below `nrOblocks`. */
  async insert(nr: number, nrOblocks = 100_000): Promise<void> {
    const mappings = new Map(this.state.mappings);
    const used = new Set(mappings.values());
    for (let i = 0; i < nr; i++) {
      let [cblock, oblock] = [this.random.below(this.state.size), this.random.below(nrOblocks)];
      while (mappings.has(cblock)) cblock = (cblock + 1) % this.state.size;
      while (used.has(oblock)) oblock = (oblock + 1) % nrOblocks;
      this.metadata.insertMapping(cblock, oblock);
      mappings.set(cblock, oblock);
      used.add(oblock);
    }
    this.state = { ...this.state, mappings, shutdown: null };
    await this.metadata.commit(false);
  }

  /** Unmaps about one in `each` mapped cblocks. */
  async remove(each: number): Promise<void> {
    const mappings = new Map(this.state.mappings);
    for (const cblock of [...mappings.keys()].filter(() => this.random.below(each) === 0)) {
      this.metadata.removeMapping(cblock);
      mappings.delete(cblock);
    }
    this.state = { ...this.state, mappings, shutdown: null };
    await this.metadata.commit(false);
  }

  /** Shuts down cleanly, as `shutdown` or chance says. */
  async shutDown(shutdown: Shutdown = randomShutdown(this.random, this.state)): Promise<void> {
    const counters = { readHits: 1, readMisses: 22, writeHits: 333, writeMisses: 0xffff_ffff };
    writeShutdown(this.metadata, shutdown);
    this.metadata.setCounters(counters);
    await this.metadata.commit(true);
    this.state = { ...this.state, counters, shutdown };
  }

  /** As after a crash, or when another process takes over. */
  async reopen(): Promise<void> {
    this.#metadata = await openCache(this.device);
    this.state = { ...this.state, shutdown: null };
  }

  get image(): Buffer {
    return imageOf(this.device);
  }
}

const CLEAN = 'a clean shutdown of three array blocks';
const LARGE = 'index trees of several leaves';

/** Makers of images by what is special about them; the seed varies the rest. */
export const cacheMakers: Record<
  string,
  (format: CacheFormat, random: Random) => Promise<CacheMaker>
> = {
  'a fresh cache': (format, random) => CacheMaker.make(format, random, { size: 1024 }),
  [CLEAN]: async (format, random) => {
    const maker = await CacheMaker.make(format, random, { size: 1300 });
    await maker.insert(700);
    await maker.remove(5);
    await maker.shutDown();
    return maker;
  },
  'a cache in use, grown since its last clean shutdown': async (format, random) => {
    const maker = await CacheMaker.make(format, random, { size: 600 });
    await maker.insert(400);
    await maker.shutDown();
    await maker.resize(1300);
    await maker.insert(400);
    await maker.remove(3);
    return maker;
  },
  'a cache in use, shrunk since its last clean shutdown': async (format, random) => {
    const maker = await CacheMaker.make(format, random, { size: 1300 });
    await maker.insert(400);
    await maker.shutDown({ ...randomShutdown(random, maker.state), dirty: new Set() });
    await maker.resize(509);
    await maker.remove(3);
    return maker;
  },
  needs_check: async (format, random) => {
    const maker = await CacheMaker.make(format, random, { size: 100 });
    await maker.insert(50);
    await maker.shutDown();
    await maker.metadata.setNeedsCheck();
    return maker;
  },
  [LARGE]: async (format, random) => {
    const maker = await CacheMaker.make(format, random, { size: 200_000, nrBlocks: 2048 });
    await maker.insert(3000);
    await maker.shutDown(randomShutdown(random, maker.state, 70_000));
    return maker;
  },
};

export { CLEAN, LARGE };
