/**
 * Migrations: promotions, demotions and writebacks, and the invalidation of a block that is written
 * in passthrough mode. Answers to the dm_cache_migration state machine in
 * drivers/md/dm-cache-target.c (spec: cache, 11.5 and 12).
 *
 *   lock (no writes) ─► quiesce ─► copy ─► raise it (nothing) ─► quiesce ─► metadata ─► finish
 *   overwrite: lock (nothing) ─► quiesce ─► the bio itself ─► metadata ─► finish
 *   demotion: the metadata step waits for its commit: otherwise the cblock could be used again, and
 *     a crash would bring the old mapping back over foreign data
 *
 * Every migration ends: the policy hears of it, the lock is given back, and who waited is mapped
 * anew. An overwrite with FUA ends after the commit that maps it.
 */
import { errno } from '../../base/errno.ts';
import { BioFlag, type Bio } from '../../block/bio.ts';
import { Copier, zeroRange } from '../../block/copy.ts';
import { WorkOp, type PolicyWork } from '../policy/policy.ts';
import { LockLevel, type BlockLock } from './block-locks.ts';
import type { Cache } from './cache.ts';

interface Migration {
  readonly work: PolicyWork;
  readonly lock: BlockLock;
  /** The write that makes the block's content, for a promotion without copy. */
  overwrite: Bio | null;
  readonly isBackground: boolean;
}

export interface MigrationHost {
  /** Bios that waited, to be mapped again. */
  defer(bios: readonly Bio[]): void;
  /** Whether `bio` may become the content of its block without a copy. */
  isOptimisable(bio: Bio, oblock: number): boolean;
}

export class Migrations {
  readonly #cache: Cache;
  readonly #host: MigrationHost;
  readonly #copier = new Copier();
  /** False while suspended. */
  #isAllowed = false;
  #isWoken = false;
  /** Running ones, overwrites and invalidations included; and those of the background. */
  #nrRunning = 0;
  #nrBackground = 0;
  #whenIdle: (() => void)[] = [];

  constructor(cache: Cache, host: MigrationHost) {
    this.#cache = cache;
    this.#host = host;
  }

  // --- life cycle

  allow(): void {
    this.#isAllowed = true;
  }

  /** Starts none any more; resolves when those that run have ended. */
  async stop(): Promise<void> {
    this.#isAllowed = false;
    while (this.#nrRunning > 0) {
      await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
    }
  }

  // --- background

