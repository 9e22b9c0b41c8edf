/**
 * CacheSimulator: a cache around a policy, without any data: the rules of the I/O path, of
 * migrations, of the committer and of the timer (spec: cache, 11 to 13), in simulated time. Given
 * the begin and end of each request, as measured in a real kernel, it says what the kernel's
 * counters should be.
 *
 * Everything but requests, copies and commits takes no time. Requests lie within one block; there
 * are no flushes, FUA or discards.
 */
import assert from 'node:assert/strict';
import { createPolicy } from '../../../src/cache/policy/registry.ts';
import {
  makeLookupResult,
  WorkOp,
  type Policy,
  type PolicyWork,
} from '../../../src/cache/policy/policy.ts';

const JIFFY_MS = 10;
/** The timer's period. */
const TIMER_JIFFIES = 100;
/** For such periods the kernel's timer wheel looks at every eighth jiffy only. */
const WHEEL_JIFFIES = 8;
const IDLE_MS = 1000;

export interface SimulatedRequest {
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

export interface SimulatedCacheOptions extends CacheGeometry {
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
  readHits: number;
  readMisses: number;
  writeHits: number;
  writeMisses: number;
  demotions: number;
  promotions: number;
}

/** Exclusive levels of a lock, and what a bio asks for. */
const LOCK_WRITES = 0;
const LOCK_READS_AND_WRITES = 1;
const UNLOCKED = -1;

interface Lock {
  nrShared: number;
  exclusive: number;
  waiting: SimulatedRequest[];
  /** Goes on once nobody shares the lock. */
  onQuiet: (() => void) | null;
}

interface Event {
  readonly atMs: number;
  readonly run: () => void;
}

export class CacheSimulator {
  readonly counters: Counters = {
    readHits: 0,
    readMisses: 0,
    writeHits: 0,
    writeMisses: 0,
    demotions: 0,
    promotions: 0,
  };
  /** The most background migrations that ran when one was begun in idle time. */
  nrRunningInIdleMax = 0;
  readonly policy: Policy;
  readonly dirty = new Set<number>();
  /** As the message sets it. */
  migrationThreshold: number;
  readonly #options: SimulatedCacheOptions;
  readonly #blockBytes: number;
  readonly #events: Event[] = [];
  #nowMs: number;

  readonly #locks = new Map<number, Lock>();
  #tickBio: SimulatedRequest | null = null;
  #nrAccounted = 0;
  #lastAccountedMs = -Infinity;
  #nrRunning = 0;
  #commitScheduled = false;
  #commitRunning = false;
  #commitWaiters: (() => void)[] = [];

  constructor(options: SimulatedCacheOptions) {
    this.#options = options;
    this.#blockBytes = options.blockSectors * 512;
    this.#nowMs = options.loadedMs;
    this.migrationThreshold = options.migrationThreshold;
    const policy = createPolicy(options.policy ?? 'smq', {
      ...options,
      jiffies: () => this.#jiffies,
      warn: () => undefined,
    });
    assert.ok(policy !== null);
    this.policy = policy;
    for (const [cblock, oblock] of options.cached.entries()) {
      policy.loadMapping(oblock, cblock, options.isCachedDirty, options.hint ?? null);
      if (options.isCachedDirty) this.dirty.add(cblock);
    }
    this.#at(options.resumedMs, () => this.#timer());
  }

  /** Sends requests, in order of their begins. */
  send(requests: readonly SimulatedRequest[]): void {
    for (const request of requests) {
      this.runUntil(request.beginMs);
      this.#map(request);
    }
  }

  /** Lets time pass. */
  runUntil(ms: number): void {
    for (;;) {
      const event = this.#events[0];
      if (event === undefined || event.atMs > ms) break;
      this.#events.shift();
      this.#nowMs = event.atMs;
      event.run();
    }
    this.#nowMs = Math.max(this.#nowMs, ms);
  }

  #at(atMs: number, run: () => void): void {
    const place = this.#events.findLastIndex((event) => event.atMs <= atMs);
    this.#events.splice(place + 1, 0, { atMs: Math.max(atMs, this.#nowMs), run });
  }

