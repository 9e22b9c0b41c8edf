/**
 * SmqPolicy: stochastic multi-queue, the policy that decides by how often blocks are accessed and
 * how long ago. Answers to drivers/md/dm-cache-policy-smq.c (spec: cache, 15.2 to 15.9).
 *
 * A cblock is in exactly one of these places, and is the number of its entry in all of them:
 *
 *     free list ─► promotion pending ─► clean or dirty queue ◄─► demotion or writeback pending
 *         ▲                │                     │                            │
 *         └────────────────┴─────────────────────┴────────────────────────────┘
 *
 * Invariants: what is mapped (not free, and no promotion pending) is in the index; what is pending
 * is in no queue and has an item in the tracker; the queue agrees with the dirty flag.
 * Does not: keep the statistics of the cache queues, which the kernel has but which decide nothing.
 *
 * Hot path: a lookup allocates nothing, but for an item of work where it finds something to move.
 */
import { assert } from '../../base/error.ts';
import { divDown } from '../../base/numbers.ts';
import { BackgroundTracker } from './background-tracker.ts';
import { EntryIndex } from './entry-index.ts';
import { EntryPool, NONE } from './entry-pool.ts';
import { HitBits } from './hit-bits.ts';
import { hotspotGeometry } from './hotspot-geometry.ts';
import { HotspotQueue } from './hotspot-queue.ts';
import { LEVEL_MAX, MultiQueue, NR_LEVELS } from './multi-queue.ts';
import {
  WorkOp,
  type LookupResult,
  type Policy,
  type PolicyOptions,
  type PolicyWork,
} from './policy.ts';
import { NR_SENTINELS, Sentinels } from './sentinels.ts';

const HINT_SIZE = 4;
const FREE_TARGET_PERCENT = 25;
/** Only blocks below this level are demoted. */
const DEMOTE_LEVELS = NR_LEVELS / 2;

const WRITEBACK_PERIOD_JIFFIES = 1000;
const DEMOTE_PERIOD_JIFFIES = 6000;
const CACHE_PERIOD_JIFFIES = 6000;

/** How the policies that share smq's structures differ. */
export interface SmqTraits {
  readonly name: string;
  /** Cleans blocks, and moves none in or out. */
  readonly isCleaner: boolean;
}

/** The level of a block that is loaded without a hint: spread out, and always the same. */
export function randomLevel(cblock: number): number {
  return (Math.imul(cblock, 0x61c88647) >>> 23) % NR_LEVELS;
}

export class SmqPolicy implements Policy {
  readonly name: string;
  readonly version = [2, 0, 0] as const;
  readonly hintSize = HINT_SIZE;

  /** The parts, for checks. */
  readonly pool: EntryPool;
  readonly index: EntryIndex;
  readonly clean: MultiQueue;
  readonly dirty: MultiQueue;
  readonly hotspots: HotspotQueue;
  readonly tracker = new BackgroundTracker();

  readonly #isCleaner: boolean;
  readonly #jiffies: () => number;
  readonly #freeTarget: number;
  readonly #writebackSentinels: Sentinels;
  readonly #demoteSentinels: Sentinels;
  readonly #hits: HitBits;
  #nextCachePeriod: number;
  #migrationsAllowed: boolean;

