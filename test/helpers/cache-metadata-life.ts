/**
 * A life of a cache's metadata on a simulated disk: opened, resized, changed, committed, shut down
 * cleanly or not. It knows which states a power cut at any event may leave.
 */
import assert from 'node:assert/strict';
import { SimulatedClock } from '../../src/base/simulated-clock.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { SimulatedStorage, type SimulatedDisk } from '../../src/block/simulated-disk.ts';
import type { SparseBytes } from '../../src/block/sparse-bytes.ts';
import type { CacheMetadata } from '../../src/cache/metadata/cache-metadata.ts';
import type { CacheFormat } from '../../src/cache/metadata/superblock.ts';
import {
  assertSound,
  describeOpen,
  describeState,
  EMPTY,
  openCache,
  policyOn,
  randomShutdown,
  SMQ,
  writeShutdown,
  type CacheState,
} from './cache-states.ts';
import { BLOCK_SECTORS, BLOCK_SIZE } from '../../src/persistent-data/block.ts';
import { readBytes } from './edit-blocks.ts';
import type { Random } from './random.ts';

const NR_BLOCKS = 96;
const NR_CACHED = 16;
/** Over and under what fits one, two and three array blocks. */
const SIZES = [1, 63, 64, 65, 508, 509, 510, 700, 1018, 1019, 1300];
const NR_OBLOCKS = 2 ** 40;

/** Events from which, and from which on for sure, a state is on the disk. */
interface Durable {
  readonly state: CacheState;
  readonly submit: number;
  end: number;
}

export class CacheMetadataLife {
  readonly clock = new SimulatedClock();
  readonly storage: SimulatedStorage;
  readonly disk: SimulatedDisk;
  readonly diary: string[] = [];
  readonly #random: Random;
  readonly #format: CacheFormat;
  readonly #durable: Durable[] = [];
  #metadata: CacheMetadata | null = null;
  /** What the metadata would be after a commit. */
  #current: CacheState;
  /** The state on the disk; null before it is formatted. */
  #committed: CacheState | null;
  /** Cblocks that the dirty bits on the disk name; null if the bits may be out of date. */
  #dirty: ReadonlySet<number> | null = new Set();

  constructor(
    random: Random,
    format: CacheFormat,
    before?: { bytes: SparseBytes; state: CacheState },
  ) {
    this.#random = random;
    this.#format = format;
    this.storage = new SimulatedStorage(this.clock, random.fork());
    this.disk = this.storage.disk('metadata', NR_BLOCKS * BLOCK_SECTORS, before?.bytes);
    this.#committed = before?.state ?? null;
    this.#current = before?.state ?? EMPTY;
    if (before !== undefined) this.#durable.push({ state: before.state, submit: -1, end: -1 });
  }

  get metadata(): CacheMetadata {
    assert.ok(this.#metadata !== null, 'the metadata is open');
    return this.#metadata;
  }

  get isOpen(): boolean {
    return this.#metadata !== null;
  }

  #note(text: string): void {
    this.diary.push(`${this.storage.nrEvents}: ${text}`);
  }

