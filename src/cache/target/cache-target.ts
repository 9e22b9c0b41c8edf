/**
 * The cache target: where each bio goes. Answers to map_bio and process_deferred_bios in
 * drivers/md/dm-cache-target.c (spec: cache, 11). Hot path: `map`, `endIo`.
 *
 * A read or write shares the lock of its block until it ends. Bios that meet a locked block wait in
 * the lock, and are mapped anew when it is given back. Sectors of bios are the target's from `map`
 * on.
 */
import type { Timer } from '../../base/clock.ts';
import { SECTOR_SIZE } from '../../base/numbers.ts';
import { BioFlag, BioList, BioOp, BioPool, STATUS_REQUEUE, type Bio } from '../../block/bio.ts';
import type { ExtentVisitor, Limits } from '../../block/device.ts';
import { MapResult, Target, type StatusKind, type UsedDevice } from '../../mapper/target.ts';
import { deviceStatus } from '../../mapper/targets/linear.ts';
import { makeLookupResult } from '../policy/policy.ts';
import { LockLevel, type BlockLock } from './block-locks.ts';
import { Cache, type CacheDevices, type CacheOptions } from './cache.ts';
import { IoMode } from './features.ts';
import { Loading } from './loading.ts';
import { handleMessage } from './messages.ts';
import type { MetadataTable } from './metadata-table.ts';
import { Migrations } from './migrations.ts';
import { saveState } from './saving.ts';
import { statusLine, tableLine } from './status.ts';

/** The policy ticks, and background work is looked for. */
const TICK_MS = 1000;

/** What the target remembers of a bio while it is under way. */
class CacheBio {
  lock: BlockLock | null = null;
  /** Counted as I/O of the origin. */
  isAccounted = false;
  /** Its end is a tick for the policy. */
  isTick = false;
}

/** Which copy of a flush goes where. */
const FLUSH_ORIGIN = 0;
const FLUSH_BIOS = 2;

const $found = makeLookupResult();

export class CacheTarget extends Target {
  readonly cache: Cache;
  override readonly hasEndIo = true;
  readonly #devices: CacheDevices;
  readonly #words: readonly string[];
  readonly #metadataTable: MetadataTable;
  readonly #migrations: Migrations;
  readonly #loading: Loading;
  readonly #copies = new BioPool();
  /** Bios to be mapped again. */
  readonly #deferred = new BioList();
  #isWoken = false;
  /** Everything is handed back to the core. */
  #isRequeueing = false;
  /** Until the first resume, too. */
  #isSuspended = true;
  #isTickUnderWay = false;
  #timer: Timer | null = null;

