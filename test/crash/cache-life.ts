/**
 * One life of a cache on simulated disks: it is opened, worked on, and at some moment loses its
 * power. The counterpart of life.ts; see there.
 *
 * A discarded sector may hold anything that was ever written to it, until it is written again: that
 * is what the cache promises (spec: cache, 11.8), but never anybody else's data.
 */
import assert from 'node:assert/strict';
import { DmError } from '../../src/base/error.ts';
import { SECTOR_SIZE } from '../../src/base/numbers.ts';
import type { Random } from '../../src/base/random.ts';
import { SimulatedClock } from '../../src/base/simulated-clock.ts';
import { BioFlag, BioOp } from '../../src/block/bio.ts';
import { request, type BlockDevice } from '../../src/block/device.ts';
import { SimulatedStorage, type SimulatedDisk } from '../../src/block/simulated-disk.ts';
import { SparseBytes } from '../../src/block/sparse-bytes.ts';
import { CacheTarget } from '../../src/cache/target/cache-target.ts';
import { readCacheImage, type CacheImage } from '../../src/cache/tools/cache-image.ts';
import { checkCache } from '../../src/cache/tools/check.ts';
import { Stack } from '../helpers/stack.ts';
import type { Image, Mortal } from './cuts.ts';
import { ALIEN, ANYTHING, nameOf, stampOf, stampSectors, VolumeHistory } from './history.ts';

/** Sectors of a cache block. */
export const CACHE_BLOCK = 64;
const CACHE_BLOCKS = 8;
const ORIGIN_BLOCKS = 24;
/** The last block of the origin is not a whole one. */
export const CACHE_SECTORS = ORIGIN_BLOCKS * CACHE_BLOCK + 20;
const METADATA_SECTORS = 96 * 8;
const BLOCK_BYTES = CACHE_BLOCK * SECTOR_SIZE;

export interface CacheRange {
  readonly begin: number;
  readonly end: number;
}

/** What outlives a cut: the disks' contents, and what is in the cached device. */
export interface CacheRemains {
  readonly contents: readonly SparseBytes[] | null;
  readonly found: Uint32Array;
  readonly lastStamp: number;
}

export const NO_CACHE: CacheRemains = {
  contents: null,
  found: new Uint32Array(CACHE_SECTORS),
  lastStamp: 0,
};

export interface CacheLifeOptions {
  readonly kernelQuirks?: boolean;
  readonly mayFail?: boolean;
}

export type Mode = 'writeback' | 'writethrough' | 'passthrough';

export class CacheLife implements Mortal<Uint32Array> {
  readonly clock = new SimulatedClock();
  readonly storage: SimulatedStorage;
  readonly metadata: SimulatedDisk;
  readonly fast: SimulatedDisk;
  readonly origin: SimulatedDisk;
  readonly stack: Stack;
  readonly diary: string[] = [];
  readonly history: VolumeHistory;
  lastStamp: number;
  /** The event from which on the metadata is formatted, if this life did it. */
  formatted = 0;
  mode: Mode = 'writeback';
  /** Nothing but writethrough so far, and nothing was dirty before: the origin is complete. */
  isOriginComplete: boolean;
  readonly #options: CacheLifeOptions;
  readonly #format: string;
  readonly #busy = new Set<CacheRange>();
  readonly #inFlight = new Set<Promise<void>>();
  #failure: unknown = null;

  constructor(
    random: Random,
    remains: CacheRemains,
    format: 1 | 2,
    options: CacheLifeOptions = {},
  ) {
    this.#options = options;
    this.#format = format === 2 ? 'metadata2 ' : '';
    this.storage = new SimulatedStorage(this.clock, random.fork());
    const [metadata, fast, origin] = remains.contents ?? [];
    const fastSectors = CACHE_BLOCKS * CACHE_BLOCK;
    this.metadata = this.storage.disk('meta', METADATA_SECTORS, metadata);
    this.fast = this.storage.disk('fast', fastSectors, fast ?? oldData(fastSectors));
    this.origin = this.storage.disk('origin', CACHE_SECTORS, origin);
    this.stack = new Stack(this.clock, options);
    this.lastStamp = remains.lastStamp;
    this.isOriginComplete = remains.contents === null;
    const nothing = new Uint32Array(CACHE_SECTORS);
    this.history = new VolumeHistory(0, { submit: -1, end: -1 }, remains.found, nothing);
  }