  async #makeDurable(state: CacheState, write: () => Promise<void>): Promise<void> {
    const durable = { state, submit: this.storage.nrEvents, end: Infinity };
    this.#durable.push(durable);
    await write();
    durable.end = this.storage.nrEvents;
    this.#committed = state;
    this.#current = state;
  }

  /** The states that a cut just before event `event` may leave; null is no format. */
  allowedAt(event: number): (CacheState | null)[] {
    const ended = this.#durable.filter(({ end }) => end <= event);
    const begun = this.#durable.filter(({ submit, end }) => submit < event && end > event);
    return [ended.at(-1)?.state ?? null, ...begun.map(({ state }) => state)];
  }

  // --- operations

  async open(): Promise<void> {
    const before = this.#committed;
    const keepsMark = this.#random.chance(0.4);
    this.#note(keepsMark ? 'open, and leave the mark' : 'open');
    const open = async (): Promise<void> => {
      // So small a cache that blocks are read again and again.
      const cacheBytes = NR_CACHED * BLOCK_SIZE;
      const options = { format: this.#format, mayFormat: before === null, cacheBytes, keepsMark };
      this.#metadata = await openCache(this.disk, options);
    };
    if (keepsMark && before !== null) {
      await open();
      this.#current = before;
    } else await this.#makeDurable({ ...(before ?? EMPTY), shutdown: null }, open);
    const isClean = before === null || before.shutdown !== null;
    assert.equal(this.metadata.cleanWhenOpened, isClean);
    assert.equal(this.metadata.isMarkedClean, keepsMark && before !== null && isClean);
    // Hints that cannot be read are not missed.
    const plain = (text: string): string =>
      this.disk.nrFailed > 0 ? text.replace(/ hint \S+/g, '') : text;
    const found = describeOpen(this.metadata, before?.shutdown?.policy ?? SMQ);
    assert.equal(plain(found), plain(describeState(before ?? EMPTY)));
    if (before !== null) this.#dirty = before.shutdown?.dirty ?? null;
  }

  close(): void {
    this.#note('close');
    this.#metadata = null;
  }

  /** Only just after an open or a clean shutdown: then the dirty bits are what they say. */
  resize(): void {
    const size = this.#random.pick(SIZES);
    this.#note(`resize to ${size}`);
    const { mappings } = this.#current;
    const going = [...mappings.keys()].filter((cblock) => cblock >= size);
    const refused = going.some((cblock) => this.#dirty?.has(cblock) ?? true);
    if (refused) {
      const expected = { operation: 'dm_cache_resize', errno: 'EINVAL' };
      assert.throws(() => this.metadata.resize(size), expected);
      this.abort();
      return;
    }
    this.metadata.resize(size);
    const left = new Map([...mappings].filter(([cblock]) => cblock < size));
    this.#current = { ...this.#current, size, mappings: left, shutdown: null };
  }

  change(): void {
    const { size, mappings } = this.#current;
    if (size === 0) return;
    const cblock = this.#random.below(size);
    const changed = new Map(mappings);
    if (mappings.has(cblock)) {
      this.#note(`remove ${cblock}`);
      this.metadata.removeMapping(cblock);
      changed.delete(cblock);
    } else {
      const used = new Set(mappings.values());
      let oblock = this.#random.below(this.#random.pick([100, 10_000, NR_OBLOCKS]));
      while (used.has(oblock)) oblock = this.#random.below(NR_OBLOCKS);
      this.#note(`insert ${cblock} -> ${oblock}`);
      this.metadata.insertMapping(cblock, oblock);
      changed.set(cblock, oblock);
    }
    this.#current = { ...this.#current, mappings: changed, shutdown: null };
    assert.ok(this.metadata.hasChanges);
  }

  async commit(): Promise<void> {
    this.#note('commit');
    const state = { ...this.#current, shutdown: null };
    await this.#makeDurable(state, () => this.metadata.commit(false));
    assert.ok(!this.metadata.hasChanges);
  }

  async shutDown(): Promise<void> {
    this.#note('clean shutdown');
    const random = this.#random;
    const shutdown = randomShutdown(random, this.#current);
    const [readHits, readMisses] = [random.below(2 ** 32), random.below(9)];
    const counters = { readHits, readMisses, writeHits: random.below(9), writeMisses: 0 };
    writeShutdown(this.metadata, shutdown);
    this.metadata.setCounters(counters);
    const state = { ...this.#current, counters, shutdown };
    await this.#makeDurable(state, () => this.metadata.commit(true));
    assert.ok(this.metadata.isMarkedClean);
    this.#dirty = shutdown.dirty;
  }

  abort(): void {
    this.#note('abort');
    assert.ok(this.#committed !== null);
    this.metadata.abort();
    this.#current = this.#committed;
    assert.equal(this.metadata.nrCacheBlocks, this.#current.size);
  }

  /** A random step; some are only possible when the metadata is open. */
  async step(): Promise<void> {
    if (!this.isOpen) {
      await this.open();
      if (this.#random.chance(0.7)) this.resize();
      return;
    }
    const chance = this.#random.next();
    if (chance < 0.55) this.change();
    else if (chance < 0.75) await this.commit();
    else if (chance < 0.9) {
      await this.shutDown();
      if (this.#random.chance(0.5)) this.resize();
    } else if (chance < 0.94) this.abort();
    else this.close();
  }

  /** Rejects unless `image` is sound and says what a cut just before `event` may leave. */
  async verify(image: BlockDevice, event: number): Promise<CacheState | null> {
    const allowed = this.allowedAt(event);
    if (isUnformatted(image)) {
      assert.ok(allowed.includes(null), 'the format is gone');
      return null;
    }
    await assertSound(image, 'checked');
    const policy = policyOn(image);
    const found = describeOpen(await openCache(image), policy);
    const state = allowed.find((each) => each !== null && describeState(each) === found);
    assert.ok(state !== undefined, `found what was never committed, or is too old:\n${found}`);
    return state;
  }
}

function isUnformatted(device: BlockDevice): boolean {
  return readBytes(device, 0).every((byte) => byte === 0);
}