  /** `words` are those of the table line from the block size on, as given. */
  constructor(options: CacheOptions, words: readonly string[], metadataTable: MetadataTable) {
    super(options.context, () => new CacheBio());
    this.cache = new Cache(options);
    this.#devices = options.devices;
    this.#words = words;
    this.#metadataTable = metadataTable;
    this.maxIoSectors = options.blockSectors;
    this.nrFlushBios = FLUSH_BIOS;
    this.nrDiscardBios = 1;
    this.#migrations = new Migrations(this.cache, {
      defer: (bios) => this.#defer(bios),
      isOptimisable: (bio, oblock) => this.#isOptimisable(bio, oblock),
    });
    this.#loading = new Loading(this.cache, this.#devices.fast.device);
    this.message = (args) => handleMessage(this.cache, args);
  }

  // --- mapping

  override map(bio: Bio): MapResult {
    bio.sector -= this.begin;
    if (this.#isRequeueing) return MapResult.REQUEUE;
    return this.#map(bio);
  }

  #map(bio: Bio): MapResult {
    if (bio.op === BioOp.FLUSH) return this.#flush(bio);
    if (bio.op === BioOp.DISCARD) return this.#discard(bio);
    const { cache } = this;
    const oblock = Math.floor(bio.sector / cache.blockSectors);
    if (oblock >= cache.nrOriginBlocks) return this.#toOrigin(bio);
    const isWrite = bio.op === BioOp.WRITE;
    const lock = cache.locks.share(oblock, isWrite ? LockLevel.WRITES : LockLevel.ALL, bio);
    if (lock === null) {
      // The holder may be waiting for a commit.
      cache.committer.schedule();
      return MapResult.SUBMITTED;
    }
    (bio.perBio as CacheBio).lock = lock;
    return this.#mapLocked(bio, oblock, isWrite);
  }

  #mapLocked(bio: Bio, oblock: number, isWrite: boolean): MapResult {
    const { policy, statistics, discards } = this.cache;
    if (this.#isOptimisable(bio, oblock)) {
      policy.lookupWithWork(oblock, isWrite, true, $found);
      const { work } = $found;
      if (work !== null) {
        this.#unshare(bio);
        this.#account(bio);
        this.#migrations.start(work, bio);
        return MapResult.SUBMITTED;
      }
    } else {
      policy.lookup(oblock, isWrite, false, $found);
      if ($found.mayHaveWork) this.#wakeMigrations();
    }
    const { cblock } = $found;
    if (cblock >= 0) {
      statistics.hit(isWrite);
      return this.#hit(bio, oblock, cblock, isWrite);
    }
    statistics.miss(isWrite);
    if (isWrite) discards.clear(oblock);
    this.#tickWith(bio);
    return this.#afterCommitIfFua(this.#toOrigin(bio), bio);
  }

  /** Whether `bio` may be the content of its block, so that a promotion needs no copy. */
  #isOptimisable(bio: Bio, oblock: number): boolean {
    const { features, discards, blockSectors, kernelQuirks } = this.cache;
    if (features.ioMode !== IoMode.WRITEBACK) return false;
    if (bio.op === BioOp.WRITE) return bio.nrSectors === blockSectors || discards.has(oblock);
    // A read would be answered with what the fast device held before, and make the block dirty.
    return kernelQuirks && discards.has(oblock);
  }

  #hit(bio: Bio, oblock: number, cblock: number, isWrite: boolean): MapResult {
    const { cache } = this;
    const { ioMode } = cache.features;
    if (ioMode === IoMode.PASSTHROUGH) {
      this.#tickWith(bio);
      if (!isWrite) return this.#toOrigin(bio);
      return this.#invalidate(bio, oblock, cblock);
    }
    const within = bio.sector % cache.blockSectors;
    const fastSector = cblock * cache.blockSectors + within;
    if (isWrite) {
      cache.discards.clear(oblock);
      const goesThrough = cache.isAfterCrash || !cache.isDirty(cblock);
      if (ioMode === IoMode.WRITETHROUGH && goesThrough) return this.#writeBoth(bio, fastSector);
      cache.setDirty(cblock);
    }
    this.#tickWith(bio);
    bio.device = cache.fast;
    bio.sector = fastSector;
    return this.#afterCommitIfFua(MapResult.REMAPPED, bio);
  }

  #toOrigin(bio: Bio): MapResult {
    this.#account(bio);
    bio.device = this.cache.origin;
    return MapResult.REMAPPED;
  }

  #account(bio: Bio): void {
    const perBio = bio.perBio as CacheBio;
    if (perBio.isAccounted) return;
    perBio.isAccounted = true;
    this.cache.originIo.begin();
  }

  /** At any time at most one bio is the one whose end is a tick. */
  #tickWith(bio: Bio): void {
    if (this.#isTickUnderWay || (bio.flags & BioFlag.FUA) !== 0) return;
    this.#isTickUnderWay = true;
    (bio.perBio as CacheBio).isTick = true;
  }

  #afterCommitIfFua(result: MapResult, bio: Bio): MapResult {
    if (result !== MapResult.REMAPPED || (bio.flags & BioFlag.FUA) === 0) return result;
    this.#account(bio);
    this.cache.committer.issueAfterCommit(bio);
    this.cache.committer.schedule();
    return MapResult.SUBMITTED;
  }

  /** Writethrough mode: both devices get the write, neither waits for the other. */
  #writeBoth(bio: Bio, fastSector: number): MapResult {
    this.#account(bio);
    if ((bio.flags & BioFlag.FUA) === 0) {
      this.#submitBoth(bio, fastSector);
      return MapResult.SUBMITTED;
    }
    this.cache.committer.continueAfterCommit((status) => {
      if (status === 0) this.#submitBoth(bio, fastSector);
      else bio.end(status);
    });
    this.cache.committer.schedule();
    return MapResult.SUBMITTED;
  }

  #submitBoth(bio: Bio, fastSector: number): void {
    let nrLeft = 2;
    let status = 0;
    const ended = (copy: Bio): void => {
      if (status === 0) status = copy.status;
      this.#copies.give(copy);
      if (--nrLeft === 0) bio.end(status);
    };
    const { origin, fast } = this.cache;
    const slowSector = bio.sector;
    for (const isOrigin of [true, false]) {
      const copy = this.#copies.take();
      copy.op = bio.op;
      copy.flags = bio.flags;
      copy.sector = isOrigin ? slowSector : fastSector;
      copy.nrSectors = bio.nrSectors;
      copy.data = bio.data;
      copy.dataOffset = bio.dataOffset;
      copy.onEnd = ended;
      (isOrigin ? origin : fast).submit(copy);
    }
  }

  #invalidate(bio: Bio, oblock: number, cblock: number): MapResult {
    this.#unshare(bio);
    this.#account(bio);
    if (!this.#migrations.invalidate(bio, oblock, cblock)) this.#defer([bio]);
    return MapResult.SUBMITTED;
  }

  #flush(bio: Bio): MapResult {
    const { cache } = this;
    bio.device = bio.targetBioNr === FLUSH_ORIGIN ? cache.origin : cache.fast;
    cache.committer.issueAfterCommit(bio);
    cache.committer.schedule();
    return MapResult.SUBMITTED;
  }

  #discard(bio: Bio): MapResult {
    const { cache } = this;
    cache.discards.addSectors(bio.sector, bio.endSector);
    if (cache.features.discardPassdown) {
      bio.device = cache.origin;
      return MapResult.REMAPPED;
    }
    bio.end(0);
    return MapResult.SUBMITTED;
  }

  override endIo(bio: Bio): number {
    const perBio = bio.perBio as CacheBio;
    if (perBio.isTick) {
      perBio.isTick = false;
      this.#isTickUnderWay = false;
      this.cache.policy.tick();
    }
    if (perBio.isAccounted) {
      perBio.isAccounted = false;
      this.cache.originIo.end();
    }
    this.#unshare(bio);
    return bio.status;
  }

  #unshare(bio: Bio): void {
    const perBio = bio.perBio as CacheBio;
    const { lock } = perBio;
    if (lock === null) return;
    perBio.lock = null;
    this.cache.locks.unshare(lock);
  }

  // --- bios that wait

  #defer(bios: readonly Bio[]): void {
    if (bios.length === 0) return;
    for (const bio of bios) this.#deferred.push(bio);
    this.#wake();
  }

  #wake(): void {
    if (this.#isWoken) return;
    this.#isWoken = true;
    this.cache.context.clock.soon(() => {
      this.#isWoken = false;
      this.#mapDeferred();
    });
  }

  #mapDeferred(): void {
    for (const bio of this.#deferred.drain()) {
      if (this.#isRequeueing) {
        bio.end(STATUS_REQUEUE);
      } else if (this.#map(bio) === MapResult.REMAPPED) {
        this.cache.issue(bio);
      }
    }
  }

  #wakeMigrations(): void {
    if (this.cache.features.ioMode !== IoMode.PASSTHROUGH) this.#migrations.wake();
  }

  // --- life cycle

  override presuspend(): void {
    if (!this.cache.context.owner.isNoflushSuspending) return;
    this.#isRequeueing = true;
    this.#mapDeferred();
  }

  override async postsuspend(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = null;
    await this.#migrations.stop();
    await this.cache.committer.idle();
    this.#isRequeueing = false;
    this.#isSuspended = true;
    await saveState(this.cache);
  }

  override async preresume(): Promise<void> {
    await this.#loading.resume();
  }

  override resume(): void {
    this.#isSuspended = false;
    this.#migrations.allow();
    this.#tick();
  }

  #tick(): void {
    this.#timer = this.cache.context.clock.after(TICK_MS, () => this.#tick());
    this.cache.policy.tick();
    this.#wakeMigrations();
    this.cache.committer.schedule();
  }

  override destroy(): void {
    this.#metadataTable.release(this.cache.metadata);
  }

  // --- what others ask

  override async status(kind: StatusKind, noflush: boolean): Promise<string> {
    if (kind === 'TABLE') return tableLine(this.#devices, this.#words);
    if (this.cache.hasFailed) return 'Fail';
    if (!noflush && !this.#isSuspended) await this.cache.commit(false);
    return statusLine(this.cache);
  }

  override iterateDevices(visit: (used: UsedDevice, begin: number, length: number) => void): void {
    visit(this.#devices.fast, 0, this.cache.fast.sizeSectors);
    visit(this.#devices.origin, 0, this.length);
  }

  override ioHints(limits: Limits): void {
    const blockBytes = this.cache.blockSectors * SECTOR_SIZE;
    if (limits.ioOpt < blockBytes || limits.ioOpt % blockBytes !== 0) {
      limits.ioMin = blockBytes;
      limits.ioOpt = blockBytes;
    }
    this.#checkPassdown();
    const { discards, origin, features } = this.cache;
    if (features.discardPassdown) {
      limits.discardGranularity = origin.limits.discardGranularity;
      limits.maxDiscardSectors = origin.limits.maxDiscardSectors;
    } else {
      limits.discardGranularity = discards.blockSectors * SECTOR_SIZE;
      limits.maxDiscardSectors = Math.min(discards.blockSectors * 1024, this.length);
    }
    limits.discardZeroes = false;
    limits.maxWriteZeroesSectors = 0;
  }

  /** Turns passdown off where the origin cannot discard a block. */
  #checkPassdown(): void {
    const { features, origin, blockSectors } = this.cache;
    if (!features.discardPassdown) return;
    const max = origin.limits.maxDiscardSectors;
    if (max >= blockSectors) return;
    const reason = max === 0 ? 'discard unsupported' : 'max discard sectors smaller than a block';
    const text = `Origin device (${origin.name}) ${reason}: Disabling discard passdown.`;
    this.cache.context.log.write('warn', `cache: ${text}`);
    features.discardPassdown = false;
  }

  override blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    // What is cached may be newer than a hole of the origin.
    const { cache } = this;
    if (cache.policy.residency > 0) return visit(nrSectors, 0);
    return deviceStatus(cache.origin, sector - this.begin, nrSectors, visit);
  }
}