  #timer(): void {
    this.policy.tick();
    this.#wakeWorker();
    this.#scheduleCommit();
    const earliest = this.#jiffies + TIMER_JIFFIES;
    const jiffies = Math.floor(earliest / WHEEL_JIFFIES + 1) * WHEEL_JIFFIES;
    this.#at(jiffies * JIFFY_MS, () => this.#timer());
  }

  /** Like the kernel's, jiffies begin at whole multiples of their length. */
  get #jiffies(): number {
    return Math.floor(this.#nowMs / JIFFY_MS);
  }

  // --- bios

  #map(bio: SimulatedRequest): void {
    const oblock = Math.floor(bio.offsetBytes / this.#blockBytes);
    const lock = this.#lockOf(oblock);
    if (lock.exclusive >= (bio.isWrite ? LOCK_WRITES : LOCK_READS_AND_WRITES)) {
      lock.waiting.push(bio);
      this.#scheduleCommit();
      return;
    }
    lock.nrShared++;
    const found = makeLookupResult();
    const isWriteback = this.#options.mode === 'writeback';
    if (isWriteback && bio.isWrite && bio.lengthBytes === this.#blockBytes) {
      this.policy.lookupWithWork(oblock, bio.isWrite, true, found);
      if (found.work !== null) {
        this.#unshare(oblock);
        this.#overwrite(found.work, bio);
        return;
      }
    } else {
      this.policy.lookup(oblock, bio.isWrite, false, found);
      if (found.mayHaveWork) this.#wakeWorker();
    }
    if (found.cblock === -1) this.#miss(bio, oblock);
    else this.#hit(bio, oblock, found.cblock);
  }

  #miss(bio: SimulatedRequest, oblock: number): void {
    this.counters[bio.isWrite ? 'writeMisses' : 'readMisses']++;
    this.#nrAccounted++;
    const isTickBio = this.#becomesTickBio(bio);
    this.#at(bio.endMs, () => {
      this.#endAccounted();
      this.#endBio(oblock, isTickBio);
    });
  }

  #hit(bio: SimulatedRequest, oblock: number, cblock: number): void {
    this.counters[bio.isWrite ? 'writeHits' : 'readHits']++;
    if (bio.isWrite && this.#options.mode === 'writethrough' && !this.dirty.has(cblock)) {
      this.#nrAccounted++;
      this.#at(bio.endMs, () => {
        this.#endAccounted();
        this.#endBio(oblock, false);
      });
      return;
    }
    if (bio.isWrite && !this.dirty.has(cblock)) this.#forceDirty(cblock);
    const isTickBio = this.#becomesTickBio(bio);
    this.#at(bio.endMs, () => this.#endBio(oblock, isTickBio));
  }

  #becomesTickBio(bio: SimulatedRequest): boolean {
    if (this.#tickBio !== null) return false;
    this.#tickBio = bio;
    return true;
  }

  #endBio(oblock: number, isTickBio: boolean): void {
    if (isTickBio) {
      this.#tickBio = null;
      this.policy.tick();
    }
    this.#unshare(oblock);
  }

  #endAccounted(): void {
    this.#nrAccounted--;
    this.#lastAccountedMs = this.#nowMs;
  }

  // --- migrations

  get #isIdle(): boolean {
    return (
      this.#nrAccounted === 0 &&
      this.#nowMs > this.#lastAccountedMs + IDLE_MS &&
      (this.#nrRunning + 1) * this.#options.blockSectors <= this.migrationThreshold
    );
  }

  #wakeWorker(): void {
    for (;;) {
      const isIdle = this.#isIdle;
      const work = this.policy.getBackgroundWork(isIdle);
      if (work === null) return;
      if (isIdle) this.nrRunningInIdleMax = Math.max(this.nrRunningInIdleMax, this.#nrRunning + 1);
      if (!this.#lockExclusively(work.oblock, LOCK_WRITES)) {
        this.policy.completeBackgroundWork(work, false);
        return;
      }
      this.#nrRunning++;
      this.#quiesce(work.oblock, () => this.#copy(work));
    }
  }

  #copy(work: PolicyWork): void {
    const copies = work.op === WorkOp.PROMOTE || this.dirty.has(work.cblock);
    this.#at(this.#nowMs + (copies ? this.#options.copyMs : 0), () => {
      this.#lockOf(work.oblock).exclusive = LOCK_READS_AND_WRITES;
      this.#quiesce(work.oblock, () => {
        const finish = (): void => this.#finishBackground(work);
        if (work.op === WorkOp.DEMOTE) this.#afterCommit(finish);
        else finish();
      });
    });
  }

  #finishBackground(work: PolicyWork): void {
    this.#nrRunning--;
    if (work.op === WorkOp.PROMOTE) {
      this.counters.promotions++;
      this.policy.completeBackgroundWork(work, true);
      this.#forceClean(work.cblock);
    } else {
      if (work.op === WorkOp.DEMOTE) this.counters.demotions++;
      this.#forceClean(work.cblock);
      this.policy.completeBackgroundWork(work, true);
    }
    this.#unlock(work.oblock);
    this.#wakeWorker();
  }

  /** A promotion whose data is the bio's own. */
  #overwrite(work: PolicyWork, bio: SimulatedRequest): void {
    assert.ok(this.#lockExclusively(work.oblock, LOCK_READS_AND_WRITES));
    this.#nrAccounted++;
    this.#quiesce(work.oblock, () =>
      this.#at(bio.endMs, () => {
        this.#endAccounted();
        this.counters.promotions++;
        this.policy.completeBackgroundWork(work, true);
        this.#forceDirty(work.cblock);
        this.#unlock(work.oblock);
        this.#wakeWorker();
      }),
    );
  }

  #forceDirty(cblock: number): void {
    this.dirty.add(cblock);
    this.policy.setDirty(cblock);
  }

  #forceClean(cblock: number): void {
    this.dirty.delete(cblock);
    this.policy.clearDirty(cblock);
  }

  // --- commits

  #afterCommit(go: () => void): void {
    this.#commitWaiters.push(go);
    this.#scheduleCommit();
  }

  #scheduleCommit(): void {
    this.#commitScheduled = true;
    if (this.#commitWaiters.length > 0) this.#commit();
  }

  #commit(): void {
    if (this.#commitRunning) return;
    this.#commitRunning = true;
    const waiters = this.#commitWaiters;
    this.#commitWaiters = [];
    this.#commitScheduled = false;
    this.#at(this.#nowMs + this.#options.commitMs, () => {
      this.#commitRunning = false;
      for (const go of waiters) go();
      if (this.#commitScheduled && this.#commitWaiters.length > 0) this.#commit();
    });
  }

  // --- locks

  #lockOf(oblock: number): Lock {
    let lock = this.#locks.get(oblock);
    if (lock === undefined) {
      lock = { nrShared: 0, exclusive: UNLOCKED, waiting: [], onQuiet: null };
      this.#locks.set(oblock, lock);
    }
    return lock;
  }

  #lockExclusively(oblock: number, level: number): boolean {
    const lock = this.#lockOf(oblock);
    if (lock.exclusive !== UNLOCKED) return false;
    lock.exclusive = level;
    return true;
  }

  #quiesce(oblock: number, go: () => void): void {
    const lock = this.#lockOf(oblock);
    if (lock.nrShared === 0) go();
    else lock.onQuiet = go;
  }

  #unshare(oblock: number): void {
    const lock = this.#lockOf(oblock);
    lock.nrShared--;
    if (lock.nrShared > 0 || lock.onQuiet === null) return;
    const go = lock.onQuiet;
    lock.onQuiet = null;
    go();
  }

  #unlock(oblock: number): void {
    const lock = this.#lockOf(oblock);
    const { waiting } = lock;
    this.#locks.delete(oblock);
    for (const bio of waiting) this.#map(bio);
  }
}
