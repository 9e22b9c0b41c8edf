/**
 * Replay: requests at given times through the whole cache target, on devices that keep no data, in
 * simulated time. Given the begin and end of each request, as measured in a real kernel, the
 * counters of the target should be the kernel's.
 *
 * Everything but requests, copies and commits takes no time.
 */
import assert from 'node:assert/strict';
import type { Clock, Timer } from '../../../src/base/clock.ts';
import { SECTOR_SIZE } from '../../../src/base/numbers.ts';
import { SimulatedClock } from '../../../src/base/simulated-clock.ts';
import { BioOp, type Bio } from '../../../src/block/bio.ts';
import { plainLimits, request, type BlockDevice } from '../../../src/block/device.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { MemoryLog } from '../../../src/base/log.ts';
import { CacheMetadata } from '../../../src/cache/metadata/cache-metadata.ts';
import { CacheTarget } from '../../../src/cache/target/cache-target.ts';
import type { Policy } from '../../../src/cache/policy/policy.ts';
import { SMQ } from '../../helpers/cache-states.ts';
import { Stack } from '../../helpers/stack.ts';

const JIFFY_MS = 10;
/** Timers as far off as this fire at every eighth jiffy only, and never early. */
const WHEEL_MS = 64 * JIFFY_MS;
const WHEEL_JIFFIES = 8;
/** Before everything: times of replays may begin below 0. A multiple of the wheel's. */
const EPOCH_MS = 100 * WHEEL_JIFFIES * JIFFY_MS;

export interface TimedRequest {
  readonly isWrite: boolean;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly beginMs: number;
  readonly endMs: number;
}

export interface CacheGeometry {
  readonly nrCacheBlocks: number;
  readonly blockSectors: number;
  readonly originSectors: number;
}

export interface ReplayOptions extends CacheGeometry {
  readonly policy?: string;
  readonly mode: 'writeback' | 'writethrough';
  readonly migrationThreshold: number;
  /** How long a copy of a block and a commit take. */
  readonly copyMs: number;
  readonly commitMs: number;
  /** When the table was loaded and resumed. */
  readonly loadedMs: number;
  readonly resumedMs: number;
  /** Oblocks that are cached from cblock 0 on, and the hint of all of them. */
  readonly cached: readonly number[];
  readonly isCachedDirty: boolean;
  readonly hint?: number;
}

export interface Counters {
  readonly readHits: number;
  readonly readMisses: number;
  readonly writeHits: number;
  readonly writeMisses: number;
  readonly demotions: number;
  readonly promotions: number;
}

/** The kernel's timers, as far as a second's are concerned. */
class WheelClock implements Clock {
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  after(delayMs: number, fire: () => void): Timer {
    if (delayMs < WHEEL_MS) return this.#clock.after(delayMs, fire);
    const now = this.#clock.nowMs();
    const earliest = Math.floor(now / JIFFY_MS) + delayMs / JIFFY_MS;
    const jiffies = Math.floor(earliest / WHEEL_JIFFIES + 1) * WHEEL_JIFFIES;
    return this.#clock.after(jiffies * JIFFY_MS - now, fire);
  }

  soon(run: () => void): void {
    this.#clock.soon(run);
  }
}

/** A device without data: each request takes as long as `latencyOf` says. */
class TimedDevice implements BlockDevice {
  readonly name: string;
  readonly sizeSectors: number;
  readonly readOnly = false;
  readonly limits = plainLimits();
  readonly #clock: Clock;
  readonly #latencyOf: (bio: Bio) => number;

  constructor(name: string, sizeSectors: number, clock: Clock, latencyOf: (bio: Bio) => number) {
    this.name = name;
    this.sizeSectors = sizeSectors;
    this.#clock = clock;
    this.#latencyOf = latencyOf;
  }

  refreshSize(): void {}

  readSync(): number {
    return 0;
  }

  blockStatus(): void {}

  submit(bio: Bio): void {
    this.#clock.after(this.#latencyOf(bio), () => bio.end(0));
  }
}

/** Metadata in memory: what takes time is a commit. */
class TimedMetadata extends MemoryDevice {
  readonly #clock: Clock;
  readonly #commitMs: number;

  constructor(sizeSectors: number, clock: Clock, commitMs: number) {
    super('meta', sizeSectors);
    this.#clock = clock;
    this.#commitMs = commitMs;
  }

  override submit(bio: Bio): void {
    // A commit flushes twice: before the superblock and, with it, after.
    const isHalf = bio.op === BioOp.FLUSH || bio.flags !== 0;
    if (isHalf) this.#clock.after(this.#commitMs / 2, () => super.submit(bio));
    else super.submit(bio);
  }
}

export class Replay {
  /** The most background migrations that ran when one was begun in idle time. */
  nrRunningInIdleMax = 0;
  readonly #options: ReplayOptions;
  readonly #clock = new SimulatedClock();
  readonly #stack: Stack;
  /** By the data of a request: when it ends. */
  readonly #ends = new Map<Uint8Array, number>();
  #nrRunning = 0;

  private constructor(options: ReplayOptions) {
    this.#options = options;
    this.#stack = new Stack(new WheelClock(this.#clock));
  }