  /** Does what the policy has to do, soon. */
  wake(): void {
    if (this.#isWoken || !this.#isAllowed) return;
    this.#isWoken = true;
    this.#cache.context.clock.soon(() => {
      this.#isWoken = false;
      this.#startAll();
    });
  }

  #startAll(): void {
    for (;;) {
      if (!this.#isAllowed) return;
      const work = this.#cache.policy.getBackgroundWork(this.#isIdle);
      if (work === null || !this.start(work, null)) return;
    }
  }

  /** Nothing goes to the origin, and one more background migration is within the threshold. */
  get #isIdle(): boolean {
    const { originIo, blockSectors, migrationThreshold } = this.#cache;
    const sectors = (this.#nrBackground + 1) * blockSectors;
    return originIo.isIdle && BigInt(sectors) <= migrationThreshold;
  }

  // --- the steps

  /** Starts a migration; false if it cannot be: then the policy knows already. */
  start(work: PolicyWork, overwrite: Bio | null): boolean {
    const { locks, policy } = this.#cache;
    const level = overwrite === null ? LockLevel.WRITES : LockLevel.ALL;
    const lock = this.#isAllowed ? locks.lock(work.oblock, level) : null;
    if (lock === null) {
      policy.completeBackgroundWork(work, false);
      if (overwrite !== null) this.#host.defer([overwrite]);
      return false;
    }
    const isBackground = overwrite === null;
    const migration: Migration = { work, lock, overwrite, isBackground };
    this.#nrRunning++;
    if (isBackground) this.#nrBackground++;
    locks.quiesce(lock, () => this.#copy(migration));
    return true;
  }

  #copy(migration: Migration): void {
    const { overwrite, work } = migration;
    if (overwrite !== null) {
      if (this.#host.isOptimisable(overwrite, work.oblock)) {
        this.#overwrite(migration, overwrite);
        return;
      }
      // Things have changed meanwhile: it waits, and the block is copied like any other.
      migration.overwrite = null;
      migration.lock.waiting.push(overwrite);
    }
    if (this.#isCopyNeeded(work)) this.#copyBlock(migration);
    else this.#copied(migration);
  }

  #isCopyNeeded({ op, oblock, cblock }: PolicyWork): boolean {
    const { discards, kernelQuirks } = this.#cache;
    // A promoted block that is not copied shows what the fast device held before.
    if (op === WorkOp.PROMOTE) return !kernelQuirks || !discards.has(oblock);
    return this.#cache.isDirty(cblock) && !discards.has(oblock);
  }

  #copyBlock(migration: Migration): void {
    const { op, oblock, cblock } = migration.work;
    const { blockSectors, fast, origin } = this.#cache;
    const slow = { device: origin, sector: oblock * blockSectors };
    const cached = { device: fast, sector: cblock * blockSectors };
    const [from, to] = op === WorkOp.PROMOTE ? [slow, cached] : [cached, slow];
    this.#copier.copy(from, to, blockSectors, (status) => {
      if (op !== WorkOp.PROMOTE) this.#cache.originWritten();
      if (status === 0) this.#copied(migration);
      else this.#finish(migration, status);
    });
  }

  /** The content is where it belongs; now nobody may even read. */
  #copied(migration: Migration): void {
    const { locks } = this.#cache;
    const { lock } = migration;
    locks.raise(lock, LockLevel.ALL);
    locks.quiesce(lock, () => this.#updateMetadata(migration));
  }

  #overwrite(migration: Migration, bio: Bio): void {
    const { blockSectors, fast } = this.#cache;
    const begin = migration.work.cblock * blockSectors;
    const within = bio.sector % blockSectors;
    const { onEnd } = bio;
    const issue = (): void => {
      bio.device = fast;
      bio.sector = begin + within;
      bio.onEnd = (ended) => {
        bio.onEnd = onEnd;
        if (ended.status === 0) this.#updateMetadata(migration);
        else this.#finish(migration, ended.status);
      };
      fast.submit(bio);
    };
    if (bio.nrSectors === blockSectors || this.#cache.kernelQuirks) {
      issue();
      return;
    }
    // A part of a discarded block: the rest must not show what the fast device held before.
    zeroRange(fast, begin, blockSectors, 0, (status) => {
      if (status === 0) issue();
      else this.#finish(migration, status);
    });
  }

  #updateMetadata(migration: Migration): void {
    // Nothing may be changed while a commit runs.
    this.#cache.whenMetadataIdle(() => this.#updateNow(migration));
  }

  #updateNow(migration: Migration): void {
    const { metadata, committer } = this.#cache;
    const { op, oblock, cblock } = migration.work;
    if (op === WorkOp.WRITEBACK) {
      this.#finish(migration, 0);
      return;
    }
    try {
      if (op === WorkOp.PROMOTE) {
        metadata.insertMapping(cblock, oblock);
        this.#cache.fastWritten();
      } else {
        metadata.removeMapping(cblock);
      }
    } catch (error) {
      const what = op === WorkOp.PROMOTE ? 'insert mapping' : 'update on disk metadata';
      this.#cache.log('error', `migration failed; couldn't ${what}`);
      this.#cache.operationFailed(error);
      this.#finish(migration, errno.EIO);
      return;
    }
    if (!this.#mustCommit(migration)) {
      this.#finish(migration, 0);
      return;
    }
    committer.continueAfterCommit((status) => this.#finish(migration, status));
    committer.schedule();
  }

  #mustCommit({ work, overwrite }: Migration): boolean {
    if (work.op === WorkOp.DEMOTE) return true;
    const isFua = overwrite !== null && (overwrite.flags & BioFlag.FUA) !== 0;
    return isFua && !this.#cache.kernelQuirks;
  }

  #finish(migration: Migration, status: number): void {
    const { work, overwrite, lock } = migration;
    switch (work.op) {
      case WorkOp.PROMOTE:
        this.#finishPromotion(migration, status);
        break;
      case WorkOp.DEMOTE:
        if (status === 0) {
          this.#cache.forceClean(work.cblock);
          this.#cache.statistics.demotions++;
        }
        this.#cache.policy.completeBackgroundWork(work, status === 0);
        break;
      case WorkOp.WRITEBACK:
        if (status === 0) this.#cache.forceClean(work.cblock);
        this.#cache.policy.completeBackgroundWork(work, status === 0);
        break;
    }
    if (migration.isBackground) this.#nrBackground--;
    // What failed is tried again at the next tick: at once would be for ever.
    this.#release(lock, status === 0);
    overwrite?.end(status);
  }

  #finishPromotion({ work, overwrite }: Migration, status: number): void {
    const { discards, policy, statistics } = this.#cache;
    discards.clear(work.oblock);
    if (status === 0) statistics.promotions++;
    policy.completeBackgroundWork(work, status === 0);
    if (status !== 0) return;
    if (overwrite === null) this.#cache.forceClean(work.cblock);
    else this.#cache.setDirty(work.cblock);
  }

  #release(lock: BlockLock, isMoreWanted: boolean): void {
    this.#host.defer(this.#cache.locks.unlock(lock));
    this.#nrRunning--;
    if (isMoreWanted) this.wake();
    if (this.#nrRunning > 0) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  // --- invalidation

  /**
   * A write hit in passthrough mode: the mapping goes, for good, before `bio` is sent to the
   * origin. False if the block is locked: then the bio is to be mapped again later.
   */
  invalidate(bio: Bio, oblock: number, cblock: number): boolean {
    const { locks } = this.#cache;
    const lock = this.#isAllowed ? locks.lock(oblock, LockLevel.ALL) : null;
    if (lock === null) return false;
    this.#nrRunning++;
    locks.quiesce(lock, () =>
      this.#cache.whenMetadataIdle(() => this.#removeMapping(bio, lock, cblock)),
    );
    return true;
  }

  #removeMapping(bio: Bio, lock: BlockLock, cblock: number): void {
    const { metadata, policy, committer } = this.#cache;
    try {
      metadata.removeMapping(cblock);
    } catch (error) {
      this.#cache.operationFailed(error);
      this.#invalidated(bio, lock, errno.EIO);
      return;
    }
    committer.continueAfterCommit((status) => {
      if (status !== 0) {
        // The policy keeps the block: the next write must not pass it by.
        this.#invalidated(bio, lock, errno.EIO);
        return;
      }
      policy.invalidateMapping(cblock);
      this.#writeOrigin(bio, lock);
    });
    committer.schedule();
  }

  /** The lock is held until the write has ended: whoever comes later sees the new data. */
  #writeOrigin(bio: Bio, lock: BlockLock): void {
    const { onEnd } = bio;
    bio.device = this.#cache.origin;
    bio.onEnd = (ended) => {
      bio.onEnd = onEnd;
      if (ended.status === 0) this.#cache.statistics.demotions++;
      this.#invalidated(bio, lock, ended.status);
    };
    this.#cache.issue(bio);
  }

  #invalidated(bio: Bio, lock: BlockLock, status: number): void {
    this.#release(lock, false);
    bio.end(status);
  }
}
