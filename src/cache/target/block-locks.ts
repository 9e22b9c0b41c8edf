/**
 * BlockLocks: one lock for each origin block that is in use, so that no bio meets a block that is
 * being moved. Answers to drivers/md/dm-bio-prison-v2.c (spec: cache, 11.3).
 *
 * Bios hold a lock shared: writes ask at level WRITES, reads at level ALL. A migration holds it
 * exclusively at a level, which keeps out what asks at that level or below; it can raise the level
 * later. An exclusive holder waits for the shared ones that were there before it (`quiesce`).
 *
 *   exclusive at WRITES: reads go on, writes wait
 *   exclusive at ALL:    everything waits
 *
 * Hot path: `share`, `unshare`. Locks exist while somebody holds them, and are used again.
 */
import { assert } from '../../base/error.ts';
import { BioList, type Bio } from '../../block/bio.ts';

export const LockLevel = { WRITES: 0, ALL: 1 } as const;
export type LockLevel = (typeof LockLevel)[keyof typeof LockLevel];

/** No level: not held exclusively. */
const NOT_EXCLUSIVE = -1;
const FREE_LOCKS_MAX = 1024;

export class BlockLock {
  oblock = 0;
  nrShared = 0;
  exclusive: LockLevel | typeof NOT_EXCLUSIVE = NOT_EXCLUSIVE;
  /** Bios that were refused. */
  readonly waiting = new BioList();
  /** What the exclusive holder does when nobody shares the lock any more. */
  quiesced: (() => void) | null = null;
}

export class BlockLocks {
  readonly #locks = new Map<number, BlockLock>();
  readonly #free: BlockLock[] = [];

  /** How many blocks are locked. */
  get size(): number {
    return this.#locks.size;
  }

  #take(oblock: number): BlockLock {
    const lock = this.#free.pop() ?? new BlockLock();
    lock.oblock = oblock;
    this.#locks.set(oblock, lock);
    return lock;
  }

  #give(lock: BlockLock): void {
    this.#locks.delete(lock.oblock);
    if (this.#free.length < FREE_LOCKS_MAX) this.#free.push(lock);
  }

  /** Shares the lock of `oblock`; null if it is refused: then `bio` waits for it. */
  share(oblock: number, level: LockLevel, bio: Bio): BlockLock | null {
    const lock = this.#locks.get(oblock) ?? this.#take(oblock);
    if (level <= lock.exclusive) {
      lock.waiting.push(bio);
      return null;
    }
    lock.nrShared++;
    return lock;
  }

  /** Gives back a shared lock. */
  unshare(lock: BlockLock): void {
    lock.nrShared--;
    if (lock.nrShared > 0) return;
    if (lock.exclusive === NOT_EXCLUSIVE) {
      this.#give(lock);
      return;
    }
    const { quiesced } = lock;
    lock.quiesced = null;
    quiesced?.();
  }

  /** Locks `oblock` exclusively; null if somebody else has. The holder quiesces before it acts. */
  lock(oblock: number, level: LockLevel): BlockLock | null {
    const lock = this.#locks.get(oblock) ?? this.#take(oblock);
    if (lock.exclusive !== NOT_EXCLUSIVE) return null;
    lock.exclusive = level;
    return lock;
  }

  /** Raises the level of an exclusive lock; the holder quiesces again. */
  raise(lock: BlockLock, level: LockLevel): void {
    assert(lock.exclusive !== NOT_EXCLUSIVE, 'only an exclusive lock has a level');
    lock.exclusive = level;
  }

  /** Calls `then` when nobody shares the lock: now, or when the last one has gone. */
  quiesce(lock: BlockLock, then: () => void): void {
    assert(lock.quiesced === null, 'one holder waits');
    if (lock.nrShared === 0) then();
    else lock.quiesced = then;
  }

  /** Gives back an exclusive lock; the bios that waited are the caller's to map again. */
  unlock(lock: BlockLock): Bio[] {
    assert(lock.exclusive !== NOT_EXCLUSIVE, 'an unlocked block was locked');
    lock.exclusive = NOT_EXCLUSIVE;
    const bios = lock.waiting.drain();
    if (lock.nrShared === 0) this.#give(lock);
    return bios;
  }
}