  /** Loads and resumes a cache at the times that `options` say. */
  static async start(options: ReplayOptions): Promise<Replay> {
    const replay = new Replay(options);
    await replay.#start();
    return replay;
  }

  async #start(): Promise<void> {
    const { nrCacheBlocks, blockSectors, originSectors, loadedMs, resumedMs } = this.#options;
    const latencyOf = (bio: Bio): number => this.#latencyOf(bio);
    const device = (name: string, size: number): BlockDevice =>
      new TimedDevice(name, size, this.#clock, latencyOf);
    this.#stack.disk('meta', await this.#makeMetadata());
    this.#stack.disk('fast', device('fast', nrCacheBlocks * blockSectors));
    this.#stack.disk('slow', device('slow', originSectors));
    const { policy = 'smq', mode, migrationThreshold } = this.#options;
    const devices = '/dev/meta /dev/fast /dev/slow';
    const words = `1 ${mode} ${policy} 2 migration_threshold ${migrationThreshold}`;
    const table = `0 ${originSectors} cache ${devices} ${blockSectors} ${words}`;
    await this.#until(loadedMs);
    this.#stack.registry.create('c');
    await this.#clock.run(this.#stack.reload('c', table));
    await this.#until(resumedMs);
    const resumed = this.#stack.resume('c');
    this.#watch();
    await this.#clock.run(resumed);
  }

  async #makeMetadata(): Promise<MemoryDevice> {
    const { cached, isCachedDirty, nrCacheBlocks, blockSectors, hint } = this.#options;
    const device = new TimedMetadata(65536, this.#clock, this.#options.commitMs);
    const format = { format: 1, mayFormat: true, dataBlockSize: blockSectors } as const;
    const make = async (): Promise<void> => {
      const metadata = await CacheMetadata.open(device, new MemoryLog(), format);
      metadata.resize(nrCacheBlocks);
      for (const [cblock, oblock] of cached.entries()) metadata.insertMapping(cblock, oblock);
      metadata.setDirtyBits((cblock) => isCachedDirty && cblock < cached.length);
      if (hint !== undefined) metadata.writeHints(SMQ, () => hint);
      await metadata.commit(true);
    };
    await this.#clock.run(make());
    return device;
  }

  /** Counts what runs in the background, as the policy hears of it. */
  #watch(): void {
    const { policy } = this;
    const next = policy.getBackgroundWork.bind(policy);
    const complete = policy.completeBackgroundWork.bind(policy);
    const background = new Set<unknown>();
    policy.getBackgroundWork = (isIdle) => {
      const work = next(isIdle);
      if (work === null) return null;
      background.add(work);
      this.#nrRunning++;
      if (isIdle) this.nrRunningInIdleMax = Math.max(this.nrRunningInIdleMax, this.#nrRunning);
      return work;
    };
    policy.completeBackgroundWork = (work, success) => {
      if (background.delete(work)) this.#nrRunning--;
      complete(work, success);
    };
  }

  get #now(): number {
    return this.#clock.nowMs() - EPOCH_MS;
  }

  async #until(ms: number): Promise<void> {
    if (ms > this.#now) await this.#clock.pass(ms - this.#now);
  }

  /** A request ends when it did in the kernel; a copy reads and writes. */
  #latencyOf(bio: Bio): number {
    if (bio.op === BioOp.FLUSH) return 0;
    const end = this.#ends.get(bio.data);
    return end === undefined ? this.#options.copyMs / 2 : Math.max(0, end - this.#now);
  }

  // --- what is done to it

  /** Sends requests, in order of their begins. */
  async send(requests: readonly TimedRequest[]): Promise<void> {
    for (const { isWrite, offsetBytes, lengthBytes, beginMs, endMs } of requests) {
      await this.#until(beginMs);
      const data = Buffer.alloc(lengthBytes);
      this.#ends.set(data, endMs);
      const op = isWrite ? BioOp.WRITE : BioOp.READ;
      const [sector, nrSectors] = [offsetBytes / SECTOR_SIZE, lengthBytes / SECTOR_SIZE];
      const ended = request(this.#stack.device('c'), op, sector, nrSectors, data);
      void ended.then(() => this.#ends.delete(data));
    }
  }

  /** Lets time pass. */
  async runUntil(ms: number): Promise<void> {
    await this.#until(ms);
  }

  /** As the message sets it. */
  async setMigrationThreshold(sectors: number): Promise<void> {
    await this.#stack.message('c', `migration_threshold ${sectors}`);
  }

  // --- what is seen of it

  get #target(): CacheTarget {
    const device = this.#stack.device('c');
    const target = (device.live ?? device.inactive)?.findOrNull(0);
    assert.ok(target instanceof CacheTarget);
    return target;
  }

  get policy(): Policy {
    return this.#target.cache.policy;
  }

  get counters(): Counters {
    const { statistics } = this.#target.cache;
    const { readHits, readMisses, writeHits, writeMisses, demotions, promotions } = statistics;
    return { readHits, readMisses, writeHits, writeMisses, demotions, promotions };
  }

  get nrDirty(): number {
    return this.#target.cache.nrDirty;
  }

  isDirty(cblock: number): boolean {
    return this.#target.cache.isDirty(cblock);
  }
}