  constructor(options: PolicyOptions, traits: SmqTraits = { name: 'smq', isCleaner: false }) {
    const { nrCacheBlocks, blockSectors, originSectors, jiffies } = options;
    this.name = traits.name;
    this.#isCleaner = traits.isCleaner;
    this.#migrationsAllowed = !traits.isCleaner;
    this.#jiffies = jiffies;
    this.#freeTarget = divDown(nrCacheBlocks * FREE_TARGET_PERCENT, 100);
    const now = jiffies();
    const pool = new EntryPool(nrCacheBlocks, 2 * NR_SENTINELS);
    this.pool = pool;
    this.index = new EntryIndex(pool);
    this.clean = new MultiQueue(pool);
    this.dirty = new MultiQueue(pool);
    const first = nrCacheBlocks;
    const second = first + NR_SENTINELS;
    this.#writebackSentinels = new Sentinels(
      pool,
      first,
      this.dirty,
      WRITEBACK_PERIOD_JIFFIES,
      now,
    );
    this.#demoteSentinels = new Sentinels(pool, second, this.clean, DEMOTE_PERIOD_JIFFIES, now);
    this.#hits = new HitBits(nrCacheBlocks);
    this.#nextCachePeriod = now;
    const geometry = hotspotGeometry(nrCacheBlocks, blockSectors, originSectors);
    this.hotspots = new HotspotQueue(geometry, now);
  }

  get residency(): number {
    return this.pool.nrAllocated;
  }

  lookup(oblock: number, isWrite: boolean, isFastPromote: boolean, out: LookupResult): void {
    this.#lookup(oblock, isWrite && isFastPromote, false, out);
  }

  lookupWithWork(
    oblock: number,
    isWrite: boolean,
    isFastPromote: boolean,
    out: LookupResult,
  ): void {
    this.#lookup(oblock, isWrite && isFastPromote, true, out);
  }

  #lookup(oblock: number, isFastWrite: boolean, handsOutWork: boolean, out: LookupResult): void {
    out.work = null;
    out.mayHaveWork = false;
    const e = this.index.find(oblock);
    out.cblock = e;
    if (e !== NONE) {
      this.#hit(e);
      return;
    }
    const isHot = this.hotspots.access(oblock);
    if (!isHot && !(isFastWrite && this.pool.nrFree > 0)) return;
    out.mayHaveWork = true;
    const work = this.#promote(oblock, handsOutWork);
    if (handsOutWork) out.work = work;
  }

  #hit(e: number): void {
    if (this.pool.isPending(e) || this.#hits.has(e)) return;
    this.#hits.set(e);
    if (this.pool.isDirty(e)) {
      const level = this.pool.level[e] as number;
      const sentinels = this.#writebackSentinels;
      this.dirty.requeue(e, 1, sentinels.old(level), sentinels.current(level));
    } else {
      this.clean.requeue(e, 1, NONE, NONE);
    }
  }

  /** Takes a cblock for a block and hands the item in; null if that cannot be now. */
  #promote(oblock: number, handsOutWork: boolean): PolicyWork | null {
    if (!this.#migrationsAllowed) return null;
    if (this.pool.nrFree === 0) {
      // The promotion itself has to wait until the block is accessed again.
      if (this.tracker.nrPendingDemotions < this.#freeTarget) this.#queueDemotion();
      return null;
    }
    if (this.tracker.isPending(oblock)) return null;
    const e = this.pool.allocate();
    this.pool.setPending(e, true);
    const work: PolicyWork = { op: WorkOp.PROMOTE, oblock, cblock: e };
    if (handsOutWork ? this.tracker.issue(work) : this.tracker.queue(work)) return work;
    this.pool.free(e);
    return null;
  }

  #queueDemotion(): void {
    const e = this.clean.peek(DEMOTE_LEVELS, true);
    if (e === NONE) {
      if (this.dirty.nrElements > 0) this.#queueWriteback(false);
      return;
    }
    this.#queueFrom(this.clean, e, WorkOp.DEMOTE);
  }

  #queueWriteback(isIdle: boolean): void {
    const e = this.dirty.peek(NR_LEVELS, isIdle);
    if (e !== NONE) this.#queueFrom(this.dirty, e, WorkOp.WRITEBACK);
  }

  #queueFrom(queue: MultiQueue, e: number, op: WorkOp): void {
    queue.remove(e);
    this.pool.setPending(e, true);
    const oblock = this.pool.block[e] as number;
    if (this.tracker.queue({ op, oblock, cblock: e })) return;
    this.pool.setPending(e, false);
    queue.pushFront(e);
  }

  getBackgroundWork(isIdle: boolean): PolicyWork | null {
    const work = this.tracker.next();
    if (work !== null) return work;
    if (!isIdle && !this.#isCleaner) return null;
    this.#queueWriteback(isIdle);
    return this.tracker.next();
  }

  completeBackgroundWork(work: PolicyWork, success: boolean): void {
    const { op, oblock, cblock: e } = work;
    this.tracker.complete(work);
    this.pool.setPending(e, false);
    if (op === WorkOp.PROMOTE) {
      if (success) {
        this.pool.block[e] = oblock;
        this.pool.level[e] = LEVEL_MAX;
        this.index.insert(e);
        this.#queueOf(e).push(e);
      } else {
        this.pool.free(e);
      }
    } else if (op === WorkOp.DEMOTE && success) {
      this.index.remove(e);
      this.pool.free(e);
    } else {
      this.#queueOf(e).push(e);
    }
  }

  setDirty(cblock: number): void {
    this.#setDirty(cblock, true);
  }

  clearDirty(cblock: number): void {
    this.#setDirty(cblock, false);
  }

  #setDirty(e: number, dirty: boolean): void {
    assert(this.pool.isAllocated(e), 'a cblock that is made dirty or clean is allocated');
    if (this.pool.isPending(e)) {
      this.pool.setDirty(e, dirty);
      return;
    }
    this.#queueOf(e).remove(e);
    this.pool.setDirty(e, dirty);
    this.#queueOf(e).push(e);
  }

  loadMapping(oblock: number, cblock: number, isDirty: boolean, hint: number | null): void {
    this.pool.allocateThis(cblock);
    this.pool.block[cblock] = oblock;
    this.pool.level[cblock] = hint === null ? randomLevel(cblock) : Math.min(hint, LEVEL_MAX);
    this.pool.setDirty(cblock, isDirty);
    this.index.insert(cblock);
    // Ahead of the sentinels: nothing is known to have touched it lately.
    this.#queueOf(cblock).pushFront(cblock);
  }

  isMapped(cblock: number): boolean {
    return this.pool.isAllocated(cblock);
  }

  invalidateMapping(cblock: number): boolean {
    if (!this.pool.isAllocated(cblock)) return false;
    assert(!this.pool.isPending(cblock), 'a cblock that is invalidated is not being moved');
    this.#queueOf(cblock).remove(cblock);
    this.index.remove(cblock);
    this.pool.free(cblock);
    return true;
  }

  getHint(cblock: number): number {
    return this.pool.isAllocated(cblock) ? (this.pool.level[cblock] as number) : 0;
  }

  tick(): void {
    const now = this.#jiffies();
    this.#writebackSentinels.tick(now);
    this.#demoteSentinels.tick(now);
    this.hotspots.tick(now);
    if (now <= this.#nextCachePeriod) return;
    this.#nextCachePeriod = now + CACHE_PERIOD_JIFFIES;
    this.#hits.clearAll();
    this.dirty.redistribute();
    this.clean.redistribute();
  }

  allowMigrations(allowed: boolean): void {
    this.#migrationsAllowed = allowed && !this.#isCleaner;
  }

  setConfigValue(_key: string, _value: string): boolean {
    return false;
  }

  emitConfigValues(): string {
    return '0';
  }

  #queueOf(e: number): MultiQueue {
    return this.pool.isDirty(e) ? this.dirty : this.clean;
  }
}