  get disks(): SimulatedDisk[] {
    return [this.metadata, this.fast, this.origin];
  }

  remains({ contents, found }: Image<Uint32Array>): CacheRemains {
    return { contents, found, lastStamp: this.lastStamp };
  }

  #table(mode: Mode, policy: string): string {
    const nr = this.#format === '' ? 1 : 2;
    const features = `${nr} ${this.#format}${mode}`;
    const devices = '/dev/meta /dev/fast /dev/origin';
    return `0 ${CACHE_SECTORS} cache ${devices} ${CACHE_BLOCK} ${features} ${policy}`;
  }

  async open(mode: Mode): Promise<void> {
    this.#note(`open, ${mode}`);
    this.#setMode(mode);
    for (const disk of this.disks) this.stack.disk(disk.name, disk);
    await this.stack.create('c', this.#table(mode, 'smq 0'));
    this.formatted = this.#event;
  }

  #setMode(mode: Mode): void {
    this.mode = mode;
    if (mode !== 'writethrough') this.isOriginComplete = false;
  }

  /** Blocks moved by tables that are gone. */
  readonly #movedBefore = { promotions: 0, demotions: 0 };

  /** Blocks that were moved, as the target counts them. */
  get moved(): { promotions: number; demotions: number } {
    const target = this.stack.device('c').live?.findOrNull(0);
    if (!(target instanceof CacheTarget)) return this.#movedBefore;
    const { promotions, demotions } = target.cache.statistics;
    return {
      promotions: this.#movedBefore.promotions + promotions,
      demotions: this.#movedBefore.demotions + demotions,
    };
  }

  get #event(): number {
    return this.storage.nrEvents;
  }

  #note(text: string): void {
    this.diary.push(`${this.#event}: ${text}`);
  }

  get #device(): BlockDevice {
    return this.stack.device('c');
  }

  // --- operations with data

  isFree({ begin, end }: CacheRange): boolean {
    return ![...this.#busy].some((busy) => busy.begin < end && begin < busy.end);
  }

  async room(nrMax: number): Promise<void> {
    while (this.#inFlight.size >= nrMax) await Promise.race(this.#inFlight);
  }

  async settle(): Promise<void> {
    await Promise.all(this.#inFlight);
    this.throwFailure();
  }

  /** Throws what an operation in the background met. */
  throwFailure(): void {
    if (this.#failure !== null) throw this.#failure as Error;
  }

  #isExpected(error: unknown): boolean {
    if (this.#options.mayFail !== true || !(error instanceof DmError)) return false;
    this.#note(`failed: ${error.message}`);
    return true;
  }

  /** Does an operation that may fail if disks may; resolves to whether it did not. */
  async try(operation: () => void | Promise<void>): Promise<boolean> {
    try {
      await operation();
      return true;
    } catch (error) {
      if (!this.#isExpected(error)) throw error;
      return false;
    }
  }

  #start(range: CacheRange, what: string, work: () => Promise<void>): void {
    assert.ok(this.isFree(range), 'one operation at a time');
    this.#note(`${what} ${range.begin} + ${range.end - range.begin}`);
    this.#busy.add(range);
    const promise = work()
      .catch((error: unknown) => {
        if (!this.#isExpected(error)) this.#failure ??= error;
      })
      .finally(() => {
        this.#busy.delete(range);
        this.#inFlight.delete(promise);
      });
    this.#inFlight.add(promise);
  }

  write(range: CacheRange, isFua = false): void {
    const stamp = ++this.lastStamp;
    this.#start(range, `write ${stamp}${isFua ? ' (FUA)' : ''}`, async () => {
      const { begin, end } = range;
      const data = Buffer.alloc((end - begin) * SECTOR_SIZE);
      stampSectors(data, stamp, begin);
      const record = this.history.begin(begin, end, stamp, this.#event);
      const flags = isFua ? BioFlag.FUA : 0;
      try {
        await request(this.#device, BioOp.WRITE, begin, end - begin, data, flags);
      } catch (error) {
        this.history.fail(record, this.#event);
        throw error;
      }
      this.history.end(record, this.#event, isFua);
    });
  }

  read(range: CacheRange): void {
    this.#start(range, 'read', async () => {
      const { begin, end } = range;
      const data = Buffer.alloc((end - begin) * SECTOR_SIZE, 0xee);
      await request(this.#device, BioOp.READ, begin, end - begin, data);
      const allowed = this.#options.mayFail === true ? this.history.allowedAt(this.#event) : null;
      for (let sector = begin; sector < end; sector++) {
        const found = stampOf(data, (sector - begin) * SECTOR_SIZE, sector);
        const wanted = this.history.current[sector];
        const isAnything = wanted === ANYTHING && found !== ALIEN;
        const isRight = allowed?.may(sector, found) ?? (found === wanted || isAnything);
        assert.ok(isRight, `a read of sector ${sector} found ${nameOf(found)}`);
      }
    });
  }

  discard(range: CacheRange): void {
    this.#start(range, 'discard', async () => {
      const { begin, end } = range;
      const record = this.history.begin(begin, end, ANYTHING, this.#event);
      try {
        await request(this.#device, BioOp.DISCARD, begin, end - begin);
      } catch (error) {
        this.history.fail(record, this.#event);
        throw error;
      }
      this.history.end(record, this.#event, false);
    });
  }

  flush(): void {
    this.#start({ begin: 0, end: 0 }, 'flush', async () => {
      const submit = this.#event;
      await request(this.#device, BioOp.FLUSH, 0, 0);
      this.history.flushed(submit, this.#event);
    });
  }

  // --- the control plane

  async message(words: string): Promise<void> {
    this.#note(words);
    await this.stack.message('c', words);
  }

  async suspendResume(noflush: boolean): Promise<void> {
    this.#note(`suspend${noflush ? ' --noflush' : ''} and resume`);
    await this.stack.suspend('c', noflush);
    await this.stack.resume('c');
  }

  /** Another mode or policy. */
  async reload(mode: Mode, policy: string): Promise<void> {
    this.#note(`reload: ${mode} ${policy}`);
    Object.assign(this.#movedBefore, this.moved);
    await this.stack.reload('c', this.#table(mode, policy));
    await this.stack.suspend('c');
    try {
      await this.stack.resume('c');
      this.#setMode(mode);
    } catch (error) {
      // Dirty blocks, or an unclean shutdown: passthrough is refused.
      if (mode !== 'passthrough' || !(error instanceof DmError)) throw error;
      this.#note(`refused: ${error.message}`);
      await this.reload('writeback', policy);
    }
  }

  /** Writes everything back, shuts down, and opens in passthrough mode, as the document wants. */
  async enterPassthrough(): Promise<void> {
    await this.settle();
    await this.reload('writeback', 'cleaner 0');
    await this.idle(4000);
    this.#note('remove and create, passthrough');
    Object.assign(this.#movedBefore, this.moved);
    await this.stack.remove('c');
    await this.stack.create('c', this.#table('passthrough', 'smq 0'));
    this.#setMode('passthrough');
  }

  async remove(): Promise<void> {
    await this.settle();
    this.#note('remove and create');
    Object.assign(this.#movedBefore, this.moved);
    await this.stack.remove('c');
    await this.stack.create('c', this.#table('writeback', 'smq 0'));
    this.#setMode('writeback');
  }

  async idle(ms: number): Promise<void> {
    this.#note(`idle for ${ms.toFixed(1)} ms`);
    await this.clock.delay(ms);
  }

  async close(): Promise<void> {
    await this.settle();
    await this.stack.registry.shutDown();
  }

  // --- after a cut

  async verify(
    event: number,
    [metadata, fast, origin]: readonly BlockDevice[],
  ): Promise<Uint32Array> {
    assert.ok(metadata !== undefined && fast !== undefined && origin !== undefined);
    const { damage } = await checkCache(metadata);
    const image = readCacheImage(metadata);
    // While a cache runs its dirty bits are out of date: then some are of blocks that have gone.
    const isSound = image.superblock.cleanShutdown
      ? damage.lines().length === 0
      : damage.nrFatal === 0;
    assert.ok(isSound, `the metadata is sound: ${damage.lines().join('; ')}`);
    const { may } = this.history.allowedAt(event);
    // Of a write in writethrough mode that failed, one device may have more than the other.
    const failed = this.history.records.filter((record) => record.failed);
    const hasFailed = (sector: number): boolean =>
      failed.some(({ begin, endSector }) => begin <= sector && sector < endSector);
    const all = contentOf(image, fast, origin, () => true);
    assertAllowed(all, may, 'as mapped');
    if (image.superblock.cleanShutdown) {
      // What counts as clean may be dropped: then the origin alone is what there is.
      const left = contentOf(image, fast, origin, ({ isDirty }) => isDirty);
      assertAllowed(left, may, 'without clean blocks');
      for (let sector = 0; sector < CACHE_SECTORS; sector++) {
        const isSame = all[sector] === left[sector] || may(sector, ANYTHING) || hasFailed(sector);
        assert.ok(isSame, `sector ${sector} of a clean block differs from the origin`);
      }
    }
    if (this.isOriginComplete) {
      assertAllowed(
        contentOf(image, fast, origin, () => false),
        may,
        'of the origin',
      );
    }
    // A discarded block can be one thing in the cache and another in the origin, over cuts, too.
    return all.map((stamp, sector) => (may(sector, ANYTHING) ? ANYTHING : stamp));
  }
}

type Mapping = CacheImage['mappings'][number];

function assertAllowed(
  content: Uint32Array,
  may: (sector: number, stamp: number) => boolean,
  which: string,
): void {
  for (let sector = 0; sector < content.length; sector++) {
    const stamp = content[sector] as number;
    assert.ok(may(sector, stamp), `content ${which}: sector ${sector} is ${nameOf(stamp)}`);
  }
}

const $block = new Uint8Array(BLOCK_BYTES);

/** What a cache shows that uses the mappings that `uses` says yes to. */
function contentOf(
  image: CacheImage,
  fast: BlockDevice,
  origin: BlockDevice,
  uses: (mapping: Mapping) => boolean,
): Uint32Array {
  const cblocks = new Map(
    image.mappings.filter(uses).map(({ oblock, cblock }) => [oblock, cblock]),
  );
  const content = new Uint32Array(CACHE_SECTORS);
  for (let begin = 0; begin < CACHE_SECTORS; begin += CACHE_BLOCK) {
    const nr = Math.min(CACHE_BLOCK, CACHE_SECTORS - begin);
    const cblock = cblocks.get(begin / CACHE_BLOCK);
    const from = cblock === undefined ? origin : fast;
    const sector = cblock === undefined ? begin : cblock * CACHE_BLOCK;
    assert.equal(from.readSync(sector, nr, $block, 0), 0);
    for (let i = 0; i < nr; i++) {
      content[begin + i] = stampOf($block, i * SECTOR_SIZE, begin + i);
    }
  }
  return content;
}

/** What a used disk is full of: nothing that a write of ours looks like. */
function oldData(nrSectors: number): SparseBytes {
  const bytes = new SparseBytes(4096);
  const old = Buffer.alloc(SECTOR_SIZE, 'somebody else');
  for (let i = 0; i < nrSectors; i++) bytes.write(i * SECTOR_SIZE, SECTOR_SIZE, old, 0);
  return bytes;
}
